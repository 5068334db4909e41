"""The chip's flash cipher engine: what the cache deciphers on reads and the encrypted write enciphers.

It works through ``espsecure`` (never `harness.formats.flash_encryption`), so that a mistake of the host's own
cipher code shows on the twin instead of cancelling out. `espsecure` is imported at the first use.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from io import BytesIO
from typing import Any, Protocol

from harness.chips import Chip, Cipher
from harness.twin.security import FuseReader, flash_encryption_enabled, flash_key_blocks

SECTOR_BYTES = 0x1000
BLOCK_BYTES = 16
"""Smallest unit of an encrypted write; address and length are multiples of it."""

_CACHED_SECTORS = 2048
_CODING_3_4 = 1
"""CODING_SCHEME of ESP32 under which block 1 holds 24 key bytes."""


class FlashStore(Protocol):
    """The part of `harness.twin.flash.Flash` that the engine and its users need."""

    @property
    def size_bytes(self) -> int: ...

    def read(self, addr: int, size: int, *, who: str = ...) -> bytes: ...

    def program(self, addr: int, data: bytes, *, who: str, kind: str = "write") -> None: ...

    def erase(self, addr: int, size: int, *, who: str) -> None: ...


class FlashCipher:
    """Deciphering reads and enciphering writes with the key that the eFuses hold at that moment.

    Read protection of the key is no matter to hardware. Deciphered sectors are kept by (address, ciphertext,
    key), so that booting the same flash again is fast.
    """

    def __init__(self, chip: Chip, flash: FlashStore, efuses: FuseReader) -> None:
        self._chip = chip
        self._flash = flash
        self._efuses = efuses
        self._sectors: OrderedDict[tuple[int, bytes, bytes, int], bytes] = OrderedDict()

    @property
    def enabled(self) -> bool:
        """Whether the counter has an odd number of ones: then reads through the cache decipher."""
        return flash_encryption_enabled(self._efuses)

    def read(self, addr: int, size: int, *, who: str = "") -> bytes:
        """`size` bytes at `addr` as the CPU sees them through the cache: deciphered when `enabled`.

        Addresses beyond the flash wrap, as the chip's address lines do; the cipher's tweak does not.
        """
        if size <= 0:
            return b""
        if not self.enabled:
            return self._read_wrapped(addr, size, who)
        first = addr - addr % SECTOR_BYTES
        end = addr + size
        plain = b"".join(self._plain_sector(at, who) for at in range(first, end, SECTOR_BYTES))
        return plain[addr - first : end - first]

    def write_enciphered(self, addr: int, data: bytes, *, who: str) -> None:
        """Encipher `data` for `addr` and program it; the hardware does so whether or not `enabled`.

        Raises:
            ValueError: address or length is not a multiple of 16.
            FlashFault: the flash refused.
        """
        if addr % BLOCK_BYTES or len(data) % BLOCK_BYTES:
            raise ValueError(f"encrypted write of {len(data)} bytes at {addr:#x} is not in units of 16 bytes")
        if data:
            self._flash.program(addr, self.encipher(addr, data), who=who, kind="write-encrypted")

    def encipher(self, addr: int, data: bytes) -> bytes:
        """The ciphertext of `data` (a multiple of 16 bytes) at flash address `addr`."""
        if not data:
            return b""
        key = self._key()
        out = BytesIO()
        _espsecure().encrypt_flash_data(
            BytesIO(key), out, addr, self._crypt_config(), self._uses_xts, BytesIO(data)
        )
        return out.getvalue()

    def _plain_sector(self, addr: int, who: str) -> bytes:
        ciphertext = self._read_wrapped(addr, SECTOR_BYTES, who)
        key = self._key()
        # The key itself never becomes part of a cache that a traceback or debugger could print.
        entry = (
            addr,
            hashlib.sha256(ciphertext).digest(),
            hashlib.sha256(key).digest(),
            self._crypt_config(),
        )
        plain = self._sectors.get(entry)
        if plain is None:
            out = BytesIO()
            _espsecure().decrypt_flash_data(
                BytesIO(key), out, addr, self._crypt_config(), self._uses_xts, BytesIO(ciphertext)
            )
            plain = out.getvalue()
            self._sectors[entry] = plain
            if len(self._sectors) > _CACHED_SECTORS:
                self._sectors.popitem(last=False)
        else:
            self._sectors.move_to_end(entry)
        return plain

    def _read_wrapped(self, addr: int, size: int, who: str) -> bytes:
        flash_size = self._flash.size_bytes
        start = addr % flash_size
        if start + size <= flash_size:
            return self._flash.read(start, size, who=who)
        head = self._flash.read(start, flash_size - start, who=who)
        return head + self._read_wrapped(0, size - len(head), who)

    @property
    def _uses_xts(self) -> bool:
        return self._chip.cipher is not Cipher.ESP32_AES

    @property
    def _uses_derived_key(self) -> bool:
        """ESP32-C2 until XTS_KEY_LENGTH_256 is burned; from then on its block holds a whole XTS-AES-128 key."""
        derived = self._chip.cipher is Cipher.XTS_AES_128_DERIVED
        return derived and not self._efuses.field("XTS_KEY_LENGTH_256")

    def _crypt_config(self) -> int:
        return 0xF if self._uses_xts else self._efuses.field("FLASH_CRYPT_CONFIG")

    def _key(self) -> bytes:
        """The key in the byte order of a key file: eFuse blocks hold it reversed."""
        parts = [
            bytes(32) if block is None else self._efuses.block_for_hardware(block)
            for block in flash_key_blocks(self._efuses)
        ]
        if not self._uses_xts and self._efuses.field("CODING_SCHEME") == _CODING_3_4:
            return parts[0][:24][::-1]
        if self._uses_derived_key:
            # espsecure takes 16 bytes and hashes them itself, as the hardware does.
            return parts[0][:16][::-1]
        key = b"".join(part[::-1] for part in parts)
        half = len(key) // 2
        if self._uses_xts and key[:half] == key[half:]:
            # Without a key the engine works with zeros, but the `cryptography` package refuses XTS with equal
            # halves. Either way what it reads is noise, so the neighbouring key does.
            return key[:-1] + bytes((key[-1] ^ 1,))
        return key


class _QuietLog:
    """Takes what espsecure would print: the twin's standard output belongs to its start line."""

    def __getattr__(self, name: str) -> Any:
        return _ignore


def _ignore(*_args: object, **_kwargs: object) -> None:
    pass


def _espsecure() -> Any:
    import espsecure

    if not isinstance(espsecure.log, _QuietLog):
        # Only this module's name for the logger is replaced; esptool's own logger stays as it is.
        espsecure.log = _QuietLog()
    return espsecure
