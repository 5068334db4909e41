"""What every way of switching a board's supply offers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import ClassVar

OFF_S = 1.0
"""How long `cycle` leaves the supply off: capacitors on a board hold a chip up for some tenths of a second."""


class Power(ABC):
    """The supply of one board."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def description(self) -> str:
        """What a person calls it, e.g. ``uhubctl 1-1 port 2``."""

    @abstractmethod
    def off(self) -> None:
        """Cuts the supply; nothing happens when it is off.

        Raises:
            LabError: it cannot be cut, or must not be now.
        """

    @abstractmethod
    def on(self) -> None:
        """Gives the supply back; nothing happens when it is on.

        Raises:
            LabError: it cannot be switched.
        """

    def cycle(self, off_s: float = OFF_S) -> None:
        """Off, `off_s` seconds of nothing, on. The supply is given back whatever happens in between."""
        self.off()
        try:
            time.sleep(off_s)
        finally:
            self.on()
