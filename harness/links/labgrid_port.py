"""The serial port of a labgrid place: one port object over the restarts of its exporter; dead once the place is lost."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import serial

from harness.links.device_port import USING_ERRORS
from harness.links.labgrid_lease import PlaceLease
from harness.links.returning_port import ReturningPort
from harness.links.rfc2217 import Rfc2217Port

EXPORTER_RETURN_S = 60.0
"""An exporter that was restarted is back in seconds; its coordinator gives it the place again within 15 s, and the serial
port then has another TCP port."""

_KEEPALIVE_S = 10
"""A host that was switched off sends no farewell: silence is asked about after this time."""


class PlacePort(ReturningPort):
    """pyserial's interface on the place's serial port, wherever its exporter offers it at the moment.

    Once the place is somebody else's it neither reads nor writes: every use fails with the sentence that says why.
    """

    def __init__(self, lease: PlaceLease, *, baudrate: int, on_return: Any = None) -> None:
        self._lease = lease
        super().__init__(
            self._find,
            baudrate=baudrate,
            opener=open_network_port,
            on_return=on_return,
            return_timeout_s=EXPORTER_RETURN_S,
        )

    def set_lines(self, *, dtr: bool, rts: bool) -> None:
        """Sets both modem lines in one packet; see `harness.links.rfc2217.Rfc2217Port.set_lines`."""
        self._dtr_state, self._rts_state = dtr, rts
        device = self._there()
        if device is None:
            return
        try:
            device.set_lines(dtr=dtr, rts=rts)
        except USING_ERRORS as error:
            self._lost(device, error)

    def _find(self) -> str | None:
        port = self._lease.port
        return port.url if port is not None else None

    def _there(self) -> Any:
        if self._lease.ending is not None:
            self._drop()
            raise serial.SerialException(self._lease.ending)
        return super()._there()


def open_network_port(url: str, baudrate: int) -> Any:
    """The port at `url` (``rfc2217://`` or ``socket://``), opened without a change of its modem lines.

    Raises:
        SerialException, OSError, ValueError: it cannot be opened.
    """
    port: Any
    if url.startswith("rfc2217://"):
        port = Rfc2217Port(url, baudrate=baudrate, timeout=0.05)
        port.open()
    else:
        port = serial.serial_for_url(url, baudrate=baudrate, timeout=0.05)
    _ask_when_silent(port)
    return port


def _ask_when_silent(port: Any) -> None:
    connection = getattr(port, "_socket", None)
    if not isinstance(connection, socket.socket):
        return
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", _KEEPALIVE_S), ("TCP_KEEPINTVL", _KEEPALIVE_S), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
