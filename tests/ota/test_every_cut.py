"""The power goes at every operation of flash and eFuses: on twins, since on nothing else every one of them can be hit.

The same as `harness explore`; boards get what their bench can do in `test_cuts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from row import Row, rows

from harness.chips import TWINS
from harness.explore.explorer import Depth, Target, applies, explore_all
from harness.explore.report import Report, write_report
from harness.explore.sequences import SEQUENCES, sequences_named
from harness.home import Home
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.provision.profile import Profile
from harness.say import Say

SOURCE = ("mcuboot run_perm_with_fails", "esp-idf test_switch_ota.c")
QUICK = Depth(sample=90, chains={2: 4, 3: 2})
WHOLE = Depth()


@dataclass(frozen=True)
class Exploration(Row):
    """One sequence on one chip in one profile."""

    sequence: str
    chip: str
    profile: Profile
    depth: Depth

    @property
    def name(self) -> str:
        how = "sample" if self.depth is QUICK else "whole"
        return f"{self.sequence}-{self.chip}-{self.profile.value}-{how}"


EVERYWHERE = tuple(
    Exploration(sequence.name, chip, profile, WHOLE, full=True)
    for sequence in SEQUENCES
    for chip in TWINS
    for profile in Profile
    if applies(Target(chip, profile), sequence)
)
TABLE = (
    Exploration("update", "esp32c3", Profile.RELEASE, QUICK, source=SOURCE),
    Exploration("rollback", "esp32", Profile.DEVELOPMENT, QUICK, source=SOURCE, full=True),
    *EVERYWHERE,
)


@pytest.mark.parametrize("row", rows(TABLE))
def test_wherever_the_power_goes_a_valid_version_boots_and_takes_the_next_update(
    row: Exploration, tmp_path: Path
) -> None:
    lab = Lab(Home.of_user(), Inventory(None, {}), tmp_path, secret_from(None), purpose="pytest")
    with lab:
        target = Target(row.chip, row.profile)
        results = explore_all(lab, target, sequences_named([row.sequence]), row.depth, say=Say(quiet=True))
    report = Report(row.chip, results, row.depth)
    write_report(report, tmp_path)
    assert report.ok, "\n".join(report.lines())
