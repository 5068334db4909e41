"""A board does not go back to a version that it has left, over all cuts of a step, whoever tried them."""

from __future__ import annotations

import pytest

from harness.explore.order import Order

STEPS = ["update", "update", "update", "confirm"]


def rows(*booted: str | None, event: str = "cut") -> list[dict[str, object]]:
    return [{"ev": event, "cut": f"{at}:after", "booted": version} for at, version in enumerate(booted, 1)]


@pytest.mark.parametrize(
    ("booted", "wrong"),
    [
        (("old", "old", "new", "new"), []),
        (("new", "new", "new", "old"), []),
        (("old", "new", "old", "new"), ["3:after"]),
        (("old", None, "old", "new"), []),
    ],
)
def test_going_back_within_a_step_is_wrong(booted: tuple[str | None, ...], wrong: list[str]) -> None:
    order = Order()
    # As the processes deal them out.
    for row in [*rows(*booted)[::2], *rows(*booted)[1::2]]:
        order.note(row)
    assert [cut for cut, _ in order.returns(STEPS)] == wrong


def test_what_lies_inside_of_operations_and_chains_does_not_count() -> None:
    order = Order()
    for row in rows("old", "new"):
        order.note(row)
    order.note({"ev": "cut", "cut": "3:inside:7", "booted": "old"})
    order.note({"ev": "violation", "cut": "3:after then 1:before", "chain": [2, 0], "booted": "old"})
    assert list(order.returns(STEPS)) == []
