"""A run that was killed has what it had done by then in the history, from the next look on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.history.history import History
from harness.history.killed import take_in_killed
from harness.history.queries import past_runs, rates_of_tests
from harness.home import Home
from harness.report.recorder import Recorder, head_of
from harness.report.run_record import TestRecord

NOBODY = 2**22 + 1
"""No process has this number."""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    return Home.of_user()


def begun(user: Home, pid: int, **more: float) -> Path:
    """A run with three tests, of which one has ended and one began."""
    head = head_of("pytest", "tests", ["pytest"]) | {"pid": pid, **more}
    folder = user.root / "artefacts" / head["id"]
    recorder = Recorder(folder, head)
    recorder.planned(3)
    recorder.began("t.py::test_a", "a")
    recorder.test(TestRecord(id="t.py::test_a", name="a", outcome="passed", began_s=1.0, duration_s=1.0))
    recorder.began("t.py::test_b", "b")
    recorder.close()
    return folder


def test_a_killed_run_is_taken_in_once_with_its_report(user: Home) -> None:
    folder = begun(user, NOBODY)
    assert take_in_killed(user) == [folder.name]
    with History.of(user).reading() as database:
        (run,) = past_runs(database)
        rates = {rate.test: rate.rate for rate in rates_of_tests(database)}
    assert run.verdict == "failed"
    assert run.reason == (
        "killed during b; by then: 1 with errors of the bench, 1 passed; 1 of 3 tests never began"
    )
    assert rates["t.py::a"].passed == 1
    assert (folder / "report.html").exists()
    assert take_in_killed(user) == []


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="only Linux tells when a process began")
def test_another_process_that_got_the_number_of_a_killed_run_does_not_keep_it_alive(user: Home) -> None:
    year_ago_s = time.time() - 365 * 86400
    folder = begun(user, os.getpid(), began_s=year_ago_s)
    assert take_in_killed(user) == [], "it writes: the clock may have been set"
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (year_ago_s, year_ago_s))
    assert take_in_killed(user) == [folder.name]


def test_a_run_that_goes_on_is_left_alone(user: Home) -> None:
    folder = begun(user, os.getpid())
    assert take_in_killed(user) == []
    assert not (folder / "run.json").exists()
