"""What flash and eFuses hold at one moment, as the difference to where a sequence started. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.twin.efuses import EfuseCells, Efuses
from harness.twin.half_done import SECTOR_BYTES, Extent, erased, programmed, worn
from harness.twin.operations import Change

FLASH_KINDS = frozenset({"erase", "write", "write-encrypted"})


DIGEST_BYTES = 8

Key = tuple[EfuseCells, tuple[bytes, ...]]


def in_sectors(content: bytes) -> tuple[bytes, ...]:
    """A whole flash, cut into its sectors."""
    return tuple(content[at : at + SECTOR_BYTES] for at in range(0, len(content), SECTOR_BYTES))


@dataclass(frozen=True, slots=True)
class StoredState:
    """Flash and eFuses. `base`: all sectors of the flash at the start; `sectors`: those that differ, by number."""

    base: tuple[bytes, ...] = field(repr=False)
    efuses: EfuseCells = field(repr=False)
    sectors: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def size_bytes(self) -> int:
        return len(self.base) * SECTOR_BYTES

    def sector(self, number: int) -> bytes:
        """The 4096 bytes of a sector."""
        changed = self.sectors.get(number)
        return changed if changed is not None else self.base[number]

    def read(self, addr: int, size: int) -> bytes:
        """The raw bytes at `addr`."""
        first, last = addr // SECTOR_BYTES, (addr + size + SECTOR_BYTES - 1) // SECTOR_BYTES
        start = addr - first * SECTOR_BYTES
        return b"".join(self.sector(number) for number in range(first, last))[start : start + size]

    def written(self, addr: int, content: bytes) -> StoredState:
        """The state with `content` at `addr` as it is."""
        first = addr // SECTOR_BYTES
        last = (addr + len(content) + SECTOR_BYTES - 1) // SECTOR_BYTES
        area = bytearray(b"".join(self.sector(number) for number in range(first, last)))
        start = addr - first * SECTOR_BYTES
        area[start : start + len(content)] = content
        changed = dict(self.sectors)
        for number in range(first, last):
            piece = bytes(area[(number - first) * SECTOR_BYTES :][:SECTOR_BYTES])
            # The same object where nothing changes: keys then compare by identity, and hash once.
            changed[number] = (
                changed.get(number, self.base[number]) if piece == self.sector(number) else piece
            )
        return replace(self, sectors=changed)

    def digest(self) -> str:
        """What tells this state from others of the same start, hexadecimal."""
        digest = hashlib.sha256(repr(self.efuses).encode())
        for number in sorted(self.sectors):
            if self.sectors[number] != self.base[number]:
                digest.update(number.to_bytes(4, "little") + self.sectors[number])
        return digest.hexdigest()[: 2 * DIGEST_BYTES]

    def key(self, sectors: Iterable[int]) -> Key:
        """What states are compared by: the eFuses, and the content of these sectors."""
        return self.efuses, tuple(self.sector(number) for number in sectors)


class Walker:
    """Does recorded operations again, one after another or as far as a cut let them."""

    def __init__(self, scratch: Efuses, stuck: Mapping[int, int]) -> None:
        """`scratch`: eFuses of the same chip, whose content does not matter. `stuck` as that of a `Flash`."""
        self._scratch = scratch
        self._stuck = stuck

    def after(self, state: StoredState, change: Change, extent: Extent) -> StoredState:
        """`state` after as much of `change` as `extent` says."""
        operation = change.operation
        if operation.kind not in FLASH_KINDS:
            self._scratch.restore(state.efuses)
            self._scratch.blow(operation.offset, change.data, extent)
            # Others look at the same eFuses, and at what is loaded from them.
            self._scratch.reload()
            return replace(state, efuses=self._scratch.snapshot())
        old = state.read(operation.offset, operation.length)
        erases = operation.kind == "erase"
        new = erased(old, extent) if erases else programmed(old, change.data, operation.offset, extent)
        return state.written(operation.offset, worn(new, operation.offset, self._stuck))

    def after_all(self, state: StoredState, changes: Iterable[Change]) -> StoredState:
        """`state` after all of `changes`."""
        for change in changes:
            state = self.after(state, change, Extent(_length(change)))
        return state


def _length(change: Change) -> int:
    return max(change.operation.length, len(change.data))
