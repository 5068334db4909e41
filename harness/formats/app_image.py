"""The image that ROM and bootloader load: header, segments, checksum, SHA-256, application description.

Layouts (all little endian): ``esp_image_header_t``, ``esp_image_segment_header_t`` and ``esp_app_desc_t`` of
ESP-IDF. Bootloaders are images of the same form without an application description.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from harness.chips import Chip
from harness.errors import FormatError
from harness.formats.app_description import APP_DESCRIPTION_BYTES, AppDescription

IMAGE_MAGIC = 0xE9
HEADER_BYTES = 24
SEGMENT_HEADER_BYTES = 8
APP_DESCRIPTION_OFFSET = HEADER_BYTES + SEGMENT_HEADER_BYTES
"""0x20: the description is the first data of segment 0."""
MAX_SEGMENTS = 16
MAX_SEGMENT_BYTES = 0x1000000
"""ESP_IMAGE_MAX_FLASH_ADDR_SIZE: lengths of 16 MiB and more are refused by bootloaders."""
MMU_PAGE_BYTES = 0x10000
SPI_MODE_DIO = 2
NO_MAX_CHIP_REV = 65535

_HEADER = struct.Struct("<BBBBIB3BHBHH4sB")
_SEGMENT_HEADER = struct.Struct("<II")
_CHECKSUM_SEED = 0xEF
_WRITE_PROTECT_PIN_OFF = 0xEE
_SHA256_BYTES = 32
# The smallest window for data in flash, ESP32's.
_DROM_WINDOW_BYTES = 0x400000


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes that are copied or mapped to `load_address`; in an image the length is a multiple of 4."""

    load_address: int
    data: bytes


@dataclass(frozen=True, slots=True)
class AppImage:
    """A parsed image. The structure is sound; whether checksum and hash match is for the caller to judge."""

    chip_id: int
    segments: tuple[Segment, ...]
    entry_point: int
    spi_mode: int
    """0 QIO, 1 QOUT, 2 DIO, 3 DOUT, 4 fast read, 5 slow read."""
    spi_speed: int
    """Low nibble of byte 3, meaning depends on the chip."""
    flash_size_code: int
    """High nibble of byte 3: flash size is 1 MiB << code."""
    hash_appended: bool
    min_chip_rev: int
    """Legacy field that old bootloaders check."""
    min_chip_rev_full: int
    """major * 100 + minor."""
    max_chip_rev_full: int
    stored_checksum: int
    computed_checksum: int
    stored_hash: bytes | None
    """The 32 bytes behind the checksum, None without an appended hash."""
    computed_hash: bytes
    """SHA-256 of everything up to and including the checksum byte."""
    size_bytes: int
    """Header to SHA-256 (or checksum, without one); a signature or padding may follow."""
    description: AppDescription | None
    """None when segment 0 does not start with one, as in a bootloader."""

    @property
    def checksum_ok(self) -> bool:
        return self.stored_checksum == self.computed_checksum

    @property
    def hash_ok(self) -> bool | None:
        """Whether the appended SHA-256 matches; None when the image has none."""
        return None if self.stored_hash is None else self.stored_hash == self.computed_hash

    @property
    def is_intact(self) -> bool:
        """Checksum matches, and so does the SHA-256 when there is one."""
        return self.checksum_ok and self.hash_ok is not False

    @property
    def flash_size_bytes(self) -> int:
        """Flash size that the header claims."""
        return (1 << 20) << self.flash_size_code

    @property
    def segment_offsets(self) -> tuple[int, ...]:
        """Where the data of each segment begins in the image."""
        offsets, position = [], HEADER_BYTES
        for segment in self.segments:
            offsets.append(position + SEGMENT_HEADER_BYTES)
            position += SEGMENT_HEADER_BYTES + len(segment.data)
        return tuple(offsets)


def parse_app_image(data: bytes) -> AppImage:
    """Take apart the image at the start of `data`; anything may follow it.

    A wrong checksum or hash is no error here: see `AppImage.is_intact`.

    Raises:
        FormatError: no image, or a broken or truncated one; names offset and field.
    """
    data = bytes(data)
    if len(data) < HEADER_BYTES:
        raise FormatError(
            f"image has {len(data)} bytes, its header alone has {HEADER_BYTES}",
            todo="give the whole image file",
        )
    header = _HEADER.unpack_from(data)
    magic, segment_count, spi_mode, speed_and_size, entry_point = header[:5]
    chip_id, min_rev, min_rev_full, max_rev_full, _, hash_appended = header[9:15]
    if magic != IMAGE_MAGIC:
        raise FormatError(
            f"image offset 0x0: magic is {magic:#04x}, expected {IMAGE_MAGIC:#04x}",
            todo="give an app or bootloader .bin; an enciphered one must be deciphered first",
        )
    if not 1 <= segment_count <= MAX_SEGMENTS:
        raise FormatError(
            f"image offset 0x1: segment count is {segment_count}, expected 1..{MAX_SEGMENTS}",
            todo="rebuild the image; it may also be deciphered with a wrong key or address",
        )
    if hash_appended > 1:
        raise FormatError(
            f"image offset 0x17: hash_appended is {hash_appended:#04x}, expected 0 or 1",
            todo="rebuild the image; it may also be deciphered with a wrong key or address",
        )
    segments, end = _parse_segments(data, segment_count)
    checksum_end = (end // 16 + 1) * 16
    size_bytes = checksum_end + (_SHA256_BYTES if hash_appended else 0)
    if len(data) < size_bytes:
        field = "checksum" if len(data) < checksum_end else "appended SHA-256"
        raise FormatError(
            f"image ends at {len(data):#x} inside the {field}, expected {size_bytes:#x} bytes",
            todo="the file is truncated: build or download it again",
        )
    return AppImage(
        chip_id=chip_id,
        segments=segments,
        entry_point=entry_point,
        spi_mode=spi_mode,
        spi_speed=speed_and_size & 0xF,
        flash_size_code=speed_and_size >> 4,
        hash_appended=bool(hash_appended),
        min_chip_rev=min_rev,
        min_chip_rev_full=min_rev_full,
        max_chip_rev_full=max_rev_full,
        stored_checksum=data[checksum_end - 1],
        computed_checksum=_checksum(segments),
        stored_hash=data[checksum_end:size_bytes] if hash_appended else None,
        computed_hash=hashlib.sha256(data[:checksum_end]).digest(),
        size_bytes=size_bytes,
        description=_description_in(segments[0]),
    )


def build_app_image(
    chip: Chip,
    segments: Sequence[Segment],
    *,
    entry_point: int,
    hash_appended: bool = True,
    flash_size_bytes: int = 4 << 20,
    min_chip_rev_full: int = 0,
    max_chip_rev_full: int = NO_MAX_CHIP_REV,
    spi_mode: int = SPI_MODE_DIO,
    spi_speed: int = 0xF,
) -> bytes:
    """An image as the chip's ROM and bootloader accept it.

    Segments keep their order and are filled with zeros to a multiple of 4 bytes. An application description,
    when there is to be one, is the start of the first segment's data.

    Args:
        chip: its id goes into the header.
        segments: 1 to 16; one that is mapped from flash must lie at the same place within a 64 KiB page in
            the image as at its load address, or bootloaders refuse it.
        entry_point: address of the first instruction.
        hash_appended: whether SHA-256 follows the checksum.
        flash_size_bytes: a power of two, 1 MiB to 128 MiB.
        min_chip_rev_full: oldest chip revision, major * 100 + minor.
        max_chip_rev_full: newest chip revision, 65535 for any.
        spi_mode: 0..5, see `AppImage.spi_mode`.
        spi_speed: low nibble of byte 3; 0xF is 80 MHz and 0 is 40 MHz on ESP32 and ESP32-C3.

    Raises:
        FormatError: names the segment or field.
    """
    if not 1 <= len(segments) <= MAX_SEGMENTS:
        raise FormatError(
            f"image would have {len(segments)} segments", todo=f"give 1..{MAX_SEGMENTS}, merging if needed"
        )
    padded = [Segment(s.load_address, s.data + bytes(-len(s.data) % 4)) for s in segments]
    try:
        body = _HEADER.pack(
            IMAGE_MAGIC,
            len(padded),
            spi_mode,
            _flash_size_code(flash_size_bytes) << 4 | spi_speed,
            entry_point,
            _WRITE_PROTECT_PIN_OFF,
            *(0, 0, 0),
            chip.chip_id,
            _legacy_revision(chip, min_chip_rev_full),
            min_chip_rev_full,
            max_chip_rev_full,
            bytes(4),
            int(hash_appended),
        )
    except struct.error as error:
        raise FormatError(
            "image header: entry point, revision, SPI mode or speed does not fit its field",
            todo="entry_point has 32 bits, revisions 16, spi_mode 8, spi_speed 4",
        ) from error
    for index, segment in enumerate(padded):
        body += _segment_bytes(chip, index, segment, at=len(body))
    checksum_end = (len(body) // 16 + 1) * 16
    body = body.ljust(checksum_end - 1, b"\0") + bytes([_checksum(padded)])
    return body + hashlib.sha256(body).digest() if hash_appended else body


def secure_padded(image: bytes) -> bytes:
    """An app whose end, SHA-256 included, is filled to 64 KiB as ``elf2image --secure-pad-v2`` does it.

    What a chip maps from flash, it maps in whole pages: so nothing that is not signed can lie in the last one. A
    segment of zeros at address 0 is added, checksum and SHA-256 are made anew. One that ends there already stays.

    Raises:
        FormatError: no image, a damaged one, one without SHA-256 or with 16 segments, or something follows it.
    """
    parsed = parse_app_image(image)
    if parsed.size_bytes % MMU_PAGE_BYTES == 0:
        return image
    if not parsed.is_intact or not parsed.hash_appended or len(image) != parsed.size_bytes:
        raise FormatError(
            "the image is damaged, has no SHA-256, or something follows it: it cannot be filled to 64 KiB",
            todo="give the app as it was built, with CONFIG_SECURE_BOOT_V2_ENABLED=y",
        )
    if len(parsed.segments) == MAX_SEGMENTS:
        raise FormatError(
            f"the image has {MAX_SEGMENTS} segments, there is no room for one that fills it to 64 KiB",
            todo="build it with CONFIG_SECURE_BOOT_V2_ENABLED=y",
        )
    start = parsed.segment_offsets[-1] + len(parsed.segments[-1].data) + SEGMENT_HEADER_BYTES
    # Behind the segment: the 16 bytes that end with the checksum, then SHA-256.
    size = (-start - 16 - _SHA256_BYTES) % MMU_PAGE_BYTES
    body = bytearray(image[: start - SEGMENT_HEADER_BYTES] + _SEGMENT_HEADER.pack(0, size) + bytes(size))
    body[1] += 1
    body += bytes(15) + bytes([parsed.computed_checksum])
    return bytes(body) + hashlib.sha256(body).digest()


def app_description_at(data: bytes) -> AppDescription:
    """The application description of an image of which only the first 0x120 bytes need be there.

    Raises:
        FormatError: too short, or none there.
    """
    end = APP_DESCRIPTION_OFFSET + APP_DESCRIPTION_BYTES
    if len(data) < end:
        raise FormatError(
            f"image has {len(data)} bytes, its application description ends at {end:#x}",
            todo=f"give at least the first {end:#x} bytes of the image",
        )
    return AppDescription.from_bytes(data[APP_DESCRIPTION_OFFSET:end])


def _parse_segments(data: bytes, count: int) -> tuple[tuple[Segment, ...], int]:
    """The segments and the offset behind the last one."""
    segments = []
    position = HEADER_BYTES
    for index in range(count):
        if position + SEGMENT_HEADER_BYTES > len(data):
            raise FormatError(
                f"image ends at {len(data):#x}, inside the header of segment {index} at {position:#x}",
                todo="the file is truncated: build or download it again",
            )
        load_address, size = _SEGMENT_HEADER.unpack_from(data, position)
        where = f"image offset {position + 4:#x}: length of segment {index} is {size:#x}"
        if size % 4 or size >= MAX_SEGMENT_BYTES:
            wanted = "a multiple of 4" if size % 4 else f"less than {MAX_SEGMENT_BYTES:#x}"
            raise FormatError(
                f"{where}, expected {wanted}",
                todo="rebuild the image; it may also be truncated in flash, or deciphered with a wrong key",
            )
        position += SEGMENT_HEADER_BYTES
        if position + size > len(data):
            raise FormatError(
                f"{where}, but only {len(data) - position:#x} bytes follow its header",
                todo="the file is truncated: build or download it again",
            )
        segments.append(Segment(load_address, data[position : position + size]))
        position += size
    return tuple(segments), position


def _segment_bytes(chip: Chip, index: int, segment: Segment, *, at: int) -> bytes:
    size = len(segment.data)
    if size >= MAX_SEGMENT_BYTES:
        raise FormatError(
            f"segment {index} has {size:#x} bytes", todo=f"less than {MAX_SEGMENT_BYTES:#x} fit"
        )
    data_at = at + SEGMENT_HEADER_BYTES
    mapped = 0 <= segment.load_address - chip.drom_base < _DROM_WINDOW_BYTES
    if mapped and (segment.load_address - data_at) % MMU_PAGE_BYTES:
        fitting = segment.load_address // MMU_PAGE_BYTES * MMU_PAGE_BYTES + data_at % MMU_PAGE_BYTES
        raise FormatError(
            f"segment {index} is mapped to {segment.load_address:#x} but lies at {data_at:#x} in the image: "
            f"different places within a {MMU_PAGE_BYTES:#x} page",
            todo=f"use load address {fitting:#x}",
        )
    try:
        return _SEGMENT_HEADER.pack(segment.load_address, size) + segment.data
    except struct.error as error:
        raise FormatError(
            f"segment {index}: load address {segment.load_address:#x} is not a 32-bit address",
            todo="give an address of the chip",
        ) from error


def _checksum(segments: Sequence[Segment]) -> int:
    """XOR of all data bytes and 0xEF."""
    # XOR of whole segments as wide integers, folded in halves: a loop over bytes takes seconds per megabyte.
    result = _CHECKSUM_SEED
    for segment in segments:
        value, bits = int.from_bytes(segment.data, "little"), 8 * len(segment.data)
        while bits > 8:
            bits = (bits // 8 + 1) // 2 * 8
            value = (value >> bits) ^ (value & ((1 << bits) - 1))
        result ^= value
    return result


def _description_in(segment: Segment) -> AppDescription | None:
    if not AppDescription.is_at(segment.data):
        return None
    return AppDescription.from_bytes(segment.data[:APP_DESCRIPTION_BYTES])


def _flash_size_code(flash_size_bytes: int) -> int:
    sizes = [(1 << 20) << code for code in range(8)]
    if flash_size_bytes not in sizes:
        raise FormatError(
            f"flash size {flash_size_bytes:#x} has no code in the image header",
            todo="use 1, 2, 4, … 128 MiB in bytes",
        )
    return sizes.index(flash_size_bytes)


def _legacy_revision(chip: Chip, min_chip_rev_full: int) -> int:
    """Byte 14, for bootloaders that do not know min_chip_rev_full: unused on chips newer than ESP32-C3."""
    # By chip id, as ESP-IDF's esptool_py component: major number on ESP32, minor number on ESP32-C3.
    return {0: min_chip_rev_full // 100, 5: min_chip_rev_full % 100}.get(chip.chip_id, 0)


__all__ = [
    "APP_DESCRIPTION_BYTES",
    "APP_DESCRIPTION_OFFSET",
    "AppDescription",
    "AppImage",
    "Segment",
    "app_description_at",
    "build_app_image",
    "parse_app_image",
    "secure_padded",
]
