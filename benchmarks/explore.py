"""Cuts per second and core: computed and shared, computed with every recovery run, and one after another on a board.

    .venv/bin/python benchmarks/explore.py [--chip esp32c3] [--rounds 3]

Seconds vary with the machine; the ratios are measured in the same run, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

from harness.chips import TWINS
from harness.cuts.cut import CutKind
from harness.cuts.walk import walk
from harness.errors import UsageError
from harness.explore.explorer import Depth, Target, explore_all
from harness.explore.sequences import sequences_named
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab
from harness.preparation import Consent, Demand, prepare
from harness.provision.profile import Profile
from harness.say import Say
from harness.vault.secret import Secret

QUIET = Say(quiet=True)
NO_CHAINS = {2: 0, 3: 0}


def no_secret(_place: Path) -> Secret:
    """Virtual boards have vaults of their own."""
    raise UsageError("the benchmark uses virtual boards only")


def explored(chip: str, depth: Depth) -> tuple[float, int]:
    """Cuts per second of one process, and how many there were."""
    with (
        tempfile.TemporaryDirectory() as out,
        Lab(Home.of_user(), Inventory(None, {}), Path(out), no_secret) as lab,
    ):
        result = explore_all(
            lab, Target(chip, Profile.RELEASE), sequences_named(["update"]), depth, say=QUIET
        )[0]
    if not result.ok:
        raise SystemExit("\n".join(result.lines()))
    return result.rate, result.cuts


def walked(chip: str, count: int) -> tuple[float, int]:
    """The same on a board that is not restored in between: two updates and four boots for each cut."""
    numbers = itertools.count(1)
    with (
        tempfile.TemporaryDirectory() as out,
        Lab(Home.of_user(), Inventory(None, {}), Path(out), no_secret) as lab,
    ):
        board = lab.throwaway(chip)
        prepare(board, Demand(Profile.RELEASE), Consent(TwinEntry(chip=chip)), lab.home, say=QUIET)
        began = time.monotonic()
        results = walk(
            board, lambda: board.release(f"2.{next(numbers)}.0"), count=count, kinds=(CutKind.POWER,)
        )
        seconds = time.monotonic() - began
    if any(result.violations for result in results):
        raise SystemExit("\n".join(map(str, results)))
    return len(results) / seconds, len(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chip", choices=list(TWINS), default="esp32c3")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3; medians are printed")
    arguments = parser.parse_args()
    ways = {
        "shared": lambda: explored(arguments.chip, Depth(chains=NO_CHAINS)),
        "every recovery run": lambda: explored(
            arguments.chip, Depth(sample=150, share=False, chains=NO_CHAINS)
        ),
        "on a board": lambda: walked(arguments.chip, 12),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    counts: dict[str, int] = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            rate, counts[name] = way()
            rates[name].append(rate)
    slowest = statistics.median(rates["on a board"])
    print(f"{arguments.chip}, release, sequence update; one process, median of {arguments.rounds}")
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"  {name:<20}{counts[name]:>6} cuts{rate:>9.1f} per second   ratio {rate / slowest:.1f}")


if __name__ == "__main__":
    main()
