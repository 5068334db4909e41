"""What a worker of pytest-xdist tells its controller of the tests that it collected: which belongs to which board.

xdist's controller knows nothing of tests but their node ids. The layout travels as the id of one more item, which stands
behind all others and does nothing: it also gives a worker something to hold while its next board is being chosen, so that
the last test of a board need not wait for that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

PREFIX = "harness-layout::"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which tests belong together, by their numbers in the collection."""

    units: dict[str, list[int]] = field(default_factory=dict)
    """Tests that go to one worker, by the name of their board, or of the group that somebody marked them with."""
    boards: list[str] = field(default_factory=list)
    """Names of units that are boards of boards.yaml: somebody else may hold them."""

    tests: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of tests on boards of boards.yaml: the id of board and profile, and the chip; by number."""
    unfit: dict[str, int] = field(default_factory=dict)
    """How many tests fit no board, by the demand that fails."""
    examples: dict[str, str] = field(default_factory=dict)
    """A sentence of each."""
    idle: dict[str, str] = field(default_factory=dict)
    """Boards of the rack that fit no test, and why."""

    def free(self, count: int) -> list[int]:
        """Of `count` tests those that belong to no unit."""
        bound = {test for tests in self.units.values() for test in tests}
        return [test for test in range(count) if test not in bound]


class LayoutItem(pytest.Item):
    """The item behind all others. Whoever runs it does nothing, and has let go of its board before."""

    layout: Layout = Layout()

    @property
    def nodeid(self) -> str:
        return PREFIX + json.dumps(asdict(self.layout))

    def runtest(self) -> None:
        """Nothing; it is not reported."""

    def reportinfo(self) -> tuple[Any, int | None, str]:
        return self.path, None, "harness: between two boards"


def append_to(session: pytest.Session, layout: Layout) -> None:
    """Puts `layout` behind the collected items."""
    item = LayoutItem.from_parent(session, name="harness-layout")
    item.layout = layout
    session.items.append(item)


def take_from(ids: Sequence[str]) -> Layout | None:
    """Takes the layout out of the ids of a worker's collection, which is a list in fact; None: there is none."""
    if not ids or not isinstance(ids, list) or not ids[-1].startswith(PREFIX):
        return None
    return Layout(**json.loads(ids.pop().removeprefix(PREFIX)))
