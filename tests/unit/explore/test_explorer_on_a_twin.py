"""What the explorer computes is what a board is left with, and what it shares is what would have come out anyway."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from explored_twin import FEW, explored, lab_in

from harness.errors import UsageError
from harness.explore.explorer import Depth, Target, replay
from harness.explore.report import Report, write_report
from harness.explore.sequences import sequences_named

C3 = Target("esp32c3")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Report:
    depth = replace(FEW, sample=60, chains={2: 3, 3: 2})
    return Report("esp32c3", [explored(tmp_path_factory.mktemp("few"), "update", depth)], depth)


def test_a_sound_handler_passes_and_the_report_says_what_was_tried(few: Report, tmp_path: Path) -> None:
    found = few.results[0]
    assert found.ok, found.lines()
    assert found.cuts == 60 < found.cut_points
    assert found.states > 30
    assert dict(found.chains) == {"2": 3, "3": 2}
    assert set(found.booted) == {"1.1.0", "1.2.0"}
    assert {"shipping C", "port", "model"} == set(found.layers)
    write_report(few, tmp_path)
    text = (tmp_path / "explore.txt").read_text()
    assert "PASSED: 65 cuts and chains on esp32c3 in 1 sequences, seed 1" in text
    data = json.loads((tmp_path / "explore.json").read_text())
    assert data["ok"]
    assert len(data["sequences"][0]["operations"]) == len(found.operations)


def test_wear_counts_what_an_update_costs_each_sector(few: Report) -> None:
    found = few.results[0]
    slot = next(place for place in found.places if place["label"] == "ota_0")
    rows = {sector: (erases, written) for sector, erases, written in found.wear}
    body = sum(op["length"] for op in found.operations if op["kind"] == "write")
    sectors = range(slot["offset"] // 0x1000, slot["offset"] // 0x1000 + -(-body // 0x1000))
    assert [rows[sector][0] for sector in sectors] == [1] * len(sectors)
    assert sum(rows[sector][1] for sector in sectors) == body


@pytest.mark.parametrize("place", ["ota_0", "otadata"])
def test_a_cut_that_is_run_leaves_what_was_computed(few: Report, place: str, tmp_path: Path) -> None:
    operations = few.results[0].operations
    op = [op for op in operations if str(op["place"]).startswith(place) and op["kind"] != "erase"][-1]
    with lab_in(tmp_path) as lab:
        cut = f"{op['n']}:inside:{int(op['length']) // 2}:77"
        answer = replay(lab, C3, sequences_named(["update"])[0], Depth(), cut=cut)
    assert answer["struck"]
    assert answer["as_computed"]
    assert answer["problems"] == []
    assert answer["booted"] in ("1.1.0", "1.2.0")


def test_sharing_changes_nothing_but_the_number_of_boards_that_run(few: Report, tmp_path: Path) -> None:
    alone = replace(FEW, sample=25, share=False, chains={2: 0})
    every = explored(tmp_path / "alone", "rollback", alone)
    shared = explored(tmp_path / "shared", "rollback", replace(alone, share=True))
    assert every.ok
    assert (every.booted, every.states, every.cuts) == (shared.booted, shared.states, shared.cuts)
    assert every.executed == 25 > shared.executed


def test_a_cut_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with lab_in(tmp_path) as lab, pytest.raises(UsageError, match=r"has \d+ operations, no cut 99:before"):
        replay(lab, C3, sequences_named(["rollback"])[0], Depth(), cut="99:before")
