"""The OTA package: a 256-byte header and the ciphertext of an image, as one device's slot will hold it.

The header says for which device, slot, key and version the body is, so that the device refuses a wrong one
before it erases anything. Layout, little endian: firmware/components/raw_ota, ``raw_ota_package.h``.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from harness.chips import Cipher
from harness.errors import FormatError
from harness.formats.app_description import bytes_of, text_of
from harness.formats.flash_encryption import BLOCK_BYTES

PACKAGE_MAGIC = b"RAWOTA1\0"
HEADER_VERSION = 1
HEADER_BYTES = 256
SIGNED_BYTES = 192
SIGNATURE_BYTES = 64
KEY_ID_BYTES = 8
PLAINTEXT_CIPHER_NUMBER = 0
"""Number for a body that is not enciphered, for devices without flash encryption."""

_KEY_ID_PREFIX = b"esp32-secure-ota key id\0"
_LAYOUT = struct.Struct("<8sHHHBB6sH8sIIII32s32s32sI32s12s")
_KNOWN_CIPHER_NUMBERS = (0, *(cipher.number for cipher in Cipher))


def key_id_of(flash_key: bytes) -> bytes:
    """8 bytes that name a flash key without giving it away: the start of a SHA-256 over prefix and key."""
    return hashlib.sha256(_KEY_ID_PREFIX + flash_key).digest()[:KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class PackageHeader:
    """The signed part of a package's header. Sizes and offsets in bytes."""

    chip_id: int
    cipher_number: int
    """`harness.chips.Cipher.number`, or 0 for plaintext."""
    mac: bytes
    """The device's base MAC, 6 bytes in the order in which it is printed."""
    key_id: bytes
    """See `key_id_of`; zeros for plaintext."""
    slot_offset: int
    """Flash address for which the body was enciphered."""
    slot_size: int
    image_size: int
    """Of the plaintext, without padding."""
    body_size: int
    """Of the ciphertext: `image_size` rounded up to 16."""
    body_sha256: bytes
    image_sha256: bytes
    """Of the plaintext's `image_size` bytes."""
    version: str
    """At most 31 bytes, as in the application description."""
    secure_version: int
    project_name: str
    """At most 31 bytes."""

    def signed_part(self) -> bytes:
        """The first 192 bytes of the header, over whose SHA-256 the signature is made.

        Raises:
            FormatError: a value does not fit; names the field.
        """
        for field, value, size in (
            ("mac", self.mac, 6),
            ("key_id", self.key_id, KEY_ID_BYTES),
            ("body_sha256", self.body_sha256, 32),
            ("image_sha256", self.image_sha256, 32),
        ):
            if len(value) != size:
                raise FormatError(f"OTA package: {field} has {len(value)} bytes", todo=f"give {size}")
        try:
            return _LAYOUT.pack(
                PACKAGE_MAGIC,
                HEADER_VERSION,
                HEADER_BYTES,
                self.chip_id,
                self.cipher_number,
                0,
                self.mac,
                0,
                self.key_id,
                self.slot_offset,
                self.slot_size,
                self.image_size,
                self.body_size,
                self.body_sha256,
                self.image_sha256,
                bytes_of(self.version, 32, "OTA package: version"),
                self.secure_version,
                bytes_of(self.project_name, 32, "OTA package: project_name"),
                bytes(12),
            )
        except struct.error as error:
            raise FormatError(
                "OTA package: a number does not fit its field",
                todo="chip_id has 16 bits, cipher_number 8, offsets, sizes and secure_version 32",
            ) from error

    def to_bytes(self, signature: bytes) -> bytes:
        """The whole 256-byte header.

        Args:
            signature: ECDSA P-256 over SHA-256 of `signed_part`, r then s, 32 bytes each, big endian.

        Raises:
            FormatError: as `signed_part`, or a signature of another length.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise FormatError(
                f"OTA package: signature has {len(signature)} bytes", todo="give r and s, 32 bytes each"
            )
        return self.signed_part() + signature

    def check_body(self, body: bytes) -> None:
        """Demand that `body` is the one this header was made for.

        Raises:
            FormatError: length or SHA-256 differ.
        """
        if len(body) != self.body_size:
            raise FormatError(
                f"OTA package: body has {len(body)} bytes, body_size says {self.body_size}",
                todo="the package is truncated or has something appended: make or download it again",
            )
        if hashlib.sha256(body).digest() != self.body_sha256:
            raise FormatError(
                "OTA package: SHA-256 of the body differs from body_sha256",
                todo="the package is damaged: make or download it again",
            )


def parse_package(data: bytes) -> tuple[PackageHeader, bytes, bytes]:
    """Header, signature (64 bytes) and body of a package.

    Structure and lengths are checked; the signature and the body's hash are not (`PackageHeader.check_body`).

    Raises:
        FormatError: names offset and field.
    """
    data = bytes(data)
    header = parse_header(data)
    body = data[HEADER_BYTES:]
    if len(body) != header.body_size:
        raise FormatError(
            f"OTA package offset 44: body_size is {header.body_size}, but {len(body)} bytes follow",
            todo="the package is truncated or has something appended: make or download it again",
        )
    return header, data[SIGNED_BYTES:HEADER_BYTES], body


def parse_header(data: bytes) -> PackageHeader:
    """The header at the start of `data`, which must hold all 256 bytes of it.

    Raises:
        FormatError: names offset and field.
    """
    if len(data) < HEADER_BYTES:
        raise FormatError(
            f"OTA package has {len(data)} bytes, its header alone has {HEADER_BYTES}",
            todo="give the whole package",
        )
    fields = _LAYOUT.unpack_from(data)
    magic, header_version, header_size, chip_id, cipher_number, flags, mac, reserved = fields[:8]
    if magic != PACKAGE_MAGIC:
        raise FormatError(
            f"OTA package offset 0: magic is {magic.hex()}, expected {PACKAGE_MAGIC.hex()}",
            todo="give an OTA package; a bare ciphertext has no header",
        )
    if header_version != HEADER_VERSION:
        raise FormatError(
            f"OTA package offset 8: header_version is {header_version}, this release reads {HEADER_VERSION}",
            todo="use the release of this project that made the package, or a newer one",
        )
    for offset, field, found, expected in (
        (10, "header_size", header_size, HEADER_BYTES),
        (15, "flags", flags, 0),
        (22, "reserved", reserved, 0),
        (180, "reserved", int.from_bytes(fields[18], "little"), 0),
    ):
        if found != expected:
            raise _field_error(offset, field, f"{found:#x}", f"{expected:#x}")
    if cipher_number not in _KNOWN_CIPHER_NUMBERS:
        raise _field_error(14, "cipher", str(cipher_number), f"0..{_KNOWN_CIPHER_NUMBERS[-1]}")
    image_size, body_size = fields[11:13]
    if image_size == 0 or body_size != -(-image_size // BLOCK_BYTES) * BLOCK_BYTES:
        raise _field_error(
            44, "body_size", str(body_size), f"image_size ({image_size}) rounded up to 16, not zero"
        )
    return PackageHeader(
        chip_id=chip_id,
        cipher_number=cipher_number,
        mac=mac,
        key_id=fields[8],
        slot_offset=fields[9],
        slot_size=fields[10],
        image_size=image_size,
        body_size=body_size,
        body_sha256=fields[13],
        image_sha256=fields[14],
        version=text_of(fields[15]),
        secure_version=fields[16],
        project_name=text_of(fields[17]),
    )


def _field_error(offset: int, field: str, found: str, expected: str) -> FormatError:
    return FormatError(
        f"OTA package offset {offset}: {field} is {found}, expected {expected}", todo="make the package again"
    )
