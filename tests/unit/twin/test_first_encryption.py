"""The first start of a bootloader that enables flash encryption by itself: lines, fuses, flash, and cuts.

Lines are held against logs of ESP-IDF v5.5 under the mask ROM; what lies in flash is deciphered by the host's own
code with the key that the device made.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, OTA_1, OTADATA, TABLE_OFFSET, Board, app_image, bootloader_image, without_stamps

from harness.chips import TWINS, Cipher
from harness.formats import flash_encryption
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.otadata import OtaData
from harness.formats.partition_table import PartitionTable
from harness.twin import security
from harness.twin.boot_context import LoadedApp, Reset, RomLoop
from harness.twin.operations import CutPoint, Operation, PowerCut, PowerLost
from harness.twin.security import EncryptionMode

LOGS = Path(__file__).parents[2] / "data" / "logs"
CHIP_NAMES = ("esp32", "esp32c3")
FLASH_KEYS = {Cipher.XTS_AES_256: "aes256", Cipher.XTS_AES_128_DERIVED: "derived"}
"""The key that a chip's row is about, as a build for the chip makes it."""

DEVELOPMENT = replace(
    boot_board.CONFIG,
    flash_encryption="development",
    require_encrypted=False,
    # As Kconfig selects them.
    allow_uart_encrypt=True,
    skip_cache_write_protect=True,
)
RELEASE = replace(boot_board.CONFIG, require_encrypted=False, pseudo_rounds=1)

CSV = """
nvs,      data, nvs,      0x11000, 0x4000
otadata,  data, ota,      0x15000, 0x2000
phy_init, data, phy,      0x17000, 0x1000
nvs_key,  data, nvs_keys, 0x18000, 0x1000
storage,  data, 0x40,     0x19000, 0x1000, encrypted
plain,    data, 0x41,     0x1a000, 0x1000
ota_0,    app,  ota_0,    0x20000, 0x180000
ota_1,    app,  ota_1,    0x1a0000,0x180000
"""
STORAGE, PLAIN = 0x19000, 0x1A000


def blank_board(chip_name: str, folder: Path, config: BootloaderConfig) -> Board:
    """A chip from the factory with everything flashed as plaintext: a bootloader, a table, one app."""
    board = Board.named(chip_name, folder)
    flash_as_plaintext(board, replace(config, flash_key=FLASH_KEYS.get(board.chip.cipher, "aes128")))
    return board


def flash_as_plaintext(board: Board, config: BootloaderConfig) -> None:
    board.encrypted = False
    board.put(board.chip.bootloader_offset, bootloader_image(board.chip, config))
    board.put(TABLE_OFFSET, PartitionTable.from_csv(CSV, table_offset=TABLE_OFFSET).to_binary())
    board.put(OTADATA, OtaData.blank().to_bytes())
    board.put(STORAGE, b"storage".ljust(0x1000, b"-"))
    board.put(PLAIN, b"plain".ljust(0x1000, b"-"))
    board.put(OTA_0, app_image(board.chip, "1.0.0", program=b"program" * 1000))
    board.put(OTA_1, b"\xff" * 0x1000)


def key_of(board: Board) -> bytes:
    """The key that the device made, as a key file would hold it. Only a twin can tell."""
    blocks = [block for block in security.flash_key_blocks(board.efuses) if block is not None]
    stored = [board.efuses.block_for_hardware(block) for block in blocks]
    size = board.chip.cipher.key_size_bytes // len(blocks)
    return b"".join(each[:size][::-1] for each in stored)


def deciphered(board: Board, offset: int, size: int) -> bytes:
    raw = board.flash.read(offset, -(-size // 16) * 16)
    return flash_encryption.decrypt(board.chip.cipher, key_of(board), offset, raw)[:size]


def power_up(board: Board) -> None:
    """The supply comes back after a cut: a reset also loads the eFuses."""
    board.flash.operations.restore_power()
    board.efuses.operations.restore_power()
    board.efuses.reload()


# Lines


def recorded(name: str) -> list[str]:
    """The lines of the recorded first boot that belong to flash encryption."""
    lines = without_stamps((LOGS / name).read_text())
    start = next(i for i, line in enumerate(lines) if "Checking flash encryption..." in line)
    end = next(i for i, line in enumerate(lines) if "Resetting with flash encryption" in line)
    return [comparable(line) for line in lines[start : end + 1] if not _OF_SECURE_BOOT.search(line)]


_OF_SECURE_BOOT = re.compile(r" secure_boot_v2: |Verifying image signature")


def comparable(line: str) -> str:
    """Without what depends on the images that were built."""
    line = re.sub(r"(segment \d+): paddr=.*", r"\1", line)
    return re.sub(r"(at offset 0x(?:2|1a)0000 \(length) .*", r"\1 …", line)


def without_repeats(lines: list[str]) -> list[str]:
    """One line for all segments of an image."""
    kept: list[str] = []
    for line in lines:
        line = re.sub(r"segment \d+", "segment", line)
        if not kept or kept[-1] != line or "segment" not in line:
            kept.append(line)
    return kept


RECORDED = {
    "esp32": (
        "esp32-secure-first-boot-idf5.5.log",
        replace(
            DEVELOPMENT,
            allow_uart_decrypt=True,
            allow_uart_cache=True,
            allow_jtag=True,
            allow_rom_basic=True,
        ),
    ),
    "esp32c3": ("esp32c3-secure-first-boot-development-idf5.5.log", DEVELOPMENT),
}


@pytest.mark.parametrize("chip_name", CHIP_NAMES)
def test_every_line_is_that_of_the_recorded_first_boot(chip_name: str, tmp_path: Path) -> None:
    name, config = RECORDED[chip_name]
    board = Board.named(chip_name, tmp_path, flash_bytes=4 << 20)
    real = recorded(name)
    if chip_name == "esp32c3":
        # The recorded board had burned a digest, so that the flash key went into the second key block.
        board.efuses.burn_block("BLOCK_KEY0", bytes(range(32)))
        board.efuses.burn_field("KEY_PURPOSE_0", 9)
        board.efuses.burn_field("WR_DIS", 1 << 23 | 1 << 8)
    table = PartitionTable.from_csv(RECORDED_CSV[chip_name], table_offset=RECORDED_TABLE[chip_name])
    config = replace(config, table_offset=RECORDED_TABLE[chip_name])
    board.put(board.chip.bootloader_offset, bootloader_image(board.chip, config))
    board.put(config.table_offset, table.to_binary())
    board.put(0x20000, app_image(board.chip, "1"))
    assert isinstance(board.boot(), Reset)
    start = next(i for i, line in enumerate(board.lines) if "Checking flash encryption" in line)
    printed = [comparable(line) for line in board.lines[start:]]
    assert without_repeats(printed) == without_repeats(real)


RECORDED_TABLE = {"esp32": 0xF000, "esp32c3": 0x10000}
RECORDED_CSV = {
    "esp32": """
nvs,      data, nvs,      0x10000, 0x6000
otadata,  data, ota,      0x16000, 0x2000
phy_init, data, phy,      0x18000, 0x1000
nvs_key,  data, nvs_keys, 0x19000, 0x1000
storage,  data, 0x40,     0x1a000, 0x1000, encrypted
ota_0,    app,  ota_0,    0x20000, 0x180000
ota_1,    app,  ota_1,    0x1a0000,0x180000
""",
    "esp32c3": """
nvs,      data, nvs,      0x11000, 0x6000
otadata,  data, ota,      0x17000, 0x2000
phy_init, data, phy,      0x19000, 0x1000
nvs_key,  data, nvs_keys, 0x1a000, 0x1000
ota_0,    app,  ota_0,    0x20000, 0x180000
ota_1,    app,  ota_1,    0x1a0000,0x180000
""",
}


@pytest.mark.parametrize(
    ("chip_name", "said"),
    [
        (
            "esp32",
            [
                "I flash_encrypt: Setting CRYPT_CONFIG efuse to 0xF",
                "I flash_encrypt: Disable UART bootloader encryption...",
                "I flash_encrypt: Disable UART bootloader decryption...",
                "I flash_encrypt: Disable UART bootloader MMU cache...",
                "I flash_encrypt: Disable JTAG...",
                "I flash_encrypt: Disable ROM BASIC interpreter fallback...",
            ],
        ),
        (
            "esp32c3",
            [
                "I flash_encrypt: Disable UART bootloader encryption...",
                "I flash_encrypt: Disable UART bootloader cache...",
                "I flash_encrypt: Disable JTAG...",
            ],
        ),
    ],
)
def test_a_release_build_closes_every_door(chip_name: str, said: list[str], tmp_path: Path) -> None:
    board = blank_board(chip_name, tmp_path, RELEASE)
    assert isinstance(board.boot(), Reset)
    lines = board.lines
    first = lines.index(said[0])
    assert lines[first : first + len(said)] == said
    assert "I flash_encrypt: Setting CRYPT_CNT for permanent encryption" in lines
    assert not any("Not disabling" in line for line in lines)


# Fuses

BURNED = [
    (
        "esp32",
        DEVELOPMENT,
        {
            "FLASH_CRYPT_CNT": 1,
            "FLASH_CRYPT_CONFIG": 0xF,
            "DISABLE_DL_ENCRYPT": 0,
            "DISABLE_DL_DECRYPT": 1,
            "DISABLE_DL_CACHE": 1,
            "JTAG_DISABLE": 1,
            "CONSOLE_DEBUG_DISABLE": 1,
            "UART_DOWNLOAD_DIS": 0,
            "WR_DIS": 1 << 7,
            "RD_DIS": 1,
        },
    ),
    (
        "esp32",
        RELEASE,
        {"FLASH_CRYPT_CNT": 0x7F, "DISABLE_DL_ENCRYPT": 1, "UART_DOWNLOAD_DIS": 0, "WR_DIS": 1 << 7 | 1 << 3},
    ),
    (
        "esp32c3",
        DEVELOPMENT,
        {
            "SPI_BOOT_CRYPT_CNT": 1,
            "KEY_PURPOSE_0": 4,
            "DIS_DOWNLOAD_MANUAL_ENCRYPT": 0,
            "DIS_DOWNLOAD_ICACHE": 1,
            "DIS_PAD_JTAG": 1,
            "DIS_USB_JTAG": 1,
            "DIS_DIRECT_BOOT": 1,
            "SOFT_DIS_JTAG": 0,
            "ENABLE_SECURITY_DOWNLOAD": 0,
            "WR_DIS": 1 << 23 | 1 << 8,
            "RD_DIS": 1,
        },
    ),
    (
        "esp32c3",
        RELEASE,
        {
            "SPI_BOOT_CRYPT_CNT": 7,
            "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1,
            "ENABLE_SECURITY_DOWNLOAD": 0,
            "WR_DIS": 1 << 23 | 1 << 8 | 1 << 2,
        },
    ),
]


@pytest.mark.parametrize(("chip_name", "config", "burned"), BURNED)
def test_the_fuses_are_those_of_the_chip_and_mode(
    chip_name: str, config: BootloaderConfig, burned: dict[str, int], tmp_path: Path
) -> None:
    board = blank_board(chip_name, tmp_path, config)
    board.boot()
    assert {name: board.efuses.field(name) for name in burned} == burned


@pytest.mark.parametrize("chip_name", TWINS)
def test_a_release_build_leaves_what_esp_idfs_release_check_wants(chip_name: str, tmp_path: Path) -> None:
    board = blank_board(chip_name, tmp_path, RELEASE)
    board.boot()
    assert security.encryption_mode(board.efuses) is EncryptionMode.RELEASE
    assert [finding.text for finding in security.release_findings(board.efuses)] == MISSED.get(chip_name, [])


MISSED = {
    # Its bootloader has no code for the level that the check wants.
    "esp32p4": ["Not enabled XTS-AES pseudo rounds function (set XTS_DPA_PSEUDO_LEVEL->1 or more)"]
}


def test_two_devices_make_different_keys_and_never_print_them(tmp_path: Path) -> None:
    keys = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        board = blank_board("esp32c3", tmp_path / name, DEVELOPMENT)
        board.boot()
        key = key_of(board)
        keys.add(key)
        assert not any(board.efuses.block_for_software("BLOCK_KEY0")), "read-protected"
        assert key.hex() not in board.printed.decode()
        assert key[::-1].hex() not in board.printed.decode()
    assert len(keys) == 2


# Flash


@pytest.mark.parametrize("config", [DEVELOPMENT, RELEASE], ids=["development", "release"])
@pytest.mark.parametrize("chip_name", TWINS)
def test_what_must_be_encrypted_is_and_the_rest_stays(
    chip_name: str, config: BootloaderConfig, tmp_path: Path
) -> None:
    board = blank_board(chip_name, tmp_path, config)
    offset = board.chip.bootloader_offset
    app = board.flash.read(OTA_0, 0x2000)
    assert len(app.rstrip(b"\xff")) > 0x1000, "the app takes two sectors"
    bootloader, table = board.flash.read(offset, 0x1000), board.flash.read(TABLE_OFFSET, 0x1000)
    board.boot()
    assert deciphered(board, offset, 0x1000) == bootloader
    assert deciphered(board, TABLE_OFFSET, 0x1000) == table
    # The first start wrote a record, in plaintext, before it encrypted it with the rest.
    assert deciphered(board, OTADATA + 0x1000, 0x1000) == b"\xff" * 0x1000
    assert deciphered(board, OTADATA, 4) == b"\1\0\0\0"
    assert deciphered(board, STORAGE, 7) == b"storage"
    assert deciphered(board, OTA_0, len(app)) == app
    assert board.flash.read(OTA_0 + 0x2000, 16) == b"\xff" * 16, "beyond the image"
    assert board.flash.read(PLAIN, 5) == b"plain"
    assert board.flash.read(0x11000, 16) == b"\xff" * 16, "NVS has no flag"
    assert board.flash.read(OTA_1, 0x1000) == b"\xff" * 0x1000, "no image, nothing to encrypt"
    outcome = board.boot(3)
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_0


def test_only_the_image_of_an_app_is_encrypted_unless_the_build_wants_the_partition(tmp_path: Path) -> None:
    ends = []
    for name, whole in (("image", False), ("whole", True)):
        (tmp_path / name).mkdir()
        board = blank_board("esp32c3", tmp_path / name, replace(DEVELOPMENT, encrypt_whole_app=whole))
        board.boot()
        ops = [op for op in board.flash.operations.since(0) if op.kind == "write-encrypted"]
        ends.append(max(op.offset for op in ops) - OTA_0)
    assert ends == [0x1000, 0x180000 - 0x1000]


@pytest.mark.parametrize("chip_name", CHIP_NAMES)
def test_burns_come_before_and_after_and_every_sector_is_erased_then_written(
    chip_name: str, tmp_path: Path
) -> None:
    board = blank_board(chip_name, tmp_path, DEVELOPMENT)
    start = board.efuses.operations.next_number
    flash_start = board.flash.operations.next_number
    board.boot()
    burns = [op.offset for op in board.efuses.operations.since(start)]
    key_block = board.efuses.geometry.block(board.chip.fuses.key_storage_block).index
    assert burns == [key_block, 0, 0], "the highest block first, the counter alone at the end"
    changes = [op for op in board.flash.operations.since(flash_start) if op.who == "bootloader"]
    # The record of the app that would have been started came first, as plaintext.
    assert [(op.kind, op.offset, op.length) for op in changes[:2]] == [
        ("erase", OTADATA, 0x1000),
        ("write", OTADATA, 32),
    ]
    places = [board.chip.bootloader_offset, TABLE_OFFSET, OTADATA, OTADATA + 0x1000, 0x18000, STORAGE]
    places += [OTA_0, OTA_0 + 0x1000]
    assert [(op.kind, op.offset, op.length) for op in changes[2:]] == [
        step for at in places for step in (("erase", at, 0x1000), ("write-encrypted", at, 0x1000))
    ]


# Refusals


def refusals(board: Board) -> list[str]:
    board.boot()
    return [line for line in board.lines if line.startswith("E ")][:3]


@pytest.mark.parametrize(("chip_name", "bit", "shown"), [("esp32", 2, 2), ("esp32c3", 4, 2)])
def test_a_counter_that_is_frozen_cannot_be_raised(
    chip_name: str, bit: int, shown: int, tmp_path: Path
) -> None:
    board = blank_board(chip_name, tmp_path, DEVELOPMENT)
    board.efuses.burn_field(board.chip.fuses.counter, 3)
    board.efuses.burn_field("WR_DIS", 1 << bit)
    text = f"E flash_encrypt: Flash Encryption cannot be enabled (CRYPT_CNT ({shown}) is write protected)"
    assert refusals(board)[:2] == [text, "E boot: OTA app partition slot 0 is not bootable"]
    assert board.flash.read(OTA_0, 1) == b"\xe9"


UNPROTECTED = [
    ("esp32", 1 << 7, 0),
    ("esp32", 0, 1),
    ("esp32c3", 1 << 23 | 1 << 8, 0),
    ("esp32c3", 1 << 8, 1),
    ("esp32c3", 1 << 23, 1),
]


@pytest.mark.parametrize(("chip_name", "wr_dis", "rd_dis"), UNPROTECTED)
def test_a_key_that_was_put_there_must_be_protected_altogether(
    chip_name: str, wr_dis: int, rd_dis: int, tmp_path: Path
) -> None:
    board = blank_board(chip_name, tmp_path, DEVELOPMENT)
    board.burn_key(board.key)
    board.efuses.burn_field("WR_DIS", wr_dis)
    board.efuses.burn_field("RD_DIS", rd_dis)
    assert refusals(board) == [
        "E flash_encrypt: Invalid key state, check read&write protection for key and keypurpose(if exists)",
        "E boot: Initialization of Flash Encryption key failed (259)",
        "E boot: OTA app partition slot 0 is not bootable",
    ]
    assert "I efuse: Batch mode of writing fields is cancelled" in board.lines
    assert board.efuses.field(board.chip.fuses.counter) == 0


@pytest.mark.parametrize(
    ("chip_name", "wr_dis"), [("esp32", 1 << 7), ("esp32c3", 1 << 23 | 1 << 8)], ids=CHIP_NAMES
)
def test_a_protected_key_that_was_put_there_is_used(chip_name: str, wr_dis: int, tmp_path: Path) -> None:
    board = blank_board(chip_name, tmp_path, DEVELOPMENT)
    board.burn_key(board.key)
    board.efuses.burn_field("WR_DIS", wr_dis)
    board.efuses.burn_field("RD_DIS", 1)
    assert isinstance(board.boot(), Reset)
    assert "I flash_encrypt: Using pre-loaded flash encryption key in efuse" in board.lines
    assert key_of(board) == board.key
    assert isinstance(board.boot(3), LoadedApp)


def test_the_first_free_key_block_is_taken_and_without_one_nothing_is_done(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path, DEVELOPMENT)
    for index in range(5):
        board.efuses.burn_block(f"BLOCK_KEY{index}", bytes((index + 1,)) * 32)
    assert refusals(board) == [
        "E efuse: BLOCK9 can not have the 4 purpose because of HW bug (see TRM for more details)",
        "E efuse: Failed to write EFUSE_BLK_KEY5 with purpose 4. Can't continue.",
        "E flash_encrypt: Failed to write efuse block with purpose (err=0x106). Can't continue.",
    ]
    board.efuses.burn_block("BLOCK_KEY5", bytes((6,)) * 32)
    assert refusals(board) == [
        "E efuse: Not enough unused key blocks available. Required 1, was 0",
        "E flash_encrypt: Not enough free efuse key blocks (need 1) to continue",
        "E boot: Initialization of Flash Encryption key failed (5637)",
    ]
    assert not any(board.efuses.field(f"KEY_PURPOSE_{index}") for index in range(6))


def test_fuses_that_do_not_take_stop_it_before_the_flash(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path, DEVELOPMENT)
    board.efuses.burn_field("WR_DIS", 1 << 18)  # DIS_DIRECT_BOOT among others
    assert refusals(board)[-2:] == [
        "E efuse: BURN BLOCK0 - ERROR (written bits != read bits)",
        "E efuse: BURN BLOCK0 - ERROR (written bits != read bits)",
    ]
    assert "E flash_encrypt: Error programming security eFuses (err=0xffffffff)." in board.lines
    assert "E boot: Initialization of Flash Encryption key failed (-1)" in board.lines
    assert board.flash.read(OTA_0, 1) == b"\xe9"


# Cuts


def operations_of_a_clean_run(chip_name: str, folder: Path) -> tuple[Operation, ...]:
    """Of both the flash and the eFuses, which have logs of their own on this bench."""
    folder.mkdir()
    board = blank_board(chip_name, folder, DEVELOPMENT)
    start = board.flash.operations.next_number
    board.boot()
    return board.flash.operations.since(start)


@pytest.mark.parametrize("where", list(CutPoint))
@pytest.mark.parametrize("chip_name", CHIP_NAMES)
def test_a_cut_within_the_encryption_leaves_a_chip_that_only_plaintext_helps(
    chip_name: str, where: CutPoint, tmp_path: Path
) -> None:
    """Cut at every fourth operation: flash everything as plaintext again, and the second start goes through."""
    clean = operations_of_a_clean_run(chip_name, tmp_path / "clean")
    for count in range(2, len(clean), 4):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        board = blank_board(chip_name, folder, DEVELOPMENT)
        start = board.flash.operations.next_number
        board.flash.operations.set_cut(PowerCut(start + count, where, byte=0x800))
        with pytest.raises(PowerLost):
            board.boot()
        power_up(board)
        step = f"{clean[count].kind} at 0x{clean[count].offset:x} ({count} of {len(clean)}), {where.value}"
        assert board.efuses.field(board.chip.fuses.counter) == 0, step
        key = key_of(board)
        outcome = board.boot()
        if count == 2 and where is CutPoint.BEFORE:
            # Nothing was touched yet: it starts again by itself.
            assert isinstance(outcome, Reset), step
            continue
        assert isinstance(outcome, RomLoop), step
        assert outcome.line is not None
        assert outcome.line.startswith("invalid header: 0x"), step
        flash_as_plaintext(board, DEVELOPMENT)
        assert isinstance(board.boot(), Reset), step
        assert "I flash_encrypt: Using pre-loaded flash encryption key in efuse" in board.lines
        assert key_of(board) == key
        assert isinstance(board.boot(3), LoadedApp), step


@pytest.mark.parametrize("where", list(CutPoint))
def test_a_cut_while_the_key_is_burned_costs_a_key_block(where: CutPoint, tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path, DEVELOPMENT)
    board.efuses.operations.set_cut(PowerCut(board.efuses.operations.next_number, where, byte=7))
    with pytest.raises(PowerLost):
        board.boot()
    power_up(board)
    assert isinstance(board.boot(), Reset)
    taken = "BLOCK_KEY0" if where is CutPoint.BEFORE else "BLOCK_KEY1"
    assert security.flash_key_block(board.efuses) == taken
    assert isinstance(board.boot(3), LoadedApp)


def test_a_cut_between_key_and_protection_makes_an_esp32_refuse_for_good(tmp_path: Path) -> None:
    board = blank_board("esp32", tmp_path, DEVELOPMENT)
    board.efuses.operations.set_cut(PowerCut(board.efuses.operations.next_number, CutPoint.AFTER))
    with pytest.raises(PowerLost):
        board.boot()
    power_up(board)
    assert refusals(board)[0].startswith("E flash_encrypt: Invalid key state")
    # What ESP-IDF's own comment advises: set the missing protection by hand.
    board.efuses.burn_field("WR_DIS", 1 << 7)
    board.efuses.burn_field("RD_DIS", 1)
    assert isinstance(board.boot(), Reset)
    assert isinstance(board.boot(3), LoadedApp)


def test_a_cut_before_the_counter_is_burned_leaves_ciphertext_that_the_rom_cannot_read(
    tmp_path: Path,
) -> None:
    board = blank_board("esp32c3", tmp_path, RELEASE)
    last = board.efuses.operations.next_number + 2
    board.efuses.operations.set_cut(PowerCut(last, CutPoint.BEFORE))
    with pytest.raises(PowerLost):
        board.boot()
    power_up(board)
    assert isinstance(board.boot(), RomLoop)
    # Everything is enciphered already: raising the counter by hand is enough.
    board.efuses.burn_field("SPI_BOOT_CRYPT_CNT", 7)
    assert isinstance(board.boot(), LoadedApp)


def test_a_flash_that_fails_ends_it_with_the_drivers_error(tmp_path: Path) -> None:
    board = blank_board("esp32c3", tmp_path, DEVELOPMENT)
    board.flash.operations.add_fault("write-encrypted", 0x6001, after=1)
    board.boot()
    errors = [line for line in board.lines if line.startswith("E ")]
    assert errors[:4] == [
        "E flash_encrypt: flash operation failed: 0x6001",
        "E flash_encrypt: Failed to encrypt partition table in place. 6001",
        "E boot: Encryption flash contents failed (24577)",
        "E boot: OTA app partition slot 0 is not bootable",
    ]


def test_a_second_encryption_goes_on_with_the_key_of_the_first(tmp_path: Path) -> None:
    """Plaintext flashed after the counter was made even by hand: no batch, no question about the key."""
    board = blank_board("esp32c3", tmp_path, DEVELOPMENT)
    board.boot()
    board.efuses.burn_field("SPI_BOOT_CRYPT_CNT", 3)
    flash_as_plaintext(board, DEVELOPMENT)
    assert isinstance(board.boot(), Reset)
    assert not any("Batch mode" in line or "flash encryption key" in line for line in board.lines)
    assert board.efuses.field("SPI_BOOT_CRYPT_CNT") == 7
    assert isinstance(board.boot(3), LoadedApp)


def test_no_chip_of_the_twin_is_without_a_row() -> None:
    from harness.chips.idf_burns import idf_burns

    for name in TWINS:
        row = idf_burns(name)
        assert row.doors
        assert row.keys
