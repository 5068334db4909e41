"""What the application's ESP-IDF burns, and what its release checks say, as requests of the native port reach it.

Each call gives an ``esp_err_t`` and the lines that the driver logged, for the application to print under its own
clock. Sources: ``esp_efuse_fields.c``, ``flash_encrypt.c`` and ``secure_boot.c`` of ESP-IDF v5.5.5.
"""

from __future__ import annotations

from harness.chips.idf_burns import idf_burns
from harness.twin.boot_lines import Level
from harness.twin.efuse_driver import ERR_NOT_SUPPORTED, OK, DriverLog, EfuseDriver
from harness.twin.efuses import Efuses
from harness.twin.secure_boot_release import secure_boot_findings
from harness.twin.secure_boot_startup import SecureBootStartup
from harness.twin.secure_version import raise_secure_version
from harness.twin.security import EncryptionMode, encryption_mode, release_findings

WHO = "app"

_ERR_INVALID_STATE = 0x103
_UART_DOWNLOAD_DIS_FROM = 300
"""ESP32: revision whose ROM looks at the fuse."""


class AppEfuses:
    """The fuses in the hands of one application, which sees nothing but these calls and its log."""

    def __init__(self, efuses: Efuses, log: DriverLog) -> None:
        self._efuses = efuses
        self._log = log
        self._driver = EfuseDriver(efuses, log, who=WHO)

    def disable_download(self) -> int:
        """``esp_efuse_disable_rom_download_mode``."""
        efuses, name = self._efuses, self._efuses.chip.fuses.download_off
        if self._efuses.chip.fuses.secure_download is None:
            # ESP32: the counter's write protection freezes this fuse as well.
            if efuses.chip_rev_full < _UART_DOWNLOAD_DIS_FROM:
                return ERR_NOT_SUPPORTED
            if not efuses.field(name) and efuses.write_protected(name):
                return _ERR_INVALID_STATE
        return self._driver.set_bit(name)

    def enable_secure_download(self) -> int:
        """``esp_efuse_enable_rom_secure_download_mode``."""
        fuses = self._efuses.chip.fuses
        if fuses.secure_download is None:
            return ERR_NOT_SUPPORTED
        return OK if self._efuses.field(fuses.download_off) else self._driver.set_bit(fuses.secure_download)

    def set_release_mode(self) -> int:
        """``esp_flash_encryption_set_release_mode``: one batch, the download mode's lock with it.

        Gives _ERR_INVALID_STATE where ESP-IDF aborts: encryption off, or not in release mode afterwards.
        """
        efuses, chip = self._efuses, self._efuses.chip
        mode = encryption_mode(efuses)
        if mode is not EncryptionMode.DEVELOPMENT:
            return OK if mode is EncryptionMode.RELEASE else _ERR_INVALID_STATE
        burns, driver = idf_burns(chip.name), self._driver
        driver.begin()
        if not efuses.write_protected(chip.fuses.counter):
            count = bin(efuses.field(chip.fuses.counter)).count("1")
            if count != chip.fuses.counter_bits:
                driver.raise_count(chip.fuses.counter, chip.fuses.counter_bits - count)
        for name in burns.release_mode:
            driver.set_bit(name)
        if burns.counter_write_protect:
            driver.protect_writing(chip.fuses.counter)
        rounds = burns.release_pseudo_rounds
        if rounds is not None and not efuses.field(rounds):
            driver.write(rounds, 1)
        if burns.write_protect is not None:
            driver.protect_writing(burns.write_protect)
        if chip.fuses.secure_download is None:
            self.disable_download()
        else:
            self.enable_secure_download()
        driver.commit()
        return OK if encryption_mode(efuses) is EncryptionMode.RELEASE else _ERR_INVALID_STATE

    def set_bit(self, block: int, bit: int) -> int:
        """``esp_efuse_write_field_bit`` of a bit that is still 0, which the caller has seen."""
        return self._driver.write_bit(block, bit)

    def raise_secure_version(self, wanted: int, bits: int) -> int:
        """``esp_efuse_update_secure_version``."""
        return raise_secure_version(self._efuses, self._driver, self._log, wanted, bits)

    def verify_encryption(self) -> bool:
        """``esp_flash_encryption_cfg_verify_release_mode``, with its warnings."""
        findings = release_findings(self._efuses)
        for finding in findings:
            if finding.text:
                self._log.log(Level.WARN, "flash_encrypt", finding.text)
        return not any(finding.fails for finding in findings)

    def check_secure_boot(self, *, allow_unused_slots: bool) -> int:
        """``esp_secure_boot_init_checks``: what the start-up mends."""
        check = SecureBootStartup(self._efuses, self._driver, self._log)
        return check.run(allow_unused_slots=allow_unused_slots)

    def write_protect_at_start(self) -> int:
        """The write protection that ``esp_security_init`` adds in a build with secure boot; where there is one, OK."""
        fuse = idf_burns(self._efuses.chip.name).start_up_write_protect
        if fuse is None:
            return OK
        error = self._driver.protect_writing(fuse)
        if error:
            text = f"Failed to write protect the {fuse} efuse bit."
            self._log.log(Level.ERROR, "esp_security", text)
        return error

    def verify_secure_boot(self, *, aggressive: bool) -> bool:
        """``esp_secure_boot_cfg_verify_release_mode``, with its warnings."""
        findings = secure_boot_findings(self._efuses, aggressive=aggressive)
        for finding in findings:
            self._log.log(Level.ERROR if finding.is_error else Level.WARN, "secure_boot", finding.text)
        return not any(finding.fails for finding in findings)
