"""Secure boot v2 in the mask ROM: what it starts, what it refuses, and in which words.

The table was run on the chips' own mask ROMs in QEMU, case by case; the lines are theirs.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, Board, app_image, bootloader_image
from signing_bench import burn_digest, damaged, enable_secure_boot, key_digest, signed

from harness.formats.app_image import Segment, build_app_image
from harness.twin.boot_context import LoadedApp, Reset, RomLoop

SIGNED_CHIPS = ("esp32", "esp32c3")
HEAD = {
    "esp32": [
        "ets Jul 29 2019 12:21:46",
        "",
        "rst:0x1 (POWERON_RESET),boot:0x12 (SPI_FAST_FLASH_BOOT)",
        "configsip: 0, SPIWP:0xee",
        "clk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00",
        "mode:2, clock div:1",
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


def board_of(chip_name: str, folder: Path) -> Board:
    """Secure boot on, key 0 trusted, plain apps behind a bootloader that checks none."""
    board = Board.named(chip_name, folder)
    burn_digest(board)
    enable_secure_boot(board)
    board.provision()
    return board


def put_bootloader(board: Board, image: bytes) -> None:
    board.put(board.chip.bootloader_offset, image)


def bootloader_of(board: Board) -> bytes:
    return bootloader_image(board.chip, boot_board.PLAIN_CONFIG)


def said(board: Board) -> list[str]:
    """What the ROM printed of the verification, up to the first segment or its giving up."""
    head = HEAD[board.chip.name]
    assert board.lines[: len(head)] == head
    rest = board.lines[len(head) :]
    end = next((i for i, line in enumerate(rest) if line.startswith("load:")), len(rest))
    return rest[:end]


def expected(chip_name: str, *lines: str, slots: str = " 0", accepted: bool = False) -> list[str]:
    """The lines of `said`: `lines` between what announces the verification and what ends it."""
    start = [] if chip_name == "esp32" else [f"Valid secure boot key blocks:{slots}"]
    if accepted:
        return [*start, *lines, "secure boot verification succeeded"]
    end = [] if chip_name == "esp32" else ["ets_main.c 333 "]
    return [*start, *lines, "secure boot verification failed", *end]


def assert_refused(board: Board, *lines: str, slots: str = " 0") -> None:
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert outcome.line is None
    assert said(board) == expected(board.chip.name, *lines, slots=slots)


def assert_started(board: Board, *lines: str, slots: str = " 0") -> None:
    assert isinstance(board.boot(), LoadedApp)
    assert said(board) == expected(board.chip.name, *lines, slots=slots, accepted=True)


BOTH = pytest.mark.parametrize("chip_name", SIGNED_CHIPS)
NO_MAGIC = (
    "No signature block magic byte found at signature sector (found 0x{:x} not 0xe7). Image not V2 signed?"
)
OTHER_DIGEST = "Sig block {} invalid: Image digest does not match"
UNTRUSTED = "Sig block {} signed with untrusted key"
WRONG = ("Signature Check Failed", "Sig block {} signature verification failed")


@BOTH
def test_a_signed_bootloader_is_started(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, signed(bootloader_of(board)))
    assert_started(board)


@BOTH
def test_without_the_fuse_nobody_looks_at_signatures(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    burn_digest(board)
    board.provision()
    put_bootloader(board, damaged(signed(bootloader_of(board)), 900))
    assert isinstance(board.boot(), LoadedApp)
    assert not any("secure boot" in line or "Sig block" in line for line in board.lines)


def test_the_esp32_prints_segments_in_another_way_with_secure_boot(tmp_path: Path) -> None:
    board = board_of("esp32", tmp_path)
    put_bootloader(board, signed(bootloader_of(board)))
    board.boot()
    assert "load:0x40080400 len:0x100" in board.lines


@BOTH
def test_an_unsigned_bootloader_is_refused_and_the_watchdog_strikes(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, bootloader_of(board))
    assert_refused(board, NO_MAGIC.format(0xFF))
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert outcome.reset_reason == (0x10 if chip_name == "esp32" else 0x7)


@BOTH
def test_another_key_is_refused(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, signed(bootloader_of(board), 1))
    assert_refused(board, UNTRUSTED.format(0))


# Every region of a block: byte, whether its CRC is made anew, what the ROM says; None: it does not mind.
REGIONS = [
    ("magic", 0, False, (NO_MAGIC.format(0xE6),)),
    ("magic, CRC right", 0, True, (NO_MAGIC.format(0xE6),)),
    ("version, CRC right", 1, True, None),
    ("first reserved byte, CRC right", 2, True, None),
    ("second reserved byte, CRC right", 3, True, None),
    ("image digest, CRC right", 4, True, (OTHER_DIGEST.format(0),)),
    ("end of image digest, CRC right", 35, True, (OTHER_DIGEST.format(0),)),
    ("modulus, CRC right", 36, True, (UNTRUSTED.format(0),)),
    ("end of modulus, CRC right", 419, True, (UNTRUSTED.format(0),)),
    ("exponent, CRC right", 420, True, (UNTRUSTED.format(0),)),
    ("R squared, CRC right", 424, True, (UNTRUSTED.format(0),)),
    ("m', CRC right", 808, True, (UNTRUSTED.format(0),)),
    ("end of m', CRC right", 811, True, (UNTRUSTED.format(0),)),
    ("signature, CRC right", 812, True, tuple(line.format(0) for line in WRONG)),
    ("end of signature, CRC right", 1195, True, tuple(line.format(0) for line in WRONG)),
    ("first byte behind the CRC", 1200, False, None),
    ("last byte of the block", 1215, False, None),
    ("place of the second block", 1216, False, None),
    ("behind all blocks", 3648, False, None),
    ("end of the sector", 4095, False, None),
]


@BOTH
@pytest.mark.parametrize(
    ("at", "sealed", "lines"), [row[1:] for row in REGIONS], ids=[row[0] for row in REGIONS]
)
def test_damage_in_a_region_of_the_block(
    chip_name: str, at: int, sealed: bool, lines: tuple[str, ...] | None, tmp_path: Path
) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, damaged(signed(bootloader_of(board)), at, sealed=sealed))
    if lines is None:
        assert_started(board)
    else:
        assert_refused(board, *lines)


@BOTH
@pytest.mark.parametrize("at", [1, 2, 3, 4, 36, 420, 424, 808, 812, 1195, 1196, 1199])
def test_damage_under_the_crc_is_told_by_it(chip_name: str, at: int, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    image = damaged(signed(bootloader_of(board)), at)
    put_bootloader(board, image)
    block = image[-0x1000:][:1216]
    stored, calculated = int.from_bytes(block[1196:1200], "little"), zlib.crc32(block[:1196])
    line = f"Sig block 0 invalid: Stored CRC 0x{stored:08x} calculated 0x{calculated:08x}"
    if chip_name != "esp32":
        line = f"Sig block 0 invalid: Stored CRC ends 0x{stored & 0xFFFF:04x} calculated ends 0x{calculated & 0xFFFF:04x}"
    assert_refused(board, line)


# Damage of the image: where, by the sizes of the unsigned and the signed file.
IMAGE_DAMAGE = {
    "segment data": lambda unsigned, _: 0x100,
    "checksum": lambda unsigned, _: unsigned - 33,
    "SHA-256": lambda unsigned, _: unsigned - 1,
}


@BOTH
@pytest.mark.parametrize("where", IMAGE_DAMAGE)
def test_a_tampered_image_is_refused(chip_name: str, where: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    unsigned = bootloader_of(board)
    image = bytearray(signed(unsigned))
    image[IMAGE_DAMAGE[where](len(unsigned), len(image))] ^= 1
    put_bootloader(board, bytes(image))
    # The later ROM compares the image's own hash before it looks at signatures.
    by_hash = "SHA-256 simple hash comparison failed."
    assert_refused(board, OTHER_DIGEST.format(0) if chip_name == "esp32" else by_hash)


@BOTH
def test_the_padding_up_to_the_signature_is_signed_too(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    unsigned = bootloader_of(board)
    image = bytearray(signed(unsigned))
    image[len(unsigned) + 5] ^= 1
    put_bootloader(board, bytes(image))
    assert_refused(board, OTHER_DIGEST.format(0))


def test_the_esp32_does_not_sum_up_what_is_signed(tmp_path: Path) -> None:
    board = board_of("esp32", tmp_path)
    image = bytearray(bootloader_of(board))
    image[-33] ^= 1
    put_bootloader(board, signed(bytes(image)))
    assert_started(board)


def test_the_esp32c3_does(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    image = bytearray(bootloader_of(board))
    image[-33] ^= 1
    image[-32:] = hashlib.sha256(image[:-32]).digest()
    put_bootloader(board, signed(bytes(image)))
    assert isinstance(board.boot(), RomLoop)
    assert said(board) == expected("esp32c3", accepted=True)
    assert board.lines[-2].startswith("Checksum failure.")


# Several blocks


@BOTH
def test_the_first_block_that_is_right_counts_whatever_is_before_it(chip_name: str, tmp_path: Path) -> None:
    """On ESP32 too, whose ROM looks at three blocks although ESP-IDF knows one."""
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, signed(bootloader_of(board), 1, 2, 0))
    assert_started(board, UNTRUSTED.format(0), UNTRUSTED.format(1))


@BOTH
def test_without_the_first_magic_the_others_are_not_looked_at(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, damaged(signed(bootloader_of(board), 1, 0), 0))
    assert_refused(board, NO_MAGIC.format(0xE6))


@BOTH
def test_a_damaged_first_block_does_not_spoil_the_second(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_bootloader(board, damaged(signed(bootloader_of(board), 1, 0), 5, sealed=True))
    assert_started(board, OTHER_DIGEST.format(0))


# Digests in the eFuses


@BOTH
def test_without_a_digest_nothing_starts(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    enable_secure_boot(board)
    put_bootloader(board, signed(bootloader_of(board)))
    assert isinstance(board.boot(), RomLoop)
    if chip_name == "esp32":
        assert said(board) == [UNTRUSTED.format(0), "secure boot verification failed"]
    else:
        assert said(board) == ["secure boot verification failed", "ets_main.c 333 "]


@BOTH
def test_a_digest_that_software_cannot_read_fits_no_key(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    board.efuses.burn_field("RD_DIS", 1 << 1)
    put_bootloader(board, signed(bootloader_of(board)))
    assert_refused(board, UNTRUSTED.format(0))


def test_a_revoked_digest_is_no_digest(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    board.efuses.burn_field("SECURE_BOOT_KEY_REVOKE0", 1)
    put_bootloader(board, signed(bootloader_of(board)))
    assert isinstance(board.boot(), RomLoop)
    assert said(board) == ["secure boot verification failed", "ets_main.c 333 "]


def test_with_one_of_two_digests_revoked_the_other_key_goes_on(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    burn_digest(board, 1, slot=1)
    put_bootloader(board, signed(bootloader_of(board), 1, 0))
    assert_started(board, slots=" 0 1")
    board.efuses.burn_field("SECURE_BOOT_KEY_REVOKE0", 1)
    assert_started(board, slots=" 1")
    put_bootloader(board, signed(bootloader_of(board), 0))
    assert_refused(board, UNTRUSTED.format(0), slots=" 1")


def test_a_slot_is_found_by_its_purpose_in_any_block(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision()
    board.efuses.burn_block("BLOCK_KEY5", key_digest())
    board.efuses.burn_field("KEY_PURPOSE_5", 11)
    enable_secure_boot(board)
    put_bootloader(board, signed(bootloader_of(board)))
    assert_started(board, slots=" 2")


def test_of_two_blocks_with_one_purpose_the_first_counts(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    board.efuses.burn_block("BLOCK_KEY2", key_digest(1))
    board.efuses.burn_field("KEY_PURPOSE_2", 9)
    put_bootloader(board, signed(bootloader_of(board), 1))
    assert_refused(board, UNTRUSTED.format(0))


# Aggressive revocation

REVOKED = (
    "Aggressive revoke enabled. Revoked key block for purpose ETS_EFUSE_KEY_PURPOSE_SECURE_BOOT_DIGEST{}"
)


def aggressive_board(folder: Path) -> Board:
    board = board_of("esp32c3", folder)
    board.efuses.burn_field("SECURE_BOOT_AGGRESSIVE_REVOKE", 1)
    return board


def revoked(board: Board) -> list[int]:
    return [board.efuses.field(name) for name in board.chip.secure_boot.revoke]


def test_a_wrong_signature_by_a_trusted_key_costs_the_key(tmp_path: Path) -> None:
    board = aggressive_board(tmp_path)
    good = signed(bootloader_of(board))
    put_bootloader(board, damaged(good, 900, sealed=True))
    assert_refused(board, *(line.format(0) for line in WRONG), REVOKED.format(0))
    assert revoked(board) == [1, 0, 0]
    put_bootloader(board, good)
    assert isinstance(board.boot(), RomLoop)
    assert said(board) == ["secure boot verification failed", "ets_main.c 333 "]


@pytest.mark.parametrize(("at", "sealed"), [(900, False), (5, True), (40, True), (0, False)])
def test_no_other_damage_costs_a_key(at: int, sealed: bool, tmp_path: Path) -> None:
    board = aggressive_board(tmp_path)
    put_bootloader(board, damaged(signed(bootloader_of(board)), at, sealed=sealed))
    assert isinstance(board.boot(), RomLoop)
    assert revoked(board) == [0, 0, 0]


def test_the_key_is_lost_although_another_block_starts_the_board(tmp_path: Path) -> None:
    board = aggressive_board(tmp_path)
    burn_digest(board, 1, slot=1)
    put_bootloader(board, damaged(signed(bootloader_of(board), 1, 0), 900, sealed=True))
    lines = (*(line.format(0) for line in WRONG), REVOKED.format(1))
    assert_started(board, *lines, slots=" 0 1")
    assert revoked(board) == [0, 1, 0]


def test_a_revocation_that_is_write_protected_does_not_stick(tmp_path: Path) -> None:
    board = aggressive_board(tmp_path)
    board.efuses.burn_field("WR_DIS", 1 << 5)
    put_bootloader(board, damaged(signed(bootloader_of(board)), 900, sealed=True))
    assert isinstance(board.boot(), RomLoop)
    assert REVOKED.format(0) in board.lines
    assert revoked(board) == [0, 0, 0]


# Size, and segments that are none


def sized(board: Board, size: int) -> bytes:
    config = boot_board.PLAIN_CONFIG.to_segment_data().ljust(size, b"\0")
    ram = {"esp32": 0x3FFF0030, "esp32c3": 0x3FC84000}[board.chip.name]
    return build_app_image(board.chip, [Segment(ram, config)], entry_point=ram)


def test_the_esp32_has_48_kib_for_the_bootloader(tmp_path: Path) -> None:
    board = board_of("esp32", tmp_path)
    put_bootloader(board, signed(sized(board, 0xBFB0)))
    board.boot()
    assert said(board) == expected("esp32", accepted=True)
    put_bootloader(board, signed(sized(board, 0xBFC0)))
    assert isinstance(board.boot(), RomLoop)
    assert said(board) == ["Bootloader is too large for 48KB staging area.", "ets_secure_boot_v2.c 74 "]


def test_the_esp32c3_has_64_kib_and_resets_beyond(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    put_bootloader(board, signed(sized(board, 0xFFF0)))
    outcome = board.boot()
    assert isinstance(outcome, Reset)
    assert outcome.reset_reason == 3
    assert said(board) == ["Valid secure boot key blocks: 0"]
    put_bootloader(board, signed(sized(board, 0xFFE0)))
    assert isinstance(board.boot(), RomLoop)
    assert board.lines[-1] == "ets_loader.c 83 "


@BOTH
def test_a_segment_that_is_none_ends_the_verification(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    image = bytearray(signed(bootloader_of(board)))
    image[28] ^= 1
    put_bootloader(board, bytes(image))
    assert isinstance(board.boot(), RomLoop)
    end = ["ets_secure_boot_v2.c 74 "] if chip_name == "esp32" else expected("esp32c3")[1:]
    start = expected(chip_name, accepted=True)[:-1]
    assert said(board) == [*start, "Invalid image block, can't verify.", *end]


# The order of the checks


@BOTH
@pytest.mark.parametrize(("at", "value"), [(0, 0xE8), (1, 33)])
def test_a_header_that_is_none_is_told_before_signatures(
    chip_name: str, at: int, value: int, tmp_path: Path
) -> None:
    board = board_of(chip_name, tmp_path)
    image = bytearray(signed(bootloader_of(board)))
    image[at] = value
    put_bootloader(board, bytes(image))
    outcome = board.boot()
    assert isinstance(outcome, RomLoop)
    assert outcome.line is not None
    assert outcome.line.startswith("invalid header: 0x")


def test_with_encryption_the_signature_is_that_of_the_plaintext(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    burn_digest(board)
    enable_secure_boot(board)
    board.provision(config=boot_board.CONFIG)
    put_bootloader(board, signed(bootloader_image(board.chip, boot_board.CONFIG)))
    assert_started(board)
    put_bootloader(board, signed(bootloader_image(board.chip, boot_board.CONFIG), 1))
    assert_refused(board, UNTRUSTED.format(0))


# Apps


@BOTH
def test_a_bootloader_built_with_secure_boot_starts_a_signed_app_only(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    config = replace(boot_board.PLAIN_CONFIG, secure_boot=True)
    put_bootloader(board, signed(bootloader_image(board.chip, config)))
    board.put(OTA_0, signed(app_image(board.chip, "1.0.0")))
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_0
    # Padded, or the former signature would still be behind it, and be right.
    board.put(OTA_0, app_image(board.chip, "1.0.0").ljust(0x3000, b"\xff"))
    assert isinstance(board.boot(), Reset)
    assert board.boot_lines[-1] == "E No bootable app partitions in the partition table"
