"""Signatures as ESP-IDF's code checks them: its bootloader through the ROM, its applications by themselves.

Order of the checks and lines are those of ``secure_boot_signatures_bootloader.c`` and
``secure_boot_signatures_app.c`` of v5.5. The two differ: the bootloader takes whatever the ROM takes, an application
looks at as many blocks as ESP-IDF knows for its chip, asks for the scheme it was built for, and does not look at the
image digest that a block repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from harness.chips import CURVE_MODE_BOTH, Chip, SigningScheme
from harness.twin.boot_lines import Level
from harness.twin.efuse_driver import FAIL, EfuseDriver
from harness.twin.security import FuseReader, secure_boot_enabled
from harness.twin.signature import (
    CURVES,
    MAGIC,
    VERSION_ECDSA,
    VERSION_RSA,
    ImageDigest,
    SignatureBlock,
    blocks_of,
    pss_fault,
    trusted_digests,
    usable_curves,
    verify_as_rom,
)

_TAG = "secure_boot_v2"
_RSA_TAG = "secure_boot_v2_rsa"
_SCHEME_NAMES = {0: "ECDSA", VERSION_RSA: "RSA", VERSION_ECDSA: "ECDSA"}
_VERIFIED = "Signature verified successfully!"


class SignatureLog(Protocol):
    """Where a check reports. `say` is the ROM's console: no stamp, no level."""

    def log(self, level: Level, tag: str, text: str) -> None: ...

    def say(self, text: str) -> None: ...


class ImageSignature(Protocol):
    """The check of one program; what it finds has been logged when it returns."""

    def verifies(self, sector: bytes, image: ImageDigest, log: SignatureLog) -> bool: ...


def signing_scheme(chip: Chip, word: str) -> SigningScheme:
    """The scheme of a build's configuration; without a word the first that the chip verifies."""
    return SigningScheme(word) if word else chip.secure_boot.schemes[0]


class _Scheme:
    """The scheme that a build was configured for."""

    def __init__(self, efuses: FuseReader, scheme: SigningScheme, driver: EfuseDriver | None) -> None:
        self._efuses = efuses
        self._scheme = scheme
        self._driver = driver

    @property
    def version(self) -> int:
        return VERSION_RSA if self._scheme.is_rsa else VERSION_ECDSA

    @property
    def name(self) -> str:
        return _SCHEME_NAMES[self.version]

    @property
    def verifying(self) -> str:
        return "Verifying with RSA-PSS..." if self._scheme.is_rsa else "Verifying with ECDSA..."

    def takes(self, block: SignatureBlock, log: SignatureLog) -> bool:
        """``validate_signature_block``: magic and CRC without a word, then version and curve."""
        if block.magic != MAGIC or block.stored_crc != block.computed_crc:
            return False
        if block.version != self.version:
            found = _SCHEME_NAMES.get(block.version, "Unknown")
            text = f"{self.name} signing scheme selected but signature block generated for {found} scheme"
            log.log(Level.ERROR, _TAG, text)
            return False
        wanted = next((curve for curve in CURVES if curve.scheme is self._scheme), None)
        if wanted is not None and block.data[wanted.key_at] != wanted.id:
            found_id = block.data[wanted.key_at]
            text = f"ECDSA curve mismatch: actual (curve_id {found_id}), expected (curve_id {wanted.id})"
            log.log(Level.ERROR, _TAG, text)
            return False
        return self._enables_curve(log)

    def _enables_curve(self, log: SignatureLog) -> bool:
        """``esp_efuse_enable_ecdsa_p192_curve_mode``: burns what the curve of the build wants."""
        fuse, curves = self._efuses.chip.secure_boot.curve_mode, usable_curves(self._efuses)
        if fuse is None or curves is None or self._scheme is not SigningScheme.ECDSA_P192:
            return True
        if self._scheme in curves:
            return True
        if self._efuses.field(fuse) or self._efuses.write_protected(fuse) or self._driver is None:
            log.log(Level.ERROR, "efuse", "ECDSA curve mode is locked, cannot enable P-192 curve")
            error = FAIL
        else:
            error = self._driver.write(fuse, CURVE_MODE_BOTH)
        if error:
            log.log(Level.ERROR, _TAG, f"Failed to enable ECDSA-192 curve mode: {error}")
        return not error


class BootloaderSignature:
    """The second-stage bootloader's check; with `driver` it burns what it needs for it."""

    def __init__(self, efuses: FuseReader, scheme: SigningScheme, driver: EfuseDriver | None = None) -> None:
        self._efuses = efuses
        self._chip = efuses.chip
        self._scheme = _Scheme(efuses, scheme, driver)

    def verifies(self, sector: bytes, image: ImageDigest, log: SignatureLog) -> bool:
        blocks = blocks_of(sector)
        trusted = self._trusted(blocks, log)
        if trusted is None:
            return False
        log.log(Level.INFO, _TAG, self._scheme.verifying)
        if self._chip.secure_boot.digest_purposes and not self._any_of_scheme(blocks, log):
            return False
        verdict = verify_as_rom(self._chip, sector, image, trusted, curves=usable_curves(self._efuses))
        for line in verdict.lines:
            log.say(line)
        if not verdict.accepted:
            log.log(Level.ERROR, _TAG, "Secure Boot V2 verification failed.")
            return False
        log.log(Level.INFO, _TAG, _VERIFIED)
        return True

    def _trusted(self, blocks: tuple[SignatureBlock, ...], log: SignatureLog) -> list[bytes] | None:
        """The digests to trust; None when there are none although secure boot is on.

        An empty slot is handed to the ROM as zeros. Before secure boot is on, an image vouches for itself where no
        digest is burned.
        """
        size = self._chip.secure_boot.digest_size_bytes
        burned = trusted_digests(self._efuses)
        trusted = [digest or bytes(size) for digest in burned]
        known = any(digest is not None for digest in burned)
        if len(burned) == 1:
            known = any(self._efuses.block_for_software(self._efuses.chip.secure_boot.digest_block or ""))
        enabled = secure_boot_enabled(self._efuses)
        if not known:
            if enabled:
                log.log(Level.ERROR, _TAG, "Could not read eFuse secure boot digests!")
                return None
            text = "Secure boot V2 is not enabled yet and eFuse digest keys are not set"
            log.log(Level.INFO, _TAG, text)
        if not enabled:
            for index, block in enumerate(blocks[: self._chip.secure_boot.signature_blocks]):
                if self._scheme.takes(block, log) and not known:
                    trusted[index] = block.key_digest(self._chip)[:size]
        return trusted

    def _any_of_scheme(self, blocks: tuple[SignatureBlock, ...], log: SignatureLog) -> bool:
        if any(b.version == self._scheme.version for b in blocks[: self._chip.secure_boot.signature_blocks]):
            return True
        name = self._scheme.name
        text = f"{name} signing scheme selected but no signature block for the selected scheme"
        log.log(Level.ERROR, _TAG, "No signature block generated for valid scheme")
        log.log(Level.ERROR, _TAG, text)
        return False


class AppSignature:
    """The check of an application with secure boot, before it accepts an update.

    `running` gives the running app's own signature sector: its keys are trusted as long as secure boot is off.
    With `driver` it burns what it needs for the check.
    """

    def __init__(
        self,
        efuses: FuseReader,
        scheme: SigningScheme,
        running: Callable[[], bytes],
        driver: EfuseDriver | None = None,
    ) -> None:
        self._efuses = efuses
        self._running = running
        self._chip = efuses.chip
        self._rsa = scheme.is_rsa
        self._scheme = _Scheme(efuses, scheme, driver)

    def verifies(self, sector: bytes, image: ImageDigest, log: SignatureLog) -> bool:
        trusted = self._trusted(log)
        if not any(trusted):
            log.log(Level.ERROR, _TAG, "Could not read secure boot digests!")
            return False
        for index, block in enumerate(blocks_of(sector)[: self._chip.secure_boot.signature_blocks]):
            if not self._scheme.takes(block, log):
                continue
            digest = block.key_digest(self._chip)
            slot = next((i for i, known in enumerate(trusted) if known and digest.startswith(known)), None)
            if slot is None:
                continue
            log.log(Level.INFO, _TAG, f"#{index} app key digest == #{slot} trusted key digest")
            log.log(Level.INFO, _TAG, self._scheme.verifying)
            if self._verifies(block, image, log):
                return True
        return False

    def _trusted(self, log: SignatureLog) -> Sequence[bytes | None]:
        if secure_boot_enabled(self._efuses):
            log.log(Level.INFO, _TAG, "Take trusted digest key(s) from eFuse block(s)")
            return trusted_digests(self._efuses)
        log.log(Level.INFO, _TAG, "Take trusted digest key(s) from running app")
        size = self._chip.secure_boot.digest_size_bytes
        blocks = blocks_of(self._running())[: self._chip.secure_boot.signature_blocks]
        own = [b.key_digest(self._chip)[:size] for b in blocks if self._scheme.takes(b, log)]
        if not own:
            log.log(Level.ERROR, _TAG, "No signatures were found for the running app")
        return own

    def _verifies(self, block: SignatureBlock, image: ImageDigest, log: SignatureLog) -> bool:
        verified = block.verifies(self._chip, image, by_hardware=False)
        if self._rsa:
            if verified:
                log.log(Level.INFO, _RSA_TAG, _VERIFIED)
            else:
                log.log(Level.ERROR, _RSA_TAG, pss_fault(block))
        return verified
