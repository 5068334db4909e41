"""The binary partition table and what is asked of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import FormatError, UsageError
from harness.formats.partition_table import Partition, PartitionTable

# Written by hand from esp_partition_info_t: nvs 0x9000+0x6000, otadata 0xf000+0x2000, ota_0 0x20000+0x180000,
# store (spiffs, encrypted and readonly) 0x1a0000+0x10000.
ENTRIES = bytes.fromhex(
    "aa500102" + "00900000" + "00600000" + "6e7673".ljust(32, "0") + "00000000"
    "aa500100" + "00f00000" + "00200000" + "6f746164617461".ljust(32, "0") + "00000000"
    "aa500010" + "00000200" + "00001800" + "6f74615f30".ljust(32, "0") + "00000000"
    "aa500182" + "00001a00" + "00000100" + "73746f7265".ljust(32, "0") + "03000000"
)
MD5_ENTRY = b"\xeb\xeb" + b"\xff" * 14 + bytes.fromhex("9c75a0f0c905186414ef8058b4b6ff66")
TABLE = (ENTRIES + MD5_ENTRY).ljust(0xC00, b"\xff")

PARTITIONS = (
    Partition("nvs", 1, 2, 0x9000, 0x6000),
    Partition("otadata", 1, 0, 0xF000, 0x2000),
    Partition("ota_0", 0, 0x10, 0x20000, 0x180000),
    Partition("store", 1, 0x82, 0x1A0000, 0x10000, encrypted=True, readonly=True),
)


def with_md5(entries: bytes) -> bytes:
    return (entries + b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(entries).digest()).ljust(0xC00, b"\xff")


def test_a_table_becomes_the_bytes_written_by_hand():
    assert PartitionTable(PARTITIONS).to_binary() == TABLE


def test_the_bytes_written_by_hand_become_the_table():
    assert PartitionTable.from_binary(TABLE).partitions == PARTITIONS


def test_a_table_without_md5_entry_is_read():
    assert PartitionTable.from_binary(ENTRIES.ljust(0xC00, b"\xff")).partitions == PARTITIONS


def test_what_follows_the_end_marker_is_ignored():
    data = TABLE[: len(ENTRIES) + 64] + bytes(0x1000)
    assert PartitionTable.from_binary(data).partitions == PARTITIONS


def test_a_label_may_use_all_16_bytes_and_unknown_flags_survive():
    table = PartitionTable((Partition("sixteen_letters_", 1, 2, 0x9000, 0x6000, other_flags=0x80000004),))
    assert PartitionTable.from_binary(table.to_binary()) == table


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"", "ends after 0 bytes, in entry 0"),
        (ENTRIES[:100], "ends after 100 bytes, in entry 3"),
        (ENTRIES, "ends after 128 bytes, in entry 4"),
        (b"\xff" * 0xC00, "empty"),
        (bytes(0xC00), "entry 0 has magic 0x0000"),
        (ENTRIES[:32] + b"\x12\x34" + ENTRIES[34:], "entry 1 has magic 0x3412"),
        (ENTRIES + MD5_ENTRY[:-1] + b"\x00" + b"\xff" * 32, "entry 4 (at byte 0x80) holds MD5"),
        (ENTRIES[:5] + b"\x01" + TABLE[6:], "entry 4 (at byte 0x80) holds MD5"),
        (ENTRIES + MD5_ENTRY + MD5_ENTRY + b"\xff" * 32, "entry 5 (at byte 0xa0) is a second MD5 entry"),
        (ENTRIES + MD5_ENTRY + ENTRIES[:32] + b"\xff" * 32, "entry 5 (at byte 0xa0) stands after the MD5"),
        (ENTRIES[:32] * 96, "no end marker"),
        (with_md5(ENTRIES[:12] + b"\xff\xfe" + ENTRIES[14:32]), "entry 0 (at byte 0x0) has a label"),
    ],
)
def test_a_broken_table_is_refused_by_entry_and_field(data, names):
    with pytest.raises(FormatError) as caught:
        PartitionTable.from_binary(data)
    assert names in str(caught.value)
    assert caught.value.todo


@given(st.binary(max_size=0x200) | st.binary(max_size=96).map(lambda tail: ENTRIES + tail))
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_a_table_or_a_format_error(data):
    try:
        table = PartitionTable.from_binary(data)
    except FormatError:
        return
    assert PartitionTable.from_binary(table.to_binary()) == table


@given(position=st.integers(0, len(ENTRIES) + 31), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_every_flipped_byte_is_noticed(position, flip):
    damaged = bytearray(TABLE)
    damaged[position] ^= flip
    try:
        table = PartitionTable.from_binary(bytes(damaged))
    except FormatError:
        return
    # Only the filling of the MD5 entry is not covered by anything.
    assert len(ENTRIES) + 2 <= position < len(ENTRIES) + 16
    assert table.partitions == PARTITIONS


def test_94_partitions_fit_and_95_do_not():
    many = tuple(Partition(f"p{n}", 1, 0x40, 0x10000 + n * 0x1000, 0x1000) for n in range(95))
    assert len(PartitionTable.from_binary(PartitionTable(many[:94]).to_binary()).partitions) == 94
    with pytest.raises(FormatError, match="at most 94 fit"):
        PartitionTable(many).to_binary()


@pytest.mark.parametrize(
    "partition",
    [
        Partition("x" * 17, 1, 2, 0x9000, 0x6000),
        Partition("x", 256, 2, 0x9000, 0x6000),
        Partition("x", 1, -1, 0x9000, 0x6000),
        Partition("x", 1, 2, 1 << 32, 0x6000),
        Partition("x", 1, 2, 0x9000, -1),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused(partition):
    with pytest.raises(FormatError, match="partition 'x"):
        PartitionTable((partition,)).to_binary()


# --------------------------------------------------------------------------------- what a table is asked


def test_partitions_are_found_by_label_and_by_address():
    table = PartitionTable(PARTITIONS)
    assert table.find("ota_0").offset == 0x20000
    assert table.at(0x20000) == table.at(0x19FFFF) == table.find("ota_0")
    assert table.at(0x1FFFF) is None
    assert table.at(0x1A0000) == table.find("store")
    with pytest.raises(UsageError, match="it has: nvs, otadata, ota_0, store"):
        table.find("ota_1")


def test_slots_are_sorted_by_index_whatever_their_place():
    table = PartitionTable(
        (
            Partition("late", 0, 0x11, 0x20000, 0x10000),
            Partition("factory", 0, 0, 0x30000, 0x10000),
            Partition("early", 0, 0x10, 0x40000, 0x10000),
            Partition("test", 0, 0x20, 0x50000, 0x10000),
        )
    )
    assert [(slot.label, slot.ota_index) for slot in table.ota_slots] == [("early", 0), ("late", 1)]
    assert table.factory == table.find("factory")
    assert table.otadata is None
    assert table.find("test").ota_index is None


@pytest.mark.parametrize(
    ("type_", "subtype", "flag", "stored_encrypted"),
    [
        (0, 0x00, False, True),
        (0, 0x10, False, True),
        (0, 0x20, False, True),
        (1, 0x00, False, True),
        (1, 0x90, False, True),
        (1, 0x04, False, True),
        (2, 0x00, False, True),
        (3, 0x00, False, True),
        (1, 0x02, False, False),
        (1, 0x02, True, True),
        (1, 0x82, True, True),
        (1, 0x01, False, False),
        (0x40, 0x00, False, False),
        (0x40, 0x00, True, True),
    ],
)
def test_the_chip_enciphers_apps_otadata_and_nvs_keys_whatever_the_flag(
    type_, subtype, flag, stored_encrypted
):
    assert Partition("p", type_, subtype, 0, 0x1000, encrypted=flag).is_stored_encrypted is stored_encrypted


def changed(index: int, **fields: object) -> PartitionTable:
    changed_one = replace(PARTITIONS[index], **fields)
    return PartitionTable((*PARTITIONS[:index], changed_one, *PARTITIONS[index + 1 :]))


@pytest.mark.parametrize("flash_size_bytes", [0x1B0000, 4 << 20])
def test_a_good_table_passes_the_check(flash_size_bytes):
    PartitionTable(PARTITIONS).check(table_offset=0x8000, flash_size_bytes=flash_size_bytes)


def test_otadata_larger_than_two_sectors_is_accepted_as_bootloaders_do():
    changed(1, size=0x3000).check(table_offset=0x8000, flash_size_bytes=4 << 20)


@pytest.mark.parametrize(
    ("table", "table_offset", "flash_size_bytes", "names"),
    [
        (PartitionTable(PARTITIONS), 0x8000, 0x1A0000, "entry 3 (store): offset 0x1a0000 + size 0x10000"),
        (PartitionTable(PARTITIONS), 0x8000, 0x1AFFFF, "entry 3 (store): offset 0x1a0000 + size 0x10000"),
        (PartitionTable(PARTITIONS), 0x9000, 4 << 20, "entry 0 (nvs): offset 0x9000 lies below"),
        (changed(2, offset=0x21000), 0x8000, 4 << 20, "entry 2 (ota_0): offset 0x21000 is not a multiple"),
        (changed(0, offset=0x9100), 0x8000, 4 << 20, "entry 0 (nvs): offset 0x9100 is not a multiple"),
        (changed(2, size=0x180010), 0x8000, 4 << 20, "entry 2 (ota_0): size 0x180010"),
        (changed(2, size=0), 0x8000, 4 << 20, "entry 2 (ota_0): size 0x0 is not positive"),
        (changed(0, size=0x7000), 0x8000, 4 << 20, "entry 1 (otadata): offset 0xf000 overlaps entry 0 (nvs)"),
        (changed(0, size=0x6001), 0x8000, 4 << 20, "entry 1 (otadata): offset 0xf000 overlaps entry 0 (nvs)"),
        (changed(1, size=0x1000), 0x8000, 4 << 20, "entry 1 (otadata): size 0x1000"),
        (changed(1, readonly=True), 0x8000, 4 << 20, "entry 1 (otadata): flags say readonly"),
        (changed(0, size=0x2000), 0x8000, 4 << 20, "entry 0 (nvs): size 0x2000 is too small"),
        (changed(3, label="nvs"), 0x8000, 4 << 20, "entry 3 (nvs): label 'nvs' is already used by entry 0"),
        (changed(3, label=""), 0x8000, 4 << 20, "entry 3 (): label is empty"),
        (
            changed(3, subtype=0, size=0x2000, readonly=False),
            0x8000,
            4 << 20,
            "entry 3 (store): subtype makes it a second otadata",
        ),
    ],
)
def test_a_table_that_cannot_work_is_refused_by_entry_and_field(table, table_offset, flash_size_bytes, names):
    with pytest.raises(FormatError) as caught:
        table.check(table_offset=table_offset, flash_size_bytes=flash_size_bytes)
    assert names in str(caught.value)
    assert caught.value.todo
