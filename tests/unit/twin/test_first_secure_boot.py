"""The first start of a bootloader that enables secure boot by itself: lines, fuses, and what makes it refuse.

Lines are held against logs of ESP-IDF v5.5 under the mask ROM, in which secure boot and encryption are enabled at
the same first start.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, OTA_1, Board, app_image, bootloader_image, without_stamps
from signing_bench import burn_digest, damaged, key_digest, signed

from harness.chips import CHIPS, TWINS, SigningScheme
from harness.formats.bootloader_config import BootloaderConfig
from harness.twin.boot_context import LoadedApp, Reset
from harness.twin.image_signature import signing_scheme
from harness.twin.operations import CutPoint, PowerCut, PowerLost

LOGS = Path(__file__).parents[2] / "data" / "logs"
CHIP_NAMES = ("esp32", "esp32c3")
CONFIG = replace(boot_board.PLAIN_CONFIG, secure_boot=True)


def blank_board(
    chip_name: str,
    folder: Path,
    config: BootloaderConfig = CONFIG,
    *,
    keys: tuple[int, ...] = (0,),
    app_keys: tuple[int, ...] | None = None,
) -> Board:
    """A chip from the factory with a signed bootloader, a table and a signed app in slot 0."""
    board = Board.named(chip_name, folder)
    scheme = signing_scheme(board.chip, config.secure_boot_scheme)
    board.provision(config=config, versions={OTA_1: "1.1.0"})
    bootloader = bootloader_image(board.chip, config)
    board.put(board.chip.bootloader_offset, signed(bootloader, *keys, scheme=scheme))
    image = app_image(board.chip, "1.0.0")
    board.put(OTA_0, signed(image, *(keys if app_keys is None else app_keys), scheme=scheme))
    return board


def of_secure_boot(board: Board) -> list[str]:
    """Lines of the attempt: from its first to what ends it."""
    lines = board.lines
    return lines[lines.index("I secure_boot_v2: enabling secure boot v2...") :]


# Lines


def recorded(name: str) -> list[str]:
    lines = without_stamps((LOGS / name).read_text())
    start = next(i for i, line in enumerate(lines) if "enabling secure boot v2..." in line)
    end = next(i for i, line in enumerate(lines) if "Resetting with flash encryption" in line)
    return [comparable(line) for line in lines[start : end + 1]]


def comparable(line: str) -> str:
    """Without what depends on the images and the table that were built."""
    line = re.sub(r"(segment \d+): paddr=.*", r"\1", line)
    return re.sub(r"Encrypting partition \d+ at offset .*", "Encrypting partition", line)


def without_repeats(lines: list[str]) -> list[str]:
    """Counts of segments and partitions are those of the recorded build."""
    seen = [re.sub(r"segment \d+", "segment", line) for line in lines]
    kept = [line for i, line in enumerate(seen) if not i or line != seen[i - 1]]
    pair = ["I flash_encrypt: Encrypting partition", "I flash_encrypt: Done encrypting"]
    while any(kept[i : i + 4] == pair * 2 for i in range(len(kept))):
        at = next(i for i in range(len(kept)) if kept[i : i + 4] == pair * 2)
        del kept[at : at + 2]
    return kept


RECORDED = {
    "esp32": (
        "esp32-secure-first-boot-idf5.5.log",
        {
            "allow_jtag": True,
            "allow_rom_basic": True,
            "allow_uart_decrypt": True,
            "allow_uart_cache": True,
        },
    ),
    "esp32c3": ("esp32c3-secure-first-boot-development-idf5.5.log", {}),
}


@pytest.mark.parametrize("chip_name", CHIP_NAMES)
def test_both_enabled_at_the_first_start_print_the_recorded_lines(chip_name: str, tmp_path: Path) -> None:
    name, options = RECORDED[chip_name]
    config = replace(
        CONFIG,
        flash_encryption="development",
        allow_uart_encrypt=True,
        skip_cache_write_protect=True,
        **options,  # type: ignore[arg-type]
    )
    board = blank_board(chip_name, tmp_path, config)
    board.put(OTA_1, b"\xff" * 0x1000)
    outcome = board.boot()
    assert isinstance(outcome, Reset)
    printed = [comparable(line) for line in of_secure_boot(board)]
    assert without_repeats(printed) == without_repeats(recorded(name))
    assert isinstance(board.boot(3), LoadedApp)
    assert "secure boot verification succeeded" in board.lines
    assert board.lines[-5:-1] == [
        "I secure_boot_v2: enabling secure boot v2...",
        "I secure_boot_v2: secure boot v2 is already enabled, continuing..",
        "I boot: Checking flash encryption...",
        f"I flash_encrypt: flash encryption is enabled ({3 if chip_name == 'esp32' else 1} plaintext flashes left)",
    ]


# Chips


SCHEMES = [(name, scheme) for name in TWINS for scheme in CHIPS[name].secure_boot.schemes]


@pytest.mark.parametrize(
    ("chip_name", "scheme"), SCHEMES, ids=[f"{name}-{scheme.value}" for name, scheme in SCHEMES]
)
def test_every_chip_enables_it_with_every_scheme_and_its_rom_agrees(
    chip_name: str, scheme: SigningScheme, tmp_path: Path
) -> None:
    board = blank_board(chip_name, tmp_path, replace(CONFIG, secure_boot_scheme=scheme.value))
    assert isinstance(board.boot(), LoadedApp)
    assert board.efuses.field(board.chip.secure_boot.enable)
    assert all(board.efuses.field(name) == value for name, value in board.chip.secure_boot.burned_with)
    assert isinstance(board.boot(3), LoadedApp)
    assert "secure boot verification succeeded" in board.lines
    put = board.flash.read(board.chip.bootloader_offset, 0x3000)
    board.put(board.chip.bootloader_offset, put[:0x1000] + b"\xff" * 0x2000)
    assert not isinstance(board.boot(), LoadedApp)


def test_where_one_block_serves_both_they_are_burned_together(tmp_path: Path) -> None:
    config = replace(CONFIG, flash_encryption="release", flash_key="derived")
    board = blank_board("esp32c2", tmp_path, config)
    assert isinstance(board.boot(), Reset)
    burns = [line for line in board.lines if line.startswith("I efuse: BURN BLOCK") and line.endswith("3")]
    assert burns == ["I efuse: BURN BLOCK3"]
    assert "I boot: Secure boot permanently enabled" in board.lines
    digest = key_digest(0, board.chip.secure_boot.schemes[0])
    assert board.efuses.block_for_software("BLOCK_KEY0") == bytes(16) + digest[:16]
    assert any(board.efuses.block_for_hardware("BLOCK_KEY0")[:16])
    assert isinstance(board.boot(3), LoadedApp)
    assert "secure boot verification succeeded" in board.lines


def test_where_one_block_serves_both_one_alone_is_refused_afterwards(tmp_path: Path) -> None:
    board = blank_board("esp32c2", tmp_path)
    assert isinstance(board.boot(), LoadedApp)
    config = replace(CONFIG, flash_encryption="release", flash_key="derived")
    scheme = board.chip.secure_boot.schemes[0]
    board.put(board.chip.bootloader_offset, signed(bootloader_image(board.chip, config), scheme=scheme))
    before = burned(board)
    assert isinstance(board.boot(), Reset)
    text = "Secure Boot and Flash Encryption cannot be enabled separately, only together"
    assert f"E boot: {text} (their keys go into one eFuse key block)" in board.lines
    assert burned(board) == before


# Fuses


def test_afterwards_the_esp32_verifies_and_cannot_hide_the_digest(tmp_path: Path) -> None:
    board = blank_board("esp32", tmp_path)
    assert isinstance(board.boot(), LoadedApp)
    efuses = board.efuses
    assert efuses.block_for_software("BLOCK2") == key_digest()
    assert efuses.field("ABS_DONE_1") == 1
    assert (efuses.field("JTAG_DISABLE"), efuses.field("CONSOLE_DEBUG_DISABLE")) == (1, 1)
    assert efuses.write_protected("BLOCK2")
    assert efuses.write_protected("RD_DIS")
    assert not efuses.read_protected("BLOCK2")
    assert efuses.field("UART_DOWNLOAD_DIS") == 0


def test_afterwards_the_esp32c3_verifies_and_has_no_slot_left(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path)
    assert isinstance(board.boot(), LoadedApp)
    efuses = board.efuses
    assert efuses.block_for_software("BLOCK_KEY0") == key_digest()
    assert efuses.field("KEY_PURPOSE_0") == 9
    assert efuses.write_protected("BLOCK_KEY0")
    assert efuses.write_protected("KEY_PURPOSE_0")
    assert efuses.write_protected("RD_DIS")
    assert efuses.field("SECURE_BOOT_EN") == 1
    assert [efuses.field(f"SECURE_BOOT_KEY_REVOKE{slot}") for slot in range(3)] == [0, 1, 1]
    assert efuses.field("SOFT_DIS_JTAG") == 7
    assert all(efuses.field(name) for name in ("DIS_PAD_JTAG", "DIS_USB_JTAG", "DIS_DIRECT_BOOT"))
    assert not efuses.field("SECURE_BOOT_AGGRESSIVE_REVOKE")
    assert not efuses.field("ENABLE_SECURITY_DOWNLOAD")


@pytest.mark.parametrize(
    ("option", "value", "fuses"),
    [
        ("aggressive_revoke", True, {"SECURE_BOOT_AGGRESSIVE_REVOKE": 1}),
        ("allow_unused_digest_slots", True, {"SECURE_BOOT_KEY_REVOKE1": 0, "SECURE_BOOT_KEY_REVOKE2": 0}),
        (
            "allow_jtag",
            True,
            {"SOFT_DIS_JTAG": 0, "DIS_PAD_JTAG": 0, "DIS_USB_JTAG": 0, "DIS_DIRECT_BOOT": 1},
        ),
        ("download_lock", "secure-download", {"ENABLE_SECURITY_DOWNLOAD": 1, "DIS_DOWNLOAD_MODE": 0}),
        ("download_lock", "download-off", {"ENABLE_SECURITY_DOWNLOAD": 0, "DIS_DOWNLOAD_MODE": 1}),
    ],
)
def test_an_option_of_the_build_decides_what_is_burned(
    option: str, value: bool | str, fuses: dict[str, int], tmp_path: Path
) -> None:
    config = replace(CONFIG, **{option: value})  # type: ignore[arg-type]
    board = blank_board("esp32c3", tmp_path, config)
    assert isinstance(board.boot(), LoadedApp)
    assert {name: board.efuses.field(name) for name in fuses} == fuses


def test_a_build_can_leave_read_protection_open(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path, replace(CONFIG, allow_read_protect=True))
    board.boot()
    assert not board.efuses.write_protected("RD_DIS")
    assert "W secure_boot: Allowing read disabling of additional efuses - SECURITY COMPROMISED" in board.lines


def test_bits_that_were_set_before_make_a_line_and_no_difference(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path)
    board.efuses.burn_field("SOFT_DIS_JTAG", 3)
    assert isinstance(board.boot(), LoadedApp)
    assert "E efuse: The required number of bits can not be set. [Not set 2]" in board.lines
    assert board.efuses.field("SOFT_DIS_JTAG") == 7
    assert board.efuses.field("SECURE_BOOT_EN") == 1


def test_every_key_of_the_bootloader_gets_a_block_and_a_slot(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path, keys=(0, 1), app_keys=(1,))
    board.efuses.burn_block("BLOCK_KEY0", bytes(range(32)))
    assert isinstance(board.boot(), LoadedApp)
    assert "I secure_boot_v2: Application key(0) matches with bootloader key(1)." in board.lines
    assert "I efuse: Writing EFUSE_BLK_KEY2 with purpose 10" in board.lines
    assert board.efuses.block_for_software("BLOCK_KEY1") == key_digest(0)
    assert board.efuses.block_for_software("BLOCK_KEY2") == key_digest(1)
    assert board.efuses.field("SECURE_BOOT_KEY_REVOKE2") == 1


@pytest.mark.parametrize("chip_name", CHIP_NAMES)
def test_a_digest_burned_before_is_taken_and_write_protected(chip_name: str, tmp_path: Path) -> None:
    board = blank_board(chip_name, tmp_path)
    burn_digest(board)
    assert isinstance(board.boot(), LoadedApp)
    assert "I secure_boot_v2: Secure boot digests already present" in board.lines
    assert "W secure_boot_v2: Using pre-loaded public key digest in eFuse" in board.lines
    assert board.efuses.write_protected("BLOCK2" if chip_name == "esp32" else "BLOCK_KEY1")
    assert board.efuses.field(board.chip.secure_boot.enable) == 1


# What it refuses


def burned(board: Board) -> bytes:
    return b"".join(board.efuses.block_for_hardware(block.index) for block in board.efuses.geometry.blocks)


def test_an_app_of_another_key_burns_nothing(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path, app_keys=(1,))
    before = burned(board)
    assert isinstance(board.boot(), Reset)
    lines = of_secure_boot(board)
    start = lines.index("I secure_boot_v2: 1 signature block(s) found appended to the app.")
    assert lines[start + 1 : start + 5] == [
        "E secure_boot_v2: No application key digest matches the bootloader key digest.",
        "I efuse: Batch mode of writing fields is cancelled",
        "E boot: Secure Boot v2 failed (-1)",
        "E boot: OTA app partition slot 0 is not bootable",
    ]
    assert burned(board) == before


def test_an_unsigned_app_is_not_loaded_even_before_secure_boot_is_on(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path)
    before = burned(board)
    board.put(OTA_0, app_image(board.chip, "1.0.0").ljust(0x3000, b"\xff"))
    assert isinstance(board.boot(), Reset)
    assert "E secure_boot_v2: No signature block generated for valid scheme" in board.lines
    assert burned(board) == before


def test_an_unsigned_bootloader_enables_nothing(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path)
    before = burned(board)
    image = bootloader_image(board.chip, CONFIG)
    board.put(board.chip.bootloader_offset, image.ljust(0x3000, b"\xff"))
    assert isinstance(board.boot(), Reset)
    assert "E secure_boot_v2: bootloader image appears invalid! error 8194" in board.lines
    assert burned(board) == before


def test_a_digest_that_cannot_be_read_enables_nothing(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path)
    burn_digest(board)
    board.efuses.burn_field("RD_DIS", 1 << 1)
    assert isinstance(board.boot(), Reset)
    assert not board.efuses.field("SECURE_BOOT_EN")
    # Zeros are what is trusted, so the app does not even load.
    assert "Sig block 0 signed with untrusted key" in board.lines


@pytest.mark.parametrize("at", [1, 40, 900])
def test_a_damaged_signature_of_the_app_enables_nothing(at: int, tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path)
    before = burned(board)
    board.put(OTA_0, damaged(signed(app_image(board.chip, "1.0.0")), at))
    assert isinstance(board.boot(), Reset)
    assert burned(board) == before


def test_esp32_with_a_coding_scheme_is_told_so(tmp_path: Path) -> None:
    board = blank_board("esp32", tmp_path)
    board.efuses.burn_field("CODING_SCHEME", 1)
    assert isinstance(board.boot(), Reset)
    text = "No coding schemes are supported in secure boot v2.(Detected scheme: 0x1)"
    assert f"E secure_boot_v2: {text}" in board.lines
    assert not board.efuses.field("ABS_DONE_1")


def cut_before_the_fuses(board: Board) -> None:
    """Lose the supply when the digest is in its block and nothing of block 0 is burned."""
    operations = board.efuses.operations
    operations.set_cut(PowerCut(operations.next_number, CutPoint.AFTER))
    with pytest.raises(PowerLost):
        board.boot()
    operations.restore_power()
    board.flash.operations.restore_power()
    board.efuses.reload()
    assert not board.efuses.field(board.chip.secure_boot.enable)


def test_after_a_cut_the_esp32_goes_on_with_the_digest_that_it_burned(tmp_path: Path) -> None:
    board = blank_board("esp32", tmp_path)
    cut_before_the_fuses(board)
    assert isinstance(board.boot(), LoadedApp)
    assert "I secure_boot_v2: Secure boot digests already present" in board.lines
    assert board.efuses.field("ABS_DONE_1")


def test_after_a_cut_the_esp32c3_takes_another_block_for_the_same_digest(tmp_path: Path) -> None:
    """The first has no purpose: it was to come with block 0."""
    board = blank_board("esp32c3", tmp_path)
    cut_before_the_fuses(board)
    assert isinstance(board.boot(), LoadedApp)
    assert board.efuses.block_for_software("BLOCK_KEY0") == key_digest()
    assert board.efuses.block_for_software("BLOCK_KEY1") == key_digest()
    assert [board.efuses.field(f"KEY_PURPOSE_{index}") for index in range(2)] == [0, 9]
    assert board.efuses.field("SECURE_BOOT_EN")
