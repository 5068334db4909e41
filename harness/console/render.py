"""A log for people: the boots, then what follows from them, then every line with the telling ones marked.

Works on a console's log file and on anybody's capture of a UART.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.console import boot_patterns as patterns
from harness.console.boot_record import BootRecord
from harness.console.boot_tracker import BootTracker
from harness.console.events import MARKER, BadEvent
from harness.console.inference import Finding, find, with_findings
from harness.console.log_file import BOARD_SIGN, MARK_SIGN, read_log, stamp
from harness.console.log_line import Line
from harness.errors import UsageError

ERROR_SIGN, PANIC_SIGN, TELLING_SIGN = "E", "!", "*"
_COLOURS = {ERROR_SIGN: "31", PANIC_SIGN: "1;31", TELLING_SIGN: "36", "head": "1", "finding": "33"}

# The lines that a boot record rests on, apart from errors and panics.
_TELLING = (
    patterns.LOADED_APP,
    patterns.ENCRYPTION_ON,
    patterns.ENCRYPTION_MODE,
    patterns.SECURE_BOOT_ON,
    patterns.ROLLBACK,
    patterns.ROM_VERIFIED,
    re.compile(r"App version: |Set actual ota_seq="),
)


@dataclass(frozen=True, slots=True)
class LogReading:
    """What one log holds."""

    records: tuple[BootRecord, ...]
    """With their findings in ``inferred``."""
    findings: tuple[Finding, ...]
    lines: int
    events: int
    bad_events: tuple[BadEvent, ...]


def read_boots(path: Path) -> LogReading:
    """Reads the log at `path`.

    Raises:
        UsageError: the file cannot be read.
    """
    tracker = BootTracker()
    marks: list[Line] = []
    bad: list[BadEvent] = []
    lines = events = 0
    for line in _lines_of(path):
        lines += 1
        if line.is_mark:
            marks.append(line)
        for event in tracker.feed(line):
            if isinstance(event, BadEvent):
                bad.append(event)
            else:
                events += 1
    findings = find(tracker.records, marks)
    return LogReading(with_findings(tracker.records, findings), findings, lines, events, tuple(bad))


def render_log(path: Path, *, colour: bool = False) -> Iterator[str]:
    """The log at `path` as lines for a terminal; ANSI colours only if asked for.

    Raises:
        UsageError: the file cannot be read.
    """
    reading = read_boots(path)
    yield from render_summary(reading, name=path.name, colour=colour)
    yield ""
    yield from _annotated(_lines_of(path), reading, colour=colour)


def render_summary(reading: LogReading, *, name: str, colour: bool = False) -> Iterator[str]:
    """Boots and findings, one line each."""
    boots = sum(1 + record.repeats for record in reading.records)
    yield _coloured(f"{name}: {_counted(reading.lines, 'line')}, {_counted(boots, 'boot')}", "head", colour)
    for record in reading.records:
        bare = record.summary().split(" [", maxsplit=1)[0] if record.inferred else record.summary()
        bare += _cause_of(record)
        sign = PANIC_SIGN if record.panic else ERROR_SIGN if record.boot_errors else " "
        yield _coloured(f"  {sign} {bare}", sign, colour)
    if reading.findings:
        yield _coloured("what follows from them:", "head", colour)
        for finding in reading.findings:
            yield _coloured(f"  - {finding}", "finding", colour)
    if reading.events or reading.bad_events:
        missed = sum(record.missed_events for record in reading.records)
        damaged = len(reading.bad_events)
        yield f"events: {reading.events} good, {damaged} damaged, {missed} missing"
        for bad in reading.bad_events[:5]:
            yield _coloured(f"  {ERROR_SIGN} line {bad.line_n}: {bad.reason}", ERROR_SIGN, colour)


def _annotated(lines: Iterable[Line], reading: LogReading, *, colour: bool) -> Iterator[str]:
    heads = {record.first_line: record for record in reading.records}
    errors = {error.line for record in reading.records for error in record.errors}
    errors |= {bad.line_n for bad in reading.bad_events}
    panics = {record.panic.line for record in reading.records if record.panic is not None}
    for line in lines:
        if line.n in heads:
            yield _coloured(f"──── {heads[line.n].summary()}{_cause_of(heads[line.n])}", "head", colour)
        sign = PANIC_SIGN if line.n in panics else ERROR_SIGN if line.n in errors else _sign_of(line)
        clock = f"{stamp(line.wall_s)[11:]} " if line.wall_s else ""
        side = MARK_SIGN if line.is_mark else BOARD_SIGN
        yield _coloured(f"{clock}{sign} {side} {line.text}", sign, colour)


def _cause_of(record: BootRecord) -> str:
    return f" (by the harness: {record.caused_by})" if record.caused_by else ""


def _sign_of(line: Line) -> str:
    if line.is_mark:
        return " "
    telling = MARKER in line.text or any(pattern.search(line.text) for pattern in _TELLING)
    return TELLING_SIGN if telling or patterns.BOOT_START.search(line.text) else " "


def _lines_of(path: Path) -> Iterator[Line]:
    try:
        yield from read_log(path)
    except OSError as error:
        raise UsageError(
            f"log {path} cannot be read: {error.strerror or error}", todo="name a log file"
        ) from error


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _coloured(text: str, what: str, colour: bool) -> str:
    code = _COLOURS.get(what)
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text
