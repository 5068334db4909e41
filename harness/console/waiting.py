"""What a test waits for on a console, and what it is told when that does not come."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.console.boot_record import BootRecord
from harness.console.events import DeviceEvent
from harness.console.log_file import BOARD_SIGN, MARK_SIGN
from harness.console.log_line import Line
from harness.console.recording import KEPT_LINES, Recording
from harness.errors import BoardError, LabError

LinePattern = str | re.Pattern[str] | Callable[[Line], bool]
TAIL_LINES = 15


class Awaited:
    """Something awaited, and until when."""

    def __init__(self, what: str, timeout_s: float) -> None:
        self.what = what
        self.timeout_s = timeout_s
        self._deadline_s = time.monotonic() + timeout_s

    def left_s(self) -> float:
        """Seconds left; negative when time is up."""
        return self._deadline_s - time.monotonic()


class NotSeenError(BoardError):
    """What was awaited did not come."""

    def __init__(
        self,
        awaited: Awaited,
        reason: str | None,
        *,
        board: str,
        last_boot: BootRecord | None,
        tail: Sequence[Line],
        log_path: Path,
    ) -> None:
        why = reason if reason is not None else f"it did not come within {awaited.timeout_s:g} s"
        boot = last_boot.summary() if last_boot is not None else "no boot seen"
        shown = "\n".join(f"    {_shown(line)}" for line in tail[-TAIL_LINES:]) or "    (nothing received)"
        message = f"waited for {awaited.what}: {why}\n  last boot: {boot}\n  end of the log:\n{shown}"
        super().__init__(f"{message}\n  log: {log_path}", board=board)
        self.awaited = awaited.what
        self.last_boot = last_boot
        self.log_path = log_path


class Waits:
    """The waiting side of one `Recording`; any number of threads may wait at once."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._changed = recording.changed

    def for_line(
        self, wanted: LinePattern, awaited: Awaited, since: int | None, fail_on: LinePattern | None
    ) -> Line:
        """See `harness.console.reader.Console.wait_for`."""
        is_wanted = predicate_of(wanted)
        is_failure = predicate_of(fail_on) if fail_on is not None else None
        cursor = self._next_n() if since is None else max(since, self._recording.first_n)
        while True:
            batch, preview = self._batch(cursor)
            for line in (*batch, *([preview] if preview is not None else [])):
                if line.is_mark:
                    continue
                if is_wanted(line):
                    return line
                if is_failure is not None and is_failure(line):
                    raise self._not_seen(awaited, f"it printed '{line.text}'")
            cursor += len(batch)
            if not batch:
                self._for_more(awaited, self._newer_line(cursor, preview))

    def for_event(
        self, wanted: Callable[[DeviceEvent], bool], awaited: Awaited, since: int | None
    ) -> DeviceEvent:
        """See `harness.console.reader.Console.wait_for_event`."""
        first = self._next_n() if since is None else since
        recording, position = self._recording, 0
        while True:
            with self._changed:
                batch = list(recording.events)[max(0, position - recording.events_gone) :]
                position = recording.event_count
            for event in batch:
                if isinstance(event, DeviceEvent) and event.line_n >= first and wanted(event):
                    return event
            if not batch:
                self._for_more(awaited, self._newer_event(position))

    def for_boot(
        self, wanted: Callable[[BootRecord], bool], awaited: Awaited, since: int | None
    ) -> BootRecord:
        """See `harness.console.reader.Console.wait_for_boot`."""
        first = self._next_n() if since is None else since
        while True:
            with self._changed:
                seen, records = self._recording.next_n, self._recording.tracker.records
            for record in records:
                if record.first_line >= first and wanted(record):
                    return record
            self._for_more(awaited, self._newer_line(seen, None))

    def _next_n(self) -> int:
        with self._changed:
            return self._recording.next_n

    def _newer_line(self, n: int, preview: Line | None) -> Callable[[], bool]:
        recording = self._recording
        return lambda: recording.next_n > n or recording.preview is not preview

    def _newer_event(self, count: int) -> Callable[[], bool]:
        recording = self._recording
        return lambda: recording.event_count > count

    def _batch(self, cursor: int) -> tuple[tuple[Line, ...], Line | None]:
        """Some lines from `cursor` on; only when there are none, what is not a line yet."""
        recording = self._recording
        with self._changed:
            if cursor >= recording.first_kept:
                batch = tuple(recording.lines[cursor - recording.first_kept :])
                return batch, None if batch else recording.preview
            end = min(recording.first_kept, cursor + KEPT_LINES)
            batch = recording.read_back(cursor, end)
        if len(batch) != end - cursor:
            text = f"lines {cursor} to {end} cannot be read back from {recording.log_path}"
            raise LabError(text, board=recording.name)
        return batch, None

    def _for_more(self, awaited: Awaited, arrived: Callable[[], bool]) -> None:
        """Until `arrived`; raises when time is up or nothing can come any more."""
        recording = self._recording
        with self._changed:
            if not arrived():
                self._changed.wait_for(
                    lambda: arrived() or recording.is_over, timeout=max(0.0, awaited.left_s())
                )
            if arrived() and awaited.left_s() > 0:
                return
            recording.raise_if_gone()
            if recording.is_over:
                text = f"its console was closed while {awaited.what} was awaited"
                raise LabError(text, board=recording.name)
            raise self._not_seen(awaited, None)

    def _not_seen(self, awaited: Awaited, reason: str | None) -> NotSeenError:
        recording = self._recording
        with self._changed:
            preview = recording.preview
            records = recording.tracker.records
            tail = [*recording.lines[-TAIL_LINES:], *([preview] if preview is not None else [])]
        return NotSeenError(
            awaited,
            reason,
            board=recording.name,
            last_boot=records[-1] if records else None,
            tail=tail,
            log_path=recording.log_path,
        )


def predicate_of(wanted: LinePattern) -> Callable[[Line], bool]:
    """`wanted` as a function of a line."""
    if isinstance(wanted, str):
        text = wanted
        return lambda line: text in line.text
    if isinstance(wanted, re.Pattern):
        pattern = wanted
        return lambda line: pattern.search(line.text) is not None
    return wanted


def describe(wanted: LinePattern) -> str:
    """`wanted` in words, for an error."""
    if isinstance(wanted, str):
        return f"a line with '{wanted}'"
    if isinstance(wanted, re.Pattern):
        return f"a line like /{wanted.pattern}/"
    name = getattr(wanted, "__qualname__", type(wanted).__name__)
    return f"a line for which {name} holds"


def _shown(line: Line) -> str:
    clock = time.strftime("%H:%M:%S", time.localtime(line.wall_s))
    sign = MARK_SIGN if line.is_mark else BOARD_SIGN
    return f"{clock}.{int(line.wall_s * 1000) % 1000:03d} {sign} {line.text}"
