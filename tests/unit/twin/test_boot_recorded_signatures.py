"""The twin's bootloader, held against ESP-IDF's own on the mask ROM: what it says of every damage, and what it burns.

The file holds what a bootloader that ESP-IDF v5.5.5 built with secure boot v2 printed in QEMU, without the lines of
segments: per chip each case once before secure boot was on, and once with it. There an application of ESP-IDF's was
signed and damaged; here the images are tiny, which nothing but the segments shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import boot_board
import pytest
from boot_board import Board, app_image, bootloader_image
from signing_bench import burn_digest, damaged, enable_secure_boot, key_digest, signed

from harness.chips import CHIPS
from harness.formats.otadata import OtaData
from harness.formats.partition_table import PartitionTable

RECORDED: dict[str, dict[str, list[str]]] = json.loads(
    (Path(__file__).parents[2] / "data" / "twin" / "secure-boot-bootloader-idf5.5.5.json").read_text("utf-8")
)
CSV = """
nvs,      data, nvs,     0x11000,  0x4000
otadata,  data, ota,     0x15000,  0x2000
phy_init, data, phy,     0x17000,  0x1000
factory,  app,  factory, 0x20000,  0x100000
ota_0,    app,  ota_0,   0x120000, 0x100000
ota_1,    app,  ota_1,   0x220000, 0x100000
"""
FACTORY = 0x20000
CONFIG = replace(boot_board.PLAIN_CONFIG, secure_boot=True)

Maker = Callable[[bytes, bytes], tuple[bytes, bytes]]
"""Bootloader and app, unsigned, to what is flashed."""

CASES: dict[str, Maker] = {
    "nothing wrong": lambda boot, app: (signed(boot), signed(app)),
    "unsigned app": lambda boot, app: (signed(boot), app),
    "app of another key": lambda boot, app: (signed(boot), signed(app, 1)),
    "app with the right key second": lambda boot, app: (signed(boot), signed(app, 1, 0)),
    "app's version": lambda boot, app: (signed(boot), damaged(signed(app), 1, sealed=True)),
    "app's image digest": lambda boot, app: (signed(boot), damaged(signed(app), 5, sealed=True)),
    "app's modulus": lambda boot, app: (signed(boot), damaged(signed(app), 40, sealed=True)),
    "app's signature": lambda boot, app: (signed(boot), damaged(signed(app), 900, sealed=True)),
    "app's CRC": lambda boot, app: (signed(boot), damaged(signed(app), 900)),
    "app's magic": lambda boot, app: (signed(boot), damaged(signed(app), 0, sealed=True)),
    "unsigned bootloader": lambda boot, app: (boot, signed(app)),
    "bootloader's signature": lambda boot, app: (damaged(signed(boot), 900, sealed=True), signed(app)),
    "bootloader of two keys": lambda boot, app: (signed(boot, 1, 0), signed(app)),
}


def comparable(line: str) -> str:
    """Without the CRCs, which are the images'."""
    return re.sub(r"0x[0-9a-f]{4,8}(?= calculated|$)", "0x…", line) if "Stored CRC" in line else line


@pytest.mark.parametrize(
    ("chip_name", "case"), [(chip, case) for chip in RECORDED for case in RECORDED[chip]]
)
def test_the_bootloader_says_what_esp_idfs_says(chip_name: str, case: str, tmp_path: Path) -> None:
    damage, _, state = case.rpartition(", ")
    chip = CHIPS[chip_name]
    bootloader, app = CASES[damage](bootloader_image(chip, CONFIG), app_image(chip, "1.0.0"))
    board = Board.named(chip_name, tmp_path, flash_bytes=4 << 20)
    board.put(boot_board.TABLE_OFFSET, PartitionTable.from_csv(CSV).to_binary())
    board.put(boot_board.OTADATA, OtaData.blank().to_bytes())
    board.put(chip.bootloader_offset, bootloader)
    board.put(FACTORY, app)
    if state == "on":
        burn_digest(board)
        enable_secure_boot(board)
    board.boot()
    lines = board.lines
    start = lines.index("I esp_image: Verifying image signature...")
    found = [comparable(line) for line in lines[start:] if ": segment " not in line]
    assert found == RECORDED[chip_name][case]
    enabled = "I secure_boot_v2: Secure boot permanently enabled" in found
    assert enabled == (state == "off" and bool(board.efuses.field(chip.secure_boot.enable)))
    burned = key_digest(0 if damage != "bootloader of two keys" or chip_name == "esp32c3" else 1)
    contents = [board.efuses.block_for_software(block.index) for block in board.efuses.geometry.blocks]
    assert (burned in contents) == (enabled or state == "on")


def test_every_case_was_recorded() -> None:
    for cases in RECORDED.values():
        assert {case.rpartition(", ")[0] for case in cases} == set(CASES)
