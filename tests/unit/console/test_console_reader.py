"""The reader on real streams: sockets, terminals, pyserial's loop; floods, loans, ports that vanish."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from contextlib import contextmanager

import pexpect.fdpexpect
import pytest
import serial
from console_samples import booted, event_text

from harness.console import expect_feed, recording, waiting
from harness.console.boot_record import Outcome
from harness.console.log_file import read_log
from harness.console.reader import Console
from harness.errors import BoardError, LabError, UsageError

PATIENCE_S = 60.0
"""For what should come at once; only a broken reader waits so long."""


class Board:
    """The other end of a console's port."""

    def __init__(self, console: Console, send, receive, vanish) -> None:
        self.console = console
        self.send = send
        self.receive = receive
        self.vanish = vanish

    def say(self, *texts: str) -> None:
        self.send("".join(f"{text}\r\n" for text in texts).encode())


@contextmanager
def socket_board(tmp_path):
    """A board on pyserial's ``socket://``, as twin and emulators are."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = serial.serial_for_url(f"socket://127.0.0.1:{server.getsockname()[1]}", timeout=0.05)
        peer, _ = server.accept()
    peer.settimeout(PATIENCE_S)

    def vanish() -> None:
        peer.close()

    try:
        with Console(port, log_path=tmp_path / "board.log", name="desk-c3") as console:
            yield Board(console, peer.sendall, peer.recv, vanish)
    finally:
        peer.close()
        # pyserial's close() sleeps 0.3 s "in case of quick reconnects", also when garbage is collected.
        port._socket.close()
        port.is_open = False


@contextmanager
def terminal_board(tmp_path):
    """A board on a pseudo terminal, as a UART bridge is."""
    pty = pytest.importorskip("pty", reason="no pseudo terminals on this platform")
    ours, theirs = pty.openpty()
    port = serial.Serial(os.ttyname(theirs), timeout=0.05)
    closed = []

    def vanish() -> None:
        os.close(theirs)
        os.close(ours)
        closed.append(True)

    try:
        with Console(port, log_path=tmp_path / "board.log", name="desk-c3") as console:
            yield Board(console, lambda data: os.write(ours, data), lambda size: os.read(ours, size), vanish)
    finally:
        port.close()
        if not closed:
            vanish()


@contextmanager
def loop_board(tmp_path):
    """pyserial's ``loop://``: no descriptor, what is written comes back."""
    port = serial.serial_for_url("loop://", timeout=0.05)
    with Console(port, log_path=tmp_path / "board.log", name="desk-c3") as console:
        yield Board(console, port.write, None, port.close)


BOARDS = {"socket": socket_board, "terminal": terminal_board, "loop": loop_board}


@pytest.fixture(params=BOARDS)
def board(request, tmp_path):
    with BOARDS[request.param](tmp_path) as board:
        yield board


@pytest.fixture
def tcp_board(tmp_path):
    with socket_board(tmp_path) as board:
        yield board


def wait_until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def log_text(console: Console) -> str:
    return console.log_path.read_text()


# --- lines ---


def test_every_byte_arrives_and_is_kept(board):
    start = board.console.mark()
    sent = b"".join(b"line %d %s\r\n" % (n, b"x" * (n % 90)) for n in range(600))
    for place in range(0, len(sent), 1000):
        board.send(sent[place : place + 1000])
    board.console.wait_for("line 599 ", PATIENCE_S, since=start)
    texts = [line.text for line in board.console.lines_since(start)]
    assert [text.split()[1] for text in texts] == [str(n) for n in range(600)]
    board.console.close()
    assert board.console.raw_path.read_bytes() == sent


def test_log_file_has_time_in_ms_and_signs(board):
    board.say("I (1) boot: hello")
    board.console.wait_for("hello", PATIENCE_S, since=0)
    board.console.note("EN", kind="reset")
    board.console.close()
    lines = log_text(board.console).splitlines()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"
    assert re.fullmatch(
        rf"{stamp} >>> opened: desk-c3, local time is UTC.*monotonic clock \d+\.\d+ s", lines[0]
    )
    assert re.fullmatch(rf"{stamp} \| I \(1\) boot: hello", lines[1])
    assert re.fullmatch(rf"{stamp} >>> reset: EN", lines[2])
    assert re.fullmatch(rf"{stamp} >>> closed: 19 bytes received", lines[3])


def test_log_file_read_again_gives_the_same_lines(tcp_board):
    tcp_board.say("I (1) boot: hello", "\x1b[0;31mE (2) boot: b\x00ad\x1b[0m", "grün")
    tcp_board.console.wait_for("grün", PATIENCE_S, since=0)
    tcp_board.console.note("x", kind="reset")
    tcp_board.console.close()
    again = list(read_log(tcp_board.console.log_path))
    kept = tcp_board.console.lines
    assert [(line.kind, line.text) for line in again] == [(line.kind, line.text) for line in kept]
    assert all(abs(a.wall_s - b.wall_s) < 0.002 for a, b in zip(again, kept, strict=True))


def test_half_line_is_shown_after_a_silence_and_joined_when_the_rest_comes(board):
    start = board.console.mark()
    board.send(b"esp> ")
    half = board.console.wait_for("esp>", PATIENCE_S, since=start)
    assert not half.complete
    assert board.console.half_line == half
    board.send(b"restart\r\n")
    whole = board.console.wait_for("restart", PATIENCE_S, since=start)
    assert (whole.text, whole.complete) == ("esp> restart", True)
    assert [line.text for line in board.console.lines_since(start)] == ["esp> restart"]
    board.console.close()
    assert board.console.raw_path.read_bytes() == b"esp> restart\r\n"
    assert " ~ esp> \n" in log_text(board.console)
    assert "esp> restart" in [line.text for line in read_log(board.console.log_path)]


def test_lines_that_have_left_memory_come_from_the_file(tcp_board, monkeypatch):
    monkeypatch.setattr(recording, "KEPT_LINES", 500)
    monkeypatch.setattr(waiting, "KEPT_LINES", 500)
    start = tcp_board.console.mark()
    for n in range(0, 5000, 100):
        tcp_board.say(*[f"line {k}" for k in range(n, n + 100)])
    tcp_board.console.wait_for("line 4999", PATIENCE_S, since=start)
    assert len(tcp_board.console.lines) < 1000
    assert [line.text for line in tcp_board.console.lines_since(start)] == [f"line {n}" for n in range(5000)]
    old = tcp_board.console.wait_for(re.compile(r"line 7\d$"), PATIENCE_S, since=start)
    assert (old.text, old.n) == ("line 70", start + 70)
    assert abs(old.at_s - tcp_board.console.lines[-1].at_s) < PATIENCE_S


# --- floods ---


def test_flood_neither_fills_memory_nor_disk_nor_blocks_waiters(tcp_board):
    start = tcp_board.console.mark()
    flood = b"invalid header: 0xffffffff\r\n" * 1000
    stop = threading.Event()

    def board_with_blank_flash() -> None:
        tcp_board.say("ESP-ROM:esp32c3-api1-20210207", "rst:0x1 (POWERON),boot:0xf (SPI_FAST_FLASH_BOOT)")
        while not stop.is_set():
            tcp_board.send(flood)

    thread = threading.Thread(target=board_with_blank_flash, daemon=True)
    thread.start()
    try:
        wait_until(lambda: tcp_board.console.received_bytes > 2_000_000)
        line = tcp_board.console.wait_for("invalid header", PATIENCE_S)
        assert line.text == "invalid header: 0xffffffff"
        boot = tcp_board.console.wait_for_boot(
            lambda b: b.outcome is Outcome.ROM_FAILED, PATIENCE_S, since=start
        )
        assert boot.rom_header_word == 0xFFFFFFFF
    finally:
        stop.set()
        thread.join(PATIENCE_S)
    tcp_board.say("I (1) boot: alive again")
    tcp_board.console.wait_for("alive again", PATIENCE_S, since=start)
    assert len(tcp_board.console.lines) < 2000
    tcp_board.console.close()
    assert tcp_board.console.raw_path.stat().st_size < 200_000
    assert (
        b"invalid header: 0xffffffff\r\n[harness: the line above came "
        in tcp_board.console.raw_path.read_bytes()
    )
    counted = tcp_board.console.boot_records[0].rom_header_lines
    assert counted * len("invalid header: 0xffffffff\r\n") == pytest.approx(
        tcp_board.console.received_bytes, abs=200
    )


def test_noise_without_line_ends_is_kept_whole(tcp_board):
    noise = bytes(n for n in range(256) if n not in (10, 13)) * 400
    tcp_board.send(noise)
    wait_until(lambda: tcp_board.console.received_bytes == len(noise))
    tcp_board.send(b"\r\nI (5) boot: Loaded app from partition at offset 0x20000\r\n")
    tcp_board.console.wait_for("Loaded app", PATIENCE_S, since=0)
    assert tcp_board.console.current_boot.offset == 0x20000
    tcp_board.console.close()
    assert tcp_board.console.raw_path.read_bytes().startswith(noise)


# --- waiting ---


@pytest.mark.parametrize("wanted", ["READY", re.compile(r"R.*Y$"), lambda line: line.text == "READY"])
def test_wait_takes_text_pattern_or_function(tcp_board, wanted):
    tcp_board.say("READY")
    assert tcp_board.console.wait_for(wanted, PATIENCE_S, since=0).text == "READY"


def test_wait_from_a_mark_does_not_see_what_was_before(tcp_board):
    tcp_board.say("READY 1")
    tcp_board.console.wait_for("READY", PATIENCE_S, since=0)
    mark = tcp_board.console.mark()
    tcp_board.say("READY 2")
    assert tcp_board.console.wait_for("READY", PATIENCE_S, since=mark).text == "READY 2"


def test_wait_does_not_take_the_harness_for_the_board(tcp_board):
    tcp_board.console.note("READY")
    with pytest.raises(BoardError):
        tcp_board.console.wait_for("READY", 0.05, since=0)


def test_wait_in_vain_says_everything_that_is_known(tcp_board):
    tcp_board.say(*booted("ota_1", "1.1.0"), "I (9) app: the last line")
    tcp_board.console.wait_for("the last line", PATIENCE_S, since=0)
    tcp_board.console.note("EN", kind="reset")
    with pytest.raises(BoardError) as caught:
        tcp_board.console.wait_for("READY", 0.05, since=0, what="the READY line")
    text = str(caught.value)
    assert "board desk-c3: waited for the READY line: it did not come within 0.05 s" in text
    assert "last boot: boot 1: RTC_SW_CPU_RST → ota_1 @ 0x1a0000, 1.1.0, flash encryption RELEASE" in text
    assert "| I (9) app: the last line" in text
    assert ">>> reset: EN" in text
    assert f"log: {tcp_board.console.log_path}" in text


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ("READY", "a line with 'READY'"),
        (re.compile("R.*Y"), "a line like /R.*Y/"),
        (str.isspace, "str.isspace"),
    ],
)
def test_wait_in_vain_names_what_was_awaited(tcp_board, wanted, named):
    with pytest.raises(BoardError, match=re.escape(named)):
        tcp_board.console.wait_for(wanted, 0.01)


def test_wait_ends_early_when_it_has_become_pointless(tcp_board):
    tcp_board.say("abort() was called at PC 0x42001234 on core 0")
    began_s = time.monotonic()
    with pytest.raises(BoardError, match="it printed 'abort"):
        tcp_board.console.wait_for("READY", 2 * PATIENCE_S, since=0, fail_on="abort()")
    assert time.monotonic() - began_s < PATIENCE_S


def test_time_is_up_even_while_lines_keep_coming(tcp_board):
    stop = threading.Event()

    def chatter() -> None:
        for n in range(100_000):
            if stop.is_set():
                return
            tcp_board.say(f"I ({n}) app: chatter")

    thread = threading.Thread(target=chatter, daemon=True)
    thread.start()
    try:
        with pytest.raises(BoardError):
            tcp_board.console.wait_for("never", 0.2)
    finally:
        stop.set()
        thread.join(PATIENCE_S)


def test_several_threads_may_wait_at_once(tcp_board):
    found = []
    threads = [
        threading.Thread(
            target=lambda n=n: found.append(tcp_board.console.wait_for(f"<{n}>", PATIENCE_S, since=0).text)
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    tcp_board.say(*[f"<{n}>" for n in range(8)])
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(found) == [f"<{n}>" for n in range(8)]


def test_events_come_once_each_and_in_order(tcp_board):
    mark = tcp_board.console.mark()
    tcp_board.say(
        event_text(0, "boot", version="1"),
        "noise @evt {",
        event_text(1, "ota", id=1),
        event_text(2, "done", id=1),
    )
    seen = []

    def finished(event) -> bool:
        seen.append(event.n)
        return event.ev == "done"

    done = tcp_board.console.wait_for_event(finished, timeout_s=PATIENCE_S, since=mark, what="the result")
    assert (done.n, seen) == (2, [0, 1, 2])
    assert len(tcp_board.console.events) == 4


def test_event_that_does_not_come_is_none_or_an_error(tcp_board):
    assert tcp_board.console.poll_event(lambda _: True, timeout_s=0.02) is None
    with pytest.raises(BoardError, match="waited for the result of 'ota'"):
        tcp_board.console.wait_for_event(lambda _: True, timeout_s=0.02, what="the result of 'ota'")


def test_boot_is_awaited_from_a_mark(tcp_board):
    tcp_board.say(*booted("ota_0", "1.0.0"))
    tcp_board.console.wait_for_boot(lambda boot: boot.app_started, PATIENCE_S, since=0)
    mark = tcp_board.console.mark()
    tcp_board.say(*booted("ota_1", "1.1.0"))
    boot = tcp_board.console.wait_for_boot(lambda boot: boot.app_started, PATIENCE_S, since=mark)
    assert (boot.number, boot.slot) == (2, "ota_1")
    assert [record.slot for record in tcp_board.console.boot_records] == ["ota_0", "ota_1"]


# --- what the harness does ---


def test_sent_commands_are_logged_without_their_secrets(tcp_board):
    tcp_board.console.write(b"wifi ssid=lab pass")
    tcp_board.console.write(b"word=hunter22\nota id=4\n\xff\xfe\n")
    assert tcp_board.receive(100).startswith(b"wifi ssid=lab pass")
    tcp_board.say("echo: wifi ssid=lab password=hunter22")
    tcp_board.console.wait_for("echo", PATIENCE_S, since=0)
    tcp_board.console.note("joined with psk=hunter22")
    tcp_board.console.close()
    text = log_text(tcp_board.console)
    assert ">>> sent: wifi ssid=lab password=<redacted>\n" in text
    assert ">>> sent: ota id=4\n" in text
    assert ">>> sent: (2 bytes that are not text)\n" in text
    assert "echo: wifi ssid=lab password=********" in text
    assert "hunter22" not in text
    assert b"hunter22" not in tcp_board.console.raw_path.read_bytes()


def test_note_of_several_lines_stays_one_line(tcp_board):
    tcp_board.console.note("first\nsecond\r\nthird")
    assert tcp_board.console.lines[-1].text == "note: first / second / third"


@pytest.mark.parametrize("board", ["socket", "terminal"], indirect=True)
def test_lent_port_belongs_to_the_borrower_alone(board):
    console = board.console
    board.send(b"half a li")
    wait_until(lambda: console.received_bytes == 9)
    with console.lend("esptool") as port:
        port.baudrate = 57600
        port.timeout = PATIENCE_S
        board.send(b"for the borrower")
        time.sleep(0.15)
        assert port.read(16) == b"for the borrower"
        port.write(b"\xc0sync\xc0")
        assert board.receive(100) == b"\xc0sync\xc0"
        with pytest.raises(UsageError, match="lent to esptool"):
            console.write(b"status\n")
        with pytest.raises(UsageError, match="lent to esptool"), console.lend("somebody"):
            pass
    assert port.baudrate == 9600
    board.say("I (1) boot: back")
    console.wait_for("back", PATIENCE_S, since=0)
    console.close()
    text = log_text(console)
    order = [
        text.index(part)
        for part in ("| half a li\n", ">>> flash: esptool has the port", ">>> returned: after")
    ]
    assert order == sorted(order)
    assert "for the borrower" not in text


@pytest.mark.parametrize(
    ("how", "mark"),
    [
        ({}, "flash: espefuse has the port"),
        ({"writes_flash": False}, "lent: espefuse has the port"),
        ({"only_otadata": True}, "otadata: espefuse has the port"),
    ],
)
def test_loan_is_marked_with_what_may_be_written(tcp_board, how, mark):
    with tcp_board.console.lend("espefuse", **how):
        pass
    assert mark in [line.text for line in tcp_board.console.marks]


def test_reader_goes_on_after_a_borrower_failed(tcp_board):
    with pytest.raises(RuntimeError), tcp_board.console.lend():
        raise RuntimeError
    tcp_board.say("alive")
    tcp_board.console.wait_for("alive", PATIENCE_S, since=0)


def test_listener_hears_every_line_and_a_failing_one_costs_nothing(tcp_board):
    heard = []
    tcp_board.console.subscribe(heard.append)

    def failing(line) -> None:
        raise ValueError("no")

    tcp_board.console.subscribe(failing)
    tcp_board.say("one", "two")
    tcp_board.console.wait_for("two", PATIENCE_S, since=0)
    texts = [line.text for line in heard]
    assert [text for text in texts if text in ("one", "two")] == ["one", "two"]
    assert "note: a listener failed and is told no more: ValueError('no')" in texts


def test_listener_can_leave(tcp_board):
    heard = []
    leave = tcp_board.console.subscribe(heard.append)
    leave()
    leave()
    tcp_board.say("one")
    tcp_board.console.wait_for("one", PATIENCE_S, since=0)
    assert heard == []


# --- the end ---


def test_vanished_port_is_one_clear_error_for_every_waiter(board):
    console = board.console
    board.send(b"the last wor")
    wait_until(lambda: console.received_bytes == 12)
    board.vanish()
    for attempt in (
        lambda: console.wait_for("never", 60.0),
        lambda: console.wait_for_event(lambda _: True, 60.0),
        lambda: console.poll_event(lambda _: True, 60.0),
        lambda: console.wait_for_boot(lambda _: True, 60.0),
        lambda: console.write(b"x\n"),
        lambda: console.lend().__enter__(),
    ):
        with pytest.raises(LabError) as caught:
            attempt()
        assert "board desk-c3: the port has gone" in str(caught.value)
        assert str(console.log_path) in str(caught.value)
    assert console.wait_for("the last wor", PATIENCE_S, since=0).text == "the last wor"
    console.close()
    text = log_text(console)
    assert text.index("| the last wor\n") < text.index(">>> vanished: the port has gone")
    assert console.raw_path.read_bytes() == b"the last wor"


def test_last_words_before_the_peer_closes_are_not_lost(tcp_board):
    tcp_board.send(b"x" * 50_000 + b"\r\nGuru Meditation Error: Core  0 panic'ed (LoadProhibited)")
    tcp_board.vanish()
    tcp_board.console.wait_for("Guru Meditation", PATIENCE_S, since=0)
    assert tcp_board.console.received_bytes == 50_058


def test_closed_console_tells_its_waiters(tcp_board):
    failures = []

    def wait() -> None:
        try:
            tcp_board.console.wait_for("never", 60.0)
        except LabError as error:
            failures.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    tcp_board.console.close()
    tcp_board.console.close()
    thread.join(PATIENCE_S)
    assert "console was closed" in failures[0]


def test_console_starts_once(tcp_board):
    with pytest.raises(UsageError):
        tcp_board.console.start()


def test_log_that_cannot_be_opened_is_a_lab_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    console = Console(serial.serial_for_url("loop://"), log_path=blocked / "x.log", name="desk-c3")
    with pytest.raises(LabError, match="log cannot be written"):
        console.start()


def test_full_disk_ends_the_reader_and_waiters_learn_why(tcp_board, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recording.RawLog, "write", full)
    tcp_board.say("x")
    with pytest.raises(LabError, match="No space left on device"):
        tcp_board.console.wait_for("never", 60.0)


# --- ports that are not pyserial's ---


class ReadAheadPort:
    """A remote port: a thread of its own empties the socket that `fileno` names, so readable says little."""

    def __init__(self, source: socket.socket) -> None:
        self.timeout, self.baudrate, self.is_open = 0.05, 115200, True
        self._source, self._buffer, self._lock = source, bytearray(), threading.Lock()
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        while data := self._source.recv(4096):
            with self._lock:
                self._buffer += data

    def fileno(self) -> int:
        return self._source.fileno()

    @property
    def in_waiting(self) -> int:
        return len(self._buffer)

    def read(self, size: int) -> bytes:
        with self._lock:
            data, self._buffer = bytes(self._buffer[:size]), self._buffer[size:]
        return data


def test_port_that_reads_ahead_loses_nothing_and_its_end_is_seen(tmp_path):
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        Console(ReadAheadPort(theirs), log_path=tmp_path / "board.log", name="remote") as console,
    ):
        for n in range(300):
            ours.sendall(b"line %d\r\n" % n)
        console.wait_for("line 299", PATIENCE_S, since=0)
        assert len(console.lines) == 301
        ours.close()
        with pytest.raises(LabError, match="end of stream"):
            console.wait_for("never", PATIENCE_S)


# --- for pexpect ---


@pytest.fixture
def expect(tcp_board):
    ours, theirs = socket.socketpair()
    stop = tcp_board.console.feed_to(ours)
    yield pexpect.fdpexpect.fdspawn(theirs.fileno(), timeout=PATIENCE_S)
    stop()
    ours.close()
    theirs.close()


def test_pexpect_reads_what_the_board_says(tcp_board, expect):
    tcp_board.say("I (1) boot: one", "I (2) boot: two")
    expect.expect_exact(b"one")
    expect.expect(rb"boot: (\w+)\r\n")
    assert expect.match[1] == b"two"


def test_pexpect_gets_a_prompt_without_a_line_end(tcp_board, expect):
    tcp_board.send(b"esp> ")
    expect.expect_exact(b"esp> ")
    tcp_board.send(b"x\r\n")
    expect.expect_exact(b"x\r\n")


def test_pexpect_sees_the_end_when_the_port_vanishes(tcp_board, expect):
    tcp_board.say("bye")
    wait_until(lambda: tcp_board.console.received_bytes == 5)
    tcp_board.vanish()
    expect.expect_exact(b"bye")
    expect.expect(pexpect.EOF)


def test_feed_can_begin_in_the_past(tcp_board):
    tcp_board.say("before")
    tcp_board.console.wait_for("before", PATIENCE_S, since=0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(PATIENCE_S)
        stop = tcp_board.console.feed_to(ours, since=0)
        assert theirs.recv(100) == b"before\r\n"
        stop()


def received_until(source: socket.socket, wanted: bytes) -> bytes:
    """Up to the end of the line in which `wanted` stands."""
    received = b""
    while not received.partition(wanted)[2].endswith(b"\r\n"):
        received += source.recv(65536)
    return received


def test_consumer_that_does_not_read_never_holds_up_the_reader(tcp_board, monkeypatch):
    monkeypatch.setattr(expect_feed.ExpectFeed.__init__, "__kwdefaults__", {"kept_bytes": 100_000})
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stop = tcp_board.console.feed_to(ours)
        start = tcp_board.console.mark()
        for n in range(0, 20_000, 200):
            tcp_board.say(*[f"line {k} {'x' * 40}" for k in range(n, n + 200)])
        tcp_board.console.wait_for("line 19999", PATIENCE_S, since=start)
        theirs.settimeout(PATIENCE_S)
        received = received_until(theirs, b"line 19999 ")
        stop()
    assert received.startswith(b"line 0 ")
    assert received.endswith(b"x\r\n")
    assert b"bytes were not kept for expect" in received


def test_consumer_that_has_gone_is_forgotten(tcp_board):
    ours, theirs = socket.socketpair()
    stop = tcp_board.console.feed_to(ours)
    theirs.close()
    start = tcp_board.console.mark()
    tcp_board.say(*[f"line {n}" for n in range(100)])
    tcp_board.console.wait_for("line 99", PATIENCE_S, since=start)
    stop()
    ours.close()
