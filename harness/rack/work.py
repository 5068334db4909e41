"""What is left to run, and what a free worker gets next. Pure: who holds a board is asked, nothing is taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

LOOK_AGAIN_S = 1.0
"""How soon it is looked again whether a board that somebody else held is free."""


@dataclass(slots=True)
class Unit:
    """The tests of one board that have not run yet; they go to one worker."""

    name: str
    tests: list[int]
    """By their numbers in the collection, in its order."""
    tries: int = 0
    """How often a worker has waited for the board in vain."""
    waiting_since_s: float | None = None
    """Since when nothing else was left to do for a worker that waits for it."""
    is_last_try: bool = False
    """It has been waited for long enough: its tests are skipped if it is not free now."""
    looked_at_s: float = field(default=float("-inf"))


class Work:
    """The queue of one run: boards in the order in which they are to be taken, then tests that need none."""

    def __init__(self, units: Mapping[str, Sequence[int]], free: Iterable[int]) -> None:
        self._units = [Unit(name, list(tests)) for name, tests in units.items() if tests]
        self._free = deque(free)
        self._has_boards = bool(self._units)

    def __bool__(self) -> bool:
        """Something is left that no worker has."""
        return bool(self._units or self._free)

    @property
    def parts(self) -> int:
        """How many workers could be of use."""
        return len(self._units) + len(self._free)

    def take_board(self, is_held: Callable[[str], bool], now_s: float) -> Unit | None:
        """The first board that nobody holds, as far as `is_held` tells."""
        for unit in self._units:
            if now_s - unit.looked_at_s < LOOK_AGAIN_S:
                continue
            if not is_held(unit.name):
                self._units.remove(unit)
                return unit
            unit.looked_at_s = now_s
        return None

    def take_tests(self, workers: int) -> list[int]:
        """Tests that need no board, for one of so many workers.

        Of a run without any board many at a time, as xdist's ``load`` has it: fewer the fewer are left. Where there are
        boards one, so that a worker is soon free for one that has become free.
        """
        count = 1 if self._has_boards else max(1, len(self._free) // (4 * max(1, workers)))
        return [self._free.popleft() for _ in range(min(count, len(self._free)))]

    def take_held_board(self, now_s: float) -> Unit | None:
        """A board to wait for, since nothing else is left: of several the one that was waited for least."""
        unit = min(self._units, key=lambda each: (not each.is_last_try, each.tries), default=None)
        if unit is not None:
            self._units.remove(unit)
            unit.waiting_since_s = unit.waiting_since_s if unit.waiting_since_s is not None else now_s
        return unit

    def put_back(self, unit: Unit, now_s: float) -> None:
        """Its board is still somebody else's."""
        unit.tries += 1
        unit.looked_at_s = now_s
        self._units.append(unit)

    def restore(self, unit: Unit | None, free: Iterable[int]) -> None:
        """What a worker had that has died: to be taken next."""
        if unit is not None and unit.tests:
            self._units.insert(0, unit)
        self._free.extendleft(reversed(list(free)))
