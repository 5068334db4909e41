"""A board's serial log for the report: each line with what it tells, packed once for the page's script."""

from __future__ import annotations

import base64
import datetime
import gzip
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.console import boot_patterns as patterns
from harness.console.events import MARKER
from harness.console.log_file import read_log
from harness.console.log_line import Line
from harness.console.mark import UNSEEN, parse_mark

MAX_CHARACTERS = 30_000_000
"""Of all logs of a report, about 3 MB packed. Beyond it the middle of the longest is left out, and the report says so."""
MAX_LINE = 4000
"""Characters of one line; the log file has all of it."""
AROUND = 40
"""Lines kept on both sides of one that an event or a claim names."""

PLAIN, BOOT, TELLING, EVENT, WARNING, ERROR, PANIC = " ", "b", "l", "v", "w", "e", "p"
MARK, TOOL, SENT, GAP = "m", "t", "s", "g"

_TELLING = re.compile(
    "|".join(
        pattern.pattern
        for pattern in (
            patterns.LOADED_APP,
            patterns.ENCRYPTION_ON,
            patterns.ENCRYPTION_MODE,
            patterns.SECURE_BOOT_ON,
            patterns.ROLLBACK,
            patterns.ROM_VERIFIED,
            patterns.OTADATA_INVALID,
            patterns.NOT_BOOTABLE,
        )
    )
    + r"|App version: |Set actual ota_seq="
)
_LEVEL = re.compile(r"([EW]) \([\d:. -]{1,32}\) ")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as the report shows it."""

    n: int
    wall_s: float
    """Unix seconds; 0: the log has no times."""
    kind: str
    text: str

    @property
    def clock(self) -> str:
        """Local time of the host that made the log, as the log file has it: ``18:26:59.799``."""
        if not self.wall_s:
            return ""
        return datetime.datetime.fromtimestamp(self.wall_s).strftime("%H:%M:%S.%f")[:-3]


@dataclass(frozen=True, slots=True)
class BoardLog:
    """The log of one board."""

    file: str
    lines: tuple[LogLine, ...]
    problem: str | None = None
    """Why there are none."""

    @property
    def characters(self) -> int:
        return sum(len(line.text) + 4 for line in self.lines)

    def between(self, first: int, last: int) -> Sequence[LogLine]:
        """Lines ``first <= n <= last``; numbers are places until something is left out."""
        return [line for line in self.lines[first : last + 1] if first <= line.n <= last]


def read_board_log(folder: Path, name: str, boots: Sequence[Mapping[str, Any]]) -> BoardLog:
    """The log `name` in the run's `folder`. What cannot be read is said, never raised: the rest of the report matters."""
    errors, panics = _lines_of_errors(boots)
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return BoardLog(name, (), f"{name} is outside the run's folder: not shown")
        lines = tuple(
            LogLine(line.n, line.wall_s, _kind_of(line, errors, panics), _cut(line.text))
            for line in read_log(path)
        )
    except OSError as error:
        return BoardLog(name, (), f"{name} cannot be read: {error.strerror or error}")
    return BoardLog(name, lines, None if lines else f"{name} is empty")


def within_budget(
    log: BoardLog, keep: Iterable[int], characters: int
) -> tuple[tuple[LogLine, ...], tuple[tuple[int, int], ...]]:
    """The lines of `log` that fit, and what is left out as (first, last) line numbers.

    Kept are lines near those that `keep` names, then from both ends inwards.
    """
    if log.characters <= characters:
        return log.lines, ()
    places = range(len(log.lines))
    wanted = {place for n in keep for place in range(n - AROUND, n + AROUND + 1) if place in places}
    left = characters - sum(len(log.lines[place].text) + 4 for place in wanted)
    head, tail = 0, len(log.lines) - 1
    while left > 0 and head <= tail:
        for place in (head, tail):
            if place not in wanted:
                wanted.add(place)
                left -= len(log.lines[place].text) + 4
        head, tail = head + 1, tail - 1
    kept = tuple(log.lines[place] for place in sorted(wanted))
    edges = [-1, *(line.n for line in kept), len(log.lines)]
    gaps = tuple((a + 1, b - 1) for a, b in pairwise(edges) if b - a > 1)
    return kept, gaps


def packed(
    lines: Sequence[LogLine],
    gaps: Sequence[tuple[int, int]],
    heads: Mapping[int, str],
    references: Sequence[tuple[int, str, str]],
) -> str:
    """What the page's script unpacks: base64 of gzip of JSON.

    ``text`` has one line for each line of the log: milliseconds since the one before in base 36, the kind, the text.
    ``references`` are (line, id of the element that names it, what it is).
    """
    first = next((line.wall_s for line in lines if line.wall_s), 0.0)
    started = datetime.datetime.fromtimestamp(first) if first else None
    midnight = started.replace(hour=0, minute=0, second=0, microsecond=0) if started else None
    before_ms = round((started - midnight).total_seconds() * 1000) if started and midnight else None
    data = {
        "date": f"{started:%Y-%m-%d}" if started else None,
        "base": before_ms,
        "text": "\n".join(_packed_lines(lines, first)),
        "gaps": [list(gap) for gap in gaps],
        "heads": {str(n): text for n, text in heads.items()},
        "references": [list(reference) for reference in references],
    }
    return packed_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def packed_text(text: str) -> str:
    """base64 of gzip of `text`; the same for the same text."""
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 9, mtime=0)).decode("ascii")


def _packed_lines(lines: Iterable[LogLine], first_s: float) -> Iterable[str]:
    before = 0
    for line in lines:
        now = round((line.wall_s - first_s) * 1000) if line.wall_s else before
        text = line.text.replace("\n", "\\n").replace("\r", "\\r")
        yield f"{_base36(max(now - before, 0))} {line.kind}{text}"
        before = max(now, before)


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
        if not number:
            return digits


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]} … ({len(text) - MAX_LINE} more characters)"


def _lines_of_errors(boots: Iterable[Mapping[str, Any]]) -> tuple[set[int], set[int]]:
    errors: set[int] = set()
    panics: set[int] = set()
    for boot in boots:
        errors |= {error["line"] for error in boot.get("errors") or () if isinstance(error.get("line"), int)}
        panic = boot.get("panic")
        if panic and isinstance(panic.get("line"), int):
            panics.add(panic["line"])
    return errors, panics


def _kind_of(line: Line, errors: Collection[int], panics: Collection[int]) -> str:
    if line.is_mark:
        kind = parse_mark(line.text).kind
        return TOOL if kind == "tool" else SENT if kind == "sent" else GAP if kind in UNSEEN else MARK
    text = line.text
    level = _LEVEL.search(text)
    if line.n in panics or patterns.PANIC.search(text):
        return PANIC
    if line.n in errors or (level is not None and level[1] == "E"):
        return ERROR
    if patterns.BOOT_START.search(text):
        return BOOT
    if _TELLING.search(text):
        return TELLING
    if MARKER in text:
        return EVENT
    return WARNING if level is not None else PLAIN
