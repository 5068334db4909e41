"""Secure boot v2 in the mask ROM: what it starts, what it refuses, and in which words.

The table was run on the chips' own mask ROMs in QEMU, case by case; the lines are theirs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, Board, app_image, bootloader_image
from signing_bench import burn_digest, enable_secure_boot, signed

from harness.chips import SigningScheme
from harness.twin.boot_context import LoadedApp, Reset, RomLoop

SIGNED_CHIPS = boot_board.KINDS
HEAD = {
    "esp32": [
        "ets Jul 29 2019 12:21:46",
        "",
        "rst:0x1 (POWERON_RESET),boot:0x12 (SPI_FAST_FLASH_BOOT)",
        "configsip: 0, SPIWP:0xee",
        "clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00",
        "mode:2, clock div:2",
        "secure boot v2 enabled",
    ],
    "esp32c3": [
        "ESP-ROM:esp32c3-api1-20210207",
        "Build:Feb  7 2021",
        "rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)",
        "SPIWP:0xee",
        "mode:DIO, clock div:1",
    ],
}


def scheme_of(board: Board) -> SigningScheme:
    """What is taken when nothing is said: RSA, or ECDSA where the chip has nothing else."""
    return board.chip.secure_boot.schemes[0]


def board_of(chip_name: str, folder: Path) -> Board:
    """Secure boot on, key 0 trusted, plain apps behind a bootloader that checks none."""
    board = Board.named(chip_name, folder)
    burn_digest(board, scheme=scheme_of(board))
    enable_secure_boot(board)
    board.provision()
    return board


def put_bootloader(board: Board, image: bytes) -> None:
    board.put(board.chip.bootloader_offset, image)


def bootloader_of(board: Board) -> bytes:
    return bootloader_image(board.chip, boot_board.PLAIN_CONFIG)


@pytest.mark.parametrize("chip_name", SIGNED_CHIPS)
def test_a_signed_bootloader_boots(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, signed(bootloader_of(board), scheme=scheme_of(board)))
    assert isinstance(board.boot(), LoadedApp)
    assert "secure boot verification succeeded" in board.lines


@pytest.mark.parametrize("chip_name", SIGNED_CHIPS)
def test_an_unsigned_bootloader_is_refused(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, bootloader_of(board))
    assert isinstance(board.boot(), RomLoop)
    assert "secure boot verification failed" in board.lines


@pytest.mark.parametrize("chip_name", SIGNED_CHIPS)
def test_a_bootloader_built_with_secure_boot_starts_a_signed_app_only(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    config = replace(boot_board.PLAIN_CONFIG, secure_boot=True)
    put_bootloader(board, signed(bootloader_image(board.chip, config), scheme=scheme_of(board)))
    board.put(OTA_0, signed(app_image(board.chip, "1.0.0"), scheme=scheme_of(board)))
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_0
    # Padded, or the former signature would still be behind it, and be right.
    board.put(OTA_0, app_image(board.chip, "1.0.0").ljust(0x3000, b"\xff"))
    assert isinstance(board.boot(), Reset)
    assert board.boot_lines[-1] == "E No bootable app partitions in the partition table"
