"""The end of a serial log that is still being written, a piece at a time, as it lies on disk: redacted there already."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.console.log_line import printable_text
from harness.history.plain_file import open_plain

MOST_BYTES = 64 * 1024
"""Given at a time; whoever is further behind gets the end."""

_LINE = re.compile(r"\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d\.\d{3}) (\||>>>|~) ?(.*)", re.DOTALL)
_KINDS = {"|": "board", ">>>": "mark", "~": "half"}


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line for the page."""

    time: str
    """``HH:MM:SS.mmm``; empty in a file that is not ours."""
    kind: str
    """``board``, or ``mark``: the harness."""
    text: str


@dataclass(frozen=True, slots=True)
class Tail:
    """A piece of the log."""

    lines: tuple[LogLine, ...]
    place: str
    """Where the next piece begins; give it back as it is."""
    fresh: bool
    """It does not go on from the place that was asked for: another file, or too far behind."""


def tail(path: Path, place: str = "") -> Tail:
    """What came since `place`; the last lines without one. Empty where there is no such file.

    A half line waits until it is whole. OSError while it is read passes through.
    """
    try:
        opened = open_plain(path)
    except OSError:
        # Not there yet, or nothing to show.
        return Tail((), "", fresh=place != "")
    with opened as file:
        status = os.fstat(file.fileno())
        identity, _, offset_text = place.rpartition(".")
        offset = int(offset_text) if offset_text.isascii() and offset_text.isdigit() else -1
        same = identity == _identity(status) and 0 <= offset <= status.st_size
        start = (
            offset if same and status.st_size - offset <= MOST_BYTES else max(0, status.st_size - MOST_BYTES)
        )
        file.seek(start)
        data = file.read(MOST_BYTES)
    goes_on = same and start == offset
    if not goes_on and start > 0:
        data, start = _from_next_line(data, start)
    whole, newline, _ = data.rpartition(b"\n")
    lines = [_line(raw) for raw in whole.split(b"\n")] if newline else []
    end = start + len(whole) + len(newline)
    return Tail(
        tuple(line for line in lines if line.kind != "half"), f"{_identity(status)}.{end}", fresh=not goes_on
    )


def _identity(status: os.stat_result) -> str:
    return f"{status.st_dev:x}-{status.st_ino:x}"


def _from_next_line(data: bytes, start: int) -> tuple[bytes, int]:
    cut, _, rest = data.partition(b"\n")
    return rest, start + len(cut) + 1


def _line(raw: bytes) -> LogLine:
    text = printable_text(raw.rstrip(b"\r"))
    match = _LINE.fullmatch(text)
    return LogLine(match[1], _KINDS[match[2]], match[3]) if match else LogLine("", "board", text)
