"""Bytes into lines: where a line ends, what a half line is, and when the same line comes again and again.

Pure: time comes in with the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

QUIET_S = 0.2
"""A half line is shown after so long a silence. A prompt has no line end; a log line comes in one go."""

MAX_LINE_BYTES = 8192
"""Longer lines are cut: noise at the wrong baud rate may have no line end at all."""

FLOOD_LINES = 16
"""So many identical lines in quick succession are kept; further ones are counted."""

FLOOD_GAP_S = 0.1
"""Identical lines that come slower than this are not a flood, but somebody's heartbeat."""

FLOOD_REPORT_S = 10.0
"""A flood is reported after so long, and so on while it lasts."""

# A reset in the middle of a line glues the ROM's banner to it; the banner begins a line of its own.
_BANNER = re.compile(rb"(?<=[^\r\n])(?=ESP-ROM:esp[0-9a-z]+-|ets [A-Z][a-z]{2} [ \d]\d \d{4} \d\d:\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Piece:
    """A complete line (without its line end), or the report of a flood."""

    raw: bytes
    """The line without CR LF; for a report the repeated line."""
    at_s: float
    """When its first byte came; for a report, when it was made."""
    wire: bytes = b""
    """Its bytes on the wire, line end included, less those that `LineSplitter.show` gave; empty for a
    report."""
    repeats: int = 0
    """Not 0 for a report: how many further identical lines are not given one by one."""


class LineSplitter:
    """Takes chunks, gives `Piece`s; knows the half line at the end."""

    def __init__(self) -> None:
        self._half = bytearray()
        self._half_at_s = 0.0
        self._shown = 0
        self._touched_s = 0.0
        self._previous = b""
        self._previous_at_s = 0.0
        self._run = 0
        self._unreported = 0
        self._report_due_s = 0.0

    @property
    def half(self) -> bytes:
        """The bytes since the last line end."""
        return bytes(self._half)

    @property
    def half_at_s(self) -> float:
        return self._half_at_s

    def is_quiet(self, now_s: float) -> bool:
        """Whether there is a half line whose rest has not come for `QUIET_S`."""
        return bool(self._half) and now_s - self._touched_s >= QUIET_S

    @property
    def flooding_with(self) -> bytes | None:
        """The line that comes over and over while its copies are being counted, not given."""
        return self._previous if self._unreported else None

    def show(self) -> bytes:
        """The bytes of the half line that were not shown before; their line will not give them again."""
        unseen = bytes(self._half[self._shown :])
        self._shown = len(self._half)
        return unseen

    def feed(self, data: bytes, now_s: float) -> list[Piece]:
        """The lines that `data` completes."""
        pieces: list[Piece] = []
        if not self._half:
            self._half_at_s = now_s
        self._half += data
        self._touched_s = now_s
        if b"\n" in data or len(self._half) > MAX_LINE_BYTES:
            *whole, rest = bytes(self._half).split(b"\n")
            self._half = bytearray(rest)
            for line in whole:
                self._take(line, b"\n", pieces, now_s)
            start = 0
            while len(self._half) - start > MAX_LINE_BYTES:
                self._take(bytes(self._half[start : start + MAX_LINE_BYTES]), b"", pieces, now_s)
                start += MAX_LINE_BYTES
            del self._half[:start]
        return pieces

    def flush(self, now_s: float) -> list[Piece]:
        """Ends the stream, or a stretch of it: the half line becomes a line, a flood is reported."""
        pieces: list[Piece] = []
        if self._half:
            line, self._half = bytes(self._half), bytearray()
            self._take(line, b"", pieces, now_s)
        self._report(pieces, now_s)
        self._run, self._previous = 0, b""
        return pieces

    def overdue(self, now_s: float) -> list[Piece]:
        """The report of a flood, when it is time for one or the flood has ended by silence."""
        pieces: list[Piece] = []
        if self._unreported and (now_s >= self._report_due_s or now_s - self._previous_at_s > FLOOD_GAP_S):
            self._report(pieces, now_s)
        return pieces

    def _take(self, line: bytes, end: bytes, pieces: list[Piece], now_s: float) -> None:
        start = 0
        for banner in _BANNER.finditer(line):
            self._take_one(line[start : banner.start()], b"", pieces, now_s)
            start = banner.start()
        while len(line) - start > MAX_LINE_BYTES:
            self._take_one(line[start : start + MAX_LINE_BYTES], b"", pieces, now_s)
            start += MAX_LINE_BYTES
        self._take_one(line[start:], end, pieces, now_s)

    def _take_one(self, wire: bytes, end: bytes, pieces: list[Piece], now_s: float) -> None:
        line = wire.rstrip(b"\r")
        at_s, self._half_at_s = self._half_at_s, now_s
        shown = min(self._shown, len(wire))
        self._shown -= shown
        same = line == self._previous and at_s - self._previous_at_s <= FLOOD_GAP_S
        self._previous_at_s = at_s
        if same:
            self._run += 1
            if self._run > FLOOD_LINES and not shown:
                if not self._unreported:
                    self._report_due_s = now_s + FLOOD_REPORT_S
                self._unreported += 1
                return
        else:
            self._report(pieces, now_s)
            self._previous, self._run = line, 1
        pieces.append(Piece(line, at_s, wire[shown:] + end))

    def _report(self, pieces: list[Piece], now_s: float) -> None:
        if self._unreported:
            pieces.append(Piece(self._previous, now_s, b"", self._unreported))
            self._unreported = 0
