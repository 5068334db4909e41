"""Follows one open board for the record of a run: what came between two moments, and what is known of the board."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.console.boot_record import BootRecord
from harness.console.log_line import Line
from harness.errors import HarnessError
from harness.report.board_facts import facts_of
from harness.report.flash_map import KnownFlash
from harness.report.flash_steps import Story
from harness.report.flash_watch import FlashWatch
from harness.report.run_record import BoardRecord, Event, FlashMap, FlashStep, OtadataView
from harness.report.timeline import events_of
from harness.report.updates import commands_in, told_in

ASKING_TIMEOUT_S = 10.0
"""For a question that is only for the record."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A place in a board's log, the time, and what was in flash."""

    line: int
    at_s: float
    requests: int
    """Answered by its server until then."""
    flash: KnownFlash
    otadata: OtadataView | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a board did and said between two moments: fields of `TestRecord`."""

    first_line: int | None
    last_line: int | None
    events: tuple[Event, ...]
    flash_before: FlashMap | None
    flash_after: FlashMap | None
    flash_steps: tuple[FlashStep, ...]
    otadata_before: OtadataView | None
    otadata_after: OtadataView | None

    def fields(self) -> dict[str, Any]:
        """For `TestRecord`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class BoardWatch:
    """Watches `board` from when it is opened; `folder` is the run's, `name` what the record calls the board."""

    def __init__(self, board: Board, folder: Path, *, name: str | None = None) -> None:
        self.board = board
        self.name = name or board.name
        self._folder = folder
        self._flash = FlashWatch(board)
        self._told_boots = 0
        self._told_facts: BoardRecord | None = None
        self._seen: tuple[object, ...] | None = None

    @property
    def facts(self) -> BoardRecord | None:
        """What was known of the board when it was told last."""
        return self._told_facts

    def now(self) -> Moment:
        """This moment."""
        self._flash.catch_up()
        return Moment(
            self.board.console.mark(),
            time.time(),
            len(self.board.requests),
            self._flash.known(),
            self._flash.otadata(),
        )

    def since(self, moment: Moment) -> Seen:
        """What came from `moment` on."""
        board = self.board
        lines = board.console.lines_since(moment.line)
        first = lines[0].n if lines else moment.line
        boots = [boot for boot in board.console.boot_records if boot.last_line >= first]
        story = _story(lines, boots)
        steps = self._flash.since(story)
        return Seen(
            first_line=lines[0].n if lines else None,
            last_line=lines[-1].n if lines else None,
            events=events_of(lines, boots, board.requests[moment.requests :]),
            flash_before=self._flash.map(moment.flash),
            flash_after=self._flash.map(),
            flash_steps=steps,
            otadata_before=moment.otadata,
            otadata_after=self._flash.otadata(story),
        )

    def ask_otadata(self) -> OtadataView | None:
        """Where flash cannot be looked at, the firmware is asked, if it is up and takes commands."""
        board, boot = self.board, self.board.console.current_boot
        if (
            self._flash.sees_otadata
            or not board.speaks
            or boot is None
            or boot.evt_boot is None
            or boot.panic
        ):
            return None
        since = board.console.mark()
        try:
            board.command("otadata", timeout_s=ASKING_TIMEOUT_S)
        except HarnessError:
            # It is for the record only; whoever uses the board next hears what is wrong with it.
            return None
        return self._flash.otadata(_story(board.console.lines_since(since)))

    def new_facts(self, *, again: bool = False) -> BoardRecord | None:
        """What is known of the board, unless it was told before and is the same; without its boots.

        It is looked at `again` only when it has been planned for since, or on demand.
        """
        board = self.board
        seen = (len(board.plans), board.profile, board.lock, board.mac, id(board.app))
        if seen == self._seen and not again:
            return None
        self._seen = seen
        facts = facts_of(self.board, self._folder, name=self.name)
        if facts == self._told_facts:
            return None
        self._told_facts = facts
        return facts

    def new_boots(self, *, whole: bool = False) -> list[dict[str, Any]]:
        """Boots since those that were told before; the last one of those comes again, complete by now.

        With `whole` all come, each with what follows from the others.
        """
        boots = self.board.boots if whole else self.board.console.boot_records
        new = boots if whole else boots[max(0, self._told_boots - 1) :]
        self._told_boots = len(boots)
        return [boot.to_json() for boot in new]

    def findings(self) -> tuple[str, ...]:
        """What follows from all boots together."""
        return tuple(str(finding) for finding in self.board.findings)


def _story(lines: Sequence[Line], boots: Sequence[BootRecord] = ()) -> Story:
    return Story(lines, commands_in(lines, told_in(lines)), boots)
