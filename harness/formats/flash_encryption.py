"""Flash encryption as the chips' flash controllers do it, so that ciphertext can be made on the host.

Sources: Espressif's Technical Reference Manuals, chapters "External Memory Encryption and Decryption"
(ESP32: "Flash Encryption"). ``espsecure`` is the oracle of the tests; no code is shared with it.

Both schemes are position dependent and nothing else: the same key, address and plaintext always give the same
ciphertext, and enciphering a range in pieces equals enciphering it at once.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from harness.chips import Cipher
from harness.errors import FormatError, LabError

BLOCK_BYTES = 16
"""AES block: addresses and lengths are multiples of it in both schemes."""

_ESP32_ROW_BYTES = 32
_ESP32_ADDRESS_BITS = 24
_XTS_UNIT_BYTES = 0x80
_XTS_ADDRESS_BITS = 32
# Units that one pass over wide integers takes: 64 KiB, which keeps the integers inside the CPU's cache.
_XTS_UNITS_PER_PASS = 512


def pad_to_block(data: bytes, block: int = BLOCK_BYTES) -> bytes:
    """`data` followed by 0xFF up to the next multiple of `block` bytes (unchanged when it is one already).

    0xFF is what erased flash holds, and it is deterministic: tools that pad with random bytes make a last
    block that nobody can check afterwards.
    """
    return data + b"\xff" * (-len(data) % block)


def encrypt(
    cipher: Cipher, key: bytes, address: int, plaintext: bytes, *, flash_crypt_config: int = 0xF
) -> bytes:
    """The bytes that must lie in flash at `address` for the chip to read `plaintext` there.

    Args:
        cipher: the chip's scheme.
        key: as in espsecure's key file: 32 bytes (XTS-AES-256: 64; the derived key of ESP32-C2: 16; ESP32 with 3/4
            coding scheme: 24).
        address: byte address in flash of the first byte, a multiple of 16.
        plaintext: a multiple of 16 bytes, see `pad_to_block`.
        flash_crypt_config: ESP32 only, the eFuse of that name (0..15): which quarters of the key the address
            changes.

    Raises:
        FormatError: alignment, range or key length; the message never shows the key.
    """
    return _apply(cipher, key, address, plaintext, flash_crypt_config, decrypting=False)


def decrypt(
    cipher: Cipher, key: bytes, address: int, ciphertext: bytes, *, flash_crypt_config: int = 0xF
) -> bytes:
    """What the chip reads at `address` when `ciphertext` lies there; the inverse of `encrypt`.

    Raises:
        FormatError: as `encrypt`.
    """
    return _apply(cipher, key, address, ciphertext, flash_crypt_config, decrypting=True)


def _apply(
    cipher: Cipher, key: bytes, address: int, data: bytes, flash_crypt_config: int, *, decrypting: bool
) -> bytes:
    key, data = bytes(key), bytes(data)
    esp32 = cipher is Cipher.ESP32_AES
    limit = 1 << (_ESP32_ADDRESS_BITS if esp32 else _XTS_ADDRESS_BITS)
    if address % BLOCK_BYTES:
        raise FormatError(
            f"flash address {address:#x} is not a multiple of 16",
            todo="give the offset at which the data will lie in flash; partitions are aligned to 0x1000",
        )
    if len(data) % BLOCK_BYTES:
        raise FormatError(
            f"data length {len(data)} is not a multiple of 16", todo="pad it with 0xFF first (pad_to_block)"
        )
    if address < 0 or address + len(data) > limit:
        raise FormatError(
            f"flash range {address:#x}..{address + len(data):#x} lies outside 0..{limit:#x}, "
            f"which is all that {cipher.value} can address",
            todo="give the offset inside the flash chip, not a memory address",
        )
    if not 0 <= flash_crypt_config <= 0xF:
        raise FormatError(
            f"FLASH_CRYPT_CONFIG {flash_crypt_config:#x} is not a 4-bit value", todo="use 0..0xF"
        )
    if not data:
        return b""
    if esp32:
        return _esp32_aes(_esp32_key(key), address, data, flash_crypt_config, decrypting=decrypting)
    return _xts_aes(_xts_key(cipher, key), address, data, decrypting=decrypting)


# ---------------------------------------------------------------------------------------------- ESP32


def _esp32_key(key: bytes) -> bytes:
    if len(key) == 24:
        # 3/4 coding scheme: the hardware fills 256 bits by repeating the middle of the 192-bit key.
        return key + key[8:16]
    if len(key) != 32:
        raise FormatError(
            f"flash encryption key has {len(key)} bytes, ESP32 takes 32 (24 with 3/4 coding scheme)",
            todo="give the key file that was burned to this chip",
        )
    return key


def _tweak_lanes() -> tuple[int, int, int, tuple[int, int, int, int]]:
    """How ESP32 spreads address bits 23..5 over its 256-bit key, as masks for wide integers.

    Each bit of FLASH_CRYPT_CONFIG stands for one part of the key, from the most significant bit on. A part is
    three copies of the 19 address bits and then their low 10, 8, 6 or 4 bits.

    Returns:
        A multiplier that lays out all whole copies, one that lays out the short ones, a mask for the bits
        that the short ones may occupy, and the key bits of each part.
    """
    whole = short = short_mask = 0
    parts = []
    position = 256
    for short_bits in (10, 8, 6, 4):
        top = position
        for _ in range(3):
            position -= 19
            whole |= 1 << position
        position -= short_bits
        short |= 1 << position
        short_mask |= ((1 << short_bits) - 1) << position
        parts.append((1 << top) - (1 << position))
    return whole, short, short_mask, (parts[0], parts[1], parts[2], parts[3])


_WHOLE, _SHORT, _SHORT_MASK, _KEY_PARTS = _tweak_lanes()


def _esp32_aes(key: bytes, address: int, data: bytes, flash_crypt_config: int, *, decrypting: bool) -> bytes:
    """AES-256 used backwards (writing is AES *decryption*), with another key for every 32 bytes of flash.

    Each 16-byte block goes through AES with its bytes in reverse order. Reversing the whole input once does
    that, at the price of meeting the rows from the last to the first.
    """
    enabled = sum(part for bit, part in enumerate(_KEY_PARTS) if flash_crypt_config >> bit & 1)
    base_key = int.from_bytes(key, "big")
    head = address % _ESP32_ROW_BYTES
    rows = -(-(head + len(data)) // _ESP32_ROW_BYTES)
    # Both blocks of a row share a key and do not depend on each other, so half rows are filled up and cut.
    mirrored = (bytes(head) + data).ljust(rows * _ESP32_ROW_BYTES, b"\0")[::-1]
    ecb = modes.ECB()  # noqa: S305 -- the hardware's construction; the key changes with the address
    aes = algorithms.AES(key)
    cipher = BlockCipher(aes, ecb)
    start = cipher.encryptor if decrypting else cipher.decryptor
    first_row = address // _ESP32_ROW_BYTES
    out = []
    for index in range(rows):
        row = first_row + rows - 1 - index
        # Another key in the same object: building new ones takes as long as the work itself.
        tweak = row * _WHOLE | (row * _SHORT & _SHORT_MASK)
        aes.key = (base_key ^ (tweak & enabled)).to_bytes(32, "big")
        block = mirrored[index * _ESP32_ROW_BYTES : (index + 1) * _ESP32_ROW_BYTES]
        out.append(start().update(block))
    _demand_rekeying_works(bytes(aes.key), block, out[-1], decrypting=decrypting)
    return b"".join(out)[::-1][head : head + len(data)]


def _demand_rekeying_works(key: bytes, block: bytes, result: bytes, *, decrypting: bool) -> None:
    """Do the last row again with new objects: wrong ciphertext must never leave this module unnoticed.

    Raises:
        LabError: the installed ``cryptography`` keeps to the first key of an object.
    """
    fresh = BlockCipher(algorithms.AES(key), modes.ECB())  # noqa: S305 -- as above
    if (fresh.encryptor() if decrypting else fresh.decryptor()).update(block) != result:
        raise LabError(
            "flash encryption: the installed 'cryptography' package ignores a change of key",
            todo="install another version of cryptography, and report this",
        )


# ------------------------------------------------------------------------------------------------ XTS


def _xts_key(cipher: Cipher, key: bytes) -> bytes:
    if len(key) != cipher.key_size_bytes:
        raise FormatError(
            f"flash encryption key has {len(key)} bytes, {cipher.value} takes {cipher.key_size_bytes}",
            todo="give the key file that was burned to this chip",
        )
    if cipher is Cipher.XTS_AES_128_DERIVED:
        # The hardware works with the SHA-256 of the 16 bytes in eFuse, which has no equal halves to speak of.
        return hashlib.sha256(key).digest()
    half = len(key) // 2
    if key[:half] == key[half:]:
        raise FormatError(
            "flash encryption key has two equal halves, which XTS forbids (a blank key file looks so)",
            todo="make a new key of random bytes",
        )
    return key


@lru_cache(maxsize=4)
def _unit_lanes(units: int) -> tuple[int, int]:
    """For `units` lanes of 128 bytes: an integer with bit 0 of each lane set, one with its low 128 bits."""
    ones = int.from_bytes((b"\x01" + bytes(_XTS_UNIT_BYTES - 1)) * units, "little")
    return ones, ones * ((1 << 128) - 1)


def _tweaks_of_blocks(tweaks: bytes, units: int) -> int:
    """Each unit's encrypted tweak, followed by its products with alpha, alpha^2 ... alpha^7 in GF(2^128).

    All units are doubled at once, side by side in one wide little-endian integer.
    """
    ones, low_blocks = _unit_lanes(units)
    gap = bytes(_XTS_UNIT_BYTES - BLOCK_BYTES)
    current = int.from_bytes(
        b"".join([tweaks[at : at + BLOCK_BYTES] + gap for at in range(0, len(tweaks), BLOCK_BYTES)]), "little"
    )
    result = current
    for block in range(1, _XTS_UNIT_BYTES // BLOCK_BYTES):
        overflow = current >> 127 & ones
        current = (current << 1 & low_blocks) ^ overflow * 0x87
        result |= current << (128 * block)
    return result


def _xts_aes(key: bytes, address: int, data: bytes, *, decrypting: bool) -> bytes:
    """AES-XTS over units of 128 bytes, each reversed before and after, numbered by their flash address.

    XTS is done here from AES-ECB instead of ``modes.XTS``: one call per unit costs three times as much as the
    whole of the arithmetic for hundreds of units at once.
    """
    half = len(key) // 2
    ecb = modes.ECB()  # noqa: S305 -- a building block of XTS
    data_cipher = BlockCipher(algorithms.AES(key[:half]), ecb)
    data_aes = data_cipher.decryptor() if decrypting else data_cipher.encryptor()
    tweak_aes = BlockCipher(algorithms.AES(key[half:]), ecb).encryptor()

    head = address % _XTS_UNIT_BYTES
    units = -(-(head + len(data)) // _XTS_UNIT_BYTES)
    # Reversed as a whole, the units come from the last to the first.
    mirrored = (bytes(head) + data).ljust(units * _XTS_UNIT_BYTES, b"\0")[::-1]
    last_unit = address - head + (units - 1) * _XTS_UNIT_BYTES
    out = []
    for first in range(0, units, _XTS_UNITS_PER_PASS):
        count = min(_XTS_UNITS_PER_PASS, units - first)
        numbers = b"".join(
            (last_unit - index * _XTS_UNIT_BYTES).to_bytes(BLOCK_BYTES, "little")
            for index in range(first, first + count)
        )
        mask = _tweaks_of_blocks(tweak_aes.update(numbers), count)
        size = count * _XTS_UNIT_BYTES
        piece = mirrored[first * _XTS_UNIT_BYTES : first * _XTS_UNIT_BYTES + size]
        whitened = (int.from_bytes(piece, "little") ^ mask).to_bytes(size, "little")
        out.append((int.from_bytes(data_aes.update(whitened), "little") ^ mask).to_bytes(size, "little"))
    return b"".join(out)[::-1][head : head + len(data)]
