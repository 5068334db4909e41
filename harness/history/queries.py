"""What people ask the history. Each question takes an open connection and gives back plain data."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from harness.history.flakiness import Flaky, Verdicts, flaky_among

LAST_OUTCOMES = 12
"""Shown of a board or a test, newest last."""

_LEFT_OUT = ("skipped", "not applicable")


@dataclass(frozen=True, slots=True)
class Scope:
    """Which part of the history is asked for."""

    board: str | None = None
    """Its exact name."""
    test: str | None = None
    """Any part of its id."""
    since_s: float | None = None
    """Unix seconds; what began earlier is left out."""

    @property
    def values(self) -> dict[str, object]:
        """For the named places of a statement."""
        return {"board": self.board, "test": self.test, "since": self.since_s or 0}


@dataclass(frozen=True, slots=True)
class PastTest:
    """One test of one run."""

    run: int
    id: str
    test: str
    board: str | None
    profile: str | None
    firmware_sha256: str | None
    outcome: str
    began_s: float
    duration_s: float
    cause: str | None


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something passed. The rate is passed of passed and failed; the others are counted beside it."""

    passed: int = 0
    failed: int = 0
    errors: int = 0
    """Of the bench or the board's preparation."""
    skipped: int = 0
    """Skipped, or not applicable."""
    not_proven: int = 0

    @property
    def rate(self) -> float | None:
        """0 to 1; None: nothing was decided."""
        decided = self.passed + self.failed
        return self.passed / decided if decided else None


@dataclass(frozen=True, slots=True)
class BoardRate:
    """One board."""

    board: str
    chip: str
    rate: Rate
    runs: int
    last_run_s: float
    last: tuple[str, ...]
    """Outcomes of its last tests, newest last; skipped ones left out."""
    broken_s: float | None = None
    """When it could last not be prepared, or was latched broken."""
    problem: str | None = None
    """Why."""


@dataclass(frozen=True, slots=True)
class TestRate:
    """One test, over all its boards and profiles."""

    __test__ = False

    test: str
    rate: Rate
    median_s: float
    last: tuple[str, ...]
    failed_s: float | None
    """When it last failed."""
    cause: str | None
    """Of that failure."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """One run."""

    id: str
    host: str
    kind: str
    subject: str
    began_s: float
    ended_s: float | None
    verdict: str
    reason: str
    user: str
    folder: str | None
    boards: tuple[str, ...]
    rate: Rate


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run that ended on a board, and what ran there."""

    id: str
    verdict: str
    """Of the whole run, which may have used other boards, too."""
    began_s: float
    folder: str | None
    firmware: str | None
    """Version."""
    firmware_sha256: str | None
    idf: str | None
    rate: Rate
    """Of its tests on this board."""

    @property
    def verdict_here(self) -> str:
        """What it came to on this board; that of the whole run where no test of it used the board."""
        if self.rate.failed or self.rate.errors:
            return "failed"
        return "passed" if self.rate.passed else self.verdict


@dataclass(frozen=True, slots=True)
class PhasePoint:
    """One phase of one run on one board."""

    at_s: float
    duration_s: float
    """The median of its times in the run."""
    longest_s: float
    times: int
    board: str | None
    size: int | None
    """Bytes that it moved, the median."""


@dataclass(frozen=True, slots=True)
class PhaseSeries:
    """One phase over time, oldest first."""

    phase: str
    points: tuple[PhasePoint, ...]


def past_tests(database: sqlite3.Connection, scope: Scope | None = None) -> Iterator[PastTest]:
    """The tests of `scope`, oldest first."""
    rows = database.execute(
        """SELECT run, id, test, board, profile, firmware_sha256, outcome, began_s, duration_s, cause FROM tests
        WHERE (:board IS NULL OR board = :board) AND (:test IS NULL OR instr(id || ' ' || test, :test) > 0)
        AND began_s >= :since ORDER BY began_s, number""",
        (scope or Scope()).values,
    )
    return (PastTest(*row) for row in rows)


def rate_of(tests: Iterable[PastTest]) -> Rate:
    """How often they passed."""
    return _rate(Counter(test.outcome for test in tests))


def _rate(counts: Counter[str]) -> Rate:
    skipped = sum(counts[outcome] for outcome in _LEFT_OUT)
    return Rate(counts["passed"], counts["failed"], counts["error"], skipped, counts["not proven"])


def rates_of_boards(database: sqlite3.Connection, scope: Scope | None = None) -> list[BoardRate]:
    """Per board, by name."""
    scope = scope or Scope()
    tests: dict[str, list[PastTest]] = {}
    for test in past_tests(database, scope):
        if test.board is not None:
            tests.setdefault(test.board, []).append(test)
    # SQLite gives the other columns of the row that has the maximum.
    rows = database.execute(
        """SELECT boards.board, boards.chip, COUNT(*), MAX(runs.began_s) FROM boards JOIN runs USING (run)
        WHERE (:board IS NULL OR boards.board = :board) AND runs.began_s >= :since
        GROUP BY boards.board ORDER BY boards.board""",
        scope.values,
    ).fetchall()
    broken = {
        board: (at_s, problem)
        for board, at_s, problem in database.execute(
            """SELECT boards.board, MAX(runs.began_s), boards.problem FROM boards JOIN runs USING (run)
            WHERE boards.problem IS NOT NULL GROUP BY boards.board"""
        )
    }
    return [
        BoardRate(
            board,
            chip,
            rate_of(tests.get(board, ())),
            runs,
            last_s,
            _last(tests.get(board, ())),
            *broken.get(board, (None, None)),
        )
        for board, chip, runs, last_s in rows
    ]


def rates_of_tests(database: sqlite3.Connection, scope: Scope | None = None) -> list[TestRate]:
    """Per test, those that fail most first."""
    tests: dict[str, list[PastTest]] = {}
    for test in past_tests(database, scope):
        tests.setdefault(test.test, []).append(test)
    found = []
    for name, ran in tests.items():
        durations = sorted(test.duration_s for test in ran if test.outcome not in _LEFT_OUT)
        failed = next((test for test in reversed(ran) if test.outcome == "failed"), None)
        found.append(
            TestRate(
                name,
                rate_of(ran),
                durations[len(durations) // 2] if durations else 0.0,
                _last(ran),
                failed.began_s if failed else None,
                failed.cause if failed else None,
            )
        )
    return sorted(found, key=lambda one: (2.0 if one.rate.rate is None else one.rate.rate, one.test))


def _last(tests: Iterable[PastTest]) -> tuple[str, ...]:
    return tuple(test.outcome for test in tests if test.outcome not in _LEFT_OUT)[-LAST_OUTCOMES:]


def flaky_tests(database: sqlite3.Connection, scope: Scope | None = None) -> list[Flaky]:
    """By the rule of `harness.history.flakiness`."""

    def of_one_series(test: PastTest) -> tuple[str, str, str, str]:
        return test.id, test.board or "", test.profile or "", test.firmware_sha256 or ""

    decided = [
        test
        for test in past_tests(database, scope)
        # A qualification's cases go by its qualify.yaml, which differs from unit to unit.
        if test.outcome in ("passed", "failed") and not test.id.startswith("qualify/")
    ]
    # Sorting keeps the order of time within a series.
    series = [list(group) for _, group in groupby(sorted(decided, key=of_one_series), key=of_one_series)]
    return flaky_among(
        Verdicts(
            tests[0].id,
            tests[0].board,
            tests[0].profile,
            tests[0].firmware_sha256,
            tuple(test.outcome == "passed" for test in tests),
        )
        for tests in series
    )


def past_runs(
    database: sqlite3.Connection, scope: Scope | None = None, *, run_id: str | None = None, limit: int = 50
) -> list[PastRun]:
    """The last runs, newest first; those of `run_id` alone, if given."""
    rows = database.execute(
        """SELECT run, id, host, kind, subject, began_s, ended_s, verdict, reason, user, folder FROM runs
        WHERE (:id IS NULL OR id = :id)
        AND (:board IS NULL OR EXISTS (SELECT 1 FROM boards WHERE boards.run = runs.run AND board = :board))
        AND began_s >= :since ORDER BY began_s DESC, run DESC LIMIT :limit""",
        {**(scope or Scope()).values, "id": run_id, "limit": limit},
    ).fetchall()
    return [
        PastRun(*(*values, _boards_of(database, number), _rate_of_run(database, number)))
        for number, *values in rows
    ]


def last_runs(database: sqlite3.Connection, scope: Scope | None = None) -> dict[str, LastRun]:
    """The last run that ended, by board."""
    # SQLite gives the other columns of the row that has the maximum.
    rows = database.execute(
        """SELECT run, MAX(began_s), board, id, verdict, began_s, folder, firmware, firmware_sha256, idf
        FROM boards JOIN runs USING (run) WHERE ended_s IS NOT NULL
        AND (:board IS NULL OR board = :board) AND began_s >= :since GROUP BY board""",
        (scope or Scope()).values,
    ).fetchall()
    return {
        board: LastRun(*(*values, _rate_of_run(database, number, board)))
        for number, _, board, *values in rows
    }


def run_named(database: sqlite3.Connection, run_id: str) -> PastRun | None:
    """The run of this id; where several hosts have one, the newest."""
    found = past_runs(database, run_id=run_id, limit=1)
    return found[0] if found else None


def unfinished_folders(database: sqlite3.Connection) -> list[tuple[str, str]]:
    """Id and folder of the last runs that have not ended, by their own account: they run, or were killed."""
    return list(
        database.execute(
            """SELECT id, folder FROM runs WHERE ended_s IS NULL AND folder IS NOT NULL
            ORDER BY began_s DESC LIMIT 200"""
        )
    )


def folders_of(database: sqlite3.Connection, run_id: str) -> list[str]:
    """The folders of the runs with this id: one, unless several hosts share the history."""
    rows = database.execute("SELECT folder FROM runs WHERE id = ? AND folder IS NOT NULL", (run_id,))
    return [row[0] for row in rows]


def _boards_of(database: sqlite3.Connection, run: int) -> tuple[str, ...]:
    rows = database.execute("SELECT board FROM boards WHERE run = ? ORDER BY board", (run,))
    return tuple(row[0] for row in rows)


def _rate_of_run(database: sqlite3.Connection, run: int, board: str | None = None) -> Rate:
    """Of all its tests, or of those on `board`."""
    rows = database.execute(
        "SELECT outcome, COUNT(*) FROM tests WHERE run = ? AND (? IS NULL OR board = ?) GROUP BY outcome",
        (run, board, board),
    )
    return _rate(Counter(dict(rows)))


def phase_series(
    database: sqlite3.Connection, scope: Scope | None = None, *, limit: int = 12, points: int = 200
) -> list[PhaseSeries]:
    """The phases that take most time, each with its last `points`."""
    values = (scope or Scope()).values
    names = database.execute(
        """SELECT phase FROM phases WHERE (:board IS NULL OR board = :board) AND began_s >= :since
        GROUP BY phase ORDER BY SUM(times * median_s) DESC LIMIT :limit""",
        {**values, "limit": limit},
    ).fetchall()
    found = []
    for (name,) in names:
        rows = database.execute(
            """SELECT began_s, median_s, longest_s, times, board, size FROM phases
            WHERE phase = :phase AND (:board IS NULL OR board = :board) AND began_s >= :since
            ORDER BY began_s DESC LIMIT :points""",
            {**values, "phase": name, "points": points},
        ).fetchall()
        found.append(PhaseSeries(name, tuple(PhasePoint(*row) for row in reversed(rows))))
    return found
