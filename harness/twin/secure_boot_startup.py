"""What an application built with secure boot does about the digests' fuses when it starts.

``esp_secure_boot_init_checks`` of ESP-IDF v5.5: it mends what provisioning left open. That costs fuses which nobody
asked for, unused digest slots above all, so a plan has to burn them before the first start.
"""

from __future__ import annotations

from harness.chips import KEY_PURPOSE_NUMBERS
from harness.twin.boot_lines import Level
from harness.twin.efuse_driver import OK, DriverLog, EfuseDriver
from harness.twin.efuses import Efuses
from harness.twin.security import block_with_purpose, secure_boot_enabled

_TAG = "secure_boot"
_ERR_INVALID_STATE = 0x103


class SecureBootStartup:
    """The check of one start."""

    def __init__(self, efuses: Efuses, driver: EfuseDriver, log: DriverLog) -> None:
        self._efuses = efuses
        self._fuses = efuses.chip.secure_boot
        self._driver = driver
        self._log = log
        self._mends = False

    def run(self, *, allow_unused_slots: bool) -> int:
        """Check, and mend; _ERR_INVALID_STATE where ESP-IDF aborts.

        `allow_unused_slots` is CONFIG_SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS.

        Raises:
            PowerLost: the supply was cut at one of the burns.
        """
        if not secure_boot_enabled(self._efuses):
            self._say(
                Level.ERROR, "Mismatch in secure boot settings: the app config is enabled but eFuse not"
            )
            return OK
        if self._fuses.digest_block is not None:
            readable = self._check_block(self._fuses.digest_block, half=self._fuses.digest_part is not None)
        else:
            readable = all(
                self._check_slot(slot, allow_unused=allow_unused_slots)
                for slot in range(len(self._fuses.digest_purposes))
            )
        if not readable:
            return _ERR_INVALID_STATE
        if self._mends:
            error = self._driver.commit()
            if error:
                self._say(Level.ERROR, f"Error programming eFuses (err=0x{error & 0xFFFFFFFF:x})")
            else:
                self._say(Level.INFO, "Fixed")
        return OK

    def _check_slot(self, slot: int, *, allow_unused: bool) -> bool:
        block = block_with_purpose(self._efuses, KEY_PURPOSE_NUMBERS[self._fuses.digest_purposes[slot]])
        revoked = bool(self._efuses.field(self._fuses.revoke[slot]))
        if block is None:
            if not revoked:
                self._mend_unused(slot, allow_unused=allow_unused)
            return True
        if not revoked and not self._check_block(block):
            return False
        purposes = self._efuses.geometry.purpose_fields(block)
        if not all(self._efuses.write_protected(name) for name in purposes):
            number = self._efuses.geometry.block(block).index
            text = f"The KEY_PURPOSE_SECURE_BOOT_DIGEST{number} should be write-protected. Fixing.."
            self._mend(text)
            for name in purposes:
                self._driver.protect_writing(name)
        return True

    def _mend_unused(self, slot: int, *, allow_unused: bool) -> None:
        text = f"Unused SECURE_BOOT_DIGEST{slot} should be revoked."
        if allow_unused:
            self._say(Level.WARN, f"{text} It will not be fixed due to the config")
            return
        self._mend(f"{text} Fixing..")
        self._driver.set_bit(self._fuses.revoke[slot])

    def _check_block(self, block: str, *, half: bool = False) -> bool:
        """False where ESP-IDF aborts. `half`: the other half holds a flash key, which is hidden."""
        number = self._efuses.geometry.block(block).index
        if not half and self._efuses.read_protected(block):
            self._say(Level.ERROR, f"eFuse BLOCK{number} should be readable")
            return False
        if not any(self._efuses.block_for_software(block)):
            self._say(Level.ERROR, f"eFuse BLOCK{number} should not be empty")
            return False
        if not self._efuses.write_protected(block):
            self._mend(f"eFuse BLOCK{number} should not be writeable. Fixing..")
            self._driver.protect_writing(block)
        return True

    def _mend(self, text: str) -> None:
        if not self._mends:
            self._driver.begin()
            self._mends = True
        self._say(Level.WARN, text)

    def _say(self, level: Level, text: str) -> None:
        self._log.log(level, _TAG, text)
