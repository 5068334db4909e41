"""A board that somebody named and that no test got to: such a run is not green."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from harness.rack.broken_boards import BrokenBoards


def reports_of(*reports: tuple[str, str]) -> BrokenBoards:
    """`reports`: board, and ``ran`` or ``latched``."""
    seen = BrokenBoards()
    for board, what in reports:
        ran = what == "ran"
        seen.pytest_runtest_logreport(
            SimpleNamespace(  # type: ignore[arg-type]
                harness_board=board, harness_latched=not ran, failed=False, when="call" if ran else "setup"
            )
        )
    return seen


@pytest.mark.parametrize(
    ("reports", "problems"),
    [
        ([("a", "ran")], []),
        ([("a", "ran"), ("b", "latched")], ["no test ran on board b: it is latched broken"]),
        # It was latched in the middle: the test that met it has failed.
        ([("a", "ran"), ("a", "latched")], []),
        # Nothing ran at all, which has an exit status of its own.
        ([("b", "latched")], []),
    ],
)
def test_a_board_of_which_no_test_ran_is_missed(reports: list[tuple[str, str]], problems: list[str]) -> None:
    assert reports_of(*reports).problems == problems
