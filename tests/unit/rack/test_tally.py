"""What is said of a run over a rack, and when it is no success although no test failed."""

from __future__ import annotations

import pytest

from harness.rack.tally import Tally, case_of, lines_of, problems_of, unfit_lines

BOARDS = {"a": "esp32c3", "b": "esp32c3", "c": "esp32"}


def tally_of(**outcomes: str) -> Tally:
    """Two tests on each board; `outcomes`: by board, of its first test: ``passed``, ``failed``, or why it did not run."""
    tally = Tally()
    tests = {
        f"t.py::test_{n}[{board}-release]": (board, f"{board}-release", chip)
        for board, chip in BOARDS.items()
        for n in (1, 2)
    }
    tally.begin(tests)
    for nodeid, (board, _, _) in tests.items():
        outcome = outcomes.get(board, "passed")
        if outcome in ("busy", "broken", "refused"):
            tally.add(nodeid, "setup", "skipped", 0.0, outcome, f"board {board} is {outcome}")
        else:
            tally.add(nodeid, "setup", "passed", 0.5)
            tally.add(nodeid, "call", outcome if "_1" in nodeid else "passed", 1.0)
            tally.add(nodeid, "teardown", "passed", 0.0)
    return tally


def test_a_test_has_one_name_on_all_boards_of_a_chip() -> None:
    assert case_of("t.py::test_it[a-1-release-x]", "a-1-release", "esp32") == "t.py::test_it[esp32-x]"
    assert case_of("a/t.py::test_a[x-a]", "a", "esp32") == "a/t.py::test_a[x-esp32]"


@pytest.mark.parametrize(
    ("outcomes", "allow_busy", "problems"),
    [
        ({}, False, []),
        ({"a": "failed"}, False, []),
        # another board of the chip ran them
        ({"a": "broken"}, False, []),
        ({"a": "refused"}, False, []),
        ({"a": "busy"}, True, []),
        ({"a": "busy"}, False, ["somebody else kept board a"]),
        # nobody did
        ({"a": "broken", "b": "busy"}, True, ["2 tests ran on no esp32c3: boards a, b did not run them"]),
        ({"c": "broken"}, False, ["2 tests ran on no esp32: board c did not run them"]),
        ({"c": "busy"}, False, ["somebody else kept board c", "2 tests ran on no esp32"]),
    ],
)
def test_a_run_is_a_success_when_each_test_ran_on_each_chip(
    outcomes: dict[str, str], allow_busy: bool, problems: list[str]
) -> None:
    found = problems_of(tally_of(**outcomes), allow_busy=allow_busy)
    assert len(found) == len(problems)
    assert all(said.startswith(problem) for said, problem in zip(found, problems, strict=True))


def test_a_chip_whose_only_board_is_not_what_its_entry_says_is_missed() -> None:
    wrong = [("esp32s3", "board s is in release, its entry pins development"), ("esp32", "board d is blank")]
    assert problems_of(tally_of(), allow_busy=False, wrong=wrong) == [
        "no test ran on any esp32s3: board s is in release, its entry pins development"
    ]


def test_a_run_in_which_no_test_fits_is_none() -> None:
    tally = Tally(
        unfit={"profile": 3, "chip": 1}, examples={"profile": "board a is for open", "chip": "none"}
    )
    assert problems_of(tally, allow_busy=True) == [
        "no test ran on any board of the rack: 4 tests fit no board"
    ]
    assert unfit_lines(tally) == [
        "4 tests fit no board of the rack:",
        "  3 for the profile, for example: board a is for open",
        "  1 for the chip, for example: none",
    ]


@pytest.mark.parametrize(("strict", "problems"), [(False, 0), (True, 1)])
def test_tests_that_fit_no_board_are_missed_where_that_is_demanded(strict: bool, problems: int) -> None:
    tally = tally_of()
    tally.unfit = {"capability power": 2}
    found = problems_of(tally, allow_busy=False, strict=strict)
    assert [said.split(",")[0] for said in found] == ["2 tests fit no board of the rack"] * problems


def test_the_table_has_a_line_per_board_and_says_below_why_one_did_not_run() -> None:
    chosen = [(name, chip, "fits none of the tests") for name, chip in {**BOARDS, "d": "esp32s3"}.items()]
    assert lines_of(tally_of(b="broken", c="failed"), chosen) == [
        "board  chip     tests  passed  failed  skipped  not run   time",
        "a      esp32c3      2       2                            3.0 s",
        "b      esp32c3      2                                 2  0.0 s",
        "c      esp32        2       1       1                    3.0 s",
        "d      esp32s3      0",
        "board b is broken",
        "board d fits none of the tests",
    ]


def test_what_fails_in_its_teardown_is_a_failure_and_no_success() -> None:
    tally = Tally()
    tally.begin({"t": ("a", "a", "esp32")})
    tally.add("t", "setup", "passed", 0.0)
    tally.add("t", "call", "passed", 0.0)
    tally.add("t", "teardown", "failed", 0.0)
    assert (tally.rows["a"].passed, tally.rows["a"].failed) == (0, 1)
