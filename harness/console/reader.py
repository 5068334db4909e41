"""The console of one board: its only reader.

One thread reads the port, and nothing else ever does, except who is lent it. Lines, events and boot records
come out of the same stream that the files on disk are made of, so a test, its log and a report cannot
disagree.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from harness.console.boot_record import BootRecord
from harness.console.events import BadEvent, DeviceEvent
from harness.console.expect_feed import ExpectFeed
from harness.console.log_line import Line
from harness.console.port_reading import PortGoneError, PortReader
from harness.console.recording import Recording, Subscriber
from harness.console.redaction import redact
from harness.console.waiting import Awaited, LinePattern, NotSeenError, Waits, describe
from harness.errors import LabError, LinkError, UsageError

PARK_TIMEOUT_S: Final = 10.0
"""The reader looks up every 50 ms; a remote port may keep it a few seconds in a renegotiation."""


class Console:
    """Reads `port` from `start` to `close`; the port itself belongs to the link that opened it.

    All methods may be called from any thread. ``name`` is the board's, for errors. The raw bytes go to
    `raw_path`, by default beside the log.
    """

    def __init__(self, port: Any, *, log_path: Path, name: str, raw_path: Path | None = None) -> None:
        self.name = name
        raw_path = raw_path if raw_path is not None else log_path.with_suffix(".raw")
        self._recording = Recording(name, log_path, raw_path)
        self._waits = Waits(self._recording)
        self._changed = self._recording.changed
        self._reader = PortReader(port)
        self._write_lock = threading.Lock()
        self._lent_to: str | None = None
        self._parked = False
        self._closing = False
        self._thread: threading.Thread | None = None

    # --- life ---

    def start(self, before: Callable[[], None] | None = None) -> None:
        """Opens the files (appending) and starts reading. `before` may note what comes before the first line.

        Raises:
            LabError: the log cannot be written.
            UsageError: it was started before.
        """
        if self._thread is not None:
            raise UsageError("the console has been started before", board=self.name)
        try:
            self._recording.open()
        except OSError as error:
            raise LabError(f"its log cannot be written: {error}", board=self.name) from error
        zone = time.strftime("%z", time.localtime())
        self._mark(
            "opened", f"{self.name}, local time is UTC{zone}, monotonic clock {time.monotonic():.3f} s"
        )
        if before is not None:
            before()
        self._thread = threading.Thread(target=self._run, name=f"console-{self.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops reading, ends the feeds and closes the files; the port stays open. May be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(PARK_TIMEOUT_S)
        if not self._recording.is_over:
            self._recording.finish(None, None)
        self._recording.close()

    def __enter__(self) -> Console:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what came ---

    @property
    def port(self) -> Any:
        """The port object. Read from it only inside `lend`."""
        return self._reader.port

    @property
    def log_path(self) -> Path:
        return self._recording.log_path

    @property
    def raw_path(self) -> Path:
        return self._recording.raw_path

    def mark(self) -> int:
        """A place in the stream: the number of the next line. A half line under way counts as next."""
        with self._changed:
            return self._recording.next_n

    @property
    def lines(self) -> tuple[Line, ...]:
        """The lines in memory, marks among them: the newest 20 000 at least."""
        with self._changed:
            return tuple(self._recording.lines)

    def lines_since(self, mark: int) -> tuple[Line, ...]:
        """All complete lines and marks from `mark` on, from the log file as far as they have left memory."""
        with self._changed:
            first_kept = self._recording.first_kept
            return (
                *self._recording.read_back(mark, first_kept),
                *self._recording.lines[max(0, mark - first_kept) :],
            )

    @property
    def half_line(self) -> Line | None:
        """The last line as far as it has come, once it has gone quiet; None when all are whole."""
        with self._changed:
            preview = self._recording.preview
            return preview if preview is not None and not preview.complete else None

    @property
    def is_over(self) -> bool:
        """Nothing more will come: it was closed, or the port has gone."""
        return self._recording.is_over

    @property
    def received_bytes(self) -> int:
        return self._recording.received_bytes

    @property
    def boot_records(self) -> tuple[BootRecord, ...]:
        """All boots so far, the one under way last."""
        with self._changed:
            return self._recording.tracker.records

    @property
    def current_boot(self) -> BootRecord | None:
        with self._changed:
            return self._recording.tracker.current

    @property
    def events(self) -> tuple[DeviceEvent | BadEvent, ...]:
        """The newest events, damaged ones among them."""
        with self._changed:
            return tuple(self._recording.events)

    @property
    def marks(self) -> tuple[Line, ...]:
        """What the harness did, for `harness.console.inference`."""
        with self._changed:
            return tuple(self._recording.marks)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Calls `callback` with every complete line and mark, from the reading thread; returns what ends it.

        The callback must be quick and must not wait for this console. One that raises is told no more, and
        the log says so.
        """
        subscribers = self._recording.subscribers
        with self._changed:
            subscribers.append(callback)

        def unsubscribe() -> None:
            with self._changed:
                if callback in subscribers:
                    subscribers.remove(callback)

        return unsubscribe

    def feed_to(self, sink: socket.socket, *, since: int | None = None) -> Callable[[], None]:
        """Sends the board's bytes to `sink` from now on (or from line `since` in memory); returns what ends
        it.

        Whole lines go at once, half lines after a short silence. When the stream ends, `sink` is shut down
        for writing, so that its reader sees the end. The caller closes it.
        """
        feed = ExpectFeed(sink)
        feeds = self._recording.feeds
        with self._changed:
            if since is not None:
                kept = self._recording.lines[max(0, since - self._recording.first_kept) :]
                feed.put(b"".join(line.raw + b"\r\n" for line in kept if not line.is_mark))
            feeds.append(feed)
            if self._recording.is_over:
                feed.end()

        def stop() -> None:
            with self._changed:
                if feed in feeds:
                    feeds.remove(feed)
            feed.stop()

        return stop

    # --- waiting ---

    def wait_for(
        self,
        wanted: LinePattern,
        timeout_s: float,
        *,
        since: int | None = None,
        what: str | None = None,
        fail_on: LinePattern | None = None,
    ) -> Line:
        """The first board line from `since` on (default: from now) that is `wanted`; marks do not count.

        `wanted` is a text to be contained, a compiled pattern to be found, or a function of the line. A
        half line counts once it is quiet. `fail_on` ends the wait early: the device has done what makes
        waiting pointless.

        Raises:
            BoardError: it did not come within `timeout_s` seconds, or `fail_on` came first. Names what was
                awaited, the last boot record, the tail of the log and its path. LabError: the port has
                gone.
        """
        return self._waits.for_line(wanted, Awaited(what or describe(wanted), timeout_s), since, fail_on)

    def wait_for_event(
        self,
        wanted: Callable[[DeviceEvent], bool],
        timeout_s: float,
        *,
        since: int | None = None,
        what: str = "an event",
    ) -> DeviceEvent:
        """The first good event from line `since` on (default: from now) that is `wanted`.

        `wanted` sees every good event once, in order.

        Raises:
            BoardError: it did not come in time; as `wait_for`.
            LabError: the port has gone.
        """
        return self._waits.for_event(wanted, Awaited(what, timeout_s), since)

    def poll_event(
        self, wanted: Callable[[DeviceEvent], bool], timeout_s: float, *, since: int | None = None
    ) -> DeviceEvent | None:
        """As `wait_for_event`, but None when time is up.

        Raises:
            LabError: the port has gone.
        """
        try:
            return self.wait_for_event(wanted, timeout_s, since=since)
        except NotSeenError:
            return None

    def wait_for_boot(
        self,
        wanted: Callable[[BootRecord], bool],
        timeout_s: float,
        *,
        since: int | None = None,
        what: str = "a boot",
    ) -> BootRecord:
        """The first boot that began at line `since` (default: now) or later and is `wanted`.

        `wanted` is asked again whenever more is known of a boot.

        Raises:
            BoardError: it did not come in time; as `wait_for`.
            LabError: the port has gone.
        """
        return self._waits.for_boot(wanted, Awaited(what, timeout_s), since)

    # --- what the harness does ---

    def write(self, data: bytes, *, shown: str | None = None) -> None:
        """Sends `data` and logs it line by line, secrets redacted, or `shown` in its place.

        Raises:
            LabError: the port is gone or does not take it in time.
            UsageError: the port is lent.
        """
        self._refuse_if_lent()
        with self._write_lock:
            self._refuse_if_lent()
            self._recording.raise_if_gone()
            try:
                self._recording.add_sent(data if shown is None else f"{shown}\n".encode())
                self._reader.write(data)
            except (PortGoneError, OSError) as error:
                raise (LinkError if isinstance(error, PortGoneError) else LabError)(
                    f"nothing can be sent to it: {error}; log: {self.log_path}",
                    board=self.name,
                    todo="check the cable",
                ) from error

    def note(self, text: str, *, kind: str = "note") -> None:
        """Writes what the harness did into the log, as a line of its own. Kinds: see `harness.console.mark`.

        A ``gap`` ends the half line under way. ``reset``, ``power`` and ``flash`` matter to boot records and to what
        is inferred from them. Secrets are redacted; several lines become one.

        Raises:
            LabError: the log cannot be written.
        """
        self._mark(kind, redact(" / ".join(text.splitlines())))

    def hide(self, secret: str) -> None:
        """From now on `secret` is blotted out of what is sent, received and noted."""
        with self._changed:
            self._recording.hide(secret)

    def redacted(self, text: str) -> str:
        """`text` without the secrets that were sent to this board, for what is shown elsewhere than in its log."""
        with self._changed:
            return self._recording.redacted(text)

    @contextmanager
    def lend(
        self, to: str = "esptool", *, writes_flash: bool = True, only_otadata: bool = False
    ) -> Iterator[Any]:
        """Lends the port: the reader is at rest until the block ends, and the log has a gap that says so.

        `writes_flash` False tells `harness.console.inference` that what runs afterwards is comparable with what
        ran before; `only_otadata` that of all flash only otadata is written. The baud rate is put back.

        Raises:
            LabError: the port has gone, or the reader does not come to rest.
            UsageError: it is lent already.
        """
        self._park(to)
        began_s = time.monotonic()
        try:
            kind = "lent" if not writes_flash else "otadata" if only_otadata else "flash"
            self._mark(kind, f"{to} has the port")
            with self._write_lock, self._reader.settings_kept():
                yield self._reader.port
        finally:
            took_s = time.monotonic() - began_s
            with self._changed:
                self._lent_to = None
                self._mark(
                    "returned", f"after {took_s:.3f} s; what the board sent meanwhile is not in this log"
                )
                self._changed.notify_all()

    def _park(self, to: str) -> None:
        with self._changed:
            self._refuse_if_lent()
            self._recording.raise_if_gone()
            self._lent_to = to
            self._changed.notify_all()
            if self._thread is None:
                return
            self._changed.wait_for(lambda: self._parked or self._recording.is_over, PARK_TIMEOUT_S)
            if not self._parked:
                self._lent_to = None
                self._recording.raise_if_gone()
                raise LabError(f"its reader did not come to rest in {PARK_TIMEOUT_S:.0f} s", board=self.name)

    def _mark(self, kind: str, text: str) -> None:
        try:
            self._recording.add_mark(kind, text)
        except OSError as error:
            raise LabError(f"its log cannot be written: {error}", board=self.name) from error

    # --- the reading thread ---

    def _run(self) -> None:
        reason: str | None = None
        cause: BaseException | None = None
        try:
            while not self._closing:
                if self._lent_to is not None:
                    self._rest()
                else:
                    self._recording.take(self._reader.read())
        except PortGoneError as error:
            reason, cause = f"the port has gone ({error})", error
        except OSError as error:
            reason, cause = f"its log cannot be written any more ({error})", error
        except Exception as error:  # noqa: BLE001 - a reader that died silently would hang every waiter
            reason, cause = f"its reader failed ({error!r})", error
        self._recording.finish(reason, cause)

    def _rest(self) -> None:
        """Stands still while the port is lent. The half line ends here: its rest is read by somebody else."""
        with self._changed:
            self._recording.break_off()
            self._parked = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lent_to is None or self._closing)
            self._parked = False

    def _refuse_if_lent(self) -> None:
        if self._lent_to is not None:
            raise UsageError(f"the port is lent to {self._lent_to}", board=self.name)
