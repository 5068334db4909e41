"""Within a step a board goes from one version to another once, and never back: looked at over all cuts together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


class Order:
    """Collects which version came up behind which whole operation."""

    def __init__(self) -> None:
        self._booted: dict[tuple[int, bool], str] = {}
        """(operation from 1, behind it) to the version."""

    def note(self, row: dict[str, Any]) -> None:
        """A row of an explorer; what is no cut before or behind an operation does not count."""
        if row["ev"] not in ("cut", "violation") or "chain" in row or row.get("booted") is None:
            return
        number, where, *_ = row["cut"].split(":")
        if where in ("before", "after"):
            self._booted[int(number), where == "after"] = row["booted"]

    def returns(self, steps: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(cut, what is wrong with it); `steps` names the step of every operation."""
        seen: dict[str, list[str]] = {}
        for (number, behind), booted in sorted(self._booted.items()):
            if number > len(steps):
                continue
            versions = seen.setdefault(steps[number - 1], [])
            if versions and versions[-1] != booted and booted in versions:
                cut = f"{number}:{'after' if behind else 'before'}"
                yield (
                    cut,
                    f"the board goes back to {booted} after {versions[-1]} within '{steps[number - 1]}'",
                )
            versions.append(booted)
