"""ESP-IDF's own check that secure boot is as in production (``esp_secure_boot_cfg_verify_release_mode``, v5.5.5)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from harness.chips.idf_burns import idf_burns
from harness.twin.efuses import Efuses
from harness.twin.security import block_with_purpose, secure_boot_enabled

_DIGEST_PURPOSES = (9, 10, 11)
_HMAC_JTAG_PURPOSES = (5, 6)
_BOOT_MODE_TEXTS = {
    "DIS_BOOT_REMAP": "Not disabled boot from RAM (set DIS_BOOT_REMAP->1)",
    "DIS_LEGACY_SPI_BOOT": "Not disabled Legcy SPI boot (set DIS_LEGACY_SPI_BOOT->1)",
    "DIS_DIRECT_BOOT": "Not disabled direct boot mode (set DIS_DIRECT_BOOT->1)",
}
_ESP32_V2_FROM = 300


@dataclass(frozen=True, slots=True)
class SecureBootFinding:
    """One line of the check, logged under ``secure_boot``."""

    text: str
    fails: bool = True
    is_error: bool = False
    """Logged as an error, not as a warning."""


def secure_boot_findings(efuses: Efuses, *, aggressive: bool = False) -> tuple[SecureBootFinding, ...]:
    """What the check would log, in its order; `aggressive`: the build wants aggressive revocation."""
    if efuses.has_field("ABS_DONE_1"):
        return tuple(_esp32(efuses))
    return tuple(_later_chip(efuses, aggressive=aggressive))


def _esp32(efuses: Efuses) -> Iterator[SecureBootFinding]:
    knows_v2 = efuses.chip_rev_full >= _ESP32_V2_FROM
    v1, v2 = bool(efuses.field("ABS_DONE_0")), bool(efuses.field("ABS_DONE_1")) and knows_v2
    if not v1 and not v2:
        yield SecureBootFinding("Not enabled Secure Boot V1 (set ABS_DONE_0->1)", is_error=True)
        if knows_v2:
            yield SecureBootFinding("Not enabled Secure Boot V2 (set ABS_DONE_1->1)", is_error=True)
    if v1 and not v2 and not efuses.read_protected("BLOCK2"):
        yield SecureBootFinding("Not read-protected secure boot key (set RD_DIS_BLK2->1)")
    if not efuses.write_protected("BLOCK2"):
        yield SecureBootFinding("Not write-protected secure boot key (set WR_DIS_BLK2->1)")
    if not efuses.field("JTAG_DISABLE"):
        yield SecureBootFinding("Not disabled JTAG (set DISABLE_JTAG->1)")
    if not efuses.field("CONSOLE_DEBUG_DISABLE"):
        yield SecureBootFinding("Not disabled ROM BASIC interpreter fallback (set CONSOLE_DEBUG_DISABLE->1)")
    if v2 and not efuses.field("UART_DOWNLOAD_DIS"):
        yield SecureBootFinding("Not disabled UART ROM Download mode (set UART_DOWNLOAD_DIS->1)")
    if v2 and not efuses.write_protected("RD_DIS"):
        yield SecureBootFinding(
            "Not disabled write-protection for read-protection (set WR_DIS_EFUSE_RD_DISABLE->1)"
        )


def _later_chip(efuses: Efuses, *, aggressive: bool) -> Iterator[SecureBootFinding]:
    if not secure_boot_enabled(efuses):
        yield SecureBootFinding("Not enabled Secure Boot (SECURE_BOOT_EN->1)")
    if not efuses.field("DIS_DOWNLOAD_MODE") and not efuses.field("ENABLE_SECURITY_DOWNLOAD"):
        yield SecureBootFinding("Download mode has not been changed, disable it or set security mode:")
        yield SecureBootFinding("Not disabled ROM Download mode (DIS_DOWNLOAD_MODE->1)")
        yield SecureBootFinding("Not enabled Security download mode (ENABLE_SECURITY_DOWNLOAD->1)")
    always = idf_burns(efuses.chip.name).always
    for fuse, text in _BOOT_MODE_TEXTS.items():
        if fuse in always and not efuses.field(fuse):
            yield SecureBootFinding(text)
    yield from _jtag(efuses)
    if aggressive and not efuses.field("SECURE_BOOT_AGGRESSIVE_REVOKE"):
        yield SecureBootFinding("Not enabled AGGRESSIVE KEY REVOKE (set SECURE_BOOT_AGGRESSIVE_REVOKE->1)")
    if not efuses.write_protected("RD_DIS"):
        yield SecureBootFinding("Not disabled write-protection for read-protection (set WR_DIS_RD_DIS->1)")
    yield from _keys(efuses)


def _jtag(efuses: Efuses) -> Iterator[SecureBootFinding]:
    if efuses.has_field("SOFT_DIS_JTAG"):
        row = efuses.geometry.field("SOFT_DIS_JTAG")
        if efuses.field("SOFT_DIS_JTAG") == (1 << row.bits) - 1:
            if any(block_with_purpose(efuses, purpose) for purpose in _HMAC_JTAG_PURPOSES):
                return
            yield SecureBootFinding(
                "SOFT_DIS_JTAG is set but HMAC key with respective purpose not found", fails=False
            )
    for fuse, text in idf_burns(efuses.chip.name).jtag_texts:
        if not efuses.field(fuse):
            yield SecureBootFinding(text)


def _keys(efuses: Efuses) -> Iterator[SecureBootFinding]:
    found = 0
    for slot, block in _digest_blocks(efuses):
        if efuses.has_field(f"SECURE_BOOT_KEY_REVOKE{slot}") and efuses.field(
            f"SECURE_BOOT_KEY_REVOKE{slot}"
        ):
            continue
        found += 1
        number = efuses.geometry.block(block).index
        index = number - efuses.geometry.block("BLOCK_KEY0").index
        if _is_hidden(efuses, block):
            yield from _useless(efuses, slot, number, "be read-protected")
        if not any(efuses.block_for_software(block)):
            yield from _useless(efuses, slot, number, "be empty")
        if not efuses.write_protected(block):
            yield SecureBootFinding(
                f"Not write-protected secure boot key in BLOCK{number} (set WR_DIS_KEY{index}->1)"
            )
        if not all(efuses.write_protected(field) for field in efuses.geometry.purpose_fields(block)):
            yield SecureBootFinding(
                f"Not write-protected KEY_PURPOSE for BLOCK{number} (set WR_DIS_KEY_PURPOSE{index}->1)"
            )
    if not found:
        yield SecureBootFinding("No secure boot key found", is_error=True)


def _digest_blocks(efuses: Efuses) -> Iterator[tuple[int, str]]:
    """Slot and block of each digest; the one key block where there are no purposes."""
    if not efuses.geometry.purpose_fields("BLOCK_KEY0"):
        yield 0, "BLOCK_KEY0"
        return
    for slot, purpose in enumerate(_DIGEST_PURPOSES):
        block = block_with_purpose(efuses, purpose)
        if block is not None:
            yield slot, block


def _is_hidden(efuses: Efuses, block: str) -> bool:
    """ESP32-C2 keeps its digest in the upper half of the block, which has an RD_DIS bit of its own."""
    if efuses.geometry.purpose_fields(block):
        return efuses.read_protected(block)
    return bool(efuses.field("RD_DIS") >> 1 & 1)


def _useless(efuses: Efuses, slot: int, number: int, what: str) -> Iterator[SecureBootFinding]:
    yield SecureBootFinding(
        f"Secure boot key in BLOCK{number} must NOT {what} (can not be used)", is_error=True
    )
    if efuses.has_field(f"SECURE_BOOT_KEY_REVOKE{slot}"):
        yield SecureBootFinding(
            f"Revoke this secure boot key (set SECURE_BOOT_KEY_REVOKE{slot}->1)", is_error=True
        )
