"""The image check that bootloader and application share (``esp_image_load`` / ``esp_image_verify``).

The order of the checks and the log lines are those of ESP-IDF v5.5. All reads go through the cache, so an
image that was enciphered for this key and address passes like a plain one on a plain chip. A program that was built
with secure boot v2 asks for a signature behind the image (`harness.twin.image_signature`); others look at none, whatever
the eFuses say.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.chips import Chip
from harness.formats.app_description import APP_DESCRIPTION_BYTES, AppDescription
from harness.twin.boot_lines import Level
from harness.twin.bootloader_memory import BAD_ADDRESSES, BootloaderMemory, Clash
from harness.twin.cipher import FlashCipher
from harness.twin.image_signature import ImageSignature
from harness.twin.operations import FlashFault
from harness.twin.security import FuseReader, efuse_block_revision, is_classic
from harness.twin.signature import SECTOR_BYTES, ImageDigest

ERR_FAIL = -1
ERR_INVALID_ARG = 0x102
ERR_IMAGE_FLASH_FAIL = 0x2001
ERR_IMAGE_INVALID = 0x2002

HEADER = struct.Struct("<BBBBIB3BHBHH4sB")
HEADER_BYTES = 24
SEGMENT_HEADER_BYTES = 8
SHA256_BYTES = 32
MAGIC = 0xE9
MAX_SEGMENTS = 16
CHECKSUM_SEED = 0xEF

_TAG = "esp_image"
_TAG_COMMON = "boot_comm"
_HASH_FAILED = "Image hash failed - image is corrupt"
_MAX_BYTES = 0x1000000
_MMU_PAGE_BYTES = 0x10000
_REVISION_UNSET = (0, 0xFFFF)


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """Address ranges (first, first behind) of one chip, from ESP-IDF's ``soc.h``."""

    mapped: tuple[tuple[int, int], ...]
    """Windows into flash: IROM and DROM."""
    loadable: tuple[tuple[int, int], ...]
    """RAM that a segment may be copied to."""

    def maps(self, address: int) -> bool:
        return any(low <= address < high for low, high in self.mapped)

    def holds(self, first: int, end: int) -> bool:
        return any(low <= first and end <= high for low, high in self.loadable)


_MEMORY = {
    "esp32": MemoryMap(
        mapped=((0x400D0000, 0x40400000), (0x3F400000, 0x3F800000)),
        loadable=(
            (0x3FFAE000, 0x40000000),
            (0x40080000, 0x400AA000),
            (0x400C0000, 0x400C2000),
            (0x3FF80000, 0x3FF82000),
            (0x50000000, 0x50002000),
        ),
    ),
    "esp32c3": MemoryMap(
        mapped=((0x42000000, 0x42800000), (0x3C000000, 0x3C800000)),
        loadable=((0x3FC80000, 0x3FCE0000), (0x4037C000, 0x403E0000), (0x50000000, 0x50002000)),
    ),
    "esp32s2": MemoryMap(
        mapped=((0x40080000, 0x40800000), (0x3F000000, 0x3FF80000)),
        loadable=(
            (0x3FFB0000, 0x40000000),
            (0x40020000, 0x40070000),
            (0x40070000, 0x40072000),
            (0x3FF9E000, 0x3FFA0000),
            (0x50000000, 0x50002000),
        ),
    ),
    "esp32s3": MemoryMap(
        mapped=((0x42000000, 0x44000000), (0x3C000000, 0x3E000000)),
        loadable=(
            (0x3FC88000, 0x3FD00000),
            (0x40370000, 0x403E0000),
            (0x600FE000, 0x60100000),
            (0x50000000, 0x50002000),
        ),
    ),
    "esp32c2": MemoryMap(
        mapped=((0x42000000, 0x42400000), (0x3C000000, 0x3C400000)),
        loadable=((0x3FCA0000, 0x3FCE0000), (0x4037C000, 0x403C0000)),
    ),
    "esp32c5": MemoryMap(
        mapped=((0x42000000, 0x44000000),),
        loadable=((0x40800000, 0x40860000), (0x50000000, 0x50004000)),
    ),
    "esp32c6": MemoryMap(
        mapped=((0x42000000, 0x43000000),),
        loadable=((0x40800000, 0x40880000), (0x50000000, 0x50004000)),
    ),
    "esp32h2": MemoryMap(
        mapped=((0x42000000, 0x43000000),),
        loadable=((0x40800000, 0x40850000), (0x50000000, 0x50001000)),
    ),
    "esp32p4": MemoryMap(
        mapped=((0x40000000, 0x44000000),),
        loadable=((0x4FF00000, 0x4FFC0000), (0x50108000, 0x50110000)),
    ),
}


class ImageLog(Protocol):
    """Where the check reports: the bootloader's log, or lines collected for an application."""

    def log(self, level: Level, tag: str, text: str) -> None: ...

    def say(self, text: str) -> None: ...

    def spent_reading(self, size_bytes: int) -> None: ...


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """``esp_image_header_t``, the fields that ROM and bootloader look at."""

    magic: int
    segment_count: int
    spi_mode: int
    spi_speed: int
    spi_size: int
    entry_point: int
    wp_pin: int
    pin_drive: bytes
    """Three bytes, two pins each, the lower half first: clock, q, d, cs0, hd, wp."""
    chip_id: int
    min_chip_rev_full: int
    max_chip_rev_full: int
    hash_appended: bool

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageHeader:
        """The header in the first 24 bytes of `data`, whatever they are."""
        f = HEADER.unpack_from(data)
        return cls(
            magic=f[0],
            segment_count=f[1],
            spi_mode=f[2],
            spi_speed=f[3] & 0xF,
            spi_size=f[3] >> 4,
            entry_point=f[4],
            wp_pin=f[5],
            pin_drive=bytes(f[6:9]),
            chip_id=f[9],
            min_chip_rev_full=f[11],
            max_chip_rev_full=f[12],
            hash_appended=bool(f[14]),
        )


@dataclass(frozen=True, slots=True)
class SegmentPlace:
    """One segment of an image in flash; `address` is where its data begins."""

    address: int
    size: int
    load_address: int


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """An image that passed. `size_bytes` counts header to SHA-256, with a signature up to the end of its sector."""

    offset: int
    size_bytes: int
    segments: tuple[SegmentPlace, ...]


class ImageRejected(Exception):  # noqa: N818 - a verdict on the image, not an error of the twin
    """The image failed; `status` is what ESP-IDF's function returns (an ``esp_err_t``)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"image rejected with {status:#x}")
        self.status = status


@dataclass(frozen=True, slots=True)
class ImageCheck:
    """The check as one caller does it: `load` is the bootloader's, which also copies segments to RAM.

    `least_secure_version` is the anti-rollback version of the eFuses, None without anti-rollback. `signature` is
    what a program built with secure boot checks, None in others.
    """

    chip: Chip
    cipher: FlashCipher
    efuses: FuseReader
    chip_rev_full: int
    flash_size_bytes: int
    log: ImageLog
    load: bool
    least_secure_version: int | None = None
    other_bootloader: int | None = None
    """Address of a partition of type bootloader, whose image is judged as a bootloader's."""
    signature: ImageSignature | None = None
    bootloader_memory: BootloaderMemory | None = None
    """What a segment may not be loaded over; None where nothing is loaded."""

    def verify(self, offset: int, partition_size: int) -> VerifiedImage:
        """Check the image at flash address `offset` in a partition of `partition_size` bytes.

        Raises:
            ImageRejected: with the status that ESP-IDF returns; the reason has been logged.
        """
        if partition_size > _MAX_BYTES:
            self._error(f"partition size 0x{partition_size:x} invalid, larger than 16MB")
            raise ImageRejected(ERR_INVALID_ARG)
        try:
            return self._verify(offset, partition_size)
        except FlashFault as fault:
            self._error(f"bootloader_flash_read failed at 0x{offset:08x}")
            raise ImageRejected(ERR_IMAGE_FLASH_FAIL) from fault

    def _verify(self, offset: int, partition_size: int) -> VerifiedImage:
        raw_header = self.cipher.read(offset, HEADER_BYTES)
        header = ImageHeader.from_bytes(raw_header)
        self._check_header(offset, header)
        digest = hashlib.sha256(raw_header)
        checksum = CHECKSUM_SEED
        segments: list[SegmentPlace] = []
        secure_version: int | None = None
        at = offset + HEADER_BYTES
        for index in range(header.segment_count):
            raw = self.cipher.read(at, SEGMENT_HEADER_BYTES)
            digest.update(raw)
            load_address, size = struct.unpack("<II", raw)
            segment = SegmentPlace(at + SEGMENT_HEADER_BYTES, size, load_address)
            self._check_segment(index, segment)
            data = self._segment_data(segment)
            if index == 0:
                secure_version = self._check_description(offset, data)
            digest.update(data)
            checksum ^= xor_fold(data)
            segments.append(segment)
            at = segment.address + size
        size_bytes = self._check_checksum(offset, at, checksum, digest)
        size_bytes = self._check_length_and_hash(offset, size_bytes, partition_size, header, digest)
        least = self.least_secure_version if self.load else None
        if least is not None and (secure_version is None or secure_version < least):
            # The bootloader has asked before; this second look, without a word, is against fault injection.
            raise ImageRejected(ERR_FAIL)
        return VerifiedImage(offset, size_bytes, tuple(segments))

    def _check_header(self, offset: int, header: ImageHeader) -> None:
        if header.magic != MAGIC:
            self._error(f"image at 0x{offset:x} has invalid magic byte (nothing flashed here?)")
            raise ImageRejected(ERR_IMAGE_INVALID)
        check_chip(
            self.chip,
            self.efuses,
            self.chip_rev_full,
            header,
            self.log,
            newest_too=not self._is_bootloader(offset),
        )
        if header.segment_count > MAX_SEGMENTS:
            self._error(
                f"image at 0x{offset:x} segment count {header.segment_count} exceeds max {MAX_SEGMENTS}"
            )
            raise ImageRejected(ERR_IMAGE_INVALID)

    def _check_segment(self, index: int, segment: SegmentPlace) -> None:
        if segment.size % 4 or segment.size >= _MAX_BYTES:
            self._error(f"invalid segment length 0x{segment.size:x}")
            raise ImageRejected(ERR_IMAGE_INVALID)
        memory = _MEMORY[self.chip.name]
        maps = memory.maps(segment.load_address)
        if maps and segment.address % _MMU_PAGE_BYTES != segment.load_address % _MMU_PAGE_BYTES:
            self._error(
                f"Segment {index} load address 0x{segment.load_address:08x}, "
                f"doesn't match data 0x{segment.address:08x}"
            )
            raise ImageRejected(ERR_IMAGE_INVALID)
        # Addresses below 0x10000000 are reserved for segments that go nowhere, such as padding.
        loads = self.load and not maps and segment.load_address >= 0x10000000
        word = "load" if loads else "map" if maps else ""
        self.log.log(
            Level.INFO,
            _TAG,
            f"segment {index}: paddr={segment.address:08x} vaddr={segment.load_address:08x} "
            f"size={segment.size:05x}h ({segment.size:6d}) {word}",
        )
        clash = self._clash(memory, segment) if loads and segment.size else None
        if clash is not None:
            end = clash.end & 0xFFFFFFFF
            self._error(f"Segment {index} 0x{clash.first:08x}-0x{end:08x} invalid: {clash.reason}")
            raise ImageRejected(ERR_IMAGE_INVALID)

    def _clash(self, memory: MemoryMap, segment: SegmentPlace) -> Clash | None:
        first, end = segment.load_address, segment.load_address + segment.size
        if not memory.holds(first, end):
            return Clash(first, end, BAD_ADDRESSES)
        return self.bootloader_memory.clash(first, end) if self.bootloader_memory is not None else None

    def _segment_data(self, segment: SegmentPlace) -> bytes:
        # A length that leads outside the flash chip comes from noise. Silicon reads on round the address
        # lines' wrap and fails at the next header or the checksum; so does this, without the megabytes.
        inside = max(0, min(segment.size, self.flash_size_bytes - segment.address))
        self.log.spent_reading(inside)
        return self.cipher.read(segment.address, inside)

    def _check_description(self, offset: int, data: bytes) -> int | None:
        """The secure version in segment 0's description, None when there is none."""
        if self._is_bootloader(offset):
            return None
        head = data[:APP_DESCRIPTION_BYTES].ljust(APP_DESCRIPTION_BYTES, b"\0")
        if not is_classic(self.chip):
            self._check_block_revision(*struct.unpack_from("<HH", head, 176))
        return AppDescription.from_bytes(head).secure_version if AppDescription.is_at(head) else None

    def _check_block_revision(self, least: int, most: int) -> None:
        found = efuse_block_revision(self.efuses)
        text = f"v{found // 100}.{found % 100}"
        rejected = False
        if least not in _REVISION_UNSET and found < least:
            self._common(f"Image requires efuse blk rev >= v{least // 100}.{least % 100}, but chip is {text}")
            rejected = True
        ignored = self.efuses.field("DISABLE_BLK_VERSION_MAJOR")
        if most not in _REVISION_UNSET and found > most and not ignored:
            self._common(f"Image requires efuse blk rev <= v{most // 100}.{most % 100}, but chip is {text}")
            rejected = True
        if rejected:
            raise ImageRejected(ERR_FAIL)

    def _check_checksum(self, offset: int, end: int, checksum: int, digest: hashlib._Hash) -> int:
        """The image's length with the padding and checksum byte."""
        padding = 16 - (end - offset) % 16
        tail = self.cipher.read(end, padding)
        if checksum != tail[-1]:
            self._error(f"Checksum failed. Calculated 0x{checksum:x} read 0x{tail[-1]:x}")
            raise ImageRejected(ERR_IMAGE_INVALID)
        digest.update(tail)
        return end + padding - offset

    def _check_length_and_hash(
        self, offset: int, size_bytes: int, partition_size: int, header: ImageHeader, digest: hashlib._Hash
    ) -> int:
        stored = b""
        if header.hash_appended:
            stored = self.cipher.read(offset + size_bytes, SHA256_BYTES)
            size_bytes += SHA256_BYTES
        signed_bytes = -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES
        whole = size_bytes if self.signature is None else signed_bytes + SECTOR_BYTES
        if whole > partition_size:
            self._error(f"Image length {whole} doesn't fit in partition length {partition_size}")
            raise ImageRejected(ERR_IMAGE_INVALID)
        is_intact = header.hash_appended and stored == digest.digest()
        if self.signature is not None:
            digest.update(stored + self.cipher.read(offset + size_bytes, signed_bytes - size_bytes))
            image = ImageDigest(digest.digest(), lambda: self.cipher.read(offset, signed_bytes))
            self._check_signature(self.signature, offset + signed_bytes, image, is_intact=is_intact)
        # A bootloader's hash is not looked at: esptool may have rewritten its header.
        elif header.hash_appended and not self._is_bootloader(offset) and not is_intact:
            self._error(_HASH_FAILED)
            raise ImageRejected(ERR_IMAGE_INVALID)
        return whole

    def _check_signature(
        self, signature: ImageSignature, sector_at: int, image: ImageDigest, *, is_intact: bool
    ) -> None:
        self.log.log(Level.INFO, _TAG, "Verifying image signature...")
        if signature.verifies(self.cipher.read(sector_at, SECTOR_BYTES), image, self.log):
            return
        self._error("Secure boot signature verification failed")
        self.log.log(Level.INFO, _TAG, "Calculating simple hash to check for corruption...")
        if not is_intact:
            self._error(_HASH_FAILED)
        found = "image valid, signature bad" if is_intact else "image corrupted on flash"
        self.log.log(Level.WARN, _TAG, found)
        raise ImageRejected(ERR_IMAGE_INVALID)

    def _is_bootloader(self, offset: int) -> bool:
        return offset in (self.chip.bootloader_offset, self.other_bootloader)

    def _error(self, text: str) -> None:
        self.log.log(Level.ERROR, _TAG, text)

    def _common(self, text: str) -> None:
        self.log.log(Level.ERROR, _TAG_COMMON, text)


def check_chip(
    chip: Chip,
    efuses: FuseReader,
    chip_rev_full: int,
    header: ImageHeader,
    log: ImageLog,
    *,
    newest_too: bool,
) -> None:
    """Check chip id and revision of a header; `newest_too` is left out for bootloaders.

    Raises:
        ImageRejected: another chip, or a revision that the image does not run on (ESP_FAIL).
    """
    if header.chip_id != chip.chip_id:
        log.log(
            Level.ERROR, _TAG_COMMON, f"mismatch chip ID, expected {chip.chip_id}, found {header.chip_id}"
        )
        raise ImageRejected(ERR_FAIL)
    found = f"found v{chip_rev_full // 100}.{chip_rev_full % 100}."
    least, most = header.min_chip_rev_full, header.max_chip_rev_full
    if chip_rev_full < least:
        log.log(
            Level.ERROR,
            _TAG_COMMON,
            f"chip revision check failed. Required >= v{least // 100}.{least % 100}, {found}",
        )
        raise ImageRejected(ERR_FAIL)
    ignored = not is_classic(chip) and efuses.field("DISABLE_WAFER_VERSION_MAJOR")
    if newest_too and most not in _REVISION_UNSET and chip_rev_full > most and not ignored:
        log.log(
            Level.ERROR,
            _TAG_COMMON,
            f"chip revision check failed. Required <= v{most // 100}.{most % 100}, {found}",
        )
        raise ImageRejected(ERR_FAIL)


def signature_sector_at(read: Callable[[int, int], bytes], offset: int) -> int:
    """Where the signature of the image at `offset` belongs: the sector after its SHA-256.

    As ``esp_image_get_metadata`` works it out, without checking anything.
    """
    header = ImageHeader.from_bytes(read(offset, HEADER_BYTES))
    at = offset + HEADER_BYTES
    for _ in range(min(header.segment_count, MAX_SEGMENTS)):
        at += SEGMENT_HEADER_BYTES + int.from_bytes(read(at + 4, 4), "little")
    at += 16 - (at - offset) % 16 + (SHA256_BYTES if header.hash_appended else 0)
    return offset + -(-(at - offset) // SECTOR_BYTES) * SECTOR_BYTES


def xor_fold(data: bytes) -> int:
    """XOR of all bytes of `data`, by halving one big number: megabytes in milliseconds."""
    value = int.from_bytes(data, "little")
    bits = 8 * (1 << max(0, len(data) - 1).bit_length())
    while bits > 8:
        bits //= 2
        value = (value >> bits) ^ (value & ((1 << bits) - 1))
    return value
