"""The unit under qualification: its log without the companion's events, its boots, its resets.

Whatever app runs on it: boots are told by what ROM, bootloader and ESP-IDF's start-up print.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from harness.board import Board
from harness.console.boot_record import BootRecord
from harness.console.boot_tracker import BootTracker
from harness.console.events import MARKER, parse_events
from harness.console.log_line import Line
from harness.errors import NotProvenError
from harness.links.link import BootMode
from harness.qualify.file import QualifyFile

T = TypeVar("T")

POLL_S = 0.05
QUIET_S = 3.0
"""An app that has started says its version at once; after so much silence it will not."""


class LogView:
    """The lines of a log and its boots, as anybody's app would leave them. Feed it lines in order."""

    def __init__(self) -> None:
        self._tracker = BootTracker()

    def feed(self, line: Line) -> None:
        """Takes one complete line."""
        self._tracker.feed(line if line.is_mark else without_events(line))

    @property
    def boots(self) -> tuple[BootRecord, ...]:
        return self._tracker.records


def without_events(line: Line) -> Line:
    """`line` as it would be if the companion's protocol did not exist."""
    if MARKER not in line.text:
        return line
    return replace(line, text=parse_events(line.text, line.n)[1])


class Unit:
    """What a case may do with the unit."""

    def __init__(self, board: Board, file: QualifyFile) -> None:
        self.board = board
        self.file = file
        self.console = board.console
        self._view = LogView()
        self._next = 0
        self.ready = re.compile(file.witness.ready) if file.witness.ready else None
        self.failed = re.compile(file.witness.failed) if file.witness.failed else None

    @property
    def name(self) -> str:
        return self.board.name

    def mark(self) -> int:
        """The number of the next line."""
        return self.console.mark()

    def look(self) -> tuple[BootRecord, ...]:
        """All boots so far."""
        for line in self.console.lines_since(self._next):
            self._view.feed(line)
            self._next = line.n + 1
        return self._view.boots

    def lines(self, since: int) -> tuple[Line, ...]:
        """What the unit printed from line `since` on, without marks."""
        return tuple(line for line in self.console.lines_since(since) if not line.is_mark)

    def find(self, pattern: re.Pattern[str], since: int, *, until: int | None = None) -> Line | None:
        """The newest line from `since` on (and before `until`) that holds `pattern`."""
        lines = (line for line in reversed(self.lines(since)) if until is None or line.n < until)
        return next((line for line in lines if pattern.search(line.text)), None)

    def end_of_boot(self, since: int) -> int | None:
        """Where the boot that began at line `since` ends; None: it is under way."""
        return next((boot.first_line for boot in self.look() if boot.first_line > since), None)

    def await_line(self, pattern: str, timeout_s: float, since: int) -> Line | None:
        """The first line from `since` on that holds `pattern`; None when it does not come."""
        wanted = re.compile(pattern)

        def seen() -> Line | None:
            return next((line for line in self.lines(since) if wanted.search(line.text)), None)

        return self._until(seen, timeout_s)

    def current(self) -> BootRecord | None:
        """The boot under way."""
        boots = self.look()
        return boots[-1] if boots else None

    def await_app(self, since: int, timeout_s: float) -> BootRecord | None:
        """The first boot that began at line `since` or later and whose app is up; None when none comes."""

        def up() -> BootRecord | None:
            return next((boot for boot in self.look() if boot.first_line >= since and self.is_up(boot)), None)

        return self._until(up, timeout_s)

    def is_up(self, boot: BootRecord) -> bool:
        """Whether the app of `boot` has started and said, as far as it ever will, who it is."""
        if self.ready is not None:
            return self.says_ready(boot.first_line) and (
                boot.number == self.look()[-1].number or boot.app_started
            )
        if not boot.app_started:
            return False
        if boot.version is not None and boot.elf_sha256 is not None:
            return True
        newest = self.console.lines[-1:] if boot.number == self.look()[-1].number else ()
        return not newest or time.monotonic() - newest[0].at_s > QUIET_S

    def says_ready(self, since: int) -> bool:
        """Whether the boot that began at line `since` has printed the line that means that its app is up."""
        return (
            self.ready is not None and self.find(self.ready, since, until=self.end_of_boot(since)) is not None
        )

    def watch(self, boot: BootRecord | None, for_s: float) -> None:
        """Looks on for so long, or until `boot` is over."""
        if boot is None:
            return

        def over() -> BootRecord | None:
            newest = self.look()[-1]
            return newest if newest.number != boot.number or newest.panic is not None else None

        self._until(over, for_s)

    def latest(self, boot: BootRecord | None) -> BootRecord | None:
        """`boot` with what has become known of it since."""
        if boot is None:
            return None
        return next((each for each in self.look() if each.number == boot.number), boot)

    def reset(self) -> int:
        """Resets the unit into its app, the way that qualify.yaml allows; gives the mark before it.

        Raises:
            NotProvenError: it allows none.
        """
        mark = self.mark()
        if self.file.reset == "none":
            raise NotProvenError(
                "qualify.yaml says 'reset: none': the unit was not reset",
                board=self.name,
                todo="give a way to reset it: link or power",
            )
        if self.file.reset == "power":
            self.board.power.cycle()
        else:
            self.board.reset(BootMode.RUN)
        return mark

    def restart(self) -> BootRecord | None:
        """Resets it, and gives the boot that follows; one without an app where none comes up in time."""
        mark = self.reset()
        found = self.await_app(mark, self.file.times.boot_s)
        if found is not None:
            return found
        since = [boot for boot in self.look() if boot.first_line >= mark]
        return since[-1] if since else None

    def _until(self, ask: Callable[[], T | None], timeout_s: float) -> T | None:
        deadline_s = time.monotonic() + timeout_s
        while True:
            found = ask()
            if found is not None or time.monotonic() >= deadline_s:
                return found
            time.sleep(POLL_S)
