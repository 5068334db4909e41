"""What lies in flash or eFuses after an operation that the supply did not outlast. Pure, and the same for one seed.

An erase of NOR flash first programs every bit to 0, so that all cells wear alike, and then lifts them to 1: what it
leaves half-way is the old content with bits cleared, zeros, noise, or ones with holes. A page program clears bits in
no order, so that of the page in progress any of them may be missing. eFuse bits are blown one after another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SECTOR_BYTES = 0x1000
PAGE_BYTES = 0x100
"""What one page program of a NOR flash writes at most, aligned."""

ERASED = 0xFF


@dataclass(frozen=True, slots=True)
class Extent:
    """How much of an operation was done: its first `size_bytes` bytes, for certain.

    `mixture` seeds what became of the unit in progress (the sector of an erase, the page of a write, the bits of a
    burn); None: it is as it was.
    """

    size_bytes: int
    mixture: int | None = None


def programmed(old: bytes, data: bytes, addr: int, extent: Extent) -> bytes:
    """The content at `addr` after a program of `data` over `old` (as long) that came as far as `extent`."""
    done = min(extent.size_bytes, len(data))
    mask = int.from_bytes(old[:done], "little") & int.from_bytes(data[:done], "little")
    new = mask.to_bytes(done, "little") + old[done:]
    if extent.mixture is None or done >= len(data):
        return new
    page_end = min(len(data), done + PAGE_BYTES - (addr + done) % PAGE_BYTES)
    chance = random.Random(extent.mixture)
    # A bit that is to become 0 has become 0, or not yet.
    page = bytes(
        was & (want | spared)
        for was, want, spared in zip(
            old[done:page_end], data[done:page_end], chance.randbytes(page_end - done), strict=True
        )
    )
    return new[:done] + page + new[page_end:]


def erased(old: bytes, extent: Extent) -> bytes:
    """What was `old` (whole sectors) after an erase that came as far as `extent`."""
    done = min(extent.size_bytes, len(old))
    new = b"\xff" * done + old[done:]
    if extent.mixture is None or done >= len(old):
        return new
    end = min(len(old), done - done % SECTOR_BYTES + SECTOR_BYTES)
    return new[:done] + half_erased(old[done:end], extent.mixture) + new[end:]


def burned(value: int, extent: Extent, size_bytes: int) -> int:
    """Which bits of `value` (a block of `size_bytes` bytes, its check bytes included) are blown."""
    done = min(extent.size_bytes, size_bytes)
    sure = value & ((1 << done * 8) - 1)
    if extent.mixture is None or done >= size_bytes:
        return sure
    return sure | value & random.Random(extent.mixture).getrandbits(size_bytes * 8)


def worn(content: bytes, addr: int, stuck: Mapping[int, int]) -> bytes:
    """`content` at `addr` as cells keep it of which some cannot be 1: `stuck` gives their bits by address."""
    hit = {at - addr: bits for at, bits in stuck.items() if addr <= at < addr + len(content)}
    if not hit:
        return content
    kept = bytearray(content)
    for at, bits in hit.items():
        kept[at] &= ~bits
    return bytes(kept)


def half_erased(old: bytes, seed: int) -> bytes:
    """A sector whose erase was broken off: which of `ERASE_MIXTURES`, and how, is the seed's."""
    make = list(ERASE_MIXTURES.values())[seed % len(ERASE_MIXTURES)]
    return make(old, random.Random(seed))


def _cleared(old: bytes, chance: random.Random) -> bytes:
    return bytes(was & kept for was, kept in zip(old, chance.randbytes(len(old)), strict=True))


def _zeros(old: bytes, _chance: random.Random) -> bytes:
    return bytes(len(old))


def _noise(old: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(len(old))


def _lifted(old: bytes, chance: random.Random) -> bytes:
    return bytes(was | raised for was, raised in zip(old, chance.randbytes(len(old)), strict=True))


def _nearly_erased(old: bytes, chance: random.Random) -> bytes:
    content = bytearray(b"\xff" * len(old))
    for _ in range(3):
        content[chance.randrange(len(old))] &= ~(1 << chance.randrange(8))
    return bytes(content)


def _begun(old: bytes, chance: random.Random) -> bytes:
    done = chance.randrange(1, 65)
    return b"\xff" * done + old[done:]


ERASE_MIXTURES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "some bits cleared": _cleared,
    "zeros": _zeros,
    "noise": _noise,
    "some bits lifted": _lifted,
    "erased but for a few bits": _nearly_erased,
    "erased at its beginning": _begun,
}
"""What an erase that was broken off may leave, by name; a seed chooses by its remainder."""
