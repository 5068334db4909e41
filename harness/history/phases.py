"""How long the phases of a run took on each board, under names that stay the same from run to run.

A run goes through most phases many times: of each there is one entry per board, with the median. What changes each time
(versions, slots, addresses) is no part of a name: ``update to 1.1.0`` and ``update to 1.2.0`` are one phase. Only tests
that passed count: what was refused or cut off says nothing of how long it takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from harness.report.run_record import Event, RunRecord, TestRecord

_CHANGING = re.compile(r"\b0x[0-9a-fA-F]+\b|\bv?\d+(?:\.\d+)*(?:[-+][\w.]+)?\b|\b[0-9a-fA-F]{8,}\b")
_LONGEST_NAME = 80

_PASSED_OVER = ("command", "served", "step")
"""Kinds of event: a command's time is that of what it does, a download's is in the update's own phases, and that of a
plan's step in the tools that it runs."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase on one board, in one run."""

    board: str | None
    chip: str | None
    name: str
    began_s: float
    """The first time."""
    times: int
    median_s: float
    longest_s: float
    size: int | None
    """Bytes that it moved, the median; None: it moves none."""


def plain_board(name: str) -> str:
    """The name of a board without the worker of pytest-xdist whose own throwaway copy it was: ``twin-c3 (gw1)``."""
    return re.sub(r" \(gw\d+\)$", "", name)


def phase_name(event: Event) -> str | None:
    """The name of the phase that `event` is; None: it is none, or did not come to its end."""
    if event.duration_s is None or event.duration_s < 0 or event.kind in _PASSED_OVER:
        return None
    if event.kind == "app":
        return "boot: from reset to the app"
    if event.kind == "phase":
        return f"update: {event.text}"[:_LONGEST_NAME]
    if event.kind == "update":
        what, _, end = event.text.rpartition(": ")
        if end != "ok":
            return None
        way = re.search(r"\(([\w-]+)\)", what)
        return f"update: all of it ({way[1]})" if way else "update: all of it"
    return _plain(event.kind, event.text)


def phases_of(run: RunRecord) -> list[Phase]:
    """The phases of `run`, in the order in which they first came."""
    chips = {plain_board(board.name): board.chip for board in run.boards}
    found: dict[tuple[str | None, str], list[tuple[float, float, int | None]]] = {}
    prepared = [(board.name, board.prepared) for board in run.boards if board.prepared is not None]
    for name_of_board, test in (*prepared, *((test.board, test) for test in run.tests)):
        if test.outcome == "passed":
            for name, at_s, duration_s, size in _of_test(run, test):
                board = plain_board(name_of_board) if name_of_board is not None else None
                found.setdefault((board, name), []).append((at_s, duration_s, size))
    phases = []
    for (board, name), times in found.items():
        durations = [duration_s for _, duration_s, _ in times]
        sizes = [size for _, _, size in times if size is not None]
        phases.append(
            Phase(
                board,
                chips.get(board) if board else None,
                name,
                min(at_s for at_s, _, _ in times),
                len(times),
                median(durations),
                max(durations),
                round(median(sizes)) if sizes else None,
            )
        )
    return phases


def _of_test(run: RunRecord, test: TestRecord) -> Iterator[tuple[str, float, float, int | None]]:
    if "::" not in test.id:
        # The preparation of a board, or a step of a run that is no pytest.
        of = f" as {test.profile}" if test.name == "preparation" and test.profile else ""
        kind = "board" if test.name == "preparation" else run.kind
        yield _plain(kind, test.name + of), test.began_s, test.duration_s, None
    for event in test.events:
        name = phase_name(event)
        if name is not None and event.duration_s is not None:
            yield name, event.at_s, event.duration_s, event.size


def _plain(kind: str, text: str) -> str:
    words = re.sub(r"\s+", " ", _CHANGING.sub("…", text)).strip()
    return f"{kind}: {words}"[:_LONGEST_NAME] if words else kind
