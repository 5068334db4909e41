"""The port of an emulated board: one object over all the processes that the board lives in."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import serial

from harness.console.port_reading import PortGoneError, PortReader
from harness.links import emulator_port
from harness.links.emulator_port import EmulatorPort


@pytest.fixture
def port() -> Iterator[EmulatorPort]:
    port = EmulatorPort("qemu:somewhere", lambda: "it ended with status 3")
    yield port
    port.close()


@pytest.fixture
def pair(port: EmulatorPort) -> Iterator[socket.socket]:
    """The emulator's end of an attached connection."""
    ours, theirs = socket.socketpair()
    port.attach(ours)
    yield theirs
    theirs.close()


@pytest.mark.parametrize(
    ("timeout_s", "size", "sent", "expected", "at_least_s"),
    [
        (0, 10, b"", b"", 0),
        (0, 10, b"abc", b"abc", 0),
        (0.2, 10, b"abc", b"abc", 0.15),
        (120, 3, b"abcdef", b"abc", 0),
        (None, 3, b"abc", b"abc", 0),
    ],
)
def test_read_gives_what_came_until_size_or_time_out(
    port: EmulatorPort,
    pair: socket.socket,
    timeout_s: float | None,
    size: int,
    sent: bytes,
    expected: bytes,
    at_least_s: float,
) -> None:
    pair.sendall(sent)
    port.timeout = timeout_s
    started = time.monotonic()
    assert port.read(size) == expected
    assert at_least_s <= time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("asked_s", "waited_s"), [(None, None), (0, 0), (0.1, 0.1), (0.99, 0.99), (1.0, 5.0), (3.0, 15.0)]
)
def test_a_tool_that_waits_for_the_chip_waits_longer_for_an_emulator(
    asked_s: float | None, waited_s: float | None
) -> None:
    assert emulator_port._patient(asked_s) == waited_s


def test_bytes_waiting_are_counted_and_can_be_dropped(port: EmulatorPort, pair: socket.socket) -> None:
    pair.sendall(b"x" * 5000)
    assert port.in_waiting == port.inWaiting() == 5000
    port.flushInput()
    assert port.in_waiting == 0


def test_settings_of_a_serial_port_may_be_set_and_do_nothing(port: EmulatorPort) -> None:
    port.baudrate = 921_600
    port.dtr = port.rts = True
    port.write_timeout = 10
    port.flush()
    port.flushOutput()
    assert (port.baudrate, port.name, port.port, port.isOpen()) == (
        921_600,
        "qemu:somewhere",
        "qemu:somewhere",
        True,
    )


def test_a_board_without_power_is_silent_and_loses_what_it_is_sent(port: EmulatorPort) -> None:
    port.timeout = 0.05
    assert port.write(b"lost") == 4
    assert port.read(10) == b""
    assert port.in_waiting == 0


def test_what_the_last_process_sent_comes_before_what_the_next_one_sends(
    port: EmulatorPort, pair: socket.socket
) -> None:
    pair.sendall(b"old")
    port.park()
    pair.close()
    ours, theirs = socket.socketpair()
    with theirs:
        port.attach(ours)
        theirs.sendall(b"new")
        port.write(b"to new")
        port.timeout = 60
        assert port.read(6) == b"oldnew"
        assert theirs.recv(10) == b"to new"


def test_a_read_under_way_goes_on_with_the_next_process(port: EmulatorPort, pair: socket.socket) -> None:
    port.timeout = 120
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(port.read(3)))
    reader.start()
    port.park()
    pair.close()
    ours, theirs = socket.socketpair()
    with theirs:
        port.attach(ours)
        theirs.sendall(b"new")
        reader.join(60)
    assert got == [b"new"]


def test_an_emulator_that_ends_by_itself_is_an_error_after_its_last_bytes(
    port: EmulatorPort, pair: socket.socket
) -> None:
    pair.sendall(b"last words")
    pair.close()
    port.timeout = 60
    assert port.read(100) == b"last words"
    with pytest.raises(serial.SerialException, match=r"qemu:somewhere: .* it ended with status 3"):
        port.read(1)
    with pytest.raises(serial.SerialException, match="it ended with status 3"):
        port.write(b"x")


def test_a_write_that_nobody_takes_ends_at_its_time_out(port: EmulatorPort, pair: socket.socket) -> None:
    port.write_timeout = 0.1
    with pytest.raises(serial.SerialTimeoutException):
        port.write(b"x" * 10_000_000)


def test_a_closed_port_says_so(port: EmulatorPort) -> None:
    port.close()
    port.close()
    for use in (port.read, lambda: port.write(b"x"), lambda: port.in_waiting, port.reset_input_buffer):
        with pytest.raises(serial.SerialException):
            use()


def test_the_console_reads_it_without_a_descriptor(port: EmulatorPort, pair: socket.socket) -> None:
    reader = PortReader(port)
    pair.sendall(b"line\n")
    assert reader.read() == b"line\n"
    assert reader.read() == b""
    pair.close()
    with pytest.raises(PortGoneError, match="it ended with status 3"):
        reader.read()
