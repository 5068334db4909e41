"""Which scenarios a run leaves out unless everything is asked for, and how it says so: never silently."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest

FULL = "full"
"""Name of the option and of the marker."""

IN_TURN = "in_turn"
"""Name of the marker of tables whose rows differ little from chip to chip."""


@dataclass(slots=True)
class Subset:
    """The default subset of one session, and what is not in it.

    Three things make everything more than the subset: rows marked ``full``, which are collected and deselected; rows
    marked ``in_turn`` on all throwaway twins but one, row by row another; and chips and profiles that a scenario is not
    multiplied with, of which there is only a number.
    """

    full: bool
    named: tuple[str, ...] = ()
    """Arguments that name single tests (``file.py::test``): whoever names a row means it."""
    run: int = 0
    rows: int = 0
    """Rows that were left out."""
    cells: int = 0
    """Scenarios on further chips and in further profiles, rows that were left out included."""
    _multiplied: dict[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, config: pytest.Config) -> Subset:
        named = tuple(str(arg) for arg in config.args if "::" in str(arg))
        return cls(bool(config.getoption(f"--{FULL}")), named)

    def multiply(self, nodeid: str, *, chosen: int, everything: int) -> None:
        """The test function `nodeid` runs on `chosen` targets; `everything` are those with ``--full``."""
        self._multiplied[nodeid] = (chosen, everything)

    def select(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselects what is not in the subset, and counts what there would be."""
        kept: list[pytest.Item] = []
        gone: list[pytest.Item] = []
        further = Fraction(0)
        own_boards = {
            item.nodeid.split("[")[0] for item in items if item.get_closest_marker(FULL) is not None
        }
        others_turn = set() if self.full else _not_in_turn(items)
        for item in items:
            counts = self._multiplied.get(item.nodeid.split("[")[0])
            left_out = self.leaves_out(item) or (item.nodeid in others_turn and not self._is_named(item))
            if counts is None:
                # A scenario that makes boards of its own is multiplied with nothing, and left out all the same.
                (gone if left_out else kept).append(item)
                self.rows += left_out
                self.run += not left_out and item.nodeid.split("[")[0] in own_boards
                continue
            chosen, everything = counts
            # A test that makes no sense on what was chosen has one item, without a board.
            (gone if left_out or not chosen else kept).append(item)
            self.rows += left_out
            further += Fraction(max(0, everything - chosen), max(1, chosen))
            self.run += bool(chosen) and not left_out
        self.cells = round(further)
        if gone:
            config.hook.pytest_deselected(items=gone)
            items[:] = kept

    def leaves_out(self, item: pytest.Item) -> bool:
        """Whether `item` is a row that only everything has."""
        return not self.full and item.get_closest_marker(FULL) is not None and not self._is_named(item)

    def _is_named(self, item: pytest.Item) -> bool:
        return any(item.nodeid.startswith(named.removeprefix("./")) for named in self.named)

    @property
    def line(self) -> str | None:
        """One line for the terminal; None: nothing was left out."""
        if self.full or not (self.rows or self.cells):
            return None
        return (
            f"default subset: {self.run} of {self.run + self.rows + self.cells} scenarios. Left out: {self.rows} "
            f"rows, and {self.cells} on further chips and profiles. All of them: --{FULL}"
        )

    def to_fields(self) -> dict[str, Any]:
        """What a worker tells its controller."""
        return {"run": self.run, "rows": self.rows, "cells": self.cells}

    def take(self, fields: dict[str, Any]) -> None:
        """What a worker counted; every worker collects the same."""
        self.run, self.rows, self.cells = fields["run"], fields["rows"], fields["cells"]


def _not_in_turn(items: list[pytest.Item]) -> set[str]:
    """Of rows marked ``in_turn`` the scenarios on those throwaway twins whose turn it is not.

    The first row of a table has its turn on the first twin, the next on the next. On boards that somebody names every
    row runs.
    """
    tables: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for item in items:
        callspec: Any = getattr(item, "callspec", None)
        target = callspec.params.get("_target") if callspec is not None else None
        # Of a test without a target pytest keeps a marker of its own in its place.
        if (
            target is not None
            and getattr(target, "throwaway", False)
            and item.get_closest_marker(IN_TURN) is not None
        ):
            row = callspec.id.replace(target.name, "", 1)
            table = tables.setdefault(item.nodeid.split("[")[0], {})
            table.setdefault(row, []).append((target.name, item.nodeid))
    left_out: set[str] = set()
    for table in tables.values():
        for number, scenarios in enumerate(table.values()):
            twins = list(dict.fromkeys(name for name, _ in scenarios))
            turn = twins[number % len(twins)]
            left_out.update(nodeid for name, nodeid in scenarios if name != turn)
    return left_out
