"""``--rack-dist load``: each test once per chip and profile, and which of the boards that it fits it gets. Pure.

Ids of tests name chip and profile, not the board, so they stay the same whichever boards the rack has and whoever holds
some of them. Which board, is decided where a process has collected: all workers of a run decide alike, as they are told
the same choice of boards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.rack.target import Target

EACH, LOAD = "each", "load"
"""As pytest-xdist calls them: to all that can have it, or to one of them."""


@dataclass(frozen=True, slots=True)
class Share:
    """The boards of one chip, in one profile, that a test fits."""

    id: str
    targets: tuple[Target, ...]


def share_id(target: Target) -> str:
    """What stands for `target` in the id of a test: chip and profile."""
    chip = target.entry.chip
    return f"{chip}-{target.profile.value}" if target.profile else chip


def shares_of(targets: Sequence[Target]) -> list[Share]:
    """`targets` by chip and profile, in their order."""
    found: dict[str, list[Target]] = {}
    for target in targets:
        found.setdefault(share_id(target), []).append(target)
    return [Share(identifier, tuple(each)) for identifier, each in found.items()]


def spread(wanted: Sequence[tuple[str, Share]], passed_over: Collection[str]) -> list[Target]:
    """The board for each test: the one that has the fewest so far, of equals the first.

    Args:
        wanted: by test, what stays together (a class, say) and the boards that it fits.
        passed_over: boards that are broken, or that another job has: only where there is no other.
    """
    load: Counter[str] = Counter()
    kept: dict[tuple[str, str], Target] = {}
    found = []
    for together, share in wanted:
        target = kept.get((together, share.id))
        if target is None or target not in share.targets:
            able = [each for each in share.targets if each.name not in passed_over] or share.targets
            target = min(able, key=lambda each: load[each.name])
            kept[together, share.id] = target
        load[target.name] += 1
        found.append(target)
    return found
