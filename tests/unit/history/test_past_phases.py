"""The report of a run draws how long its phases took before, on its own boards."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from past_runs import past_run, past_test

from harness.history.history import History
from harness.history.past_phases import past_phases
from harness.home import Home
from harness.report.html.report_file import report_of
from harness.report.run_record import Event, RunRecord


def run_with(number: int, duration_s: float, boards: Sequence[str] = ("desk-c3",)) -> RunRecord:
    """Of a moment ago, with one update on each board that took `duration_s`."""
    began_s = time.time() - 3600 + 60 * number
    tests = [
        past_test(
            board=board,
            began_s=began_s,
            events=[Event(at_s=began_s, kind="phase", text="verified", duration_s=duration_s)],
        )
        for board in boards
    ]
    return past_run(number, tests, began_s=began_s, boards=boards)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_phase_that_was_seen_in_several_runs_is_drawn_for_the_runs_boards(
    home: Home, tmp_path: Path
) -> None:
    runs = [run_with(1, 2.0), run_with(2, 9.0, ("other",)), run_with(3, 4.0, ("desk-c3 (gw1)",))]
    for run in runs:
        assert History.of(home).record(run) is None
    found = past_phases(runs[-1], home)
    durations = {one.phase: [point.duration_s for point in one.points] for one in found}
    (name,) = [phase for phase in durations if "verified" in phase]
    assert durations[name] == [2.0, 4.0]
    text = report_of(runs[-1], tmp_path, found)
    assert "Over time" in text
    assert 'class="plot"' in text
    assert "Over time" not in report_of(runs[-1], tmp_path)


def test_one_run_alone_has_no_past_and_no_history_is_no_error(home: Home) -> None:
    run = run_with(1, 2.0)
    assert past_phases(run, home) == ()
    History.of(home).record(run)
    assert past_phases(run, home) == ()
    (History.of(home).folder / "history.sqlite3").write_bytes(b"no database at all" * 100)
    assert past_phases(run, home) == ()
