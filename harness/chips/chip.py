"""What differs from chip to chip, as one frozen row per chip."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Cipher(str, Enum):
    """Flash encryption schemes; the value is the word used in manifests and package headers."""

    ESP32_AES = "esp32-aes"
    XTS_AES_128 = "xts-aes-128"
    XTS_AES_256 = "xts-aes-256"

    @property
    def key_size_bytes(self) -> int:
        """Length of the key file: 32 bytes, or 64 for XTS-AES-256."""
        return 64 if self is Cipher.XTS_AES_256 else 32

    @property
    def number(self) -> int:
        """The number that stands for this cipher in an OTA package header (firmware/README.md)."""
        return {Cipher.ESP32_AES: 1, Cipher.XTS_AES_128: 2, Cipher.XTS_AES_256: 3}[self]


@dataclass(frozen=True, slots=True)
class FuseNames:
    """eFuse names as espefuse spells them, grouped by the step of a plan that burns them.

    The order of the fields is the order of burning (ESP-IDF "Security Features Enablement Workflows", with
    the download-mode lock moved to the end).
    """

    key_block: str
    """What ``burn-key`` is given. On ESP32 it must be ``flash_encryption``: ``BLOCK1`` burns unreversed."""
    key_purpose: str | None
    key_purpose_field: str | None
    """eFuse field that holds the purpose of ``key_block``; None on ESP32, whose block 1 has a fixed purpose."""
    key_storage_block: str
    """The block as ``espefuse summary`` names it."""
    key_config: tuple[tuple[str, int], ...]
    """Fuses without which the key is used differently, burned with it (ESP32: FLASH_CRYPT_CONFIG)."""
    counter: str
    counter_bits: int
    release: tuple[str, ...]
    """One-bit fuses burned to 1 for release, manual encryption among them."""
    manual_encrypt_disable: str
    release_write_protect: str
    """Write-protecting this name sets the WR_DIS bit that IDF's release check wants."""
    secure_download: str | None
    """Fuse of Secure Download Mode; None where the chip has none."""
    download_off: str

    @property
    def counter_release(self) -> int:
        """All bits of the counter: encryption is permanent."""
        return (1 << self.counter_bits) - 1


@dataclass(frozen=True, slots=True)
class Chip:
    """One supported chip. Sources: esptool's targets, ESP-IDF soc headers, espefuse's eFuse tables."""

    name: str
    """esptool's and ESP-IDF's name, e.g. ``esp32c3``."""
    title: str
    chip_id: int
    """``esp_chip_id_t`` in the image header."""
    bootloader_offset: int
    cipher: Cipher
    drom_base: int
    """First address of the data-from-flash window; native images claim it so that alignment checks hold."""
    bootloader_load_address: int
    min_chip_rev_full: int
    """Oldest revision (major * 100 + minor) that this project's images accept."""
    encrypt_needs_stub: bool
    """The ROM has no encrypted flash write (ESP32): ``write-flash --encrypt`` needs the stub."""
    fuses: FuseNames
    usb_serial_jtag: bool = False
    """The chip is its own USB device, with a console on it."""

    @property
    def encrypted_write_align_bytes(self) -> int:
        """Alignment that esptool demands of ``--encrypt`` (FLASH_ENCRYPTED_WRITE_ALIGN)."""
        return 32 if self.cipher is Cipher.ESP32_AES else 16
