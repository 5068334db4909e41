"""The OTA package's header, byte by byte."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import FormatError
from harness.formats.ota_package import PackageHeader, key_id_of, parse_header, parse_package

BODY = bytes(range(256)) + b"\xaa" * 16
SIGNATURE = bytes(range(64))
HEADER = PackageHeader(
    chip_id=5,
    cipher_number=2,
    mac=bytes.fromhex("a0b1c2d3e4f5"),
    key_id=bytes.fromhex("0102030405060708"),
    slot_offset=0x1A0000,
    slot_size=0x180000,
    image_size=len(BODY) - 3,
    body_size=len(BODY),
    body_sha256=hashlib.sha256(BODY).digest(),
    image_sha256=bytes(range(32)),
    version="1.1.0",
    secure_version=3,
    project_name="companion",
)
PACKAGE = HEADER.to_bytes(SIGNATURE) + BODY


def test_every_field_lies_where_the_device_looks_for_it():
    expected = bytearray(256)
    for offset, raw in (
        (0, b"RAWOTA1\0"),
        (8, b"\x01\x00"),
        (10, b"\x00\x01"),
        (12, b"\x05\x00"),
        (14, b"\x02"),
        (16, bytes.fromhex("a0b1c2d3e4f5")),
        (24, bytes.fromhex("0102030405060708")),
        (32, bytes.fromhex("00001a00")),
        (36, bytes.fromhex("00001800")),
        (40, (269).to_bytes(4, "little")),
        (44, (272).to_bytes(4, "little")),
        (48, hashlib.sha256(BODY).digest()),
        (80, bytes(range(32))),
        (112, b"1.1.0"),
        (144, b"\x03\x00\x00\x00"),
        (148, b"companion"),
        (192, SIGNATURE),
    ):
        expected[offset : offset + len(raw)] = raw
    assert HEADER.to_bytes(SIGNATURE) == bytes(expected)
    assert HEADER.signed_part() == bytes(expected[:192])


def test_a_package_is_taken_apart():
    assert parse_package(PACKAGE) == (HEADER, SIGNATURE, BODY)
    assert parse_header(PACKAGE[:256]) == HEADER
    HEADER.check_body(BODY)


def test_the_key_id_is_eight_bytes_of_a_hash_and_not_the_key():
    key = bytes(range(32))
    assert key_id_of(key) == hashlib.sha256(b"esp32-secure-ota key id\0" + key).digest()[:8]


@pytest.mark.parametrize(
    ("at", "value", "names"),
    [
        (0, b"X", "offset 0: magic"),
        (0, b"\xe9", "offset 0: magic"),
        (8, b"\x02", "offset 8: header_version is 2"),
        (10, b"\x01", "offset 10: header_size is 0x101"),
        (14, b"\x05", "offset 14: cipher is 5"),
        (15, b"\x01", "offset 15: flags is 0x1"),
        (22, b"\x01", "offset 22: reserved is 0x1"),
        (40, bytes(4), "offset 44: body_size is 272"),
        (40, bytes(8), "offset 44: body_size is 0"),
        (40, b"\xff\xff\xff\xff", "offset 44: body_size is 272"),
        (44, b"\x11", "offset 44: body_size is 273"),
        (180, b"\x01", "offset 180: reserved is 0x1"),
        (191, b"\x80", "offset 180: reserved is 0x8"),
    ],
)
def test_a_wrong_header_is_refused_by_offset_and_field(at, value, names):
    package = bytearray(PACKAGE)
    package[at : at + len(value)] = value
    with pytest.raises(FormatError) as caught:
        parse_package(bytes(package))
    assert names in str(caught.value)
    assert caught.value.todo


@pytest.mark.parametrize(
    ("package", "names"),
    [
        (b"", "has 0 bytes"),
        (PACKAGE[:255], "has 255 bytes"),
        (PACKAGE[:-1], "body_size is 272, but 271 bytes follow"),
        (PACKAGE + b"\0", "body_size is 272, but 273 bytes follow"),
    ],
)
def test_a_truncated_or_longer_package_is_refused(package, names):
    with pytest.raises(FormatError, match=names):
        parse_package(package)


def test_a_damaged_body_is_noticed_by_its_hash():
    with pytest.raises(FormatError, match="SHA-256 of the body"):
        HEADER.check_body(BODY[:-1] + b"\0")
    with pytest.raises(FormatError, match="body has 271 bytes"):
        HEADER.check_body(BODY[:-1])


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"mac": bytes(5)}, "mac has 5 bytes"),
        ({"key_id": bytes(9)}, "key_id has 9 bytes"),
        ({"body_sha256": b""}, "body_sha256"),
        ({"image_sha256": b""}, "image_sha256"),
        ({"version": "v" * 32}, "version"),
        ({"project_name": "p\0q"}, "project_name"),
        ({"chip_id": 1 << 16}, "does not fit its field"),
        ({"slot_offset": -1}, "does not fit its field"),
        ({"secure_version": 1 << 32}, "does not fit its field"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_by_field(change, names):
    with pytest.raises(FormatError, match=names):
        replace(HEADER, **change).to_bytes(SIGNATURE)


def test_a_signature_has_64_bytes():
    with pytest.raises(FormatError, match="signature has 70 bytes"):
        HEADER.to_bytes(bytes(70))


@given(
    st.binary(max_size=300)
    | st.binary(min_size=248, max_size=300).map(lambda tail: b"RAWOTA1\0" + tail)
    | st.tuples(st.integers(0, 191), st.binary(min_size=1, max_size=8)).map(
        lambda at: PACKAGE[: at[0]] + at[1] + PACKAGE[at[0] + len(at[1]) :]
    )
)
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_a_package_or_a_format_error(data):
    try:
        header, signature, body = parse_package(data)
    except FormatError:
        return
    assert len(signature) == 64
    assert len(body) == header.body_size
