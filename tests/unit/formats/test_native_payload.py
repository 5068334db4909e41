"""Programs for the host inside application images."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from harness.chips import CHIPS, Chip
from harness.errors import FormatError
from harness.formats.app_image import AppDescription, Segment, build_app_image, parse_app_image
from harness.formats.native_payload import NativeMark, native_program, native_segment

PROGRAM = b"\x7fELF" + bytes(range(256)) * 40 + b"end"
DESCRIPTION = AppDescription(version="1.0.0", project_name="companion")
ANY_CHIP = pytest.mark.parametrize("chip", CHIPS.values(), ids=list(CHIPS))


def native_image(chip: Chip) -> bytes:
    return build_app_image(
        chip, [native_segment(chip, DESCRIPTION, PROGRAM)], entry_point=chip.drom_base + 0x20
    )


@ANY_CHIP
def test_a_program_travels_through_a_real_image(chip):
    image = parse_app_image(native_image(chip))
    assert image.is_intact
    assert image.segments[0].load_address == chip.drom_base + 0x20
    assert image.description is not None
    assert replace(image.description, reserved=bytes(72)) == DESCRIPTION
    assert native_program(image) == PROGRAM


def test_the_mark_has_its_documented_bytes_at_description_offset_184():
    segment = native_segment(CHIPS["esp32"], DESCRIPTION, PROGRAM)
    mark = segment.data[184 : 184 + 48]
    assert mark[:8] == b"NATIVE1\0"
    assert int.from_bytes(mark[8:12], "little") == 256
    assert int.from_bytes(mark[12:16], "little") == len(PROGRAM)
    assert mark[16:] == hashlib.sha256(PROGRAM).digest()


def test_a_mark_survives_being_written():
    mark = NativeMark(0x100, 12345, bytes(range(32)))
    assert len(mark.to_bytes()) == 48
    assert NativeMark.from_description(replace(DESCRIPTION, reserved=mark.to_bytes() + bytes(24))) == mark


def test_an_image_of_the_chips_own_code_has_no_mark():
    chip = CHIPS["esp32c3"]
    for data in (DESCRIPTION.to_bytes() + b"code", bytes(300)):
        image = parse_app_image(build_app_image(chip, [Segment(0x3FC90000, data)], entry_point=0))
        assert native_program(image) is None
    assert NativeMark.from_description(DESCRIPTION) is None


@pytest.mark.parametrize(
    ("mark", "names"),
    [
        (NativeMark(0x100, len(PROGRAM) + 8, hashlib.sha256(PROGRAM).digest()), "program ends at"),
        (NativeMark(0x100, len(PROGRAM), bytes(32)), "SHA-256 differs"),
        (NativeMark(0x80, 4, bytes(32)), "segment offset 0x80"),
        (NativeMark(0x100, 0, bytes(32)), "program of 0 bytes"),
        (NativeMark(0xFFFFFFFF, 0xFFFFFFFF, bytes(32)), "program ends at 0x1fffffffe"),
    ],
)
def test_a_mark_that_is_not_true_is_refused(mark, names):
    description = replace(DESCRIPTION, reserved=mark.to_bytes().ljust(72, b"\0"))
    chip = CHIPS["esp32"]
    segment = Segment(chip.drom_base + 0x20, description.to_bytes() + PROGRAM)
    image = parse_app_image(build_app_image(chip, [segment], entry_point=0))
    with pytest.raises(FormatError) as caught:
        native_program(image)
    assert names in str(caught.value)


@pytest.mark.parametrize(
    "build",
    [
        lambda: native_segment(CHIPS["esp32"], DESCRIPTION, b""),
        lambda: NativeMark(1 << 32, 1, bytes(32)).to_bytes(),
        lambda: NativeMark(256, 1, b"").to_bytes(),
        lambda: NativeMark.from_description(replace(DESCRIPTION, reserved=b"NATIVE1\0")),
    ],
)
def test_what_makes_no_mark_is_refused(build):
    with pytest.raises(FormatError, match="native"):
        build()
