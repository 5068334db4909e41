"""The board's UART: bytes both ways between what runs on the board and at most one client.

Nothing is waited for: time on the wire is accounted at the configured baud rate (10 bits per byte).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

DEFAULT_BAUD = 115200
BITS_PER_BYTE = 10
MAX_WAITING_BYTES = 8 << 20
"""Many times what a FIFO and a driver hold, since here nothing takes time."""


@dataclass(frozen=True, slots=True)
class WireAccount:
    """Bytes seen by the board: received, sent, sent into the void; and modelled seconds on the wire."""

    rx_bytes: int
    tx_bytes: int
    tx_lost_bytes: int
    wire_seconds: float


class Uart:
    """One UART. The board calls `send`, `recv`, `clear`; the lines' side `attach`, `detach`, `feed`."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._rx = bytearray()
        self._write: Callable[[bytes], None] | None = None
        self._interrupted = False
        self._listening = False
        self._baud = DEFAULT_BAUD
        self._rx_bytes = 0
        self._tx_bytes = 0
        self._tx_lost_bytes = 0
        self._seconds = 0.0

    # The board's side

    @property
    def client_connected(self) -> bool:
        return self._write is not None

    def send(self, data: bytes) -> None:
        """Send `data`; lost when no client is connected."""
        if not data:
            return
        write = self._write
        with self._ready:
            self._tx_bytes += len(data)
            self._seconds += len(data) * BITS_PER_BYTE / self._baud
            if write is None:
                self._tx_lost_bytes += len(data)
        if write is not None:
            write(bytes(data))

    def recv(self, timeout_s: float) -> bytes:
        """All bytes received so far, or b"" after `timeout_s` or when `interrupt` is called."""
        deadline = time.monotonic() + timeout_s
        with self._ready:
            self._listening = True
            while not self._rx and not self._interrupted:
                left = deadline - time.monotonic()
                if left <= 0 or not self._ready.wait(left):
                    break
            self._interrupted = False
            data = bytes(self._rx)
            self._rx.clear()
            return data

    def clear(self) -> None:
        """Forget what was received and not read: the FIFO of a chip that is reset."""
        with self._ready:
            self._rx.clear()
            self._listening = False

    @property
    def listening(self) -> bool:
        """Whether what runs on the board has asked for input since the last `clear`."""
        return self._listening

    def interrupt(self) -> None:
        """Let the `recv` under way, or else the next one, return at once."""
        with self._ready:
            self._interrupted = True
            self._ready.notify_all()

    @property
    def baud(self) -> int:
        return self._baud

    @baud.setter
    def baud(self, value: int) -> None:
        self._baud = max(1, value)

    # The lines' side

    def attach(self, write: Callable[[bytes], None]) -> bool:
        """Make `write` the receiver of what the board sends; False if there is another client."""
        with self._ready:
            if self._write is not None:
                return False
            self._write = write
            return True

    def detach(self, write: Callable[[bytes], None]) -> None:
        """Undo `attach` of the same callable; the rest of its bytes stays readable by the board."""
        with self._ready:
            # `==`, not `is`: a bound method is a new object at every look.
            if self._write == write:
                self._write = None

    def feed(self, data: bytes) -> None:
        """Bytes from the client."""
        with self._ready:
            # What runs on the board may never read; then the newest bytes are lost, as in a full FIFO.
            self._rx += data[: MAX_WAITING_BYTES - len(self._rx)]
            self._rx_bytes += len(data)
            self._seconds += len(data) * BITS_PER_BYTE / self._baud
            self._ready.notify_all()

    def note_lost(self, count: int) -> None:
        """Count `count` bytes that a client did not take."""
        with self._ready:
            self._tx_lost_bytes += count

    @property
    def account(self) -> WireAccount:
        with self._ready:
            return WireAccount(self._rx_bytes, self._tx_bytes, self._tx_lost_bytes, self._seconds)
