"""The first start of a bootloader built with secure boot v2 on a chip without: digests, locks, and the fuse itself.

What ``secure_boot_v2/secure_boot.c`` and each chip's ``secure_boot_secure_features.c`` of ESP-IDF v5.5 do, in their
order and words, as one batch of the eFuse driver: nothing is burned unless everything before it was right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from harness.chips import KEY_PURPOSE_NUMBERS, SigningScheme
from harness.chips.idf_burns import idf_burns
from harness.formats.bootloader_config import BootloaderConfig
from harness.twin.boot_context import BootContext
from harness.twin.boot_lines import BootLog
from harness.twin.efuse_driver import ERR_NOT_SUPPORTED, FAIL, OK, EfuseDriver
from harness.twin.image_signature import signing_scheme
from harness.twin.image_verify import ImageCheck, ImageRejected, VerifiedImage
from harness.twin.security import (
    block_with_purpose,
    flash_encryption_enabled,
    secure_boot_enabled,
)
from harness.twin.signature import (
    MAGIC,
    SECTOR_BYTES,
    ImageDigest,
    SignatureBlock,
    blocks_of,
)

WHO = "bootloader"

_TAG = "secure_boot_v2"
_TAG_FEATURES = "secure_boot"
_COMPROMISED = " - SECURITY COMPROMISED"
_ERR_INVALID_STATE = 0x103
_ERR_NOT_ENOUGH_KEY_BLOCKS = 0x1605
_PURPOSE_WITHOUT_FIELD = 3
"""``ESP_EFUSE_KEY_PURPOSE_SECURE_BOOT_V2``: ESP-IDF's own number where there is no purpose field."""
_CODING_3_4, _CODING_REPEAT = 1, 2


class _Failed(Exception):  # noqa: N818 - carries what ESP-IDF's function returns
    def __init__(self, error: int) -> None:
        super().__init__(f"{error:#x}")
        self.error = error


@dataclass(frozen=True, slots=True)
class DigestPlace:
    """Where one digest goes, or is: block, purpose, and where in the block it begins."""

    block: str
    number: int
    """As ESP-IDF counts key blocks: 0 is EFUSE_BLK_KEY0."""
    purpose: int
    offset: int


class FirstSecureBoot:
    """One attempt, after an app was found that would start.

    `image_check` gives the bootloader's check of an image that is only verified.
    """

    def __init__(
        self,
        ctx: BootContext,
        config: BootloaderConfig,
        log: BootLog,
        driver: EfuseDriver,
        image_check: Callable[[], ImageCheck],
    ) -> None:
        self._ctx = ctx
        self._chip = ctx.chip
        self._fuses = ctx.chip.secure_boot
        self._efuses = ctx.efuses
        self._config = config
        self._log = log
        self._driver = driver
        self._image_check = image_check

    def run(self, app: VerifiedImage) -> int:
        """Enable secure boot unless it is on; what ESP-IDF's function returns (an ``esp_err_t``).

        Within a batch of the caller's nothing is burned yet.

        Raises:
            PowerLost: the supply was cut at one of the burns.
        """
        self._log.info(_TAG, "enabling secure boot v2...")
        if secure_boot_enabled(self._efuses):
            self._log.info(_TAG, "secure boot v2 is already enabled, continuing..")
            return OK
        self._driver.begin()
        try:
            self._settle_digests(app)
            self._log.info(_TAG, "blowing secure boot efuse...")
            self._note_features()
        except _Failed as failed:
            self._driver.cancel()
            return failed.error
        error = self._driver.commit()
        if error:
            self._log.error(_TAG, f"Error programming security eFuses (err=0x{error & 0xFFFFFFFF:x}).")
        elif secure_boot_enabled(self._efuses):
            self._log.info(_TAG, "Secure boot permanently enabled")
        return error

    # Digests

    def _settle_digests(self, app: VerifiedImage) -> None:
        """``check_and_generate_secure_boot_keys``."""
        if self._has_coding_scheme():
            raise _Failed(ERR_NOT_SUPPORTED)
        bootloader = self._verified_bootloader()
        places = self._burned_places()
        state = "already present" if any(places) else "absent, generating.."
        self._log.info(_TAG, f"Secure boot digests {state}")
        known = self._preloaded(places) if any(places) else self._burn_digests_of(bootloader)
        of_app = self._digests_of(app, "Application signature block is invalid.")
        if not of_app:
            self._fail("No valid applications signature blocks found.")
        self._log.info(_TAG, f"{len(of_app)} signature block(s) found appended to the app.")
        if len(of_app) > len(known):
            self._log.warn(
                _TAG,
                f"App has {len(of_app)} signature blocks but bootloader only has {len(known)}. "
                "Some keys missing from bootloader?",
            )
        self._match(known, of_app)
        self._revoke_unused(len(known))

    def _has_coding_scheme(self) -> bool:
        """ESP32 with 3/4 coding or repetition: the block is too small for a digest."""
        if not self._efuses.has_field("CODING_SCHEME"):
            return False
        found = self._efuses.field("CODING_SCHEME")
        if found not in (_CODING_3_4, _CODING_REPEAT):
            return False
        text = f"No coding schemes are supported in secure boot v2.(Detected scheme: 0x{found:x})"
        self._log.error(_TAG, text)
        return True

    def _verified_bootloader(self) -> VerifiedImage:
        offset = self._chip.bootloader_offset
        try:
            return self._image_check().verify(offset, self._config.table_offset - offset)
        except ImageRejected as rejected:
            self._log.error(_TAG, f"bootloader image appears invalid! error {rejected.status}")
            raise _Failed(rejected.status) from rejected

    def _digests_of(self, image: VerifiedImage, invalid: str) -> list[bytes]:
        """The keys of an image whose signatures all verify, up to the first block that is none."""
        signed_bytes = image.size_bytes - SECTOR_BYTES
        content = self._ctx.cipher.read(image.offset, signed_bytes)
        sector = self._ctx.cipher.read(image.offset + signed_bytes, SECTOR_BYTES)
        digest, found = ImageDigest.of(content), list[bytes]()
        for index, block in enumerate(blocks_of(sector)[: self._fuses.signature_blocks]):
            if not self._is_valid(block, digest):
                break
            if not block.verifies(self._chip, digest):
                if block.is_rsa(self._chip):
                    self._log.say("Signature Check Failed")
                self._log.error(_TAG, f"Secure boot key ({index}) verification failed.")
                self._fail(invalid)
            found.append(block.key_digest(self._chip)[: self._fuses.digest_size_bytes])
        if found:
            self._log.info(
                _TAG,
                f"Digests successfully calculated, {len(found)} valid signatures "
                f"(image offset 0x{image.offset:x})",
            )
        return found

    def _is_valid(self, block: SignatureBlock, image: ImageDigest) -> bool:
        if block.magic != MAGIC:
            return False
        if block.stored_crc != block.computed_crc:
            self._log.error(_TAG, "Magic byte correct but incorrect crc.")
            return False
        claimed = block.image_digest(self._chip)
        if claimed != image.of_length(len(claimed)):
            self._log.error(_TAG, "Magic byte & CRC correct but incorrect image digest.")
            return False
        return True

    def _match(self, known: list[bytes], of_app: list[bytes]) -> None:
        matched = False
        for i, digest in enumerate(known):
            if self._is_revoked(i):
                self._log.info(_TAG, f"Key block({i}) has been revoked.")
                continue
            for j, other in enumerate(of_app):
                if digest == other:
                    self._log.info(_TAG, f"Application key({j}) matches with bootloader key({i}).")
                    matched = True
        if not matched:
            self._fail("No application key digest matches the bootloader key digest.")

    def _is_revoked(self, slot: int) -> bool:
        return slot < len(self._fuses.revoke) and bool(self._efuses.field(self._fuses.revoke[slot]))

    def _revoke_unused(self, used: int) -> None:
        for slot, name in list(enumerate(self._fuses.revoke))[used:]:
            if self._config.allow_unused_digest_slots:
                self._log.warn(
                    _TAG,
                    f"Unused key digest slot ({slot}) left un-revoked due to the config "
                    "SECURE_BOOT_ALLOW_UNUSED_DIGEST_SLOTS",
                )
                continue
            self._log.info(_TAG, f"Revoking empty key digest slot ({slot})...")
            self._driver.set_bit(name)

    # Key blocks

    @property
    def _only_place(self) -> DigestPlace | None:
        """The one block that there is for a digest; None where any free block will do."""
        name = self._fuses.digest_block
        if name is None:
            return None
        block = self._efuses.geometry.block(name)
        number = block.index - self._first_key_block
        return DigestPlace(
            name, number, _PURPOSE_WITHOUT_FIELD, block.size_bytes - self._fuses.digest_size_bytes
        )

    @property
    def _first_key_block(self) -> int:
        """Index of EFUSE_BLK_KEY0: on ESP32 the flash key's block."""
        geometry = self._efuses.geometry
        return geometry.block("BLOCK_KEY0" if geometry.has_block("BLOCK_KEY0") else "BLOCK1").index

    def _burned_places(self) -> list[DigestPlace | None]:
        """Per digest slot the block that has its purpose and is in use."""
        only = self._only_place
        if only is not None:
            return [None if self._is_unused(only.block) else only]
        return [self._place_with(purpose) for purpose in self._fuses.digest_purposes]

    def _place_with(self, purpose: str) -> DigestPlace | None:
        number = KEY_PURPOSE_NUMBERS[purpose]
        block = block_with_purpose(self._efuses, number)
        return None if block is None else DigestPlace(block, int(block[-1]), number, 0)

    def _is_unused(self, block: str) -> bool:
        """``esp_efuse_key_block_unused``."""
        if self._only_place is None:
            purpose = f"KEY_PURPOSE_{block[-1]}"
            if self._efuses.field(purpose) or self._efuses.write_protected(purpose):
                return False
        return not (
            self._efuses.read_protected(block)
            or self._efuses.write_protected(block)
            or any(self._efuses.block_for_software(block))
        )

    def _preloaded(self, places: list[DigestPlace | None]) -> list[bytes]:
        """The digests that somebody has burned; their blocks are write-protected from now on."""
        digests: list[bytes] = []
        for slot, place in enumerate(places):
            if place is None or self._is_revoked(slot):
                continue
            index = self._efuses.geometry.block(place.block).index
            content = self._efuses.block_for_software(place.block)
            if place.offset == 0 and self._efuses.read_protected(place.block):
                self._fail(f"Key digest (BLK{index}) read protected, aborting...")
            if not any(content):
                self._fail(f"{index} eFuse block is empty, aborting...")
            self._driver.protect_writing(place.block)
            digests.append(content[place.offset :])
        if not digests:
            self._fail("No valid pre-loaded public key digest in eFuse")
        self._log.warn(_TAG, "Using pre-loaded public key digest in eFuse")
        return digests

    def _burn_digests_of(self, bootloader: VerifiedImage) -> list[bytes]:
        digests = self._digests_of(bootloader, "Bootloader signature block is invalid")
        if not digests:
            self._fail("No valid bootloader signature blocks found.")
        self._log.info(_TAG, f"{len(digests)} signature block(s) found appended to the bootloader.")
        self._log.info(_TAG, "Burning public key hash to eFuse")
        error = self._write_keys(digests)
        if error == _ERR_NOT_ENOUGH_KEY_BLOCKS:
            self._log.error(_TAG, f"Bootloader signatures({len(digests)}) more than available key slots.")
        elif error:
            self._log.error(
                _TAG, f"Failed to write efuse block with purpose (err=0x{error:x}). Can't continue."
            )
        if error:
            raise _Failed(error)
        return digests

    def _write_keys(self, digests: list[bytes]) -> int:
        """``esp_efuse_write_keys``: into the first blocks that nothing uses, or into the only one."""
        driver = self._driver
        driver.begin()
        only = self._only_place
        if only is not None:
            places = [only]
        else:
            free = [
                number
                for number in range(len(self._efuses.geometry.key_blocks))
                if self._is_unused(f"BLOCK_KEY{number}")
            ]
            if len(free) < len(digests):
                text = f"Not enough unused key blocks available. Required {len(digests)}, was {len(free)}"
                self._log.error("efuse", text)
                driver.cancel()
                return _ERR_NOT_ENOUGH_KEY_BLOCKS
            places = [
                DigestPlace(f"BLOCK_KEY{number}", number, KEY_PURPOSE_NUMBERS[purpose], 0)
                for number, purpose in zip(free, self._fuses.digest_purposes, strict=False)
            ]
        for place, digest in zip(places, digests, strict=False):
            name = f"EFUSE_BLK_KEY{place.number}"
            self._log.info("efuse", f"Writing {name} with purpose {place.purpose}")
            error = self._write_key(place, digest)
            if error:
                text = f"Failed to write {name} with purpose {place.purpose}. Can't continue."
                self._log.error("efuse", text)
                driver.cancel()
                return error
        return driver.commit()

    def _write_key(self, place: DigestPlace, digest: bytes) -> int:
        driver = self._driver
        driver.begin()
        if not self._is_unused(place.block):
            driver.cancel()
            return _ERR_INVALID_STATE
        driver.write_block(place.block, bytes(place.offset) + digest)
        driver.protect_writing(place.block)
        if self._only_place is None:
            driver.write(f"KEY_PURPOSE_{place.number}", place.purpose)
            driver.protect_writing(f"KEY_PURPOSE_{place.number}")
        return driver.commit()

    # Everything else that is burned with it

    def _note_features(self) -> None:
        """``esp_secure_boot_enable_secure_features``."""
        jtag = [(name, value) for name, value in self._fuses.burned_with if "JTAG" in name]
        others = [(name, value) for name, value in self._fuses.burned_with if "JTAG" not in name]
        if self._chip.fuses.secure_download is None:
            self._note_esp32_features(jtag, others)
        else:
            self._note_all(others)
            self._note_download_lock()
            self._note_door("allow_jtag", "hardware & software JTAG", "JTAG", jtag)
            if self._config.aggressive_revoke and self._fuses.aggressive_revoke is not None:
                self._driver.set_bit(self._fuses.aggressive_revoke)
            scheme = signing_scheme(self._chip, self._config.secure_boot_scheme)
            if scheme is SigningScheme.ECDSA_P384 and self._fuses.sha384_enable is not None:
                self._driver.set_bit(self._fuses.sha384_enable)
            self._driver.set_bit(self._fuses.enable)
        self._note_frozen_read_protection()

    def _note_esp32_features(self, jtag: list[tuple[str, int]], basic: list[tuple[str, int]]) -> None:
        if self._driver.set_bit(self._fuses.enable):
            self._log.error(_TAG_FEATURES, "Blowing secure boot efuse...failed.")
            raise _Failed(FAIL)
        self._note_door("allow_jtag", "JTAG", "JTAG", jtag)
        self._note_door("allow_rom_basic", "ROM BASIC interpreter fallback", "ROM BASIC fallback", basic)
        self._note_download_lock()

    def _note_door(self, left_open_by: str, closing: str, name: str, fuses: list[tuple[str, int]]) -> None:
        if getattr(self._config, left_open_by):
            self._log.warn(_TAG_FEATURES, f"Not disabling {name}{_COMPROMISED}")
            return
        self._log.info(_TAG_FEATURES, f"Disable {closing}...")
        self._note_all(fuses)

    def _note_all(self, fuses: list[tuple[str, int]]) -> None:
        for name, value in fuses:
            if value == 1:
                self._driver.set_bit(name)
            else:
                self._driver.raise_count(name, bin(value).count("1"))

    def _note_download_lock(self) -> None:
        fuses, lock = self._chip.fuses, self._config.download_lock
        if lock == "secure-download" and fuses.secure_download is not None:
            self._log.info(_TAG_FEATURES, "Enabling Security download mode...")
            if not self._efuses.field(fuses.download_off):
                self._driver.set_bit(fuses.secure_download)
        elif lock == "download-off":
            self._log.info(_TAG_FEATURES, "Disable ROM Download mode...")
            error = self._disable_download()
            if error:
                self._log.error(_TAG_FEATURES, "Could not disable ROM Download mode...")
                raise _Failed(error)
        else:
            self._log.warn(_TAG_FEATURES, f"UART ROM Download mode kept enabled{_COMPROMISED}")

    def _disable_download(self) -> int:
        """``esp_efuse_disable_rom_download_mode``: ESP32 looks first whether it can."""
        name = self._chip.fuses.download_off
        if self._chip.fuses.secure_download is None:
            if self._efuses.chip_rev_full < self._fuses.min_chip_rev_full:
                return ERR_NOT_SUPPORTED
            if not self._efuses.field(name) and self._efuses.write_protected(name):
                return _ERR_INVALID_STATE
        return self._driver.set_bit(name)

    def _note_frozen_read_protection(self) -> None:
        if self._config.allow_read_protect:
            self._log.warn(_TAG_FEATURES, f"Allowing read disabling of additional efuses{_COMPROMISED}")
            return
        # Where both are still to come, encryption freezes it, after the flash key has been hidden.
        later = idf_burns(self._chip.name).digest_write_protect is not None
        if later and self._config.flash_encryption != "off" and not flash_encryption_enabled(self._efuses):
            return
        self._log.info(_TAG_FEATURES, "Prevent read disabling of additional efuses...")
        self._driver.protect_writing(self._fuses.write_protect)

    def _fail(self, text: str) -> NoReturn:
        self._log.error(_TAG, text)
        raise _Failed(FAIL)
