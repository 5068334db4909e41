"""A provisioning by the host is cut off and run again: which cuts, and what counts as having got there."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.explore.live_cut import LiveCut
from harness.explore.provisioning import Provisioning, ProvisioningExplorer
from harness.home import Home
from harness.preparation import Demand
from harness.provision.profile import Profile

WHAT = Provisioning("provision", "a blank board", "esp32c3", Demand(Profile.RELEASE))


def operation(number: int, step: str, kind: str, length: int = 0x400) -> dict[str, object]:
    return {
        "n": number,
        "step": step,
        "kind": kind,
        "offset": 0,
        "length": length,
        "who": "stub",
        "layer": "model",
    }


@pytest.fixture
def explorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProvisioningExplorer:
    monkeypatch.setattr(ProvisioningExplorer, "__post_init__", lambda _: None)
    made = ProvisioningExplorer(WHAT, Home.of_user(), tmp_path)
    made._operations = [
        operation(1, "1. burn the key", "burn", 44),
        operation(2, "2. write it", "erase"),
        operation(3, "2. write it", "write"),
        operation(4, "2. write it", "write"),
        operation(5, "3. burn the lock", "burn", 24),
    ]
    return made


def test_every_burn_is_cut_and_of_a_step_the_first_and_last_operation_of_flash(
    explorer: ProvisioningExplorer,
) -> None:
    cuts = [str(cut) for cut in explorer.cuts()]
    assert {cut.split(":")[0] for cut in cuts} == {"1", "2", "4", "5"}
    assert [cut for cut in cuts if cut.startswith("1:")][:2] == ["1:before", "1:inside:22"]
    assert sum(cut.startswith("1:inside") for cut in cuts) == 2
    assert [cut.split(":")[1] for cut in cuts if cut.startswith("4:")] == ["before", "inside", "after"]
    explorer.every_operation = True
    assert {str(cut).split(":")[0] for cut in explorer.cuts()} == {"1", "2", "3", "4", "5"}


def test_the_same_seed_tries_the_same(explorer: ProvisioningExplorer) -> None:
    first = explorer.cuts()
    assert explorer.cuts() == first
    explorer.seed = 2
    assert explorer.cuts() != first


def test_a_provisioning_that_was_cut_within_a_burn_is_carried_on_by_the_next_run(tmp_path: Path) -> None:
    came = ProvisioningExplorer(WHAT, Home.of_user(), tmp_path).attempt(LiveCut(1, "inside", 20))
    assert came.struck
    assert came.problem is None
    assert came.said[0].startswith("the first run ended with: ")
    assert came.said[1] == "the next run reached the profile"
