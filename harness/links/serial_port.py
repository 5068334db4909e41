"""A physical board on a UART with the usual auto-reset circuit (DTR on GPIO0, RTS on EN)."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import serial

from harness.errors import LinkError
from harness.links.counting import CountingPort
from harness.links.device_port import (
    OPENING_ERRORS,
    OPENING_RESETS,
    PORT_ERRORS,
    complaint_about,
    open_device,
)
from harness.links.find_port import LastingPort
from harness.links.link import BootMode, Link
from harness.links.returning_port import ReturningPort


class SerialLink(Link):
    """A device path, COM port or pyserial URL.

    DTR and RTS reset the chip, they do not cut its supply, so this link has no ``power``. An adapter whose supply is cut
    with the board's is found again by `place`.
    """

    physical: ClassVar[bool] = True
    kind: ClassVar[str] = "serial"
    capabilities: ClassVar[frozenset[str]] = frozenset({"uart-download"})

    def __init__(
        self,
        port: str,
        *,
        baud: int = 460_800,
        console_baud: int = 115_200,
        board: str | None = None,
        place: LastingPort | None = None,
    ) -> None:
        self._name = port
        self._baud = baud
        self._console_baud = console_baud
        self._board = board
        self._place = place
        self._returning: ReturningPort | None = None
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
            self._tell("reset", OPENING_RESETS.format(self._name))
        return self._port

    def _opened(self) -> serial.SerialBase:
        try:
            if self._place is None:
                return open_device(self._name, self._console_baud)
            self._returning = ReturningPort(
                self._place.device,
                baudrate=self._console_baud,
                on_return=lambda absence: self._tell("gap", absence.text()),
            )
            self._returning.open()
            return self._returning
        except OPENING_ERRORS as error:
            raise complaint_about(self._name, error, board=self._board) from error

    @property
    def when_silent(self) -> str | None:
        if not self._name.startswith("socket://"):
            return super().when_silent
        return (
            "a socket:// port has no reset lines: hold BOOT and press EN by hand, or serve the port with "
            "esp_rfc2217_server and write 'link: rfc2217' and 'url:' into the board's entry"
        )

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
        except PORT_ERRORS as error:
            raise LinkError(
                f"{self._name} cannot be reset: {error}",
                board=self._board,
                todo="check the cable; the port may have gone",
            ) from error

    def supply_changes(self, *, on: bool) -> None:
        if self._returning is not None:
            self._returning.unpark() if on else self._returning.park()

    def close(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None
