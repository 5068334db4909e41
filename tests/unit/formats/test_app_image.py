"""Application images against esptool's own parser and against fixed bytes."""

from __future__ import annotations

import hashlib

import pytest
from esptool.bin_image import LoadFirmwareImage
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.chips import CHIPS, Chip
from harness.errors import FormatError
from harness.formats.app_image import (
    AppDescription,
    Segment,
    app_description_at,
    build_app_image,
    parse_app_image,
    secure_padded,
)

DESCRIPTION = AppDescription(
    version="1.2.3",
    project_name="companion",
    time="12:34:56",
    date="Jan  2 2026",
    idf_ver="v5.5.5",
    secure_version=7,
    elf_sha256=bytes(range(32)),
)
ANY_CHIP = pytest.mark.parametrize("chip", CHIPS.values(), ids=list(CHIPS))
RAM = 0x3FC90000
SEGMENTS = st.lists(
    st.builds(Segment, st.integers(0x20000000, 0x20010000), st.binary(max_size=70)), min_size=1, max_size=16
)


def app(chip: Chip, *, more: tuple[Segment, ...] = (), tail: bytes = b"", **options: int) -> bytes:
    first = Segment(chip.drom_base + 0x20, DESCRIPTION.to_bytes() + tail)
    return build_app_image(chip, (first, *more), entry_point=0x40380000, **options)


@ANY_CHIP
@given(segments=SEGMENTS, hashed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_esptool_reads_what_was_built(chip, segments, hashed):
    image = build_app_image(chip, segments, entry_point=0x40380000, hash_appended=hashed, min_chip_rev_full=3)
    vendor = LoadFirmwareImage(chip.name, image)
    assert [(s.addr, s.data) for s in vendor.segments] == [
        (s.load_address, s.data + bytes(-len(s.data) % 4)) for s in segments
    ]
    assert vendor.entrypoint == 0x40380000
    assert vendor.chip_id == chip.chip_id
    assert vendor.min_rev_full == 3
    assert vendor.max_rev_full == 65535
    assert vendor.append_digest is hashed
    assert vendor.checksum == vendor.calculate_checksum()
    if hashed:
        assert vendor.stored_digest == vendor.calc_digest


@ANY_CHIP
@given(segments=SEGMENTS, hashed=st.booleans(), behind=st.binary(max_size=40))
@settings(max_examples=40, deadline=None)
def test_what_was_built_is_parsed_whatever_follows_it(chip, segments, hashed, behind):
    image = build_app_image(chip, segments, entry_point=0x40380000, hash_appended=hashed)
    parsed = parse_app_image(image + behind)
    assert parsed.size_bytes == len(image)
    assert parsed.is_intact
    assert parsed.hash_ok is (True if hashed else None)
    assert [s.load_address for s in parsed.segments] == [s.load_address for s in segments]
    assert [
        image[at : at + len(s.data)] for at, s in zip(parsed.segment_offsets, parsed.segments, strict=True)
    ] == [s.data for s in parsed.segments]
    assert parsed.chip_id == chip.chip_id
    assert parsed.entry_point == 0x40380000


def test_the_header_has_the_bytes_of_esp_image_header_t():
    image = build_app_image(
        CHIPS["esp32c3"],
        [Segment(0x3FC90000, b"\x01\x02\x03\x04")],
        entry_point=0x40380004,
        flash_size_bytes=4 << 20,
        min_chip_rev_full=103,
        max_chip_rev_full=199,
    )
    assert image[:24].hex() == "e901022f04003840ee0000000500036700c700" + "00000000" + "01"
    assert image[24:36].hex() == "0000c93f" + "04000000" + "01020304"
    # 36 bytes so far: eleven zeros, then XOR of the data and 0xEF as the last byte of a 16-byte block.
    assert image[36:48].hex() == "00" * 11 + f"{0xEF ^ 1 ^ 2 ^ 3 ^ 4:02x}"
    assert image[48:] == hashlib.sha256(image[:48]).digest()


def test_the_legacy_revision_is_the_major_number_on_esp32_and_the_minor_one_on_esp32c3():
    for name, expected in (("esp32", 3), ("esp32c3", 1)):
        image = build_app_image(CHIPS[name], [Segment(0, b"")], entry_point=0, min_chip_rev_full=301)
        assert parse_app_image(image).min_chip_rev == expected


@pytest.mark.parametrize("data_bytes", [0, 4, 8, 12])
def test_the_checksum_always_ends_a_block_even_when_data_fills_it(data_bytes):
    image = build_app_image(
        CHIPS["esp32"], [Segment(RAM, bytes(data_bytes))], entry_point=0, hash_appended=False
    )
    assert len(image) == 48
    assert image[-1] == 0xEF


@ANY_CHIP
def test_the_description_is_found_at_0x20(chip):
    image = app(chip)
    assert parse_app_image(image).description == DESCRIPTION
    assert app_description_at(image[:0x120]) == DESCRIPTION
    assert image[0x30:0x35] == b"1.2.3"
    assert image[0x50:0x59] == b"companion"
    assert image[0xB0:0xD0] == bytes(range(32))
    assert len(DESCRIPTION.to_bytes()) == 256


def test_an_image_without_description_has_none():
    image = build_app_image(CHIPS["esp32"], [Segment(RAM, bytes(300))], entry_point=0)
    assert parse_app_image(image).description is None
    with pytest.raises(FormatError, match="magic 0x00000000"):
        app_description_at(image)


@pytest.mark.parametrize("position", [0x20, 0x130, 0x2000])
def test_a_flipped_data_byte_shows_in_checksum_and_hash(position):
    damaged = bytearray(app(CHIPS["esp32"], tail=bytes(0x4000)))
    damaged[position] ^= 0x10
    parsed = parse_app_image(bytes(damaged))
    assert not parsed.checksum_ok
    assert parsed.stored_checksum ^ parsed.computed_checksum == 0x10
    assert parsed.hash_ok is False
    assert not parsed.is_intact


def test_two_flips_that_cancel_out_in_the_checksum_show_in_the_hash():
    damaged = bytearray(app(CHIPS["esp32c3"], tail=bytes(64)))
    damaged[0x130] ^= 1
    damaged[0x131] ^= 1
    parsed = parse_app_image(bytes(damaged))
    assert parsed.checksum_ok
    assert not parsed.is_intact


@pytest.mark.parametrize(
    ("at", "value", "names"),
    [
        (0, b"\x63", "offset 0x0: magic is 0x63"),
        (0, b"\xff", "offset 0x0: magic is 0xff"),
        (1, b"\x11", "offset 0x1: segment count is 17, expected 1..16"),
        (1, b"\x00", "offset 0x1: segment count is 0"),
        (23, b"\x7a", "offset 0x17: hash_appended is 0x7a"),
        (28, b"\x03\x01\x00\x00", "offset 0x1c: length of segment 0 is 0x103, expected a multiple of 4"),
        (28, b"\x00\x00\x00\x3c", "offset 0x1c: length of segment 0 is 0x3c000000, expected less than"),
        (28, b"\x00\x10\x00\x00", "offset 0x1c: length of segment 0 is 0x1000, but only"),
        (0x124, b"\x00\x00\x00\x3c", "offset 0x124: length of segment 1 is 0x3c000000, expected less than"),
        (0x124, b"\x08\x00\x00\x00", "ends at 0x130 inside the checksum, expected 0x140"),
    ],
)
def test_a_broken_image_is_refused_by_offset_and_field(at, value, names):
    image = bytearray(app(CHIPS["esp32"], more=(Segment(RAM, b"abcd"),), hash_appended=False))
    image[at : at + len(value)] = value
    with pytest.raises(FormatError) as caught:
        parse_app_image(bytes(image))
    assert names in str(caught.value)
    assert caught.value.todo


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_truncated_image_is_refused_wherever_it_ends(data):
    image = app(CHIPS["esp32c3"], more=(Segment(RAM, bytes(40)),))
    cut = data.draw(st.integers(0, len(image) - 1))
    with pytest.raises(FormatError) as caught:
        parse_app_image(image[:cut])
    assert caught.value.todo


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(lambda tail: b"\xe9" + tail)
    | st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=30)).map(
        lambda at: app(CHIPS["esp32"])[: at[0]] + at[1] + app(CHIPS["esp32"])[at[0] + len(at[1]) :]
    )
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_an_image_or_a_format_error(data):
    try:
        parsed = parse_app_image(data)
    except FormatError:
        return
    assert parsed.size_bytes <= len(data)


@pytest.mark.parametrize(
    ("segments", "options", "names"),
    [
        ([], {}, "0 segments"),
        ([Segment(RAM, b"x")] * 17, {}, "17 segments"),
        ([Segment(1 << 32, b"x")], {}, "segment 0: load address"),
        ([Segment(RAM, bytes(1 << 24))], {}, "segment 0 has 0x1000000 bytes"),
        ([Segment(RAM, b"x")], {"flash_size_bytes": 3 << 20}, "flash size 0x300000"),
        ([Segment(RAM, b"x")], {"min_chip_rev_full": 70000}, "does not fit its field"),
        ([Segment(0x3F400000, b"x")], {}, "use load address 0x3f400020"),
        ([Segment(0x3F410020, bytes(8)), Segment(0x3F400020, bytes(8))], {}, "segment 1 is mapped"),
    ],
)
def test_an_image_that_no_bootloader_takes_is_not_built(segments, options, names):
    with pytest.raises(FormatError) as caught:
        build_app_image(CHIPS["esp32"], segments, entry_point=0, **options)
    assert names in str(caught.value)
    assert caught.value.todo


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"version": "v" * 32}, "version"),
        ({"project_name": "ü" * 16}, "project_name"),
        ({"time": "t" * 16}, "time"),
        ({"idf_ver": "a\0b"}, "idf_ver"),
        ({"version": "\ud800"}, "version is not Unicode"),
        ({"elf_sha256": b"short"}, "elf_sha256"),
        ({"reserved": bytes(71)}, "reserved"),
        ({"secure_version": -1}, "does not fit its field"),
        ({"mmu_page_size_log2": 256}, "does not fit its field"),
    ],
)
def test_a_description_that_does_not_fit_is_refused_by_field(change, names):
    values = {"version": "1", "project_name": "p", **change}
    with pytest.raises(FormatError, match=names):
        AppDescription(**values).to_bytes()


def test_a_version_that_is_not_text_can_still_be_printed():
    raw = bytearray(DESCRIPTION.to_bytes())
    raw[16:18] = b"\xff\xfe"
    AppDescription.from_bytes(bytes(raw)).version.encode("utf-8")


@pytest.mark.parametrize("size", [0, 255])
def test_a_truncated_description_is_refused(size):
    with pytest.raises(FormatError, match=f"has {size} bytes"):
        AppDescription.from_bytes(bytes(size))
    with pytest.raises(FormatError, match="ends at 0x120"):
        app_description_at(bytes(size))


@ANY_CHIP
@given(tail=st.binary(max_size=200), ram=st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_padding_for_secure_boot_is_byte_for_byte_esptools(chip, tail, ram, tmp_path_factory):
    image = app(chip, tail=tail, more=(Segment(RAM, bytes(range(256)) * 2 + b"x" * ram),))
    vendor = LoadFirmwareImage(chip.name, image)
    vendor.secure_pad = "2"
    for segment in vendor.segments:
        segment.name = ""  # an ELF would have given it one
    output = tmp_path_factory.mktemp("padded") / "app.bin"
    vendor.save(str(output))
    padded = secure_padded(image)
    assert padded == output.read_bytes()
    assert len(padded) % 0x10000 == 0
    assert parse_app_image(padded).is_intact
    assert secure_padded(padded) == padded


@pytest.mark.parametrize("near", range(0, 80, 4))
def test_padding_finds_room_wherever_the_last_segment_ends(near):
    chip = CHIPS["esp32c3"]
    whole = app(chip)
    padded = secure_padded(app(chip, tail=bytes(0x10000 - len(whole) - near)))
    assert len(padded) in (0x10000, 0x20000)
    assert parse_app_image(padded).is_intact


def test_what_cannot_be_padded_is_refused():
    chip = CHIPS["esp32c3"]
    damaged = bytearray(app(chip))
    damaged[0x60] ^= 1
    for image in (bytes(damaged), app(chip) + b"signature", app(chip, hash_appended=False)):
        with pytest.raises(FormatError, match="cannot be filled"):
            secure_padded(image)
    with pytest.raises(FormatError, match="16 segments"):
        secure_padded(app(chip, more=tuple(Segment(RAM, b"1234") for _ in range(15))))
