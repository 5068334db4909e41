"""What `harness history` says: rates, the rule of flakiness, export."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.errors import UsageError
from harness.history import History
from harness.history.amounts import age_s, size_bytes
from harness.history.flakiness import Verdicts, flaky_among
from harness.history.queries import Scope, flaky_tests, last_runs, past_runs, rates_of_boards, rates_of_tests
from harness.home import Home
from harness.report.run_record import Event, Outcome
from tests.unit.history.past_runs import NOON_S, past_run, past_test, runs_of

P, F, E, S, N = "passed", "failed", "error", "skipped", "not proven"


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    return History.of(Home.of_user())


def ask(*words: str) -> str:
    done = CliRunner().invoke(cli, ["history", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("passed", "sha256", "is_flaky"),
    [
        ("PPP", "aa", False),
        ("FFF", "aa", False),
        ("PPF", "aa", False),  # broken since
        ("FFP", "aa", False),  # mended since
        ("PFP", "aa", True),
        ("PFFPP", "aa", True),
        ("PFP", None, False),  # perhaps three firmwares
        ("PFP" + "P" * 20, "aa", False),  # long ago
        ("PF" + "P" * 19, "aa", False),
        ("PF" + "P" * 18, "aa", True),
    ],
)
def test_a_test_is_flaky_by_the_stated_rule(passed: str, sha256: str | None, is_flaky: bool) -> None:
    verdicts = Verdicts("test", "desk-c3", "release", sha256, tuple(letter == "P" for letter in passed))
    assert bool(flaky_among([verdicts])) is is_flaky


@pytest.mark.parametrize(("outcomes", "is_flaky"), [([P, E, P, S, P, N, P], False), ([P, E, F, S, P], True)])
def test_bench_errors_and_skips_make_no_test_flaky(
    history: History, outcomes: list[Outcome], is_flaky: bool
) -> None:
    for run in runs_of(outcomes):
        history.record(run)
    with history.reading() as database:
        assert bool(flaky_tests(database)) is is_flaky


def test_another_firmware_or_board_begins_a_new_series(history: History) -> None:
    for n, (outcome, sha, board) in enumerate(
        [(P, "a", "x"), (F, "b", "x"), (P, "a", "y"), (F, "a", "z"), (P, "a", "x")]
    ):
        test = past_test(outcome=outcome, board=board, began_s=NOON_S + n)  # type: ignore[arg-type]
        history.record(past_run(n, [test], sha256=sha, boards=[board]))
    with history.reading() as database:
        assert flaky_tests(database) == []


def test_errors_count_for_the_board_and_skips_for_nobody(history: History) -> None:
    outcomes: list[Outcome] = [
        "passed",
        "error",
        "failed",
        "skipped",
        "not applicable",
        "not proven",
        "passed",
    ]
    for run in runs_of(outcomes):
        history.record(run)
    history.record(past_run(50, [], problem="it answers nothing", began_s=NOON_S + 5000))
    with history.reading() as database:
        (board,) = rates_of_boards(database)
        (test,) = rates_of_tests(database)
    assert (board.rate.passed, board.rate.failed, board.rate.errors, board.rate.skipped) == (2, 1, 1, 2)
    assert board.rate.rate == pytest.approx(2 / 3)
    assert board.last == (P, E, F, N, P)
    assert (board.runs, board.problem, board.broken_s) == (8, "it answers nothing", NOON_S + 5000)
    assert (test.test, test.cause, test.failed_s) == (
        "tests/ota/test_switch.py::switches",
        "switches did not",
        NOON_S + 120,
    )


def test_the_last_run_of_a_board_is_what_it_came_to_there(history: History) -> None:
    tests = [past_test("a", "failed", board="x"), past_test("b", board="y")]
    history.record(past_run(1, [past_test("b", "failed", board="y")], boards=["y"]))
    history.record(past_run(2, tests, boards=["x", "y", "z"]))
    history.record(past_run(3, [past_test("b", "failed", board="y")], boards=["y"], ended=False))
    with history.reading() as database:
        last = last_runs(database)
    assert {board: run.verdict_here for board, run in last.items()} == {
        "x": "failed",
        "y": "passed",
        "z": "failed",
    }
    assert {run.id for run in last.values()} == {past_run(2).id}
    assert (last["x"].firmware, last["x"].idf) == ("1.0.0", "v5.5")


def test_scope_is_a_board_a_part_of_a_test_and_a_time(history: History) -> None:
    history.record(past_run(1, [past_test("a", board="x", began_s=NOON_S)], began_s=NOON_S, boards=["x"]))
    later = NOON_S + 1000
    history.record(past_run(2, [past_test("b", board="y", began_s=later)], began_s=later, boards=["y"]))
    with history.reading() as database:
        for scope, board in ((Scope(board="x"), "x"), (Scope(since_s=NOON_S + 1), "y")):
            assert [run.boards for run in past_runs(database, scope)] == [(board,)]
            assert [one.board for one in rates_of_boards(database, scope)] == [board]
        assert [one.test for one in rates_of_tests(database, Scope(test="switch.py::test_b["))] == [
            "tests/ota/test_switch.py::b"
        ]


def test_the_command_says_it_all_and_an_empty_history_says_what_fills_it(history: History) -> None:
    assert "every run of pytest and `harness run` adds to it" in ask()
    now = time.time()
    for n, outcome in enumerate((P, F, P)):
        event = Event(at_s=now, kind="update", text="update (ota) to 1.1.0: ok", duration_s=1.5)
        test = past_test(outcome=outcome, began_s=now + n, events=[event])  # type: ignore[arg-type]
        history.record(past_run(n, [test], began_s=now + n))
    said = ask()
    for expected in (
        "desk-c3",
        "2/3 67%",
        "+x+",
        "change between",
        "update: all of it (ota)",
        "switches did not",
    ):
        assert expected in said, said
    assert "at least 2 times" in ask("--flaky")
    told = json.loads(ask("--json", "--since", "1h"))
    assert told["boards"][0]["pass_rate"] == pytest.approx(2 / 3)
    assert told["flaky"]["tests"][0]["flips"] == 2
    assert json.loads(ask("--json", "--board", "other"))["boards"] == []


def test_export_gives_one_object_a_line_that_adds_up(history: History, tmp_path: Path) -> None:
    event = Event(at_s=NOON_S, kind="phase", text="downloaded", duration_s=1.5, size=4096)
    history.record(past_run(1, [past_test(events=[event]), past_test("boots")]))
    history.record(past_run(2))
    lines = [json.loads(line) for line in ask("--export", "-").splitlines()]
    kinds = " ".join(line["record"] for line in lines)
    assert kinds == "history run board test test phase run board test"
    assert lines[0]["format"] == 1
    runs = {line["id"] for line in lines if line["record"] == "run"}
    assert {line["run"] for line in lines if line["record"] in ("board", "test", "phase")} == runs - {None}
    assert lines[5] | {"phase": "update: downloaded", "median_s": 1.5, "times": 1, "size": 4096} == lines[5]
    file = tmp_path / "runs.jsonl"
    ask("--export", str(file))
    assert [json.loads(line) for line in file.read_text().splitlines()] == lines
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["runs.jsonl"]


def test_a_file_that_cannot_be_written_is_one_sentence(history: History, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        CliRunner().invoke(
            cli,
            ["history", "--export", str(tmp_path / "no" / "f")],
            catch_exceptions=False,
            standalone_mode=False,
        )


@pytest.mark.parametrize(
    ("text", "expected"), [("45m", 2700), ("12h", 43200), ("30d", 2592000), ("1.5 d", 129600)]
)
def test_ages_are_read_as_people_write_them(text: str, expected: float) -> None:
    assert age_s(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("500MB", 500_000_000), ("5gb", 5_000_000_000), ("1.5 TB", 1_500_000_000_000)]
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "-3d", "30 days ago", "1e9d", "٣d"])
def test_what_is_no_age_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no age"):
        age_s(text)
