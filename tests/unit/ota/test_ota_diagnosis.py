"""What the host makes of a bare bin that a device could not decipher."""

from __future__ import annotations

import re

import pytest

from harness.chips import CHIPS, Chip
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.formats.partition_table import Partition
from harness.ota.diagnosis import Cause, diagnose

OTA_0 = Partition("ota_0", 0, 0x10, 0x20000, 0x180000)
OTA_1 = Partition("ota_1", 0, 0x11, 0x1A0000, 0x180000)


def image_of(chip: Chip) -> bytes:
    description = AppDescription(version="1.1.0", project_name="companion").to_bytes()
    data = description + bytes(range(256)) * 40
    return build_app_image(chip, [Segment(chip.drom_base + 0x20, data)], entry_point=0x40380000)


def key_of(chip: Chip, seed: int) -> bytes:
    return bytes((seed + index * 7) % 256 for index in range(chip.cipher.key_size_bytes))


def made_for(chip: Chip, key: bytes, slot: Partition) -> bytes:
    return encrypt(chip.cipher, key, slot.offset, pad_to_block(image_of(chip)))


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
@pytest.mark.parametrize(
    ("spoil", "cause", "said"),
    [
        (lambda made, other, foreign, plain: made, Cause.NONE, "a sound image for ota_1"),
        (lambda made, other, foreign, plain: plain, Cause.PLAINTEXT, "plaintext image"),
        (lambda made, other, foreign, plain: other, Cause.WRONG_SLOT, "for ota_0 .0x20000."),
        (lambda made, other, foreign, plain: foreign, Cause.OTHER_DEVICE, "key of bench-2"),
        (lambda made, other, foreign, plain: made[:4096], Cause.TRUNCATED, "after 4096 of"),
        (lambda made, other, foreign, plain: made[:5000] + b"\0" + made[5001:], Cause.CHANGED, "at 0x1388"),
        (lambda made, other, foreign, plain: bytes(len(made)), Cause.UNKNOWN, "no key and slot"),
    ],
)
def test_each_cause_is_named(chip: Chip, spoil, cause: Cause, said: str) -> None:  # type: ignore[no-untyped-def]
    key, foreign = key_of(chip, 1), key_of(chip, 2)
    made = made_for(chip, key, OTA_1)
    body = spoil(
        made, made_for(chip, key, OTA_0), made_for(chip, foreign, OTA_1), pad_to_block(image_of(chip))
    )
    found = diagnose(
        body,
        cipher=chip.cipher,
        key=key,
        slot=OTA_1,
        slots=(OTA_0, OTA_1),
        other_keys={"bench-2": foreign},
        made=made,
    )
    assert found.cause is cause, found
    assert re.search(said, found.sentence), found


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 288, 4097])
def test_no_body_is_too_short_to_be_judged(size: int) -> None:
    chip = CHIPS["esp32c3"]
    found = diagnose(bytes(size), cipher=chip.cipher, key=key_of(chip, 1), slot=OTA_1, slots=(OTA_0, OTA_1))
    assert found.cause is Cause.UNKNOWN


def test_without_the_original_a_cut_body_still_shows_that_it_does_not_end_as_an_image() -> None:
    chip = CHIPS["esp32c3"]
    key = key_of(chip, 1)
    body = made_for(chip, key, OTA_1)[:4096]
    found = diagnose(body, cipher=chip.cipher, key=key, slot=OTA_1, slots=(OTA_0, OTA_1))
    assert found.cause is Cause.TRUNCATED
