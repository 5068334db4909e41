"""Throwaway twins in a run with several workers: which tests share one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LEAST_TESTS = 8
"""Preparing a twin takes as long as several tests: fewer than these are not parted."""


def shares(tests: Mapping[str, Sequence[int]], workers: int) -> dict[str, list[int]]:
    """Parts the tests of each twin so that `workers` have about the same to do, and prepare no twin without need.

    `tests` are numbers of tests by the twin and its profile, in the order in which they run. The result has them by names
    of its own, the longest share first.
    """
    total = sum(map(len, tests.values()))
    most = max(LEAST_TESTS, -(-total // max(1, workers)))
    found: dict[str, list[int]] = {}
    for name, numbers in tests.items():
        count = max(1, -(-len(numbers) // most))
        size = -(-len(numbers) // count)
        for part in range(count):
            found[f"{name}, share {part + 1} of {count}"] = list(numbers[part * size : (part + 1) * size])
    return dict(sorted(found.items(), key=lambda share: -len(share[1])))
