"""Secure boot v2 signatures as the chips verify them: signature sector, ROM routine, trusted digests.

The host's reader and maker of signature blocks is not used here, so that an error on one side shows. What a block
is refused for, in which order and with which line was read in the mask ROMs of ESP32 (revision 3) and ESP32-C3 and
tried on them in QEMU, one damage after the other. Other chips are taken to do as ESP32-C3, which is of the same
family; ECDSA was not seen.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from harness.chips import CURVES_BY_MODE, KEY_PURPOSE_NUMBERS, Chip, SigningScheme
from harness.twin.security import FuseReader, block_with_purpose

SECTOR_BYTES = 0x1000
BLOCK_BYTES = 1216
BLOCKS_PER_SECTOR = 3
CRC_BYTES = 1196
"""The CRC covers everything before it, reserved and unused bytes too; 16 bytes after it are looked at by nobody."""
MAGIC = 0xE7
VERSION_RSA = 2
VERSION_ECDSA = 3

_BLOCKS_OF_ROM = {"esp32": BLOCKS_PER_SECTOR}
"""How many blocks a ROM looks at where that is more than `SecureBootFuses.signature_blocks`: ESP-IDF's code and
Espressif's page know one on ESP32, its ROM goes through all three (tried)."""
_SHA_384 = 1
_RSA_BYTES = 384
_SALT_BYTES = 32
_PSS_TRAILER = 0xBC
# mbedtls/rsa.h; the first with MBEDTLS_ERR_MPI_BAD_INPUT_DATA added.
_ERR_RSA_PUBLIC_FAILED = -0x4284
_ERR_RSA_BAD_INPUT_DATA = -0x4080
_ERR_RSA_INVALID_PADDING = -0x4100
_ERR_RSA_VERIFY_FAILED = -0x4380
_SHORT_CRC = "Sig block {index} invalid: Stored CRC ends 0x{stored:04x} calculated ends 0x{calculated:04x}"
_LONG_CRC = "Sig block {index} invalid: Stored CRC 0x{stored:08x} calculated 0x{calculated:08x}"


@dataclass(frozen=True, slots=True)
class Curve:
    """One curve and where its block keeps what."""

    id: int
    scheme: SigningScheme
    number_bytes: int
    """Of a coordinate, and of r and s."""
    point_bytes: int
    """Room for X and Y; on P-192 the last 16 bytes are zero."""
    digest_bytes: int
    """Of the image: SHA-256, or SHA-384."""

    @property
    def key_at(self) -> int:
        return 4 + self.digest_bytes

    @property
    def signature_at(self) -> int:
        return self.key_at + 1 + self.point_bytes


CURVES = (
    Curve(1, SigningScheme.ECDSA_P192, 24, 64, 32),
    Curve(2, SigningScheme.ECDSA_P256, 32, 64, 32),
    Curve(3, SigningScheme.ECDSA_P384, 48, 96, 48),
)


@dataclass(frozen=True, slots=True)
class ImageDigest:
    """What is signed: an image with its padding to a sector. `read` gives it again for a digest other than SHA-256."""

    sha256: bytes
    read: Callable[[], bytes]

    @classmethod
    def of(cls, image: bytes) -> ImageDigest:
        return cls(hashlib.sha256(image).digest(), lambda: image)

    def of_length(self, size_bytes: int) -> bytes:
        """SHA-256 (32 bytes) or SHA-384 (48)."""
        return self.sha256 if size_bytes == 32 else hashlib.sha384(self.read()).digest()


@dataclass(frozen=True, slots=True)
class SignatureBlock:
    """One block of the sector, whatever its bytes are."""

    data: bytes

    @property
    def magic(self) -> int:
        return self.data[0]

    @property
    def version(self) -> int:
        return self.data[1]

    @property
    def stored_crc(self) -> int:
        return int.from_bytes(self.data[CRC_BYTES : CRC_BYTES + 4], "little")

    @property
    def computed_crc(self) -> int:
        return zlib.crc32(self.data[:CRC_BYTES])

    @property
    def modulus(self) -> int:
        return int.from_bytes(self.data[36:420], "little")

    @property
    def exponent(self) -> int:
        return int.from_bytes(self.data[420:424], "little")

    @property
    def rsa_signature(self) -> bytes:
        """Big endian, as everybody but the chip's accelerator writes it."""
        return self.data[812:CRC_BYTES][::-1]

    def curve(self, chip: Chip) -> Curve | None:
        """The curve of an ECDSA block, among those of the chip.

        P-384 has a longer image digest, so its id lies elsewhere: a chip that knows it goes by byte 2.
        """
        own = [curve for curve in CURVES if curve.scheme in chip.secure_boot.schemes]
        longest = max((curve.digest_bytes for curve in own), default=32)
        size = longest if self.data[2] == _SHA_384 else 32
        fitting = (curve for curve in own if curve.digest_bytes == size)
        return next((curve for curve in fitting if self.data[curve.key_at] == curve.id), None)

    def is_rsa(self, chip: Chip) -> bool:
        """Whether the chip takes this block for an RSA one: a ROM that knows nothing else does not ask."""
        if all(scheme.is_rsa for scheme in chip.secure_boot.schemes):
            return True
        return self.version == VERSION_RSA and SigningScheme.RSA_3072 in chip.secure_boot.schemes

    def image_digest(self, chip: Chip) -> bytes:
        curve = None if self.is_rsa(chip) else self.curve(chip)
        return self.data[4 : 4 + (curve.digest_bytes if curve is not None else 32)]

    def key_digest(self, chip: Chip) -> bytes:
        """SHA-256 of the public key as the block carries it, whole."""
        if self.is_rsa(chip):
            return hashlib.sha256(self.data[36:812]).digest()
        curve = self.curve(chip) or CURVES[1]
        return hashlib.sha256(self.data[curve.key_at : curve.signature_at]).digest()

    def verifies(self, chip: Chip, image: ImageDigest, *, by_hardware: bool = True) -> bool:
        """Whether the signature is the key's over the digest of `image`.

        `by_hardware` is the ROM's way: the RSA accelerator calculates with R squared and m' from the block, and the
        salt has 32 bytes. Mbed TLS, which an application uses, works them out itself and takes any salt.
        """
        if self.is_rsa(chip):
            if by_hardware and not _montgomery_fits(self.data[36:812]):
                return False
            return _rsa_verifies(self.modulus, self.exponent, self.rsa_signature, image.sha256, by_hardware)
        curve = self.curve(chip)
        if curve is None or self.version != VERSION_ECDSA:
            return False
        at, size = curve.signature_at, curve.number_bytes
        return _ecdsa_verifies(
            curve,
            self.data[curve.key_at + 1 : curve.key_at + 1 + 2 * size],
            self.data[at : at + 2 * size],
            image.of_length(curve.digest_bytes),
        )


def blocks_of(sector: bytes) -> tuple[SignatureBlock, ...]:
    """The three places of a signature sector; what the sector lacks is taken as erased."""
    padded = sector.ljust(SECTOR_BYTES, b"\xff")
    return tuple(
        SignatureBlock(padded[at : at + BLOCK_BYTES])
        for at in range(0, BLOCKS_PER_SECTOR * BLOCK_BYTES, BLOCK_BYTES)
    )


# What is trusted


def trusted_digests(efuses: FuseReader) -> tuple[bytes | None, ...]:
    """One digest per slot, as software reads it; None for a slot that is revoked or has no block.

    A read-protected block reads as zeros: it counts as a key, and no key has that digest.
    """
    fuses = efuses.chip.secure_boot
    if fuses.digest_block is not None:
        return (_content(efuses, fuses.digest_block, fuses.digest_size_bytes),)
    return tuple(
        None if efuses.field(revoke) else _digest_with(efuses, purpose)
        for revoke, purpose in zip(fuses.revoke, fuses.digest_purposes, strict=True)
    )


def _digest_with(efuses: FuseReader, purpose: str) -> bytes | None:
    # The first block with the purpose, also when another one has it, too.
    block = block_with_purpose(efuses, KEY_PURPOSE_NUMBERS[purpose])
    return None if block is None else _content(efuses, block, efuses.chip.secure_boot.digest_size_bytes)


def _content(efuses: FuseReader, block: str, size_bytes: int) -> bytes:
    """The digest is what the block ends with: all of it, or the upper half (ESP32-C2)."""
    return efuses.block_for_software(block)[-size_bytes:]


def usable_curves(efuses: FuseReader) -> tuple[SigningScheme, ...] | None:
    """The curves that the hardware calculates on, where a fuse decides (ESP32-H2); None: all that the chip has."""
    fuse = efuses.chip.secure_boot.curve_mode
    return None if fuse is None else CURVES_BY_MODE[efuses.field(fuse)]


# The ROM's routine


@dataclass(frozen=True, slots=True)
class RomVerdict:
    """What ``ets_secure_boot_verify_signature`` found."""

    accepted: bool
    lines: tuple[str, ...]
    """What it printed on the way."""


def verify_as_rom(
    chip: Chip,
    sector: bytes,
    image: ImageDigest,
    trusted: Sequence[bytes | None],
    *,
    sha384: bool | None = None,
    curves: Collection[SigningScheme] | None = None,
    revoke: Callable[[int], tuple[str, ...]] | None = None,
) -> RomVerdict:
    """Verify a signature sector against the digests in `trusted`, None for an empty slot.

    `sha384` is the fuse that decides over which digest of an image is signed; None: the block decides.
    `curves` are those that the hardware calculates on; None: all that the chip has.
    `revoke` is called with the slot when a trusted key's signature does not verify, and returns what it printed.
    """
    blocks, purposes = blocks_of(sector), chip.secure_boot.digest_purposes
    if blocks[0].magic != MAGIC:
        found = f"(found 0x{blocks[0].magic:x} not 0x{MAGIC:x})"
        line = f"No signature block magic byte found at signature sector {found}. Image not V2 signed?"
        return RomVerdict(False, (line,))
    if purposes and all(digest is None for digest in trusted):
        return RomVerdict(False, ("No trusted signatures",))
    lines: list[str] = []
    looked_at = _BLOCKS_OF_ROM.get(chip.name, chip.secure_boot.signature_blocks)
    for index, block in enumerate(blocks[:looked_at]):
        if block.magic != MAGIC:
            continue
        fault = _fault_before_key(chip, index, block, image, sha384)
        if fault is not None:
            lines.append(fault)
            continue
        digest = block.key_digest(chip)
        slot = next((i for i, known in enumerate(trusted) if known and digest.startswith(known)), None)
        if slot is None:
            lines.append(f"Sig block {index} signed with untrusted key")
            continue
        if _calculates(chip, block, curves) and block.verifies(chip, image):
            return RomVerdict(True, tuple(lines))
        if block.is_rsa(chip):
            lines.append("Signature Check Failed")
        lines.append(f"Sig block {index} signature verification failed")
        if revoke is not None:
            lines += revoke(slot)
    return RomVerdict(False, tuple(lines))


def _calculates(chip: Chip, block: SignatureBlock, curves: Collection[SigningScheme] | None) -> bool:
    curve = None if block.is_rsa(chip) else block.curve(chip)
    return curves is None or curve is None or curve.scheme in curves


def _fault_before_key(
    chip: Chip, index: int, block: SignatureBlock, image: ImageDigest, sha384: bool | None
) -> str | None:
    stored, calculated = block.stored_crc, block.computed_crc
    if stored != calculated:
        if not chip.secure_boot.digest_purposes:
            return _LONG_CRC.format(index=index, stored=stored, calculated=calculated)
        return _SHORT_CRC.format(index=index, stored=stored & 0xFFFF, calculated=calculated & 0xFFFF)
    claimed = block.image_digest(chip)
    unwanted = sha384 is not None and sha384 != (len(claimed) != len(image.sha256))
    if unwanted or claimed != image.of_length(len(claimed)):
        return f"Sig block {index} invalid: Image digest does not match"
    return None


# Arithmetic


@lru_cache(maxsize=16)
def _montgomery_fits(key: bytes) -> bool:
    """Whether R squared mod n and -1/n mod 2^32 of an RSA key (n, e, R squared, m') are what the modulus demands."""
    n = int.from_bytes(key[:_RSA_BYTES], "little")
    if n % 2 == 0:
        return False
    r_squared = int.from_bytes(key[388:772], "little")
    m_prime = int.from_bytes(key[772:776], "little")
    return r_squared == pow(2, 2 * 8 * _RSA_BYTES, n) and m_prime == -pow(n, -1, 1 << 32) % (1 << 32)


def _rsa_verifies(n: int, e: int, signature: bytes, digest: bytes, fixed_salt: bool) -> bool:
    """RSA-PSS with SHA-256; `fixed_salt`: the salt has 32 bytes."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

    salt = _SALT_BYTES if fixed_salt else padding.PSS.AUTO
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=salt)
    try:
        rsa.RSAPublicNumbers(e, n).public_key().verify(signature, digest, pss, Prehashed(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def pss_fault(block: SignatureBlock) -> str:
    """What Mbed TLS says of an RSA signature that does not verify: its error tells padding from digest."""
    n, signature = block.modulus, int.from_bytes(block.rsa_signature, "big")
    if signature >= n:
        return f"mbedtls_rsa_public failed, err: {_ERR_RSA_PUBLIC_FAILED}"
    message = pow(signature, block.exponent, n).to_bytes(_RSA_BYTES, "big")
    error = _ERR_RSA_VERIFY_FAILED
    if message[-1] != _PSS_TRAILER:
        error = _ERR_RSA_INVALID_PADDING
    elif message[0] >> 7:
        error = _ERR_RSA_BAD_INPUT_DATA
    elif not _is_padded(message):
        error = _ERR_RSA_INVALID_PADDING
    return f"Failed mbedtls_rsa_rsassa_pss_verify, err: {error}"


def _is_padded(message: bytes) -> bool:
    """Whether the unmasked block is zeros, then a 1 (EMSA-PSS, RFC 8017)."""
    masked, seed = message[:-33], message[-33:-1]
    mask = b"".join(hashlib.sha256(seed + count.to_bytes(4, "big")).digest() for count in range(11))
    block = bytearray(a ^ b for a, b in zip(masked, mask, strict=False))
    block[0] &= 0x7F
    return bytes(block).lstrip(b"\0").startswith(b"\x01")


def _ecdsa_verifies(curve: Curve, point: bytes, signature: bytes, digest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

    kinds: dict[SigningScheme, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
        SigningScheme.ECDSA_P192: (ec.SECP192R1(), hashes.SHA256()),
        SigningScheme.ECDSA_P256: (ec.SECP256R1(), hashes.SHA256()),
        SigningScheme.ECDSA_P384: (ec.SECP384R1(), hashes.SHA384()),
    }
    kind, hashed = kinds[curve.scheme]
    x, y = _halves(point)
    try:
        public = ec.EllipticCurvePublicNumbers(x, y, kind).public_key()
        public.verify(encode_dss_signature(*_halves(signature)), digest, ec.ECDSA(Prehashed(hashed)))
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _halves(pair: bytes) -> tuple[int, int]:
    half = len(pair) // 2
    return int.from_bytes(pair[:half], "little"), int.from_bytes(pair[half:], "little")
