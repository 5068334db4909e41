"""What became of a run's tests on each board, and whether all was done that was asked for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

NOT_RUN = "not-run"
"""Name of a test's property: the bench is why it did not run, and how."""

Reason = Literal["broken", "busy", "refused"]

Phase = Literal["passed", "failed", "skipped"]


@dataclass(slots=True)
class Row:
    """One board."""

    name: str
    chip: str
    tests: int = 0
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    """By the test's own reason."""
    not_run: int = 0
    """Because of the bench."""
    time_s: float = 0.0
    problem: str | None = None
    """Why tests of it did not run."""


@dataclass(slots=True)
class Test:
    """One test on one board."""

    board: str
    case: str
    """The same test on all boards of one chip."""
    outcome: Phase | None = None
    not_run: str | None = None


@dataclass(slots=True)
class Tally:
    """Grows with each report; of a run under pytest-xdist it is the controller's."""

    rows: dict[str, Row] = field(default_factory=dict)
    tests: dict[str, Test] = field(default_factory=dict)
    """By node id."""
    unfit: Mapping[str, int] = field(default_factory=dict)
    """How many tests fit no board, by the demand that fails."""
    examples: Mapping[str, str] = field(default_factory=dict)

    def begin(self, tests: Mapping[str, tuple[str, str, str]]) -> None:
        """`tests`: board, target and chip by node id."""
        for nodeid, (board, target, chip) in tests.items():
            self.tests[nodeid] = Test(board, case_of(nodeid, target, chip))
            self.rows.setdefault(board, Row(board, chip)).tests += 1

    def add(
        self,
        nodeid: str,
        when: str,
        outcome: str,
        duration_s: float,
        not_run: str | None = None,
        reason: str | None = None,
    ) -> None:
        """One report of a phase of a test."""
        test = self.tests.get(nodeid)
        if test is None:
            return
        row = self.rows[test.board]
        row.time_s += duration_s
        if not_run is not None and outcome == "skipped":
            test.not_run = not_run
            row.not_run += 1
            row.problem = row.problem or reason or not_run
            return
        before = test.outcome
        if outcome == "failed":
            test.outcome = "failed"
        elif outcome == "skipped":
            test.outcome = before or "skipped"
        elif when == "call":
            test.outcome = before or "passed"
        if test.outcome != before:
            _count(row, before, -1)
            _count(row, test.outcome, 1)

    @property
    def not_covered(self) -> dict[str, int]:
        """Chips, and how many tests ran on no board of that chip because of the bench."""
        ran = {test.case for test in self.tests.values() if test.outcome is not None}
        missed = {
            (test.case, self.rows[test.board].chip)
            for test in self.tests.values()
            if test.not_run is not None and test.case not in ran
        }
        return dict(sorted(Counter(chip for _, chip in missed).items()))

    def boards(self, reason: Reason) -> list[str]:
        """Boards of which tests did not run for `reason`, in order."""
        return list(dict.fromkeys(test.board for test in self.tests.values() if test.not_run == reason))


def _count(row: Row, outcome: Phase | None, by: int) -> None:
    if outcome == "passed":
        row.passed += by
    elif outcome == "failed":
        row.failed += by
    elif outcome == "skipped":
        row.skipped += by


def case_of(nodeid: str, target: str, chip: str) -> str:
    """The name of a test that is the same on all boards of a chip."""
    head, bracket, parameters = nodeid.partition("[")
    return head + bracket + parameters.replace(target, chip, 1)


def lines_of(tally: Tally, chosen: Iterable[tuple[str, str, str]]) -> list[str]:
    """A table for the terminal, and under it what is to be said of single boards.

    `chosen`: name, chip, and what is said of the board if it has no test, in order.
    """
    rows: list[tuple[str, ...]] = []
    remarks: list[str] = []
    for name, chip, said in chosen:
        row = tally.rows.get(name)
        if row is None:
            rows.append((name, chip, "0", "", "", "", "", ""))
            remarks.append(said if said.startswith(f"board {name} ") else f"board {name} {said}")
            continue
        counts = (row.tests, row.passed, row.failed, row.skipped, row.not_run)
        rows.append((name, chip, *(str(count) if count else "" for count in counts), f"{row.time_s:.1f} s"))
        if row.problem is not None:
            said = row.problem.splitlines()[0]
            remarks.append(said if said.startswith(f"board {name} ") else f"board {name}: {said}")
    head = ("board", "chip", "tests", "passed", "failed", "skipped", "not run", "time")
    return [*_table([head, *rows]), *remarks]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    sizes = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(size) if n < 2 else cell.rjust(size)
            for n, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def unfit_lines(tally: Tally) -> list[str]:
    """How many tests fit no board, and why, with one example of each."""
    total = sum(tally.unfit.values())
    if not total:
        return []
    lines = [f"{_tests(total)} fit{'s' if total == 1 else ''} no board of the rack:"]
    for demand, count in sorted(tally.unfit.items(), key=lambda each: (-each[1], each[0])):
        lines.append(f"  {count} for the {demand}, for example: {tally.examples.get(demand, '')}")
    return lines


def problems_of(
    tally: Tally, *, allow_busy: bool, strict: bool = False, wrong: Iterable[tuple[str, str]] = ()
) -> list[str]:
    """Why a run on which no test failed is no success all the same, a sentence each; none: it is one.

    Args:
        strict: tests that fit no board are missed (``--rack-strict``); else they are only counted.
        wrong: boards that are not what their entries say, and so took no part: chip, and the sentence.
    """
    problems = []
    if not tally.tests:
        total = sum(tally.unfit.values())
        why = f": {_tests(total)} fit{'s' if total == 1 else ''} no board" if total else ""
        return [f"no test ran on any board of the rack{why}"]
    unfit = sum(tally.unfit.values())
    if unfit and strict:
        problems.append(
            f"{_tests(unfit)} fit{'s' if unfit == 1 else ''} no board of the rack, and --rack-strict demands that all do"
        )
    busy = tally.boards("busy")
    if busy and not allow_busy:
        problems.append(
            f"somebody else kept {_boards(busy)} for longer than --lease-wait (no failure with --allow-busy, if other "
            "boards of the chip ran the tests)"
        )
    for chip, count in tally.not_covered.items():
        boards = [row.name for row in tally.rows.values() if row.chip == chip and row.not_run]
        problems.append(f"{_tests(count)} ran on no {chip}: {_boards(boards)} did not run them")
    tested = {row.chip for row in tally.rows.values()}
    problems += [f"no test ran on any {chip}: {text}" for chip, text in wrong if chip not in tested]
    return problems


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


def _boards(names: Sequence[str]) -> str:
    return ("board " if len(names) == 1 else "boards ") + ", ".join(names)
