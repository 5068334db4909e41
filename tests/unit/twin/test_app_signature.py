"""What bootloader and application make of an app's signature, and what an application mends at its start.

Lines and errors are those of ESP-IDF v5.5; the good and the unsigned case are held against recorded logs elsewhere
(`test_boot_recorded_logs`).
"""

from __future__ import annotations

import hashlib
import socket
from dataclasses import replace
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, OTA_1, Board, app_image, bootloader_image
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from signing_bench import (
    SECTOR_BYTES,
    burn_digest,
    damaged,
    enable_secure_boot,
    key_file,
    resealed,
    signed,
)

from harness.chips import SigningScheme
from harness.twin.boot_context import LoadedApp, Reset
from harness.twin.rpc import EfuseAction, Op, Reply, Request, RpcServer

CHIP_NAMES = ("esp32", "esp32c3")
BOTH = pytest.mark.parametrize("chip_name", CHIP_NAMES)
CONFIG = replace(boot_board.PLAIN_CONFIG, secure_boot=True)
SLOT_BYTES = 0x40000
CHIPS_FIRST = b"\x01"
"""The byte of IMAGE_VERIFY that an application with secure boot sends."""


def board_of(chip_name: str, folder: Path) -> Board:
    """Secure boot on, key 0 trusted, a signed bootloader that checks apps, a signed app in slot 0."""
    board = Board.named(chip_name, folder)
    burn_digest(board)
    enable_secure_boot(board)
    board.provision(config=CONFIG, versions={})
    board.put(board.chip.bootloader_offset, signed(bootloader_image(board.chip, CONFIG)))
    put_app(board, OTA_0, signed(app_image(board.chip, "1.0.0")))
    return board


def put_app(board: Board, offset: int, image: bytes) -> None:
    """With everything behind it erased, signature sectors of former images too."""
    board.put(offset, image.ljust(0x5000, b"\xff"))


def ask(board: Board, op: int, arg0: int = 0, arg1: int = 0, data: bytes = b"") -> Reply:
    app = LoadedApp(OTA_0, SLOT_BYTES, "ota_0", boot_board.TABLE_OFFSET, 0x1000, 1, 0)
    with socket.socket() as unused:
        return RpcServer(board.context, app, unused).answer(Request(op, arg0, arg1, data))


def verify(board: Board, wanted: bytes = CHIPS_FIRST) -> tuple[int, list[str]]:
    """Status and lines of the application's check of slot 1, without those of the segments."""
    reply = ask(board, Op.IMAGE_VERIFY, OTA_1, SLOT_BYTES, wanted)
    return reply.status, [line for line in reply.data.decode().splitlines() if ": segment " not in line]


VERIFYING = "I esp_image: Verifying image signature..."
FROM_FUSES = "I secure_boot_v2: Take trusted digest key(s) from eFuse block(s)"
MATCHED = "I secure_boot_v2: #0 app key digest == #0 trusted key digest"
PSS = "I secure_boot_v2: Verifying with RSA-PSS..."
BAD = [
    "E esp_image: Secure boot signature verification failed",
    "I esp_image: Calculating simple hash to check for corruption...",
    "W esp_image: image valid, signature bad",
]
NOTHING_TRUSTED = [VERIFYING, FROM_FUSES, *BAD]


def pss_fault(error: int) -> list[str]:
    text = f"E secure_boot_v2_rsa: Failed mbedtls_rsa_rsassa_pss_verify, err: {error}"
    return [VERIFYING, FROM_FUSES, MATCHED, PSS, text, *BAD]


# The application


@BOTH
def test_a_signed_image_counts_up_to_the_end_of_its_signature(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    image = signed(app_image(board.chip, "1.1.0"))
    put_app(board, OTA_1, image)
    reply = ask(board, Op.IMAGE_VERIFY, OTA_1, SLOT_BYTES, CHIPS_FIRST)
    assert (reply.status, reply.value) == (0, len(image))
    assert verify(board)[1] == [
        VERIFYING,
        FROM_FUSES,
        MATCHED,
        PSS,
        "I secure_boot_v2_rsa: Signature verified successfully!",
    ]


@BOTH
def test_an_application_without_secure_boot_looks_at_no_signature(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_app(board, OTA_1, app_image(board.chip, "1.1.0"))
    assert verify(board, b"") == (0, [])
    assert verify(board, b"\x00") == (0, [])


@BOTH
@pytest.mark.parametrize(
    ("image_of", "lines"),
    [
        pytest.param(lambda image: image, NOTHING_TRUSTED, id="unsigned"),
        pytest.param(lambda image: signed(image, 1), NOTHING_TRUSTED, id="another key"),
        pytest.param(lambda image: damaged(signed(image), 0), NOTHING_TRUSTED, id="magic"),
        pytest.param(lambda image: damaged(signed(image), 900), NOTHING_TRUSTED, id="CRC"),
        pytest.param(
            lambda image: damaged(signed(image), 1, sealed=True),
            [
                VERIFYING,
                FROM_FUSES,
                "E secure_boot_v2: RSA signing scheme selected but signature block generated for ECDSA scheme",
                *BAD,
            ],
            id="version",
        ),
        pytest.param(lambda image: damaged(signed(image), 40, sealed=True), NOTHING_TRUSTED, id="key"),
    ],
)
def test_an_image_that_is_not_signed_as_it_should_be_is_refused(
    chip_name: str, image_of: object, lines: list[str], tmp_path: Path
) -> None:
    board = board_of(chip_name, tmp_path)
    put_app(board, OTA_1, image_of(app_image(board.chip, "1.1.0")))  # type: ignore[operator]
    assert verify(board) == (0x2002, lines)


@BOTH
def test_a_damaged_signature_is_a_fault_of_the_padding(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    put_app(board, OTA_1, damaged(signed(app_image(board.chip, "1.1.0")), 812, sealed=True))
    assert verify(board) == (0x2002, pss_fault(-16640))


@BOTH
def test_the_signature_of_another_image_is_a_fault_of_the_digest(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    other = signed(app_image(board.chip, "9.9.9"))
    image = signed(app_image(board.chip, "1.1.0"))
    put_app(board, OTA_1, image[:-SECTOR_BYTES] + other[-SECTOR_BYTES:])
    assert verify(board) == (0x2002, pss_fault(-17280))


@BOTH
def test_the_digest_that_a_block_repeats_is_nothing_to_an_application(chip_name: str, tmp_path: Path) -> None:
    """The ROM compares it: such an image is accepted, and does not boot."""
    board = board_of(chip_name, tmp_path)
    put_app(board, OTA_1, damaged(signed(app_image(board.chip, "1.1.0")), 5, sealed=True))
    assert verify(board)[0] == 0
    put_app(board, OTA_0, damaged(signed(app_image(board.chip, "1.0.0")), 5, sealed=True))
    outcome = board.boot()
    assert isinstance(outcome, Reset)
    assert "Sig block 0 invalid: Image digest does not match" in board.lines


def test_an_application_takes_a_salt_that_the_bootloader_refuses(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    image = bytearray(signed(app_image(board.chip, "1.1.0")))
    key = serialization.load_pem_private_key(key_file().read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=350)
    signature = key.sign(bytes(image[:-SECTOR_BYTES]), pss, hashes.SHA256())
    start = len(image) - SECTOR_BYTES
    image[start + 812 : start + 1196] = signature[::-1]
    put_app(board, OTA_1, resealed(image))
    assert verify(board)[0] == 0
    put_app(board, OTA_0, resealed(image))
    assert isinstance(board.boot(), Reset)
    assert board.lines.count("Sig block 0 signature verification failed") == 2


def test_the_esp32_application_looks_at_one_block_and_its_bootloader_at_three(tmp_path: Path) -> None:
    board = board_of("esp32", tmp_path)
    image = signed(app_image(board.chip, "1.1.0"), 1, 0)
    put_app(board, OTA_1, image)
    assert verify(board) == (0x2002, NOTHING_TRUSTED)
    put_app(board, OTA_0, image)
    assert isinstance(board.boot(), LoadedApp)
    assert "Sig block 0 signed with untrusted key" in board.lines


def test_the_later_application_looks_at_all_blocks_and_names_the_slot(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    burn_digest(board, 1, slot=1)
    board.efuses.burn_field("SECURE_BOOT_KEY_REVOKE0", 1)
    put_app(board, OTA_1, signed(app_image(board.chip, "1.1.0"), 0, 1))
    status, lines = verify(board)
    assert status == 0
    assert "I secure_boot_v2: #1 app key digest == #1 trusted key digest" in lines
    put_app(board, OTA_1, signed(app_image(board.chip, "1.1.0"), 0))
    assert verify(board) == (0x2002, NOTHING_TRUSTED)


@BOTH
def test_a_digest_that_cannot_be_read_fits_no_image(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    board.efuses.burn_field("RD_DIS", 1 << 1)
    put_app(board, OTA_1, signed(app_image(board.chip, "1.1.0")))
    assert verify(board) == (0x2002, NOTHING_TRUSTED)


def test_without_any_digest_an_application_says_so(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    put_app(board, OTA_1, signed(app_image(board.chip, "1.1.0")))
    board.efuses.burn_field("SECURE_BOOT_KEY_REVOKE0", 1)
    nothing = "E secure_boot_v2: Could not read secure boot digests!"
    assert verify(board) == (0x2002, [VERIFYING, FROM_FUSES, nothing, *BAD])


def test_a_corrupt_image_is_told_from_a_bad_signature(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    unsigned = bytearray(app_image(board.chip, "1.1.0"))
    image = bytearray(signed(bytes(unsigned)))
    # Two bits of the same column, so that the checksum still holds.
    image[0x60] ^= 1
    image[0x64] ^= 1
    put_app(board, OTA_1, bytes(image))
    assert verify(board)[1][-4:] == [
        "E esp_image: Secure boot signature verification failed",
        "I esp_image: Calculating simple hash to check for corruption...",
        "E esp_image: Image hash failed - image is corrupt",
        "W esp_image: image corrupted on flash",
    ]
    assert hashlib.sha256(image[: len(unsigned) - 32]).digest() != image[len(unsigned) - 32 : len(unsigned)]


def test_the_slot_must_have_room_for_the_signature(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    image = signed(app_image(board.chip, "1.1.0"))
    put_app(board, OTA_1, image)
    for size, status in ((len(image), 0), (len(image) - 0x1000, 0x2002)):
        assert ask(board, Op.IMAGE_VERIFY, OTA_1, size, CHIPS_FIRST).status == status
    reply = ask(board, Op.IMAGE_VERIFY, OTA_1, 0x1000, CHIPS_FIRST)
    text = f"Image length {len(image)} doesn't fit in partition length 4096"
    assert reply.data.decode().splitlines()[-1] == f"E esp_image: {text}"


@BOTH
def test_as_long_as_secure_boot_is_off_the_running_apps_keys_are_trusted(
    chip_name: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path)
    put_app(board, OTA_0, signed(app_image(board.chip, "1.0.0"), 2))
    put_app(board, OTA_1, signed(app_image(board.chip, "1.1.0"), 2))
    status, lines = verify(board)
    assert status == 0
    assert lines[1] == "I secure_boot_v2: Take trusted digest key(s) from running app"
    put_app(board, OTA_1, signed(app_image(board.chip, "1.1.0"), 1))
    assert verify(board)[0] == 0x2002
    put_app(board, OTA_0, app_image(board.chip, "1.0.0"))
    assert verify(board)[1][2:4] == [
        "E secure_boot_v2: No signatures were found for the running app",
        "E secure_boot_v2: Could not read secure boot digests!",
    ]


# The bootloader


UNSIGNED_LATER = [
    "E secure_boot_v2: No signature block generated for valid scheme",
    "E secure_boot_v2: RSA signing scheme selected but no signature block for the selected scheme",
]
NOT_VERIFIED = "E secure_boot_v2: Secure Boot V2 verification failed."


@pytest.mark.parametrize(
    ("chip_name", "image_of", "lines"),
    [
        ("esp32c3", lambda image: image, UNSIGNED_LATER),
        (
            "esp32",
            lambda image: image,
            [
                "No signature block magic byte found at signature sector (found 0xff not 0xe7). "
                "Image not V2 signed?",
                NOT_VERIFIED,
            ],
        ),
        ("esp32c3", lambda image: signed(image, 1), ["Sig block 0 signed with untrusted key", NOT_VERIFIED]),
        ("esp32", lambda image: signed(image, 1), ["Sig block 0 signed with untrusted key", NOT_VERIFIED]),
        (
            "esp32c3",
            lambda image: damaged(signed(image), 900, sealed=True),
            ["Signature Check Failed", "Sig block 0 signature verification failed", NOT_VERIFIED],
        ),
    ],
)
def test_the_bootloader_refuses_in_the_roms_words_and_goes_to_the_other_slot(
    chip_name: str, image_of: object, lines: list[str], tmp_path: Path
) -> None:
    board = board_of(chip_name, tmp_path)
    put_app(board, OTA_1, signed(app_image(board.chip, "1.1.0")))
    put_app(board, OTA_0, image_of(app_image(board.chip, "1.0.0")))  # type: ignore[operator]
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_1
    start = board.lines.index("I secure_boot_v2: Verifying with RSA-PSS...") + 1
    bad = ["E esp_image: Secure boot signature verification failed", *BAD[1:]]
    expected = [*lines, *bad, "E boot: OTA app partition slot 0 is not bootable"]
    assert board.lines[start : start + len(expected)] == expected


def test_a_bootloader_never_revokes_a_key_for_an_app(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    board.efuses.burn_field("SECURE_BOOT_AGGRESSIVE_REVOKE", 1)
    put_app(board, OTA_0, damaged(signed(app_image(board.chip, "1.0.0")), 900, sealed=True))
    assert isinstance(board.boot(), Reset)
    assert board.efuses.field("SECURE_BOOT_KEY_REVOKE0") == 0


@BOTH
def test_a_bootloader_without_secure_boot_starts_any_app(chip_name: str, tmp_path: Path) -> None:
    """Signed by hand, it passes the ROM; nobody looks at the app."""
    board = board_of(chip_name, tmp_path)
    plain = bootloader_image(board.chip, boot_board.PLAIN_CONFIG)
    board.put(board.chip.bootloader_offset, signed(plain))
    put_app(board, OTA_0, app_image(board.chip, "1.0.0"))
    assert isinstance(board.boot(), LoadedApp)
    assert not any("Verifying" in line for line in board.lines)


# The application's start


def check(board: Board, *, allow_unused: bool = False) -> tuple[int, list[str]]:
    reply = ask(board, Op.EFUSE, EfuseAction.CHECK_SECURE_BOOT, int(allow_unused))
    return reply.status, reply.data.decode().splitlines()


def test_the_start_revokes_unused_slots_and_protects_what_was_left_open(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    assert check(board) == (
        0,
        [
            "I efuse: Batch mode of writing fields is enabled",
            "W secure_boot: eFuse BLOCK5 should not be writeable. Fixing..",
            "W secure_boot: The KEY_PURPOSE_SECURE_BOOT_DIGEST5 should be write-protected. Fixing..",
            "W secure_boot: Unused SECURE_BOOT_DIGEST1 should be revoked. Fixing..",
            "W secure_boot: Unused SECURE_BOOT_DIGEST2 should be revoked. Fixing..",
            "I efuse: BURN BLOCK0",
            "I efuse: BURN BLOCK0 - OK (all write block bits are set)",
            "I efuse: Batch mode. Prepared fields are committed",
            "I secure_boot: Fixed",
        ],
    )
    assert [board.efuses.field(name) for name in board.chip.secure_boot.revoke] == [0, 1, 1]
    assert board.efuses.write_protected("BLOCK_KEY1")
    assert board.efuses.write_protected("KEY_PURPOSE_1")
    assert check(board) == (0, [])


def test_a_build_may_leave_unused_slots_open(tmp_path: Path) -> None:
    board = board_of("esp32c3", tmp_path)
    _, lines = check(board, allow_unused=True)
    assert (
        "W secure_boot: Unused SECURE_BOOT_DIGEST1 should be revoked. It will not be fixed due to the config"
        in lines
    )
    assert [board.efuses.field(name) for name in board.chip.secure_boot.revoke] == [0, 0, 0]


def test_the_start_protects_the_esp32s_block(tmp_path: Path) -> None:
    board = board_of("esp32", tmp_path)
    status, lines = check(board)
    assert status == 0
    assert "W secure_boot: eFuse BLOCK2 should not be writeable. Fixing.." in lines
    assert board.efuses.write_protected("BLOCK2")
    assert check(board) == (0, [])


@BOTH
def test_a_digest_that_cannot_be_read_ends_the_start(chip_name: str, tmp_path: Path) -> None:
    board = board_of(chip_name, tmp_path)
    board.efuses.burn_field("RD_DIS", 1 << 1)
    number = 2 if chip_name == "esp32" else 5
    assert check(board) == (0x103, [f"E secure_boot: eFuse BLOCK{number} should be readable"])


@BOTH
def test_without_the_fuse_the_start_only_complains(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    text = "Mismatch in secure boot settings: the app config is enabled but eFuse not"
    assert check(board) == (0, [f"E secure_boot: {text}"])


# P-192 on ESP32-H2


P192 = SigningScheme.ECDSA_P192
ON_P192 = bytes([2 + list(SigningScheme).index(P192)])


def p192_board(folder: Path) -> Board:
    """As `board_of`, of an ESP32-H2 whose key is of P-192, which its hardware does not do yet."""
    board, config = Board.named("esp32h2", folder), replace(CONFIG, secure_boot_scheme=P192.value)
    burn_digest(board, scheme=P192)
    enable_secure_boot(board)
    board.provision(config=config, versions={})
    board.put(board.chip.bootloader_offset, signed(bootloader_image(board.chip, config), scheme=P192))
    for offset, version in ((OTA_0, "1.0.0"), (OTA_1, "1.1.0")):
        put_app(board, offset, signed(app_image(board.chip, version), scheme=P192))
    return board


def test_an_application_lets_the_hardware_do_p192_where_that_is_open(tmp_path: Path) -> None:
    board = p192_board(tmp_path)
    assert verify(board, ON_P192)[0] == 0
    assert board.efuses.field("ECDSA_CURVE_MODE") == 2
    assert isinstance(board.boot(), LoadedApp)


def test_where_it_is_frozen_neither_rom_nor_application_takes_p192(tmp_path: Path) -> None:
    board = p192_board(tmp_path)
    board.efuses.burn_field("WR_DIS", 1 << 17)
    status, lines = verify(board, ON_P192)
    assert status != 0
    assert lines[2:4] == [
        "E efuse: ECDSA curve mode is locked, cannot enable P-192 curve",
        "E secure_boot_v2: Failed to enable ECDSA-192 curve mode: -1",
    ]
    assert board.efuses.field("ECDSA_CURVE_MODE") == 0
    assert not isinstance(board.boot(), LoadedApp)
    assert "Sig block 0 signature verification failed" in board.printed.decode()
