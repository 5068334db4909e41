"""Partition table, flash information and flash encryption state as the bootloader checks and prints them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, TABLE_OFFSET, Board, bootloader_image

from harness.formats.partition_table import PartitionTable
from harness.twin.boot_context import LoadedApp, Reset
from harness.twin.boot_table import Entry, verified_entries


def table_bytes() -> bytearray:
    return bytearray(PartitionTable.from_csv(boot_board.CSV, table_offset=TABLE_OFFSET).to_binary())


def with_md5(table: bytearray, entries: int) -> bytearray:
    table[entries * 32 + 16 : entries * 32 + 32] = hashlib.md5(bytes(table[: entries * 32])).digest()
    return table


def damaged_magic(table: bytearray) -> None:
    table[64] = 0


def wrong_md5(table: bytearray) -> None:
    table[5 * 32 + 16] ^= 1


def two_md5(table: bytearray) -> None:
    table[6 * 32 : 7 * 32] = table[5 * 32 : 6 * 32]
    with_md5(table, 6)


def too_far(table: bytearray) -> None:
    struct.pack_into("<I", table, 4 * 32 + 4, 0x3F0000)
    with_md5(table, 5)


def endless(table: bytearray) -> None:
    table[:] = bytes(table[:32]) * 96


def blank(table: bytearray) -> None:
    table[:] = b"\xff" * len(table)


DAMAGES: list[tuple[Callable[[bytearray], None], str]] = [
    (damaged_magic, "partition 2 invalid magic number 0x5000"),
    (blank, "partition 0 invalid magic number 0xffff"),
    (wrong_md5, "Incorrect MD5 checksum"),
    (two_md5, "Only one MD5 checksum is allowed"),
    (too_far, "partition 4 invalid - offset 0x3f0000 size 0x180000 exceeds flash chip size 0x400000"),
    (endless, "partition table has no terminating entry, not valid"),
]


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
@pytest.mark.parametrize(("damage", "text"), DAMAGES, ids=[d.__name__ for d, _ in DAMAGES])
def test_a_bad_table_is_named_and_the_chip_resets_by_software(
    damage: Callable[[bytearray], None], text: str, chip_name: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    board.provision()
    table = table_bytes()
    damage(table)
    board.put(TABLE_OFFSET, bytes(table))
    outcome = board.boot()
    assert board.lines[-3:] == [
        f"E flash_parts: {text}",
        "E boot: Failed to verify partition table",
        "E boot: load partition table error!",
    ]
    assert isinstance(outcome, Reset)
    assert outcome.reset_reason == 3


def test_a_plaintext_table_on_an_encrypted_board_has_noise_for_a_magic(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision()
    board.put(TABLE_OFFSET, bytes(table_bytes()), raw=True)
    magic = int.from_bytes(board.plain(TABLE_OFFSET, 16)[:2], "little")
    assert isinstance(board.boot(), Reset)
    assert f"E flash_parts: partition 0 invalid magic number 0x{magic:x}" in board.lines


@pytest.mark.parametrize(
    ("type_", "subtype", "usage"),
    [
        (0x00, 0x00, "factory app"),
        (0x00, 0x10, "OTA app"),
        (0x00, 0x1F, "OTA app"),
        (0x00, 0x20, "test app"),
        (0x00, 0x30, "Unknown app"),
        (0x01, 0x00, "OTA data"),
        (0x01, 0x01, "RF data"),
        (0x01, 0x02, "WiFi data"),
        (0x01, 0x04, "NVS keys"),
        (0x01, 0x05, "efuse"),
        (0x01, 0x40, "Unknown data"),
        (0x02, 0x00, "primary bootloader"),
        (0x03, 0x01, "ota partition_table"),
        (0x02, 0x09, "unknown"),
        (0x40, 0x00, "unknown"),
    ],
)
def test_usage_words(type_: int, subtype: int, usage: str) -> None:
    assert Entry(type_, subtype, 0, 0, "x").usage == usage


def test_a_table_without_md5_entry_is_good() -> None:
    table = table_bytes()
    table[5 * 32 : 6 * 32] = b"\xff" * 32
    assert [entry.label for entry in verified_entries(bytes(table), 4 << 20)] == [
        "nvs",
        "otadata",
        "phy_init",
        "ota_0",
        "ota_1",
    ]


def test_a_partition_behind_the_md5_entry_is_not_seen_and_that_entry_counts_in_its_place() -> None:
    # As recorded under ESP32-C3's mask ROM: "4 <noise> unknown ff ff ffffffff ffffffff".
    table = table_bytes()
    last = bytes(table[4 * 32 : 5 * 32])
    digest = hashlib.md5(table[: 4 * 32], usedforsecurity=False).digest()
    table[4 * 32 : 6 * 32] = b"\xeb\xeb" + b"\xff" * 14 + digest + last
    *seen, checksum = verified_entries(bytes(table), 4 << 20)
    assert [entry.label for entry in seen] == ["nvs", "otadata", "phy_init", "ota_0"]
    assert (checksum.type, checksum.subtype, checksum.offset, checksum.size) == (
        0xFF,
        0xFF,
        2**32 - 1,
        2**32 - 1,
    )


@pytest.mark.parametrize(
    ("spi_mode", "spi_speed", "size_bytes", "lines"),
    [
        (2, 0xF, 4 << 20, ["80MHz", "DIO", "4MB"]),
        (0, 0x0, 2 << 20, ["40MHz", "QIO", "2MB"]),
        (3, 0x1, 16 << 20, ["26.7MHz", "DOUT", "16MB"]),
        (5, 0x2, 8 << 20, ["20MHz", "SLOW READ", "8MB"]),
    ],
)
def test_flash_lines_come_from_the_bootloaders_header(
    spi_mode: int, spi_speed: int, size_bytes: int, lines: list[str], tmp_path: Path
) -> None:
    board = Board.named("esp32", tmp_path)
    header = {"spi_mode": spi_mode, "spi_speed": spi_speed, "flash_size_bytes": size_bytes}
    board.put(0x1000, bootloader_image(board.chip, boot_board.PLAIN_CONFIG, **header))
    board.boot()
    shown = [line.split(": ")[-1] for line in board.lines if line.startswith("I boot.esp32: SPI")]
    assert shown == lines


def test_a_bootloader_for_a_newer_chip_revision_resets(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.put(0, bootloader_image(board.chip, boot_board.PLAIN_CONFIG, min_chip_rev_full=101))
    outcome = board.boot()
    assert board.lines[-1] == ("E boot_comm: chip revision check failed. Required >= v1.1, found v0.3.")
    assert isinstance(outcome, Reset)


def test_a_watchdog_reset_is_mentioned(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision()
    board.boot(0x8)
    assert "W boot.esp32c3: PRO CPU has been reset by WDT." in board.lines


# Flash encryption


@pytest.mark.parametrize(
    ("chip_name", "counter", "left"),
    [("esp32", 0x01, 3), ("esp32", 0x07, 2), ("esp32", 0x7F, 0), ("esp32c3", 1, 1), ("esp32c3", 7, 0)],
)
def test_the_encryption_line_counts_what_is_left(
    chip_name: str, counter: int, left: int, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path)
    board.burn_key(board.key)
    board.efuses.burn_field(board.chip.fuses.counter, counter)
    board.encrypted = True
    board.provision()
    board.boot()
    at = board.lines.index("I boot: Checking flash encryption...")
    assert (
        board.lines[at + 1] == f"I flash_encrypt: flash encryption is enabled ({left} plaintext flashes left)"
    )


def test_a_write_protected_counter_leaves_none(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.burn_key(board.key)
    board.efuses.burn_field("SPI_BOOT_CRYPT_CNT", 1)
    board.efuses.burn_field("WR_DIS", 1 << 4)
    board.encrypted = True
    board.provision()
    board.boot()
    assert "I flash_encrypt: flash encryption is enabled (0 plaintext flashes left)" in board.lines


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
def test_a_lab_build_refuses_every_slot_of_a_chip_without_encryption(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    board.provision(config=boot_board.CONFIG)
    outcome = board.boot()
    refusal = (
        "E boot: flash encryption is not enabled, and SECURE_FLASH_REQUIRE_ALREADY_ENABLED is set, "
        "refusing to boot."
    )
    assert [line for line in board.lines if line.startswith("E ")] == [
        refusal,
        "E boot: OTA app partition slot 0 is not bootable",
        refusal,
        "E boot: OTA app partition slot 1 is not bootable",
        "E boot: No bootable app partitions in the partition table",
    ]
    assert isinstance(outcome, Reset)


def test_a_build_without_encryption_says_nothing_about_it_on_an_encrypted_chip(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.provision(config=boot_board.PLAIN_CONFIG)
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_0
    assert not any("ncryption" in line for line in board.lines)
