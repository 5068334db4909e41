"""RFC 2217: time-outs stay here, only what changes the line goes over the network."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
import serial.rfc2217 as telnet

from harness.chips import chip_named
from harness.console.port_reading import PortGoneError, PortReader
from harness.errors import LabError, UsageError
from harness.links.link import BootMode
from harness.links.rfc2217 import Rfc2217Link, Rfc2217Port, checked_url
from harness.provision.rom import RomSession


class Wire:
    """The serial port that the server believes it has; remembers every change of its lines."""

    def __init__(self) -> None:
        self.baudrate, self.bytesize, self.parity, self.stopbits = 9600, 8, "N", 1
        self.xonxoff = self.rtscts = self.break_condition = False
        self.cts = self.dsr = self.cd = True
        self.ri = False
        self.changes: list[str] = []

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name in ("dtr", "rts"):
            self.changes.append(f"{name[0].upper()}{int(bool(value))}")

    def reset_input_buffer(self) -> None:
        raise AssertionError("nothing is to be purged over the network")

    reset_output_buffer = reset_input_buffer


class SilentAboutLines(telnet.PortManager):
    """Acts on DTR and RTS without answering, as Espressif's server does."""

    def rfc2217_send_subnegotiation(self, option: bytes, value: bytes = b"") -> None:
        if option != telnet.SERVER_SET_CONTROL or value < telnet.SET_CONTROL_REQ_DTR:
            super().rfc2217_send_subnegotiation(option, value)


class Server:
    """pyserial's own server side on a loopback port, for one client; counts what the client negotiates."""

    def __init__(self, manager: type[telnet.PortManager] = telnet.PortManager) -> None:
        self.wire = Wire()
        self.received = b""
        self.negotiations = 0
        self.packets: list[bytes] = []
        self._manager_class = manager
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self._client: socket.socket | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        assert self._client is not None
        with contextlib.suppress(BrokenPipeError):
            self._client.sendall(data)

    def say(self, data: bytes) -> None:
        """Sends what the board prints."""
        self._ready.wait(60)
        self.write(b"".join(self._manager.escape(data)))

    def _serve(self) -> None:
        try:
            self._client, _ = self._listener.accept()
        except OSError:
            return
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._manager = self._manager_class(self.wire, self)
        self._ready.set()
        while True:
            try:
                data = self._client.recv(4096)
            except OSError:
                return
            if not data:
                return
            self.packets.append(data)
            self.negotiations += data.count(telnet.IAC + telnet.SB)
            self.received += b"".join(self._manager.filter(data))

    def hang_up(self) -> None:
        if self._client is not None:
            # The client may have been first.
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.hang_up()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._listener.close()
        if self._client is not None:
            self._client.close()


@pytest.fixture(params=[telnet.PortManager])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = Server(request.param)
    yield server
    server.close()


@pytest.fixture
def link(server: Server) -> Iterator[Rfc2217Link]:
    link = Rfc2217Link(server.url, board="remote")
    yield link
    link.close()


def _came(server: Server, data: bytes) -> bool:
    deadline = time.monotonic() + 60
    while server.received != data and time.monotonic() < deadline:
        time.sleep(0.01)
    return server.received == data


def test_a_hundred_reads_and_time_outs_negotiate_nothing(server: Server, link: Rfc2217Link) -> None:
    port = link.port
    port.write(b"open")
    assert _came(server, b"open")
    before = server.negotiations
    for n in range(100):
        port.timeout = 0.001 * (n % 3)
        port.read(1)
        port.write_timeout = n
        port.baudrate = port.baudrate
        port.reset_input_buffer()
        port.reset_output_buffer()
    port.write(b"done")
    assert _came(server, b"opendone")
    assert server.negotiations == before


def test_only_another_baud_rate_is_negotiated(server: Server, link: Rfc2217Link) -> None:
    assert (link.port.baudrate, server.wire.baudrate) == (115_200, 115_200)
    before = server.negotiations
    link.port.baudrate = 921_600
    assert (link.port.baudrate, server.wire.baudrate) == (921_600, 921_600)
    assert server.negotiations > before


def test_opening_touches_neither_dtr_nor_rts(server: Server, link: Rfc2217Link) -> None:
    assert link.port.is_open
    assert server.wire.changes == []


@pytest.mark.parametrize("server", [telnet.PortManager, SilentAboutLines], indirect=True)
@pytest.mark.parametrize(
    ("mode", "lines"),
    [(BootMode.RUN, "D0 R1 R0"), (BootMode.DOWNLOAD, "D0 R1 D1 R0 D0")],
)
def test_a_reset_pulls_the_lines_as_esptool_does_whether_or_not_the_server_answers(
    server: Server, link: Rfc2217Link, mode: BootMode, lines: str
) -> None:
    link.reset(mode)
    link.port.write(b"after")
    assert _came(server, b"after")
    assert " ".join(server.wire.changes) == lines


def test_gpio0_falls_and_en_rises_in_one_packet(server: Server, link: Rfc2217Link) -> None:
    link.reset(BootMode.DOWNLOAD)
    both = [packet for packet in server.packets if packet.count(telnet.SET_CONTROL_DTR_ON) == 1]
    assert any(packet.endswith(telnet.SET_CONTROL_RTS_OFF + telnet.IAC + telnet.SE) for packet in both)


def test_bytes_pass_whatever_they_are(server: Server, link: Rfc2217Link) -> None:
    everything = bytes(range(256)) * 4
    link.port.write(everything)
    assert _came(server, everything)
    server.say(everything)
    link.port.timeout = 60
    assert link.port.read(len(everything)) == everything


@pytest.mark.parametrize(
    ("timeout_s", "size", "expected"),
    [(0, 10, b"abc"), (0.1, 10, b"abc"), (120, 2, b"ab"), (None, 3, b"abc")],
)
def test_read_gives_what_came_until_size_or_time_out(
    server: Server, link: Rfc2217Link, timeout_s: float | None, size: int, expected: bytes
) -> None:
    port = link.port
    server.say(b"abc")
    while port.in_waiting < 3:
        time.sleep(0.005)
    port.timeout = timeout_s
    started = time.monotonic()
    assert port.read(size) == expected
    assert time.monotonic() - started < 60


def test_a_server_that_hangs_up_is_an_error_after_its_last_bytes(server: Server, link: Rfc2217Link) -> None:
    reader = PortReader(link.port)
    server.say(b"x")
    server.hang_up()
    assert reader.read() == b"x"
    for _ in range(2):
        with pytest.raises(PortGoneError, match="the server has closed the connection"):
            reader.read()


def test_a_reset_on_a_dead_connection_is_an_error_for_a_person(server: Server, link: Rfc2217Link) -> None:
    link.reset(BootMode.RUN)
    server.hang_up()
    link.port.timeout = 60
    with pytest.raises(serial.SerialException):
        link.port.read(1)
    with pytest.raises(LabError, match=r"board remote: rfc2217://.* cannot be reset"):
        link.reset(BootMode.RUN)


def test_a_server_that_is_not_there_is_an_error_for_a_person() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(LabError, match=rf"board remote: rfc2217://127.0.0.1:{port} cannot be opened"):
        _ = Rfc2217Link(f"rfc2217://127.0.0.1:{port}", board="remote").port


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("rfc2217://rack:4000", True),
        ("rfc2217://rack:4000?ign_set_control", True),
        ("rfc2217://rack", False),
        ("rfc2217://:4000", False),
        ("socket://rack:4000", False),
        ("rfc2217://rack:port", False),
        ("/dev/ttyUSB0", False),
    ],
)
def test_a_url_names_host_and_port(url: str, good: bool) -> None:
    if good:
        assert checked_url(url) == url
        return
    with pytest.raises(UsageError, match="names no RFC 2217 server"):
        checked_url(url)


def test_a_port_that_is_closed_says_so() -> None:
    port = Rfc2217Port("rfc2217://127.0.0.1:1", baudrate=115_200, timeout=0)
    for use in (port.read, port.reset_input_buffer, lambda: port.set_lines(dtr=True, rts=False)):
        with pytest.raises(serial.SerialException):
            use()


@pytest.fixture
def remote_twin(tmp_path: Path) -> Iterator[str]:
    """URL of a twin that also listens for RFC 2217 clients."""
    command = [sys.executable, "-m", "harness.twin", "--chip", "esp32c3", "--state", str(tmp_path / "state")]
    command += ["--build-store", str(tmp_path / "store"), "--rfc2217", "--boot", "run", "--tie-to-stdin"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as twin:
        assert twin.stdin is not None
        assert twin.stdout is not None
        yield json.loads(twin.stdout.readline())["rfc2217"]
        twin.stdin.close()


def test_a_board_behind_it_is_reset_read_burned_and_flashed(remote_twin: str) -> None:
    link = Rfc2217Link(remote_twin, baud=921_600)
    link.reset(BootMode.RUN)
    link.port.timeout = 0.2
    # A blank chip never stops complaining: what it said before the reset may still be on its way.
    heard, patience_s = b"", time.monotonic() + 60
    while b"ESP-ROM:esp32c3" not in heard and time.monotonic() < patience_s:
        heard = heard[-20:] + link.port.read(200)
    assert b"ESP-ROM:esp32c3" in heard
    link.port.timeout = 60
    link.reset(BootMode.DOWNLOAD)
    with RomSession(link.port, chip_named("esp32c3"), baud=link.flash_baud) as session:
        session.burn_fuses({"DIS_PAD_JTAG": 1})
        assert session.state().fuses["DIS_PAD_JTAG"] == 1
        data = os.urandom(8192)
        session.write_flash([(0x10000, data)], force=True)
        assert session.read_flash(0x10000, len(data)) == data
    link.close()
