"""Follows one open board for the record of a run: what came between two moments, and what is known of the board."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.report.board_facts import facts_of
from harness.report.run_record import BoardRecord, Event
from harness.report.timeline import events_of


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in a board's log, and the time."""

    line: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a board did and said between two moments."""

    first_line: int | None
    last_line: int | None
    events: tuple[Event, ...]


class BoardWatch:
    """Watches `board` from when it is opened; `folder` is the run's, `name` what the record calls the board."""

    def __init__(self, board: Board, folder: Path, *, name: str | None = None) -> None:
        self.board = board
        self.name = name or board.name
        self._folder = folder
        self._told_boots = 0
        self._told_facts: BoardRecord | None = None

    @property
    def facts(self) -> BoardRecord | None:
        """What was known of the board when it was told last."""
        return self._told_facts

    def now(self) -> Moment:
        """This moment."""
        return Moment(self.board.console.mark(), time.time())

    def since(self, moment: Moment) -> Seen:
        """What came from `moment` on."""
        lines = self.board.console.lines_since(moment.line)
        if not lines:
            return Seen(None, None, ())
        first, last = lines[0].n, lines[-1].n
        boots = [boot for boot in self.board.boots if boot.last_line >= first and boot.first_line <= last]
        return Seen(first, last, events_of(lines, boots))

    def new_facts(self) -> BoardRecord | None:
        """What is known of the board, unless it was told before and is the same; without its boots."""
        facts = facts_of(self.board, self._folder, name=self.name)
        findings = tuple(str(finding) for finding in self.board.findings)
        facts = facts.model_copy(update={"findings": findings})
        if facts == self._told_facts:
            return None
        self._told_facts = facts
        return facts

    def new_boots(self) -> list[dict[str, Any]]:
        """Boots since those that were told before; the last one of those comes again, whole by now."""
        boots = self.board.boots
        new = boots[max(0, self._told_boots - 1) :]
        self._told_boots = len(boots)
        return [boot.to_json() for boot in new]
