"""Everything that comes out of one board's byte stream: files, lines, events, boots, feeds.

No port and no thread of its own: `harness.console.reader.Console` brings the bytes. All of it is guarded by
``changed``, which is notified whenever there is more to see.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from harness.console.boot_tracker import BootTracker
from harness.console.events import BadEvent, DeviceEvent
from harness.console.expect_feed import ExpectFeed
from harness.console.line_splitter import QUIET_S, LineSplitter, Piece
from harness.console.log_file import LineLog, RawLog, stamp
from harness.console.log_line import Line, LineKind, printable_text
from harness.console.mark import mark_text, repeated_text
from harness.console.port_reading import PortGoneError
from harness.console.redaction import Redactor
from harness.errors import LabError, LinkError

KEPT_LINES: Final = 20_000
"""So many lines at least stay in memory, twice as many at most (about 15 MB); older ones are in the log
file."""

KEPT_EVENTS: Final = 4096
FLUSH_S: Final = 0.2
"""The files on disk are at most so far behind."""

MAX_UNSENT_BYTES: Final = 4096
"""So much is collected of what is sent without a line end before it is logged as bytes."""

Subscriber = Callable[[Line], None]


class Recording:
    """One board's stream from `open` to `close`. OSError from the file system passes through."""

    def __init__(self, name: str, log_path: Path, raw_path: Path) -> None:
        self.name = name
        """The board's, for errors."""
        self.log_path = log_path
        self.raw_path = raw_path
        self.changed = threading.Condition(threading.RLock())
        self.wall_offset_s = time.time() - time.monotonic()
        self.tracker = BootTracker()
        self.lines: list[Line] = []
        self._first = 0
        """Number of this stream's first line: those before it in the file are an earlier one's."""
        self.first_kept = 0
        self.preview: Line | None = None
        """What is no line of its own yet: a half line gone quiet, or the line that a flood repeats."""
        self.events: deque[DeviceEvent | BadEvent] = deque(maxlen=KEPT_EVENTS)
        self.events_gone = 0
        self.marks: deque[Line] = deque(maxlen=KEPT_LINES)
        self.subscribers: list[Subscriber] = []
        self.feeds: list[ExpectFeed] = []
        self.received_bytes = 0
        self.is_over = False
        """Nothing will come any more."""
        self._failure: str | None = None
        self._cause: BaseException | None = None
        self._splitter = LineSplitter()
        self._redactor = Redactor()
        self._unsent = b""
        self._came_s = 0.0
        self._flushed_s = 0.0
        self._log: LineLog | None = None
        self._raw: RawLog | None = None

    @property
    def next_n(self) -> int:
        """The number of the next line."""
        return self.first_kept + len(self.lines)

    @property
    def first_n(self) -> int:
        """The number of its first line: those before, in the same file, were an earlier console's."""
        return self._first

    @property
    def event_count(self) -> int:
        """How many events there were, also those no longer kept."""
        return self.events_gone + len(self.events)

    def open(self) -> None:
        """Opens both files for appending."""
        self._log = LineLog(self.log_path)
        self._first = self.first_kept = self._log.earlier
        self._raw = RawLog(self.raw_path)

    def close(self) -> None:
        """Closes both files; what is in memory stays."""
        with self.changed:
            for file in (self._log, self._raw):
                if file is not None:
                    file.close()
            self._log = self._raw = None

    def flush(self) -> None:
        for file in (self._log, self._raw):
            if file is not None:
                file.flush()

    def take(self, data: bytes) -> None:
        """The next bytes, or none when nothing came for a while."""
        now_s = time.monotonic()
        with self.changed:
            if data:
                self.received_bytes += len(data)
                self._came_s = now_s
            self._split(self._redactor.take(data), now_s)
            if now_s - self._came_s >= QUIET_S:
                self._split(self._redactor.settle(), self._came_s)
            self._emit(self._splitter.overdue(now_s))
            self._look_ahead(now_s)
            if now_s - self._flushed_s >= FLUSH_S or not data:
                self.flush()
                self._flushed_s = now_s

    def break_off(self) -> None:
        """The stream ends or is interrupted here: a half line becomes a line."""
        with self.changed:
            self._end_line()
            self.flush()

    def add_mark(self, kind: str, text: str) -> None:
        """A line of the harness's own."""
        with self.changed:
            if kind == "gap":
                self._end_line()
            shown = printable_text(mark_text(kind, text).encode("utf-8", errors="backslashreplace"))
            self._append(self._line(LineKind.MARK, shown, b"", time.monotonic()))
            self.flush()
            self.changed.notify_all()

    def add_sent(self, data: bytes) -> None:
        """What is sent, as marks, redacted. Only whole lines: in half a line a secret may have lost its
        key."""
        with self.changed:
            *whole, self._unsent = (self._unsent + data).split(b"\n")
            for line in whole:
                text = line.rstrip(b"\r")
                try:
                    shown = self._redactor.sent(text.decode())
                except UnicodeDecodeError:
                    shown = f"({len(text)} bytes that are not text)"
                self.add_mark("sent", shown)
            if len(self._unsent) > MAX_UNSENT_BYTES:
                self.add_mark("sent", f"({len(self._unsent)} bytes without a line end)")
                self._unsent = b""

    def hide(self, secret: str) -> None:
        """See `Redactor.hide`."""
        self._redactor.hide(secret)

    def redacted(self, text: str) -> str:
        """`text` without the secrets that were sent so far."""
        return self._redactor.shown(text)

    def read_back(self, first: int, end: int) -> tuple[Line, ...]:
        """Lines ``first <= n < end`` that have left memory, from the log file."""
        with self.changed:
            first = max(self._first, first)
            if self._log is None or first >= end:
                return ()
            lines = self._log.lines(first, end)
            return tuple(replace(line, at_s=line.wall_s - self.wall_offset_s) for line in lines)

    def finish(self, failure: str | None, cause: BaseException | None) -> None:
        """Nobody waits any longer for what will not come; `failure` says why, None for a regular end."""
        with self.changed:
            self._failure, self._cause = failure, cause
            try:
                self.break_off()
                closing = f"{self.received_bytes} bytes received"
                self.add_mark("vanished" if failure else "closed", failure or closing)
            except OSError as error:
                self._failure = failure or f"its log cannot be written any more ({error})"
            self.is_over = True
            self.changed.notify_all()
        for feed in tuple(self.feeds):
            feed.end()

    def raise_if_gone(self) -> None:
        """Raises:
        LabError: the stream has ended by itself; names the board, the reason, the last line's time, the log.
        """
        if self._failure is None:
            return
        board_lines = [line for line in self.lines[-100:] if not line.is_mark]
        last = f"; the last line came at {stamp(board_lines[-1].wall_s)}" if board_lines else ""
        # Where it was the log that failed, nothing is wrong with the board.
        raise (LinkError if isinstance(self._cause, PortGoneError) else LabError)(
            f"{self._failure}{last}; log: {self.log_path}",
            board=self.name,
            todo="check cable, supply and whether another program took the port",
        ) from self._cause

    def _look_ahead(self, now_s: float) -> None:
        repeated = self._splitter.flooding_with
        if self._splitter.is_quiet(now_s):
            unseen = self._splitter.show()
            if unseen:
                self._keep(unseen)
                raw = self._splitter.half
                half = self._line(LineKind.BOARD, self._text(raw), raw, self._splitter.half_at_s)
                half = replace(half, complete=False)
                if self._log is not None:
                    self._log.write(half)
                self._show(half)
        elif repeated is not None and (self.preview is None or self.preview.raw != repeated):
            self._show(self._line(LineKind.BOARD, self._text(repeated), repeated, now_s))

    def _show(self, line: Line) -> None:
        self.preview = line
        self.changed.notify_all()

    def _emit(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            text = self._text(piece.raw)
            if piece.repeats:
                if self._raw is not None:
                    self._raw.note_repeats(piece.repeats, len(piece.raw))
                self._append(self._line(LineKind.MARK, repeated_text(piece.repeats, text), b"", piece.at_s))
            else:
                self._keep(piece.wire)
                self._append(self._line(LineKind.BOARD, text, piece.raw, piece.at_s))
        if pieces:
            self.preview = None
            self.changed.notify_all()

    def _split(self, data: bytes, now_s: float) -> None:
        if data:
            self._emit(self._splitter.feed(data, now_s))

    def _end_line(self) -> None:
        """The stream goes on elsewhere: what is kept back and the half line come out now."""
        now_s = time.monotonic()
        self._split(self._redactor.end(), now_s)
        self._emit(self._splitter.flush(now_s))

    def _text(self, raw: bytes) -> str:
        """`raw` for people. A secret that colours were printed into is whole only now."""
        return self._redactor.shown(printable_text(raw))

    def _keep(self, wire: bytes) -> None:
        """To the raw file and to the feeds."""
        if self._raw is not None:
            self._raw.write(wire)
        for feed in self.feeds:
            feed.put(wire)

    def _line(self, kind: LineKind, text: str, raw: bytes, at_s: float) -> Line:
        return Line(self.next_n, at_s, text, raw, at_s + self.wall_offset_s, kind)

    def _append(self, line: Line) -> None:
        """One more line for everybody. The lock is held."""
        self.lines.append(line)
        if len(self.lines) >= 2 * KEPT_LINES:
            del self.lines[:KEPT_LINES]
            self.first_kept += KEPT_LINES
        if line.is_mark:
            self.marks.append(line)
        if self._log is not None:
            self._log.write(line)
        for event in self.tracker.feed(line):
            if len(self.events) == KEPT_EVENTS:
                self.events_gone += 1
            self.events.append(event)
        for callback in tuple(self.subscribers):
            try:
                callback(line)
            except Exception as error:  # noqa: BLE001 - a listener's fault must not cost a board's output
                self.subscribers.remove(callback)
                self.add_mark("note", f"a listener failed and is told no more: {error!r}")
