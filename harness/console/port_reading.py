"""Reads any port with pyserial's interface without losing a byte.

pyserial's ports differ where it matters here: ``socket://`` throws away what a `read` has collected when
the peer closes in the middle of it, ``in_waiting`` of ``socket://`` is never more than 1, ``rfc2217://``
gives one byte per non-blocking `read`, and ``loop://`` has no descriptor. Wherever there is a descriptor we
wait on that and read once without blocking; elsewhere we read what is announced.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import serial

from harness.links.device_port import PORT_ERRORS, USING_ERRORS

POLL_S: Final = 0.05
"""How long one read may wait; the reader looks for other work in between."""

READ_BYTES: Final = 65536
END_S: Final = 0.5
"""A descriptor that is readable for so long and gives nothing is at its end."""


class PortGoneError(Exception):
    """The port does not work any more: unplugged, closed by its peer, closed by somebody in this process."""


class PortReader:
    """`read` and `write` on `port`, whose errors all become `PortGoneError`."""

    def __init__(self, port: Any) -> None:
        self.port = port
        self._descriptor = _descriptor_of(port)
        self._empty_since_s: float | None = None
        self._settled = False

    def read(self) -> bytes:
        """What has come; empty after `POLL_S` of silence."""
        try:
            if not self._settled:
                self._settle()
            if self._descriptor is None:
                return bytes(self.port.read(max(1, self.port.in_waiting)))
            if not self.port.in_waiting and not select.select([self._descriptor], [], [], POLL_S)[0]:
                self._empty_since_s = None
                return b""
            data = bytes(self.port.read(READ_BYTES))
        except USING_ERRORS as error:
            # ValueError and TypeError: pyserial and select on a port that another thread has just closed.
            raise PortGoneError(_reason(error)) from error
        if data:
            self._empty_since_s = None
        else:
            self._doubt()
        return data

    def _doubt(self) -> None:
        """Readable, but nothing there: another thread of the port's own was quicker, or the stream has
        ended."""
        now_s = time.monotonic()
        if self._empty_since_s is None:
            self._empty_since_s = now_s
        if now_s - self._empty_since_s >= END_S:
            raise PortGoneError("end of stream")
        time.sleep(0.005)

    def write(self, data: bytes) -> None:
        """All of `data`."""
        try:
            self.port.write(data)
        except USING_ERRORS as error:
            raise PortGoneError(_reason(error)) from error

    @contextmanager
    def settings_kept(self) -> Iterator[None]:
        """Puts baud rate back afterwards; time-outs are settled again before the next read."""
        baud_rate = self.port.baudrate
        try:
            yield
        finally:
            self._settled = False
            try:
                if self.port.is_open and self.port.baudrate != baud_rate:
                    self.port.baudrate = baud_rate
            except PORT_ERRORS:
                # The port went while it was lent: the next read says so, to everybody.
                self._empty_since_s = None

    def _settle(self) -> None:
        """Sets the read time-out, only if it is another: on a remote port setting it may cost a
        negotiation."""
        wanted = POLL_S if self._descriptor is None else 0
        if self.port.timeout != wanted:
            self.port.timeout = wanted
        self._settled = True


def _descriptor_of(port: Any) -> int | None:
    """A descriptor that `select` understands on this platform, or None."""
    try:
        descriptor = port.fileno()
        select.select([descriptor], [], [], 0)
    except (OSError, ValueError, TypeError, AttributeError, serial.SerialException):
        return None
    return int(descriptor)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
