"""A physical board on its chip's own USB-Serial-JTAG: no bridge, no auto-reset circuit, a device that comes and goes.

The peripheral acts on DTR and RTS by itself: RTS alone resets the chip, DTR alone chooses download mode (ESP32-C3 TRM,
"USB Serial/JTAG Controller"). Its USB serial number is the chip's base MAC.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar

from harness.errors import LinkError
from harness.links.counting import CountingPort
from harness.links.device_port import (
    OPENING_ERRORS,
    OPENING_RESETS,
    PORT_ERRORS,
    complaint_about,
    open_device,
)
from harness.links.find_port import LastingPort, serial_ports
from harness.links.link import BootMode, Link
from harness.links.returning_port import RETURN_TIMEOUT_S, Absence, Opener, ReturningPort

STEP_S = 0.1
"""Between two steps of the reset into download mode, as esptool has it."""

HOLD_S = 0.2
"""How long a reset into the firmware is held, and how long the device is given to leave the bus after it."""


class UsbSerialJtagLink(Link):
    """The board behind `place`, whatever its device node is called at the moment."""

    physical: ClassVar[bool] = True
    kind: ClassVar[str] = "serial"
    capabilities: ClassVar[frozenset[str]] = frozenset({"uart-download"})

    def __init__(
        self,
        place: LastingPort,
        *,
        name: str,
        baud: int = 460_800,
        board: str | None = None,
        find: Callable[[], str | None] | None = None,
        opener: Opener = open_device,
        return_timeout_s: float = RETURN_TIMEOUT_S,
    ) -> None:
        """Nothing is opened yet.

        Args:
            place: how the port is found again.
            name: what a person calls the port: as boards.yaml does.
            baud: for esptool's bookkeeping; USB has no baud rate.
            find: gives the device node now (default: `place` asks the system).
        """
        self._name = name
        self._baud = baud
        self._board = board
        self._place = place
        self._uart = ReturningPort(
            find or place.device,
            baudrate=self.console_baud,
            opener=opener,
            on_return=self._is_back,
            return_timeout_s=return_timeout_s,
        )
        self._port = CountingPort(self._uart)

    @property
    def description(self) -> str:
        return self._name

    @property
    def mac(self) -> str | None:
        """The base MAC, which is the USB serial number; None where the system does not tell it."""
        return self._place.mac

    @property
    def flash_baud(self) -> int:
        return self._baud

    @property
    def port(self) -> Any:
        if not self._uart.is_open:
            try:
                self._uart.open()
            except OPENING_ERRORS as error:
                raise complaint_about(self._name, error, board=self._board) from error
            self._tell("reset", OPENING_RESETS.format(self._uart.name))
        return self._port

    def reset(self, mode: BootMode) -> None:
        """The steps are those of esptool's USBJTAGSerialReset and HardReset. Returns when the device is on the bus again.

        Raises:
            LabError: it has not come back.
        """
        port = self.port
        try:
            if mode is BootMode.DOWNLOAD:
                _lines(port, rts=False, dtr=False)
                time.sleep(STEP_S)
                _lines(port, dtr=True, rts=False)
                time.sleep(STEP_S)
                # By way of both set: both released would clear the choice of download mode.
                _lines(port, rts=True, dtr=False)
                # Windows tells the device of DTR only when RTS is set anew.
                port.rts = True
                time.sleep(STEP_S)
                _lines(port, dtr=False, rts=False)
            else:
                _lines(port, dtr=False, rts=True)
                time.sleep(HOLD_S)
                port.rts = False
            time.sleep(HOLD_S)
            self._uart.look()
            self._uart.await_return()
        except PORT_ERRORS as error:
            raise LinkError(
                f"{self._name} is gone after a reset: {error}",
                board=self._board,
                todo="check the cable and the hub; hold BOOT while you plug the board in, if its firmware has no USB",
            ) from error

    def supply_changes(self, *, on: bool) -> None:
        self._uart.unpark() if on else self._uart.park()

    def close(self) -> None:
        self._uart.close()

    def _is_back(self, absence: Absence) -> None:
        self._tell("gap", absence.text())


def place_of(port: str) -> LastingPort:
    """How the port that is called `port` now is found again after it has vanished."""
    return LastingPort(port, serial_ports())


def _lines(port: Any, **states: bool) -> None:
    """Sets the lines in the order given."""
    for line, state in states.items():
        setattr(port, line, state)
