"""The image check: each way an image can be wrong has its line, in ESP-IDF's order."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_1, Board, app_image, description

from harness.chips import Chip
from harness.formats.app_image import Segment, build_app_image
from harness.twin.image_verify import (
    ERR_FAIL,
    ERR_IMAGE_FLASH_FAIL,
    ERR_IMAGE_INVALID,
    ERR_INVALID_ARG,
    ImageCheck,
    ImageRejected,
    VerifiedImage,
)
from harness.twin.rpc import CollectedLog

SLOT_BYTES = 0x180000
RAM = {
    "esp32": 0x3FFB0000,
    "esp32s3": 0x3FC90000,
    "esp32c2": 0x3FCA1000,
    "esp32c3": 0x3FC8EE00,
    "esp32c6": 0x40800000,
}


def check(
    board: Board, *, offset: int = OTA_1, size: int = SLOT_BYTES, load: bool = False
) -> tuple[int, list[str]]:
    """(status, error lines); status 0 when the image passes."""
    status, lines, _ = verify(board, offset=offset, size=size, load=load)
    return status, [line for line in lines if line.startswith("E ")]


def verify(
    board: Board, *, offset: int = OTA_1, size: int = SLOT_BYTES, load: bool = False
) -> tuple[int, list[str], VerifiedImage | None]:
    log = CollectedLog()
    image_check = ImageCheck(
        board.chip,
        board.context.cipher,
        board.efuses,
        board.efuses.chip_rev_full,
        board.flash.size_bytes,
        log,
        load,
    )
    try:
        image = image_check.verify(offset, size)
    except ImageRejected as rejected:
        return rejected.status, [line.rstrip("\n") for line in log.lines], None
    return 0, [line.rstrip("\n") for line in log.lines], image


def two_segments(chip: Chip) -> bytes:
    data = description("1.1.0").to_bytes() + b"\x55" * 64
    segments = [Segment(chip.drom_base + 0x20, data), Segment(RAM[chip.name], b"\x66" * 128)]
    return build_app_image(chip, segments, entry_point=RAM[chip.name])


def resealed(image: bytes) -> bytes:
    """The image with a right SHA-256 again; its checksum byte covers segment data only."""
    return image[:-32] + hashlib.sha256(image[:-32]).digest()


def patched(image: bytes, at: int, value: bytes) -> bytes:
    return resealed(image[:at] + value + image[at + len(value) :])


@pytest.fixture(params=[(name, enc) for name in boot_board.KINDS for enc in (False, True)], ids=str)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    name, encrypted = request.param
    return Board.named(name, tmp_path, encrypted=encrypted)


def test_a_good_image_passes_and_its_length_counts_the_hash(board: Board) -> None:
    image = two_segments(board.chip)
    board.put(OTA_1, image)
    status, lines, verified = verify(board)
    assert status == 0
    assert verified is not None
    assert verified.size_bytes == len(image)
    drom = f"{board.chip.drom_base + 0x20:08x}"
    assert lines == [
        f"I esp_image: segment 0: paddr=001a0020 vaddr={drom} size=00140h (   320) map",
        f"I esp_image: segment 1: paddr=001a0168 vaddr={RAM[board.chip.name]:08x} size=00080h (   128) ",
    ]


def test_the_bootloader_says_load_where_the_app_says_nothing(board: Board) -> None:
    board.put(OTA_1, two_segments(board.chip))
    assert verify(board, load=True)[1][1].endswith("(   128) load")


def test_no_magic(board: Board) -> None:
    board.put(OTA_1, bytes(0x1000))
    assert check(board) == (
        ERR_IMAGE_INVALID,
        ["E esp_image: image at 0x1a0000 has invalid magic byte (nothing flashed here?)"],
    )


def test_another_chip(board: Board) -> None:
    board.put(OTA_1, patched(two_segments(board.chip), 12, b"\x14\x00"))
    expected = f"E boot_comm: mismatch chip ID, expected {board.chip.chip_id}, found 20"
    assert check(board) == (ERR_FAIL, [expected])


def test_a_newer_and_an_older_revision(board: Board) -> None:
    found = board.efuses.chip_rev_full
    text = f"found v{found // 100}.{found % 100}."
    board.put(OTA_1, patched(two_segments(board.chip), 15, struct.pack("<H", 405)))
    assert check(board)[1] == [f"E boot_comm: chip revision check failed. Required >= v4.5, {text}"]
    board.put(OTA_1, patched(two_segments(board.chip), 17, struct.pack("<H", 1)))
    assert check(board)[1] == [f"E boot_comm: chip revision check failed. Required <= v0.1, {text}"]


def test_too_many_segments(board: Board) -> None:
    board.put(OTA_1, patched(two_segments(board.chip), 1, b"\x21"))
    assert check(board) == (
        ERR_IMAGE_INVALID,
        ["E esp_image: image at 0x1a0000 segment count 33 exceeds max 16"],
    )


@pytest.mark.parametrize("size", [0x0A8124E8, 0x01000000, 0x102])
def test_a_segment_length_that_cannot_be(size: int, board: Board) -> None:
    board.put(OTA_1, patched(two_segments(board.chip), 28, struct.pack("<I", size)))
    assert check(board) == (ERR_IMAGE_INVALID, [f"E esp_image: invalid segment length 0x{size:x}"])


def test_a_segment_length_that_leads_out_of_flash_fails_without_reading_for_ever(board: Board) -> None:
    board.put(OTA_1, patched(two_segments(board.chip), 28, struct.pack("<I", 0x00FFFFFC)))
    status, errors = check(board)
    assert status == ERR_IMAGE_INVALID
    assert errors


def test_a_mapped_segment_out_of_step_with_its_page(board: Board) -> None:
    address = board.chip.drom_base + 0x40
    board.put(OTA_1, patched(two_segments(board.chip), 24, struct.pack("<I", address)))
    assert check(board)[1] == [
        f"E esp_image: Segment 0 load address 0x{address:08x}, doesn't match data 0x001a0020"
    ]


def test_only_the_bootloader_minds_where_a_segment_is_loaded(board: Board) -> None:
    board.put(OTA_1, patched(two_segments(board.chip), 0x160, struct.pack("<I", 0x20000000)))
    assert check(board) == (0, [])
    assert check(board, load=True)[1] == [
        "E esp_image: Segment 1 0x20000000-0x20000080 invalid: bad load address range"
    ]


def test_a_flipped_bit_is_a_checksum_failure(board: Board) -> None:
    image = two_segments(board.chip)
    good = image[-33]
    board.put(OTA_1, image[:0x150] + bytes([image[0x150] ^ 0x10]) + image[0x151:])
    assert check(board) == (
        ERR_IMAGE_INVALID,
        [f"E esp_image: Checksum failed. Calculated 0x{good ^ 0x10:x} read 0x{good:x}"],
    )


def test_a_wrong_hash_is_found_last(board: Board) -> None:
    image = two_segments(board.chip)
    board.put(OTA_1, image[:-1] + bytes([image[-1] ^ 1]))
    assert check(board) == (ERR_IMAGE_INVALID, ["E esp_image: Image hash failed - image is corrupt"])


def test_an_image_without_hash_needs_none(board: Board) -> None:
    segment = Segment(board.chip.drom_base + 0x20, description("1.1.0").to_bytes())
    board.put(OTA_1, build_app_image(board.chip, [segment], entry_point=0, hash_appended=False))
    assert check(board) == (0, [])


def test_an_image_longer_than_its_partition(board: Board) -> None:
    image = two_segments(board.chip)
    board.put(OTA_1, image)
    assert check(board, size=0x100)[1] == [
        f"E esp_image: Image length {len(image)} doesn't fit in partition length 256"
    ]
    assert check(board, size=len(image)) == (0, [])


def test_a_partition_beyond_16_megabytes(board: Board) -> None:
    assert check(board, size=0x1000001) == (
        ERR_INVALID_ARG,
        ["E esp_image: partition size 0x1000001 invalid, larger than 16MB"],
    )


def test_a_flash_that_does_not_read(board: Board) -> None:
    board.put(OTA_1, two_segments(board.chip))
    board.flash.operations.add_fault("read", 0x107)
    assert check(board)[0] == ERR_IMAGE_FLASH_FAIL


@pytest.mark.parametrize(
    ("least", "most", "lines"),
    [
        (0, 199, []),
        (0, 9999, []),
        (1, 199, ["E boot_comm: Image requires efuse blk rev >= v0.1, but chip is v0.0"]),
    ],
)
def test_the_c3_also_checks_the_efuse_block_revision(
    least: int, most: int, lines: list[str], tmp_path: Path
) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.put(OTA_1, app_image(board.chip, "1.0.0", min_efuse_blk_rev=least, max_efuse_blk_rev=most))
    assert check(board)[1] == lines


# What a raw writer can do wrong on an encrypted board: all of it looks the same from the device


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
@pytest.mark.parametrize("mistake", ["plaintext", "other key", "other slot", "not erased"])
def test_wrong_ciphertext_has_no_magic_byte(mistake: str, chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    image = two_segments(board.chip)
    if mistake == "plaintext":
        board.put(OTA_1, image, raw=True)
    elif mistake == "other key":
        board.put(OTA_1, image, key=board.other_key)
    elif mistake == "other slot":
        board.put(boot_board.OTA_0, image)
        board.put(OTA_1, board.flash.read(boot_board.OTA_0, 0x1000), raw=True)
    else:
        board.put(OTA_1, image)
        wanted = board.flash.read(OTA_1, 0x1000)
        board.put(OTA_1, bytes(range(256)) * 16, raw=True)
        board.flash.program(OTA_1, wanted, who="app")
    assert check(board) == (
        ERR_IMAGE_INVALID,
        ["E esp_image: image at 0x1a0000 has invalid magic byte (nothing flashed here?)"],
    )


@pytest.mark.parametrize("chip_name", boot_board.KINDS)
def test_a_truncated_ciphertext_fails_behind_its_last_whole_segment(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path, encrypted=True)
    data = description("1.1.0").to_bytes() + b"\x55" * 0x3000
    segments = [Segment(board.chip.drom_base + 0x20, data), Segment(RAM[chip_name], b"\x66" * 128)]
    board.put(OTA_1, build_app_image(board.chip, segments, entry_point=0))
    board.flash.erase(OTA_1 + 0x2000, 0x2000, who="app")
    status, errors = check(board)
    assert status in (ERR_IMAGE_INVALID, ERR_FAIL)
    assert len(errors) == 1
