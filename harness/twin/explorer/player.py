"""Switches a virtual board on from a stored state and talks to its firmware, without a wire in between."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness.chips import Chip
from harness.twin.efuses import EfuseCells
from harness.twin.explorer.stored import StoredState
from harness.twin.half_done import SECTOR_BYTES
from harness.twin.machine import BoardState, Boot, Machine
from harness.twin.operations import Change, CutPoint, PowerCut
from harness.twin.state import StateFolder

MARKER = "@evt "
BOOT_TIMEOUT_S = 20.0
COMMAND_TIMEOUT_S = 60.0
MOST_BOOTS = 6
"""A board that needs more boots than this to come up is in a loop: first-boot encryption takes three."""

_POLL_S = 0.02
_KEY_SEED = "a key of the device"


class BoardDead(Exception):  # noqa: N818 - a finding, not an error of the explorer
    """Nothing that talks runs on the board; the message says what was seen."""


class SupplyGone(Exception):  # noqa: N818 - what an armed cut is for
    """An armed cut struck."""


class Touches:
    """Which sectors were read before they were erased: all that a run of the board depends on, eFuses apart."""

    def __init__(self) -> None:
        self.read: set[int] = set()
        self._erased: set[int] = set()

    def note(self, kind: str, addr: int, size: int) -> None:
        sectors = range(addr // SECTOR_BYTES, (addr + max(size, 1) + SECTOR_BYTES - 1) // SECTOR_BYTES)
        if kind == "erase":
            self._erased.update(number for number in sectors if number not in self.read)
        else:
            # What is programmed over something is that, too, as much as what was written.
            self.read.update(number for number in sectors if number not in self._erased)


class Player:
    """One board, its supply off unless somebody is playing."""

    def __init__(self, chip: Chip, folder: StateFolder, build_store: Path) -> None:
        self._machine = Machine(chip, folder, build_store, on_failure=self._fail)
        self._said = threading.Condition()
        self._partial = b""
        self.lines: list[str] = []
        """What the UART said since the supply was last switched on."""
        self._events: list[dict[str, Any]] = []
        self._ids = itertools.count(1)
        self._failed = False
        self._machine.uart.attach(self._take)
        self._machine.start(None)

    def close(self) -> None:
        self._machine.stop()

    @property
    def machine(self) -> Machine:
        return self._machine

    # Stored state

    def stored(self) -> tuple[bytes, EfuseCells]:
        """All of flash, and the eFuse cells."""
        flash = self._machine.flash
        return bytes(flash.content), self._machine.efuses.snapshot()

    def restore(self, state: StoredState) -> None:
        """Puts `state` into the board, whose supply is off."""
        flash = self._machine.flash
        now = flash.content
        for number in range(len(state.base)):
            at = number * SECTOR_BYTES
            wanted = state.sector(number)
            if now[at : at + SECTOR_BYTES] != wanted:
                flash.replace(at, wanted)
        self._machine.efuses.restore(state.efuses)
        # A device makes the same key every time: the recorded operations are then those of every other run, too.
        self._machine.draw_from(random.Random(_KEY_SEED).randbytes)

    def record(self) -> list[Change]:
        """Begins a journal of every operation from now on; the list grows."""
        journal: list[Change] = []
        self._machine.operations.journal = journal
        return journal

    def watch(self) -> Touches:
        """Begins to note what is read before it is erased."""
        touches = Touches()
        self._machine.flash.on_touch = touches.note
        return touches

    def arm(self, op: int, where: CutPoint, byte: int, mixture: int | None) -> None:
        """Cuts the supply at the operation that comes after `op` more."""
        operations = self._machine.operations
        operations.set_cut(PowerCut(operations.next_number + op, where, byte, mixture))

    # Supply and reset

    def on(self) -> None:
        self._forget()
        self._machine.set_power(True)

    def off(self) -> None:
        self._machine.operations.journal = None
        self._machine.flash.on_touch = None
        self._machine.operations.set_cut(None)
        self._machine.set_power(False)
        # So that reads of the stored state are possible after a cut.
        self._machine.operations.restore_power()

    def cycle(self) -> None:
        """Supply off and on again, everything else as it was."""
        self._machine.set_power(False)
        self._forget()
        self._machine.set_power(True)

    def reset(self) -> None:
        self._forget()
        self._machine.reset(Boot.RUN)

    # The firmware

    def await_boot(self, timeout_s: float = BOOT_TIMEOUT_S) -> dict[str, Any]:
        """The firmware's boot event.

        Raises:
            BoardDead: it does not come. SupplyGone: an armed cut struck.
        """
        first = self._machine.status.boots
        return self._await(lambda event: event.get("ev") == "boot", timeout_s, first, "the boot event")

    def command(self, name: str, **arguments: object) -> dict[str, Any]:
        """The last event of a command: its ``done``, or an ``ack`` that refuses it.

        Raises:
            BoardDead: no answer, or it restarted over it. SupplyGone: an armed cut struck.
        """
        number = next(self._ids)
        words = [name, f"id={number}"]
        words += [f"{key}={quote(str(value), safe=':/?&=._-~+,@')}" for key, value in arguments.items()]
        with self._said:
            self._events = []
        first = self._machine.status.boots
        self._machine.uart.feed(" ".join(words).encode() + b"\n")

        def ended(event: dict[str, Any]) -> bool:
            if event.get("ev") == "boot":
                return True
            mine = event.get("id") == number
            return mine and (event.get("ev") == "done" or (event.get("ev") == "ack" and not event.get("ok")))

        found = self._await(ended, COMMAND_TIMEOUT_S, first, f"the end of '{name}'")
        if found.get("ev") == "boot":
            raise BoardDead(f"restarted over '{name}'")
        return found

    def _forget(self) -> None:
        with self._said:
            self._partial, self.lines, self._events = b"", [], []

    def _await(
        self, wanted: Callable[[dict[str, Any]], bool], timeout_s: float, first_boot: int, what: str
    ) -> dict[str, Any]:
        deadline = time.monotonic() + timeout_s
        seen = 0
        while True:
            with self._said:
                for event in self._events[seen:]:
                    seen += 1
                    if wanted(event):
                        return event
                self._said.wait(_POLL_S)
                if len(self._events) > seen:
                    continue
            self._check_alive(first_boot, what)
            if time.monotonic() > deadline:
                raise BoardDead(f"{what} did not come within {timeout_s:g} s; last line: {self._last_line()}")

    def _check_alive(self, first_boot: int, what: str) -> None:
        status = self._machine.status
        if self._failed:
            raise RuntimeError("the virtual board failed, see standard error")
        if status.state is BoardState.OFF:
            raise SupplyGone
        if status.state in (BoardState.ROM_LOOP, BoardState.HALTED):
            why = status.halted_because or "the ROM finds nothing to start"
            raise BoardDead(f"{why}; last line: {self._last_line()}")
        if status.boots > first_boot + MOST_BOOTS:
            raise BoardDead(f"{what} did not come in {MOST_BOOTS} boots; last line: {self._last_line()}")

    def _last_line(self) -> str:
        return next((line for line in reversed(self.lines) if line.strip()), "none")

    def _fail(self) -> None:
        self._failed = True

    def _take(self, data: bytes) -> None:
        with self._said:
            *whole, self._partial = (self._partial + data).split(b"\n")
            for line in whole:
                text = line.decode("utf-8", "replace").rstrip("\r")
                self.lines.append(text)
                self._events += _events_in(text)
            if whole:
                self._said.notify_all()


def _events_in(text: str) -> Iterable[dict[str, Any]]:
    at = text.find(MARKER)
    while at >= 0:
        try:
            event, _ = json.JSONDecoder().raw_decode(text, at + len(MARKER))
        except ValueError:
            event = None
        if isinstance(event, dict):
            yield event
        at = text.find(MARKER, at + len(MARKER))
