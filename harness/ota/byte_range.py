"""The ``Range`` header of an HTTP request, as RFC 9110 section 14 reads it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]*)[ \t]*-[ \t]*([0-9]*)[ \t]*", re.IGNORECASE)
# No file has more bytes than 19 digits can count, and int() refuses texts of some thousand digits.
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start`` up to, not including, ``stop``; never empty."""

    start: int
    stop: int


class RangeUnsatisfiable(Exception):  # noqa: N818  (the RFC's own word for the 416 answer)
    """The header is well formed and names no byte that the file has: the answer is 416."""


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """What part of a file of `size_bytes` the header asks for; None means the whole file with status 200.

    A header that is malformed, in another unit or with several ranges is ignored, as the RFC allows.

    Raises:
        RangeUnsatisfiable: the first byte lies beyond the end, or a suffix of no bytes is asked for.
    """
    match = _ONE_RANGE.fullmatch(header) if header is not None else None
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        suffix = min(_number(last), size_bytes)
        if suffix == 0:
            raise RangeUnsatisfiable
        return ByteRange(size_bytes - suffix, size_bytes)
    start = _number(first)
    stop = _number(last) + 1 if last else size_bytes
    if last and stop <= start:
        return None
    if start >= size_bytes:
        raise RangeUnsatisfiable
    return ByteRange(start, min(stop, size_bytes))


def _number(digits: str) -> int:
    significant = digits.lstrip("0") or "0"
    return int(significant) if len(significant) <= _MOST_DIGITS else 10**_MOST_DIGITS
