"""From the parts that processes have left to one record of the run. Pure but for nothing: no file, no clock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, get_args

from harness.errors import UsageError
from harness.report.parts import Entry
from harness.report.run_record import BoardRecord, RunRecord, TestRecord, Verdict

KILLED = "killed"
"""Of a run that did not come to its end, the first word of the reason of its verdict."""


_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What comes of an entry without its fields, or with others in them; pydantic's own error is a ValueError."""


@dataclass(slots=True)
class _Process:
    """What one process was doing last."""

    began: Entry | None = None
    last_s: float = 0.0


@dataclass(slots=True)
class _Sum:
    head: dict[str, Any] = field(default_factory=dict)
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)
    boots: dict[str, dict[tuple[str, int, int], dict[str, Any]]] = field(default_factory=dict)
    tests: list[TestRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    planned: int = 0
    end: Entry | None = None
    qualification: dict[str, Any] | None = None
    left_out: int = 0
    """How many entries and boards could not be read."""
    processes: dict[str, _Process] = field(default_factory=dict)


def merged(entries: Iterable[tuple[str, Entry]]) -> RunRecord:
    """The record of the run that `entries` (of `read_parts`) tell of; without its end it counts as killed.

    What is damaged, or of another version, is left out, and a note says so.

    Raises:
        UsageError: they tell of no run, or of one of which not even the head can be read.
    """
    total = _Sum()
    for process, entry in _of_newest_run(entries):
        with _leaving_out(total):
            _take(total, process, entry)
    if not total.head:
        raise UsageError(
            "there is no record of a run here", todo="name the folder that holds run.json, or 'parts'"
        )
    killed = [
        test
        for process, state in total.processes.items()
        if state.began is not None and (test := _killed(process, state)) is not None
    ]
    tests = tuple(sorted((*total.tests, *killed), key=lambda test: test.began_s))
    boards: tuple[BoardRecord, ...] = ()
    for name in total.boards:
        with _leaving_out(total):
            boards += (_board(name, total),)
    if total.left_out:
        total.notes.append(
            f"{total.left_out} of what its processes wrote down cannot be read: damaged, or of another version"
        )
    try:
        return _record(total, boards, tests)
    except _UNREADABLE as error:
        raise UsageError(
            "the record of the run here cannot be read: it is damaged, or of another version of the harness",
            todo="use the harness that made it",
        ) from error


def _record(total: _Sum, boards: tuple[BoardRecord, ...], tests: tuple[TestRecord, ...]) -> RunRecord:
    verdict, reason = _verdict(tests, total.end, total.planned)
    head = dict(total.head)
    subject = str(head.pop("subject", ""))
    versions = dict(head.pop("versions", {}))
    versions |= {"esp-idf": ", ".join(found)} if (found := _idf_versions(boards)) else {}
    return RunRecord(
        **head,
        subject=_subject(subject, boards),
        versions=versions,
        ended_s=float(total.end.get("at_s", 0.0)) if total.end is not None else None,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason,
        boards=boards,
        tests=tests,
        notes=tuple(dict.fromkeys(total.notes)),
        qualification=total.qualification,
    )


@contextmanager
def _leaving_out(total: _Sum) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE:
        total.left_out += 1


def _of_newest_run(entries: Iterable[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
    """Without what earlier runs have left in the same folder."""
    known = list(entries)
    heads = [head for _, entry in known if (head := _head_in(entry)) is not None]
    newest = max(heads, key=lambda head: head["began_s"])["id"] if heads else None
    at: dict[str, Any] = {}
    found: list[tuple[str, Entry]] = []
    for process, entry in known:
        if entry["what"] == "run":
            at[process] = (_head_in(entry) or {}).get("id")
        if at.get(process) == newest:
            found.append((process, entry))
    return found


def _head_in(entry: Entry) -> dict[str, Any] | None:
    head = entry.get("run") if entry["what"] == "run" else None
    if not isinstance(head, dict) or not isinstance(head.get("id"), str):
        return None
    return head if isinstance(head.get("began_s"), (int, float)) else None


def _take(total: _Sum, process: str, entry: Entry) -> None:
    state = total.processes.setdefault(process, _Process())
    state.last_s = float(entry.get("at_s", 0.0))
    what = entry["what"]
    if what == "run":
        total.head = total.head or dict(entry["run"])
    elif what == "board":
        fields = dict(entry["board"])
        total.boards.setdefault(fields["name"], {}).update(fields)
    elif what == "boots":
        known = total.boots.setdefault(entry["board"], {})
        for boot in entry["boots"]:
            known[(process, int(entry["opening"]), int(boot["number"]))] = boot
    elif what == "began":
        state.began = entry
        if _killed(process, state) is None:
            state.began = None
            raise ValueError("what began cannot be said")
    elif what == "test":
        state.began = None
        total.tests.append(TestRecord.model_validate(entry["test"]))
    elif what == "planned":
        # Every worker collects all of them.
        total.planned = max(total.planned, int(entry["tests"]))
    elif what == "note":
        total.notes.append(str(entry["text"]))
    elif what == "qualification":
        total.qualification = dict(entry["qualification"])
    elif what == "end":
        if entry.get("verdict") not in (None, *get_args(Verdict)):
            raise ValueError(entry["verdict"])
        total.end = entry


def _killed(process: str, state: _Process) -> TestRecord | None:
    """The test in which a process ended; None: what is written of it cannot be read."""
    began = state.began
    assert began is not None
    try:
        return TestRecord(
            id=began["id"],
            name=began["name"],
            outcome="error",
            began_s=float(began["at_s"]),
            duration_s=max(0.0, state.last_s - float(began["at_s"])),
            board=began.get("board"),
            profile=began.get("profile"),
            repeat=began.get("repeat"),
            cause=f"the process that ran it ({process}) was killed, or died",
        )
    except _UNREADABLE:
        return None


def _board(name: str, total: _Sum) -> BoardRecord:
    fields: Mapping[str, Any] = total.boards[name]
    boots = sorted(total.boots.get(name, {}).values(), key=lambda boot: int(boot.get("first_line", 0)))
    return BoardRecord.model_validate({**fields, "boots": boots})


def _idf_versions(boards: Iterable[BoardRecord]) -> list[str]:
    return sorted({board.app.idf_version for board in boards if board.app and board.app.idf_version})


def _subject(subject: str, boards: tuple[BoardRecord, ...]) -> str:
    """``tests/ota on 3 boards``; a subject that names its board is left as it is."""
    if not boards or any(re.search(rf"\b{re.escape(board.name)}\b", subject) for board in boards):
        return subject
    return f"{subject} on {boards[0].name if len(boards) == 1 else f'{len(boards)} boards'}"


def _verdict(tests: tuple[TestRecord, ...], end: Entry | None, planned: int) -> tuple[str, str]:
    """One sentence, and the word for it."""
    counts = {word: sum(test.outcome == word for test in tests) for word in _WORDS}
    told = ", ".join(f"{count} {_WORDS[word]}" for word, count in counts.items() if count) or "nothing ran"
    bad = counts["failed"] + counts["error"]
    if end is None:
        running = [
            test.name for test in tests if test.cause and test.cause.startswith("the process that ran")
        ]
        during = f" during {', '.join(running)}" if running else ""
        never = planned - len({test.id for test in tests if test.id != "collection"})
        left = f"; {never} of {planned} tests never began" if never > 0 else ""
        return "failed" if bad else "not proven", f"{KILLED}{during}; by then: {told}{left}"
    if end.get("verdict"):
        return str(end["verdict"]), str(end.get("reason") or told)
    reason = f"{end['reason']}; {told}" if end.get("reason") else told
    if bad or end.get("failed"):
        first = next((test for test in tests if test.outcome in ("failed", "error") and test.cause), None)
        return "failed", f"{reason}; first: {first.name}: {first.cause}" if first is not None else reason
    proven = counts["passed"] and not counts["not proven"] and not end.get("reason")
    return "passed" if proven else "not proven", reason


_WORDS = {
    "failed": "failed",
    "error": "with errors of the bench",
    "not proven": "not proven",
    "passed": "passed",
    "skipped": "skipped",
    "not applicable": "not applicable",
}
