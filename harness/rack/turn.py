"""A board's turn in the process that runs tests: passed over while somebody else has it, let go of when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import InUseError
from harness.rack.layout import LayoutItem

if TYPE_CHECKING:
    from harness.board import Board

POLL_S = 0.25
"""Between two looks at a board that somebody else has."""
SLICE_S = 2.0
"""How long a worker waits for one board before it asks whether another has become free."""

PASSED_OVER = pytest.StashKey[bool]()
"""Of an item that this process does not run now, and nobody reports: its board is somebody else's."""

HeldBy = Callable[[str], str | None]
"""Who holds a board of boards.yaml, for a person; None: nobody."""


def board_of(item: pytest.Item | None) -> str | None:
    """The name of the board of boards.yaml that `item` runs on; None: on none, or on a throwaway twin."""
    target = target_of(item)
    return target.name if target is not None and not target.throwaway else None


def target_of(item: pytest.Item | None) -> Any:
    """The board in a profile that `item` is parametrised with."""
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("_target") if callspec is not None else None


class Turns:
    """A plugin of one process; it holds no board itself, `Lab.open` does."""

    def __init__(self, held_by: HeldBy, *, lease_wait_s: float, is_skipped: Callable[[str], bool]) -> None:
        """`is_skipped`: of boards that are broken there is nothing to wait for."""
        self._held_by = held_by
        self._lease_wait_s = lease_wait_s
        self._is_skipped = is_skipped
        self._open: str | None = None
        """The board whose tests run."""
        self._waited_s: dict[str, float] = {}
        self.given_up: dict[str, str] = {}
        """Boards that were waited for in vain, and the holder."""

    @pytest.hookimpl(wrapper=True, tryfirst=True, specname="pytest_runtest_protocol")
    def pytest_decide(self, item: pytest.Item) -> Iterator[None]:
        """Before any other plugin sees the item: whether it is passed over."""
        item.stash[PASSED_OVER] = self.passes_over(item)
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """An item that is passed over is dealt with."""
        return item.stash.get(PASSED_OVER, False) or None

    def passes_over(self, item: pytest.Item) -> bool:
        """Whether `item` is not to be run now."""
        name = board_of(item)
        if name is None or name == self._open or name in self.given_up or self._is_skipped(name):
            return False
        if self._held_by(name) is not None and self._put_off(item, name):
            return True
        self._open = name
        return False

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        """After the last test of a board it is let go of, whatever this process does next."""
        try:
            return (yield)
        finally:
            name, target, following = board_of(item), target_of(item), target_of(nextitem)
            if name is not None and (following is None or following.id != target.id):
                self._open = None
                for definition in item._fixtureinfo.name2fixturedefs.get("_target", ()):  # type: ignore[attr-defined]
                    definition.finish(item._request)  # type: ignore[attr-defined]

    def _put_off(self, item: pytest.Item, name: str) -> bool:
        """Alone in its process: other tests first, then it is waited for."""
        items = item.session.items
        # Where it was put off before, it stands as well.
        here = max(number for number, each in enumerate(items) if each is item)
        later = items[here:]
        mine = [each for each in later if board_of(each) == name]
        others = [each for each in later if board_of(each) != name]
        if any(board_of(each) not in self._waited_s for each in others):
            self._waited_s.setdefault(name, 0.0)
            items[here + 1 :] = [*others, *mine]
            return True
        patience_s = max(0.0, self._lease_wait_s - self._waited_s.setdefault(name, 0.0))
        waited_s, still = wait_for(
            lambda: self._held_by(name), min(SLICE_S, patience_s) if others else patience_s
        )
        self._waited_s[name] += waited_s
        if still is None:
            return False
        if self._waited_s[name] < self._lease_wait_s:
            items[here + 1 :] = [*others, *mine]
            return True
        self.given_up[name] = still
        return False


class WorkerTurns(Turns):
    """In a worker that `BoardScheduling` supplies: a board that is taken is given back to the controller."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._passing = False
        """Until the next item between two boards."""
        self._in_a_row = 0
        """How many of these have come one after the other."""
        self._is_last_try = False

    def passes_over(self, item: pytest.Item) -> bool:
        if isinstance(item, LayoutItem):
            # It stands behind the last test of every board; several before a board say that it is the last try.
            self._passing = False
            self._in_a_row += 1
            return True
        if not self._passing:
            self._is_last_try, self._in_a_row = self._in_a_row > 1, 0
        return self._passing or super().passes_over(item)

    def _put_off(self, item: pytest.Item, name: str) -> bool:
        patience_s = 0.0 if self._is_last_try else min(SLICE_S, self._lease_wait_s)
        _, still = wait_for(lambda: self._held_by(name), patience_s)
        if still is not None and self._is_last_try:
            self.given_up[name] = still
        if still is None or self._is_last_try:
            return False
        plugins = item.config.pluginmanager.get_plugins()
        interactor = next(each for each in plugins if hasattr(each, "torun") and hasattr(each, "sendevent"))
        interactor.sendevent("unscheduled", indices=[interactor.item_index])
        self._passing = True
        return True


def wait_for(held_by: Callable[[], str | None], patience_s: float) -> tuple[float, str | None]:
    """How long it was waited until nobody held a board any more, seconds, and who still does after `patience_s`."""
    began_s = time.monotonic()
    while True:
        holder = held_by()
        waited_s = time.monotonic() - began_s
        if holder is None or waited_s >= patience_s:
            return waited_s, holder
        time.sleep(min(POLL_S, max(0.0, patience_s - waited_s)))


def open_in_turn(opening: Callable[[], Board], patience_s: float) -> Board:
    """What `opening` gives; where another process was faster by a moment, it is tried again for `patience_s`.

    Raises:
        InUseError: it is still somebody else's. What `opening` raises.
    """
    until_s = time.monotonic() + patience_s
    while True:
        try:
            return opening()
        except InUseError:
            if time.monotonic() >= until_s:
                raise
            time.sleep(POLL_S)
