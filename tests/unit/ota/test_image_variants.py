"""Images with one thing changed: everything else fits, as the parser of real images sees it."""

from __future__ import annotations

import pytest
from sample_releases import ALL_CHIPS, release

from harness.chips import Chip
from harness.errors import UsageError
from harness.formats.app_image import parse_app_image
from harness.ota import image_variants
from harness.ota.release import parse_release

each_chip = pytest.mark.parametrize("chip", ALL_CHIPS, ids=lambda chip: chip.name)


@each_chip
@pytest.mark.parametrize("at_byte", [2, 12, 15, 17, 0x24, 0x30, 0x50, 0xD0, 3000])
def test_a_changed_byte_leaves_an_intact_image(chip: Chip, at_byte: int):
    right = release(chip)
    other = bytes([right.image[at_byte] ^ 0x55])
    changed = image_variants.patched_image(right, at_byte, other)
    differ = [index for index, (a, b) in enumerate(zip(right.image, changed, strict=True)) if a != b]
    head = [index for index in differ if index < right.parsed.size_bytes - 33]
    assert head == [at_byte]
    assert parse_app_image(changed).is_intact


@each_chip
def test_a_wrong_checksum_or_hash_is_the_only_thing_wrong(chip: Chip):
    checksum = parse_app_image(image_variants.with_checksum(release(chip)))
    assert (checksum.checksum_ok, checksum.hash_ok) == (False, True)
    digest = parse_app_image(image_variants.with_hash(release(chip)))
    assert (digest.checksum_ok, digest.hash_ok) == (True, False)


@each_chip
@pytest.mark.parametrize("more", [32, 48, 4096, 1 << 16])
def test_an_image_grows_to_a_size_and_says_the_same_of_itself(chip: Chip, more: int):
    right = release(chip)
    size = (right.parsed.size_bytes + more) // 16 * 16
    larger = image_variants.grown(right, size)
    assert len(larger.image) == larger.parsed.size_bytes == size
    assert larger.description == right.description
    assert larger.parsed.segments[: len(right.parsed.segments)] == right.parsed.segments
    assert parse_release(larger.image).parsed.is_intact


@pytest.mark.parametrize("size", [5000, 4096, 8200])
def test_a_size_that_cannot_be_had_is_refused(size: int):
    with pytest.raises(UsageError, match="cannot grow"):
        image_variants.grown(release(ALL_CHIPS[0]), size)


def test_what_reaches_the_checksum_is_another_variant():
    right = release(ALL_CHIPS[0])
    with pytest.raises(UsageError, match="not within header and segments"):
        image_variants.patched_image(right, right.parsed.size_bytes - 33, b"\0")
