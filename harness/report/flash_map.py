"""What is known of flash, stretch by stretch, as changes come in. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.chips import Chip
from harness.formats.partition import Partition
from harness.formats.partition_table import PartitionTable
from harness.report.run_record import Content, Extent, FlashMap, PartitionRow, Source

TABLE_BYTES = 0x1000
SECTOR_BYTES = 0x1000


@dataclass(frozen=True, slots=True)
class _Stretch:
    offset: int
    end: int
    content: Content
    source: Source


class KnownFlash:
    """Flash of `size` bytes; what nobody has said anything of is unknown."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._stretches: list[_Stretch] = []

    def copy(self) -> KnownFlash:
        """As it is now; stretches are never changed, only replaced."""
        other = KnownFlash(self.size)
        other._stretches = self._stretches
        return other

    def note(self, offset: int, size: int, content: Content, source: Source) -> None:
        """From now on these bytes are that."""
        end = min(offset + size, self.size)
        if size <= 0 or offset >= end:
            return
        kept: list[_Stretch] = []
        for each in self._stretches:
            if each.end <= offset or each.offset >= end:
                kept.append(each)
                continue
            if each.offset < offset:
                kept.append(_Stretch(each.offset, offset, each.content, each.source))
            if each.end > end:
                kept.append(_Stretch(end, each.end, each.content, each.source))
        kept.append(_Stretch(offset, end, content, source))
        self._stretches = list(_joined(sorted(kept, key=lambda each: each.offset)))

    def content_at(self, offset: int) -> Content:
        """What lies there."""
        index = bisect_right([each.offset for each in self._stretches], offset) - 1
        if index < 0 or self._stretches[index].end <= offset:
            return "unknown"
        return self._stretches[index].content

    def fill_unknown(self, offset: int, size: int, content: Content, source: Source) -> None:
        """As `note`, where nothing is known."""
        for start, end in list(self._gaps(offset, min(offset + size, self.size))):
            self.note(start, end - start, content, source)

    def _gaps(self, offset: int, end: int) -> Iterator[tuple[int, int]]:
        at = offset
        for each in self._stretches:
            if each.end <= at:
                continue
            if each.offset >= end:
                break
            if each.offset > at:
                yield at, each.offset
            at = max(at, each.end)
        if at < end:
            yield at, end

    def map(self, partitions: tuple[PartitionRow, ...]) -> FlashMap:
        """As it is recorded."""
        return FlashMap(
            size=self.size,
            partitions=partitions,
            extents=tuple(
                Extent(
                    offset=each.offset, size=each.end - each.offset, content=each.content, source=each.source
                )
                for each in self._stretches
            ),
        )


def _joined(stretches: Iterable[_Stretch]) -> Iterator[_Stretch]:
    last: _Stretch | None = None
    for each in stretches:
        if (
            last is not None
            and last.end == each.offset
            and (last.content, last.source) == (each.content, each.source)
        ):
            last = _Stretch(last.offset, each.end, each.content, each.source)
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last


def partition_rows(chip: Chip, table: PartitionTable, table_offset: int) -> tuple[PartitionRow, ...]:
    """All rows by offset, with the bootloader and the table itself, which are in no table."""
    rows = [
        PartitionRow(
            label="bootloader",
            offset=chip.bootloader_offset,
            size=table_offset - chip.bootloader_offset,
            kind="bootloader",
        ),
        PartitionRow(label="partition table", offset=table_offset, size=TABLE_BYTES, kind="table"),
        *(
            PartitionRow(label=each.label, offset=each.offset, size=each.size, kind=_kind(each))
            for each in table.partitions
            if not each.is_primary
        ),
    ]
    return tuple(sorted(rows, key=lambda row: row.offset))


def _kind(partition: Partition) -> str:
    if partition.is_app:
        return "app"
    return "otadata" if partition.is_otadata else "data"


def stored_encrypted(chip: Chip, table: PartitionTable, table_offset: int, offset: int) -> bool:
    """Whether a chip with flash encryption on deciphers what lies at `offset`."""
    if chip.bootloader_offset <= offset < table_offset + TABLE_BYTES:
        return True
    return any(each.is_stored_encrypted for each in table.partitions if each.offset <= offset < each.end)
