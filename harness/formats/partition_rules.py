"""What ESP-IDF demands of partitions beyond their encoding; one error per rule, naming entry and field."""

from __future__ import annotations

from collections.abc import Sequence

from harness.errors import FormatError
from harness.formats.partition import (
    SUBTYPE_COREDUMP,
    SUBTYPE_NVS,
    SUBTYPE_OTADATA,
    SUBTYPE_TEE_OTADATA,
    TYPE_DATA,
    Partition,
)

TABLE_SECTOR_BYTES = 0x1000
OTADATA_SIZE_BYTES = 0x2000
_APP_SIZE_ALIGN_BYTES = 0x1000
_NVS_WRITABLE_MIN_BYTES = 0x3000


def check_partitions(
    partitions: Sequence[Partition],
    *,
    names: Sequence[str],
    table_offset: int,
    flash_size_bytes: int | None,
) -> None:
    """Demand that `partitions` can be used with the table at `table_offset`.

    Args:
        partitions: in the order of the table.
        names: what to call each in an error, e.g. ``line 4 (ota_0)``.
        table_offset: flash address of the table's sector.
        flash_size_bytes: size of the flash chip, None when it is not known.

    Raises:
        FormatError: the first rule that is broken.
    """
    for partition, name in zip(partitions, names, strict=True):
        _check_one(partition, name)
        if flash_size_bytes is not None and partition.end > flash_size_bytes:
            raise FormatError(
                f"{name}: offset {partition.offset:#x} + size {partition.size:#x} = {partition.end:#x} lies "
                f"beyond the flash chip's {flash_size_bytes:#x} bytes",
                todo="make partitions smaller, or give the right flash size",
            )
    _check_unique(partitions, names)
    _check_overlap(partitions, names, table_offset)


def check_otadata_is_two_sectors(partition: Partition, name: str) -> None:
    """What ESP-IDF's table generator demands of a new table; bootloaders also accept larger ones.

    Raises:
        FormatError: otadata has another size than 0x2000.
    """
    is_otadata = partition.type == TYPE_DATA and partition.subtype in (SUBTYPE_OTADATA, SUBTYPE_TEE_OTADATA)
    if is_otadata and partition.size != OTADATA_SIZE_BYTES:
        raise FormatError(
            f"{name}: size {partition.size:#x} of an otadata partition", todo="it must be 0x2000, two sectors"
        )


def _check_one(partition: Partition, name: str) -> None:
    align = partition.offset_align_bytes
    if not partition.label:
        raise FormatError(f"{name}: label is empty", todo="give the partition a name")
    if partition.offset % align:
        aligned = -(-partition.offset // align) * align
        raise FormatError(
            f"{name}: offset {partition.offset:#x} is not a multiple of {align:#x}",
            todo=f"move it to {aligned:#x}, or leave the offset empty",
        )
    if partition.size <= 0:
        raise FormatError(f"{name}: size {partition.size:#x} is not positive", todo="give a size in bytes")
    if partition.is_app and partition.size % _APP_SIZE_ALIGN_BYTES:
        raise FormatError(
            f"{name}: size {partition.size:#x} of an app is not a multiple of {_APP_SIZE_ALIGN_BYTES:#x}",
            todo="round it up to whole flash sectors",
        )
    if partition.type != TYPE_DATA:
        return
    if partition.is_otadata and partition.size < OTADATA_SIZE_BYTES:
        raise FormatError(
            f"{name}: size {partition.size:#x} of an otadata partition is less than two sectors",
            todo="make it 0x2000",
        )
    if partition.readonly and partition.subtype in (SUBTYPE_OTADATA, SUBTYPE_COREDUMP):
        raise FormatError(
            f"{name}: flags say readonly, but the device writes to this partition", todo="drop the flag"
        )
    if (
        partition.subtype == SUBTYPE_NVS
        and partition.size < _NVS_WRITABLE_MIN_BYTES
        and not partition.readonly
    ):
        raise FormatError(
            f"{name}: size {partition.size:#x} is too small for a writable NVS",
            todo=f"make it {_NVS_WRITABLE_MIN_BYTES:#x} or more, or flag it readonly",
        )


def _check_unique(partitions: Sequence[Partition], names: Sequence[str]) -> None:
    labels: dict[str, str] = {}
    otadata: dict[int, str] = {}
    for partition, name in zip(partitions, names, strict=True):
        first = labels.setdefault(partition.label, name)
        if first is not name:
            raise FormatError(
                f"{name}: label '{partition.label}' is already used by {first}",
                todo="labels must be unique: rename one",
            )
        if partition.type == TYPE_DATA and partition.subtype in (SUBTYPE_OTADATA, SUBTYPE_TEE_OTADATA):
            first = otadata.setdefault(partition.subtype, name)
            if first is not name:
                raise FormatError(
                    f"{name}: subtype makes it a second otadata partition, the first is {first}",
                    todo="remove one",
                )


def _check_overlap(partitions: Sequence[Partition], names: Sequence[str], table_offset: int) -> None:
    table_end = table_offset + TABLE_SECTOR_BYTES
    previous: tuple[Partition, str] | None = None
    for partition, name in sorted(zip(partitions, names, strict=True), key=lambda pair: pair[0].offset):
        if partition.offset < table_end and not partition.is_primary:
            raise FormatError(
                f"{name}: offset {partition.offset:#x} lies below the end of the partition table's sector, "
                f"{table_end:#x} (table at {table_offset:#x})",
                todo=f"use {table_end:#x} or higher, or another table offset",
            )
        if previous is not None and partition.offset < previous[0].end:
            raise FormatError(
                f"{name}: offset {partition.offset:#x} overlaps {previous[1]} up to {previous[0].end:#x}",
                todo="move one of them, or leave the offset empty",
            )
        previous = (partition, name)
