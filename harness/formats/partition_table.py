"""The partition table: its CSV as people write it and its 0xC00 bytes as they lie in flash.

Layout: ``esp_partition_info_t`` and ``esp_flash_partitions.h`` of ESP-IDF. Rules for the CSV are those of
ESP-IDF's table generator, so that a file accepted here builds there.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from harness.errors import FormatError, UsageError
from harness.formats import partition_csv, partition_rules
from harness.formats.partition import Partition

TABLE_SIZE_BYTES = 0xC00
"""What a table occupies with its 0xFF padding; its flash sector is 0x1000."""
TABLE_SECTOR_BYTES = partition_rules.TABLE_SECTOR_BYTES

_ENTRY = struct.Struct("<HBBII16sI")
_MAGIC_ENTRY = 0x50AA
_MAGIC_MD5 = 0xEBEB
_MAGIC_END = 0xFFFF
_FLAG_ENCRYPTED = 1 << 0
_FLAG_READONLY = 1 << 1
_MAX_ENTRIES = TABLE_SIZE_BYTES // _ENTRY.size
# The MD5 entry and the end marker take one each.
_MAX_PARTITIONS = _MAX_ENTRIES - 2


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """The partitions of one flash chip, in the order of the table."""

    partitions: tuple[Partition, ...]

    @classmethod
    def from_csv(
        cls, text: str, *, table_offset: int = 0x8000, bootloader_offset: int | None = None
    ) -> PartitionTable:
        """The table that ESP-IDF's generator makes of this CSV when the table lies at `table_offset`.

        Empty offsets are filled in: apps at the next multiple of 0x10000, everything else at the next of
        0x1000, starting behind the table's sector. Sizes may end in K or M; a negative size says where the
        partition ends. `bootloader_offset` is only needed for entries of type ``bootloader``.

        Raises:
            FormatError: names the line, the partition and the field.
        """
        rows = partition_csv.read_rows(text, table_offset=table_offset, bootloader_offset=bootloader_offset)
        partitions = tuple(row.partition for row in rows)
        partition_rules.check_partitions(
            partitions, names=[row.name for row in rows], table_offset=table_offset, flash_size_bytes=None
        )
        for row in rows:
            partition_rules.check_otadata_is_two_sectors(row.partition, row.name)
        table = cls(partitions)
        table.to_binary()
        return table

    @classmethod
    def from_binary(cls, data: bytes) -> PartitionTable:
        """The table at the start of `data`, which may go on after the table's end.

        Accepted are the tables that ESP-IDF's bootloader accepts, but an MD5 entry, when there is one, must
        come last. Offsets and sizes are not judged here, see `check`.

        Raises:
            FormatError: names the entry and the field.
        """
        partitions: list[Partition] = []
        md5_seen = False
        for index in range(_MAX_ENTRIES):
            raw = data[index * _ENTRY.size : (index + 1) * _ENTRY.size]
            if len(raw) < _ENTRY.size:
                raise FormatError(
                    f"partition table ends after {len(data)} bytes, in entry {index}, without an end marker",
                    todo=f"give all {TABLE_SIZE_BYTES:#x} bytes of the table",
                )
            magic = int.from_bytes(raw[:2], "little")
            if magic == _MAGIC_ENTRY:
                if md5_seen:
                    raise _entry_error(index, "stands after the MD5 entry, which does not cover it")
                partitions.append(_partition_from(raw, index))
            elif magic == _MAGIC_MD5:
                if md5_seen:
                    raise _entry_error(index, "is a second MD5 entry; only one is allowed")
                _check_md5(data, raw, index)
                md5_seen = True
            elif raw[:4] == b"\xff" * 4 and index > 0:
                return cls(tuple(partitions))
            else:
                raise _magic_error(index, magic)
        raise FormatError(
            f"partition table has no end marker in its {_MAX_ENTRIES} entries",
            todo=f"rebuild the table; at most {_MAX_PARTITIONS} partitions fit",
        )

    def to_binary(self) -> bytes:
        """The table as flashed: entries, MD5 entry, 0xFF up to 0xC00 bytes.

        Raises:
            FormatError: a value does not fit its field, or there are more than 94 partitions.
        """
        entries = b"".join(_entry_of(partition) for partition in self.partitions)
        entries += struct.pack("<H14s", _MAGIC_MD5, b"\xff" * 14) + hashlib.md5(entries).digest()  # noqa: S324
        if len(entries) >= TABLE_SIZE_BYTES:
            raise FormatError(
                f"partition table has {len(self.partitions)} partitions, at most {_MAX_PARTITIONS} fit",
                todo="merge partitions",
            )
        return entries.ljust(TABLE_SIZE_BYTES, b"\xff")

    def to_csv(self) -> str:
        """CSV from which `from_csv` makes this table again."""
        return partition_csv.write_rows(self.partitions)

    def find(self, label: str) -> Partition:
        """The partition labelled `label`.

        Raises:
            UsageError: there is none; the message lists those there are.
        """
        for partition in self.partitions:
            if partition.label == label:
                return partition
        labels = ", ".join(partition.label for partition in self.partitions) or "none"
        raise UsageError(f"the partition table has no partition '{label}'", todo=f"it has: {labels}")

    @property
    def ota_slots(self) -> tuple[Partition, ...]:
        """The app partitions ota_0, ota_1, … in the order of their index."""
        return tuple(sorted((p for p in self.partitions if p.is_ota_slot), key=lambda p: p.subtype))

    @property
    def otadata(self) -> Partition | None:
        """The partition that says which slot boots, or None."""
        return next((p for p in self.partitions if p.is_otadata), None)

    @property
    def factory(self) -> Partition | None:
        """The factory app partition, or None."""
        return next((p for p in self.partitions if p.is_app and p.subtype == 0), None)

    def at(self, offset: int) -> Partition | None:
        """The partition in which flash address `offset` lies, or None."""
        return next((p for p in self.partitions if p.offset <= offset < p.end), None)

    def check(self, *, table_offset: int, flash_size_bytes: int) -> None:
        """Demand that every partition is aligned, sized and placed so that ESP-IDF can use it.

        Raises:
            FormatError: overlap, alignment, size, outside the flash chip, under the table, duplicate label or
                second otadata; names the entry and the field.
        """
        partition_rules.check_partitions(
            self.partitions,
            names=[f"entry {index} ({p.label})" for index, p in enumerate(self.partitions)],
            table_offset=table_offset,
            flash_size_bytes=flash_size_bytes,
        )


def _entry_error(index: int, what: str) -> FormatError:
    return FormatError(
        f"partition table entry {index} (at byte {index * _ENTRY.size:#x}) {what}",
        todo="rebuild the table, or read it from flash again",
    )


def _magic_error(index: int, magic: int) -> FormatError:
    if index == 0 and magic == _MAGIC_END:
        return FormatError(
            "partition table is empty: its first entry is 0xFF", todo="is this the table's flash offset?"
        )
    return FormatError(
        f"partition table entry {index} has magic {magic:#06x}, expected {_MAGIC_ENTRY:#06x} (partition), "
        f"{_MAGIC_MD5:#06x} (MD5) or {_MAGIC_END:#06x} (end)",
        todo="is this the table's flash offset, and is it deciphered?",
    )


def _check_md5(data: bytes, raw: bytes, index: int) -> None:
    found, expected = raw[16:], hashlib.md5(data[: index * _ENTRY.size]).digest()  # noqa: S324
    if found != expected:
        raise _entry_error(index, f"holds MD5 {found.hex()}, but the entries before it have {expected.hex()}")


def _partition_from(raw: bytes, index: int) -> Partition:
    _, type_, subtype, offset, size, label, flags = _ENTRY.unpack(raw)
    try:
        text = label.split(b"\0", 1)[0].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _entry_error(index, f"has a label that is not UTF-8: {label.hex()}") from error
    return Partition(
        label=text,
        type=type_,
        subtype=subtype,
        offset=offset,
        size=size,
        encrypted=bool(flags & _FLAG_ENCRYPTED),
        readonly=bool(flags & _FLAG_READONLY),
        other_flags=flags & ~(_FLAG_ENCRYPTED | _FLAG_READONLY),
    )


def _entry_of(partition: Partition) -> bytes:
    label = partition.label.encode("utf-8", "surrogatepass")
    if len(label) > 16:
        raise FormatError(
            f"partition '{partition.label}': label has {len(label)} bytes, at most 16 fit",
            todo="use a shorter label",
        )
    flags = partition.other_flags
    flags |= _FLAG_ENCRYPTED if partition.encrypted else 0
    flags |= _FLAG_READONLY if partition.readonly else 0
    try:
        return _ENTRY.pack(
            _MAGIC_ENTRY, partition.type, partition.subtype, partition.offset, partition.size, label, flags
        )
    except struct.error as error:
        raise FormatError(
            f"partition '{partition.label}': a value does not fit its field ({partition})",
            todo="types and subtypes are 0..255, offsets, sizes and flags 32 bits",
        ) from error


__all__ = ["TABLE_SECTOR_BYTES", "TABLE_SIZE_BYTES", "Partition", "PartitionTable"]
