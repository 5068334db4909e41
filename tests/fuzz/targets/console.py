"""What boards print: log streams, events, boots, captured log files, answers to commands; and what must not be shown."""

from __future__ import annotations

import binascii
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from harness.console import recording as recording_module
from harness.console.boot_tracker import MAX_RECORDS, BootTracker
from harness.console.device import DeviceClient, command_line
from harness.console.events import BadEvent, DeviceEvent, parse_events
from harness.console.inference import boots_to_json, find
from harness.console.line_splitter import MAX_LINE_BYTES, LineSplitter
from harness.console.log_line import Line, LineKind, printable_text, split_logs
from harness.console.mark import parse_mark
from harness.console.recording import Recording
from harness.console.redaction import Hidden, redact
from harness.console.render import render_log
from harness.errors import HarnessError
from tests.fuzz.target import DATA, Cutter, Target, chunks_of, refused, require, scratch_folder

SECRET = "s3cr3tWord-Q9"
"""A password that is sent to the board; no part of it is among the words that targets are made of."""


def event_line(n: int, ev: str, **data: object) -> bytes:
    """An event as the firmware prints it."""
    body = json.dumps({"n": n, "ev": ev, **data}, separators=(",", ":"))[:-1]
    return f'@evt {body},"crc":"{binascii.crc32(body.encode()):08x}"}}'.encode()


def with_crcs(data: bytes) -> bytes:
    """`data` with the right CRC in each event that has a CRC at all."""
    parts = data.split(b',"crc":"')
    made = [parts[0]]
    for part in parts[1:]:
        start = made[-1].rfind(b"@evt {")
        body = made[-1][start + 5 :] if start >= 0 else b""
        text = printable_text(body).encode("utf-8", "surrogatepass")
        made.append(f"{binascii.crc32(text):08x}".encode() + part[8:] if start >= 0 else part)
    return b',"crc":"'.join(made)


def check_log_stream(data: bytes) -> str:
    """The first byte says how the stream is cut into chunks, the second whether events get the right CRC."""
    cut = Cutter(data)
    seed, mends = cut.byte(), cut.byte() & 1
    stream = with_crcs(cut.rest()) if mends else cut.rest()
    splitter, tracker = LineSplitter(), BootTracker()
    wire, marks = b"", []
    pieces = []
    for turn, chunk in enumerate(chunks_of(stream, seed)):
        pieces += splitter.feed(chunk, turn * 0.5)
        pieces += splitter.overdue(turn * 0.5)
    pieces += splitter.flush(1e6)
    repeats = False
    for n, piece in enumerate(pieces):
        wire += piece.wire
        repeats |= piece.repeats > 0
        require(len(piece.raw) <= MAX_LINE_BYTES, "a line is longer than the bound")
        text = printable_text(piece.raw)
        require(text.replace("\t", " ").isprintable(), "a line is not safe to print")
        kind = LineKind.MARK if piece.raw.startswith(b">>> ") else LineKind.BOARD
        line = Line(n, piece.at_s, text[4:] if kind is LineKind.MARK else text, piece.raw, 1e9 + n, kind)
        if kind is LineKind.MARK:
            marks.append(line)
        tracker.feed(line)
    require(repeats or wire == stream, "bytes were lost or made up")
    records = tracker.records
    require(len(records) <= MAX_RECORDS + 1, "more records than the bound")
    findings = find(records, marks)
    json.dumps(boots_to_json(records, findings))
    return f"{len(records)} {len(findings)} {[(r.outcome.value, r.ota_state, len(r.errors)) for r in records[-3:]]}"


def log_streams() -> Iterator[bytes]:
    yield b"\0\0" + event_line(
        0, "boot", slot="ota_0", offset=65536, version="1.0.0", fe="release", sb=True, state="pending"
    )
    yield (
        b"\7\1"
        + event_line(1, "ack", id=7, ok=True, cmd="ota")
        + b"\r\n"
        + event_line(2, "done", id=7, ok=True)
        + b"\r\n"
    )
    yield b"\0\0Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception.\nPC      : 0x400d1234\n"
    yield b"\1\0>>> reset: EN\r\nets Jul 29 2019 12:21:46\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    yield b"\0\0" + b"invalid header: 0xffffffff\r\n" * 40
    for file in sorted((DATA / "logs").glob("*.log")):
        text = file.read_bytes()
        yield b"\x40\1" + text[:3500]
        yield b"\0\1" + text[-3500:]


def check_log_file(data: bytes) -> str:
    path = scratch_folder() / "captured.log"
    path.write_bytes(data)
    shown = 0
    for line in render_log(path, colour=bool(data[:1] == b"2")):
        require("\n" not in line, "a line in two")
        shown += len(line)
    require(shown < 40 * len(data) + 2000, f"{len(data)} bytes of log are shown as {shown} characters")
    return str(shown.bit_length())


def log_files() -> Iterator[bytes]:
    yield (
        b"2026-11-21 02:31:07.123 >>> opened: c3, local time is UTC+0000\n"
        b"2026-11-21 02:31:07.200 ~ ets\n"
        b"2026-11-21 02:31:07.223 | ets Jul 29 2019 12:21:46\n"
        b"2026-11-21 02:31:08.123 >>> repeated: 5 more times invalid header: 0xffffffff\n"
        b"2026-11-21 02:31:08.124 >>> otadata: esptool has the port\n"
    )
    yield b"\xff\xfe" + "I (1) boot: x\r\n".encode("utf-16-le")
    for file in sorted((DATA / "logs").glob("*.log"))[:4]:
        yield file.read_bytes()[:3500]


def check_text_line(data: bytes) -> str:
    """The parsers of one line, on text as the log has it and on any other."""
    for text in (printable_text(data), data.decode("latin-1")):
        before, logs = split_logs(text)
        require(sum(len(log.text) for log in logs) + len(before) <= len(text), "more text than there was")
        events, rest = parse_events(text)
        require(len(rest) <= len(text), "what is left is longer than the line")
        for event in events:
            if isinstance(event, DeviceEvent):
                require(0 <= event.n < 1 << 32, "an event's number is no count")
            else:
                require(len(event.text) <= 200, "a damaged event is shown at length")
        mark = parse_mark(text)
        require(len(redact(text)) <= 12 * len(text) + 12, "a redacted text explodes")
    kinds = sum(isinstance(event, BadEvent) for event in events)
    return f"{len(logs)} {len(events)} {kinds} {mark.kind[:8]}"


def text_lines() -> Iterator[bytes]:
    yield b"I (123) boot: Loaded app from partition at offset 0x10000"
    yield b"\x1b[0;31mE (02:03:04.005) esp_image: bad\x1b[0mI (1) app: b"
    yield event_line(3, "ack", id=7, ok=True) + b" " + event_line(4, "done", id=7, code=1.5)
    yield b'wifi ssid=x password="a b" http://u:pw@host/ -----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----'
    yield b"repeated: 12 more times invalid header: 0x12345678"


class _Clock:
    """In place of the module ``time``: time stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return 1e9 + self.now_s


def check_recording(data: bytes) -> str:
    """A password was sent; then the board prints anything, with pauses, ``{S}`` standing for the password."""
    cut = Cutter(data)
    seed, pauses = cut.byte(), cut.number(2)
    stream = cut.rest().replace(b"{S}", SECRET.encode())
    log, raw = scratch_folder() / "board.log", scratch_folder() / "board.raw"
    for path in (log, raw):
        path.unlink(missing_ok=True)
    clock, lines = _Clock(), []
    with mock.patch.object(recording_module, "time", clock):
        recording = Recording("board", log, raw)
        recording.open()
        recording.subscribers.append(lines.append)
        recording.add_sent(command_line("wifi", 1, {"ssid": "lab", "password": Hidden(SECRET)}))
        for turn, chunk in enumerate(chunks_of(stream, seed)):
            recording.take(chunk)
            if pauses >> turn & 1:
                clock.now_s += 0.3
                recording.take(b"")
                if recording.preview is not None:
                    lines.append(recording.preview)
        clock.now_s += 20
        recording.take(b"")
        recording.finish(None, None)
        recording.close()
    secret = SECRET.encode()
    require(secret not in log.read_bytes(), "the log shows the password")
    require(secret not in raw.read_bytes(), "the raw log shows the password")
    require(not any(SECRET in line.text or secret in line.raw for line in lines), "a line shows the password")
    require(
        len(recording_lines(log)) == len(recording.lines),
        "the log has another number of lines than were seen",
    )
    return f"{len(lines)} {len(recording.events)} {recording.tracker.current is not None}"


def recording_lines(path: Path) -> list[bytes]:
    """The complete lines of a log file."""
    return [line for line in path.read_bytes().split(b"\n")[:-1] if line[23:26] != b" ~ "]


def recordings() -> Iterator[bytes]:
    yield b"\0\0\0wifi password={S}\r\n"
    yield b"\5\xff\xffesp> wifi ssid=lab password={S} ok\r\nI (1) wifi: {S}{S}\r\n"
    yield b"\x40\1\0" + event_line(0, "boot", slot="ota_0") + b"\r\n" + b"invalid header: 0xffffffff\r\n" * 30
    yield b"\x09\xaa\xaa" + b"{S}\r\n" * 20


class _Answering:
    """The part of a `Console` that a `DeviceClient` uses: what was sent goes nowhere, events are there at once."""

    log_path = Path("board.log")

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._events = deque(events)
        self.sent = 0

    def mark(self) -> int:
        return 0

    def write(self, data: bytes, *, shown: str | None = None) -> None:
        self.sent += len(data)

    def note(self, text: str, *, kind: str = "note") -> None:
        require(len(text) < 20_000, "a note without end")

    def poll_event(
        self, wanted: Callable[[DeviceEvent], bool], timeout_s: float, *, since: int
    ) -> DeviceEvent | None:
        while self._events:
            data = self._events.popleft()
            event = DeviceEvent(0, str(data.get("ev")), data)
            if wanted(event):
                return event
        return None

    def wait_for_event(
        self, wanted: Callable[[DeviceEvent], bool], *, timeout_s: float, since: int, what: str
    ) -> DeviceEvent:
        event = self.poll_event(wanted, timeout_s, since=since)
        if event is None:
            raise HarnessError(f"waited for {what}")
        return event


def check_device_answers(data: bytes) -> str:
    """Lines of JSON objects, each an event whose CRC was right."""
    events = []
    for line in data.split(b"\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            events.append(value)
    console: Any = _Answering(events)
    client = DeviceClient(console, "board")
    body = bytes(1000)
    with mock.patch.object(DeviceClient, "_ids", itertools.count(7)):
        try:
            answer = client.send_with_data("ota-uart", {"slot": "ota_1"}, body, timeout_s=1)
        except HarnessError as error:
            return refused(error)
    require(isinstance(answer.code, int), "a code that is no number")
    require(console.sent < 2_000_000, f"{console.sent} bytes were sent for {len(data)} bytes of events")
    return str(answer)[:40]


def device_answers() -> Iterator[bytes]:
    def lines(*events: Mapping[str, object]) -> bytes:
        return b"\n".join(json.dumps(event).encode() for event in events)

    ack = {"ev": "ack", "id": 7, "ok": True, "cmd": "ota-uart"}
    yield lines(ack, {"ev": "done", "id": 7, "ok": True, "code": 0})
    yield lines(
        ack,
        {"ev": "want", "id": 7, "at": 0, "len": 512, "piece": 256},
        {"ev": "done", "id": 7, "ok": False, "code": 258},
    )
    yield lines(
        {"ev": "ack", "id": 0, "ok": False, "err": "bad-crc"},
        {**ack, "ok": False, "err": "refused", "code": 1},
    )
    yield lines(ack, {"ev": "want", "id": 7, "at": 990, "len": 100, "piece": 1}, {"ev": "boot"})


_LOG_WORDS = (
    b"\r\n", b"\n", b"\0", b"\xff\xfe", b"\x1b[0;32m", b"\x1b[", b"ESP-ROM:esp32c3-api1-20210207",
    b"ets Jul 29 2019 12:21:46",
    b"rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)", b"invalid header: 0xffffffff", b"I (1) boot: ",
    b"E (1) esp_image: ",
    b"I (30) boot: ESP-IDF v5.5.5 2nd stage bootloader", b"Loaded app from partition at offset 0x10000",
    b"@evt {", b'"crc":"',
    b"I (1) app_init: App version:      1.0.0", b"I (1) cpu_start: Multicore app",
    b"abort() was called at PC 0x42000000",
    b"Guru Meditation Error: Core  0 panic'ed (", b"Backtrace: 0x1:0x2", b"password=", b'"key": "',
    b"http://a:b@c", b"key",
    b"-----BEGIN PRIVATE KEY-----", b"state: VALID", b">>> power: on", b">>> repeated: 9 more times ", b"_",
    b".", b"-", b" ",
    b"I (1) boot:  0 ota_0            OTA app          00 10 00010000 00100000", b"otadata[0] is marking as ABORTED",
    b'@evt {"n":0,"ev":"boot","slot":"ota_0","offset":65536,"version":"1.0.0","agree":false,"crc":"00000000"}',
)  # fmt: skip
_JSON = (
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"[]",
    b"{}",
    b'"x"',
    b"9" * 30,
    b"0.5",
    b'"ev":"want"',
    b'"id":7',
    b"\n",
)

TARGETS = (
    Target(
        "log-stream",
        "a board's UART, up to boot records and findings",
        check_log_stream,
        log_streams,
        _LOG_WORDS,
    ),
    Target("log-file", "captured logs, as `harness log` shows them", check_log_file, log_files, _LOG_WORDS),
    Target(
        "text-line", "one line: log messages, events, marks, secrets", check_text_line, text_lines, _LOG_WORDS
    ),
    Target(
        "recording",
        "a board that echoes a password, in pieces",
        check_recording,
        recordings,
        (*_LOG_WORDS[:12], b"{S}", b"\x1b[0m"),
    ),
    Target(
        "device-answers",
        "events of a firmware with a right CRC and wrong fields",
        check_device_answers,
        device_answers,
        _JSON,
    ),
)
