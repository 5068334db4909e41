"""Releases and packages: what goes in comes out, and what cannot go in is refused with its reason."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from pathlib import Path

import espsecure
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_releases import (
    ALL_CHIPS,
    MAC,
    OTHER_PRIVATE_KEY,
    PRIVATE_KEY,
    TABLE,
    flash_key,
    image,
    recipe,
    release,
)

from harness.chips import Chip, Cipher, chip_named
from harness.errors import FormatError, UsageError
from harness.formats.flash_encryption import decrypt
from harness.formats.ota_package import key_id_of, parse_package
from harness.ota.release import (
    make_body,
    make_package,
    parse_release,
    read_release,
    signature_is_good,
    signer,
)

POINT = PRIVATE_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
OTHER_POINT = OTHER_PRIVATE_KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

each_chip = pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)


@each_chip
def test_a_release_says_what_its_image_says(chip: Chip) -> None:
    made = release(chip, "2.3.4")
    assert (made.version, made.project_name, made.secure_version) == ("2.3.4", "companion", 3)
    assert made.sha256 == hashlib.sha256(made.image).digest()
    assert len(repr(made)) < 80


def test_a_release_keeps_what_follows_the_image_in_the_file(tmp_path: Path) -> None:
    chip = chip_named("esp32c3")
    signed = image(chip) + b"\xe7" + bytes(4095)
    file = tmp_path / "app.bin"
    file.write_bytes(signed)
    assert read_release(file).image == signed


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"app\.bin cannot be read"):
        read_release(tmp_path / "app.bin")


def _with_byte(data: bytes, at: int, value: int) -> bytes:
    return data[:at] + bytes([value]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda _: b"", "header"),
        (lambda data: data[:100], "segment"),
        (lambda data: data[:-1], "truncated|SHA-256"),
        (lambda data: _with_byte(data, 0, 0x63), "magic"),
        (lambda data: _with_byte(data, 400, data[400] ^ 1), "checksum does not match"),
        (lambda data: _with_byte(data, -1 % len(data), data[-1] ^ 1), "SHA-256 does not match"),
        (lambda _: image(chip_named("esp32c3"), hash_appended=False), "no SHA-256 is appended"),
    ],
)
def test_an_image_that_a_device_would_not_boot_is_refused(damage: object, message: str) -> None:
    assert callable(damage)
    with pytest.raises(FormatError, match=message):
        parse_release(damage(image(chip_named("esp32c3"))))


@each_chip
def test_a_package_says_for_what_it_is_and_holds_the_image(chip: Chip) -> None:
    made, slot, key = release(chip), TABLE.find("ota_1"), flash_key(chip)
    package = make_package(made, chip=chip, mac=MAC.upper(), key=key, slot=slot, sign=signer(PRIVATE_KEY))
    header, signature, body = parse_package(package)
    header.check_body(body)
    assert (header.chip_id, header.cipher_number) == (chip.chip_id, chip.cipher.number)
    assert (header.mac.hex(":"), header.key_id) == (MAC, key_id_of(key))
    assert (header.slot_offset, header.slot_size) == (slot.offset, slot.size)
    assert (header.version, header.project_name, header.secure_version) == ("1.1.0", "companion", 3)
    assert header.image_sha256 == hashlib.sha256(made.image).digest()
    assert decrypt(chip.cipher, key, slot.offset, body)[: header.image_size] == made.image
    assert len(signature) == 64
    assert key not in package


@each_chip
@pytest.mark.parametrize("label", ["ota_0", "ota_1"])
def test_the_bare_bin_is_what_the_vendors_tool_would_flash_there(chip: Chip, label: str) -> None:
    made, slot, key = release(chip), TABLE.find(label), flash_key(chip)
    padded = made.image + b"\xff" * (-len(made.image) % 16)
    expected = io.BytesIO()
    is_xts = chip.cipher is not Cipher.ESP32_AES
    espsecure.encrypt_flash_data(io.BytesIO(key), expected, slot.offset, 0xF, is_xts, io.BytesIO(padded))
    assert make_body(made, chip=chip, key=key, slot=slot) == expected.getvalue()


@each_chip
def test_without_a_key_the_body_is_the_image_and_the_package_claims_no_cipher(chip: Chip) -> None:
    slot = TABLE.find("ota_0")
    made = parse_release(image(chip) + b"odd")
    package = make_package(made, chip=chip, mac=MAC, key=None, slot=slot, sign=signer(PRIVATE_KEY))
    header, _, body = parse_package(package)
    assert (header.cipher_number, header.key_id) == (0, bytes(8))
    assert body == made.image + b"\xff" * (-len(made.image) % 16)
    assert (header.image_size, header.body_size) == (len(made.image), len(body))


def test_only_the_signers_key_verifies_a_package() -> None:
    package = recipe(chip_named("esp32")).package()
    assert signature_is_good(package, POINT)
    assert not signature_is_good(package, OTHER_POINT)
    assert not signature_is_good(package[:100] + b"\x00" + package[101:], POINT)
    for point in (b"", bytes(65), POINT[:-1]):
        with pytest.raises(UsageError, match="not a point"):
            signature_is_good(package, point)
    with pytest.raises(FormatError, match="header alone"):
        signature_is_good(package[:255], POINT)


@given(data=st.binary(max_size=300))
@settings(max_examples=30, deadline=None)
def test_signatures_are_always_two_32_byte_integers(data: bytes) -> None:
    assert len(signer(PRIVATE_KEY)(data)) == 64


def test_a_signing_key_on_another_curve_is_refused() -> None:
    with pytest.raises(UsageError, match="P-256"):
        signer(ec.generate_private_key(ec.SECP384R1()))


def test_a_signature_of_another_length_is_refused() -> None:
    made = replace(recipe(chip_named("esp32")), sign=lambda _: b"short")
    with pytest.raises(FormatError, match="signature has 5 bytes"):
        made.package()


def test_an_image_for_another_chip_is_refused_by_name() -> None:
    made = replace(recipe(chip_named("esp32")), release=release(chip_named("esp32c3")))
    with pytest.raises(UsageError, match="built for ESP32-C3, the device is ESP32"):
        made.package()


@pytest.mark.parametrize("label", ["otadata", "store"])
def test_a_partition_that_is_no_ota_slot_is_refused(label: str) -> None:
    with pytest.raises(UsageError, match=f"'{label}' is not an OTA slot"):
        replace(recipe(chip_named("esp32")), slot=TABLE.find(label)).package()


@pytest.mark.parametrize(("spare_bytes", "fits"), [(0, True), (-1, False), (-16, False)])
def test_an_image_must_fit_its_slot_with_its_padding(spare_bytes: int, fits: bool) -> None:
    made = recipe(chip_named("esp32"))
    made = replace(made, release=parse_release(made.release.image + b"odd"))
    padded_bytes = -(-len(made.release.image) // 16) * 16
    made = replace(made, slot=replace(made.slot, size=padded_bytes + spare_bytes))
    if fits:
        assert len(made.body()) == made.slot.size
    else:
        with pytest.raises(UsageError, match="slot 'ota_1' holds"):
            made.package()


@each_chip
@pytest.mark.parametrize("size_bytes", [0, 8, 24, 31, 33, 128])
def test_a_key_of_another_length_is_refused_and_not_shown(chip: Chip, size_bytes: int) -> None:
    key = b"K" * size_bytes
    with pytest.raises(UsageError, match=f"this one {size_bytes}") as caught:
        replace(recipe(chip), key=key).package()
    assert "KKKK" not in str(caught.value)


@each_chip
def test_no_representation_shows_key_or_image(chip: Chip) -> None:
    made = recipe(chip)
    shown = repr(made)
    assert made.key is not None
    for secret in (made.key.hex(), repr(made.key), repr(made.release.image)):
        assert secret not in shown
