"""The anti-rollback fuses as ESP-IDF raises them (``esp_efuse_update_secure_version``)."""

from __future__ import annotations

from harness.twin.boot_lines import Level
from harness.twin.efuse_driver import ERR_NOT_SUPPORTED, FAIL, OK, DriverLog, EfuseDriver
from harness.twin.efuses import Efuses
from harness.twin.security import secure_version

_TAG = "efuse"
_ERR_INVALID_ARG = 0x102


def raise_secure_version(
    efuses: Efuses, driver: EfuseDriver, log: DriverLog, wanted: int, bits: int = 0
) -> int:
    """Burn bits until `wanted` of them are set; an ``esp_err_t``.

    `bits` is CONFIG_BOOTLOADER_APP_SEC_VER_SIZE_EFUSE_FIELD, 0 for the chip's whole field. That nothing could be
    burned shows in the driver's lines only: ESP-IDF does not look at what the write returned.

    Raises:
        PowerLost: the supply was cut at the burn.
    """
    field_bits = efuses.geometry.field("SECURE_VERSION").bits
    size = min(bits, field_bits) if bits else field_bits
    if wanted > size:
        log.log(
            Level.ERROR, _TAG, f"Max secure version is {size}. Given {wanted} version can not be written."
        )
        return _ERR_INVALID_ARG
    if _field_is_coded(efuses):
        log.log(Level.ERROR, _TAG, "Anti rollback is not supported with any coding scheme.")
        return ERR_NOT_SUPPORTED
    found = secure_version(efuses, size)
    if found < wanted:
        driver.write("SECURE_VERSION", (1 << wanted) - (1 << found))
        log.log(Level.INFO, _TAG, f"Anti-rollback is set. eFuse field is updated({wanted}).")
    elif found > wanted:
        log.log(
            Level.ERROR,
            _TAG,
            f"Anti-rollback is not set. secure_version of app is lower that eFuse field({found}).",
        )
        return FAIL
    return OK


def _field_is_coded(efuses: Efuses) -> bool:
    """ESP32 keeps the field in block 3, whose coding scheme is that of its flash key."""
    return efuses.has_field("CODING_SCHEME") and efuses.field("CODING_SCHEME") in (1, 2)
