"""Signature blocks as the ROM judges them: every scheme, foreign signatures, single bits, what the fuses trust.

Signatures come from espsecure, from the `cryptography` package and from OpenSSL's own program. Which damage must be
refused is not computed from the twin's code: it follows from the layout and from what the mask ROMs did in QEMU.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pytest
from boot_board import Board
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from signing_bench import (
    BLOCK_BYTES,
    CRC_AT,
    SECTOR_BYTES,
    burn_digest,
    key_digest,
    key_file,
    resealed,
    signed,
)

from harness.chips import CHIPS, Chip, SigningScheme
from harness.twin.signature import ImageDigest, RomVerdict, blocks_of, trusted_digests, verify_as_rom

IMAGE = bytes(range(256)) * 32
DIGEST = ImageDigest.of(IMAGE)

# Chip, scheme, how many bytes of a block the ROM makes use of (the rest up to the CRC is unused room).
SCHEMES = [
    ("esp32", SigningScheme.RSA_3072),
    ("esp32c3", SigningScheme.RSA_3072),
    ("esp32c6", SigningScheme.RSA_3072),
    ("esp32c6", SigningScheme.ECDSA_P256),
    ("esp32c6", SigningScheme.ECDSA_P192),
    ("esp32c2", SigningScheme.ECDSA_P256),
    ("esp32c2", SigningScheme.ECDSA_P192),
    ("esp32c5", SigningScheme.ECDSA_P384),
]
ANY_SCHEME = pytest.mark.parametrize(
    ("chip_name", "scheme"), SCHEMES, ids=[f"{chip}-{scheme.value}" for chip, scheme in SCHEMES]
)
ECDSA_ONLY = pytest.mark.parametrize(
    ("chip_name", "scheme"),
    [row for row in SCHEMES if not row[1].is_rsa],
    ids=[f"{chip}-{scheme.value}" for chip, scheme in SCHEMES if not scheme.is_rsa],
)


def sector_of(*indices: int, scheme: SigningScheme = SigningScheme.RSA_3072, image: bytes = IMAGE) -> bytes:
    return signed(image, *indices, scheme=scheme)[-SECTOR_BYTES:]


def trusted(chip: Chip, index: int = 0, scheme: SigningScheme = SigningScheme.RSA_3072) -> list[bytes]:
    return [key_digest(index, scheme)[: chip.secure_boot.digest_size_bytes]]


def judged(chip: Chip, sector: bytes, scheme: SigningScheme = SigningScheme.RSA_3072) -> RomVerdict:
    return verify_as_rom(chip, sector, DIGEST, trusted(chip, scheme=scheme))


def flipped(sector: bytes, at: int, bit: int, *, sealed: bool = False) -> bytes:
    changed = bytearray(sector)
    changed[at] ^= 1 << bit
    return resealed(changed) if sealed else bytes(changed)


# Schemes


@ANY_SCHEME
def test_a_signature_of_espsecure_is_accepted(chip_name: str, scheme: SigningScheme) -> None:
    assert judged(CHIPS[chip_name], sector_of(scheme=scheme), scheme) == RomVerdict(True, ())


@ANY_SCHEME
def test_the_burned_digest_is_the_one_that_espsecure_computes(chip_name: str, scheme: SigningScheme) -> None:
    block = blocks_of(sector_of(scheme=scheme))[0]
    assert block.key_digest(CHIPS[chip_name]) == key_digest(0, scheme)


@ANY_SCHEME
def test_another_image_another_key_and_another_signature_are_refused(
    chip_name: str, scheme: SigningScheme
) -> None:
    chip, sector = CHIPS[chip_name], sector_of(scheme=scheme)
    other = ImageDigest.of(IMAGE + b"x")
    found = verify_as_rom(chip, sector, other, trusted(chip, scheme=scheme))
    assert found == RomVerdict(False, ("Sig block 0 invalid: Image digest does not match",))
    found = verify_as_rom(chip, sector, DIGEST, trusted(chip, 1, scheme))
    assert found == RomVerdict(False, ("Sig block 0 signed with untrusted key",))
    size = {SigningScheme.RSA_3072: 384, SigningScheme.ECDSA_P384: 96}.get(scheme, 64)
    at = {SigningScheme.RSA_3072: 812, SigningScheme.ECDSA_P384: 149}.get(scheme, 101)
    donor = sector_of(scheme=scheme, image=IMAGE[::-1])
    mixed = resealed(sector[:at] + donor[at : at + size] + sector[at + size :])
    found = verify_as_rom(chip, mixed, DIGEST, trusted(chip, scheme=scheme))
    assert not found.accepted
    assert found.lines[-1] == "Sig block 0 signature verification failed"


@pytest.mark.parametrize(
    ("chip_name", "scheme"),
    [
        ("esp32c3", SigningScheme.ECDSA_P256),
        ("esp32c2", SigningScheme.RSA_3072),
        ("esp32c6", SigningScheme.ECDSA_P384),
    ],
)
def test_a_scheme_that_the_chip_does_not_know_is_refused(chip_name: str, scheme: SigningScheme) -> None:
    assert not judged(CHIPS[chip_name], sector_of(scheme=scheme), scheme).accepted


def test_the_esp32c2_compares_the_first_half_of_the_digest() -> None:
    chip, scheme = CHIPS["esp32c2"], SigningScheme.ECDSA_P256
    half = key_digest(0, scheme)[:16]
    sector = sector_of(scheme=scheme)
    assert verify_as_rom(chip, sector, DIGEST, [half]).accepted
    assert not verify_as_rom(chip, sector, DIGEST, [half[:15] + bytes([half[15] ^ 1])]).accepted
    assert not verify_as_rom(chip, sector, DIGEST, [bytes(16)]).accepted


def test_a_fuse_decides_between_the_digests_of_an_image() -> None:
    """ESP-IDF: with P-384 all keys must be of that curve."""
    chip = CHIPS["esp32c5"]
    for scheme in (SigningScheme.RSA_3072, SigningScheme.ECDSA_P256, SigningScheme.ECDSA_P384):
        sector, keys = sector_of(scheme=scheme), trusted(chip, scheme=scheme)
        for fuse in (False, True):
            found = verify_as_rom(chip, sector, DIGEST, keys, sha384=fuse)
            assert found.accepted == (fuse == (scheme is SigningScheme.ECDSA_P384))


@pytest.mark.parametrize("chip_name", ["esp32c5", "esp32c6"])
def test_a_point_that_looks_like_another_curve_is_still_a_point(chip_name: str) -> None:
    """Byte 52, where a block of P-384 has its curve, lies in the point of a P-256 key."""
    chip, scheme = CHIPS[chip_name], SigningScheme.ECDSA_P256
    sector = sector_of(scheme=scheme)
    changed = bytearray(sector)
    changed[52], changed[53] = 3, changed[53] ^ 1
    block = blocks_of(resealed(changed))[0]
    assert len(block.image_digest(chip)) == 32
    burned = block.key_digest(chip)
    found = verify_as_rom(chip, resealed(changed), DIGEST, [burned])
    assert found.lines == ("Sig block 0 signature verification failed",)


def test_a_block_of_three_keys_is_accepted_for_each_of_them() -> None:
    chip, sector = CHIPS["esp32c3"], sector_of(0, 1, 2)
    for index in range(3):
        assert verify_as_rom(chip, sector, DIGEST, [None, None, key_digest(index)]).accepted


def test_without_any_digest_the_later_rom_says_so() -> None:
    found = verify_as_rom(CHIPS["esp32c3"], sector_of(), DIGEST, [None, None, None])
    assert found == RomVerdict(False, ("No trusted signatures",))


@ECDSA_ONLY
def test_a_curve_or_version_that_does_not_fit_is_refused(chip_name: str, scheme: SigningScheme) -> None:
    chip, sector = CHIPS[chip_name], sector_of(scheme=scheme)
    curve_at = 52 if scheme is SigningScheme.ECDSA_P384 else 36
    for at in (1, curve_at):
        for value in (0, 1, 2, 3, 4, 0xFF):
            if sector[at] == value:
                continue
            changed = bytearray(sector)
            changed[at] = value
            assert not judged(chip, resealed(changed), scheme).accepted, (at, value)


# Signatures of others


def block_with(signature: bytes) -> bytes:
    """A sector whose first block is espsecure's but for the signature, given big endian."""
    sector = bytearray(sector_of())
    sector[812:CRC_AT] = signature[::-1]
    return resealed(sector)


@lru_cache
def private_key(index: int = 0) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(key_file(index).read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def pss(salt: int) -> padding.PSS:
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=salt)


def test_a_signature_made_elsewhere_is_accepted() -> None:
    signature = private_key().sign(IMAGE, pss(32), hashes.SHA256())
    assert judged(CHIPS["esp32c3"], block_with(signature)).accepted


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program on this host")
def test_a_signature_of_the_openssl_program_is_accepted_with_its_salt_at_32_bytes(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    command = ["openssl", "dgst", "-sha256", "-sign", str(key_file()), "-sigopt", "rsa_padding_mode:pss"]
    verdicts = {}
    for salt in ("32", "max"):
        made = subprocess.run(
            [*command, "-sigopt", f"rsa_pss_saltlen:{salt}", str(tmp_path / "image")],
            capture_output=True,
            check=True,
        )
        verdicts[salt] = judged(CHIPS["esp32c3"], block_with(made.stdout)).accepted
    assert verdicts == {"32": True, "max": False}


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 350])
def test_a_salt_of_another_length_is_refused_by_the_rom_but_not_by_an_application(salt: int) -> None:
    sector = block_with(private_key().sign(IMAGE, pss(salt), hashes.SHA256()))
    assert not judged(CHIPS["esp32c3"], sector).accepted
    block = blocks_of(sector)[0]
    assert block.verifies(CHIPS["esp32c3"], DIGEST, by_hardware=False)


def test_the_older_padding_is_refused() -> None:
    signature = private_key().sign(IMAGE, padding.PKCS1v15(), hashes.SHA256())
    assert not judged(CHIPS["esp32c3"], block_with(signature)).accepted


@pytest.mark.parametrize("at", [424, 807, 808, 811])
def test_numbers_that_the_accelerator_needs_must_be_right_even_where_their_digest_is_burned(at: int) -> None:
    """Not seen in QEMU, whose accelerator does without them."""
    chip = CHIPS["esp32c3"]
    sector = flipped(sector_of(), at, 0, sealed=True)
    block = blocks_of(sector)[0]
    burned = block.key_digest(chip)
    assert burned != key_digest()
    assert not verify_as_rom(chip, sector, DIGEST, [burned]).accepted
    assert block.verifies(chip, DIGEST, by_hardware=False)


# Single bits


def sample(first: int, behind: int, count: int) -> list[tuple[int, int]]:
    chosen = random.Random(0xE7).sample(range(first * 8, behind * 8), count)
    return [(number // 8, number % 8) for number in chosen]


@ANY_SCHEME
def test_every_single_bit_up_to_the_end_of_the_crc_counts(chip_name: str, scheme: SigningScheme) -> None:
    chip, sector = CHIPS[chip_name], sector_of(scheme=scheme)
    for at, bit in sample(0, CRC_AT + 4, 400):
        assert not judged(chip, flipped(sector, at, bit), scheme).accepted, (at, bit)


@ANY_SCHEME
def test_no_bit_behind_the_crc_does(chip_name: str, scheme: SigningScheme) -> None:
    """Sixteen bytes of the block, and the sector's room behind the blocks."""
    chip, sector = CHIPS[chip_name], sector_of(scheme=scheme)
    for at, bit in [*sample(CRC_AT + 4, BLOCK_BYTES, 20), *sample(3 * BLOCK_BYTES, SECTOR_BYTES, 20)]:
        assert judged(chip, flipped(sector, at, bit), scheme).accepted, (at, bit)


@ANY_SCHEME
def test_with_a_right_crc_only_bits_that_mean_nothing_pass(chip_name: str, scheme: SigningScheme) -> None:
    """Reserved bytes, and room that the scheme leaves; on a chip that knows RSA only, the version."""
    chip, sector = CHIPS[chip_name], sector_of(scheme=scheme)
    digest_end = 52 if scheme is SigningScheme.ECDSA_P384 else 36
    signature_end = {
        SigningScheme.RSA_3072: CRC_AT,
        SigningScheme.ECDSA_P192: 101 + 48,
        SigningScheme.ECDSA_P256: 101 + 64,
        SigningScheme.ECDSA_P384: 149 + 96,
    }[scheme]
    for at, bit in [*sample(0, 1, 8), *sample(4, digest_end, 40), *sample(digest_end, signature_end, 200)]:
        assert not judged(chip, flipped(sector, at, bit, sealed=True), scheme).accepted, (at, bit)
    free = sample(3, 4, 8)
    if all(known.is_rsa for known in chip.secure_boot.schemes):
        free += sample(1, 2, 8)
    if signature_end < CRC_AT:
        free += sample(signature_end, CRC_AT, 40)
    for at, bit in free:
        assert judged(chip, flipped(sector, at, bit, sealed=True), scheme).accepted, (at, bit)


def test_any_bytes_are_refused_and_never_a_fault_of_the_twin() -> None:
    rng = random.Random(1)
    for chip_name, scheme in SCHEMES:
        chip = CHIPS[chip_name]
        for _ in range(20):
            noise = bytearray(rng.randbytes(SECTOR_BYTES))
            noise[0], noise[1], noise[36] = 0xE7, rng.choice((2, 3)), rng.choice((1, 2, 3))
            sector = resealed(bytes(noise))
            block = blocks_of(sector)[0]
            digest = block.key_digest(chip)[: chip.secure_boot.digest_size_bytes]
            fake = replace(DIGEST, sha256=block.image_digest(chip)[:32])
            assert not verify_as_rom(chip, sector, fake, [digest]).accepted, scheme


# What is trusted


@pytest.mark.parametrize("chip_name", ["esp32", "esp32c3"])
def test_the_burned_digest_is_trusted_until_it_cannot_be_read(chip_name: str, tmp_path: Path) -> None:
    board = Board.named(chip_name, tmp_path)
    burn_digest(board)
    absent = () if chip_name == "esp32" else (None, None)
    assert trusted_digests(board.efuses) == (key_digest(), *absent)
    board.efuses.burn_field("RD_DIS", 1 << 1)
    assert trusted_digests(board.efuses) == (bytes(32), *absent)
