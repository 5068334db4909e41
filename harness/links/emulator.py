"""What the emulators of this folder share: a process on a state folder, one port over all its restarts."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from harness.errors import LabError
from harness.links.counting import CountingPort
from harness.links.emulator_port import EmulatorPort
from harness.links.emulator_process import EmulatorProcess
from harness.links.emulator_state import DEFAULT_FLASH_BYTES, EmulatorState, keep_sdkconfig
from harness.links.link import BootMode, Link

START_TIMEOUT_S = 60.0
"""An emulator is up in a tenth of a second; sixty seconds cover a machine that swaps."""


class EmulatorLink(Link):
    """A board that an emulator of the chip executes: mask ROM, bootloader and application as on silicon.

    The board is without power until the first `reset` or `power_on`. Its straps can only be chosen when a process
    starts, so a reset into the other boot mode is a cold start; the port stays the same object.
    """

    physical: ClassVar[bool] = False
    capabilities: ClassVar[frozenset[str]] = frozenset({"power", "uart-download"})
    host_address: ClassVar[str | None]
    """Address under which the device reaches servers on this machine's loopback interface."""

    def __init__(
        self,
        chip: str,
        state: Path,
        *,
        mac: str | None = None,
        flash_bytes: int = DEFAULT_FLASH_BYTES,
        baud: int = 2_000_000,
        board: str | None = None,
    ) -> None:
        self._board = board
        self._baud = baud
        self._state = EmulatorState.open(state, chip, mac=mac, flash_bytes=flash_bytes, board=board)
        self._process: EmulatorProcess | None = None
        self._mode: BootMode | None = None
        self._changing = threading.RLock()
        self._uart = EmulatorPort(f"{self.kind}:{state}", self._obituary)
        self._port = CountingPort(self._uart)

    @property
    def description(self) -> str:
        return f"{self.kind} ({self._state.path})"

    @property
    def mac(self) -> str:
        """The factory MAC in its eFuse file."""
        return self._state.mac

    @property
    def pid(self) -> int | None:
        """Process id of the emulator; None while the board is without power."""
        return self._process.pid if self._process is not None else None

    @property
    def port(self) -> Any:
        return self._port

    @property
    def flash_baud(self) -> int:
        return self._baud

    def keep_sdkconfig(self, text: str | None) -> None:
        keep_sdkconfig(self._state.path, text)

    def reset(self, mode: BootMode) -> None:
        """Warm where the emulator can and the straps stay the same, else cold.

        Cold, too, when the chip has not answered what was sent to it last: on a wire those bytes are lost, an emulator
        would read them after its reset, at the ROM's baud rate.
        """
        with self._changing:
            is_clean = self._mode is mode and self._runs() and self._uart.is_answered
            if is_clean and self._reset_warm():
                return
            self.power_off()
            self.power_on(mode)

    def rest(self) -> None:
        """A ROM that waits for commands keeps a whole core busy: it is ended, and `reset` starts another."""
        self.power_off()

    def power_off(self) -> None:
        """Cuts the supply. What the chip had begun to write to flash and eFuses is in the files."""
        with self._changing:
            self._uart.park()
            self._mode = None
            if self._process is not None:
                self._before_stop()
                self._process.stop()
                self._process = None
                self._after_stop()

    def power_on(self, mode: BootMode = BootMode.RUN) -> None:
        """Starts the board with its straps in `mode`; nothing happens when it has power.

        Raises:
            LabError: the emulator does not start; says why.
        """
        with self._changing:
            if self._runs():
                return
            self.power_off()
            self._start(mode)
            self._mode = mode

    def close(self) -> None:
        with self._changing:
            try:
                self.power_off()
            finally:
                self._uart.close()
                self._state.close()

    # --- what each emulator does in its own way ---

    @abstractmethod
    def _start(self, mode: BootMode) -> None:
        """Starts a process with `self._launch`, attaches its UART to `self._uart`, lets the chip run."""

    def _reset_warm(self) -> bool:
        """Resets the chip in the running process; False when there is no way to do so."""
        return False

    def _before_stop(self) -> None:
        """Called before the process is ended."""

    def _after_stop(self) -> None:
        """Called when the process has ended."""

    # --- for them ---

    def _launch(self, process: EmulatorProcess) -> EmulatorProcess:
        """Takes charge of a process that has just been started.

        Raises:
            LabError: it could not be started.
        """
        self._process = process
        if process.pid is None:
            raise self._not_started("it cannot be executed")
        return process

    def _not_started(self, why: str) -> LabError:
        """The error for a process that does not come up; ends the process."""
        process, self._process = self._process, None
        obituary = ""
        if process is not None:
            process.stop()
            obituary = f"; {process.obituary()}"
        name = Path(process.command[0]).name if process is not None else self.kind
        return LabError(
            f"{name} did not start: {why}{obituary}", board=self._board, todo=self._advice(obituary)
        )

    def _advice(self, obituary: str) -> str | None:  # noqa: ARG002 - for those that can tell
        """What to do about an emulator that ended with `obituary` while it was starting."""
        return None

    def _runs(self) -> bool:
        return self._process is not None and self._process.status is None

    def _obituary(self) -> str:
        return self._process.obituary() if self._process is not None else "it is not running"


def accept(listener: socket.socket, process: EmulatorProcess) -> socket.socket | None:
    """The connection that `process` makes to `listener`; None when it dies before, or takes too long."""
    listener.settimeout(0.05)
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.status is None and time.monotonic() < deadline:
        try:
            return listener.accept()[0]
        except TimeoutError:
            continue
    return None


def find_program(name: str, *, given: str | None, variable: str, install: str, board: str | None) -> str:
    """The emulator's path: as given in the board's entry, else in the environment `variable`, else from PATH.

    Raises:
        LabError: there is none; says how its maker installs it (`install`).
    """
    named = given or os.environ.get(variable)
    source = "the board's entry" if given else f"the environment variable {variable}"
    found = shutil.which(str(Path(named).expanduser())) if named else shutil.which(name)
    if found is None:
        where = f"{named}, named in {source}, cannot be executed" if named else f"{name} is not on PATH"
        raise LabError(where, board=board, todo=install)
    return str(Path(found).absolute())
