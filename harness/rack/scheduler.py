"""Gives tests to the workers of pytest-xdist: a board's to one of them, and a worker has one board at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from harness.rack.layout import Layout
from harness.rack.work import Unit, Work

AHEAD = 2
"""Tests without a board that a worker has at least, as with xdist: it must know the next one to end one."""


@dataclass(slots=True)
class Hand:
    """What one worker has."""

    pending: list[int] = field(default_factory=list)
    """Tests that it was sent and has not ended, in their order."""
    unit: Unit | None = None
    is_giving_back: bool = False
    """It found the board of `unit` taken, and passes over its tests."""


class BoardScheduling:
    """One unit per board; tests of no board fill the gaps. It has the interface of ``xdist.scheduler.Scheduling``.

    xdist's ``loadgroup`` promises the same, but it tells groups by a suffix that it appends to node ids, which newer
    pytests do not show. It also sends a worker its next group before the last test of the one before: the worker would
    hold a board while it waits for another.
    """

    def __init__(
        self,
        config: pytest.Config,
        workers: int,
        *,
        layout: Callable[[], Layout],
        is_held: Callable[[str], bool],
        lease_wait_s: float,
    ) -> None:
        """`layout` is asked when all `workers` have collected."""
        self._config = config
        self._workers = workers
        self._layout = layout
        self._is_held = is_held
        self._lease_wait_s = lease_wait_s
        self._work: Work | None = None
        self._hands: dict[Any, Hand] = {}
        self._collections: dict[Any, list[str]] = {}
        self._collection: list[str] = []
        """What all workers have collected."""

    # --- what xdist asks ----------------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[Any]:
        """The workers."""
        return list(self._hands)

    @property
    def collection_is_completed(self) -> bool:
        """All workers that were there from the beginning have collected."""
        return len(self._collections) >= self._workers

    @property
    def tests_finished(self) -> bool:
        """Nothing is left, and no worker is in the middle of a board: it might yet give that back."""
        if not self.collection_is_completed:
            return False
        return not self._work and all(
            not hand.pending if hand.unit is not None else len(hand.pending) < AHEAD
            for hand in self._hands.values()
        )

    @property
    def has_pending(self) -> bool:
        return bool(self._work) or any(hand.pending for hand in self._hands.values())

    def add_node(self, node: Any) -> None:
        """A worker has started."""
        self._hands[node] = Hand()

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """A worker has collected. One that replaces another and collected something else gets nothing to do."""
        if self._work is None or list(collection) == self._collection:
            self._collections[node] = list(collection)

    def schedule(self) -> None:
        """Called whenever a worker has collected and all first ones have."""
        if self._work is None:
            first, self._collection = next(iter(self._collections.items()))
            if not self._all_collected_what(first):
                return
            layout = self._layout()
            self._work = Work(layout.units, layout.free(len(self._collection)))
            for node in self.nodes[self._work.parts :]:
                self._hands.pop(node)
                node.shutdown()
        for node in self.nodes:
            self._supply(node)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:  # noqa: ARG002
        hand = self._hands[node]
        if item_index in hand.pending:
            hand.pending.remove(item_index)
            unit = hand.unit
            if unit is not None and not hand.is_giving_back and item_index in unit.tests:
                unit.tests.remove(item_index)
        self._supply(node)

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:  # noqa: ARG002
        """A worker found its board taken: it passes over its tests, and reports them as if they had ended."""
        self._hands[node].is_giving_back = True

    def remove_node(self, node: Any) -> str | None:
        """A worker is gone. What it had not ended is for others, but for the test that it died in."""
        hand = self._hands.pop(node)
        died_in: int | None = None
        if hand.pending and not hand.is_giving_back:
            died_in = hand.pending.pop(0)
        if self._work is not None:
            unit = hand.unit
            if unit is not None and died_in in unit.tests:
                unit.tests.remove(died_in)
            bound = set(unit.tests) if unit is not None else set()
            self._work.restore(unit, [test for test in hand.pending if test not in bound])
            for other in self.nodes:
                self._supply(other)
        return self._collection[died_in] if died_in is not None else None

    def mark_test_pending(self, item: str) -> None:
        """For plugins that run a test again that a worker died in; xdist's own schedulers by group cannot, either."""
        raise NotImplementedError(item)

    # --- what a worker gets -------------------------------------------------------------------------------------

    def _supply(self, node: Any) -> None:
        """Sends a worker what it is to do next, if it is time for that."""
        hand = self._hands[node]
        if node.shutting_down or self._work is None or node not in self._collections:
            return
        while not node.shutting_down:
            if hand.unit is not None:
                if hand.pending:
                    return
                self._settle(hand)
            if len(hand.pending) > AHEAD or not self._send_next(node, hand):
                return

    def _settle(self, hand: Hand) -> None:
        """The worker has done with its board."""
        unit, gave_back = hand.unit, hand.is_giving_back
        hand.unit, hand.is_giving_back = None, False
        if unit is None or not gave_back or not unit.tests:
            return
        assert self._work is not None
        now_s = time.monotonic()
        since_s = unit.waiting_since_s
        unit.is_last_try = since_s is not None and now_s - since_s >= self._lease_wait_s
        self._work.put_back(unit, now_s)

    def _send_next(self, node: Any, hand: Hand) -> bool:
        """Whether there was something to send."""
        work = self._work
        assert work is not None
        unit = work.take_board(self._is_held, time.monotonic())
        if unit is None:
            tests = work.take_tests(len(self._hands))
            if tests:
                hand.pending += tests
                node.send_runtest_some(tests)
                return True
            if len(hand.pending) >= AHEAD:
                return False
            unit = work.take_held_board(time.monotonic())
        if unit is None:
            # Nothing that is left could be for this worker, and a worker that dies is replaced.
            node.shutdown()
            return False
        hand.unit = unit
        hand.pending += unit.tests
        # Two of them in a row before its tests tell the worker that it is the last try.
        before = [self._between] * 2 if unit.is_last_try else []
        node.send_runtest_some([*before, *unit.tests, self._between])
        return True

    @property
    def _between(self) -> int:
        """The number of the item that does nothing."""
        return len(self._collection)

    def _all_collected_what(self, first: Any) -> bool:
        """Whether all workers collected the same; if not, that is reported as an error of the collection."""
        from xdist.report import report_collection_diff

        same = True
        for node, collection in self._collections.items():
            told = report_collection_diff(self._collection, collection, first.gateway.id, node.gateway.id)
            if told:
                same = False
                report = pytest.CollectReport(node.gateway.id, "failed", longrepr=told, result=[])
                self._config.hook.pytest_collectreport(report=report)
        return same
