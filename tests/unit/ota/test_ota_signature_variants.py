"""Packages around images whose secure boot signature is missing, wrong or damaged in one place."""

from __future__ import annotations

from dataclasses import replace

import espsecure
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sample_releases import PRIVATE_KEY, recipe, release

from harness.build.boot_key import BootKey, from_private
from harness.build.signing import sign
from harness.chips import ESP32C3, SigningScheme
from harness.errors import UsageError
from harness.formats.app_image import parse_app_image
from harness.formats.flash_encryption import decrypt
from harness.formats.ota_package import parse_package
from harness.formats.signature_block import SECTOR_BYTES, blocks_of, verify
from harness.ota import variants
from harness.ota.release import parse_release, signature_is_good
from harness.ota.variants import Recipe

CHIP = replace(ESP32C3, secure_boot=replace(ESP32C3.secure_boot, schemes=(SigningScheme.ECDSA_P256,)))
"""With keys that are made at once."""

POINT = PRIVATE_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def key(number: int) -> BootKey:
    return from_private(f"key {number}", ec.derive_private_key(0x51645 + number, ec.SECP256R1()))


@pytest.fixture(scope="module")
def right() -> Recipe:
    """A package around an image with two signatures, for a slot that has room for it."""
    plain = recipe(CHIP)
    image = sign(plain.release.image, [key(0), key(1)], CHIP)
    return replace(plain, release=parse_release(image), slot=replace(plain.slot, size=0x20000))


def image_in(right: Recipe, package: bytes) -> bytes:
    """What the device would have in its slot; header and body agree, and the package's own signature is right."""
    assert signature_is_good(package, POINT)
    header, _, body = parse_package(package)
    header.check_body(body)
    assert right.key is not None
    image = decrypt(right.chip.cipher, right.key, right.slot.offset, body)[: header.image_size]
    assert parse_app_image(image).is_intact
    return image


def test_the_right_package_carries_the_signed_image(right: Recipe) -> None:
    assert image_in(right, right.package()) == right.release.image
    assert len(verify(right.release.image)) == 2


def test_an_unsigned_image_is_the_signed_one_without_its_sector(right: Recipe) -> None:
    image = image_in(right, variants.with_unsigned_image(right))
    assert image == right.release.image[:-SECTOR_BYTES]
    assert blocks_of(image) == ()


def test_an_image_signed_by_another_key_verifies_with_that_key_only(right: Recipe) -> None:
    package = variants.with_image_signed_by(right, lambda image: sign(image, [key(9)], CHIP))
    image = image_in(right, package)
    assert image[:-SECTOR_BYTES] == right.release.image[:-SECTOR_BYTES]
    assert [block.key_digest for block in verify(image)] == [key(9).digest]


@pytest.mark.parametrize("region", variants.DAMAGES)
def test_a_damaged_signature_differs_in_its_blocks_only_and_fails_if_anybody_looks(
    right: Recipe, region: str
) -> None:
    image = image_in(right, variants.with_signature_damaged(right, region))
    assert image[:-SECTOR_BYTES] == right.release.image[:-SECTOR_BYTES]
    assert image != right.release.image
    assert bool(verify(image)) == (region in variants.NOBODY_LOOKS_AT)
    crcs = [block.crc_ok for block in blocks_of(image)]
    if region not in ("magic", "version"):
        assert crcs == [region != "crc"] * 2


# espsecure goes by the key that it is given: it sees neither a damaged key in the block nor another scheme's number.
@pytest.mark.parametrize("region", ["magic", "image digest", "signature", "crc"])
def test_espsecure_refuses_each_damage_too(right: Recipe, region: str, tmp_path) -> None:
    file = tmp_path / "image.bin"
    file.write_bytes(image_in(right, variants.with_signature_damaged(right, region)))
    pem = key(0).public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pem").write_bytes(pem)
    with (
        file.open("rb") as data,
        (tmp_path / "key.pem").open("rb") as public,
        pytest.raises(espsecure.esptool.FatalError),
    ):
        espsecure.verify_signature("2", False, None, public, data)


def test_damages_that_are_none_and_images_without_a_signature_are_refused(right: Recipe) -> None:
    with pytest.raises(UsageError, match="no region 'colour'"):
        variants.with_signature_damaged(right, "colour")
    plain = recipe(CHIP)
    for act in (
        lambda: variants.with_unsigned_image(plain),
        lambda: variants.with_image_signed_by(plain, lambda image: image),
        lambda: variants.with_signature_damaged(plain, "crc"),
    ):
        with pytest.raises(UsageError, match="is not signed for secure boot"):
            act()


def test_another_release_is_an_honest_package_of_it(right: Recipe) -> None:
    older = release(CHIP, "0.9.0")
    package = variants.with_release(right, older)
    assert image_in(right, package) == older.image
    assert parse_package(package)[0].version == "0.9.0"
