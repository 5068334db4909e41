"""Runs that never were: made in code, as the recorder would leave them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.run_record import AppFacts, BoardRecord, Event, Outcome, RunRecord, TestRecord

NOON_S = 1_764_158_400.0
"""2025-11-26 12:00:00 UTC."""
SHA = "ab" * 32


def past_test(
    name: str = "switches",
    outcome: Outcome = "passed",
    *,
    board: str = "desk-c3",
    began_s: float = NOON_S,
    cause: str | None = None,
    events: Sequence[Event] = (),
) -> TestRecord:
    return TestRecord(
        id=f"tests/ota/test_switch.py::test_{name}[{board}-release]",
        name=name,
        outcome=outcome,
        began_s=began_s,
        duration_s=2.0,
        board=board,
        profile="release",
        cause=cause or (f"{name} did not" if outcome == "failed" else None),
        events=tuple(events),
    )


def past_run(
    number: int = 1,
    tests: Sequence[TestRecord] | None = None,
    *,
    began_s: float | None = None,
    ended: bool = True,
    sha256: str | None = SHA,
    problem: str | None = None,
    boards: Sequence[str] = ("desk-c3",),
) -> RunRecord:
    began_s = NOON_S + 60 * number if began_s is None else began_s
    tests = [past_test(began_s=began_s)] if tests is None else tests
    return RunRecord(
        id=f"20251126-120000-{number:04x}",
        kind="pytest",
        subject="tests/ota on desk-c3",
        command="pytest tests/ota --board desk-c3",
        began_s=began_s,
        ended_s=began_s + 9 if ended else None,
        verdict="failed" if any(test.outcome in ("failed", "error") for test in tests) else "passed",
        host="lab-1",
        user="ada",
        versions={"harness": "1.0"},
        boards=tuple(
            BoardRecord(
                name=board,
                link="twin",
                chip="esp32c3",
                virtual=True,
                profile="release",
                problem=problem,
                app=AppFacts(
                    project="companion", version="1.0.0", sha256=sha256, idf_version="v5.5", kind="native"
                ),
            )
            for board in boards
        ),
        tests=tuple(tests),
    )


def runs_of(outcomes: Sequence[Outcome], *, sha256: str | None = SHA) -> list[RunRecord]:
    """One run each, with one test of that outcome."""
    return [
        past_run(n, [past_test(outcome=outcome, began_s=NOON_S + 60 * n)], sha256=sha256)
        for n, outcome in enumerate(outcomes)
    ]
