"""One version of an application, and the bytes that carry it to one slot of one device.

Pure, but for `read_release`, which opens a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from harness.chips import Chip, chip_with_id
from harness.errors import FormatError, UsageError
from harness.formats.app_description import AppDescription
from harness.formats.app_image import AppImage, parse_app_image
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.formats.ota_package import (
    HEADER_BYTES,
    KEY_ID_BYTES,
    PLAINTEXT_CIPHER_NUMBER,
    SIGNATURE_BYTES,
    SIGNED_BYTES,
    PackageHeader,
    key_id_of,
)
from harness.formats.partition import Partition
from harness.ota.mac_address import parse_mac

FLASH_CRYPT_CONFIG = 0xF
"""All key bits are tweaked: what a provisioning plan burns on ESP32, and what other chips always do."""

_INTEGER_BYTES = SIGNATURE_BYTES // 2

Sign = Callable[[bytes], bytes]
"""Takes what is to be signed (not its hash) and returns r then s, 32 bytes each, big endian (ECDSA P-256)."""


@dataclass(frozen=True, slots=True)
class Release:
    """An intact application image and what it says of itself."""

    image: bytes = field(repr=False)
    """The whole file: with secure boot its signature block, too."""
    parsed: AppImage = field(repr=False)
    description: AppDescription = field(repr=False)

    @property
    def version(self) -> str:
        return self.description.version

    @property
    def project_name(self) -> str:
        return self.description.project_name

    @property
    def secure_version(self) -> int:
        return self.description.secure_version

    @property
    def sha256(self) -> bytes:
        """Of the whole file."""
        return hashlib.sha256(self.image).digest()

    def __repr__(self) -> str:
        return f"<Release {self.project_name} {self.version}, {len(self.image)} bytes>"


def parse_release(image: bytes, *, name: str = "the image") -> Release:
    """The release in `image`; `name` is what messages call it.

    Raises:
        FormatError: not an image, damaged, without a description, or without an appended SHA-256, which the
            device demands.
    """
    try:
        parsed = parse_app_image(image)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", todo=error.todo) from error
    rebuild = "build the application again, and give the .bin that is flashed at an app slot"
    if not parsed.is_intact:
        what = "SHA-256" if parsed.checksum_ok else "checksum"
        raise FormatError(f"{name}: its {what} does not match its content", todo=rebuild)
    if parsed.description is None:
        raise FormatError(f"{name}: no application description at offset 0x20", todo=rebuild)
    if not parsed.hash_appended:
        raise FormatError(f"{name}: no SHA-256 is appended (hash_appended is 0)", todo=rebuild)
    return Release(bytes(image), parsed, parsed.description)


def read_release(path: Path) -> Release:
    """The release in the file `path`.

    Raises:
        UsageError: the file cannot be read. FormatError: see `parse_release`.
    """
    try:
        image = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"application image {path} cannot be read: {error.strerror}", todo="build the application first"
        ) from error
    return parse_release(image, name=str(path))


def make_body(release: Release, *, chip: Chip, key: bytes | None, slot: Partition) -> bytes:
    """What must lie in flash at `slot`: the image padded with 0xFF to 16 and enciphered with `key`.

    Byte for byte what ``write-flash`` puts there, so it can be sent as a bare bin. Without a key (a device
    without flash encryption) it stays plaintext.

    Raises:
        UsageError: wrong chip, no OTA slot, image larger than the slot, or a key of another length.
    """
    _check_fits(release, chip, slot)
    return encipher_for_slot(release.image, chip=chip, key=key, slot=slot)


def make_package(
    release: Release, *, chip: Chip, mac: str | bytes, key: bytes | None, slot: Partition, sign: Sign
) -> bytes:
    """The OTA package that brings `release` into `slot` of the device `mac`: header, signature, body.

    Raises:
        UsageError: see `make_body`; also a MAC that is none, or a signature of another length.
    """
    body = make_body(release, chip=chip, key=key, slot=slot)
    header = header_for(release, body, chip=chip, mac=mac, key=key, slot=slot)
    return sealed(header, body, sign)


def header_for(
    release: Release, body: bytes, *, chip: Chip, mac: str | bytes, key: bytes | None, slot: Partition
) -> PackageHeader:
    """The header that describes `body` as `release` for that slot and device."""
    return PackageHeader(
        chip_id=chip.chip_id,
        cipher_number=PLAINTEXT_CIPHER_NUMBER if key is None else chip.cipher.number,
        mac=parse_mac(mac),
        key_id=bytes(KEY_ID_BYTES) if key is None else key_id_of(key),
        slot_offset=slot.offset,
        slot_size=slot.size,
        image_size=len(release.image),
        body_size=len(body),
        body_sha256=hashlib.sha256(body).digest(),
        image_sha256=release.sha256,
        version=release.version,
        secure_version=release.secure_version,
        project_name=release.project_name,
    )


def encipher_for_slot(plaintext: bytes, *, chip: Chip, key: bytes | None, slot: Partition) -> bytes:
    """`plaintext` padded and enciphered for the place where `slot` begins, whatever it is and says.

    Raises:
        UsageError: a key of another length than the chip's cipher takes.
    """
    padded = pad_to_block(plaintext)
    if key is None:
        return padded
    if len(key) != chip.cipher.key_size_bytes:
        raise UsageError(
            f"a flash key for {chip.title} has {chip.cipher.key_size_bytes} bytes, this one {len(key)}",
            todo="take the key from the device's record",
        )
    return encrypt(chip.cipher, key, slot.offset, padded, flash_crypt_config=FLASH_CRYPT_CONFIG)


def sealed(header: PackageHeader, body: bytes, sign: Sign) -> bytes:
    """The package of `header`, signed now, and `body`."""
    return header.to_bytes(sign(header.signed_part())) + body


def signer(private_key: ec.EllipticCurvePrivateKey) -> Sign:
    """Signs with a P-256 key at hand; a key in a token brings a `Sign` of its own.

    Raises:
        UsageError: another curve.
    """
    if not isinstance(private_key.curve, ec.SECP256R1):
        raise UsageError(
            f"OTA packages are signed on P-256, this key is on {private_key.curve.name}",
            todo="make a P-256 key",
        )

    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(private_key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(_INTEGER_BYTES, "big") + s.to_bytes(_INTEGER_BYTES, "big")

    return sign


def signature_is_good(package: bytes, public_key: bytes) -> bool:
    """Whether the header's signature is that of `public_key`, an uncompressed P-256 point of 65 bytes.

    Raises:
        UsageError: that is no such point. FormatError: the package is shorter than its header.
    """
    if len(package) < HEADER_BYTES:
        raise FormatError(f"OTA package has {len(package)} bytes, its header alone has {HEADER_BYTES}")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    except ValueError as error:
        raise UsageError("the public key is not a point on P-256", todo="give 0x04, X and Y") from error
    signature = package[SIGNED_BYTES:HEADER_BYTES]
    r, s = (int.from_bytes(half, "big") for half in (signature[:_INTEGER_BYTES], signature[_INTEGER_BYTES:]))
    try:
        key.verify(encode_dss_signature(r, s), package[:SIGNED_BYTES], ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _check_fits(release: Release, chip: Chip, slot: Partition) -> None:
    if release.parsed.chip_id != chip.chip_id:
        made_for = chip_with_id(release.parsed.chip_id)
        found = made_for.title if made_for is not None else f"chip id {release.parsed.chip_id}"
        raise UsageError(
            f"release {release.version} is built for {found}, the device is {chip.title}",
            todo=f"build the application for {chip.name}",
        )
    if not slot.is_ota_slot:
        raise UsageError(
            f"partition '{slot.label}' is not an OTA slot",
            todo="give one of type app, subtype ota_0, ota_1, …",
        )
    padded_bytes = len(pad_to_block(release.image))
    if padded_bytes > slot.size:
        raise UsageError(
            f"release {release.version} has {padded_bytes} bytes, slot '{slot.label}' holds {slot.size}",
            todo="make the image smaller or the slots larger",
        )
