"""Packages with exactly one thing wrong, for tests of what a device refuses. Pure functions.

Each names the answer that is expected of the device (see firmware/README.md). What the fault is not about is
right: a wrong label is signed like a right one, so that the signature check cannot be what refuses it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from harness.chips import Chip
from harness.errors import UsageError
from harness.formats.flash_encryption import pad_to_block
from harness.formats.ota_package import (
    HEADER_BYTES,
    SIGNATURE_BYTES,
    SIGNED_BYTES,
    PackageHeader,
    parse_package,
)
from harness.formats.partition import Partition
from harness.formats.signature_block import BLOCK_BYTES, blocks_of, regions, unsigned_length, with_crc
from harness.ota.mac_address import parse_mac
from harness.ota.release import (
    Release,
    Sign,
    encipher_for_slot,
    header_for,
    make_body,
    make_package,
    sealed,
)

SignImage = Callable[[bytes], bytes]
"""Takes an unsigned image, as it was built, and returns it with a signature sector."""

_CHIP_ID_OFFSET_IN_IMAGE = 12
_SHA256_BYTES = 32
# Offsets in the package's header.
_CIPHER_OFFSET, _SIZES_OFFSET = 14, 40


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the right package is made of; a variant changes one ingredient, or the label of one."""

    release: Release
    chip: Chip
    mac: str
    slot: Partition
    key: bytes | None = field(repr=False)
    sign: Sign = field(repr=False)

    def package(self) -> bytes:
        """The right package."""
        return make_package(
            self.release, chip=self.chip, mac=self.mac, key=self.key, slot=self.slot, sign=self.sign
        )

    def body(self) -> bytes:
        """The right bare bin."""
        return make_body(self.release, chip=self.chip, key=self.key, slot=self.slot)


def body_of(package: bytes) -> bytes:
    """The bare bin inside a package: what follows its header."""
    return package[HEADER_BYTES:]


# ---- made for something else, and saying so: refused by the header, before anything is erased --------------


def for_other_slot(recipe: Recipe, slot: Partition) -> bytes:
    """A right package for another slot. Expected: ``wrong-slot``; as a bare bin it does not decipher."""
    return replace(recipe, slot=slot).package()


def for_other_device(recipe: Recipe, mac: str, key: bytes | None = None) -> bytes:
    """A package for the device `mac`: with its `key` or only its label. Expected: ``wrong-device``."""
    return replace(recipe, mac=mac, key=recipe.key if key is None else key).package()


def with_chip_id(recipe: Recipe, chip_id: int) -> bytes:
    """The header names another chip. Expected: ``wrong-chip``."""
    return relabelled(recipe.package(), recipe.sign, chip_id=chip_id)


def with_cipher_number(recipe: Recipe, cipher_number: int) -> bytes:
    """The header names another cipher than the device's. Expected: ``wrong-cipher``."""
    return patched(recipe.package(), _CIPHER_OFFSET, bytes([cipher_number]), recipe.sign)


def with_image_size(recipe: Recipe, image_size: int) -> bytes:
    """The header gives another plaintext size, the rest of it stays. Expected: ``wrong-size``, or, when the
    body is as long as that size needs, ``image-hash``."""
    return patched(recipe.package(), _SIZES_OFFSET, image_size.to_bytes(4, "little"), recipe.sign)


def larger_than_slot(recipe: Recipe) -> bytes:
    """The header's sizes fit each other and exceed the slot; the body stays. Expected: ``wrong-size``."""
    sizes = (recipe.slot.size + 16).to_bytes(4, "little") * 2
    return patched(recipe.package(), _SIZES_OFFSET, sizes, recipe.sign)


# ---- a right label on something else: found in the first sector, or at the end -----------------------------


def enciphered_for_slot(recipe: Recipe, slot: Partition) -> bytes:
    """The body is enciphered for `slot`, the header says the right one. Expected: ``not-deciphered``."""
    return _around(
        recipe, encipher_for_slot(recipe.release.image, chip=recipe.chip, key=recipe.key, slot=slot)
    )


def enciphered_with_key(recipe: Recipe, key: bytes) -> bytes:
    """Another key under the right key id. Expected: ``not-deciphered``."""
    body = encipher_for_slot(recipe.release.image, chip=recipe.chip, key=key, slot=recipe.slot)
    return _around(recipe, body)


def plaintext_under_cipher(recipe: Recipe) -> bytes:
    """The header claims the cipher, the body is the image itself. Expected: ``plaintext-image``."""
    return _around(recipe, pad_to_block(recipe.release.image))


def with_version(recipe: Recipe, version: str) -> bytes:
    """The header gives another version than the image's description. Expected: ``wrong-description``."""
    return relabelled(recipe.package(), recipe.sign, version=version)


def with_secure_version(recipe: Recipe, secure_version: int) -> bytes:
    """The header gives another secure version than the image. Expected: ``secure-version-too-old`` below the
    running one's, else ``wrong-description``."""
    return relabelled(recipe.package(), recipe.sign, secure_version=secure_version)


def with_image_sha256(recipe: Recipe, sha256: bytes = bytes(32)) -> bytes:
    """The header gives another SHA-256 of the plaintext. Expected: ``image-hash``."""
    return relabelled(recipe.package(), recipe.sign, image_sha256=sha256)


def around_image(recipe: Recipe, image: bytes) -> bytes:
    """Any plaintext, enciphered as it should be, with its own size and hash and the release's other labels.

    Expected: ``wrong-description`` for an image of another version, ``image-invalid`` for a damaged one.
    """
    body = encipher_for_slot(image, chip=recipe.chip, key=recipe.key, slot=recipe.slot)
    header = replace(
        _header(recipe, body), image_size=len(image), image_sha256=hashlib.sha256(image).digest()
    )
    return sealed(header, body, recipe.sign)


def with_image_cut(recipe: Recipe, size_bytes: int) -> bytes:
    """An honest package of the image's first `size_bytes` bytes, 288 or more. Expected: ``image-invalid``."""
    return around_image(recipe, recipe.release.image[:size_bytes])


def with_image_chip_id(recipe: Recipe, chip_id: int) -> bytes:
    """An intact image for another chip, the header says the right one. Expected: ``not-deciphered``, since
    nothing that is no image for this chip counts as one."""
    image = bytearray(recipe.release.image)
    image[_CHIP_ID_OFFSET_IN_IMAGE : _CHIP_ID_OFFSET_IN_IMAGE + 2] = chip_id.to_bytes(2, "little")
    hash_at = recipe.release.parsed.size_bytes - _SHA256_BYTES
    image[hash_at : hash_at + _SHA256_BYTES] = hashlib.sha256(image[:hash_at]).digest()
    return around_image(recipe, bytes(image))


# ---- secure boot: a right package around an image that the device must not start ---------------------------


def with_release(recipe: Recipe, release: Release) -> bytes:
    """A right package of another release. Expected: ``secure-version-too-old`` where its secure version is below
    the running one's, else it is taken."""
    return replace(recipe, release=release).package()


def with_unsigned_image(recipe: Recipe) -> bytes:
    """The image without its signature sector. Expected with secure boot: ``image-invalid``.

    Raises:
        UsageError: it has none.
    """
    return around_image(recipe, _unsigned(recipe))


def with_image_signed_by(recipe: Recipe, sign_image: SignImage) -> bytes:
    """The image signed by somebody else. Expected: ``image-invalid`` for a key that the device does not know, or that
    is revoked; else it is taken.

    Raises:
        UsageError: the image is not signed now.
    """
    return around_image(recipe, sign_image(_unsigned(recipe)))


DAMAGES = ("magic", "version", "image digest", "public key", "signature", "crc", "padding")
"""Regions of a signature block that `with_signature_damaged` takes."""

NOBODY_LOOKS_AT = frozenset({"padding"})
"""Regions whose damage changes nothing."""


def with_signature_damaged(recipe: Recipe, region: str) -> bytes:
    """One bit of that region inverted in every signature block, and the CRC made to fit again (but for ``crc``).

    Expected: ``image-invalid``, but see `NOBODY_LOOKS_AT`. A running application of ESP-IDF does not compare the ``image
    digest``, but the bootloader does, through the ROM: such an update is taken and does not boot.

    Raises:
        UsageError: the image is not signed, or there is no such region.
    """
    if region not in DAMAGES:
        raise UsageError(
            f"a signature block has no region '{region}'", todo=f"there are: {', '.join(DAMAGES)}"
        )
    image = bytearray(recipe.release.image)
    start = len(_unsigned(recipe))
    for found in blocks_of(recipe.release.image):
        at = start + found.index * BLOCK_BYTES
        block = bytearray(image[at : at + BLOCK_BYTES])
        # Behind the first byte, which for an ECDSA key is its curve: that would be another scheme.
        place = regions(found.scheme)[region]
        block[place.offset + min(1, place.size - 1)] ^= 1
        whole = bytes(block) if region in ("crc", "padding") else with_crc(bytes(block))
        image[at : at + BLOCK_BYTES] = whole
    return around_image(recipe, bytes(image))


def _unsigned(recipe: Recipe) -> bytes:
    image = recipe.release.image
    if not blocks_of(image):
        raise UsageError(
            f"{recipe.release.project_name} {recipe.release.version} is not signed for secure boot",
            todo="use a board whose profile has secure boot",
        )
    return image[: unsigned_length(image)]


# ---- a right package that something happened to ------------------------------------------------------------


def truncated(package: bytes, size_bytes: int) -> bytes:
    """The first `size_bytes` bytes. Expected: ``truncated``."""
    return package[:size_bytes]


def flipped(package: bytes, at_byte: int, bit: int = 0) -> bytes:
    """One bit inverted, nothing made good. Expected: ``body-hash`` in the body behind its first 288 bytes;
    in the header ``bad-signature``, but the fields that say how to read it have errors of their own
    (``bad-magic``, ``bad-header-version``, ``bad-header-size``)."""
    damaged = bytearray(package)
    damaged[at_byte] ^= 1 << bit
    return bytes(damaged)


def flipped_body(recipe: Recipe, at_byte: int, bit: int = 0) -> bytes:
    """One bit of the body inverted at `at_byte` of it, its hash and the signature made to fit.
    Expected: ``image-hash`` behind the first 288 bytes, before them ``not-deciphered``."""
    return _around(recipe, flipped(recipe.body(), at_byte, bit))


def unsigned(package: bytes) -> bytes:
    """Zeros where the signature belongs. Expected: ``bad-signature``."""
    return package[:SIGNED_BYTES] + bytes(SIGNATURE_BYTES) + package[HEADER_BYTES:]


def signed_by(package: bytes, sign: Sign) -> bytes:
    """The same package signed by somebody else. Expected: ``bad-signature``."""
    return patched(package, 0, b"", sign)


# ---- tools for further variants ----------------------------------------------------------------------------


def relabelled(package: bytes, sign: Sign, **fields: Any) -> bytes:
    """`package` with `fields` of its `PackageHeader` replaced, signed again; the body stays."""
    header, _, body = parse_package(package)
    if isinstance(fields.get("mac"), str):
        fields["mac"] = parse_mac(fields["mac"])
    return sealed(replace(header, **fields), body, sign)


def patched(package: bytes, at_byte: int, data: bytes, sign: Sign | None = None) -> bytes:
    """`data` written over `package` at `at_byte`; with `sign`, the header is signed again afterwards.

    For headers that `PackageHeader` cannot express: a wrong magic, header version, reserved field.
    """
    changed = package[:at_byte] + data + package[at_byte + len(data) :]
    if sign is None:
        return changed
    return changed[:SIGNED_BYTES] + sign(changed[:SIGNED_BYTES]) + changed[HEADER_BYTES:]


def _around(recipe: Recipe, body: bytes) -> bytes:
    return sealed(_header(recipe, body), body, recipe.sign)


def _header(recipe: Recipe, body: bytes) -> PackageHeader:
    return header_for(
        recipe.release, body, chip=recipe.chip, mac=recipe.mac, key=recipe.key, slot=recipe.slot
    )
