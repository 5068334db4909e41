"""DTR and RTS: they reset a board and hold it in reset. They do not cut its supply, so this is no `Power`.

A "cut" made with these lines is recorded as a reset: the flash stays supplied and completes an erase.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import LabError
from harness.links.device_port import PORT_ERRORS
from harness.links.link import BootMode, Link


class DtrRts:
    """The modem lines of a link to a physical board with the usual auto-reset circuit, both active low."""

    def __init__(self, link: Link, *, board: str | None = None) -> None:
        self._link = link
        self._board = board

    @property
    def description(self) -> str:
        return f"DTR/RTS of {self._link.description}"

    def reset(self, mode: BootMode = BootMode.RUN) -> None:
        """Resets the chip into `mode`.

        Raises:
            LabError: the port is gone.
        """
        self._link.reset(mode)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds EN low while the block lasts; the chip boots from flash when it ends.

        Raises:
            LabError: the port is gone.
        """
        self._set_enable(low=True)
        try:
            yield
        finally:
            self._set_enable(low=False)

    def _set_enable(self, *, low: bool) -> None:
        port = self._link.port
        try:
            # GPIO0 high first: with both lines set the circuit lets EN go.
            port.dtr = False
            port.rts = low
        except PORT_ERRORS as error:
            raise LabError(
                f"{self._link.description}: DTR and RTS cannot be set: {error}",
                board=self._board,
                todo="check the cable; the port may have gone",
            ) from error
