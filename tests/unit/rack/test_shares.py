"""How the tests of throwaway twins are given out: evenly, and with few twins to prepare."""

from __future__ import annotations

import pytest

from harness.rack.shares import LEAST_TESTS, shares


def sizes(tests: dict[str, list[int]], workers: int) -> list[int]:
    return [len(share) for share in shares(tests, workers).values()]


@pytest.mark.parametrize(
    ("counts", "workers", "expected"),
    [
        ({}, 4, []),
        ({"a": 100}, 1, [100]),
        ({"a": 100}, 4, [25, 25, 25, 25]),
        ({"a": LEAST_TESTS}, 4, [LEAST_TESTS]),
        ({"a": 60, "b": 20, "c": 20}, 2, [30, 30, 20, 20]),
        ({"a": 3, "b": 5}, 8, [5, 3]),
    ],
)
def test_no_share_is_larger_than_a_workers_part(
    counts: dict[str, int], workers: int, expected: list[int]
) -> None:
    tests = {name: list(range(count)) for name, count in counts.items()}
    assert sizes(tests, workers) == expected


def test_every_test_is_in_one_share_and_they_keep_their_order() -> None:
    tests = {"a": list(range(50)), "b": list(range(50, 61))}
    found = shares(tests, 3)
    assert sorted(number for share in found.values() for number in share) == list(range(61))
    assert all(share == sorted(share) for share in found.values())
