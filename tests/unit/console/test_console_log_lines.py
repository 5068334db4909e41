"""ESP-IDF's log format in all its shapes, and whatever else a UART may deliver."""

from __future__ import annotations

import pytest
from console_samples import booted, boots_of, event_text
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.console.boot_tracker import BootTracker
from harness.console.events import DeviceEvent, parse_events
from harness.console.log_line import Line, parse_esp_line, printable_text, split_logs
from harness.console.mark import mark_text, parse_mark, repeated_text


@pytest.mark.parametrize(
    ("text", "level", "time_ms", "tag", "message"),
    [
        ("I (123) boot: Loaded app", "I", 123, "boot", "Loaded app"),
        ("\x1b[0;32mI (123) boot: Loaded app\x1b[0m", "I", 123, "boot", "Loaded app"),
        ("\x1b[0;31mE (1) esp_image: bad\x1b[0m\r\n", "E", 1, "esp_image", "bad"),
        ("D (7) boot_comm: x", "D", 7, "boot_comm", "x"),
        ("V (7) a.b-c: x", "V", 7, "a.b-c", "x"),
        ("I boot: no stamp at all", "I", None, "boot", "no stamp at all"),
        ("E BOD: Brownout detector was triggered", "E", None, "BOD", "Brownout detector was triggered"),
        ("W (01:02:03.004) wifi: x", "W", 3_723_004, "wifi", "x"),
        ("I (2026-11-21 00:00:00.500) app: x", "I", 1_795_219_200_500, "app", "x"),
        ("I (26-11-21 00:00:00.500) app: x", "I", 1_795_219_200_500, "app", "x"),
        ("I (2026-13-41 00:00:00.500) app: x", "I", None, "app", "x"),
        ("I (573) wifi:mode : sta", "I", 573, "wifi", "mode : sta"),
        ("I (39) boot:  0 nvs              WiFi data", "I", 39, "boot", " 0 nvs              WiFi data"),
        ("I (5) app: a: b: c", "I", 5, "app", "a: b: c"),
        ("\x00\xff~I (5) app: after noise", "I", 5, "app", "after noise"),
        ("2026-11-21 10:00:00 I (5) app: another tool's stamp", "I", 5, "app", "another tool's stamp"),
        ("I (5) app: ", "I", 5, "app", ""),
    ],
)
def test_log_message_is_taken_apart(text, level, time_ms, tag, message):
    log = parse_esp_line(text)
    assert (log.level, log.time_ms, log.tag, log.text) == (level, time_ms, tag, message)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello world!",
        "I think so: yes and no",
        "rst:0x1 (POWERON),boot:0xf (X)",
        "load:0x3fcd5820,len:0x1738",
        "I (12",
        "E:",
    ],
)
def test_other_text_is_no_log_message(text):
    assert parse_esp_line(text) is None


def test_messages_glued_by_a_lost_line_end_are_told_apart():
    before, logs = split_logs("I (4741) rawota: READY versionI (361) rawota: INFO version=1.0.0")
    assert before == ""
    assert [(log.time_ms, log.text) for log in logs] == [(4741, "READY version"), (361, "INFO version=1.0.0")]


def test_quoted_message_stays_in_its_message():
    _, logs = split_logs("W (5) app: last line was 'E (3) boot: bad' and E (4) boot: worse")
    assert [log.level for log in logs] == ["W"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain", "plain"),
        (b"\x1b[0;32mgreen\x1b[0m", "green"),
        (b"\x00\x07x\x7f", "\\x00\\x07x\\x7f"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("grün →".encode(), "grün →"),
        ("\u202ebidi".encode(), "\\u202ebidi"),
        ("\U000e0001".encode(), "\\U000e0001"),
        (b"a\tb", "a\tb"),
        (b"esc\x1balone", "esc\\x1balone"),
    ],
)
def test_received_bytes_become_safe_text(raw, text):
    assert printable_text(raw) == text


@given(st.binary(max_size=300))
def test_any_bytes_become_one_printable_line(raw):
    text = printable_text(raw)
    assert all(c.isprintable() or c == "\t" for c in text)


GOOD = booted("ota_1", "1.1.0")
ESP_NOISE = st.sampled_from(
    [
        b"\x1b[0;31m",
        b"E (1) boot: ",
        b"@evt {",
        b'@evt {"n":1,"ev":"boot","crc":"00000000"}',
        b"rst:0x1 (POWERON),boot:0xf (",
        b"ESP-ROM:",
        b"ets Jun",
        b"invalid header: 0x",
        b"Guru Meditation Error: Core  0 panic'ed (",
        b"I (1) boot:  0 nvs              WiFi data        01 02 zzzz",
        b"\x00",
        b"\xff\xfe",
        b"repeated: 99999999999999999999 more times",
        b"I (9) x: state=VALID",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.one_of(st.binary(max_size=60), ESP_NOISE, st.text(max_size=30).map(str.encode)), max_size=12)
)
def test_nothing_that_comes_makes_the_parsers_raise_or_deaf(pieces):
    tracker = BootTracker()
    lines = [b"".join(pieces[i : i + 3]) for i in range(0, len(pieces), 3)] + pieces
    for n, raw in enumerate(lines):
        tracker.feed(Line(n, 0.0, printable_text(raw), raw))
        tracker.feed(Line(n, 0.0, raw.decode("latin-1"), raw))
    before = len(tracker.records)
    for n, text in enumerate(GOOD):
        tracker.feed(Line(1000 + n, 0.0, text, text.encode()))
    records = tracker.records
    assert len(records) == before + 1 or before > 1
    assert (records[-1].slot, records[-1].version, records[-1].encryption) == ("ota_1", "1.1.0", "release")
    for record in records:
        assert record.summary()
        assert record.to_json()["format"] == 1


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40).filter(lambda noise: b"\n" not in noise), st.integers(0, len(GOOD) - 1))
def test_good_line_after_noise_without_a_line_end_is_understood(noise, index):
    noisy = [line.encode() for line in GOOD]
    noisy[index] = noise + noisy[index]
    records = boots_of(noisy)
    assert records[-1].slot == "ota_1" or index == GOOD.index(
        "I (41) boot:  3 ota_1            OTA app          00 11 001a0000 00180000"
    )
    assert records[-1].app_started


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_event_is_found_wherever_it_stands(before, after):
    good = event_text(3, "ack", id=7, ok=True)
    events, rest = parse_events(before.replace("@", "") + good + after.replace("@", ""))
    assert [e.data["id"] for e in events if isinstance(e, DeviceEvent)] == [7]
    assert good not in rest


@pytest.mark.parametrize("kind", ["reset", "power", "note"])
def test_marks_survive_their_text_form(kind):
    mark = parse_mark(mark_text(kind, "a: b"))
    assert (mark.kind, mark.text) == (kind, "a: b")


def test_repetition_mark_gives_count_and_line():
    mark = parse_mark(repeated_text(12, "invalid header: 0xffffffff"))
    assert (mark.kind, mark.count, mark.text) == ("repeated", 12, "invalid header: 0xffffffff")


@given(st.text(max_size=60))
def test_any_text_is_a_mark(text):
    assert isinstance(parse_mark(text).kind, str)
