"""Explorations in a folder of one test, with the builds of the user's store."""

from __future__ import annotations

from pathlib import Path

from harness.explore.explorer import Depth, Target, explore_all
from harness.explore.result import Explored
from harness.explore.sequences import sequences_named
from harness.home import Home
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.say import Say

FEW = Depth(sample=40, chains={2: 2}, stop_after=1)


def lab_in(folder: Path) -> Lab:
    return Lab(Home.of_user(), Inventory(None, {}), folder, secret_from(None), purpose="pytest")


def explored(folder: Path, name: str, depth: Depth = FEW, *, chip: str = "esp32c3") -> Explored:
    """What comes of exploring one sequence."""
    with lab_in(folder) as lab:
        return explore_all(lab, Target(chip), sequences_named([name]), depth, say=Say(quiet=True))[0]
