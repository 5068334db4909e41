"""``--rack-dist load``: which board each test gets."""

from __future__ import annotations

from harness.inventory.entry import TwinEntry
from harness.provision.profile import Profile
from harness.rack.choice import Choice
from harness.rack.spread import Share, shares_of, spread
from harness.rack.target import Target


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
