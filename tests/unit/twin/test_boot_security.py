"""What the eFuses say about security, by the rules of ESP-IDF."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from boot_board import KINDS, Board

from harness.chips import CHIPS
from harness.provision.profile import Profile
from harness.twin import security
from harness.twin.security import Download, EncryptionMode


@pytest.mark.parametrize("chip_name", KINDS)
def test_a_new_chip_has_nothing_enabled(chip_name: str, tmp_path: Path) -> None:
    efuses = Board.named(chip_name, tmp_path).efuses
    assert security.encryption_mode(efuses) is EncryptionMode.OFF
    assert security.download_state(efuses) is Download.OPEN
    assert not security.secure_boot_enabled(efuses)
    assert not security.release_verified(efuses)
    assert security.secure_version(efuses) == 0
    assert security.efuse_block_revision(efuses) == 0


@pytest.mark.parametrize("chip_name", list(CHIPS))
def test_the_documented_release_fuses_pass_the_release_check(chip_name: str, tmp_path: Path) -> None:
    efuses = Board.named(chip_name, tmp_path, encrypted=True).efuses
    assert security.encryption_mode(efuses) is EncryptionMode.RELEASE
    assert security.release_findings(efuses) == ()
    assert security.release_verified(efuses)


@pytest.mark.parametrize("chip_name", list(CHIPS))
def test_a_rom_that_no_longer_enciphers_is_told_as_what_esp_idf_takes_it_for(
    chip_name: str, tmp_path: Path
) -> None:
    board, chip = Board.named(chip_name, tmp_path), CHIPS[chip_name]
    board.efuses.burn_field(chip.fuses.counter, 2**chip.fuses.counter_bits - 1)
    board.efuses.burn_field(chip.fuses.manual_encrypt_disable, 1)
    told = Profile.CIPHERTEXT_ONLY.told_as(chip)
    assert security.encryption_mode(board.efuses).name == told.name
    assert (told is Profile.RELEASE) is (chip_name in ("esp32c5", "esp32h2"))


RELEASE_MODE = [
    ("esp32", {"FLASH_CRYPT_CNT": 1}, 0, EncryptionMode.DEVELOPMENT),
    ("esp32", {"FLASH_CRYPT_CNT": 0x7F}, 0, EncryptionMode.DEVELOPMENT),
    (
        "esp32",
        {"FLASH_CRYPT_CNT": 0x7F, "DISABLE_DL_CACHE": 1, "DISABLE_DL_ENCRYPT": 1, "DISABLE_DL_DECRYPT": 1},
        0,
        EncryptionMode.RELEASE,
    ),
    (
        "esp32",
        {"FLASH_CRYPT_CNT": 1, "DISABLE_DL_CACHE": 1, "DISABLE_DL_ENCRYPT": 1, "DISABLE_DL_DECRYPT": 1},
        1 << 2,
        EncryptionMode.RELEASE,
    ),
    ("esp32c3", {"SPI_BOOT_CRYPT_CNT": 3}, 0, EncryptionMode.OFF),
    ("esp32c3", {"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_ICACHE": 1}, 0, EncryptionMode.DEVELOPMENT),
    (
        "esp32c3",
        {"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_ICACHE": 1, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1},
        0,
        EncryptionMode.RELEASE,
    ),
    (
        "esp32c3",
        {"SPI_BOOT_CRYPT_CNT": 1, "DIS_DOWNLOAD_ICACHE": 1, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1},
        1 << 4,
        EncryptionMode.RELEASE,
    ),
    # Two caches, a way into flash of its own, and on ESP32-C2 the write protection of the counter.
    (
        "esp32s3",
        {"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_ICACHE": 1, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1},
        0,
        EncryptionMode.DEVELOPMENT,
    ),
    (
        "esp32p4",
        {"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1},
        0,
        EncryptionMode.DEVELOPMENT,
    ),
    ("esp32h2", {"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1}, 0, EncryptionMode.RELEASE),
    (
        "esp32c2",
        {"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_ICACHE": 1, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1},
        0,
        EncryptionMode.DEVELOPMENT,
    ),
    (
        "esp32c2",
        {"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_ICACHE": 1, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1},
        1 << 2,
        EncryptionMode.RELEASE,
    ),
]


@pytest.mark.parametrize(("chip_name", "fields", "wr_dis", "mode"), RELEASE_MODE)
def test_the_mode_needs_a_final_counter_and_the_download_fuses(
    chip_name: str, fields: dict[str, int], wr_dis: int, mode: EncryptionMode, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path)
    for name, value in fields.items():
        board.efuses.burn_field(name, value)
    board.efuses.burn_field("WR_DIS", wr_dis)
    assert security.encryption_mode(board.efuses) is mode


def burn_all(board: Board, names: Iterable[str]) -> None:
    for name in names:
        board.efuses.burn_field(name, 1)


def test_esp32_without_console_disable_is_what_fails_after_the_documented_list(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    board.burn_key(board.key)
    burn_all(board, ["DISABLE_DL_ENCRYPT", "DISABLE_DL_DECRYPT", "DISABLE_DL_CACHE", "JTAG_DISABLE"])
    board.efuses.burn_field("FLASH_CRYPT_CNT", 0x7F)
    board.efuses.burn_field("RD_DIS", 1)
    board.efuses.burn_field("WR_DIS", 1 << 7 | 1 << 3)
    assert [finding.text for finding in security.release_findings(board.efuses)] == [
        "Not disabled ROM BASIC interpreter fallback (set CONSOLE_DEBUG_DISABLE->1)"
    ]
    assert security.encryption_mode(board.efuses) is EncryptionMode.RELEASE
    assert not security.release_verified(board.efuses)


def test_a_soft_jtag_disable_without_key_only_warns_when_the_pads_are_disabled(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.efuses.burn_field("SOFT_DIS_JTAG", 7)
    assert [(f.text, f.fails) for f in security.release_findings(board.efuses)] == [
        ("SOFT_DIS_JTAG is set but HMAC key with respective purpose not found", False)
    ]
    assert security.release_verified(board.efuses)


def test_both_halves_of_a_256_bit_key_must_be_protected(tmp_path: Path) -> None:
    board = Board.named("esp32s3", tmp_path, encrypted=True)
    assert security.flash_key_blocks(board.efuses) == ("BLOCK_KEY0", "BLOCK_KEY1")
    other = tmp_path / "other"
    other.mkdir()
    open_one = Board.named("esp32s3", other)
    open_one.burn_key(open_one.key)
    open_one.efuses.burn_field("RD_DIS", 1)
    texts = [finding.text for finding in security.release_findings(open_one.efuses)]
    assert "Not read-protected Flash encryption key in BLOCK5 (set RD_DIS_KEY1->1)" in texts
    assert not any("RD_DIS_KEY0" in text for text in texts)


LATE_CHECKS = [
    ("esp32s2", "HARD_DIS_JTAG", "Not disabled JTAG (set HARD_DIS_JTAG->1)"),
    ("esp32s3", "DIS_PAD_JTAG", "Not disabled JTAG (set HARD_DIS_JTAG->1)"),
    ("esp32s3", "DIS_DOWNLOAD_DCACHE", "Not disabled UART bootloader Dcache (set DIS_DOWNLOAD_DCACHE->1)"),
    ("esp32s2", "DIS_BOOT_REMAP", "Not disabled boot from RAM (set DIS_BOOT_REMAP->1)"),
    (
        "esp32p4",
        "SPI_DOWNLOAD_MSPI_DIS",
        "Not disabled UART bootloader download mspi (set DIS_DOWNLOAD_MSPI->1)",
    ),
    (
        "esp32h2",
        "XTS_DPA_PSEUDO_LEVEL",
        "Not enabled XTS-AES pseudo rounds function (set XTS_DPA_PSEUDO_LEVEL->1 or more)",
    ),
]


@pytest.mark.parametrize(("chip_name", "fuse", "text"), LATE_CHECKS, ids=[row[1] for row in LATE_CHECKS])
def test_what_only_some_chips_have_is_named(chip_name: str, fuse: str, text: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    board.burn_key(board.key)
    wanted = [name for name in board.chip.fuses.release if name != fuse]
    burn_all(board, wanted)
    board.efuses.burn_field(board.chip.fuses.counter, board.chip.fuses.counter_release)
    texts = [finding.text for finding in security.release_findings(board.efuses)]
    assert text in texts
    board.efuses.burn_field(fuse, 1)
    assert text not in [finding.text for finding in security.release_findings(board.efuses)]


def test_an_unprotected_key_is_named_with_its_block(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.efuses.burn_block("BLOCK_KEY2", board.key)
    board.efuses.burn_field("KEY_PURPOSE_2", 4)
    assert security.flash_key_block(board.efuses) == "BLOCK_KEY2"
    assert [f.text for f in security.release_findings(board.efuses)][-3:] == [
        "Not read-protected Flash encryption key in BLOCK6 (set RD_DIS_KEY2->1)",
        "Not write-protected Flash encryption key in BLOCK6 (set WR_DIS_KEY2->1)",
        "Not write-protected KEY_PURPOSE for BLOCK6 (set WR_DIS_KEY_PURPOSE2->1)",
    ]


@pytest.mark.parametrize(
    ("chip_name", "burned", "state"),
    [
        ("esp32", ["UART_DOWNLOAD_DIS"], Download.OFF),
        ("esp32c3", ["ENABLE_SECURITY_DOWNLOAD"], Download.SECURE),
        ("esp32c3", ["ENABLE_SECURITY_DOWNLOAD", "DIS_DOWNLOAD_MODE"], Download.OFF),
    ],
)
def test_download_states(chip_name: str, burned: list[str], state: Download, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    burn_all(board, burned)
    assert security.download_state(board.efuses) is state


@pytest.mark.parametrize(("chip_name", "fuse"), [("esp32", "ABS_DONE_1"), ("esp32c3", "SECURE_BOOT_EN")])
def test_secure_boot_is_read_from_its_fuse(chip_name: str, fuse: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    board.efuses.burn_field(fuse, 1)
    assert security.secure_boot_enabled(board.efuses)
