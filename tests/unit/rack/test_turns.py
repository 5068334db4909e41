"""A board's turn in the process that runs tests: put off while somebody else has it, waited for, given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.rack import turn
from harness.rack.layout import LayoutItem
from harness.rack.turn import Turns, WorkerTurns


class Bench:
    """What runs when ``a`` (of two tests) is held, then ``b`` and one test of no board follow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, held: set[str], **options: Any) -> None:
        self.held = held
        self.now_s = 0.0
        monkeypatch.setattr(turn, "time", SimpleNamespace(monotonic=lambda: self.now_s, sleep=self.sleep))
        self.turns = Turns(
            lambda name: "anna" if name in held else None, is_skipped=lambda _: False, **options
        )
        self.session = SimpleNamespace(items=[self.item(name) for name in ("a1", "a2", "b1", "none")])

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def item(self, name: str) -> Any:
        target = SimpleNamespace(name=name[0], id=name[0], throwaway=False)
        params = {"_target": target} if name != "none" else {}
        return SimpleNamespace(name=name, callspec=SimpleNamespace(params=params), session=None)

    def run(self) -> list[str]:
        """Runs as pytest's own loop does, which goes on to what is appended meanwhile."""
        ran = []
        for item in self.session.items:
            item.session = self.session
            assert len(self.session.items) < 1000
            if not self.turns.passes_over(item):
                ran.append(item.name)
                # The board is let go of, as after its last test.
                self.turns._open = None
        return ran


def test_a_board_that_is_free_is_not_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Bench(monkeypatch, set(), lease_wait_s=60).run() == ["a1", "a2", "b1", "none"]


def test_a_board_that_is_held_comes_last_waits_and_is_given_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, {"a"}, lease_wait_s=60)
    assert bench.run() == ["b1", "none", "a1", "a2"]
    assert bench.turns.given_up == {"a": "anna"}
    assert bench.now_s == pytest.approx(60, abs=1)


def test_two_boards_that_are_held_are_waited_for_in_turn_each_for_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, {"a", "b"}, lease_wait_s=10)
    ran = bench.run()
    assert sorted(ran) == ["a1", "a2", "b1", "none"]
    assert ran[0] == "none"
    assert set(bench.turns.given_up) == {"a", "b"}
    assert bench.now_s == pytest.approx(20, abs=1)


def test_without_patience_a_board_that_is_held_is_given_up_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, {"a"}, lease_wait_s=0)
    assert bench.run() == ["b1", "none", "a1", "a2"]
    assert bench.now_s == 0


def test_a_board_that_becomes_free_while_others_run_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, {"a"}, lease_wait_s=60)
    passes_over = bench.turns.passes_over

    def freed_by_b(item: Any) -> bool:
        if item.name == "b1":
            bench.held.clear()
        return passes_over(item)

    monkeypatch.setattr(bench.turns, "passes_over", freed_by_b)
    assert bench.run() == ["b1", "none", "a1", "a2"]
    assert bench.now_s == 0
    assert bench.turns.given_up == {}


def test_a_worker_gives_a_held_board_back_until_it_is_told_that_it_is_the_last_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, {"a"}, lease_wait_s=60)
    worker = WorkerTurns(lambda _: "anna", lease_wait_s=60, is_skipped=lambda _: False)
    told: list[object] = []
    interactor = SimpleNamespace(torun=None, item_index=0, sendevent=lambda *a, **b: told.append(a))
    between: Any = LayoutItem.__new__(LayoutItem)
    first, second = bench.item("a1"), bench.item("a2")
    for item in (first, second):
        item.config = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugins=lambda: [interactor]))
    assert [worker.passes_over(each) for each in (first, second, between)] == [True, True, True]
    assert told == [("unscheduled",)]
    assert [worker.passes_over(each) for each in (first, between)] == [True, True]
    assert [worker.passes_over(each) for each in (between, between, first, second)] == [
        True,
        True,
        False,
        False,
    ]
    assert worker.given_up == {"a": "anna"}
    assert len(told) == 2
