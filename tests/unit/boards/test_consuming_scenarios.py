"""Scenarios that use something up for good: on a physical board only when it is named, within its budget, and noted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from wired_twin import Start, WiredLab, WiredTwin, entry_of, provisioned

from harness.board import Board
from harness.consumption import FILE_NAME, Consumption
from harness.inventory.entry import Rfc2217Entry
from harness.provision.consumables import Resource
from harness.provision.consumption_ledger import ConsumptionLedger
from harness.provision.profile import Lock, Profile

NAMED = frozenset({"desk"})


def scenario(**amounts: int) -> Any:
    """What pytest knows of a test that is marked so."""
    marker = pytest.mark.consumes(**amounts).mark
    return SimpleNamespace(
        nodeid="test_it.py::test_it",
        user_properties=[],
        get_closest_marker=lambda name: marker if name == marker.name else None,
    )


def opened(wired: WiredLab, entry: Rfc2217Entry, twin: WiredTwin) -> Board:
    board = wired.open(entry)
    board.identity.told(twin.mac)
    board.mac, board.profile, board.lock = twin.mac, Profile.OPEN, Lock.NONE
    return board


def test_a_physical_board_gives_what_its_budget_allows_and_remembers_it(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.NONE, profile=Profile.OPEN)
    entry = entry_of(twin, mac=twin.mac, budget={"secure_version": 3})
    board = opened(wired, entry, twin)
    ledger = ConsumptionLedger(wired.home.devices)

    refused = Consumption(frozenset()).begin(scenario(secure_version=2), board, entry)
    assert refused is not None
    assert "--consume desk" in refused
    assert ledger.read(twin.mac) == ()

    session = Consumption(NAMED)
    item = scenario(secure_version=2)
    assert session.begin(item, board, entry) is None
    assert ledger.spent(twin.mac) == {Resource.SECURE_VERSION: 2}
    assert ("consumes", "secure_version 2") in item.user_properties
    told = "secure_version 14 of 16, digest_slots 3 of 3, revocations 0 of 2, device_keys 1 of 1"
    assert ("left", told) in item.user_properties
    assert session.lines == {"desk": f"{told}; budget: secure_version 1 of 3"}
    kept = json.loads((board.folder / FILE_NAME).read_text(encoding="utf-8"))
    assert (kept["left"]["secure_version"], kept["budget"], kept["spent"]) == (
        {"left": 14, "of": 16},
        {"secure_version": 3},
        {"secure_version": 2},
    )

    again = Consumption(NAMED).begin(scenario(secure_version=2), board, entry)
    assert again is not None
    assert "secure_version 3, of which 2 are spent" in again
    assert ledger.spent(twin.mac) == {Resource.SECURE_VERSION: 2}


def test_what_is_left_of_a_physical_board_is_told_without_touching_it(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.NONE, profile=Profile.OPEN)
    entry = entry_of(twin, mac=twin.mac)
    board = opened(wired, entry, twin)
    ConsumptionLedger(wired.home.devices).note(twin.mac, "test_a", {Resource.SECURE_VERSION: 5})
    before = board.console.mark()
    session = Consumption(frozenset())
    session.look(board, entry)
    assert session.lines["desk"].startswith("secure_version 11 of 16, ")
    assert board.console.mark() == before


def test_a_scenario_that_uses_nothing_up_asks_for_nothing(tmp_path: Path):
    item: Any = SimpleNamespace(get_closest_marker=lambda name: None)
    board: Any = None
    entry: Any = None
    assert Consumption(frozenset()).begin(item, board, entry) is None
