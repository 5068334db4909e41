"""A board behind an RFC 2217 server: a serial port over the network, with its modem lines.

pyserial's client negotiates all line settings again whenever a time-out is set, at some 0.15 s a time; burning a
key sets it about 900 times. The port here keeps time-outs and buffers to itself: only what changes the line (baud
rate, DTR, RTS) goes over the network.
"""

from __future__ import annotations

import queue
import threading
import time
import warnings
from collections.abc import Iterable
from typing import Any, ClassVar
from urllib.parse import urlsplit

import serial
import serial.rfc2217 as telnet
from serial.serialutil import PortNotOpenError

from harness.errors import LabError, LinkError, UsageError
from harness.links.counting import CountingPort
from harness.links.link import BootMode, Link

LINE_ANSWER_S = 1.0
"""How long the first answer to a change of DTR or RTS may take. Espressif's own server never gives one."""

_DTR = {True: telnet.SET_CONTROL_DTR_ON, False: telnet.SET_CONTROL_DTR_OFF}
_RTS = {True: telnet.SET_CONTROL_RTS_ON, False: telnet.SET_CONTROL_RTS_OFF}


class _ControlAnswers:
    """The server's answers to SET-CONTROL, for requests that are sent several at a time."""

    name = "control"
    ack_option = telnet.SERVER_SET_CONTROL

    def __init__(self) -> None:
        self._missing: list[bytes] = []
        self._changed = threading.Condition()

    def expect(self, values: Iterable[bytes]) -> None:
        with self._changed:
            self._missing = list(values)

    def check_answer(self, suboption: bytes) -> None:
        """Called by pyserial's reading thread."""
        with self._changed:
            if suboption[:1] in self._missing:
                self._missing.remove(suboption[:1])
            self._changed.notify_all()

    def all_came(self, timeout_s: float, reader: threading.Thread | None) -> bool:
        """Whether they come within `timeout_s` seconds; not waited for once `reader` has ended."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self._missing and reader is not None and reader.is_alive():
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                self._changed.wait(min(left_s, 0.1))
            return not self._missing


_Client: Any = telnet.Serial
"""Untyped on purpose: what is overridden here is more than pyserial's type stubs show."""


class Rfc2217Port(_Client):  # type: ignore[misc]
    """pyserial's RFC 2217 client with local time-outs, and both modem lines settable in one packet.

    Opening it changes neither DTR nor RTS: that would reset the board behind some servers.
    """

    def __init__(self, url: str, *, baudrate: int, timeout: float | None) -> None:
        self._answers = _ControlAnswers()
        self._server_answers: bool | None = None
        self._read_timeout_s: float | None = None
        self._write_timeout_s: float | None = None
        self._opening = False
        super().__init__(None, baudrate=baudrate)
        self.timeout = timeout
        self._dtr_state = self._rts_state = False
        self.port = url

    def open(self) -> None:
        self._opening = True
        try:
            with warnings.catch_warnings():
                # pyserial 3.5 calls Thread.setDaemon.
                warnings.simplefilter("ignore", DeprecationWarning)
                super().open()
        finally:
            self._opening = False

    def close(self) -> None:
        """Closes the connection; may be called twice."""
        connection = self._socket
        super().close()
        if connection is not None:
            # pyserial leaves it open when the peer was first.
            connection.close()

    # --- time-outs: local ---

    @property
    def timeout(self) -> float | None:
        """Seconds that `read` waits at most; None: for ever."""
        return self._read_timeout_s

    @timeout.setter
    def timeout(self, value: float | None) -> None:
        self._read_timeout_s = value

    @property
    def write_timeout(self) -> float | None:
        """Kept for those who set it; what bounds a write is the time-out of the connection (5 s)."""
        return self._write_timeout_s

    @write_timeout.setter
    def write_timeout(self, value: float | None) -> None:
        self._write_timeout_s = value

    @property
    def baudrate(self) -> int:
        """Bits per second at the server's port."""
        return int(self._baudrate)

    @baudrate.setter
    def baudrate(self, value: int) -> None:
        if self.is_open and value == self._baudrate:
            return
        _Client.baudrate.fset(self, value)

    # --- data ---

    def read(self, size: int = 1) -> bytes:
        """Up to `size` bytes, fewer when the time-out strikes.

        Raises:
            SerialException: the server has closed the connection.
        """
        if not self.is_open:
            raise PortNotOpenError()
        deadline = None if self._read_timeout_s is None else time.monotonic() + self._read_timeout_s
        received: queue.Queue[bytes | None] = self._read_buffer
        data = bytearray()
        while len(data) < size:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                piece = received.get(timeout=left_s)
            except queue.Empty:
                break
            if piece is None:
                # The end, for this read and for all that follow.
                received.put(None)
                if data:
                    break
                raise serial.SerialException("the server has closed the connection")
            data += piece
        return bytes(data)

    def reset_input_buffer(self) -> None:
        """Drops what has arrived; what is still on its way comes, as from a UART."""
        if not self.is_open:
            raise PortNotOpenError()
        while True:
            try:
                if self._read_buffer.get_nowait() is None:
                    self._read_buffer.put(None)
                    return
            except queue.Empty:
                return

    def reset_output_buffer(self) -> None:
        """Nothing is kept back here."""
        if not self.is_open:
            raise PortNotOpenError()

    # --- lines ---

    def set_lines(self, *, dtr: bool, rts: bool) -> None:
        """Sets both lines in one packet, so that a slow network does not come between them.

        Raises:
            SerialException: the connection is gone, or the server has stopped answering.
        """
        self._dtr_state, self._rts_state = dtr, rts
        self._control([_DTR[dtr], _RTS[rts]])

    def _update_dtr_state(self) -> None:
        if not self._opening:
            self._control([_DTR[bool(self._dtr_state)]])

    def _update_rts_state(self) -> None:
        if not self._opening:
            self._control([_RTS[bool(self._rts_state)]])

    def rfc2217_set_control(self, value: bytes) -> None:
        """Called by pyserial for flow control and break."""
        self._control([value])

    def _control(self, values: list[bytes]) -> None:
        if not self.is_open:
            raise PortNotOpenError()
        # pyserial makes its table anew at every opening.
        self._rfc2217_options["control"] = self._answers
        self._answers.expect(values)
        start = telnet.IAC + telnet.SB + telnet.COM_PORT_OPTION + telnet.SET_CONTROL
        try:
            self._internal_raw_write(b"".join(start + value + telnet.IAC + telnet.SE for value in values))
        except OSError as error:
            raise serial.SerialException(f"the connection to the server has failed: {error}") from error
        self._await_answers(lines=any(value in (*_DTR.values(), *_RTS.values()) for value in values))

    def _await_answers(self, *, lines: bool) -> None:
        if self._ignore_set_control_answer or not lines or self._server_answers is False:
            return
        patience_s = LINE_ANSWER_S if self._server_answers is None else self._network_timeout
        if self._answers.all_came(patience_s, self._thread):
            self._server_answers = True
        elif self._thread is None or not self._thread.is_alive():
            raise serial.SerialException("the server has closed the connection")
        elif self._server_answers:
            raise serial.SerialException("the server does not answer a change of DTR and RTS any more")
        else:
            self._server_answers = False


class Rfc2217Link(Link):
    """A physical board at ``rfc2217://HOST:PORT`` with the usual auto-reset circuit."""

    physical: ClassVar[bool] = True
    kind: ClassVar[str] = "rfc2217"
    capabilities: ClassVar[frozenset[str]] = frozenset({"uart-download"})

    def __init__(
        self, url: str, *, baud: int = 460_800, console_baud: int = 115_200, board: str | None = None
    ) -> None:
        """Nothing is opened yet.

        Raises:
            UsageError: `url` names no RFC 2217 server.
        """
        self._url = checked_url(url, board=board)
        self._baud = baud
        self._console_baud = console_baud
        self._board = board
        self._port: CountingPort | None = None

    @property
    def description(self) -> str:
        return self._url

    @property
    def flash_baud(self) -> int:
        return self._baud

    @property
    def console_baud(self) -> int:
        return self._console_baud

    @property
    def port(self) -> Any:
        if self._port is None:
            port = Rfc2217Port(self._url, baudrate=self._console_baud, timeout=0.05)
            try:
                port.open()
            except (serial.SerialException, OSError, ValueError) as error:
                # A server that is there and does not answer may serve somebody else.
                refused = isinstance(error.__context__, OSError)
                raise (LinkError if refused else LabError)(
                    f"{self._url} cannot be opened: {error}",
                    board=self._board,
                    todo="check that the server runs and that nobody else is connected: it takes one client",
                ) from error
            self._port = CountingPort(port)
        return self._port

    def reset(self, mode: BootMode) -> None:
        """Through DTR and RTS; see `reset_by_lines`."""
        port = self.port
        try:
            reset_by_lines(port, mode)
        except (serial.SerialException, OSError) as error:
            raise LinkError(
                f"{self._url} cannot be reset: {error}",
                board=self._board,
                todo="check the server and the network to it",
            ) from error

    def close(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None


def reset_by_lines(port: Any, mode: BootMode) -> None:
    """Resets what is behind `port`, a `Rfc2217Port`; DTR and RTS are active low: EN is low while RTS is set, GPIO0 while
    DTR is.

    The steps are those of esptool's ClassicReset and HardReset; where both lines change, one packet carries both. GPIO0
    is held until a server that makes its own sequence of it (Espressif's) is through. What the port raises passes
    through.
    """
    port.set_lines(dtr=False, rts=True)
    time.sleep(0.1)
    if mode is BootMode.DOWNLOAD:
        port.set_lines(dtr=True, rts=False)
        time.sleep(0.25)
        port.dtr = False
    else:
        port.rts = False


def checked_url(url: str, *, board: str | None = None) -> str:
    """`url`, if it has the form ``rfc2217://HOST:PORT``, with pyserial's options behind it or without.

    Raises:
        UsageError: it has not.
    """
    try:
        parts = urlsplit(url)
        complete = parts.scheme == "rfc2217" and bool(parts.hostname) and parts.port is not None
    except ValueError:
        complete = False
    if not complete:
        raise UsageError(f"'{url}' names no RFC 2217 server", board=board, todo="write rfc2217://HOST:PORT")
    return url
