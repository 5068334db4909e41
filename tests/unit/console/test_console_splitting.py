"""Bytes into lines: nothing lost, nothing invented, floods counted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.console.line_splitter import FLOOD_LINES, FLOOD_REPORT_S, MAX_LINE_BYTES, QUIET_S, LineSplitter


def pieces_of(chunks, *, gap_s=0.5):
    splitter = LineSplitter()
    pieces = []
    for index, chunk in enumerate(chunks):
        pieces += splitter.feed(chunk, index * gap_s)
    return pieces + splitter.flush(len(chunks) * gap_s)


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"a\r\nb\r\n"], [b"a", b"b"]),
        ([b"a\nb\n"], [b"a", b"b"]),
        ([b"a\r\r\n"], [b"a"]),
        ([b"a", b"b\r", b"\nc"], [b"ab", b"c"]),
        ([b"\r\n\r\n"], [b"", b""]),
        (
            [b"READY versESP-ROM:esp32c3-api1-20210207\r\nx\n"],
            [b"READY vers", b"ESP-ROM:esp32c3-api1-20210207", b"x"],
        ),
        ([b"\x00\xffets Jul 29 2019 12:21:46\r\n"], [b"\x00\xff", b"ets Jul 29 2019 12:21:46"]),
        ([b"READY vers", b"ets Jul 29 2019 12:21:46\r\n"], [b"READY vers", b"ets Jul 29 2019 12:21:46"]),
        ([b"the sets Jul of"], [b"the sets Jul of"]),
    ],
)
def test_lines_end_where_they_end(chunks, lines):
    assert [piece.raw for piece in pieces_of(chunks)] == lines


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=20), st.booleans())
def test_every_byte_is_on_the_wire_exactly_once(chunks, showing):
    splitter = LineSplitter()
    wire = b""
    for index, chunk in enumerate(chunks):
        pieces = splitter.feed(chunk, index * 1.0)
        wire += b"".join(piece.wire for piece in pieces)
        if showing and index % 2:
            wire += splitter.show()
    wire += b"".join(piece.wire for piece in splitter.flush(1000.0))
    assert wire == b"".join(chunks)


def test_line_without_end_is_cut_and_kept():
    noise = bytes(range(128, 138)) * 2000
    pieces = pieces_of([noise])
    assert b"".join(piece.raw for piece in pieces) == noise
    assert max(len(piece.raw) for piece in pieces) <= MAX_LINE_BYTES


def test_half_line_is_quiet_only_after_a_while():
    splitter = LineSplitter()
    splitter.feed(b"esp> ", 10.0)
    assert not splitter.is_quiet(10.0 + QUIET_S / 2)
    assert splitter.is_quiet(10.0 + QUIET_S * 1.01)


def test_line_keeps_the_time_of_its_first_byte():
    splitter = LineSplitter()
    splitter.feed(b"REA", 1.0)
    (first, second) = splitter.feed(b"DY\nnext\n", 2.0)
    assert (first.raw, first.at_s, second.at_s) == (b"READY", 1.0, 2.0)


def test_flood_of_one_line_is_counted():
    splitter = LineSplitter()
    pieces = splitter.feed(b"invalid header: 0xffffffff\r\n" * 5000, 0.0)
    assert len(pieces) == FLOOD_LINES
    assert splitter.flooding_with == b"invalid header: 0xffffffff"
    (report, other) = splitter.feed(b"other\r\n", 0.01)
    assert (report.repeats, report.raw) == (5000 - FLOOD_LINES, b"invalid header: 0xffffffff")
    assert other.raw == b"other"
    assert splitter.flooding_with is None


def test_long_flood_is_reported_now_and_then():
    splitter = LineSplitter()
    splitter.feed(b"x\n" * 100, 0.0)
    assert splitter.overdue(0.05) == []
    for step in range(1, 300):
        splitter.feed(b"x\n", step * 0.05)
    assert [piece.repeats for piece in splitter.overdue(FLOOD_REPORT_S + 5.0)] == [399 - FLOOD_LINES]


def test_flood_that_falls_silent_is_reported():
    splitter = LineSplitter()
    splitter.feed(b"x\n" * 100, 0.0)
    assert [piece.repeats for piece in splitter.overdue(0.2)] == [100 - FLOOD_LINES]


def test_slow_repetition_is_a_heartbeat_not_a_flood():
    splitter = LineSplitter()
    pieces = [piece for step in range(200) for piece in splitter.feed(b"I app: alive\n", step * 1.0)]
    assert len(pieces) == 200


def test_alternating_lines_are_all_kept():
    assert len(pieces_of([b"a\nb\n" * 500])) == 1000
