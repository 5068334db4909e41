"""The UART of an emulated board: one port object over all the processes that the board lives in.

A change of the boot straps needs a new process, and so a new connection. Whoever holds the port, the console or
esptool, does not notice: between two processes the wire is quiet, as that of a board without power.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import serial
from serial.serialutil import PortNotOpenError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SLICE_S = 0.05
"""How long one look at a connection takes: after that another process may have taken its place."""

_LONG_WAIT_S = 1.0
_PATIENCE = 5
"""How much longer than asked a read of `_LONG_WAIT_S` or more waits before it gives up.

A tool that waits so long, as esptool does 3 s for a block of 16 KiB, waits for the chip to do something. An emulator's
time goes as fast as a busy host lets it.
"""

_PEEK_BYTES = 1 << 16

EMULATOR_GONE = "the emulator has gone"
"""In every error of a port whose emulator ended by itself; what becomes of the process follows."""


class EmulatorPort(serial.SerialBase):
    """pyserial's interface on whatever connection is attached at the moment.

    It offers no descriptor, since that would change from process to process. DTR, RTS and the baud rate may be set
    and have no effect: an emulator is reset by its link, and knows its baud rate from its own registers.

    ``why_gone`` is asked when the connection ends although nobody parked the port.
    """

    def __init__(self, name: str, why_gone: Callable[[], str]) -> None:
        self._connections: deque[socket.socket] = deque()
        self._changed = threading.Condition()
        self._parked = True
        self._is_answered = True
        self._why_gone = why_gone
        super().__init__(None, baudrate=115_200, timeout=_SLICE_S)
        self.port = name
        self.open()

    # --- for the link ---

    def park(self) -> None:
        """From now on the end of a connection is no error: the link is about to end the process."""
        with self._changed:
            self._parked = True
            self._changed.notify_all()

    def attach(self, connection: socket.socket) -> None:
        """Goes on with `connection`, once what the one before had sent has been read."""
        connection.setblocking(False)
        with self._changed:
            self._connections.append(connection)
            self._parked = False
            self._is_answered = True
            self._changed.notify_all()

    @property
    def is_answered(self) -> bool:
        """Something has come since the last write; else what was written may still be on its way to the chip."""
        return self._is_answered

    # --- pyserial's ---

    def open(self) -> None:
        """Nothing to be opened: the link attaches connections."""
        self.is_open = True

    def close(self) -> None:
        """Closes the connections; may be called twice."""
        with self._changed:
            self.is_open = False
            while self._connections:
                self._connections.popleft().close()
            self._changed.notify_all()

    def read(self, size: int = 1) -> bytes:
        """Up to `size` bytes, fewer when the time-out strikes: a long one later than asked, see `_PATIENCE`.

        Raises:
            SerialException: the emulator has ended by itself; says how.
        """
        deadline = _Deadline(_patient(self.timeout))
        data = bytearray()
        while len(data) < size:
            self._require_open()
            try:
                data += self._receive(size - len(data), deadline.left_s)
            except serial.SerialException:
                if not data:
                    raise
                # What came before the end counts; the next read says that this is the end.
                break
            if deadline.over:
                break
        return bytes(data)

    def write(self, data: Buffer) -> int:
        """All of `data`; lost while there is no process, as on the wire of a board without power.

        Raises:
            SerialTimeoutException: the UART did not take it within ``write_timeout``.
            SerialException: the emulator has ended by itself.
        """
        rest = memoryview(data).cast("B")
        size = len(rest)
        deadline = _Deadline(self.write_timeout)
        while rest:
            self._require_open()
            connection = self._live()
            if connection is None:
                break
            try:
                rest = rest[connection.send(rest) :]
                self._is_answered = False
            except BlockingIOError:
                if deadline.over:
                    raise serial.SerialTimeoutException(f"{self.port} takes no more bytes") from None
                with contextlib.suppress(OSError, ValueError):
                    select.select([], [connection], [], _slice(deadline.left_s))
            except OSError:
                self._lost(connection)
        return size

    @property
    def in_waiting(self) -> int:
        self._require_open()
        while (connection := self._oldest()) is not None:
            try:
                waiting = len(connection.recv(_PEEK_BYTES, socket.MSG_PEEK))
            except BlockingIOError:
                return 0
            except OSError:
                waiting = 0
            if waiting:
                return waiting
            self._drop(connection)
        return 0

    def reset_input_buffer(self) -> None:
        while self.in_waiting:
            self._receive(_PEEK_BYTES, 0)

    def reset_output_buffer(self) -> None:
        self._require_open()

    def flush(self) -> None:
        self._require_open()

    def send_break(self, duration: float = 0.25) -> None:  # noqa: ARG002 - the signature is pyserial's
        self._require_open()

    @property
    def cts(self) -> bool:
        return True

    @property
    def dsr(self) -> bool:
        return True

    @property
    def ri(self) -> bool:
        return False

    @property
    def cd(self) -> bool:
        return True

    def _reconfigure_port(self, *_: object, **__: object) -> None:
        """No setting of the port concerns a socket."""

    _update_rts_state = _update_dtr_state = _update_break_state = _reconfigure_port

    # --- inside ---

    def _receive(self, size: int, wait_s: float | None) -> bytes:
        """What comes within one slice; empty bytes for nothing."""
        connection = self._oldest()
        if connection is None:
            with self._changed:
                if not self._connections and self.is_open:
                    self._changed.wait(_slice(wait_s))
            return b""
        try:
            if not select.select([connection], [], [], _slice(wait_s))[0]:
                return b""
            data = connection.recv(size)
        except BlockingIOError:
            return b""
        except (OSError, ValueError):
            # ValueError: closed by `close` in another thread while we waited.
            data = b""
        if data:
            self._is_answered = True
        else:
            self._drop(connection)
        return data

    def _oldest(self) -> socket.socket | None:
        """The connection to read from; None between two processes."""
        with self._changed:
            if self._connections:
                return self._connections[0]
            if self._parked or not self.is_open:
                return None
        raise serial.SerialException(f"{self.port}: {EMULATOR_GONE}: {self._why_gone()}")

    def _live(self) -> socket.socket | None:
        """The connection to write to; None while the port is parked."""
        with self._changed:
            if self._parked:
                return None
            if self._connections:
                return self._connections[-1]
        raise serial.SerialException(f"{self.port}: {EMULATOR_GONE}: {self._why_gone()}")

    def _drop(self, connection: socket.socket) -> None:
        """Forgets a connection that has ended."""
        with self._changed:
            if connection in self._connections:
                self._connections.remove(connection)
            connection.close()

    def _lost(self, connection: socket.socket) -> None:
        """A write failed. What was received before can still be read, unless the process died unasked."""
        with self._changed:
            if self._parked or connection not in self._connections:
                return
        raise serial.SerialException(f"{self.port}: {EMULATOR_GONE}: {self._why_gone()}")

    def _require_open(self) -> None:
        if not self.is_open:
            raise PortNotOpenError()


class _Deadline:
    """A moment `timeout_s` seconds from now; None: never."""

    def __init__(self, timeout_s: float | None) -> None:
        self._at_s = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def left_s(self) -> float | None:
        return None if self._at_s is None else max(0.0, self._at_s - time.monotonic())

    @property
    def over(self) -> bool:
        return self.left_s == 0.0


def _patient(timeout_s: float | None) -> float | None:
    return timeout_s if timeout_s is None or timeout_s < _LONG_WAIT_S else timeout_s * _PATIENCE


def _slice(wait_s: float | None) -> float:
    return _SLICE_S if wait_s is None else min(wait_s, _SLICE_S)
