"""Changes of flash in the order in which they happened, and the one form in which two records of them compare.

A flash driver cuts one call into page programs and block erases, a model does not: what both have in common are
contiguous stretches of one kind. Of the places only the part in a plan counts (a slot, an otadata record), of the
lengths only what they follow from (the size of the image), since images differ between a chip and this host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.formats.partition import Partition

FLASH_KINDS = ("erase", "write", "write-encrypted")
"""``write-encrypted`` went through the cipher engine; ``write`` did not, whatever it wrote."""

END_OF_FLASH_LOG = 1 << 62
"""Asks a link for nothing but where its log ends."""

SECTOR_BYTES = 0x1000


@dataclass(frozen=True, slots=True)
class FlashChange:
    """One erase or write; `offset` is a flash address, `length` counts bytes.

    `who` is ``rom``, ``stub``, ``host``, ``bootloader`` or ``app``; `boot` counts the board's boots.
    """

    boot: int
    who: str
    kind: str
    offset: int
    length: int
    at_s: float | None = field(default=None, compare=False)
    """When it began, Unix seconds; None: not known."""


def merged(changes: Iterable[FlashChange]) -> tuple[FlashChange, ...]:
    """The normal form: every change that goes on where the one before it ended, in kind as in place, joins it.

    An empty change is none. Changes of two boots, or of bootloader and application, never join.
    """
    joined: list[FlashChange] = []
    for change in changes:
        if not change.length:
            continue
        last = joined[-1] if joined else None
        if last is not None and change == replace(
            last, offset=last.offset + last.length, length=change.length
        ):
            joined[-1] = replace(last, length=last.length + change.length)
        else:
            joined.append(change)
    return tuple(joined)


@dataclass(frozen=True, slots=True)
class Terms:
    """What places and lengths of one board are called, so that a chip's and a twin's changes read alike."""

    places: Mapping[str, tuple[int, int]]
    """Name to offset and size. Places do not overlap."""
    lengths: Mapping[int, str] = field(default_factory=dict)
    """What a length follows from; others are given as they are."""

    @classmethod
    def of_update(
        cls, running: Partition, other: Partition, otadata: Partition, *, active: int | None, body_bytes: int
    ) -> Terms:
        """Terms of an update of `body_bytes` from `running` to `other`, while otadata record `active` counts.

        All of them are as they were before the update: ``running`` stays the name of that slot. With `active` None
        the records go by their numbers.
        """
        records = {
            _record_name(index, active): (otadata.offset + index * SECTOR_BYTES, SECTOR_BYTES)
            for index in (0, 1)
        }
        return cls(
            {"running": (running.offset, running.size), "other": (other.offset, other.size), **records},
            {
                body_bytes: "body",
                -(-body_bytes // SECTOR_BYTES) * SECTOR_BYTES: "body in sectors",
                other.size: "slot",
                SECTOR_BYTES: "sector",
            },
        )

    def text(self, change: FlashChange) -> str:
        """One line: who, kind, place, length, for example ``app: erase other, body in sectors``."""
        return f"{change.who}: {change.kind} {self._place(change.offset)}, {self._length(change.length)}"

    def lines(self, changes: Iterable[FlashChange]) -> tuple[str, ...]:
        """All of them, each boot after the first announced by a line of its own."""
        lines: list[str] = []
        boot: int | None = None
        for change in changes:
            if boot is not None and change.boot != boot:
                lines.append("next boot")
            boot = change.boot
            lines.append(self.text(change))
        return tuple(lines)

    def _place(self, offset: int) -> str:
        for name, (start, size) in self.places.items():
            if start <= offset < start + size:
                return name if offset == start else f"{name} + 0x{offset - start:x}"
        return f"0x{offset:x}"

    def _length(self, length: int) -> str:
        return self.lengths.get(length, f"{length} bytes")


def _record_name(index: int, active: int | None) -> str:
    if active is None:
        return f"record {index}"
    return "active record" if index == active else "other record"
