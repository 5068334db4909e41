"""``--rack-dist load``: which board each test gets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.provision.profile import Profile
from harness.rack.choice import Choice
from harness.rack.demands import Demands, Place
from harness.rack.run import BoardRun
from harness.rack.spread import Share, shares_of, spread
from harness.rack.target import Target
from harness.rack.turn import Turns


def target(name: str, chip: str = "esp32c3", profile: Profile | None = Profile.OPEN) -> Target:
    return Target(name, TwinEntry(chip=chip), profile, throwaway=False)


A, B, C = target("a"), target("b"), target("c", "esp32")


def given(share: Share, tests: int, passed_over: tuple[str, ...] = ()) -> list[str]:
    """The boards of so many tests that fit `share`, each of its own."""
    return [each.name for each in spread([(f"t{n}", share) for n in range(tests)], passed_over)]


def test_a_test_is_asked_for_once_per_chip_and_profile_by_a_name_without_a_board() -> None:
    released, unknown = target("b", profile=Profile.RELEASE), target("d", profile=None)
    found = shares_of([A, B, released, C, unknown])
    assert [(each.id, [one.name for one in each.targets]) for each in found] == [
        ("esp32c3-open", ["a", "b"]),
        ("esp32c3-release", ["b"]),
        ("esp32-open", ["c"]),
        ("esp32c3", ["d"]),
    ]


def test_boards_get_as_many_tests_each() -> None:
    assert given(Share("x", (A, B)), 4) == ["a", "b", "a", "b"]


def test_a_board_that_few_tests_fit_is_left_to_those() -> None:
    only_a, both = Share("x", (A,)), Share("x", (A, B))
    found = spread([("1", only_a), ("2", only_a), ("3", both), ("4", both)], ())
    assert [each.name for each in found] == ["a", "a", "b", "b"]


def test_boards_that_are_broken_or_held_get_none_where_another_can_have_it() -> None:
    assert given(Share("x", (A, B)), 2, ("a",)) == ["b", "b"]
    assert given(Share("x", (A, B)), 2, ("a", "b")) == ["a", "b"]


def test_what_belongs_together_gets_one_board_in_each_profile() -> None:
    share, other = Share("esp32c3-open", (A, B)), Share("esp32-open", (C,))
    found = spread([("C", share), ("t", share), ("C", share), ("C", other)], ())
    assert [each.name for each in found] == ["a", "b", "a", "c"]
    # A test of the class that the board of the others does not fit.
    assert [each.name for each in spread([("C", share), ("C", Share(share.id, (B,)))], ())] == ["a", "b"]


def test_workers_are_told_which_boards_others_had() -> None:
    choice = Choice((), {"b": "is broken"}, frozenset({"a"}))
    assert Choice.from_fields(choice.to_fields()).passed_over == {"a", "b"}


@pytest.fixture
def config(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> pytest.Config:
    """That of a run's own process, where this test runs in a worker, too."""
    monkeypatch.delattr(pytestconfig, "workerinput", raising=False)
    return pytestconfig


def run_of(config: pytest.Config, choice: Choice) -> BoardRun:
    """A run over the rack that nobody begins."""
    turns = Turns(lambda _: None, lease_wait_s=0.0, is_skipped=lambda _: False)
    return BoardRun(config, choice, lambda _: None, 0.0, supplied=False, turns=turns)


def item_of(config: pytest.Config, function: str, share: Share) -> Any:
    return SimpleNamespace(
        nodeid=f"{function}[{share.id}]",
        config=config,
        callspec=SimpleNamespace(params={"_target": share.targets[0]}),
        get_closest_marker=lambda _: None,
        iter_markers=lambda _: (),
    )


def test_a_board_takes_its_profiles_from_the_nearest_to_the_furthest(config: pytest.Config) -> None:
    near, far = target("b"), target("b", profile=Profile.DEVELOPMENT)
    pinned = target("a", profile=Profile.DEVELOPMENT)
    run = run_of(config, Choice((), {}))
    # As pytest brings them: by the board that each was collected with.
    shares = {name: run.shares(name, [pinned, near, far]) for name in ("t1", "t2")}
    items = [item_of(config, name, shares[name][number]) for number in (0, 1) for name in shares]
    run.spread(items)
    assert [item.callspec.params["_target"].id for item in items] == [
        "a-development",
        "b-open",
        "b-open",
        "b-development",
    ]


@pytest.mark.parametrize(
    ("chips", "said"),
    [
        (("esp32",), "board a is an esp32c3, this test is for esp32"),
        ((), "had no test: another job had it"),
    ],
)
def test_a_board_that_another_job_had_is_said_to_fit_no_test_where_that_is_why(
    config: pytest.Config, chips: tuple[str, ...], said: str
) -> None:
    entries = {"a": TwinEntry(chip="esp32c3"), "b": TwinEntry(chip="esp32c3"), "c": TwinEntry(chip="esp32")}
    places = tuple(Place(name, entry.chip, (Profile.OPEN,), frozenset()) for name, entry in entries.items())
    run = run_of(config, Choice(places, {}, frozenset({"a"})))
    inventory = Inventory(None, entries)
    items = []
    for function, demands in (("t1", Demands(chips=("esp32",))), ("t2", Demands(chips=chips))):
        shares = run.shares(function, run.targets(function, demands, inventory))
        items += [item_of(config, function, share) for share in shares]
    run.count_unfit(items)
    run.spread(items)
    run.pytest_collection_finish(SimpleNamespace(items=items))  # type: ignore[arg-type]
    assert said in run.notes
