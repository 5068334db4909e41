"""What the application's ESP-IDF burns, fuse by fuse, and what its release checks say."""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_board import Board

from harness.chips.idf_burns import idf_burns
from harness.twin import security
from harness.twin.app_efuses import AppEfuses
from harness.twin.efuses import Efuses
from harness.twin.rpc import CollectedLog
from harness.twin.secure_boot_release import secure_boot_findings
from harness.twin.security import Download, EncryptionMode

CHIP_NAMES = ("esp32", "esp32c3")


def in_development(name: str, folder: Path) -> Board:
    board = Board.named(name, folder)
    board.burn_key(board.key)
    board.efuses.burn_field(board.chip.fuses.counter, 1)
    return board


def app_of(board: Board) -> tuple[AppEfuses, CollectedLog]:
    log = CollectedLog()
    return AppEfuses(board.efuses, log), log


@pytest.mark.parametrize("name", CHIP_NAMES)
def test_release_mode_is_one_burn_of_block_0(name: str, tmp_path: Path) -> None:
    board = in_development(name, tmp_path)
    efuses, log = app_of(board)
    start = board.efuses.operations.next_number
    before = int.from_bytes(board.efuses.block_for_software(0), "little")
    assert efuses.set_release_mode() == 0
    assert [(op.kind, op.offset, op.who) for op in board.efuses.operations.since(start)] == [
        ("burn", 0, "app")
    ]
    assert security.encryption_mode(board.efuses) is EncryptionMode.RELEASE
    assert log.lines == [
        "I efuse: Batch mode of writing fields is enabled\n",
        "I efuse: BURN BLOCK0\n",
        "I efuse: BURN BLOCK0 - OK (all write block bits are set)\n",
        "I efuse: Batch mode. Prepared fields are committed\n",
    ]
    burned = int.from_bytes(board.efuses.block_for_software(0), "little") & ~before
    assert {row.name for row in board.efuses.geometry.fields if row.block == 0 and row.mask & burned} == {
        *idf_burns(name).release_mode,
        board.chip.fuses.counter,
        "WR_DIS",
        board.chip.fuses.secure_download or board.chip.fuses.download_off,
    }
    left = {"esp32": Download.OFF, "esp32c3": Download.SECURE}[name]
    assert security.download_state(board.efuses) is left


def test_release_mode_leaves_a_counter_that_is_write_protected(tmp_path: Path) -> None:
    board = in_development("esp32c3", tmp_path)
    board.efuses.burn_field("WR_DIS", 1 << 4)
    efuses, log = app_of(board)
    assert efuses.set_release_mode() == 0
    assert board.efuses.field("SPI_BOOT_CRYPT_CNT") == 1
    assert not any("ERROR" in line for line in log.lines)


def test_on_esp32_a_frozen_counter_also_keeps_the_download_open(tmp_path: Path) -> None:
    """WR_DIS bit 2 freezes UART_DOWNLOAD_DIS, too; nobody looks at what the call returned."""
    board = in_development("esp32", tmp_path)
    board.efuses.burn_field("WR_DIS", 1 << 2)
    efuses, _ = app_of(board)
    assert efuses.set_release_mode() == 0
    assert security.download_state(board.efuses) is Download.OPEN


def test_fuses_that_do_not_take_make_esp_idf_abort(tmp_path: Path) -> None:
    board = in_development("esp32c3", tmp_path)
    board.efuses.burn_field("WR_DIS", 1 << 2)
    efuses, log = app_of(board)
    assert efuses.set_release_mode() == 0x103
    assert log.lines.count("E efuse: BURN BLOCK0 - ERROR (written bits != read bits)\n") == 3
    assert "E efuse: Written data are incorrect\n" in log.lines
    assert security.encryption_mode(board.efuses) is EncryptionMode.DEVELOPMENT


@pytest.mark.parametrize("name", CHIP_NAMES)
def test_release_mode_without_encryption_burns_nothing(name: str, tmp_path: Path) -> None:
    board = Board.named(name, tmp_path)
    efuses, log = app_of(board)
    start = board.efuses.operations.next_number
    assert efuses.set_release_mode() == 0x103
    assert board.efuses.operations.since(start) == ()
    assert log.lines == []


def test_the_download_fuses_are_burned_once(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    efuses, log = app_of(board)
    assert efuses.enable_secure_download() == 0
    assert efuses.enable_secure_download() == 0
    assert efuses.disable_download() == 0
    assert log.lines.count("I efuse: BURN BLOCK0\n") == 2
    assert security.download_state(board.efuses) is Download.OFF


def test_secure_download_after_download_off_is_no_longer_burned(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    efuses, log = app_of(board)
    assert efuses.disable_download() == 0
    log.lines.clear()
    assert efuses.enable_secure_download() == 0
    assert log.lines == []


def test_esp32_has_no_secure_download(tmp_path: Path) -> None:
    efuses, _ = app_of(Board.named("esp32", tmp_path))
    assert efuses.enable_secure_download() == 0x106


@pytest.mark.parametrize("name", CHIP_NAMES)
def test_the_release_check_warns_as_esp_idf_does(name: str, tmp_path: Path) -> None:
    board = in_development(name, tmp_path)
    efuses, log = app_of(board)
    assert not efuses.verify_encryption()
    assert log.lines
    assert all(line.startswith("W flash_encrypt: Not ") for line in log.lines)


# Secure boot's own check


def secured(name: str, folder: Path) -> Board:
    """Everything that the check wants."""
    board = Board.named(name, folder)
    if name == "esp32":
        board.efuses.burn_block("BLOCK2", bytes(range(32)))
        fields = {"ABS_DONE_1": 1, "JTAG_DISABLE": 1, "CONSOLE_DEBUG_DISABLE": 1, "UART_DOWNLOAD_DIS": 1}
        protect = 1 << 8 | 1 << 0
    else:
        board.efuses.burn_block("BLOCK_KEY1", bytes(range(32)))
        fields = {"SECURE_BOOT_EN": 1, "KEY_PURPOSE_1": 9, "ENABLE_SECURITY_DOWNLOAD": 1}
        fields |= {"DIS_DIRECT_BOOT": 1, "DIS_PAD_JTAG": 1, "DIS_USB_JTAG": 1}
        protect = 1 << 24 | 1 << 9 | 1 << 0
    for field, value in fields.items():
        board.efuses.burn_field(field, value)
    board.efuses.burn_field("WR_DIS", protect)
    return board


@pytest.mark.parametrize("name", CHIP_NAMES)
def test_a_secured_chip_passes_the_check_of_secure_boot(name: str, tmp_path: Path) -> None:
    board = secured(name, tmp_path)
    assert secure_boot_findings(board.efuses) == ()
    efuses, log = app_of(board)
    assert efuses.verify_secure_boot(aggressive=False)
    assert log.lines == []


def texts(board: Board) -> list[str]:
    efuses, log = app_of(board)
    assert not efuses.verify_secure_boot(aggressive=False)
    return [line.rstrip() for line in log.lines]


def test_a_new_esp32_fails_it(tmp_path: Path) -> None:
    assert texts(Board.named("esp32", tmp_path)) == [
        "E secure_boot: Not enabled Secure Boot V1 (set ABS_DONE_0->1)",
        "E secure_boot: Not enabled Secure Boot V2 (set ABS_DONE_1->1)",
        "W secure_boot: Not write-protected secure boot key (set WR_DIS_BLK2->1)",
        "W secure_boot: Not disabled JTAG (set DISABLE_JTAG->1)",
        "W secure_boot: Not disabled ROM BASIC interpreter fallback (set CONSOLE_DEBUG_DISABLE->1)",
    ]


def test_a_new_esp32c3_fails_it(tmp_path: Path) -> None:
    assert texts(Board.named("esp32c3", tmp_path)) == [
        "W secure_boot: Not enabled Secure Boot (SECURE_BOOT_EN->1)",
        "W secure_boot: Download mode has not been changed, disable it or set security mode:",
        "W secure_boot: Not disabled ROM Download mode (DIS_DOWNLOAD_MODE->1)",
        "W secure_boot: Not enabled Security download mode (ENABLE_SECURITY_DOWNLOAD->1)",
        "W secure_boot: Not disabled direct boot mode (set DIS_DIRECT_BOOT->1)",
        "W secure_boot: Not disabled JTAG PADs (set DIS_PAD_JTAG->1)",
        "W secure_boot: Not disabled USB JTAG (set DIS_USB_JTAG->1)",
        "W secure_boot: Not disabled write-protection for read-protection (set WR_DIS_RD_DIS->1)",
        "E secure_boot: No secure boot key found",
    ]


def test_a_hidden_digest_is_useless(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.efuses.burn_block("BLOCK_KEY1", bytes(range(32)))
    board.efuses.burn_field("KEY_PURPOSE_1", 10)
    board.efuses.burn_field("RD_DIS", 1 << 1)
    found = [line for line in texts(board) if "BLOCK5" in line or "REVOKE" in line]
    assert found == [
        "E secure_boot: Secure boot key in BLOCK5 must NOT be read-protected (can not be used)",
        "E secure_boot: Revoke this secure boot key (set SECURE_BOOT_KEY_REVOKE1->1)",
        "E secure_boot: Secure boot key in BLOCK5 must NOT be empty (can not be used)",
        "E secure_boot: Revoke this secure boot key (set SECURE_BOOT_KEY_REVOKE1->1)",
        "W secure_boot: Not write-protected secure boot key in BLOCK5 (set WR_DIS_KEY1->1)",
        "W secure_boot: Not write-protected KEY_PURPOSE for BLOCK5 (set WR_DIS_KEY_PURPOSE1->1)",
    ]


def test_a_revoked_digest_does_not_count(tmp_path: Path) -> None:
    board = secured("esp32c3", tmp_path)
    board.efuses.burn_field("SECURE_BOOT_KEY_REVOKE0", 1)
    assert texts(board) == ["E secure_boot: No secure boot key found"]


@pytest.mark.parametrize(
    ("name", "fuse", "frozen"),
    [
        ("esp32c5", "SECURE_BOOT_SHA384_EN", {"XTS_DPA_PSEUDO_LEVEL", "ECC_FORCE_CONST_TIME"}),
        ("esp32h2", "ECDSA_CURVE_MODE", {"ECC_FORCE_CONST_TIME"}),
    ],
)
def test_an_app_with_secure_boot_freezes_fuses_at_its_start(
    name: str, fuse: str, frozen: set[str], tmp_path: Path
) -> None:
    board = Board.named(name, tmp_path)
    efuses, log = app_of(board)
    assert efuses.write_protect_at_start() == 0
    bit = board.efuses.geometry.field(fuse).write_disable
    assert bit is not None
    assert board.efuses.field("WR_DIS") == 1 << bit
    assert {
        each for each in ("XTS_DPA_PSEUDO_LEVEL", *frozen) if board.efuses.write_protected(each)
    } == frozen
    assert efuses.write_protect_at_start() == 0
    assert log.lines.count("I efuse: BURN BLOCK0\n") == 1


def test_frozen_pseudo_rounds_leave_release_out_of_reach(tmp_path: Path) -> None:
    board = in_development("esp32c5", tmp_path)
    efuses, _ = app_of(board)
    assert efuses.write_protect_at_start() == 0
    efuses.set_release_mode()
    assert board.efuses.field("XTS_DPA_PSEUDO_LEVEL") == 0
    assert not efuses.verify_encryption()


@pytest.mark.parametrize("name", ["esp32", "esp32c3", "esp32p4"])
def test_other_chips_freeze_nothing_at_their_start(name: str, tmp_path: Path) -> None:
    board = Board.named(name, tmp_path)
    efuses, log = app_of(board)
    assert (efuses.write_protect_at_start(), log.lines) == (0, [])


def test_a_start_up_that_cannot_freeze_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    efuses, log = app_of(Board.named("esp32c5", tmp_path))
    monkeypatch.setattr(Efuses, "program", lambda *_args, **_kwargs: None)
    assert efuses.write_protect_at_start() != 0
    assert log.lines[-1] == "E esp_security: Failed to write protect the SECURE_BOOT_SHA384_EN efuse bit.\n"
