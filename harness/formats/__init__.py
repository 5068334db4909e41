"""Bytes in, bytes out: the formats that lie in flash or travel to it. No I/O, no state, no chip access.

Every parser here raises `harness.errors.FormatError` and nothing else on bytes or text it cannot accept; the
message names the offset, line or entry, the field, what was found, and what to do.
"""
