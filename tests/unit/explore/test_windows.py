"""Windows that the silicon leaves: named, never passed over, and nothing else is excused by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from explored_twin import FEW, explored, lab_in

from harness.explore import first_boot
from harness.explore.explorer import Depth, Target, replay
from harness.explore.live_cut import LiveCut
from harness.explore.report import Report
from harness.explore.result import Explored
from harness.explore.sequences import SEQUENCES, Sequence, sequences_named
from harness.explore.windows import FoundWindow, Proof, Window, duration_ms

OPERATIONS = [
    {"n": 1, "kind": "burn", "offset": 0, "length": 24, "layer": "model"},
    {"n": 2, "kind": "erase", "offset": 0, "length": 0x1000, "layer": "model"},
    {"n": 3, "kind": "write-encrypted", "offset": 0, "length": 0x1000, "layer": "model"},
]
WINDOW = Window("stuck", "says so", "it is stuck", "it must be", "none", ("first boot",))


def met(**found: object) -> Explored:
    window = FoundWindow(WINDOW, cuts=["1:after", "2:inside:0:7"], operations={1, 2})
    for name, value in found.items():
        setattr(window, name, value)
    return Explored(
        "one", "a sequence", operations=list(OPERATIONS), cuts=9, cut_points=9, windows={"stuck": window}
    )


def test_a_window_is_told_with_its_cuts_its_length_and_its_way_out() -> None:
    text = "\n".join(met().lines())
    assert (
        "window 'stuck': 2 of 9 cuts, operations 1 to 2 of 3 (burn, erase; cuts 1:after to 2:inside:0:7)"
        in text
    )
    assert "47.2 ms at most (modelled)" in text
    for words in ("then: it is stuck", "why: it must be", "way out: none"):
        assert words in text
    row = met().to_json()["windows"][0]
    assert (row["cuts"], row["first_operation"], row["last_operation"]) == (["1:after", "2:inside:0:7"], 1, 2)
    assert row["length_ms"] == 47.24


def test_a_declared_window_passes_and_is_counted_apart() -> None:
    report = Report("esp32c3", [met(chains=3)], Depth())
    assert report.ok
    assert report.lines()[-1].startswith("PASSED: 9 cuts and chains")
    assert report.lines()[-1].endswith("5 of them in 1 named windows")


def test_a_way_out_that_does_not_lead_out_fails_the_exploration() -> None:
    proofs = [Proof("1:after", None, "all is well"), Proof("2:after", "it stays stuck", "")]
    found = met(proofs=proofs)
    assert not found.ok
    assert "NOT proven at cut 2:after: it stays stuck" in "\n".join(found.lines())


def test_the_length_of_an_operation_grows_with_what_it_does() -> None:
    assert [round(duration_ms(op), 2) for op in OPERATIONS] == [2.24, 45.0, 11.2]


@pytest.mark.parametrize("text", ["3:before", "1:after", "17:inside:2048", "4:inside:0:1234"])
def test_a_live_cut_reads_as_it_prints(text: str) -> None:
    assert str(LiveCut.parse(text)) == text


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.name)
def test_every_window_is_declared_once_with_an_end(sequence: Sequence) -> None:
    names = [window.name for window in sequence.windows]
    assert len(names) == len(set(names))
    for window in sequence.windows:
        assert window.leads_out == (window in first_boot.WAYS_OUT)


def test_a_board_that_was_cut_off_while_it_enciphered_itself_is_in_its_window_and_gets_out(
    tmp_path: Path,
) -> None:
    depth = replace(FEW, sample=12, chains={2: 0, 3: 0}, stop_after=None, proofs=1)
    found = explored(tmp_path, "first-boot", depth)
    assert found.findings == []
    assert found.ok
    window = found.windows["half enciphered"]
    assert set(found.windows) == {"half enciphered"}
    assert 1 < window.first < window.last
    assert all(proof.problem is None for proof in window.proofs)


def test_a_window_excuses_nothing_but_itself(tmp_path: Path) -> None:
    """The same cut, in a sequence that declares nothing for it, is a violation."""
    bare = replace(sequences_named(["first-boot"])[0], windows=(), prove=None)
    with lab_in(tmp_path) as lab:
        answer = replay(lab, Target("esp32c3"), bare, Depth(), cut="9:after")
    assert answer["as_computed"]
    assert answer["window"] is None
    assert "invalid header" in answer["problems"][0]
