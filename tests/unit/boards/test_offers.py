"""What a board can do is the same for the rack, which only reads its entry, and for a test, which has it open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wired_twin import Start, entry_of

from harness.home import Home
from harness.inventory.entry import AnyEntry, TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.rack.offers import offers

SWITCH = {"by": "command", "off": ["true"], "on": ["true"]}

WIRED: list[tuple[dict[str, Any], frozenset[str]]] = [
    ({}, frozenset()),
    ({"power": SWITCH, "network": {"ssid": "lab"}}, frozenset()),
    ({"burn_up_to": "release"}, frozenset({"x"})),
    ({"burn_up_to": "release", "mac": "7c:df:a1:00:00:01"}, frozenset({"x"})),
    ({"burn_up_to": "release", "mac": "7c:df:a1:00:00:01"}, frozenset({"another"})),
]


def capabilities_of(entry: AnyEntry, folder: Path, home: Home, burn: frozenset[str]) -> frozenset[str]:
    with Lab(home, Inventory(None, {"x": entry}), folder / "out", secret_from(None), burn=burn) as lab:
        return lab.open("x").capabilities


def test_of_a_twin(tmp_path: Path, home: Home) -> None:
    entry = TwinEntry(chip="esp32c3")
    assert capabilities_of(entry, tmp_path, home, frozenset()) == offers("x", entry, ())


def test_of_a_board_on_a_wire(tmp_path: Path, home: Home, start: Start) -> None:
    twin = start()
    for fields, burn in WIRED:
        entry = entry_of(twin, **fields)
        assert capabilities_of(entry, tmp_path, home, burn) == offers("x", entry, burn), fields
