"""The CSV form of a partition table: ``name, type, subtype, offset, size, flags``, one partition per line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import FormatError
from harness.formats.partition import (
    SUBTYPE_NAMES,
    SUBTYPE_PRIMARY,
    SUBTYPE_UNDEFINED,
    TYPE_APP,
    TYPE_BOOTLOADER,
    TYPE_NAMES,
    TYPE_PARTITION_TABLE,
    Partition,
    subtype_name,
    type_name,
)
from harness.formats.partition_rules import TABLE_SECTOR_BYTES

_FIELDS = ("name", "type", "subtype", "offset", "size", "flags")
# Python's int(x, 0) as ESP-IDF uses it, without its underscores; one or more K or M may follow.
_NUMBER = re.compile(r"(-?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0+|[1-9][0-9]*)([kKmM]*)")
_UNITS = {"K": 1 << 10, "M": 1 << 20}
_LABEL_MAX_BYTES = 16


@dataclass(frozen=True, slots=True)
class CsvRow:
    """A partition and the name by which an error calls it, ``line 4 (ota_0)``."""

    name: str
    partition: Partition


@dataclass(frozen=True, slots=True)
class _Draft:
    """A line as written: offset and size may still depend on the lines before it."""

    where: str
    label: str
    type: int
    subtype: int
    offset: int | None
    size: int
    flags: frozenset[str]

    @property
    def is_primary(self) -> bool:
        return self.type in (TYPE_BOOTLOADER, TYPE_PARTITION_TABLE) and self.subtype == SUBTYPE_PRIMARY


def read_rows(text: str, *, table_offset: int, bootloader_offset: int | None) -> tuple[CsvRow, ...]:
    """The partitions of `text` with every offset filled in, in the order of the lines.

    Raises:
        FormatError: names line and field, or the line that stands in the way of another.
    """
    drafts = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            drafts.append(_read_line(stripped, number, table_offset, bootloader_offset))
    if not drafts:
        raise FormatError(
            "partition CSV has no partition in it", todo="add lines: name, type, subtype, offset, size, flags"
        )
    return _place(drafts, table_offset)


def write_rows(partitions: Sequence[Partition]) -> str:
    """CSV text for `partitions`: names where ESP-IDF has them, offsets and sizes in hexadecimal."""
    lines = ["# name, type, subtype, offset, size, flags"]
    for p in partitions:
        flags = ":".join(
            name for name, given in (("encrypted", p.encrypted), ("readonly", p.readonly)) if given
        )
        subtype = subtype_name(p.type, p.subtype)
        lines.append(
            f"{p.label}, {type_name(p.type)}, {subtype}, {p.offset:#x}, {p.size:#x}, {flags}".rstrip(" ")
        )
    return "\n".join(lines) + "\n"


def _read_line(line: str, number: int, table_offset: int, bootloader_offset: int | None) -> _Draft:
    values = [value.strip() for value in line.split(",")]
    where = f"line {number} ({values[0] or 'no name'})"
    if any(values[len(_FIELDS) :]):
        raise FormatError(
            f"{where}: {len(values)} fields, there are only {len(_FIELDS)}: {', '.join(_FIELDS)}",
            todo="remove what follows the flags; flags are joined with ':'",
        )
    name, type_text, subtype_text, offset_text, size_text, flags_text = (values + [""] * len(_FIELDS))[:6]
    _check_label(where, name)
    type_ = _byte(where, "type", type_text, TYPE_NAMES, limit=0xFE)
    subtype = _subtype(where, type_, subtype_text)
    fixed = _fixed_place(where, type_, subtype, table_offset, bootloader_offset)
    offset = fixed[0] if fixed and fixed[0] is not None else _offset(where, offset_text)
    if fixed is None and not size_text:
        raise FormatError(f"{where}: size is empty", todo="give a size, e.g. 0x6000, 24K or 1M")
    size = fixed[1] if fixed else _number(where, "size", size_text)
    return _Draft(where, name, type_, subtype, offset, size, _flags(where, flags_text))


def _check_label(where: str, label: str) -> None:
    if not label:
        raise FormatError(f"{where}: name is empty", todo="give the partition a name")
    try:
        size = len(label.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise FormatError(f"{where}: name is not Unicode text", todo="save the file as UTF-8") from error
    if size > _LABEL_MAX_BYTES:
        raise FormatError(
            f"{where}: name has {size} bytes, at most {_LABEL_MAX_BYTES} fit into the table",
            todo="use a shorter name",
        )
    if "\0" in label:
        raise FormatError(f"{where}: name holds a NUL character", todo="use plain text")


def _offset(where: str, text: str) -> int | None:
    offset = _number(where, "offset", text) if text else None
    if offset is not None and offset < 0:
        raise FormatError(f"{where}: offset {text} is negative", todo="give a flash address")
    return offset


def _fixed_place(
    where: str, type_: int, subtype: int, table_offset: int, bootloader_offset: int | None
) -> tuple[int | None, int] | None:
    """Offset and size of bootloaders and tables, which the build decides whatever their line says.

    None for other types; the offset is None where the line decides after all, as for a second bootloader.
    """
    if type_ == TYPE_PARTITION_TABLE:
        return (table_offset if subtype == SUBTYPE_PRIMARY else None), TABLE_SECTOR_BYTES
    if type_ != TYPE_BOOTLOADER:
        return None
    if bootloader_offset is None or bootloader_offset >= table_offset:
        raise FormatError(
            f"{where}: type bootloader needs the chip's bootloader offset, below {table_offset:#x}",
            todo="give the chip with the CSV, or drop the line: bootloaders work without an entry",
        )
    return (bootloader_offset if subtype == SUBTYPE_PRIMARY else None), table_offset - bootloader_offset


def _number(where: str, field: str, text: str) -> int:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise FormatError(
            f"{where}: {field} '{text}' is not a number",
            todo="write e.g. 0x10000, 65536, 64K or 1M"
            + ("; a leading zero is not allowed" if re.fullmatch(r"0[0-9]+", text) else ""),
        )
    sign, digits, units = match.groups()
    # A table field has 32 bits: longer digit strings would only cost time.
    value = int(digits, 0) if len(digits) <= 40 else 1 << 64
    for unit in units[:4]:
        value *= _UNITS[unit.upper()]
    if value >= 1 << 32:
        raise FormatError(f"{where}: {field} '{text}' does not fit 32 bits", todo="flash chips are smaller")
    return -value if sign else value


def _byte(where: str, field: str, text: str, names: dict[str, int], limit: int) -> int:
    choices = f"use one of: {', '.join(names)}, or a number" if names else "use a number"
    if not text:
        raise FormatError(f"{where}: {field} is empty", todo=f"{choices} up to {limit:#x}")
    if text.lower() in names:
        return names[text.lower()]
    if _NUMBER.fullmatch(text) is None:
        raise FormatError(f"{where}: {field} '{text}' is not known", todo=f"{choices} up to {limit:#x}")
    value = _number(where, field, text)
    if not 0 <= value <= limit:
        raise FormatError(f"{where}: {field} {text} is too large", todo=f"{choices} up to {limit:#x}")
    return value


def _subtype(where: str, type_: int, text: str) -> int:
    if text or type_ == TYPE_APP:
        return _byte(where, "subtype", text, SUBTYPE_NAMES.get(type_, {}), limit=0xFF)
    return SUBTYPE_UNDEFINED


def _flags(where: str, text: str) -> frozenset[str]:
    flags = frozenset(flag for flag in text.split(":") if flag)
    unknown = sorted(flags - {"encrypted", "readonly"})
    if unknown:
        raise FormatError(
            f"{where}: flags has unknown flag '{unknown[0]}'", todo="use encrypted, readonly or both with ':'"
        )
    return flags


def _place(drafts: Sequence[_Draft], table_offset: int) -> tuple[CsvRow, ...]:
    """Fill in empty offsets and sizes given as an end, from the first line to the last."""
    end, end_of = table_offset + TABLE_SECTOR_BYTES, f"the partition table at {table_offset:#x}"
    rows = []
    for draft in drafts:
        align = 0x10000 if draft.type == TYPE_APP else 0x1000
        offset = draft.offset if draft.offset is not None else -(-end // align) * align
        if offset < end and not draft.is_primary:
            raise FormatError(
                f"{draft.where}: offset {offset:#x} lies before {end:#x}, the end of {end_of}",
                todo=f"use {end:#x} or higher, or leave the offset empty; lines are ordered by offset",
            )
        size = draft.size if draft.size >= 0 else -draft.size - offset
        if size < 0 or offset + size >= 1 << 32:
            raise FormatError(
                f"{draft.where}: size {draft.size:#x} with offset {offset:#x} makes no partition",
                todo="a negative size says where the partition ends, and must lie behind its offset",
            )
        rows.append(
            CsvRow(
                draft.where,
                Partition(
                    label=draft.label,
                    type=draft.type,
                    subtype=draft.subtype,
                    offset=offset,
                    size=size,
                    encrypted="encrypted" in draft.flags,
                    readonly="readonly" in draft.flags,
                ),
            )
        )
        if not draft.is_primary:
            end, end_of = offset + size, draft.where
    return tuple(rows)
