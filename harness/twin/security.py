"""What the eFuses say about security, as pure functions: encryption mode, release check, download state.

The rules are those of ESP-IDF v5.5 (``esp_get_flash_encryption_mode``, ``esp_flash_encrypt_state``,
``esp_flash_encryption_cfg_verify_release_mode``) and of the mask ROM for the download fuses. The machine,
the bootloader and the application's INFO call all ask here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from harness.chips import KEY_PURPOSE_NUMBERS, Chip, Cipher
from harness.chips.efuses import efuse_geometry
from harness.chips.idf_burns import idf_burns

PURPOSE_XTS_AES_128_KEY = KEY_PURPOSE_NUMBERS["XTS_AES_128_KEY"]
"""``KEY_PURPOSE_n`` of an XTS-AES-128 flash key."""

_PURPOSES_XTS_AES_256 = (
    KEY_PURPOSE_NUMBERS["XTS_AES_256_KEY_1"],
    KEY_PURPOSE_NUMBERS["XTS_AES_256_KEY_2"],
)

_PURPOSES_HMAC_JTAG = (5, 6)  # HMAC_DOWN_ALL, HMAC_DOWN_JTAG


class FuseReader(Protocol):
    """The part of `harness.twin.efuses.Efuses` that these rules read."""

    @property
    def chip(self) -> Chip: ...

    def field(self, name: str) -> int: ...

    def block_for_hardware(self, name: str) -> bytes: ...

    def block_for_software(self, name: str) -> bytes: ...

    def read_protected(self, block: str) -> bool: ...

    def write_protected(self, name: str) -> bool: ...


class EncryptionMode(IntEnum):
    """``esp_flash_enc_mode_t`` in the order that the INFO call uses on the wire."""

    OFF = 0
    DEVELOPMENT = 1
    RELEASE = 2


class Download(IntEnum):
    """What the eFuses leave of UART download."""

    OPEN = 0
    SECURE = 1
    OFF = 2


@dataclass(frozen=True, slots=True)
class ReleaseFinding:
    """One warning of the release check: `text` as ESP-IDF logs it under ``flash_encrypt``."""

    text: str
    fails: bool = True


def has_key_purposes(chip: Chip) -> bool:
    """True where key blocks carry a purpose; ESP32's block 1 and ESP32-C2's only one are the flash key by position."""
    return chip.fuses.key_purpose_field is not None


def is_classic(chip: Chip) -> bool:
    """ESP32, which has an eFuse controller, fuse names and checks of its own; all later chips share theirs."""
    return not chip.has_security_info


def flash_encryption_enabled(efuses: FuseReader) -> bool:
    """True when the counter has an odd number of ones, which is what the hardware looks at."""
    return _ones(efuses.field(efuses.chip.fuses.counter)) % 2 == 1


def plaintext_flashes_left(efuses: FuseReader) -> int:
    """How often encryption could still be turned off and on again; 0 when the counter is write-protected."""
    fuses = efuses.chip.fuses
    if efuses.write_protected(fuses.counter):
        return 0
    return (fuses.counter_bits - _ones(efuses.field(fuses.counter))) // 2


def encryption_mode(efuses: FuseReader) -> EncryptionMode:
    """The mode as ESP-IDF decides it: release wants a final counter and the download fuses of the chip."""
    if not flash_encryption_enabled(efuses):
        return EncryptionMode.OFF
    burns, counter = idf_burns(efuses.chip.name), efuses.chip.fuses.counter
    is_release = (
        _counter_is_final(efuses)
        and all(efuses.field(name) for name in burns.release_mode)
        and (efuses.write_protected(counter) or not burns.counter_write_protect)
    )
    return EncryptionMode.RELEASE if is_release else EncryptionMode.DEVELOPMENT


def release_findings(efuses: FuseReader) -> tuple[ReleaseFinding, ...]:
    """What ESP-IDF's own release check would warn about, in its order."""
    return _esp32_findings(efuses) if is_classic(efuses.chip) else _later_findings(efuses)


def release_verified(efuses: FuseReader) -> bool:
    """The result of ``esp_flash_encryption_cfg_verify_release_mode``."""
    return not any(finding.fails for finding in release_findings(efuses))


def secure_boot_enabled(efuses: FuseReader) -> bool:
    """True when secure boot v2 is switched on in the eFuses."""
    return bool(efuses.field(efuses.chip.secure_boot.enable))


def download_state(efuses: FuseReader) -> Download:
    """Open, restricted to Secure Download Mode, or off; off wins over secure."""
    fuses = efuses.chip.fuses
    if efuses.field(fuses.download_off):
        return Download.OFF
    if fuses.secure_download is not None and efuses.field(fuses.secure_download):
        return Download.SECURE
    return Download.OPEN


def secure_version(efuses: FuseReader, bits: int = 0) -> int:
    """Anti-rollback version: the number of ones in SECURE_VERSION, in its first `bits` where a build says so.

    The field has 32 bits on ESP32, 4 on ESP32-C2, 9 on ESP32-C5, 16 on the others.
    """
    value = efuses.field("SECURE_VERSION")
    return _ones(value & (1 << bits) - 1 if bits else value)


def efuse_block_revision(efuses: FuseReader) -> int:
    """eFuse block revision, major * 100 + minor; 0 on ESP32, which has none."""
    if is_classic(efuses.chip):
        return 0
    return efuses.field("BLK_VERSION_MAJOR") * 100 + efuses.field("BLK_VERSION_MINOR")


def flash_key_block(efuses: FuseReader) -> str | None:
    """Name of the block that the cipher engine takes its key from; None when no block has the purpose.

    Of a key in two blocks, the first half's.
    """
    return next((block for block in flash_key_blocks(efuses) if block is not None), None)


def flash_key_blocks(efuses: FuseReader) -> tuple[str | None, ...]:
    """The blocks of the flash key, one per 32 bytes of a key file: one, or two for XTS-AES-256.

    None stands for a half that no block has the purpose of; the engine then works with zeros. Where both kinds of
    key are burned, the one block counts (ESP-IDF calls such a chip not functional).
    """
    if not has_key_purposes(efuses.chip):
        return (efuses.chip.fuses.key_storage_block,)
    whole = block_with_purpose(efuses, PURPOSE_XTS_AES_128_KEY)
    if whole is None and efuses.chip.cipher is Cipher.XTS_AES_256:
        return tuple(block_with_purpose(efuses, purpose) for purpose in _PURPOSES_XTS_AES_256)
    return (whole,)


def key_purpose(efuses: FuseReader, block: str) -> int:
    """The number in the purpose fields of a key block (ESP32-P4 has its fifth bit in a field of its own)."""
    geometry = efuse_geometry(efuses.chip.name)
    value = shift = 0
    for name in geometry.purpose_fields(block):
        value |= efuses.field(name) << shift
        shift += geometry.field(name).bits
    return value


def block_with_purpose(efuses: FuseReader, purpose: int) -> str | None:
    """The first key block of that purpose, or None."""
    blocks = efuse_geometry(efuses.chip.name).key_blocks
    return next((block.name for block in blocks if key_purpose(efuses, block.name) == purpose), None)


def _ones(value: int) -> int:
    return bin(value).count("1")


def _counter_is_final(efuses: FuseReader) -> bool:
    fuses = efuses.chip.fuses
    return efuses.write_protected(fuses.counter) or efuses.field(fuses.counter) == fuses.counter_release


def _esp32_findings(efuses: FuseReader) -> tuple[ReleaseFinding, ...]:
    checks = (
        (flash_encryption_enabled(efuses), "Not enabled Flash Encryption (FLASH_CRYPT_CNT->1 or max)"),
        (
            efuses.field("FLASH_CRYPT_CONFIG") == 0xF,
            "ENCRYPT_CONFIG must be set 0xF (set ENCRYPT_CONFIG->0xF)",
        ),
        (
            _counter_is_final(efuses),
            "Not release mode of Flash Encryption (set FLASH_CRYPT_CNT->max or WR_DIS_FLASH_CRYPT_CNT->1)",
        ),
        (
            efuses.field("DISABLE_DL_ENCRYPT") == 1,
            "Not disabled UART bootloader encryption (set DISABLE_DL_ENCRYPT->1)",
        ),
        (
            efuses.field("DISABLE_DL_DECRYPT") == 1,
            "Not disabled UART bootloader decryption (set DISABLE_DL_DECRYPT->1)",
        ),
        (
            efuses.field("DISABLE_DL_CACHE") == 1,
            "Not disabled UART bootloader MMU cache (set DISABLE_DL_CACHE->1)",
        ),
        (efuses.field("JTAG_DISABLE") == 1, "Not disabled JTAG (set DISABLE_JTAG->1)"),
        (
            efuses.field("CONSOLE_DEBUG_DISABLE") == 1,
            "Not disabled ROM BASIC interpreter fallback (set CONSOLE_DEBUG_DISABLE->1)",
        ),
        (efuses.write_protected("DIS_CACHE"), "Not write-protected DIS_CACHE (set WR_DIS_DIS_CACHE->1)"),
        (efuses.read_protected("BLOCK1"), "Not read-protected flash ecnryption key (set RD_DIS_BLK1->1)"),
        (efuses.write_protected("BLOCK1"), "Not write-protected flash ecnryption key (set WR_DIS_BLK1->1)"),
    )
    return tuple(ReleaseFinding(text) for passed, text in checks if not passed)


_DOWNLOAD_TEXTS = {
    "DIS_DOWNLOAD_MANUAL_ENCRYPT": (
        "Not disabled UART bootloader encryption (set DIS_DOWNLOAD_MANUAL_ENCRYPT->1)"
    ),
    "DIS_DOWNLOAD_DCACHE": "Not disabled UART bootloader Dcache (set DIS_DOWNLOAD_DCACHE->1)",
    "SPI_DOWNLOAD_MSPI_DIS": "Not disabled UART bootloader download mspi (set DIS_DOWNLOAD_MSPI->1)",
    "DIS_DOWNLOAD_ICACHE": "Not disabled UART bootloader cache (set DIS_DOWNLOAD_ICACHE->1)",
}
"""In the order of the check; a chip has those of ``esp_flash_encryption_set_release_mode()``."""
_BOOT_MODE_TEXTS = {
    "DIS_DIRECT_BOOT": "Not disabled direct boot mode (set DIS_DIRECT_BOOT->1)",
    "DIS_BOOT_REMAP": "Not disabled boot from RAM (set DIS_BOOT_REMAP->1)",
    "DIS_LEGACY_SPI_BOOT": "Not disabled Legcy SPI boot (set DIS_LEGACY_SPI_BOOT->1)",
}
_JTAG_ORDER = ("JTAG PADs", "USB JTAG", "JTAG (")
"""This check looks at them in another order than that of secure boot."""


def _later_findings(efuses: FuseReader) -> tuple[ReleaseFinding, ...]:
    burns = idf_burns(efuses.chip.name)
    checks = [
        (flash_encryption_enabled(efuses), "Not enabled Flash Encryption (SPI_BOOT_CRYPT_CNT->1 or max)"),
        (
            _counter_is_final(efuses),
            "Not release mode of Flash Encryption "
            "(set SPI_BOOT_CRYPT_CNT->max or WR_DIS_SPI_BOOT_CRYPT_CNT->1)",
        ),
        *_burned(efuses, _DOWNLOAD_TEXTS, burns.release_mode),
    ]
    findings = [ReleaseFinding(text) for passed, text in checks if not passed]
    findings += _jtag_findings(efuses)
    checks = _burned(efuses, _BOOT_MODE_TEXTS, burns.always)
    if burns.write_protect is not None:
        guard = burns.write_protect
        checks.append(
            (efuses.write_protected(guard), f"Not write-protected {guard} (set WR_DIS_{guard}->1)"),
        )
    findings += [ReleaseFinding(text) for passed, text in checks if not passed]
    findings += _key_findings(efuses)
    rounds = burns.release_pseudo_rounds
    if rounds is not None and not efuses.field(rounds):
        text = f"Not enabled XTS-AES pseudo rounds function (set {rounds}->1 or more)"
        findings.append(ReleaseFinding(text))
    return tuple(findings)


def _burned(efuses: FuseReader, texts: Mapping[str, str], of_chip: Collection[str]) -> list[tuple[bool, str]]:
    return [(efuses.field(name) == 1, text) for name, text in texts.items() if name in of_chip]


def _jtag_findings(efuses: FuseReader) -> list[ReleaseFinding]:
    found: list[ReleaseFinding] = []
    geometry = efuse_geometry(efuses.chip.name)
    if geometry.has_field("SOFT_DIS_JTAG"):
        all_bits = (1 << geometry.field("SOFT_DIS_JTAG").bits) - 1
        if efuses.field("SOFT_DIS_JTAG") == all_bits:
            if any(block_with_purpose(efuses, purpose) for purpose in _PURPOSES_HMAC_JTAG):
                return found
            text = "SOFT_DIS_JTAG is set but HMAC key with respective purpose not found"
            found.append(ReleaseFinding(text, fails=False))
    texts = idf_burns(efuses.chip.name).jtag_texts
    open_doors = [text for fuse, text in texts if not efuses.field(fuse)]
    open_doors.sort(key=lambda text: next(i for i, word in enumerate(_JTAG_ORDER) if word in text))
    return [*found, *(ReleaseFinding(text) for text in open_doors)]


def _key_findings(efuses: FuseReader) -> list[ReleaseFinding]:
    geometry, blocks = efuse_geometry(efuses.chip.name), _every_flash_key_block(efuses)
    if not blocks:
        # ESP-IDF says nothing here and still answers false.
        return [ReleaseFinding("")]
    checks = []
    for name in blocks:
        number = geometry.block(name).index
        index = number - geometry.key_blocks[0].index
        checks += [
            (
                _is_hidden(efuses, name),
                f"Not read-protected Flash encryption key in BLOCK{number} (set RD_DIS_KEY{index}->1)",
            ),
            (
                efuses.write_protected(name),
                f"Not write-protected Flash encryption key in BLOCK{number} (set WR_DIS_KEY{index}->1)",
            ),
        ]
        purpose = geometry.purpose_fields(name)
        if purpose:
            checks.append(
                (
                    efuses.write_protected(purpose[0]),
                    f"Not write-protected KEY_PURPOSE for BLOCK{number} (set WR_DIS_KEY_PURPOSE{index}->1)",
                )
            )
    return [ReleaseFinding(text) for passed, text in checks if not passed]


def _every_flash_key_block(efuses: FuseReader) -> list[str]:
    """The first block of each purpose that a flash key may have on the chip, in the order of ESP-IDF's check."""
    if not has_key_purposes(efuses.chip):
        return [efuses.chip.fuses.key_storage_block]
    purposes = [PURPOSE_XTS_AES_128_KEY]
    if efuses.chip.cipher is Cipher.XTS_AES_256:
        purposes = [*_PURPOSES_XTS_AES_256, PURPOSE_XTS_AES_128_KEY]
    found = (block_with_purpose(efuses, purpose) for purpose in purposes)
    return [block for block in found if block is not None]


def _is_hidden(efuses: FuseReader, block: str) -> bool:
    """Whether software can read none of the flash key in `block`."""
    if efuses.chip.cipher is Cipher.XTS_AES_128_DERIVED and efuses.field("XTS_KEY_LENGTH_256"):
        # A whole XTS-AES-128 key fills the block, whose halves have a bit each.
        return efuses.field("RD_DIS") == 0b11
    return efuses.read_protected(block)
