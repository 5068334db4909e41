"""What a cut may be asked for, and that its result never says more than it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cuts.cut import (
    Counted,
    Cut,
    CutKind,
    CutResult,
    FlashOperation,
    LogLine,
    ServedByte,
    Side,
    Struck,
    summary_of,
)
from harness.cuts.strike import FILE_NAME, keep
from harness.errors import UsageError

RESULT = CutResult(
    "desk", "update", CutKind.RESET, CutKind.RESET, "DTR/RTS of COM5", "at byte 1", struck=True
)


@pytest.mark.parametrize("kind", [CutKind.RESTART, CutKind.PANIC, CutKind.WATCHDOG])
@pytest.mark.parametrize("trigger", [ServedByte(4), LogLine("verify")], ids=str)
def test_the_firmware_ends_itself_only_where_it_counts_itself(
    kind: CutKind, trigger: ServedByte | LogLine
) -> None:
    with pytest.raises(UsageError, match="the firmware does not stop itself at"):
        Cut(kind, trigger)
    assert Cut(kind, FlashOperation(1)).kind is kind
    assert Cut(CutKind.RESET, trigger).trigger is trigger


def test_operations_are_counted_from_one_and_only_writes_are_cut_inside() -> None:
    with pytest.raises(UsageError, match="counted from 1"):
        FlashOperation(0)
    for counted in (Counted.ANY, Counted.ERASE):
        with pytest.raises(UsageError, match="only a write can be cut inside"):
            FlashOperation(1, counted, Side.INSIDE)
    with pytest.raises(UsageError, match="no regular expression"):
        LogLine("(")


@pytest.mark.parametrize(
    ("trigger", "arguments", "words"),
    [
        (FlashOperation(3), {"op": "any", "n": 3, "where": "before"}, "before operation 3"),
        (
            FlashOperation(2, Counted.ERASE, Side.AFTER),
            {"op": "erase", "n": 2, "where": "after"},
            "after erase 2",
        ),
        (
            FlashOperation(1, Counted.WRITE, Side.INSIDE, 16),
            {"op": "write", "n": 1, "where": "inside", "byte": 16},
            "inside write 1",
        ),
    ],
    ids=["any", "erase", "inside"],
)
def test_an_operation_is_a_command_for_the_firmware(
    trigger: FlashOperation, arguments: dict[str, object], words: str
) -> None:
    assert (trigger.arguments(), str(trigger)) == (arguments, words)


HOOK = "W (5123) cut: inside operation 7, {} of 2048 bytes at ota_1+0x6000: hold"


def test_the_line_of_the_hook_tells_operation_and_layer() -> None:
    struck = Struck.of_line(HOOK.format("esp_partition_write_raw"))
    assert struck == Struck(Side.INSIDE, 7, "esp_partition_write_raw", "ota_1", 0x6000, 2048)
    assert struck.layer(ported=True) == struck.layer(ported=False) == "shipping C"
    theirs = Struck.of_line(HOOK.format("esp_partition_erase_range"))
    assert theirs is not None
    assert (theirs.layer(ported=False), theirs.layer(ported=True)) == ("ESP-IDF", "port of ESP-IDF")


@pytest.mark.parametrize(
    "line", ["", "W (1) cut: shorter", "I (9) raw_ota: first sector deciphers", HOOK.format("x") + "ing on"]
)
def test_other_lines_are_no_operation(line: str) -> None:
    assert Struck.of_line(line) is None


def test_a_reset_in_place_of_a_power_cut_is_called_a_reset() -> None:
    weaker = replace(RESULT, asked=CutKind.POWER)
    assert weaker.weaker_than_asked
    assert str(weaker) == "update: reset (asked for: power) by DTR/RTS of COM5 at byte 1"
    assert (weaker.to_json()["asked"], weaker.to_json()["kind"]) == ("power", "reset")
    assert not RESULT.weaker_than_asked
    assert "asked for" not in str(RESULT)


def test_what_was_not_cut_is_not_called_a_cut() -> None:
    over = replace(RESULT, struck=False)
    assert str(over) == "update: no cut, it was over first (at byte 1)"
    refused = replace(over, left_out="it burns")
    assert str(refused) == "update: left out: it burns"
    said = summary_of([RESULT, over, refused])
    assert said == "1 cuts (1 reset), 0 with a violation, 1 left out; a sample, not exhaustive"


def test_a_violation_is_shouted_and_counted_whether_the_cut_struck_or_not() -> None:
    broken = replace(RESULT, kind=CutKind.PANIC, asked=CutKind.PANIC, violations=("no version boots",))
    assert str(broken).endswith("; VIOLATED: no version boots")
    assert str(replace(broken, struck=False)).endswith("; VIOLATED: no version boots")
    weaker = replace(RESULT, asked=CutKind.POWER)
    assert summary_of([weaker, broken]) == (
        "2 cuts (1 reset, 1 panic, 1 of them weaker than asked for), 1 with a violation; a sample, not exhaustive"
    )


def test_every_line_of_the_artefact_says_that_it_is_not_exhaustive(tmp_path: Path) -> None:
    operation = Struck(Side.AFTER, 1, "esp_partition_write", "otadata", 0x1000, 32)
    for result in (RESULT, replace(RESULT, operation=operation, layer="ESP-IDF", delay_ms=1.26)):
        keep(result, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / FILE_NAME).read_text().splitlines()]
    assert [line["exhaustive"] for line in lines] == [False, False]
    assert (lines[0]["layer"], lines[0]["operation"], lines[0]["delay_ms"]) == ("unknown", None, None)
    assert (lines[1]["layer"], lines[1]["operation"]["partition"], lines[1]["delay_ms"]) == (
        "ESP-IDF",
        "otadata",
        1.3,
    )
