"""Boards that a real labgrid coordinator lends: they are twins, exported on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from labgrid_site import Site, environment_of_labgrid
from wired_twin import Start, WiredLab, WiredTwin, provisioned

from harness.main_job import run_main_job
from harness.preparation import Consent, Demand
from harness.provision.profile import Lock, Profile
from harness.report.verdict import Standing
from harness.say import Say

Lend = Callable[..., Site]


@pytest.fixture
def lend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lend]:
    python = environment_of_labgrid()
    monkeypatch.setattr("harness.links.labgrid.LabgridLink.runs_native", True)
    sites: list[Site] = []

    def begin(*twins: WiredTwin, **more: Any) -> Site:
        sites.append(Site(tmp_path / f"site-{len(sites)}", python, list(twins), **more))
        return sites[-1].start()

    yield begin
    for site in sites:
        site.close()


def test_the_main_job_runs_on_a_board_that_labgrid_lends(lend: Lend, start: Start, wired: WiredLab) -> None:
    twin = provisioned(start, wired, Lock.NONE)
    site = lend(twin)
    entry = site.entry(0, burn_up_to="release", reserve_timeout_s=20)
    with wired.lab(entry) as lab:
        board = lab.open("desk")
        assert "power" in board.capabilities and "uart-download" in board.capabilities
        assert "harness-" in site.who()
        demand = Demand(Profile.RELEASE)
        verdict = run_main_job(board, demand, Consent(entry), wired.home, say=Say(quiet=True))
        assert verdict.standing is Standing.PROVEN, verdict
        board.power.cycle(0.1)
        assert site.switch.switched == [(0, False), (0, True)]
    assert site.who() == "" and site.reservations() == ""
