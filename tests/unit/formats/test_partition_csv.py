"""Partition tables as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import FormatError
from harness.formats.partition_table import Partition, PartitionTable

TWO_SLOTS = """\
# Name,   Type, SubType, Offset,  Size, Flags
nvs,      data, nvs,     ,        0x4000,
otadata,  data, ota,     ,        0x2000,

phy_init, data, phy,     ,        0x1000,
ota_0,    app,  ota_0,   ,        1536K,
ota_1,    app,  ota_1,   ,        1536K,
store,    data, littlefs,,        64k,  encrypted
"""


def places(text: str, **options: int) -> list[tuple[str, int, int]]:
    return [(p.label, p.offset, p.size) for p in PartitionTable.from_csv(text, **options).partitions]


@pytest.mark.parametrize(
    ("table_offset", "expected"),
    [
        (
            0x8000,
            [
                ("nvs", 0x9000, 0x4000),
                ("otadata", 0xD000, 0x2000),
                ("phy_init", 0xF000, 0x1000),
                ("ota_0", 0x10000, 0x180000),
                ("ota_1", 0x190000, 0x180000),
                ("store", 0x310000, 0x10000),
            ],
        ),
        (
            0x10000,
            [
                ("nvs", 0x11000, 0x4000),
                ("otadata", 0x15000, 0x2000),
                ("phy_init", 0x17000, 0x1000),
                ("ota_0", 0x20000, 0x180000),
                ("ota_1", 0x1A0000, 0x180000),
                ("store", 0x320000, 0x10000),
            ],
        ),
    ],
)
def test_empty_offsets_are_filled_in_behind_the_table(table_offset, expected):
    assert places(TWO_SLOTS, table_offset=table_offset) == expected


def test_an_app_goes_to_the_next_64k_and_what_follows_it_to_the_next_sector():
    text = "a, app, factory, , 0x1000\nb, data, 0x40, , 0x10\nc, data, 0x41, , 0x1000\nd, app, test, , 0x1000"
    assert places(text) == [
        ("a", 0x10000, 0x1000),
        ("b", 0x11000, 0x10),
        ("c", 0x12000, 0x1000),
        ("d", 0x20000, 0x1000),
    ]


@pytest.mark.parametrize(
    ("line", "partition"),
    [
        ("x, data, nvs, 0x9000, 0x6000, ", Partition("x", 1, 2, 0x9000, 0x6000)),
        ("x,DATA,NVS,36864,24K", Partition("x", 1, 2, 0x9000, 0x6000)),
        ("x, 1, 0x02, 36K, 24k,", Partition("x", 1, 2, 0x9000, 0x6000)),
        ("x, data, , 0x9000, 0x1000,", Partition("x", 1, 6, 0x9000, 0x1000)),
        ("x, 0x40, 0xff, 0x9000, 0x1000,", Partition("x", 0x40, 0xFF, 0x9000, 0x1000)),
        ("x, app, ota_15, 1M, 1M,", Partition("x", 0, 0x1F, 0x100000, 0x100000)),
        (
            "x, data, nvs_keys, 0x9000, 4K, encrypted",
            Partition("x", 1, 4, 0x9000, 0x1000, encrypted=True),
        ),
        (
            "x, data, fat, 0x9000, 4K, encrypted:readonly",
            Partition("x", 1, 0x81, 0x9000, 0x1000, encrypted=True, readonly=True),
        ),
        ("x, data, fat, 0x9000, 4K, readonly:,,", Partition("x", 1, 0x81, 0x9000, 0x1000, readonly=True)),
        ("x, data, fat, 0x9000, -0x20000,", Partition("x", 1, 0x81, 0x9000, 0x17000)),
        ("\ufeffx, data, fat, 0x9000, 4K", Partition("x", 1, 0x81, 0x9000, 0x1000)),
        ("x, partition_table, primary, N/A, N/A,", Partition("x", 3, 0, 0x8000, 0x1000)),
        ("x, bootloader, primary, N/A, N/A,", Partition("x", 2, 0, 0x1000, 0x7000)),
        ("x, bootloader, ota, 0x10000, ,", Partition("x", 2, 1, 0x10000, 0x7000)),
    ],
)
def test_a_line_becomes_a_partition(line, partition):
    assert PartitionTable.from_csv(line, bootloader_offset=0x1000).partitions == (partition,)


GOOD = "nvs, data, nvs, , 0x4000,\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", "no partition in it"),
        ("# only a comment\n\n", "no partition in it"),
        (GOOD + "x, data, nvs, 0xZZ, 4K,", "line 2 (x): offset '0xZZ' is not a number"),
        (GOOD + "x, data, nvs, 010, 4K,", "a leading zero is not allowed"),
        (GOOD + "x, data, nvs, -4096, 4K,", "line 2 (x): offset -4096 is negative"),
        (GOOD + "\n# comment\nx, data, nvs, , 4Q,", "line 4 (x): size '4Q' is not a number"),
        (GOOD + "x, data, nvs, , 1_000,", "line 2 (x): size '1_000' is not a number"),
        (GOOD + "x, data, nvs, , ,", "line 2 (x): size is empty"),
        (GOOD + "x, data, nvs", "line 2 (x): size is empty"),
        (GOOD + "x, data, fat, , 0,", "line 2 (x): size 0x0 is not positive"),
        (GOOD + "x, data, fat, , 5000M,", "line 2 (x): size '5000M' does not fit 32 bits"),
        (GOOD + "x, data, fat, , 4KMMMMMMMM,", "line 2 (x): size '4KMMMMMMMM' does not fit 32 bits"),
        (GOOD + f"x, data, fat, , 1{'0' * 5000},", "does not fit 32 bits"),
        (GOOD + "x, data, fat, 0xFFFFF000, 4K,", "line 2 (x): size 0x1000 with offset 0xfffff000"),
        (GOOD + "x, data, fat, 0x20000, -0x10000,", "line 2 (x): size -0x10000 with offset 0x20000"),
        (GOOD + "x, , nvs, , 4K,", "line 2 (x): type is empty"),
        (GOOD + "x, apps, ota_0, , 4K,", "line 2 (x): type 'apps' is not known"),
        (GOOD + "x, 0xFF, 0, , 4K,", "line 2 (x): type 0xFF is too large"),
        (GOOD + "x, app, , , 4K,", "line 2 (x): subtype is empty"),
        (GOOD + "x, app, ota_16, , 4K,", "line 2 (x): subtype 'ota_16' is not known"),
        (GOOD + "x, 0x40, ota_0, , 4K,", "line 2 (x): subtype 'ota_0' is not known"),
        (GOOD + "x, data, 256, , 4K,", "line 2 (x): subtype 256 is too large"),
        (GOOD + "x, data, -1, , 4K,", "line 2 (x): subtype -1 is too large"),
        (GOOD + "x, data, fat, , 4K, encripted", "line 2 (x): flags has unknown flag 'encripted'"),
        (GOOD + "x, data, fat, , 4K, encrypted readonly", "unknown flag 'encrypted readonly'"),
        (GOOD + "x, data, fat, , 4K, encrypted, readonly", "line 2 (x): 7 fields"),
        (GOOD + ", data, fat, , 4K,", "line 2 (no name): name is empty"),
        (GOOD + "a_name_of_17_byte, data, fat, , 4K,", "name has 17 bytes, at most 16"),
        (GOOD + "x\0y, data, fat, , 4K,", "name holds a NUL"),
        (GOOD + "\ud800, data, fat, , 4K,", "name is not Unicode text"),
        (GOOD + "nvs, data, fat, , 4K,", "line 2 (nvs): label 'nvs' is already used by line 1 (nvs)"),
        (
            GOOD + "x, data, fat, 0xA000, 4K,",
            "line 2 (x): offset 0xa000 lies before 0xd000, the end of line 1",
        ),
        ("x, data, fat, 0x8000, 4K,", "line 1 (x): offset 0x8000 lies before 0x9000, the end of the part"),
        ("x, data, fat, 0x9800, 4K,", "line 1 (x): offset 0x9800 is not a multiple of 0x1000"),
        ("x, app, ota_0, 0x18000, 64K,", "line 1 (x): offset 0x18000 is not a multiple of 0x10000"),
        ("x, app, ota_0, , 0x10001,", "line 1 (x): size 0x10001 of an app"),
        ("x, data, ota, , 0x1000,", "line 1 (x): size 0x1000 of an otadata"),
        ("x, data, ota, , 0x3000,", "line 1 (x): size 0x3000 of an otadata"),
        ("x, data, tee_ota, , 0x3000,", "line 1 (x): size 0x3000 of an otadata"),
        ("x, data, ota, , 0x2000,\ny, data, ota, , 0x2000,", "line 2 (y): subtype makes it a second otadata"),
        ("x, data, ota, , 0x2000, readonly", "line 1 (x): flags say readonly"),
        ("x, data, nvs, , 0x2000,", "line 1 (x): size 0x2000 is too small"),
        ("x, bootloader, primary, , ,", "line 1 (x): type bootloader needs"),
        ("\n".join(f"p{n}, data, 0x40, , 4K" for n in range(95)), "at most 94 fit"),
    ],
)
def test_a_wrong_table_is_refused_by_line_and_field(text, names):
    with pytest.raises(FormatError) as caught:
        PartitionTable.from_csv(text)
    assert names in str(caught.value)
    assert caught.value.todo


FIELD = st.sampled_from(
    [
        "",
        "x",
        "y",
        "app",
        "data",
        "ota",
        "ota_0",
        "nvs",
        "0",
        "0x9000",
        "4K",
        "1M",
        "-1M",
        "0x40",
        "readonly",
        "é",
        "\0",
    ]
)
LINE = st.lists(FIELD | st.text(max_size=6), max_size=8).map(", ".join)


@given(st.lists(LINE, max_size=6).map("\n".join) | st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_any_text_gives_a_table_or_a_format_error(text):
    try:
        table = PartitionTable.from_csv(text, bootloader_offset=0)
    except FormatError:
        return
    assert PartitionTable.from_binary(table.to_binary()) == table


PARTITION_LINES = st.lists(
    st.tuples(
        st.sampled_from(
            [("app", "ota_0"), ("app", "0x11"), ("data", "fat"), ("data", "0xfe"), ("0x41", "7")]
        ),
        st.integers(1, 300),
        st.sampled_from(["", "encrypted", "readonly", "encrypted:readonly"]),
    ),
    min_size=1,
    max_size=12,
)


@given(lines=PARTITION_LINES, table_sector=st.integers(1, 64))
@settings(max_examples=40, deadline=None)
def test_a_table_survives_being_written_as_csv(lines, table_sector):
    text = "\n".join(
        f"part{n}, {type_}, {subtype}, , {4 * sectors}K, {flags}"
        for n, ((type_, subtype), sectors, flags) in enumerate(lines)
    )
    table = PartitionTable.from_csv(text, table_offset=table_sector * 0x1000)
    assert PartitionTable.from_csv(table.to_csv(), table_offset=table_sector * 0x1000) == table
    assert PartitionTable.from_binary(table.to_binary()) == table
    table.check(table_offset=table_sector * 0x1000, flash_size_bytes=16 << 20)


def test_csv_is_written_in_the_words_of_esp_idf():
    assert PartitionTable.from_csv(TWO_SLOTS).to_csv() == (
        "# name, type, subtype, offset, size, flags\n"
        "nvs, data, nvs, 0x9000, 0x4000,\n"
        "otadata, data, ota, 0xd000, 0x2000,\n"
        "phy_init, data, phy, 0xf000, 0x1000,\n"
        "ota_0, app, ota_0, 0x10000, 0x180000,\n"
        "ota_1, app, ota_1, 0x190000, 0x180000,\n"
        "store, data, littlefs, 0x310000, 0x10000, encrypted\n"
    )
