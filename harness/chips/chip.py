"""What differs from chip to chip, as one frozen row per chip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Cipher(str, Enum):
    """Flash encryption schemes; the value is the word used in manifests and package headers."""

    ESP32_AES = "esp32-aes"
    XTS_AES_128 = "xts-aes-128"
    XTS_AES_256 = "xts-aes-256"
    XTS_AES_128_DERIVED = "xts-aes-128-derived"
    """ESP32-C2: 16 bytes in eFuse; the cipher's key is their SHA-256."""

    @property
    def key_size_bytes(self) -> int:
        """Length of the key file: 32 bytes, 64 for XTS-AES-256, 16 for the derived key."""
        return {Cipher.XTS_AES_256: 64, Cipher.XTS_AES_128_DERIVED: 16}.get(self, 32)

    @property
    def number(self) -> int:
        """The number that stands for this cipher in an OTA package header (firmware/README.md)."""
        return list(Cipher).index(self) + 1


KEY_PURPOSE_NUMBERS: Mapping[str, int] = {
    "XTS_AES_256_KEY_1": 2,
    "XTS_AES_256_KEY_2": 3,
    "XTS_AES_128_KEY": 4,
    "HMAC_DOWN_ALL": 5,
    "HMAC_DOWN_JTAG": 6,
    "SECURE_BOOT_DIGEST0": 9,
    "SECURE_BOOT_DIGEST1": 10,
    "SECURE_BOOT_DIGEST2": 11,
}
"""What KEY_PURPOSE fields hold, the same on all chips that have them and that purpose."""


class SigningScheme(str, Enum):
    """Secure boot v2 signatures; the value is espsecure's word (``generate-signing-key --scheme``)."""

    RSA_3072 = "rsa3072"
    ECDSA_P192 = "ecdsa192"
    ECDSA_P256 = "ecdsa256"
    ECDSA_P384 = "ecdsa384"

    @property
    def is_rsa(self) -> bool:
        return self is SigningScheme.RSA_3072


CURVES_BY_MODE: Mapping[int, tuple[SigningScheme, ...]] = {
    0: (SigningScheme.ECDSA_P256,),
    1: (SigningScheme.ECDSA_P192,),
    2: (SigningScheme.ECDSA_P192, SigningScheme.ECDSA_P256),
    3: (SigningScheme.ECDSA_P256,),
}
"""Values of `SecureBootFuses.curve_mode` (``esp_efuse_ecdsa_curve_mode_t`` of ESP-IDF)."""
CURVE_MODE_BOTH = 2
"""What ESP-IDF burns when it meets a signature of P-192."""


@dataclass(frozen=True, slots=True)
class FuseNames:
    """eFuse names as espefuse spells them, grouped by the step of a plan that burns them.

    The order of the fields is the order of burning (ESP-IDF "Security Features Enablement Workflows", with
    the download-mode lock moved to the end).
    """

    key_block: str
    """What ``burn-key`` is given. On ESP32 it must be ``flash_encryption``: ``BLOCK1`` burns unreversed."""
    key_purpose: str | None
    """What ``burn-key`` is told; ``XTS_AES_256_KEY`` stands for two blocks. None on ESP32."""
    key_purposes: tuple[str, ...]
    """What the purpose fields say afterwards, one per block that the key takes; empty where there are no such fields."""
    key_purpose_field: str | None
    """eFuse field that holds the purpose of ``key_block``; None where the purpose is fixed (ESP32, ESP32-C2)."""
    key_storage_block: str
    """The block as ``espefuse summary`` names it."""
    key_config: tuple[tuple[str, int], ...]
    """Fuses without which the key is used differently, burned with it (ESP32: FLASH_CRYPT_CONFIG)."""
    counter: str
    counter_bits: int
    release: tuple[str, ...]
    """One-bit fuses burned to 1 for release, manual encryption among them. XTS_DPA_PSEUDO_LEVEL goes to 1, too."""
    manual_encrypt_disable: str
    release_write_protect: str | None
    """Write-protecting this name sets the WR_DIS bit that IDF's release check wants; None: the chip has none.

    The bit freezes other fuses as well (`harness.chips.efuses.EfuseGeometry.frozen_with`), so it comes after all
    of them that a plan burns: those of `release` everywhere, SOFT_DIS_JTAG of secure boot on ESP32-S2. On ESP32-C2
    it is the counter itself, with SECURE_BOOT_EN behind the same bit: IDF wants it there so that nobody can burn
    XTS_KEY_LENGTH_256 later, which would make another key of the derived one.
    """
    secure_download: str | None
    """Fuse of Secure Download Mode; None where the chip has none."""
    download_off: str
    key_part: str | None = None
    """The field of `key_storage_block` that holds the key, where it is a part of the block (ESP32-C2)."""

    @property
    def counter_release(self) -> int:
        """All bits of the counter: encryption is permanent."""
        return (1 << self.counter_bits) - 1


@dataclass(frozen=True, slots=True)
class SecureBootFuses:
    """Secure boot v2 of one chip: what it verifies with, and the fuses that turn it on, in the order of burning."""

    schemes: tuple[SigningScheme, ...]
    """What the ROM verifies; the first is what this project takes when nothing is said."""
    signature_blocks: int
    """How many signatures one image may carry: 3, or 1 (ESP32, ESP32-C2)."""
    digest_block: str | None
    """What ``burn-key`` is given where only one block will do (``secure_boot_v2``, ``BLOCK_KEY0``); None: any free."""
    digest_purposes: tuple[str, ...]
    """Purpose per digest slot, as ``burn-key`` is told; empty on ESP32."""
    digest_size_bytes: int
    """How much of the public key's SHA-256 is burned: 32, or its first 16 on ESP32-C2."""
    enable: str
    burned_with: tuple[tuple[str, int], ...]
    """JTAG and direct boot off, and what else the workflow of Espressif burns with it."""
    revoke: tuple[str, ...]
    """One fuse per digest slot; a slot without a key is revoked. Empty where the chip has one slot only."""
    aggressive_revoke: str | None
    """With it the ROM revokes a key for good when a signature by it does not verify."""
    min_chip_rev_full: int
    """Oldest revision whose ROM verifies."""
    write_protect: str = "RD_DIS"
    """Frozen afterwards, so that nobody can hide the digest; no flash key can be read-protected from then on."""
    also_write_protect: tuple[str, ...] = ()
    """What the workflow freezes besides: ECDSA_CURVE_MODE on ESP32-H2, SECURE_BOOT_SHA384_EN on ESP32-C5.

    The latter shares its bit with XTS_DPA_PSEUDO_LEVEL of `FuseNames.release`: before release it must stay open.
    """
    sha384_enable: str | None = None
    """Burned with ECDSA P-384, whose images are signed over SHA-384; None where the ROM has no P-384."""
    curve_mode: str | None = None
    """Which of P-192 and P-256 the hardware calculates on, `CURVES_BY_MODE` (ESP32-H2); None: on all it has."""
    digest_part: str | None = None
    """The field of `digest_block` that holds the digest, where it is a part of the block (ESP32-C2)."""

    @property
    def digest_slots(self) -> int:
        """How many keys one board can know: 3, or 1 (ESP32, ESP32-C2)."""
        return max(1, len(self.digest_purposes))


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
    secure_boot: SecureBootFuses
    cores: int = 1
    xtensa: bool = False
    """Xtensa cores, not RISC-V: other words for exceptions."""
    stub_with_secure_boot: bool = True
    """esptool's stub runs although secure boot is on. ESP-IDF builds with ``--no-stub`` where it does not."""
    usb_serial_jtag: bool = False
    """The chip is its own USB device, with a console on it."""
    key_blocks_without_flash_keys: frozenset[str] = frozenset()
    """Blocks that take no flash key for a fault of the hardware (BLOCK_KEY5 on the chips with the quirk)."""

    @property
    def has_security_info(self) -> bool:
        """The ROM answers GET_SECURITY_INFO (all but ESP32's, which came before Secure Download Mode)."""
        return self.fuses.secure_download is not None

    @property
    def encrypted_write_align_bytes(self) -> int:
        """Alignment that esptool demands of ``--encrypt`` (FLASH_ENCRYPTED_WRITE_ALIGN)."""
        return 32 if self.cipher is Cipher.ESP32_AES else 16
