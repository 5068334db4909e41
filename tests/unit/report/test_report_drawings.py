"""What the report draws: time to scale with long waits cut out, flash to scale, and the same in words."""

from __future__ import annotations

import pytest

from harness.report.html.flash_drawing import content_words, drawing_of
from harness.report.html.otadata_words import change_of
from harness.report.html.timeline import timeline_of
from harness.report.html.views import view_of
from harness.report.html.words import counted, duration, percent, since, size
from harness.report.run_record import (
    BoardRecord,
    Event,
    Extent,
    FlashChange,
    FlashMap,
    FlashStep,
    OtadataSector,
    OtadataView,
    PartitionRow,
    RunRecord,
    TestRecord,
)

ROWS = (
    PartitionRow(label="otadata", offset=0x1000, size=0x2000, kind="otadata"),
    PartitionRow(label="ota_0", offset=0x8000, size=0x8000, kind="app"),
)


def event(at_s: float, duration_s: float | None = None, kind: str = "update") -> Event:
    return Event(at_s=at_s, kind=kind, text="x", duration_s=duration_s)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.0004, "0.4 ms"),
        (0.035, "35 ms"),
        (0.9996, "1.00 s"),
        (2.414, "2.41 s"),
        (9.996, "10.0 s"),
        (59.96, "1 min 0 s"),
        (185, "3 min 5 s"),
        (8040, "2 h 14 min"),
        (-0.5, "−500 ms"),
    ],
)
def test_a_duration_is_said_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (97600, "95.3 KiB"),
        (0x180000, "1.5 MiB"),
        (4 << 20, "4 MiB"),
    ],
)
def test_a_size_is_said_in_the_unit_that_fits(count: int, said: str) -> None:
    assert size(count) == said


def test_small_words() -> None:
    assert [counted(1, "test"), counted(2, "test"), counted(12844, "line")] == [
        "1 test",
        "2 tests",
        "12\u202f844 lines",
    ]
    assert [since(12.5, 10.0), since(9.5, 10.0)] == ["+2.50 s", "−500 ms"]
    assert [percent(0.125), percent(0), percent(7), percent(-1)] == ["12.5%", "0%", "100%", "0%"]


def test_without_a_wait_time_is_to_scale() -> None:
    line = timeline_of([event(10.0, 1.0), event(11.0, 3.0)], 10.0, 4.0)
    assert line is not None
    (lane,) = line.lanes
    assert [(bar.x, bar.width) for bar in lane.bars] == [(0.0, 0.25), (0.25, 0.75)]
    assert (lane.rows, line.breaks) == (1, ())
    assert [tick.seconds for tick in line.ticks] == [0.0, 1.0, 2.0, 3.0]


def test_a_long_wait_is_cut_out_and_said() -> None:
    line = timeline_of([event(0.0, 0.06), event(10.06, 0.06)], 0.0, 10.12)
    assert line is not None
    assert [round(cut.seconds, 6) for cut in line.breaks] == [10.0]
    first, second = line.lanes[0].bars
    assert first.width == pytest.approx(second.width)
    assert first.width > 0.45


def test_marks_alone_are_to_scale_whatever_lies_between() -> None:
    line = timeline_of([event(0.0, kind="reset"), event(9.0, kind="reset")], 0.0, 10.0)
    assert line is not None
    assert [bar.x for bar in line.lanes[0].bars] == [0.0, 0.9]
    assert line.breaks == ()


def test_what_happens_at_once_lies_in_rows_under_each_other() -> None:
    line = timeline_of(
        [event(0.0, 4.0), event(1.0, 1.0), event(2.0, 1.0), event(0.0, 4.0, "served")], 0.0, 4.0
    )
    assert line is not None
    assert [(lane.name, lane.rows) for lane in line.lanes] == [("update", 2), ("server", 1)]
    assert [bar.row for bar in line.lanes[0].bars] == [0, 1, 1]
    assert [bar.number for lane in line.lanes for bar in lane.bars] == [1, 2, 3, 4]


def test_no_event_no_timeline() -> None:
    assert timeline_of([], 0.0, 1.0) is None


def test_events_of_no_length_in_a_test_of_no_length_are_drawn() -> None:
    line = timeline_of([event(5.0), event(5.0)], 5.0, 0.0)
    assert line is not None
    assert all(0.0 <= bar.x <= 1.0 for bar in line.lanes[0].bars)


def extent(offset: int, length: int, content: str, source: str = "observed") -> Extent:
    return Extent.model_validate({"offset": offset, "size": length, "content": content, "source": source})


def test_a_partition_says_what_it_holds_and_how_that_is_known() -> None:
    extents = [extent(0x8000, 0x2000, "ciphertext", "told"), extent(0xA000, 0x1000, "erased")]
    said = content_words(extents, 0x8000, 0x8000, tell_source=True)
    assert said == (
        "ciphertext, 8 KiB (the firmware said so in its events); erased, 4 KiB (read from the flash itself); "
        "unknown, 20 KiB"
    )
    assert content_words([], 0, 16, tell_source=True) == "unknown"
    assert content_words([extent(0, 64, "plaintext")], 16, 16, tell_source=False) == "plaintext, all"


def test_a_stretch_over_two_partitions_is_cut_at_their_borders() -> None:
    flash = FlashMap(size=0x10000, partitions=ROWS, extents=(extent(0x2000, 0x8000, "plaintext"),))
    drawing = drawing_of(flash, None, ())
    assert drawing is not None
    otadata, app = drawing.rows
    assert [(s.look, s.x, s.width) for s in otadata.before] == [
        ("unknown", 0.0, 1.0),
        ("plaintext", 0.5, 0.5),
    ]
    assert [(s.look, s.x, s.width) for s in app.before] == [("unknown", 0.0, 1.0), ("plaintext", 0.0, 0.25)]
    assert (app.after_words, drawing.known_by) == ("not recorded", "read from the flash itself")


def test_each_step_says_where_it_changed_what() -> None:
    flash = FlashMap(size=0x10000, partitions=ROWS)
    steps = [
        FlashStep(
            text="update",
            at_s=0.0,
            by="firmware",
            source="told",
            changes=(
                FlashChange(kind="erase", offset=0x8000, size=0x1000),
                FlashChange(kind="write", offset=0x8000, size=512, encrypted=True),
                FlashChange(kind="write", offset=0x2000, size=32, encrypted=None),
            ),
        )
    ]
    drawing = drawing_of(flash, flash, steps)
    assert drawing is not None
    assert drawing.steps[0].words == (
        "erased 4 KiB at 0x8000 (ota_0); wrote 512 B of ciphertext at 0x8000 (ota_0); wrote 32 B at 0x2000 (otadata)"
    )
    assert [s.look for s in drawing.steps[0].stretches] == ["erased", "ciphertext", "unknown"]
    assert [row.touched_by for row in drawing.rows] == [(1,), (1,)]
    assert drawing.otadata_steps == (1,)
    assert drawing_of(None, None, ()) is None


def test_steps_without_any_map_are_drawn_as_far_as_they_reach() -> None:
    change = FlashChange(kind="write", offset=0x3000, size=0x1000, encrypted=False)
    step = FlashStep(text="w", at_s=0.0, by="harness", source="written", changes=(change,))
    drawing = drawing_of(None, None, [step])
    assert drawing is not None
    assert (drawing.size, drawing.steps[0].stretches[0].x, drawing.rows) == (0x4000, 0.75, ())


def test_otadata_is_told_in_words_with_what_changed() -> None:
    one = OtadataSector(sequence=1, state="valid", slot="ota_0")
    two = OtadataSector(sequence=2, state="pending", slot="ota_1")
    blank = OtadataSector(sequence=None, state="blank")
    before = OtadataView(sectors=(one, blank), active=0, source="written")
    after = OtadataView(sectors=(one, two), active=1, source="observed")
    change = change_of(before, after)
    assert change is not None
    assert change.sentences == (
        "Before: the bootloader follows sector 0: ota_0, sequence 1, valid (the harness wrote it over the UART).",
        "After: the bootloader follows sector 1: ota_1, sequence 2, pending (read from the flash itself).",
        "Sector 1: blank → ota_1, sequence 2, pending.",
    )
    same = change_of(after, after, steps=(2, 4))
    assert same is not None
    assert same.sentences[-1] == "Both sectors are as before, although steps 2, 4 wrote otadata."
    nothing = change_of(None, OtadataView(sectors=(blank, blank), active=None, source="inferred"))
    assert nothing is not None
    assert "no sector holds a record that the bootloader would follow" in nothing.sentences[0]
    assert change_of(None, None) is None


def boot(number: int, slot: str | None, *updates: str) -> dict[str, object]:
    return {
        "number": number,
        "first_line": number * 10,
        "last_line": number * 10 + 9,
        "slot": slot,
        "updates": updates,
    }


def test_boots_count_the_updates_that_they_come_after() -> None:
    boots = (
        boot(1, "ota_0", "command 'ota' done"),
        boot(2, "ota_1"),
        boot(3, "ota_1", "Writing to partition at offset 0x20000"),
        boot(4, "ota_1", "Writing to partition at offset 0x20000"),
        boot(5, "ota_0"),
        boot(6, None),
    )
    board = BoardRecord(name="b", link="twin", chip="esp32", virtual=True, boots=boots)
    test = TestRecord(
        id="t",
        name="n",
        outcome="passed",
        began_s=0.0,
        duration_s=1.0,
        board="b",
        first_line=20,
        last_line=55,
    )
    run = RunRecord(
        id="r",
        kind="run",
        subject="s",
        command="c",
        began_s=0.0,
        verdict="passed",
        boards=(board,),
        tests=(test,),
    )
    view = view_of(run, {})
    assert [boot.after_update for boot in view.boards[0].boots] == [None, 1, None, None, 2, None]
    assert [boot.test for boot in view.boards[0].boots] == [None, "t0", "t0", "t0", "t0", None]
    assert [boot.number for boot in view.tests[0].boots] == [2, 3, 4, 5]
