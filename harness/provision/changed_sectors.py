"""Which sectors of a piece are not in flash yet, found by hashes on the chip. Pure but for the hash it is given.

Ciphertext is plain data here: one changed byte of an app changes the sectors from it on, in either form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from harness.provision.region import SECTOR_BYTES

BLOCK_BYTES = 1 << 16
"""A block is compared by one hash; its sectors are looked at one by one only when they may differ in part."""

Md5 = Callable[[int, int], str]
"""MD5 over raw flash (offset, size in bytes), 32 lower-case hexadecimal digits."""


def changed_sectors(offset: int, data: bytes, md5: Md5) -> tuple[int, ...]:
    """Offsets of the sectors, of which `data` at `offset` (a multiple of 4096) has other bytes than flash.

    Sectors that are blank on both sides are none of them. After a block that differs throughout, the next one that
    differs is taken to do so, too: in a shifted image every hash would be in vain.
    """
    if md5(offset, len(data)) == _md5(data):
        return ()
    found: list[int] = []
    shifted = False
    for start in range(0, len(data), BLOCK_BYTES):
        block = data[start : start + BLOCK_BYTES]
        there = md5(offset + start, len(block))
        if there == _md5(block):
            shifted = False
            continue
        sectors = range(0, len(block), SECTOR_BYTES)
        if there == _md5(b"\xff" * len(block)):
            changed = [at for at in sectors if block[at : at + SECTOR_BYTES].strip(b"\xff")]
        elif shifted:
            changed = list(sectors)
        else:
            changed = [
                at for at in sectors if _differs(offset + start + at, block[at : at + SECTOR_BYTES], md5)
            ]
            shifted = len(changed) == len(sectors)
        found += [offset + start + at for at in changed]
    return tuple(found)


def as_if_before(offset: int, data: bytes, changed: tuple[int, ...]) -> bytes:
    """Bytes that differ from `data` in every changed sector and nowhere else: for a tool that wants the old content."""
    before = bytearray(data)
    for at in changed:
        before[at - offset] ^= 0xFF
    return bytes(before)


def _differs(offset: int, sector: bytes, md5: Md5) -> bool:
    return md5(offset, len(sector)) != _md5(sector)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
