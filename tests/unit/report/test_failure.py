"""Why something failed, in one sentence."""

from __future__ import annotations

import signal

import pytest

from harness.console.device import Answer
from harness.errors import BoardError, LabError, RefusedError
from harness.interruption import Interrupted
from harness.report.failure import cause_of, is_of_the_board

KEY = bytes(range(32))
DROPPED = Answer("ota", False, "http-read", 28680, {"id": 6})

CAUSES: list[tuple[BaseException, str | None, str]] = [
    (BoardError("does not boot", board="c3"), None, "board c3: does not boot"),
    (BoardError("waited 5 s\nlast boot: boot 3", board="c3"), None, "board c3: waited 5 s"),
    (AssertionError("assert 'v1' == 'v2'"), "assert x == 'v2'", "x == 'v2' does not hold: 'v1' is not 'v2'"),
    (AssertionError("the update is refused\nassert False"), "assert answer.ok, why", "the update is refused"),
    (AssertionError("assert False"), "assert answer.ok", "answer.ok does not hold"),
    (
        AssertionError(f"assert False\n +  where False = {DROPPED!r}.ok"),
        "assert board.update(new).ok",
        "board.update(new).ok does not hold: the board answered http-read to ota",
    ),
    (
        AssertionError(f"it takes it\nassert False\n +  where False = {DROPPED!r}.ok"),
        "assert answer.ok, 'it takes it'",
        "it takes it: the board answered http-read to ota",
    ),
    (AssertionError("assert 3 in [1, 2]"), None, "3 is not in [1, 2]"),
    (AssertionError("assert 'a in x' == 'c'"), None, "'a in x' is not 'c'"),
    (AssertionError("assert it's in 3 is None"), None, "it's in 3 is None does not hold"),
    (
        AssertionError("assert (1 in 2,) == ()"),
        "assert t == ()",
        "t == () does not hold: (1 in 2,) is not ()",
    ),
    (
        AssertionError("assert not (Finding(text='1.0.0 in ota_0'),)"),
        "assert not board.findings",
        "not board.findings does not hold",
    ),
    (AssertionError("assert not x == 3"), None, "not x == 3 does not hold"),
    (AssertionError(r"assert 'it\'s in' in ()"), None, r"'it\'s in' is not in ()"),
    (AssertionError(""), None, "an assertion does not hold"),
    (ValueError(f"bad key {KEY!r}"), None, "ValueError: bad key <bytes>"),
    (ValueError(f"bad key {KEY.hex()}"), None, "ValueError: bad key <digits>"),
    (KeyError(), None, "KeyError"),
]


@pytest.mark.parametrize(("error", "statement", "cause"), CAUSES, ids=[row[2][:30] for row in CAUSES])
def test_the_cause_is_one_sentence_without_keys(
    error: BaseException, statement: str | None, cause: str
) -> None:
    assert cause_of(error, statement) == cause


def test_what_the_bench_or_the_question_is_to_blame_for_is_not_the_boards() -> None:
    assert is_of_the_board(AssertionError())
    assert is_of_the_board(BoardError("does not boot"))
    assert not is_of_the_board(LabError("the cable has been pulled"))
    assert not is_of_the_board(RefusedError("no consent"))
    assert not is_of_the_board(Interrupted(signal.SIGINT))
