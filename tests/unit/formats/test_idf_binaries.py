"""The parsers on bytes that ESP-IDF's own build made, so that an error of ours cannot confirm itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.chips import CHIPS
from harness.errors import FormatError
from harness.formats.app_image import Segment, app_description_at, build_app_image, parse_app_image
from harness.formats.bootloader_config import BootloaderConfig, BootloaderDescription
from harness.formats.partition_table import Partition, PartitionTable

DATA = Path(__file__).parents[2] / "data" / "formats"
TABLE = (DATA / "partition-table-idf5.5.5.bin").read_bytes()
APP_HEAD = (DATA / "app-head-esp32c3-idf5.5.5.bin").read_bytes()
BOOTLOADER_HEAD = (DATA / "bootloader-head-esp32c3-idf5.5.5.bin").read_bytes()

CSV = """\
nvs,      data, nvs,   0xd000,   0x4000
otadata,  data, ota,   0x11000,  0x2000
phy_init, data, phy,   0x13000,  0x1000
ota_0,    app,  ota_0, 0x20000,  0x180000
ota_1,    app,  ota_1, 0x1a0000, 0x180000
"""


def test_the_table_is_read_and_made_byte_for_byte():
    table = PartitionTable.from_binary(TABLE)
    assert table.find("ota_1") == Partition("ota_1", 0, 0x11, 0x1A0000, 0x180000)
    assert table.to_binary() == TABLE
    assert PartitionTable.from_csv(CSV, table_offset=0xC000).to_binary() == TABLE
    table.check(table_offset=0xC000, flash_size_bytes=4 << 20)


def test_the_application_description_is_read_and_made_byte_for_byte():
    description = app_description_at(APP_HEAD)
    assert (description.project_name, description.version, description.idf_ver) == (
        "otaapp",
        "1.0.0",
        "v5.5.5",
    )
    assert (description.secure_version, description.mmu_page_size_log2) == (0, 16)
    assert (description.min_efuse_blk_rev, description.max_efuse_blk_rev) == (0, 199)
    assert description.to_bytes() == APP_HEAD[0x20:]


@pytest.mark.parametrize(("head", "segments"), [(APP_HEAD, 6), (BOOTLOADER_HEAD, 3)])
def test_the_image_header_is_made_byte_for_byte(head, segments):
    made = build_app_image(
        CHIPS["esp32c3"],
        [Segment(0x3FC90000, b"")] * segments,
        entry_point=int.from_bytes(head[4:8], "little"),
        flash_size_bytes=4 << 20,
        min_chip_rev_full=3,
        max_chip_rev_full=199,
    )
    assert made[:24] == head[:24]


def test_an_image_of_which_only_the_head_is_there_is_truncated():
    for head in (APP_HEAD, BOOTLOADER_HEAD):
        with pytest.raises(FormatError, match="offset 0x1c: length of segment 0"):
            parse_app_image(head)


def test_the_bootloader_description_is_read_and_made_byte_for_byte():
    description = BootloaderDescription.from_bytes(BOOTLOADER_HEAD[0x20:])
    assert (description.idf_ver, description.version, description.secure_version) == ("v5.5.5", 1, 0)
    assert description.to_bytes() == BOOTLOADER_HEAD[0x20:]
    assert BootloaderConfig.from_segment_data(BOOTLOADER_HEAD[0x20:]) is None
