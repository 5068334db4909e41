"""Secure boot v2 in the mask ROM: the bootloader's signature is verified before anything of it is loaded.

Order, lines and failures of ESP32 (revision 3) and ESP32-C3 were read in their ROMs and tried in QEMU. Chips whose
ROM could not be looked at are taken to do as ESP32-C3.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from harness.chips import Chip
from harness.twin.boot_lines import RomLines
from harness.twin.efuses import Efuses
from harness.twin.image_verify import HEADER_BYTES, SEGMENT_HEADER_BYTES, SHA256_BYTES, ImageHeader
from harness.twin.signature import SECTOR_BYTES, ImageDigest, trusted_digests, usable_curves, verify_as_rom

_WHO = "rom"
_MAX_SEGMENT_BYTES = 0x100000


class SignatureRefused(Exception):  # noqa: N818 - a verdict on the bootloader, not an error of the twin
    """The ROM goes no further; everything it says has been printed.

    `resets` is set where it resets the chip at once, rather than waiting for its watchdog.
    """

    def __init__(self, *, resets: bool = False) -> None:
        super().__init__("the ROM refuses the bootloader")
        self.resets = resets


@dataclass(frozen=True, slots=True)
class StagingRom:
    """How one ROM stages the bootloader in RAM for verification."""

    staging_bytes: int
    """Room for the image with its padding; the signature is not staged."""
    compares_hash: bool
    """The image's own SHA-256 must be right, too."""
    too_large: tuple[str, ...] | None
    """Lines of a bootloader that does not fit; None: the chip resets without a word."""
    unreadable: tuple[str, ...]
    """Lines of a segment that cannot be one."""
    failed: tuple[str, ...]
    """Lines after the reason."""


_ESP32_STOPS = ("ets_secure_boot_v2.c 74 ",)
_FAILED = "secure boot verification failed"
_CANNOT_VERIFY = "Invalid image block, can't verify."
_STAGING = {
    "esp32": StagingRom(
        staging_bytes=48 << 10,
        compares_hash=False,
        too_large=("Bootloader is too large for 48KB staging area.", *_ESP32_STOPS),
        unreadable=(_CANNOT_VERIFY, *_ESP32_STOPS),
        failed=(_FAILED,),
    ),
}
_LATER_ROM = StagingRom(
    staging_bytes=64 << 10,
    compares_hash=True,
    too_large=None,
    unreadable=(_CANNOT_VERIFY, _FAILED),
    failed=(_FAILED,),
)


class RomSecureBoot:
    """One verification; `read` reads deciphered flash."""

    def __init__(
        self, chip: Chip, efuses: Efuses, read: Callable[[int, int], bytes], lines: RomLines
    ) -> None:
        self._chip = chip
        self._efuses = efuses
        self._read = read
        self._lines = lines
        self._rom = _STAGING.get(chip.name, _LATER_ROM)

    def verify(self, header: ImageHeader) -> None:
        """Verify the bootloader whose header the ROM has just read.

        Raises:
            SignatureRefused: it does not verify.
            PowerLost: the supply was cut while a key was being revoked.
        """
        trusted = trusted_digests(self._efuses)
        if self._has_slots:
            valid = [slot for slot, digest in enumerate(trusted) if digest is not None]
            if not valid:
                raise self._refused(self._rom.failed)
            self._lines.say("Valid secure boot key blocks:" + "".join(f" {slot}" for slot in valid))
        else:
            self._lines.say("secure boot v2 enabled")
        end = self._end_of_image(header)
        base = self._chip.bootloader_offset
        image = self._read(base, end - base)
        if (
            self._rom.compares_hash
            and hashlib.sha256(image[:-SHA256_BYTES]).digest() != image[-SHA256_BYTES:]
        ):
            raise self._refused(("SHA-256 simple hash comparison failed.", *self._rom.failed))
        sector_at = -(-end // SECTOR_BYTES) * SECTOR_BYTES
        verdict = verify_as_rom(
            self._chip,
            self._read(sector_at, SECTOR_BYTES),
            ImageDigest.of(image + self._read(end, sector_at - end)),
            trusted,
            sha384=self._signs_sha384,
            curves=usable_curves(self._efuses),
            revoke=self._revoke,
        )
        for line in verdict.lines:
            self._lines.say(line)
        if not verdict.accepted:
            raise self._refused(self._rom.failed)
        self._lines.say("secure boot verification succeeded")

    def staged(self, end: int) -> bool:
        """Whether everything before flash address `end` was staged."""
        return end - self._chip.bootloader_offset <= self._rom.staging_bytes

    @property
    def _signs_sha384(self) -> bool:
        """ESP32-C5 and -P4 sign over SHA-384, and so with P-384 only, when a fuse says so."""
        fuse = self._chip.secure_boot.sha384_enable
        return fuse is not None and bool(self._efuses.field(fuse))

    @property
    def _has_slots(self) -> bool:
        return bool(self._chip.secure_boot.digest_purposes)

    def _end_of_image(self, header: ImageHeader) -> int:
        """Where the image with checksum and SHA-256 ends; the ROM goes from segment to segment."""
        base = self._chip.bootloader_offset
        at = base + HEADER_BYTES
        for _ in range(header.segment_count):
            address, size = struct.unpack("<II", self._read(at, SEGMENT_HEADER_BYTES))
            if self._rom.too_large is not None:
                self._check_room(at - base + size)
            if (address | size) % 4 or size > _MAX_SEGMENT_BYTES:
                raise self._refused(self._rom.unreadable)
            self._check_room(at - base + size)
            at += SEGMENT_HEADER_BYTES + size
        end = at + 16 - (at - base) % 16 + SHA256_BYTES
        if self._rom.too_large is not None:
            self._check_room(end - base)
        return end

    def _check_room(self, staged_bytes: int) -> None:
        if staged_bytes <= self._rom.staging_bytes:
            return
        if self._rom.too_large is None:
            raise SignatureRefused(resets=True)
        raise self._refused(self._rom.too_large)

    def _refused(self, lines: tuple[str, ...]) -> SignatureRefused:
        for line in lines:
            self._lines.say(line)
        return SignatureRefused()

    def _revoke(self, slot: int) -> tuple[str, ...]:
        """Aggressive revocation: a trusted key whose signature is wrong is given up for good."""
        fuses = self._chip.secure_boot
        if fuses.aggressive_revoke is None or not self._efuses.field(fuses.aggressive_revoke):
            return ()
        self._efuses.burn_field(fuses.revoke[slot], 1, who=_WHO)
        purpose = f"ETS_EFUSE_KEY_PURPOSE_SECURE_BOOT_DIGEST{slot}"
        return (f"Aggressive revoke enabled. Revoked key block for purpose {purpose}",)
