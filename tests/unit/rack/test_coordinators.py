"""What a coordinator of labgrid says of who has its places, for a page that does not wait for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from harness.errors import LabError
from harness.home import Home
from harness.inventory.entry import LabgridEntry
from harness.rack.coordinators import Coordinators, WatchedCoordinators
from harness.serve.rack import Rack

BOARDS = """
version: 1
boards:
  one: {chip: esp32c3, link: labgrid, coordinator: "rack:20408", place: one}
  two: {chip: esp32c3, link: labgrid, coordinator: "rack:20408", place: two}
"""
ONE = LabgridEntry(chip="esp32c3", link="labgrid", coordinator="rack:20408", place="one")
TOLD = {
    "places": {
        "one": {"holder": "host-b/anna.harness-4711-1f2e", "changed": 1_700_000_000.0},
        "two": {"holder": "", "changed": 0.0},
    }
}
PATIENCE_S = 60.0


class Site:
    """A coordinator: how often it was asked, and what it answers when it is let."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.told = told
        self.asked = 0
        self.may_answer = threading.Event()

    def asker(self) -> Coordinators:
        self.asked += 1
        self.may_answer.wait(PATIENCE_S)
        return Coordinators({"rack:20408": self.told})


def test_a_page_does_not_wait_for_a_coordinator_and_asks_it_once() -> None:
    site = Site(TOLD)
    watched = WatchedCoordinators(site.asker)
    assert watched.holder_of("one", ONE) is None
    assert watched.holder_of("one", ONE) is None
    site.may_answer.set()
    watched.settle(PATIENCE_S)
    lease = watched.holder_of("one", ONE)
    assert lease is not None
    assert (lease.user, lease.host, lease.pid, lease.reason) == ("anna", "host-b", 4711, "harness")
    assert site.asked == 1


def test_a_coordinator_that_does_not_answer_is_named() -> None:
    site = Site({"problem": "the labgrid coordinator rack:20408 cannot be asked"})
    site.may_answer.set()
    watched = WatchedCoordinators(site.asker)
    watched.holder_of("one", ONE)
    watched.settle(PATIENCE_S)
    with pytest.raises(LabError, match="rack:20408 cannot be asked"):
        watched.holder_of("one", ONE)


@pytest.mark.parametrize(
    "told", [{}, [], 7, {"places": []}, {"places": {"one": {}}}, {"places": {"one": {"holder": "h/anna"}}}]
)
def test_an_answer_that_is_not_understood_is_named_and_is_not_asked_for_again_at_once(told: Any) -> None:
    site = Site(told)
    site.may_answer.set()
    watched = WatchedCoordinators(site.asker)
    watched.holder_of("one", ONE)
    watched.settle(PATIENCE_S)
    for _ in range(2):
        with pytest.raises(LabError, match="rack:20408 is not understood"):
            watched.holder_of("one", ONE)
    assert site.asked == 1


@pytest.mark.parametrize(
    ("told", "holders", "problems"),
    [
        (TOLD, ["anna", None], 0),
        ({"problem": "the labgrid coordinator rack:20408 cannot be asked"}, [None, None], 1),
    ],
)
def test_the_page_shows_who_has_a_board_on_another_host_or_says_once_that_it_cannot_know(
    tmp_path: Path, own_home: Path, told: dict[str, Any], holders: list[str | None], problems: int
) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    site = Site(told)
    site.may_answer.set()
    rack = Rack(Home(own_home), tmp_path / "boards.yaml")
    rack.coordinators = WatchedCoordinators(site.asker)
    rack.look()
    rack.coordinators.settle(PATIENCE_S)
    view = rack.look()
    assert [board.lease.user if board.lease else None for board in view.boards] == holders
    assert len(view.problems) == problems
