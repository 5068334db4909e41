"""Turns lines into boot records, one per boot, while they come.

Every line that belongs to an earlier stage than the one reached (ROM, bootloader, application) begins a new
boot, so a boot is noticed even when its banner was lost or the ROM is silenced by fuse. Boots that fail in
the same way one after the other are one record with a count, as a board with blank flash makes several a
second for as long as it is powered.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace

from harness.console import boot_patterns as patterns
from harness.console.boot_messages import (
    Changes,
    Stage,
    changes_by_boot_event,
    changes_by_log,
    changes_by_panic,
    changes_by_rom,
    noted,
    stage_of,
)
from harness.console.boot_record import BootRecord, Outcome
from harness.console.events import BadEvent, DeviceEvent, EventStream
from harness.console.log_line import EspLog, Line, split_logs
from harness.console.mark import CAUSING, UNSEEN, parse_mark

MAX_RECORDS = 2000
"""Bound for a board that crashes all night: the oldest records go."""

CAUSE_S = 10.0
"""A boot that begins later than so many seconds after a reset has another cause. A chip on its own USB is off the bus
for some of them, and a bootloader that prints nothing takes more."""

MAX_COMMANDS = 256
"""Commands under way whose names are remembered until their result comes."""

_BLANK = BootRecord(number=0, started_at=0.0, first_line=-1, last_line=-1, from_start=False)
_UPDATE_COMMANDS = frozenset({"ota", "ota-stock"})
_CONFIRM_COMMANDS = frozenset({"confirm", "repair"})
_RESTART_COMMANDS = frozenset({"reboot", "crash", "rollback"})


class BootTracker:
    """Feed it lines in order; ask it for records at any time. Never raises on what a line holds."""

    def __init__(self) -> None:
        self._finished: deque[BootRecord] = deque(maxlen=MAX_RECORDS)
        self._current: BootRecord | None = None
        self._stage = Stage.BEFORE
        self._header_lines = 0
        self._last_line = -1
        self._number = 0
        self._acted = False
        self._preceded_by_action = False
        self._cause: tuple[str, float] | None = None
        self._unseen = False
        self._events = EventStream()
        self._commands: dict[int, str] = {}

    @property
    def current(self) -> BootRecord | None:
        """The boot under way, as far as it has come."""
        if self._current is None:
            return None
        return replace(self._current, last_line=self._last_line, rom_header_lines=self._header_lines)

    @property
    def records(self) -> tuple[BootRecord, ...]:
        """All boots so far, the current one last; at most `MAX_RECORDS` and one."""
        current = self.current
        if current is None:
            return tuple(self._finished)
        repeated = self._repetition_of_last(current)
        return (*tuple(self._finished)[:-1], repeated) if repeated else (*self._finished, current)

    def feed(self, line: Line) -> tuple[DeviceEvent | BadEvent, ...]:
        """Takes one complete line or mark; returns the events in it."""
        if line.is_mark:
            self._take_mark(line)
            return ()
        events, text = self._events.feed(line.text, line.n)
        if text and not text.isspace():
            self._take_text(line, text)
        for event in events:
            self._take_event(line, event)
        if self._current is not None:
            self._last_line = line.n
        return events

    def finish(self) -> None:
        """Ends the current boot: what comes next is another, or its middle."""
        record = self.current
        self._current, self._stage, self._header_lines = None, Stage.BEFORE, 0
        if record is None:
            return
        repeated = self._repetition_of_last(record)
        if repeated is not None:
            self._finished[-1] = repeated
            self._number -= 1
        else:
            self._finished.append(record)

    def _repetition_of_last(self, record: BootRecord) -> BootRecord | None:
        """The last finished record with `record` counted in, if that is the same failure over again."""
        last = self._finished[-1] if self._finished else None
        if last is None or self._preceded_by_action or not _is_same_failure(last, record):
            return None
        return replace(
            last,
            repeats=last.repeats + 1,
            rom_header_lines=last.rom_header_lines + record.rom_header_lines,
            last_line=record.last_line,
        )

    def _take_mark(self, line: Line) -> None:
        mark = parse_mark(line.text)
        if mark.kind == "repeated":
            # Further lines like the last one, which the reader counted instead of keeping.
            if self._current is not None and patterns.ROM_INVALID_HEADER.search(mark.text):
                self._header_lines += mark.count
                self._last_line = line.n
        elif mark.kind in UNSEEN:
            self.finish()
            self._acted = self._unseen = True
            if mark.kind != "gap":
                self._cause = None
        elif mark.changes_board:
            self._acted = True
            if mark.kind in CAUSING:
                self._cause, self._unseen = (f"{mark.kind}: {mark.text}", line.at_s), False

    def _begin(self, line: Line, *, from_start: bool) -> BootRecord:
        self.finish()
        self._number += 1
        self._preceded_by_action, self._acted = self._acted, False
        self._last_line = line.n
        if from_start:
            self._events.restart()
        self._current = replace(
            _BLANK,
            caused_by=self._taken_cause(line, from_start=from_start),
            number=self._number,
            started_at=line.at_s,
            started_wall=line.wall_s,
            first_line=line.n,
            from_start=from_start,
        )
        return self._current

    def _taken_cause(self, line: Line, *, from_start: bool) -> str | None:
        """What the harness did that this boot comes of. The beginning of a boot may be among the lost lines."""
        if self._cause is None or not (from_start or self._unseen):
            return None
        (cause, at_s), self._cause = self._cause, None
        return cause if line.at_s - at_s <= CAUSE_S else None

    @property
    def _so_far(self) -> BootRecord:
        return self._current if self._current is not None else _BLANK

    def _apply(self, line: Line, changes: Changes) -> None:
        """Changes the current record, which a log that starts in the middle of a boot may not have yet."""
        if changes:
            record = self._current if self._current is not None else self._begin(line, from_start=False)
            self._current = replace(record, **changes)

    def _take_text(self, line: Line, text: str) -> None:
        position = 0
        for start in patterns.BOOT_START.finditer(text):
            self._take_messages(line, text[position : start.start()])
            if start["banner"]:
                self._take_banner(line, start["banner"])
            else:
                self._take_reset_line(line, start)
            position = start.end()
        self._take_messages(line, text[position:])

    def _take_banner(self, line: Line, banner: str) -> None:
        self._begin(line, from_start=True)
        self._stage = Stage.ROM
        # Only the ESP32's ROM begins with "ets"; all later ones say their name.
        named = patterns.ROM_CHIP.match(banner)
        chip = named[1] if named else "esp32" if banner.startswith("ets") else None
        self._apply(line, {"rom_banner": banner, "chip": patterns.ROM_CHIP_ALIASES.get(chip or "", chip)})

    def _take_reset_line(self, line: Line, start: re.Match[str]) -> None:
        record = self._current
        if record is None or record.reset_code is not None or self._stage > Stage.ROM:
            self._begin(line, from_start=True)
        self._stage = Stage.ROM
        changes: Changes = {"reset_code": int(start["code"], 16), "reset_reason": start["reason"]}
        changes |= {"boot_code": int(start["boot"], 16), "boot_mode": start["mode"]}
        self._apply(line, changes)

    def _take_messages(self, line: Line, text: str) -> None:
        if not text:
            return
        plain, logs = split_logs(text)
        if plain:
            self._take_plain(line, plain)
        for log in logs:
            self._take_log(line, log)

    def _take_plain(self, line: Line, text: str) -> None:
        """Text that is not in ESP-IDF's log format: the ROM's, a panic's, or the application's printf."""
        if self._stage <= Stage.ROM:
            header = patterns.ROM_INVALID_HEADER.search(text)
            if header:
                word = int(header[1], 16)
                if self._so_far.rom_header_word != word:
                    self._apply(line, {"rom_header_word": word})
                self._header_lines += 1
                return
            if self._current is not None:
                self._apply(line, changes_by_rom(self._current, text, line.n))
        self._apply(line, changes_by_panic(self._so_far, text, line.n))

    def _take_log(self, line: Line, log: EspLog) -> None:
        reached = stage_of(log)
        if self._is_restart(log, reached):
            self._begin(line, from_start=True)
        self._stage = max(self._stage, reached)
        if log.level == "E" and self._stage is Stage.BEFORE and log.tag not in patterns.EARLY_TAGS:
            self._stage = Stage.APP
        self._apply(line, changes_by_log(self._so_far, self._stage, log, line.n))
        self._apply(line, changes_by_panic(self._so_far, log.text, line.n))

    def _is_restart(self, log: EspLog, reached: Stage) -> bool:
        """Whether a message begins a boot whose ROM (and bootloader) printed nothing, or lost it."""
        record = self._current
        if reached is Stage.BOOTLOADER and patterns.BOOTLOADER_BANNER.search(log.text):
            return record is None or record.bootloader_version is not None or self._stage > Stage.ROM
        if reached is Stage.APP and record is not None and (begins := patterns.APP_BEGINS.match(log.text)):
            return record.app_started or (record.version is not None and "Application" in begins[0])
        return False

    def _take_event(self, line: Line, event: DeviceEvent | BadEvent) -> None:
        record = self._so_far
        if isinstance(event, BadEvent):
            if self._current is not None:
                self._apply(line, {"bad_events": record.bad_events + 1})
            return
        if event.ev == "boot":
            if record.evt_boot is not None and event.n == 0:
                record = self._begin(line, from_start=True)
            self._stage = Stage.APP
            self._apply(line, changes_by_boot_event(record, event.data))
        if self._current is None:
            return
        if event.missed:
            self._apply(line, {"missed_events": self._so_far.missed_events + event.missed})
        self._take_command(line, event)

    def _take_command(self, line: Line, event: DeviceEvent) -> None:
        """What acknowledgements and results say: the name is in the first, success in the second."""
        identifier, command = event.data.get("id"), event.data.get("cmd")
        if not isinstance(identifier, int) or event.data.get("ok") is not True:
            return
        if event.ev == "ack" and isinstance(command, str):
            if len(self._commands) >= MAX_COMMANDS:
                self._commands.pop(next(iter(self._commands)))
            self._commands[identifier] = command
            if command in _RESTART_COMMANDS:
                self._cause, self._unseen = (f"command '{command}'", line.at_s), False
            if command == "rollback":
                self._apply(line, noted(self._so_far, "rollback_notes", "command 'rollback' accepted"))
        elif event.ev == "done":
            command = self._commands.pop(identifier, None)
            if command in _UPDATE_COMMANDS:
                self._apply(line, noted(self._so_far, "updates", f"command '{command}' done"))
            elif command in _CONFIRM_COMMANDS:
                self._apply(line, {"confirmed": True})


def _is_same_failure(first: BootRecord, second: BootRecord) -> bool:
    """Whether `second` is the same failure to boot over again."""
    outcome = first.outcome
    if outcome is not second.outcome or first.chip != second.chip or first.panic or second.panic:
        return False
    if outcome in (Outcome.ROM_FAILED, Outcome.BOOTLOADER_FAILED):
        said = [[(e.tag, e.text) for e in record.errors] for record in (first, second)]
        return said[0] == said[1] and first.rom_header_word == second.rom_header_word
    if outcome is Outcome.UNFINISHED:
        silent = not first.errors and not second.errors and second.bootloader_version is None
        return silent and first.bootloader_version is None and first.reset_code == second.reset_code
    return False
