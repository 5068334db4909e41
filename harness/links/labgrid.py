"""A physical board that a labgrid coordinator lends: its serial port over the network, its reset by lines or power."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from harness.errors import LabError, LinkError
from harness.links.counting import CountingPort
from harness.links.device_port import OPENING_ERRORS, PORT_ERRORS
from harness.links.labgrid_lease import NetworkPort, PlaceLease
from harness.links.labgrid_port import PlacePort
from harness.links.link import BootMode, Link, Listener
from harness.links.rfc2217 import reset_by_lines

OFF_S = 1.0
"""Without modem lines a reset is a power cycle; capacitors hold a chip up for some tenths of a second."""


class LabgridLink(Link):
    """The board of a place whose serial port speaks RFC 2217: DTR and RTS reset it, as on a desk."""

    physical: ClassVar[bool] = True
    kind: ClassVar[str] = "labgrid"
    capabilities: ClassVar[frozenset[str]] = frozenset({"uart-download"})

    def __init__(
        self,
        lease: PlaceLease,
        where: NetworkPort,
        *,
        baud: int = 460_800,
        console_baud: int = 115_200,
        board: str | None = None,
    ) -> None:
        """Nothing is opened yet.

        Args:
            lease: held; it is the lab's to give back.
            where: its serial port.
        """
        self.lease = lease
        self.where = where
        self._baud = baud
        self._console_baud = console_baud
        self._board = board
        self._uart = PlacePort(
            lease, baudrate=self.console_baud, on_return=lambda absence: self._tell("gap", absence.text())
        )
        self._port = CountingPort(self._uart)

    @property
    def description(self) -> str:
        return f"labgrid place {self.lease.place} ({self.where.url})"

    @property
    def lost(self) -> str | None:
        return self.lease.ending

    @property
    def flash_baud(self) -> int:
        return self._baud

    @property
    def console_baud(self) -> int:
        return self._console_baud

    def tell_to(self, listener: Listener) -> None:
        super().tell_to(listener)
        self.lease.tell_to(listener)

    @property
    def port(self) -> Any:
        if not self._uart.is_open:
            self.lease.require()
            try:
                self._uart.open()
            except OPENING_ERRORS as error:
                raise LinkError(
                    f"{self.where.url} of labgrid place {self.lease.place} cannot be opened: {error}",
                    board=self._board,
                    todo="check that the exporter runs, that this host reaches it (LG_PROXY goes through SSH), and that "
                    "nobody else is connected",
                ) from error
            self._tell("reset", f"opening {self.where.url} (some exporters reset the chip then)")
        return self._port

    def reset(self, mode: BootMode) -> None:
        """Through DTR and RTS; see `harness.links.rfc2217.reset_by_lines`."""
        port = self.port
        try:
            self._uart.await_return()
            reset_by_lines(port, mode)
        except PORT_ERRORS as error:
            self.lease.require()
            raise LinkError(
                f"labgrid place {self.lease.place} cannot be reset: {error}",
                board=self._board,
                todo="check the exporter and the network to it",
            ) from error

    def supply_changes(self, *, on: bool) -> None:
        self._uart.unpark() if on else self._uart.park()

    def close(self) -> None:
        self._uart.close()


class RawLabgridLink(LabgridLink):
    """The board of a place whose serial port is a plain TCP stream: no modem lines, so no way into download mode.

    A reset is a power cycle, and needs the place's power driver. The baud rate is the exporter's.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def flash_baud(self) -> int:
        return self.where.speed

    @property
    def console_baud(self) -> int:
        return self.where.speed

    def reset(self, mode: BootMode) -> None:
        """Off and on.

        Raises:
            LabError: download mode is asked for, or nothing switches the supply.
        """
        raw = f"the serial port of labgrid place {self.lease.place} is plain TCP (protocol: raw), without DTR and RTS"
        if mode is BootMode.DOWNLOAD:
            raise LabError(
                f"{raw}: the chip cannot be brought into download mode",
                board=self._board,
                todo="export it with protocol: rfc2217, or as USBSerialPort",
            )
        if self.lease.power is None:
            raise LabError(
                f"{raw}, and the place has no power driver: nothing can reset the board",
                board=self._board,
                todo="export it with protocol: rfc2217, or add a power port to the place",
            )
        _ = self.port
        self.lease.switch("off")
        try:
            time.sleep(OFF_S)
        finally:
            self.lease.switch("on")


def labgrid_link(lease: PlaceLease, *, baud: int, console_baud: int, board: str | None = None) -> LabgridLink:
    """The link that fits the serial port of the place that `lease` holds."""
    where = lease.port
    assert where is not None, "a place is held only once its port is known"
    kind = LabgridLink if where.protocol == "rfc2217" else RawLabgridLink
    return kind(lease, where, baud=baud, console_baud=console_baud, board=board)
