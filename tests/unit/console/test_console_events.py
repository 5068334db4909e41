"""The firmware's events: believed only whole, missed only when missing."""

from __future__ import annotations

import pytest
from console_samples import event_text

from harness.console.events import BadEvent, DeviceEvent, EventStream, parse_events

GOOD = event_text(4, "done", id=9, ok=True, ms=120)


def test_good_event_gives_all_its_fields():
    (event,), rest = parse_events(GOOD, 17)
    assert (event.n, event.ev, event.data["ms"], event.line_n) == (4, "done", 120, 17)
    assert rest == ""


@pytest.mark.parametrize(
    "text",
    [
        f"I (123) wifi: hal{GOOD}",
        f"{GOOD}I (123) wifi: half",
        f"\\x00\\xff{GOOD}",
        f"@evt{GOOD.removeprefix('@evt ')}",
        f"@evt   {GOOD.removeprefix('@evt ')}   ",
    ],
)
def test_event_spliced_into_a_log_line_is_still_good(text):
    (event,), _ = parse_events(text)
    assert isinstance(event, DeviceEvent)


def test_what_is_left_of_a_spliced_line_is_the_log():
    _, rest = parse_events(f"I (123) wifi: start {GOOD}and end")
    assert rest == "I (123) wifi: start and end"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD[:30], "not whole JSON"),
        (GOOD[:12] + "I (123) wifi: connected" + GOOD[12:], "not whole JSON"),
        (GOOD[:20] + "I (123) wifi: connected" + GOOD[20:], "crc"),
        (GOOD.replace("120", "121"), "crc"),
        (GOOD.replace('"crc":"', '"crc":"0')[:-2] + '"}', "crc"),
        ("@evt", "nothing follows"),
        ("@evt hello", "no '{'"),
        ('@evt {"n":1,"ev":"ack"}', "no crc"),
        ('@evt {"n":1,"ev":"ack","crc":5}', "no crc"),
        (event_text(-1, "ack"), "no number"),
        (event_text(True, "ack"), "no number"),
        ("@evt {" + '"a":[' * 3000, "not whole JSON"),
        ('@evt {"n":NaN,"ev":"x","crc":"00000000"}', "not whole JSON"),
        ('@evt {"n":' + "9" * 6000 + ',"ev":"x","crc":"00000000"}', "not whole JSON"),
    ],
)
def test_damaged_event_says_what_is_wrong(text, reason):
    bad = next(event for event in parse_events(text)[0] if isinstance(event, BadEvent))
    assert reason in bad.reason
    assert len(bad.text) <= 200


@pytest.mark.parametrize("cut", [9, 12, 20, 40])
@pytest.mark.parametrize("rest_follows", [False, True])
def test_log_message_printed_into_an_event_is_not_lost(cut, rest_follows):
    message = "E (50) boot: OTA app partition slot 1 is not bootable"
    _, rest = parse_events(GOOD[:cut] + message + (GOOD[cut:] if rest_follows else ""))
    assert rest.startswith(message)


def test_good_event_after_a_cut_one_is_found():
    events, _ = parse_events(GOOD[:25] + GOOD)
    assert [type(event) for event in events] == [BadEvent, DeviceEvent]


@pytest.mark.parametrize(
    ("numbers", "missed"),
    [
        ([0, 1, 2], [0, 0, 0]),
        ([0, 3, 4], [0, 2, 0]),
        ([5, 6], [0, 0]),
        ([0, 1, 0, 1], [0, 0, 0, 0]),
        ([0, 1, 2, 1], [0, 0, 0, 1]),
        ([0, 1, 1, 2], [0, 0, 0, 0]),
    ],
)
def test_gaps_in_the_numbers_are_counted(numbers, missed):
    stream = EventStream()
    found = [stream.feed(event_text(n, "ota"))[0][0].missed for n in numbers]
    assert found == missed


def test_events_lost_right_after_a_reset_are_counted():
    stream = EventStream()
    stream.feed(event_text(7, "ota"))
    stream.restart()
    assert stream.feed(event_text(2, "boot"))[0][0].missed == 2


def test_damaged_event_counts_as_missed_by_the_next():
    stream = EventStream()
    stream.feed(event_text(0, "boot"))
    stream.feed(event_text(1, "ack")[:-5])
    assert stream.feed(event_text(2, "done"))[0][0].missed == 1
