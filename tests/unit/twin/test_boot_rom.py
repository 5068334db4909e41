"""The mask ROM: what it prints and how the chip goes on when the bootloader in flash is not as it should be.

Expected lines were observed on the mask ROMs under QEMU; the watchdog's part on silicon.
"""

from __future__ import annotations

import struct
import threading
from io import BytesIO
from pathlib import Path

import boot_board
import espsecure
import pytest
from boot_board import Board, bootloader_image

from harness.chips import TWINS
from harness.formats.app_image import Segment, build_app_image
from harness.twin import rom_boot
from harness.twin.boot_context import Halted, LoadedApp, Reset, RomLoop

CHIP_NAMES = sorted(TWINS)
BANNER = {
    "esp32": ["ets Jul 29 2019 12:21:46", ""],
    "esp32s2": ["ESP-ROM:esp32s2-rc4-20191025", "Build:Oct 25 2019"],
    "esp32s3": ["ESP-ROM:esp32s3-20210327", "Build:Mar 27 2021"],
    "esp32c2": ["ESP-ROM:esp8684-api2-20220127", "Build:Jan 27 2022"],
    "esp32c3": ["ESP-ROM:esp32c3-api1-20210207", "Build:Feb  7 2021"],
    "esp32c5": ["ESP-ROM:esp32c5-eco2-20250121", "Build:Jan 21 2025"],
    "esp32c6": ["ESP-ROM:esp32c6-20220919", "Build:Sep 19 2022"],
    "esp32h2": ["ESP-ROM:esp32h2-20221101", "Build:Nov  1 2022"],
    "esp32p4": ["ESP-ROM:esp32p4-eco5-20250430", "Build:Apr 30 2025"],
}
WATCHDOG = {name: 0x10 if name == "esp32" else 0x7 for name in TWINS}
GIVE_UP = {name: f"ets_main.c {384 if name == 'esp32' else 333} " for name in TWINS}


@pytest.fixture(params=CHIP_NAMES)
def chip_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def after_banner(board: Board) -> list[str]:
    banner = BANNER[board.chip.name]
    assert board.lines[: len(banner)] == banner
    return board.lines[len(banner) + 1 :]


def deciphered_word(board: Board, key: bytes) -> int:
    """What the chip reads at the bootloader's place, by espsecure."""
    out, at = BytesIO(), board.chip.bootloader_offset
    raw = BytesIO(board.flash.read(at, 32))
    espsecure.decrypt_flash_data(BytesIO(key), out, at, 0xF, board.chip.name != "esp32", raw)
    return int.from_bytes(out.getvalue()[:4], "little")


def test_blank_flash_is_an_invalid_header_until_the_watchdog_strikes(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    outcome = board.boot()
    assert after_banner(board) == []
    assert isinstance(outcome, RomLoop)
    assert outcome.line == "invalid header: 0xffffffff"
    assert outcome.reset_reason == WATCHDOG[chip_name]


def test_the_printed_word_is_the_first_four_bytes_as_a_number(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    board.put(board.chip.bootloader_offset, bytes.fromhex("123456789abcdef0"))
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert outcome.line == "invalid header: 0x78563412"


def test_a_plaintext_bootloader_on_an_encrypted_board_prints_what_deciphering_it_gives(
    chip_name: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    board.put(board.chip.bootloader_offset, bootloader_image(board.chip, boot_board.CONFIG), raw=True)
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert outcome.line == f"invalid header: 0x{deciphered_word(board, board.key):08x}"


def test_a_bootloader_under_another_key_prints_what_this_boards_key_makes_of_it(
    chip_name: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    image = bootloader_image(board.chip, boot_board.CONFIG)
    board.put(board.chip.bootloader_offset, image, key=board.other_key)
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert outcome.line == f"invalid header: 0x{deciphered_word(board, board.key):08x}"
    assert outcome.line != "invalid header: 0x" + image[:4][::-1].hex()


def test_a_chip_with_its_counter_burned_but_no_key_does_not_boot(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision()
    board.efuses.burn_field("SPI_BOOT_CRYPT_CNT", 1)
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert outcome.line is not None
    assert outcome.line.startswith("invalid header: 0x")


def test_a_wrong_checksum_is_named_and_ends_in_the_watchdog(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    if chip_name == "esp32":
        board.efuses.burn_field("CONSOLE_DEBUG_DISABLE", 1)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    good = image[-33]
    image[-33] ^= 1
    board.put(board.chip.bootloader_offset, bytes(image))
    outcome = board.boot()
    words = f"Checksum failure. Calculated 0x{good:02x} stored 0x{good ^ 1:02x}"
    if chip_name == "esp32":
        words = f"csum err:0x{good:02x}!=0x{good ^ 1:02x}"
    assert after_banner(board)[-2:] == [words, GIVE_UP[chip_name]]
    assert isinstance(outcome, RomLoop)
    assert outcome.line is None
    assert outcome.reset_reason == WATCHDOG[chip_name]


def test_an_esp32_with_its_console_left_on_falls_back_to_basic(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    image[-33] ^= 1
    board.put(board.chip.bootloader_offset, bytes(image))
    outcome = board.boot()
    assert board.lines[-3:] == ["Falling back to built-in command interpreter.", "OK", ">"]
    assert isinstance(outcome, Halted)


@pytest.mark.parametrize("hash_appended", [True, False])
def test_the_c3_rom_compares_a_hash_and_boots_all_the_same(hash_appended: bool, tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision()
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    if hash_appended:
        image[-1] ^= 1
        expected = bytes(image[-32:]).hex()
    else:
        # This ROM looks at the 32 bytes behind the checksum even when the header says there is no hash.
        image = image[:-32]
        image[23] = 0
        expected = "ff" * 32
    board.put(0, bytes(image))
    outcome = board.boot()
    at = board.lines.index("SHA-256 comparison failed:")
    assert board.lines[at + 1].startswith("Calculated: ")
    assert board.lines[at + 2 : at + 4] == [f"Expected: {expected}", "Attempting to boot anyway..."]
    assert isinstance(outcome, LoadedApp)


def test_the_esp32_rom_does_not_look_at_the_hash(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    board.provision()
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    image[-1] ^= 1
    board.put(0x1000, bytes(image))
    assert isinstance(board.boot(), LoadedApp)
    assert "SHA-256 comparison failed:" not in board.lines


def test_a_bootloader_for_another_chip_is_refused(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    image[12] = 20
    board.put(board.chip.bootloader_offset, bytes(image))
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    if chip_name == "esp32":
        assert outcome.line == "wrong chip id 0x0014"
    else:
        assert after_banner(board) == [
            f"Invalid chip id. Expected {board.chip.chip_id} read 20. Bootloader for wrong chip?",
            "ets_main.c 333 ",
        ]


@pytest.mark.parametrize(
    ("code", "said"), [(9, "mode:OIO_STR, clock div:1"), (10, "mode:OIO_DTR, clock div:1"), (11, None)]
)
def test_the_c3_names_eleven_ways_to_read_flash_and_takes_no_twelfth(
    code: int, said: str | None, tmp_path: Path
) -> None:
    board = Board.named("esp32c3", tmp_path)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    image[2:4] = bytes((code, 0x2F))
    board.put(board.chip.bootloader_offset, bytes(image))
    outcome = board.boot()
    if said is None:
        assert isinstance(outcome, RomLoop)
        assert outcome.line == f"invalid header: 0x{int.from_bytes(image[:4], 'little'):08x}"
    else:
        assert said in board.lines


def test_too_many_segments_are_refused_by_the_c3(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    image[1] = 17
    board.put(0, bytes(image))
    board.boot()
    assert after_banner(board) == ["Invalid image block count: 17 (max 16)", "ets_main.c 333 "]


@pytest.mark.parametrize(
    ("address", "size"),
    [
        (0x3FCD5990, 0x7FFFFFFF),
        (0x3FCD5990, 0x100004),
        (0x3FCD5990, 0x101),
        (0x3FCD5992, 0x100),
    ],
)
def test_a_segment_that_no_image_has_is_refused_by_the_c3(address: int, size: int, tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    image[24:32] = struct.pack("<II", address, size)
    board.put(0, bytes(image))
    board.boot()
    assert board.lines[-3:] == [
        f"load:0x{address:08x},len:0x{size:x}",
        "Invalid image block, can't boot.",
        "ets_main.c 333 ",
    ]


# Seen under the mask ROM in QEMU, with such a header of the second segment.
@pytest.mark.parametrize(
    ("address", "size", "said"),
    [
        (0xFFFFFFFF, 0xFFFFFFFF, ["ets_loader.c 78 "]),
        (0xFFFFFFFF, 0x101, ["ets_loader.c 78 "]),
        (0xFFFFFFFF, 0xFFFFFFFC, ["ets_loader.c 79 "]),
        (0xFFFFFFFF, 0x300000, ["ets_loader.c 79 "]),
        (0xFFFFFFFF, 0x100000, ["cmd len 1048576", "ets_loader.c 212 "]),
        (0x80000000, 0x100, ["cmd len 256", "ets_loader.c 212 "]),
        (0xFFFFFFFF, 0, ["cmd len 0", "ets_loader.c 212 "]),
    ],
)
def test_an_erased_segment_header_is_a_command_to_the_c3_that_it_does_not_know(
    address: int, size: int, said: list[str], tmp_path: Path
) -> None:
    board = Board.named("esp32c3", tmp_path)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    second = 32 + int.from_bytes(image[28:32], "little")
    image[second : second + 8] = struct.pack("<II", address, size)
    board.put(0, bytes(image))
    assert isinstance(board.boot(), RomLoop)
    assert board.lines[-len(said) - 1].startswith("load:0x3fcd5990")
    assert board.lines[-len(said) :] == said


def test_the_esp32_rom_says_when_a_segment_header_straddles_two_reads(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    board.efuses.burn_field("CONSOLE_DEBUG_DISABLE", 1)
    segments = [
        Segment(0x3FFF00C0, b"\x11" * 12),
        Segment(0x3FFF0100, b"\x12" * 28),
        Segment(0x40080400, b"\x13" * 256),
    ]
    board.put(0x1000, build_app_image(board.chip, segments, entry_point=0x40080400))
    board.boot()
    at = board.lines.index("load:0x3fff00c0,len:12")
    assert board.lines[at + 1 : at + 3] == ["ho 0 tail 12 room 4", "load:0x3fff0100,len:28"]


def test_the_c3_rom_does_not_load_over_its_own_data(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.put(0, build_app_image(board.chip, [Segment(0x3FCDF000, bytes(32))], entry_point=0))
    board.boot()
    assert board.lines[-3:] == [
        "load:0x3fcdf000,len:0x20",
        "region 0x3fcdf000-0x3fcdf020 overlaps 0x3fcde160-0x3fcdf664, can't load",
        "ets_main.c 333 ",
    ]


def test_a_silenced_rom_prints_nothing_but_the_bootloader_does(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.efuses.burn_field("UART_PRINT_CONTROL", 3)
    outcome = board.boot()
    assert board.lines == []
    assert isinstance(outcome, RomLoop)
    assert outcome.line is None
    board.provision()
    board.boot()
    assert board.lines[0] == "I boot: ESP-IDF v5.5.5 2nd stage bootloader"


@pytest.mark.parametrize(
    ("chip_name", "reason", "text"),
    [
        ("esp32", 0x1, "rst:0x1 (POWERON_RESET),boot:0x12 (SPI_FAST_FLASH_BOOT)"),
        ("esp32", 0x3, "rst:0x3 (SW_RESET),boot:0x12 (SPI_FAST_FLASH_BOOT)"),
        ("esp32", 0xC, "rst:0xc (SW_CPU_RESET),boot:0x12 (SPI_FAST_FLASH_BOOT)"),
        ("esp32", 0x10, "rst:0x10 (RTCWDT_RTC_RESET),boot:0x12 (SPI_FAST_FLASH_BOOT)"),
        ("esp32c3", 0x1, "rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)"),
        ("esp32c3", 0x3, "rst:0x3 (RTC_SW_SYS_RST),boot:0x8 (SPI_FAST_FLASH_BOOT)"),
        ("esp32c3", 0x7, "rst:0x7 (TG0WDT_SYS_RST),boot:0x8 (SPI_FAST_FLASH_BOOT)"),
        ("esp32c3", 0xC, "rst:0xc (RTC_SW_CPU_RST),boot:0x8 (SPI_FAST_FLASH_BOOT)"),
    ],
)
def test_the_reset_line_names_the_reason(chip_name: str, reason: int, text: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    board.boot(reason)
    assert board.lines[2] == text


def test_waiting_for_the_watchdog_prints_the_line_again_and_again(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert rom_boot.wait_for_reset(board.context, outcome) == WATCHDOG[chip_name]
    assert board.lines.count("invalid header: 0xffffffff") == outcome.repeats >= 8


def test_waiting_ends_at_once_when_the_board_is_reset(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    stop = threading.Timer(0.05, board.context.stop.set)
    stop.start()
    assert rom_boot.wait_for_reset(board.context, Reset(3, after_s=60)) is None
    assert rom_boot.wait_for_reset(board.context, RomLoop(None, 1, 60, 7)) is None
    stop.join()


def test_a_bootloader_without_options_halts_with_one_line(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    put_real_bootloader(board)
    outcome = board.boot()
    assert isinstance(outcome, Halted)
    assert board.lines[-1].startswith("twin: this bootloader's options are unknown")
    assert "bootloader.sdkconfig" in board.lines[-1]


def test_a_real_bootloader_runs_with_the_sdkconfig_beside_it(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    board.provision()
    put_real_bootloader(board)
    (tmp_path / "bootloader.sdkconfig").write_text(
        "CONFIG_PARTITION_TABLE_OFFSET=0x10000\nCONFIG_BOOTLOADER_LOG_LEVEL=3\n"
        "CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE=y\nCONFIG_BOOTLOADER_COMPILE_TIME_DATE=y\n"
    )
    assert isinstance(board.boot(), LoadedApp)
    assert board.boot_lines[:2] == [
        "I ESP-IDF v5.4.1 2nd stage bootloader",
        "I compile time Jan  2 2026 03:04:05",
    ]


def test_an_sdkconfig_with_secure_boot_v1_halts_with_one_line(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    put_real_bootloader(board)
    text = "CONFIG_SECURE_BOOT=y\nCONFIG_SECURE_BOOT_V1_ENABLED=y\n"
    (tmp_path / "bootloader.sdkconfig").write_text(text)
    assert isinstance(board.boot(), Halted)
    assert "secure boot v1" in board.lines[-1]


@pytest.mark.parametrize(
    ("drive", "line"),
    [
        (bytes.fromhex("123456"), "clk_drv:0x02,q_drv:0x01,d_drv:0x04,cs0_drv:0x03,hd_drv:0x06,wp_drv:0x05"),
        (bytes.fromhex("100000"), "clk_drv:0x00,q_drv:0x01,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00"),
    ],
)
def test_the_pins_drive_of_the_header_is_printed_where_there_is_one(
    chip_name: str, drive: bytes, line: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path)
    image = bytearray(bootloader_image(board.chip, boot_board.PLAIN_CONFIG))
    board.put(board.chip.bootloader_offset, bytes(image))
    board.boot()
    assert any("_drv:" in shown for shown in board.lines) == (chip_name == "esp32")
    image[9:12] = drive
    board.put(board.chip.bootloader_offset, bytes(image))
    board.boot()
    assert line in board.lines


def put_real_bootloader(board: Board) -> None:
    from harness.formats.bootloader_config import BootloaderDescription

    text = BootloaderDescription("v5.4.1", "Jan  2 2026 03:04:05").to_bytes()
    segments = [Segment(board.chip.bootloader_load_address, text + b"\x42" * 400)]
    image = build_app_image(board.chip, segments, entry_point=board.chip.bootloader_load_address)
    board.put(board.chip.bootloader_offset, image)
