"""Secure boot v2 signatures: the sector behind a signed image, its blocks, and the digest of a public key.

Layout: ``ets_secure_boot_sig_block_t`` of ESP-IDF's ROM headers. The signed content is filled with 0xFF to 4096; the
sector that follows has up to three blocks of 1216 bytes, then 0xFF. Numbers lie little endian, as the chips' RSA and
ECC units take them. What eFuses hold of a key is the SHA-256 of its bytes in the block.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

from harness.chips import SigningScheme
from harness.errors import FormatError
from harness.formats.app_image import parse_app_image

SECTOR_BYTES = 0x1000
"""Content is signed in whole sectors, and the signatures have one of their own."""

BLOCK_BYTES = 1216
BLOCKS = 3
MAGIC = 0xE7
_VERSION_RSA, _VERSION_ECDSA = 2, 3
_RSA_KEY = struct.Struct("<384sI384sI")
_RSA_BITS = 3072
_PSS_SALT_BYTES = 32
_CRC_AT = 1196

_NO_KEY = (ValueError, UnsupportedAlgorithm, InternalError)
"""What the library raises at a PEM that holds no key it knows."""

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Region:
    """One field of a block: its offset and length, in bytes."""

    offset: int
    size: int

    def of(self, block: bytes) -> bytes:
        """The field's bytes in `block`."""
        return block[self.offset : self.offset + self.size]


@dataclass(frozen=True, slots=True)
class _Layout:
    """What differs from scheme to scheme."""

    version: int
    sha_number: int
    digest: Region
    key: Region
    signature: Region
    number_bytes: int
    """Length of n and of the signature for RSA; of x, y, r and s for ECDSA."""
    curve_number: int = 0
    curve: type[ec.EllipticCurve] | None = None


_LAYOUTS: Mapping[SigningScheme, _Layout] = {
    SigningScheme.RSA_3072: _Layout(
        _VERSION_RSA, 0, Region(4, 32), Region(36, 776), Region(812, 384), _RSA_BITS // 8
    ),
    SigningScheme.ECDSA_P192: _Layout(
        _VERSION_ECDSA, 0, Region(4, 32), Region(36, 65), Region(101, 64), 24, 1, ec.SECP192R1
    ),
    SigningScheme.ECDSA_P256: _Layout(
        _VERSION_ECDSA, 0, Region(4, 32), Region(36, 65), Region(101, 64), 32, 2, ec.SECP256R1
    ),
    SigningScheme.ECDSA_P384: _Layout(
        _VERSION_ECDSA, 1, Region(4, 48), Region(52, 97), Region(149, 96), 48, 3, ec.SECP384R1
    ),
}


def regions(scheme: SigningScheme) -> Mapping[str, Region]:
    """The fields of a block by name: magic, version, image digest, public key, signature, crc, padding.

    ``padding`` is the 16 bytes behind the CRC, which it does not cover and nobody reads.
    """
    layout = _LAYOUTS[scheme]
    return {
        "magic": Region(0, 1),
        "version": Region(1, 1),
        "image digest": layout.digest,
        "public key": layout.key,
        "signature": layout.signature,
        "crc": Region(_CRC_AT, 4),
        "padding": Region(_CRC_AT + 4, BLOCK_BYTES - _CRC_AT - 4),
    }


@dataclass(frozen=True, slots=True)
class SignatureBlock:
    """One signature in the sector. Whether it is right is another question: see `fault`."""

    index: int
    """Place in the sector, 0..2."""
    scheme: SigningScheme
    image_digest: bytes
    """Of the signed content: SHA-256, 32 bytes; SHA-384, 48 bytes, with P-384."""
    public_key: bytes = field(repr=False)
    """As it lies in the block, and as it is hashed for eFuse."""
    signature: bytes = field(repr=False)
    """As it lies in the block: numbers little endian."""
    crc_ok: bool

    @property
    def key_digest(self) -> bytes:
        """SHA-256 of the public key as ROM and espsecure make it; ESP32-C2 burns its first 16 bytes only."""
        return hashlib.sha256(self.public_key).digest()

    @property
    def key(self) -> PublicKey | None:
        """The public key; None when its bytes are not one of the scheme."""
        layout = _LAYOUTS[self.scheme]
        try:
            if layout.curve is None:
                modulus, exponent, _, _ = _RSA_KEY.unpack(self.public_key)
                found: PublicKey = rsa.RSAPublicNumbers(
                    exponent, int.from_bytes(modulus, "little")
                ).public_key()
            else:
                point = self.public_key[1:]
                found = ec.EllipticCurvePublicNumbers(
                    *_two_numbers(point, layout), layout.curve()
                ).public_key()
            # R² and m' are derived from n, and the chip computes with them.
            return found if encode_public_key(found) == self.public_key else None
        except (ValueError, FormatError):
            return None

    def fault(self, content: bytes) -> str | None:
        """Why this is no good signature of `content` (whole sectors); None when it is one, whoever made it."""
        if not self.crc_ok:
            return "the block's CRC does not fit"
        if self.image_digest != image_digest(self.scheme, content):
            return "it is of another content: the image digest differs"
        key = self.key
        if key is None:
            return f"its public key is no {self.scheme.value} key"
        return None if _verifies(self, key) else "the signature does not verify with the block's own key"


def signature_blocks(sector: bytes) -> tuple[SignatureBlock, ...]:
    """The blocks in a signature sector, by place; what has another magic or version is none, as for the ROM.

    Raises:
        FormatError: it is shorter than three blocks.
    """
    if len(sector) < BLOCKS * BLOCK_BYTES:
        raise FormatError(
            f"signature sector has {len(sector)} bytes, its blocks alone {BLOCKS * BLOCK_BYTES}",
            todo="give the whole signed image",
        )
    found = []
    for index in range(BLOCKS):
        block = sector[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]
        scheme = _scheme_of_block(block)
        if scheme is None:
            continue
        layout = _LAYOUTS[scheme]
        stored = int.from_bytes(block[_CRC_AT : _CRC_AT + 4], "little")
        found.append(
            SignatureBlock(
                index,
                scheme,
                layout.digest.of(block),
                layout.key.of(block),
                layout.signature.of(block),
                crc_ok=stored == zlib.crc32(block[:_CRC_AT]),
            )
        )
    return tuple(found)


def unsigned_length(image: bytes) -> int:
    """How much of `image` a signature covers: app or bootloader, filled to whole sectors. In bytes.

    Raises:
        FormatError: no image, or a broken one.
    """
    return -(-parse_app_image(image).size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def signed_length(image: bytes) -> int:
    """Length of `image` with its signature sector, whether it has one yet or not. In bytes."""
    return unsigned_length(image) + SECTOR_BYTES


def blocks_of(image: bytes) -> tuple[SignatureBlock, ...]:
    """The signature blocks behind an app or a bootloader; none where it is unsigned. More may follow it.

    Raises:
        FormatError: no image, or a broken one.
    """
    start = unsigned_length(image)
    sector = image[start : start + SECTOR_BYTES]
    return signature_blocks(sector) if len(sector) == SECTOR_BYTES else ()


def verify(image: bytes) -> tuple[SignatureBlock, ...]:
    """The blocks of a signed app or bootloader whose CRC, image digest and signature are all right.

    Whether their keys are trusted is for the caller to compare (`SignatureBlock.key_digest`).

    Raises:
        FormatError: no image, or a broken one.
    """
    content = image[: unsigned_length(image)]
    return tuple(block for block in blocks_of(image) if block.fault(content) is None)


def image_digest(scheme: SigningScheme, content: bytes) -> bytes:
    """What is signed of `content`: its SHA-256, or SHA-384 with P-384."""
    algorithm = hashlib.sha384 if scheme is SigningScheme.ECDSA_P384 else hashlib.sha256
    return algorithm(content).digest()


def make_block(public_key: PublicKey, content: bytes, signature: bytes) -> bytes:
    """The block that holds `signature` over `content`, whatever either is worth.

    Args:
        public_key: of the signer; decides the scheme.
        content: whole sectors.
        signature: RSA-PSS (SHA-256, salt of 32 bytes) as 384 bytes, big endian; ECDSA in DER.

    Raises:
        FormatError: a key that secure boot v2 does not know, or a signature of another form.
    """
    scheme = scheme_of(public_key)
    layout = _LAYOUTS[scheme]
    body = bytearray(_CRC_AT)
    body[:4] = bytes([MAGIC, layout.version, layout.sha_number, 0])
    parts = (
        (layout.digest, image_digest(scheme, content)),
        (layout.key, encode_public_key(public_key)),
        (layout.signature, _encode_signature(signature, layout)),
    )
    for region, data in parts:
        body[region.offset : region.offset + region.size] = data
    return with_crc(bytes(body))


def with_crc(block: bytes) -> bytes:
    """`block` with the CRC that its first 1196 bytes have, and zeros behind it."""
    body = block[:_CRC_AT]
    return (body + zlib.crc32(body).to_bytes(4, "little")).ljust(BLOCK_BYTES, b"\0")


def make_sector(blocks: list[bytes]) -> bytes:
    """The signature sector of these blocks.

    Raises:
        FormatError: more than three, or one of another length.
    """
    if not 1 <= len(blocks) <= BLOCKS or any(len(block) != BLOCK_BYTES for block in blocks):
        raise FormatError(
            f"a signature sector takes 1 to {BLOCKS} blocks of {BLOCK_BYTES} bytes, not {len(blocks)}",
            todo="give as many keys as the chip takes signatures",
        )
    return b"".join(blocks).ljust(SECTOR_BYTES, b"\xff")


class UnknownSchemeError(FormatError):
    """A key that secure boot v2 does not sign with."""


def scheme_of(public_key: PublicKey) -> SigningScheme:
    """The scheme whose key this is.

    Raises:
        FormatError: secure boot v2 knows no such keys.
    """
    if isinstance(public_key, rsa.RSAPublicKey):
        if public_key.key_size == _RSA_BITS:
            return SigningScheme.RSA_3072
        found = f"RSA with {public_key.key_size} bits"
    else:
        for scheme, layout in _LAYOUTS.items():
            if layout.curve is not None and isinstance(public_key.curve, layout.curve):
                return scheme
        found = f"a key on {public_key.curve.name}"
    known = ", ".join(scheme.value for scheme in SigningScheme)
    raise UnknownSchemeError(f"secure boot v2 does not sign with {found}", todo=f"use one of: {known}")


def encode_public_key(public_key: PublicKey) -> bytes:
    """The key as it lies in a block: RSA n, e, R² mod n, m'; ECDSA curve number and point. All little endian.

    Raises:
        FormatError: see `scheme_of`.
    """
    layout = _LAYOUTS[scheme_of(public_key)]
    if isinstance(public_key, rsa.RSAPublicKey):
        numbers = public_key.public_numbers()
        r_squared = pow(2, 2 * _RSA_BITS, numbers.n)
        m_prime = -pow(numbers.n, -1, 1 << 32) % (1 << 32)
        return _RSA_KEY.pack(
            numbers.n.to_bytes(layout.number_bytes, "little"),
            numbers.e,
            r_squared.to_bytes(layout.number_bytes, "little"),
            m_prime,
        )
    point = public_key.public_numbers()
    data = b"".join(number.to_bytes(layout.number_bytes, "little") for number in (point.x, point.y))
    return bytes([layout.curve_number]) + data.ljust(layout.key.size - 1, b"\0")


def key_digest(public_key: PublicKey) -> bytes:
    """SHA-256 of the key as it lies in a block: what eFuses are compared with. 32 bytes.

    Raises:
        FormatError: see `scheme_of`.
    """
    return hashlib.sha256(encode_public_key(public_key)).digest()


def read_public_key(pem: bytes, *, name: str = "the key") -> PublicKey:
    """The public key in a PEM file, or that of the private key in it; `name` is what messages call it.

    Raises:
        FormatError: no such key, an enciphered one, or one that secure boot v2 does not know.
    """
    if is_private(pem):
        return read_private_key(pem, name=name).public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except _NO_KEY:
        raise _no_pem(name) from None
    if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)):
        raise _wrong_kind(key, name)
    _require_known(key, name)
    return key


def read_private_key(pem: bytes, *, name: str = "the key") -> PrivateKey:
    """The private key in a PEM file; `name` is what messages call it, which never quote the file.

    Raises:
        FormatError: no such key, an enciphered one, or one that secure boot v2 does not know.
    """
    if not is_private(pem):
        raise FormatError(
            f"{name} is no private key in PEM form", todo="give an RSA-3072 or ECDSA private key"
        )
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise FormatError(
            f"{name} is enciphered with a passphrase",
            todo="decipher it, and bring it into the vault, which enciphers it again: harness vault boot-key import",
        ) from None
    except _NO_KEY:
        raise _no_pem(name) from None
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise _wrong_kind(key, name)
    _require_known(key.public_key(), name)
    return key


def is_private(pem: bytes) -> bool:
    """Whether a PEM file holds a private key."""
    return b"PRIVATE KEY-----" in pem


def _no_pem(name: str) -> FormatError:
    # What the library says of it may quote the file.
    return FormatError(f"{name} is no key in PEM form", todo="give a signing key of secure boot v2 as PEM")


def _wrong_kind(key: object, name: str) -> UnknownSchemeError:
    kind = type(key).__name__.lstrip("_").removesuffix("PrivateKey").removesuffix("PublicKey")
    return UnknownSchemeError(f"{name} is a key for {kind}", todo="give an RSA-3072 or ECDSA key")


def _require_known(key: PublicKey, name: str) -> None:
    try:
        scheme_of(key)
    except UnknownSchemeError as error:
        raise UnknownSchemeError(f"{name}: {error.message}", todo=error.todo) from None


def _scheme_of_block(block: bytes) -> SigningScheme | None:
    for scheme, layout in _LAYOUTS.items():
        if block[0] != MAGIC or block[1] != layout.version:
            continue
        if layout.curve is None:
            return scheme
        if block[2] == layout.sha_number and block[layout.key.offset] == layout.curve_number:
            return scheme
    return None


def _two_numbers(data: bytes, layout: _Layout) -> tuple[int, int]:
    size = layout.number_bytes
    return int.from_bytes(data[:size], "little"), int.from_bytes(data[size : 2 * size], "little")


def _verifies(block: SignatureBlock, key: PublicKey) -> bool:
    layout = _LAYOUTS[block.scheme]
    try:
        if isinstance(key, rsa.RSAPublicKey):
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_PSS_SALT_BYTES)
            key.verify(block.signature[::-1], block.image_digest, pss, Prehashed(hashes.SHA256()))
        else:
            der = encode_dss_signature(*_two_numbers(block.signature, layout))
            algorithm = hashes.SHA384() if block.scheme is SigningScheme.ECDSA_P384 else hashes.SHA256()
            key.verify(der, block.image_digest, ec.ECDSA(Prehashed(algorithm)))
    except InvalidSignature:
        return False
    return True


def _encode_signature(signature: bytes, layout: _Layout) -> bytes:
    size = layout.number_bytes
    if layout.curve is None:
        if len(signature) != size:
            raise FormatError(f"an RSA-3072 signature has {size} bytes, this one {len(signature)}")
        return signature[::-1]
    try:
        r, s = decode_dss_signature(signature)
        data = r.to_bytes(size, "little") + s.to_bytes(size, "little")
    except (ValueError, OverflowError) as error:
        raise FormatError("the ECDSA signature is not r and s in DER") from error
    return data.ljust(layout.signature.size, b"\0")
