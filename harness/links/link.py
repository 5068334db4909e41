"""What every link offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum
from typing import Any, ClassVar

from harness.errors import UsageError
from harness.links.flash_log import FlashChange


class BootMode(str, Enum):
    """Which way the chip goes when it leaves reset."""

    RUN = "run"
    DOWNLOAD = "download"


Listener = Callable[[str, str], None]
"""Gets the kind (`harness.console.mark`) and the text of what a link did to its board, or noticed, by itself."""


class Link(ABC):
    """The wire to one board. A port is opened once and lent, never reopened.

    ``capabilities`` are words that a scenario may demand with ``@pytest.mark.needs(...)``:
    ``fault-injection`` (flash operations can be made to fail), ``power`` (supply can be cut),
    ``flash-log`` (flash operations are recorded), ``uart-download`` (the ROM can be reached).
    """

    physical: ClassVar[bool]
    kind: ClassVar[str]
    capabilities: ClassVar[frozenset[str]] = frozenset()
    runs_native: ClassVar[bool] = False
    """Native images (machine code of this host) run behind this link; only twins can."""

    host_address: ClassVar[str | None] = None
    """Under which address the device sees this machine's loopback servers; None: under their own."""

    _listener: Listener | None = None
    _untold: tuple[tuple[str, str], ...] = ()

    def tell_to(self, listener: Listener) -> None:
        """From now on `listener` is told what this link does or notices by itself; it is told at once what it missed."""
        untold, self._untold, self._listener = self._untold, (), listener
        for kind, text in untold:
            listener(kind, text)

    def _tell(self, kind: str, text: str) -> None:
        if self._listener is None:
            self._untold = (*self._untold, (kind, text))
        else:
            self._listener(kind, text)

    @property
    @abstractmethod
    def description(self) -> str:
        """What a person calls this link, e.g. ``/dev/ttyUSB0`` or ``twin (socket://127.0.0.1:4711)``."""

    @property
    @abstractmethod
    def port(self) -> Any:
        """The open port, with pyserial's interface.

        Raises:
            LabError: it cannot be opened; says whether it is missing, taken or forbidden.
        """

    @property
    def flash_baud(self) -> int:
        """Baud rate for flashing; bits/s."""
        return 460_800

    @property
    def console_baud(self) -> int:
        """Baud rate of ROM and firmware; bits/s."""
        return 115_200

    @abstractmethod
    def reset(self, mode: BootMode) -> None:
        """Resets the chip into `mode`; returns when the reset has been released.

        Raises:
            LabError: the link is gone.
        """

    @property
    def when_silent(self) -> str | None:
        """What a person does when no ROM answers behind this link; None: nothing that depends on the link.

        A virtual board has neither cable nor button.
        """
        if not self.physical:
            return None
        return "check cable, power, 'port' and 'chip'; hold BOOT and press EN by hand where there is no auto-reset"

    @property
    def lost(self) -> str | None:
        """Why the board is not ours any more, in a sentence: it was lent, and somebody else has it. None: it is ours."""
        return None

    def keep_sdkconfig(self, text: str | None) -> None:  # noqa: B027 - most links have nowhere to keep it
        """Told before firmware is flashed: the sdkconfig of its build, None where there is none.

        What a bootloader was compiled with shows nowhere in flash. Virtual boards keep it beside their flash, so
        that the twin can boot what was flashed in an emulator.
        """

    def supply_changes(self, *, on: bool) -> None:  # noqa: B027 - for those that care
        """Told before the board's supply is cut, and after it was given back: its port may be away in between."""

    def rest(self) -> None:  # noqa: B027 - only what runs on this host costs it anything
        """Told when nothing is asked of the board until its next `reset`, e.g. while its firmware is being built."""

    def inject(self, kind: str, **arguments: int) -> None:  # noqa: ARG002 - the signature is the links'
        """Makes flash operations fail; only links with the capability ``fault-injection`` can.

        Raises:
            UsageError: this link cannot.
        """
        raise UsageError(f"a {self.kind} link cannot make flash operations fail ({kind})")

    def flash_log(self, since: int) -> tuple[tuple[FlashChange, ...], int]:  # noqa: ARG002 - as above
        """Changes of flash from number `since` on, oldest first, and the number of the next one.

        Only links with the capability ``flash-log`` keep a log of them.

        Raises:
            UsageError: this link does not.
        """
        raise UsageError(f"a {self.kind} link does not record flash operations")

    @abstractmethod
    def close(self) -> None:
        """Lets go of the port and ends what the link started. May be called twice."""
