"""The board as a whole: power, straps and reset, and what runs between two resets.

One thread lives through the board's boots. Whoever wants something else (a control client, DTR and RTS, a
power cut) leaves a wish and sets ``stop``; what runs at that moment returns, and the thread takes the wish.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from harness.chips import Chip
from harness.errors import LabError
from harness.twin import download, rom_boot
from harness.twin.app_host import AppHost
from harness.twin.boot_context import (
    RESET_POWERON,
    BootContext,
    Halted,
    LoadedApp,
    Reset,
    RomLoop,
)
from harness.twin.cipher import FlashCipher
from harness.twin.efuses import Efuses
from harness.twin.flash import Flash
from harness.twin.operations import OperationLog, PowerCut, PowerLost
from harness.twin.state import StateFolder
from harness.twin.uart import DEFAULT_BAUD, Uart

_PRINT_WAIT_S = 0.5
"""A reset is answered when the ROM prints; a ROM silenced by an eFuse prints nothing."""


class Boot(str, Enum):
    """What the strapping pins say at reset."""

    RUN = "run"
    DOWNLOAD = "download"


class BoardState(str, Enum):
    OFF = "off"
    DOWNLOAD = "download"
    ROM_LOOP = "rom-loop"
    BOOTLOADER = "bootloader"
    APP = "app"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class MachineStatus:
    """What the control channel tells of the board."""

    state: BoardState
    boots: int
    app_pid: int | None
    halted_because: str
    strap: Boot


@dataclass(slots=True)
class _Wish:
    """What the board is to do next; `held` keeps it in reset."""

    powered: bool
    strap: Boot
    held: bool = False
    reason: int = RESET_POWERON


class Machine:
    """One board. Public methods may be called from any thread."""

    def __init__(
        self,
        chip: Chip,
        folder: StateFolder,
        build_store: Path,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_failure` is called when the board's thread dies of a fault in the twin itself."""
        self.chip = chip
        self._on_failure = on_failure
        self.uart = Uart()
        self.operations = OperationLog()
        self.operations.on_power_lost = self._lose_power
        self.flash = Flash(folder.flash_path, self.operations)
        self.efuses = Efuses(chip, folder.efuse_path, self.operations)
        self._started_s = time.monotonic()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._wish: _Wish | None = None
        self._quit = False
        self._powered = False
        self._supply_stays_away = False
        self._strap = Boot.RUN
        self._state = BoardState.OFF
        self._halted_because = ""
        self._boots = 0
        self._printed_at_boot = 0
        self._rom_is_done = False
        self._host: AppHost | None = None
        self._context = BootContext(
            chip=chip,
            flash=self.flash,
            efuses=self.efuses,
            cipher=FlashCipher(chip, self.flash, self.efuses),
            uart=self.uart,
            stop=self._stop,
            state_dir=folder.path,
            build_store=build_store,
            since_boot=lambda: time.monotonic() - self._started_s,
        )
        self._thread = threading.Thread(target=self._live, name="board", daemon=True)

    # From other threads

    def draw_from(self, random_bytes: Callable[[int], bytes]) -> None:
        """Where the board takes random numbers from, instead of from the host's own."""
        self._context.random_bytes = random_bytes

    def start(self, strap: Boot | None) -> None:
        """Begin to live; None leaves the board without power."""
        if strap is not None:
            self._wish = _Wish(powered=True, strap=strap)
        self._thread.start()

    def reset(self, strap: Boot, *, power_cycle: bool = False) -> None:
        """Reset the board; returns when the ROM has begun to print, in download mode when it listens.

        Both a power cycle and the EN pin show as reset reason 1 on these chips.

        Raises:
            LabError: the board has no power.
        """
        with self._changed:
            away = self._supply_stays_away
            if not self._powered and (away or not power_cycle) and (away or self._wish is None):
                raise LabError("the board has no power", todo="switch it on, or reset with power")
            before = self._boots
            self._leave_wish(_Wish(powered=True, strap=strap))
        self._await_boot(before)

    def set_power(self, on: bool) -> None:
        """Switch the supply; on boots with the straps of the last reset. Returns when it has happened."""
        with self._changed:
            if on == self._powered and self._wish is None:
                return
            before = self._boots
            self._supply_stays_away = False
            self._leave_wish(_Wish(powered=on, strap=self._strap))
            if not on:
                self._changed.wait_for(lambda: not self._powered or self._quit, timeout=60)
                return
        self._await_boot(before)

    def hold(self) -> None:
        """EN low: nothing runs, the flash keeps its supply."""
        with self._changed:
            if self._powered:
                self._leave_wish(_Wish(powered=True, strap=self._strap, held=True))

    def stop(self) -> None:
        """End the board's life; returns when nothing of it runs any more."""
        with self._changed:
            self._quit = True
            self._changed.notify_all()
        self._stop.set()
        self.uart.interrupt()
        if self._thread.is_alive():
            self._thread.join(timeout=60)
        self.flash.close()
        self.efuses.close()

    @property
    def status(self) -> MachineStatus:
        with self._changed:
            host = self._host
            return MachineStatus(
                state=self._state,
                boots=self._boots,
                app_pid=host.pid if host is not None else None,
                halted_because=self._halted_because,
                strap=self._strap,
            )

    def _leave_wish(self, wish: _Wish) -> None:
        """Called with the lock held."""
        self._wish = wish
        self._stop.set()
        self.uart.interrupt()
        self._changed.notify_all()

    def _await_boot(self, before: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._boots > before or self._quit, timeout=60)
        deadline = time.monotonic() + _PRINT_WAIT_S
        while not self._has_come_up() and time.monotonic() < deadline:
            time.sleep(0.001)

    def _has_come_up(self) -> bool:
        if self._strap is Boot.DOWNLOAD and not self._rom_is_done:
            return self.uart.listening
        return self.uart.account.tx_bytes != self._printed_at_boot

    def _lose_power(self, cut: PowerCut) -> None:
        """An armed cut struck. The thread of the operation comes here, whichever it is."""
        with self._changed:
            self._powered = False
            self._supply_stays_away = cut.stays
            self._leave_wish(_Wish(powered=False, strap=self._strap))

    # The board's own thread

    def _live(self) -> None:
        ended_in_order = False
        try:
            self._live_through_boots()
            ended_in_order = True
        finally:
            self._set_state(BoardState.OFF)
            if not ended_in_order:
                # The interpreter reports the exception; a board that only seems to live would mislead.
                self._on_failure()

    def _live_through_boots(self) -> None:
        reason: int | None = None
        while True:
            with self._changed:
                if reason is None:
                    self._changed.wait_for(lambda: self._quit or self._wish is not None)
                if self._quit:
                    break
                if self._wish is not None:
                    reason = self._take_wish(self._wish)
            if reason is None:
                continue
            try:
                reason = self._boot_once(reason)
            except PowerLost:
                reason = None
                self._set_state(BoardState.OFF)

    def _take_wish(self, wish: _Wish) -> int | None:
        """Called with the lock held; returns the reset reason to start with, None to stay down."""
        self._wish = None
        self._stop.clear()
        if wish.powered and not self._powered:
            self.operations.restore_power()
        self._powered, self._strap = wish.powered, wish.strap
        self._halted_because = ""
        if not wish.powered:
            self._state = BoardState.OFF
        elif wish.held:
            self._state, self._halted_because = BoardState.HALTED, "held in reset"
        self._changed.notify_all()
        return wish.reason if wish.powered and not wish.held else None

    def _set_state(self, state: BoardState, why: str = "") -> None:
        with self._changed:
            self._state, self._halted_because = state, why
            self._changed.notify_all()

    def _boot_once(self, reason: int) -> int | None:
        """From one reset to the next; returns its reason, None when nothing happens before a wish."""
        self.efuses.reload()
        self.uart.clear()
        self.uart.baud = DEFAULT_BAUD
        self._started_s = time.monotonic()
        downloads = self._strap is Boot.DOWNLOAD
        with self._changed:
            self._boots += 1
            self.operations.boot = self._boots
            self._printed_at_boot = self.uart.account.tx_bytes
            self._rom_is_done = False
            self._state = BoardState.DOWNLOAD if downloads else BoardState.BOOTLOADER
            self._changed.notify_all()
        if downloads:
            return self._after(download.serve(self._context, reason))
        return self._after(rom_boot.boot(self._context, reason))

    def _after(self, outcome: LoadedApp | RomLoop | Reset | Halted | None) -> int | None:
        self._rom_is_done = True
        if outcome is None or self._stop.is_set():
            return None
        if isinstance(outcome, Halted):
            self._set_state(BoardState.HALTED, outcome.why)
            self._stop.wait()
            return None
        if isinstance(outcome, LoadedApp):
            return self._run_app(outcome)
        if isinstance(outcome, RomLoop):
            self._set_state(BoardState.ROM_LOOP)
        return rom_boot.wait_for_reset(self._context, outcome)

    def _run_app(self, app: LoadedApp) -> int | None:
        host = AppHost(self._context, app)
        with self._changed:
            self._host = host
            self._state = BoardState.APP
            self._changed.notify_all()
        try:
            return host.run()
        finally:
            with self._changed:
                self._host = None
