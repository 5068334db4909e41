"""A report says of every modelled sequence whether it was sampled under the chip's mask ROM."""

from __future__ import annotations

import pytest

from harness.chips import CHIPS
from harness.explore.explorer import Depth
from harness.explore.report import Report
from harness.explore.result import Explored
from harness.explore.sampled import SAMPLED
from harness.explore.sequences import SEQUENCES


def explored(sequence: str, layer: str) -> Explored:
    return Explored(sequence, "", operations=[{"layer": layer}])


def model_lines(chip: str, *results: Explored) -> list[str]:
    report = Report(chip, list(results), Depth())
    lines = [line for line in report.lines() if line.startswith("model,")]
    assert report.to_json()["model"] == lines
    return lines


def test_sampled_sequences_are_told_with_how_many_states_agree() -> None:
    row = next(row for row in SAMPLED if (row.chip, row.sequence) == ("esp32c3", "update"))
    assert model_lines("esp32c3", explored("update", "model")) == [
        f"model, sampled under ESP-IDF v5.5.5 for esp32c3: {row.states} states agree (update)"
    ]


@pytest.mark.parametrize(("chip", "sequence"), [("esp32c6", "update"), ("esp32c3", "release-mode")])
def test_what_was_not_sampled_is_called_so(chip: str, sequence: str) -> None:
    assert model_lines(chip, explored(sequence, "model")) == [f"model, not sampled on this chip ({sequence})"]


def test_sequences_that_rest_on_the_same_share_a_line_and_those_without_a_model_have_none() -> None:
    results = (explored("worn", "model"), explored("release-mode", "model"), explored("update", "port"))
    assert model_lines("esp32c6", *results) == ["model, not sampled on this chip (worn, release-mode)"]


def test_the_table_names_sequences_and_chips_that_there_are_each_once() -> None:
    rows = [(row.chip, row.sequence) for row in SAMPLED]
    assert len(set(rows)) == len(rows) > 0
    assert {chip for chip, _ in rows} <= set(CHIPS)
    assert {sequence for _, sequence in rows} <= {sequence.name for sequence in SEQUENCES}
