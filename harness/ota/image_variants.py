"""App images with exactly one field changed, or of exactly one size. Pure: plaintext in, plaintext out.

What the change is not about is made good: checksum and SHA-256 fit, so that they cannot be what a device refuses.
"""

from __future__ import annotations

import hashlib

from harness.errors import UsageError
from harness.formats.app_image import HEADER_BYTES, MAX_SEGMENTS, SEGMENT_HEADER_BYTES
from harness.ota.release import Release, parse_release

_SEGMENT_COUNT_OFFSET = 1
_SHA256_BYTES = 32
_CHECKSUM_BLOCK_BYTES = 16


def patched_image(release: Release, at_byte: int, data: bytes) -> bytes:
    """The image with `data` at `at_byte` of it, header, segments or description.

    The checksum counts the bytes of segments as the right image has them; a field that makes a bootloader count
    otherwise (segment count, a segment's length) is refused for that.

    Raises:
        UsageError: `data` would reach the checksum: see `with_checksum` and `with_hash`.
    """
    image = bytearray(release.image)
    if at_byte < 0 or at_byte + len(data) > _end_of_segments(release):
        raise UsageError(f"bytes {at_byte} to {at_byte + len(data)} are not within header and segments")
    for index, new in enumerate(data, at_byte):
        if _is_segment_data(release, index):
            image[_checksum_at(release)] ^= image[index] ^ new
        image[index] = new
    return _with_right_hash(release, image)


def with_checksum(release: Release, flip: int = 0x01) -> bytes:
    """The checksum byte with the bits of `flip` inverted; the SHA-256 fits."""
    image = bytearray(release.image)
    image[_checksum_at(release)] ^= flip
    return _with_right_hash(release, image)


def with_hash(release: Release, flip: int = 0x01) -> bytes:
    """The last byte of the appended SHA-256 with the bits of `flip` inverted."""
    image = bytearray(release.image)
    image[_hash_at(release) + _SHA256_BYTES - 1] ^= flip
    return bytes(image)


def grown(release: Release, size_bytes: int) -> Release:
    """The release with a segment more at its end, which goes nowhere, so that its image has `size_bytes` bytes.

    Raises:
        UsageError: that size cannot be had: no multiple of 16, too small, or the image has 16 segments already.
    """
    end = _end_of_segments(release)
    data_end = size_bytes - _SHA256_BYTES - _CHECKSUM_BLOCK_BYTES
    # Lengths of segments are multiples of 4; the checksum's block takes up to 16 bytes of filling.
    length = (data_end - end - SEGMENT_HEADER_BYTES + 3) // 4 * 4
    count = len(release.parsed.segments)
    if size_bytes % _CHECKSUM_BLOCK_BYTES or length < 4 or count >= MAX_SEGMENTS:
        raise UsageError(
            f"an image of {len(release.image)} bytes in {count} segments cannot grow to {size_bytes} bytes",
            todo=f"give a multiple of 16 that is at least {len(release.image) + 32}",
        )
    body = bytearray(release.image[:end])
    body[_SEGMENT_COUNT_OFFSET] = count + 1
    # Load address 0: ESP-IDF's word for a segment that is neither loaded nor mapped (padding).
    body += bytes(4) + length.to_bytes(4, "little") + bytes(length)
    body = body.ljust(size_bytes - _SHA256_BYTES - 1, b"\0")
    # Zeros change no XOR: the checksum stays.
    body.append(release.parsed.stored_checksum)
    return parse_release(bytes(body) + hashlib.sha256(body).digest(), name="the grown image")


def _end_of_segments(release: Release) -> int:
    last = release.parsed.segments[-1]
    return release.parsed.segment_offsets[-1] + len(last.data)


def _is_segment_data(release: Release, index: int) -> bool:
    if index < HEADER_BYTES:
        return False
    places = zip(release.parsed.segment_offsets, release.parsed.segments, strict=True)
    return any(offset <= index < offset + len(segment.data) for offset, segment in places)


def _hash_at(release: Release) -> int:
    return release.parsed.size_bytes - _SHA256_BYTES


def _checksum_at(release: Release) -> int:
    return _hash_at(release) - 1


def _with_right_hash(release: Release, image: bytearray) -> bytes:
    at = _hash_at(release)
    image[at : at + _SHA256_BYTES] = hashlib.sha256(image[:at]).digest()
    return bytes(image)
