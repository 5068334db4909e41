"""Physical boards that are twins; what they run is built once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from labgrid_site import Lend, Site, environment_of_labgrid
from wired_twin import Start, WiredLab, WiredTwin

from harness.home import Home


@pytest.fixture
def home(own_home: Path) -> Home:
    """A state folder of its own, with the builds of the session."""
    return Home(own_home)


@pytest.fixture
def start(tmp_path: Path, home: Home) -> Iterator[Start]:
    started: list[WiredTwin] = []

    def begin(name: str = "state", **more: str) -> WiredTwin:
        started.append(WiredTwin(tmp_path / name, home, **more))
        return started[-1]

    yield begin
    for twin in started:
        twin.close()


@pytest.fixture
def wired(tmp_path: Path, home: Home) -> Iterator[WiredLab]:
    lab = WiredLab(tmp_path, home)
    yield lab
    lab.close()


@pytest.fixture(autouse=True)
def runs_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind these links is a twin: what is built for twins runs there."""
    monkeypatch.setattr("harness.links.rfc2217.Rfc2217Link.runs_native", True)
    monkeypatch.setattr("harness.links.labgrid.LabgridLink.runs_native", True)


@pytest.fixture
def lend(tmp_path: Path) -> Iterator[Lend]:
    """Starts a labgrid site whose places are the twins given."""
    python = environment_of_labgrid()
    sites: list[Site] = []

    def begin(*twins: WiredTwin, **more: Any) -> Site:
        sites.append(Site(tmp_path / f"site-{len(sites)}", python, list(twins), **more))
        return sites[-1].start()

    yield begin
    for site in sites:
        site.close()
