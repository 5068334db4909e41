"""A chip on its own USB, as the operating system shows it: a device node that vanishes and comes back."""

from __future__ import annotations

import errno
import threading
import time

import serial


class UsbNode:
    """One appearance of the device: pyserial's interface, as far as `ReturningPort` uses it."""

    def __init__(self, bus: UsbBus) -> None:
        self._bus = bus
        self.timeout: float | None = 0.05
        self.write_timeout: float | None = None
        self.baudrate = 115_200
        self.closed = False

    def _require(self) -> None:
        if self.closed or self._bus.node is not self:
            raise serial.SerialException("device reports readiness to read but returned no data")

    def read(self, size: int = 1) -> bytes:
        deadline = time.monotonic() + (self.timeout or 0)
        while True:
            self._require()
            data = self._bus.take(size)
            if data or time.monotonic() >= deadline:
                return data
            time.sleep(0.002)

    def write(self, data: bytes) -> int:
        self._require()
        self._bus.written += data
        return len(data)

    @property
    def in_waiting(self) -> int:
        self._require()
        return len(self._bus.unread)

    def reset_input_buffer(self) -> None:
        self._require()
        self._bus.take(1 << 20)

    def reset_output_buffer(self) -> None:
        self._require()

    def flush(self) -> None:
        self._require()

    def close(self) -> None:
        self.closed = True

    def __setattr__(self, name: str, value: object) -> None:
        if name in ("dtr", "rts"):
            self._require()
            self._bus.set_line(name, bool(value))
        object.__setattr__(self, name, value)


class UsbBus:
    """Where the chip is plugged in. `leaves_on_reset`: it is off the bus for so many seconds when RTS resets it."""

    def __init__(self, *, leaves_on_reset: float | None = None, moves: bool = True) -> None:
        self.node: UsbNode | None = None
        self.name: str | None = "/dev/ttyACM0"
        self.written = b""
        self.unread = b""
        self.lines: list[str] = []
        self.opened: list[str] = []
        self.forbidden = 0
        """How many openings fail yet."""
        self._leaves_on_reset = leaves_on_reset
        self._moves = moves
        self._lock = threading.Lock()

    def find(self) -> str | None:
        return self.name

    def open(self, name: str, _baudrate: int) -> UsbNode:
        assert name == self.name
        if self.forbidden:
            self.forbidden -= 1
            raise serial.SerialException(errno.EACCES, f"Permission denied: '{name}'")
        self.opened.append(name)
        self.node = UsbNode(self)
        return self.node

    def say(self, data: bytes) -> None:
        with self._lock:
            self.unread += data

    def take(self, size: int) -> bytes:
        with self._lock:
            data, self.unread = self.unread[:size], self.unread[size:]
            return data

    def set_line(self, line: str, state: bool) -> None:
        self.lines.append(f"{line[0].upper()}{int(state)}")
        if line == "rts" and state and self._leaves_on_reset is not None:
            self.vanish(self._leaves_on_reset)

    def vanish(self, for_s: float | None = None) -> None:
        """Off the bus; back after `for_s` seconds, under the next name."""
        number = int((self.name or "/dev/ttyACM0")[-1])
        self.node, self.name, self.unread = None, None, b""
        if for_s is not None:
            threading.Timer(for_s, self.come_back, [f"/dev/ttyACM{number + self._moves}"]).start()

    def come_back(self, name: str = "/dev/ttyACM1") -> None:
        self.name = name
