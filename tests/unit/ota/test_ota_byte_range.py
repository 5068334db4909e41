"""The Range header: what is honoured, ignored and refused."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.ota.byte_range import ByteRange, RangeUnsatisfiable, parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-99", (0, 100)),
        ("bytes=10-", (10, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-1000", (90, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-1000", (0, 100)),
        ("BYTES = 5 - 6", (5, 7)),
        ("bytes=0000000000000000000000000010-0000000000000000000000000011", (10, 12)),
        ("bytes=50-" + "9" * 5000, (50, 100)),
    ],
)
def test_a_satisfiable_range_names_its_bytes(header: str, expected: tuple[int, int]) -> None:
    assert parse_range(header, 100) == ByteRange(*expected)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-4",
        "bytes=0-1,5-6",
        "items=0-1",
        "bytes=0x0-0x5",
        "bytes=+1-2",
        "bytes=1-2x",
        "bytes=٣-٤",
        "bytes=1 2-3",
        "bytes=0-1\n",
        "bytes=--5",
    ],
)
def test_what_is_malformed_or_not_one_byte_range_is_ignored(header: str | None) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=" + "9" * 5000 + "-"])
def test_a_range_behind_the_end_cannot_be_satisfied(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable):
        parse_range(header, 100)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_satisfies_no_range(header: str) -> None:
    with pytest.raises(RangeUnsatisfiable):
        parse_range(header, 0)


@given(
    header=st.one_of(
        st.text(max_size=40),
        st.from_regex(r"bytes=[0-9]{0,25}-[0-9]{0,25}", fullmatch=True),
    ),
    size_bytes=st.integers(0, 2**40),
)
@example(header="bytes=0-", size_bytes=0)
def test_any_header_gives_a_part_of_the_file_or_is_refused(header: str, size_bytes: int) -> None:
    try:
        found = parse_range(header, size_bytes)
    except RangeUnsatisfiable:
        assert header.lower().startswith("bytes")
        return
    assert found is None or 0 <= found.start < found.stop <= size_bytes
