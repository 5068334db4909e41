"""The UART with modem lines, for tools that speak RFC 2217: DTR and RTS reset the board.

The protocol is pyserial's own server side, `serial.rfc2217.PortManager`. Lines are wired as on Espressif's
boards: DTR to the boot strap, RTS to EN, both active low, and neither when both are set.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

import serial.rfc2217

from harness.errors import LabError
from harness.twin.machine import Boot, Machine
from harness.twin.server import LineWriter, listen, port_of

_POLL_S = 1.0
_READ_BYTES = 1 << 14
_LONGEST_OPTION_BYTES = 1024
"""Of a subnegotiation that does not end; RFC 2217's longest has some ten."""
_NO_TELNET = (struct.error, IndexError, KeyError, TypeError, ValueError)
"""What PortManager raises at negotiations that no client sends: it takes them apart without looking."""


class ModemLines:
    """What DTR and RTS do.

    EN is low while RTS is set and DTR is not; the board starts when RTS is let go, with download straps if
    DTR is set at that moment.
    """

    def __init__(self, hold: Callable[[], None], release: Callable[[Boot], None]) -> None:
        self._hold = hold
        self._release = release
        self._dtr = False
        self._rts = False
        self._held = False

    def set_dtr(self, value: bool) -> None:
        self._dtr = value
        self._look()

    def set_rts(self, value: bool) -> None:
        self._rts = value
        self._look()

    def _look(self) -> None:
        if self._rts and not self._dtr and not self._held:
            self._held = True
            self._hold()
        elif not self._rts and self._held:
            self._held = False
            self._release(Boot.DOWNLOAD if self._dtr else Boot.RUN)


class _LineSettings:
    """The serial port that PortManager believes it serves; settings are kept, lines are acted upon."""

    def __init__(self, lines: ModemLines) -> None:
        self._lines = lines
        self._dtr = False
        self._rts = False
        self.baudrate = 115200
        self.bytesize = 8
        self.parity = "N"
        self.stopbits = 1
        self.xonxoff = False
        self.rtscts = False
        self.break_condition = False
        self.cts = True
        self.dsr = True
        self.ri = False
        self.cd = True

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self._dtr = value
        self._lines.set_dtr(value)

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self._rts = value
        self._lines.set_rts(value)

    def reset_input_buffer(self) -> None:
        """Bytes from the board are passed on at once: there is nothing to purge."""

    def reset_output_buffer(self) -> None:
        """Bytes to the board are passed on at once: there is nothing to purge."""


class _Connection:
    """What PortManager writes its telnet bytes to."""

    def __init__(self, writer: LineWriter, lock: threading.Lock) -> None:
        self._writer = writer
        self._lock = lock

    def write(self, data: bytes) -> None:
        with self._lock:
            self._writer.write(data)


class Rfc2217Server:
    """Lends the board's UART and reset lines to one RFC 2217 client at a time."""

    def __init__(self, machine: Machine, port: int = 0) -> None:
        self._machine = machine
        self._listener = listen(port)
        self.port = port_of(self._listener)
        self._closing = False
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="rfc2217", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the port and the client."""
        self._closing = True
        for thing in (self._listener, self._client):
            if thing is not None:
                with contextlib.suppress(OSError):
                    thing.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                self._client = client
                self._serve(client)
            self._client = None

    def _serve(self, client: socket.socket) -> None:
        uart = self._machine.uart
        if uart.client_connected:
            return
        writer = LineWriter(client, uart)
        client.settimeout(_POLL_S)
        lock = threading.Lock()
        lines = ModemLines(self._machine.hold, self._release)
        settings = _LineSettings(lines)
        # What a client says wrongly is no news to whoever started the twin.
        quiet = logging.getLogger("harness.twin.rfc2217")
        quiet.setLevel(logging.CRITICAL)
        # PortManager asks of both no more than what these two have; it wants no pyserial port.
        port: Any = settings
        connection: Any = _Connection(writer, lock)
        manager = serial.rfc2217.PortManager(port, connection, logger=quiet)

        def to_client(data: bytes) -> None:
            with lock:
                writer.write(b"".join(manager.escape(data)))

        if not uart.attach(to_client):
            return
        try:
            while not self._closing:
                try:
                    data = client.recv(_READ_BYTES)
                except TimeoutError:
                    manager.check_modem_lines()
                    continue
                except OSError:
                    return
                if not data:
                    return
                try:
                    plain = b"".join(manager.filter(data))
                except _NO_TELNET:
                    return
                if plain:
                    uart.feed(plain)
                if manager.suboption is not None and len(manager.suboption) > _LONGEST_OPTION_BYTES:
                    return
        finally:
            uart.detach(to_client)

    def _release(self, boot: Boot) -> None:
        # Without power a board does not mind its lines.
        with contextlib.suppress(LabError):
            self._machine.reset(boot)
