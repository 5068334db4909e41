"""A physical board on a UART with the usual auto-reset circuit (DTR on GPIO0, RTS on EN)."""

from __future__ import annotations

import errno
import time
from typing import Any, ClassVar

import serial

from harness.errors import LabError
from harness.links.counting import CountingPort
from harness.links.link import BootMode, Link


class SerialLink(Link):
    """A device path, COM port or pyserial URL.

    DTR and RTS are set before the port is opened: opening must not reset the board. They reset the chip, they do
    not cut its supply, so this link has no ``power``.
    """

    physical: ClassVar[bool] = True
    kind: ClassVar[str] = "serial"
    capabilities: ClassVar[frozenset[str]] = frozenset({"uart-download"})

    def __init__(
        self, port: str, *, baud: int = 460_800, console_baud: int = 115_200, board: str | None = None
    ) -> None:
        self._name = port
        self._baud = baud
        self._console_baud = console_baud
        self._board = board
        self._port: CountingPort | None = None

    @property
    def description(self) -> str:
        return self._name

    @property
    def flash_baud(self) -> int:
        return self._baud

    @property
    def console_baud(self) -> int:
        return self._console_baud

    @property
    def port(self) -> Any:
        if self._port is None:
            self._port = CountingPort(self._opened())
        return self._port

    def _opened(self) -> serial.SerialBase:
        try:
            port = serial.serial_for_url(
                self._name, baudrate=self._console_baud, timeout=0.05, do_not_open=True
            )
            port.dtr = False
            port.rts = False
            if isinstance(port, serial.Serial) and "://" not in self._name:
                port.exclusive = True
            port.open()
        except (serial.SerialException, OSError, ValueError) as error:
            raise LabError(*_port_complaint(self._name, error), board=self._board) from error
        return port

    def reset(self, mode: BootMode) -> None:
        """Through DTR and RTS, both active low: EN is low while RTS is set, GPIO0 while DTR is.

        The steps are those of esptool's ClassicReset and HardReset.
        """
        port = self.port
        try:
            if mode is BootMode.DOWNLOAD:
                port.dtr, port.rts = False, True
                time.sleep(0.1)
                port.dtr, port.rts = True, False
                time.sleep(0.05)
                port.dtr = False
            else:
                port.dtr, port.rts = False, True
                time.sleep(0.1)
                port.rts = False
        except (serial.SerialException, OSError) as error:
            raise LabError(
                f"{self._name} cannot be reset: {error}",
                board=self._board,
                todo="check the cable; the port may have gone",
            ) from error

    def close(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None


def _port_complaint(name: str, error: Exception) -> tuple[str]:
    """One sentence on why a port does not open and what to do about it."""
    number = getattr(error, "errno", None)
    text = str(error)
    if number == errno.ENOENT or "No such file" in text or "FileNotFoundError" in text:
        return (f"port {name} does not exist; plug the board in, or correct 'port' in boards.yaml",)
    if number == errno.EACCES or "Permission denied" in text or "PermissionError" in text:
        return (
            f"port {name} may not be opened by this user; join the group 'dialout' (Linux) and log in again",
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text or "busy" in text:
        return (f"port {name} is in use by another program; close its monitor or wait for the other job",)
    return (f"port {name} cannot be opened: {text}",)
