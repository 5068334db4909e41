"""The two files of a console: the log for people, and the raw bytes beside it.

A line of the log is ``2026-11-21 02:31:07.123 | text``; what the harness did stands between as
``2026-11-21 02:31:07.123 >>> reset: EN``. A half line is shown at once as ``… ~ text`` and given again with
``|`` when it is whole; readers of the file skip it.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.console.log_line import Line, LineKind, printable_text

BOARD_SIGN = "|"
MARK_SIGN = ">>>"
HALF_SIGN = "~"

_ENTRY = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) (\||>>>|~) ?(.*)", re.DOTALL)
MAX_READ_BYTES = 65536
"""Longer lines of a foreign file are cut. Ours are shorter, with every byte escaped."""

_INDEX_STEP = 256
"""Every so many lines their place in the file is remembered."""


class LineLog:
    """Appends lines to the log file; gives back those that are no longer in memory.

    OSError from the file system passes through.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.earlier = _count_lines(path)
        """Lines that an earlier console has left in the file; numbers go on after them."""
        self._file: BinaryIO = path.open("ab")
        self._index: list[tuple[int, int]] = []
        self._written = 0

    def write(self, line: Line) -> None:
        """Appends `line`; lines come in the order of their ``n``, half lines have none of their own."""
        sign = MARK_SIGN if line.is_mark else BOARD_SIGN if line.complete else HALF_SIGN
        if line.complete:
            if self._written % _INDEX_STEP == 0:
                self._index.append((line.n, self._file.tell()))
            self._written += 1
        self._file.write(
            f"{stamp(line.wall_s)} {sign} {line.text}\n".encode("utf-8", errors="backslashreplace")
        )

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def lines(self, first: int, end: int) -> Iterator[Line]:
        """Lines ``first <= n < end`` read back from the file; their raw bytes are those of the text."""
        self._file.flush()
        start_n, place = 0, 0
        for n, offset in self._index:
            if n > first:
                break
            start_n, place = n, offset
        with self.path.open("rb") as file:
            file.seek(place)
            n = start_n
            for raw in file:
                line = _line_of(raw, n)
                if line is None or not line.complete:
                    continue
                n += 1
                if line.n >= end:
                    return
                if line.n >= first:
                    yield line


def _count_lines(path: Path) -> int:
    """As `read_log` counts them."""
    return sum(1 for _ in read_log(path)) if path.exists() else 0


class RawLog:
    """The bytes as they came. Floods of one identical line are cut short with a note, nothing else is left
    out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def note_repeats(self, count: int, size_bytes: int) -> None:
        """Stands for `count` further lines of `size_bytes` each that equal the one before."""
        self._file.write(
            b"[harness: the line above came %d more times, %d bytes each]\r\n" % (count, size_bytes)
        )

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def stamp(wall_s: float) -> str:
    """Local time in ms, as the log file has it."""
    moment = datetime.datetime.fromtimestamp(wall_s)
    return moment.isoformat(sep=" ", timespec="milliseconds")


def read_log(path: Path) -> Iterator[Line]:
    """The lines of a log file of ours, or of anybody's capture of a UART. Half lines are left out.

    A file is ours when its first line has our shape; in any other every line is a board's, without a time.
    OSError from the file system passes through.
    """
    with path.open("rb") as file:
        ours: bool | None = None
        n = 0
        while raw := file.readline(MAX_READ_BYTES):
            entry = _line_of(raw, n)
            if ours is None:
                ours = entry is not None
            if ours and entry is not None:
                if not entry.complete:
                    continue
                line = entry
            else:
                bare = raw.rstrip(b"\r\n")
                line = Line(n, 0.0, printable_text(bare), bare)
            yield line
            n += 1


def _line_of(raw: bytes, n: int) -> Line | None:
    match = _ENTRY.fullmatch(raw.rstrip(b"\r\n"))
    if match is None:
        return None
    try:
        wall_s = datetime.datetime.fromisoformat(match[1].decode()).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    body = match[3]
    kind = LineKind.MARK if match[2] == b">>>" else LineKind.BOARD
    # Within one file differences of wall-clock time are differences of monotonic time: one anchor per
    # console.
    text = body.decode("utf-8", errors="backslashreplace")
    raw_text = b"" if kind is LineKind.MARK else body
    return Line(n, wall_s, text, raw_text, wall_s, kind, complete=match[2] != b"~")
