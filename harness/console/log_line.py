"""One line of a board's log, and what ESP-IDF's log format says in it.

Pure: bytes and text in, values out. Nothing here raises on what a UART may deliver.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from enum import Enum


class LineKind(str, Enum):
    """Who made a line."""

    BOARD = "board"
    MARK = "mark"
    """The harness: what it did, or what it has to say about the stream (``>>>`` in the log file)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, without its line end.

    ``n`` counts lines and marks of one console from 0. ``at_s`` is monotonic seconds, ``wall_s`` Unix
    seconds, both of the line's first byte.
    """

    n: int
    at_s: float
    text: str
    """What was received, made safe to print: colours removed, control characters and bad UTF-8 as
    ``\\xNN``."""
    raw: bytes = b""
    """The bytes without CR LF; empty for marks."""
    wall_s: float = 0.0
    kind: LineKind = LineKind.BOARD
    complete: bool = True
    """False while the line end has not come: the same line is given again when it has."""

    @property
    def is_mark(self) -> bool:
        return self.kind is LineKind.MARK


@dataclass(frozen=True, slots=True)
class EspLog:
    """One message in ESP-IDF's log format, of any version: ``I (123) tag: text``, coloured or not."""

    level: str
    """One of ``E W I D V``."""
    time_ms: int | None
    """The printed time stamp in ms, or None where the format has none (early log, Log V2 without stamps).

    Milliseconds since start for numbers and ``hh:mm:ss.mmm``, Unix ms where a date is printed. It restarts
    with the chip and may jump once per boot: only differences within one phase of one boot mean something.
    """
    tag: str
    text: str


# CSI sequences: colours, but also what a REPL sends to move the cursor.
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ANSI_BYTES = re.compile(rb"\x1b\[[0-9;?]*[ -/]*[@-~]")

_STAMP = r"\d[\d:. -]{0,31}"
_TAG = r"[A-Za-z0-9_][^:\s\"{}]{0,47}"
STAMPED = re.compile(rf"([EWIDV]) \(({_STAMP})\) ({_TAG}): ?")
"""The beginning of a message with a time stamp, wherever it stands."""
_BARE = re.compile(rf"([EWIDV]) ({_TAG}): (.*)", re.DOTALL)
"""ESP_DRAM_LOG, and Log V2 without stamps. Only at the start of a line, or prose would look like a log."""
_CLOCK = re.compile(r"(?:(\d{2}(?:\d{2})?-\d{2}-\d{2}) )?(\d{2}):(\d{2}):(\d{2})\.(\d{3})")


def printable_text(raw: bytes) -> str:
    """`raw` as text that is safe in a terminal and in a log file, colours removed."""
    if b"\x1b" in raw:
        raw = _ANSI_BYTES.sub(b"", raw)
    text = raw.decode("utf-8", errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def strip_ansi(text: str) -> str:
    """`text` without terminal control sequences."""
    return _ANSI.sub("", text) if "\x1b" in text else text


def parse_esp_line(text: str) -> EspLog | None:
    """The first ESP-IDF log message in `text`, or None."""
    _, logs = split_logs(text)
    return logs[0] if logs else None


def split_logs(text: str) -> tuple[str, tuple[EspLog, ...]]:
    """What stands before the first log message in `text`, and the messages.

    A line holds several messages when a line end got lost, for instance by a reset or a second core in the
    middle of a line. A message quoted in another (after a blank or a quotation mark) is left where it is.
    """
    text = strip_ansi(text).strip("\r\n")
    starts: list[re.Match[str]] = []
    for match in STAMPED.finditer(text):
        glued = match.start() == 0 or text[match.start() - 1] not in " \t\"'`(["
        if glued or not starts:
            starts.append(match)
    if not starts:
        bare = _BARE.match(text)
        return ("", (EspLog(bare[1], None, bare[2], bare[3]),)) if bare else (text, ())
    ends = [match.start() for match in starts[1:]] + [len(text)]
    logs = tuple(
        EspLog(match[1], _stamp_ms(match[2]), match[3], text[match.end() : end])
        for match, end in zip(starts, ends, strict=True)
    )
    return text[: starts[0].start()], logs


def _stamp_ms(stamp: str) -> int | None:
    if stamp.isascii() and stamp.isdigit():
        return int(stamp)
    clock = _CLOCK.fullmatch(stamp)
    if clock is None:
        return None
    hours, minutes, seconds, millis = (int(group) for group in clock.groups()[1:])
    of_day_ms = ((hours * 60 + minutes) * 60 + seconds) * 1000 + millis
    if clock[1] is None:
        return of_day_ms
    date = clock[1] if len(clock[1]) == 10 else f"20{clock[1]}"
    try:
        day = datetime.date.fromisoformat(date)
    except ValueError:
        return None
    return (day - datetime.date(1970, 1, 1)).days * 86_400_000 + of_day_ms
