"""The partition table as the second-stage bootloader reads it: its own checks, words and view.

`harness.formats.partition_table` is the host's reader. This one is apart from it on purpose: it accepts and
refuses what ``esp_partition_table_verify`` does, in that function's words.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field

TABLE_BYTES = 0xC00
FACTORY = -1
"""Boot index of the factory app; slots count from 0."""

_ENTRY = struct.Struct("<HBBII16sI")
_MAGIC_ENTRY = 0x50AA
_MAGIC_MD5 = 0xEBEB
_END = b"\xff\xff\xff\xff"
TYPE_APP, TYPE_DATA, TYPE_BOOTLOADER, TYPE_TABLE = range(4)
_SUBTYPE_FACTORY, _SUBTYPE_TEST = 0x00, 0x20

_USAGE = {
    (TYPE_APP, _SUBTYPE_FACTORY): "factory app",
    (TYPE_APP, _SUBTYPE_TEST): "test app",
    (TYPE_DATA, 0x00): "OTA data",
    (TYPE_DATA, 0x01): "RF data",
    (TYPE_DATA, 0x02): "WiFi data",
    (TYPE_DATA, 0x04): "NVS keys",
    (TYPE_DATA, 0x05): "efuse",
    (0x02, 0x00): "primary bootloader",
    (0x02, 0x01): "ota bootloader",
    (0x02, 0x02): "recovery bootloader",
    (0x03, 0x00): "primary partition_table",
    (0x03, 0x01): "ota partition_table",
}


class TableRejected(Exception):  # noqa: N818 - a verdict on the table, not an error of the twin
    """The table fails; the message is what ``flash_parts`` logs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the partition table as the bootloader reads it."""

    type: int
    subtype: int
    offset: int
    size: int
    label: str
    flags: int = 0

    @property
    def is_flagged_encrypted(self) -> bool:
        """Bit 0 of the flags. Some partitions are encrypted whatever it says."""
        return bool(self.flags & 1)

    @property
    def usage(self) -> str:
        """The word in the printed table."""
        if self.type == TYPE_APP and self.subtype & ~0xF == 0x10:
            return "OTA app"
        named = {TYPE_APP: "Unknown app", TYPE_DATA: "Unknown data"}.get(self.type, "unknown")
        return _USAGE.get((self.type, self.subtype), named)


@dataclass(slots=True)
class BootState:
    """``bootloader_state_t``: the partitions that matter for booting."""

    factory: Entry | None = None
    test: Entry | None = None
    otadata: Entry | None = None
    slots: dict[int, Entry] = field(default_factory=dict)
    app_count: int = 0

    @classmethod
    def of(cls, entries: list[Entry]) -> BootState:
        state = cls()
        for entry in entries:
            if entry.type == TYPE_APP and entry.subtype == _SUBTYPE_FACTORY:
                state.factory = entry
            elif entry.type == TYPE_APP and entry.subtype == _SUBTYPE_TEST:
                state.test = entry
            elif entry.type == TYPE_APP and entry.subtype & ~0xF == 0x10:
                state.slots[entry.subtype & 0xF] = entry
                state.app_count += 1
            elif entry.type == TYPE_DATA and entry.subtype == 0:
                state.otadata = entry
        return state

    def at_index(self, index: int) -> Entry | None:
        """The partition of a boot index; indices of slots beyond the number of slots do not exist."""
        if index == FACTORY:
            return self.factory
        return self.slots.get(index) if index < self.app_count else None


def verified_entries(raw: bytes, flash_size_bytes: int) -> list[Entry]:
    """The entries of the (deciphered) table in `raw`, all `TABLE_BYTES` of it.

    Raises:
        TableRejected: with the line that the bootloader logs.
    """
    count = 0
    md5_found = False
    for index in range(TABLE_BYTES // _ENTRY.size):
        at = index * _ENTRY.size
        magic, _, _, offset, size, _, _ = _ENTRY.unpack_from(raw, at)
        if magic == _MAGIC_ENTRY:
            if offset > flash_size_bytes or (offset + size) & 0xFFFFFFFF > flash_size_bytes:
                raise TableRejected(
                    f"partition {index} invalid - offset 0x{offset:x} size 0x{size:x} "
                    f"exceeds flash chip size 0x{flash_size_bytes:x}"
                )
            count += 1
        elif magic == _MAGIC_MD5:
            if md5_found:
                raise TableRejected("Only one MD5 checksum is allowed")
            digest = hashlib.md5(raw[:at], usedforsecurity=False).digest()
            if raw[at + 16 : at + 32] != digest:
                raise TableRejected("Incorrect MD5 checksum")
            md5_found = True
        elif index and raw[at : at + 4] == _END:
            # The first `count` of the table, whatever they are: what stands behind the checksum is not seen.
            return [_entry(raw, position) for position in range(count)]
        else:
            raise TableRejected(f"partition {index} invalid magic number 0x{magic:x}")
    raise TableRejected("partition table has no terminating entry, not valid")


def _entry(raw: bytes, index: int) -> Entry:
    _, type_, subtype, offset, size, label, flags = _ENTRY.unpack_from(raw, index * _ENTRY.size)
    return Entry(type_, subtype, offset, size, label.split(b"\0", 1)[0].decode("utf-8", "replace"), flags)
