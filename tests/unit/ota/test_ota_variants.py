"""Each variant differs from the right package in one thing, and is right in every other."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sample_releases import (
    ALL_CHIPS,
    MAC,
    OTHER_MAC,
    OTHER_PRIVATE_KEY,
    PRIVATE_KEY,
    TABLE,
    flash_key,
    image,
    recipe,
    release,
)

from harness.chips import Chip
from harness.errors import FormatError
from harness.formats.app_image import parse_app_image
from harness.formats.flash_encryption import decrypt
from harness.formats.ota_package import PackageHeader, parse_header, parse_package
from harness.ota import variants
from harness.ota.release import signature_is_good, signer
from harness.ota.variants import Recipe

POINT = PRIVATE_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
OTHER_POINT = OTHER_PRIVATE_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
FIELDS = list(PackageHeader.__dataclass_fields__)

each_chip = pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)


def _differing_fields(package: bytes, other: bytes) -> set[str]:
    a, b = parse_header(package), parse_header(other)
    return {name for name in FIELDS if getattr(a, name) != getattr(b, name)}


def _plaintext(recipe: Recipe, package: bytes) -> bytes:
    header, _, body = parse_package(package)
    header.check_body(body)
    assert recipe.key is not None
    return decrypt(recipe.chip.cipher, recipe.key, recipe.slot.offset, body)[: header.image_size]


OTHER_SLOT = TABLE.find("ota_0")

# Variants whose header parses: how each is made, and which header fields differ from the right one's.
OTHER_CHIP_ID = 20
"""ESP32-C61: no chip of this harness."""

HONEST_OTHERS: list[tuple[str, Callable[[Recipe], bytes], set[str]]] = [
    ("other slot", lambda r: variants.for_other_slot(r, OTHER_SLOT), {"slot_offset", "body_sha256"}),
    ("other device's label", lambda r: variants.for_other_device(r, OTHER_MAC), {"mac"}),
    (
        "other device",
        lambda r: variants.for_other_device(r, OTHER_MAC, flash_key(r.chip, "other")),
        {"mac", "key_id", "body_sha256"},
    ),
    ("chip", lambda r: variants.with_chip_id(r, OTHER_CHIP_ID), {"chip_id"}),
    ("cipher", lambda r: variants.with_cipher_number(r, r.chip.cipher.number % 4 + 1), {"cipher_number"}),
    ("version", lambda r: variants.with_version(r, "9.9.9"), {"version"}),
    ("secure version", lambda r: variants.with_secure_version(r, 2), {"secure_version"}),
    ("image hash", lambda r: variants.with_image_sha256(r), {"image_sha256"}),
    ("image size", lambda r: variants.with_image_size(r, len(r.release.image) - 1), {"image_size"}),
    ("other slot's cipher", lambda r: variants.enciphered_for_slot(r, OTHER_SLOT), {"body_sha256"}),
    ("other key", lambda r: variants.enciphered_with_key(r, flash_key(r.chip, "other")), {"body_sha256"}),
    ("plaintext", variants.plaintext_under_cipher, {"body_sha256"}),
    ("flipped body, made good", lambda r: variants.flipped_body(r, 4000), {"body_sha256"}),
    (
        "image of another version",
        lambda r: variants.around_image(r, image(r.chip, "0.9.0")),
        {"body_sha256", "image_sha256"},
    ),
    (
        "image cut",
        lambda r: variants.with_image_cut(r, 3000),
        {"image_size", "body_size", "body_sha256", "image_sha256"},
    ),
    (
        "image's chip",
        lambda r: variants.with_image_chip_id(r, OTHER_CHIP_ID),
        {"body_sha256", "image_sha256"},
    ),
]


@each_chip
@pytest.mark.parametrize(
    ("make", "fields"), [row[1:] for row in HONEST_OTHERS], ids=[r[0] for r in HONEST_OTHERS]
)
def test_a_variant_differs_in_these_fields_only_and_is_signed(
    chip: Chip, make: Callable[[Recipe], bytes], fields: set[str]
) -> None:
    right = recipe(chip)
    package = make(right)
    assert _differing_fields(package, right.package()) == fields
    assert signature_is_good(package, POINT)
    header = parse_header(package)
    assert hashlib.sha256(variants.body_of(package)).digest() == header.body_sha256
    assert len(variants.body_of(package)) == header.body_size


@each_chip
def test_wrong_bodies_do_not_decipher_here_but_where_they_were_made_for(chip: Chip) -> None:
    right = recipe(chip)
    key, other_key = flash_key(chip), flash_key(chip, "other")
    for package, place, with_key in (
        (variants.enciphered_for_slot(right, OTHER_SLOT), OTHER_SLOT.offset, key),
        (variants.enciphered_with_key(right, other_key), right.slot.offset, other_key),
    ):
        assert _plaintext(right, package)[:1] != right.release.image[:1]
        body = variants.body_of(package)
        assert decrypt(chip.cipher, with_key, place, body).startswith(right.release.image)


@each_chip
def test_the_plaintext_variant_carries_the_image_itself(chip: Chip) -> None:
    right = recipe(chip)
    assert variants.body_of(variants.plaintext_under_cipher(right)).startswith(right.release.image)


@each_chip
def test_variants_of_the_image_decipher_to_what_they_promise(chip: Chip) -> None:
    right = recipe(chip)
    cut = _plaintext(right, variants.with_image_cut(right, 3000))
    assert cut == right.release.image[:3000]
    with pytest.raises(FormatError):
        parse_app_image(cut)
    foreign = parse_app_image(_plaintext(right, variants.with_image_chip_id(right, 9)))
    assert (foreign.chip_id, foreign.is_intact) == (9, True)
    other = _plaintext(right, variants.around_image(right, image(chip, "0.9.0")))
    assert other == release(chip, "0.9.0").image


@each_chip
def test_a_flipped_bit_of_the_body_garbles_one_block_of_the_image(chip: Chip) -> None:
    right = recipe(chip)
    found = _plaintext(right, variants.flipped_body(right, 4000, 5))
    garbled = {at // 16 for at, (a, b) in enumerate(zip(found, right.release.image, strict=True)) if a != b}
    assert garbled == {4000 // 16}


@each_chip
def test_damage_is_not_made_good(chip: Chip) -> None:
    package = recipe(chip).package()
    assert variants.truncated(package, 1000) == package[:1000]
    for at_byte in (0, 100, 191, 192, 255):
        damaged = variants.flipped(package, at_byte, 6)
        assert sum(a != b for a, b in zip(damaged, package, strict=True)) == 1
        assert not signature_is_good(damaged, POINT)
    damaged = variants.flipped(package, 256)
    assert signature_is_good(damaged, POINT)
    header, _, body = parse_package(damaged)
    with pytest.raises(FormatError, match="SHA-256 of the body"):
        header.check_body(body)


@each_chip
def test_signatures_can_be_absent_or_somebody_elses(chip: Chip) -> None:
    package = recipe(chip).package()
    unsigned, other = variants.unsigned(package), variants.signed_by(package, signer(OTHER_PRIVATE_KEY))
    assert unsigned[192:256] == bytes(64)
    for changed in (unsigned, other):
        assert (changed[:192], changed[256:]) == (package[:192], package[256:])
        assert not signature_is_good(changed, POINT)
    assert signature_is_good(other, OTHER_POINT)


@each_chip
def test_sizes_beyond_the_slot_agree_with_each_other(chip: Chip) -> None:
    right = recipe(chip)
    header = parse_header(variants.larger_than_slot(right))
    assert (header.image_size, header.body_size) == (right.slot.size + 16, right.slot.size + 16)
    assert signature_is_good(variants.larger_than_slot(right), POINT)


def test_a_patched_header_is_signed_again_or_not() -> None:
    right = recipe(ALL_CHIPS[0])
    package = right.package()
    renamed = variants.patched(package, 0, b"RAWOTA2\0", right.sign)
    assert signature_is_good(renamed, POINT)
    with pytest.raises(FormatError, match="magic"):
        parse_header(renamed)
    assert not signature_is_good(variants.patched(package, 0, b"RAWOTA2\0"), POINT)


def test_relabelling_takes_a_mac_as_text() -> None:
    right = recipe(ALL_CHIPS[0])
    package = variants.relabelled(right.package(), right.sign, mac=OTHER_MAC.upper())
    assert parse_header(package).mac.hex(":") == OTHER_MAC != MAC
