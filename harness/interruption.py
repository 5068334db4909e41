"""Signals that end a run (SIGINT, SIGTERM, SIGHUP): where they strike at once, and what they have to wait for.

An eFuse burn that is broken off half way costs a board; anything else can be done again. So a signal ends the work
wherever it stands, as Ctrl-C does, except inside `unbroken`: there it is noted, said, and takes effect at the end.

It imports nothing but the standard library, so that it can listen before half a second of other imports.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What a terminal, a CI job at its time-out, and a lost connection send."""

EXIT_SIGNAL = 128
"""A shell's exit status of what a signal ended is this plus its number."""


class Interrupted(KeyboardInterrupt):
    """A signal asks the run to end. Everything that is open is closed in order on its way up, as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.where: str | None = None
        """How far the run had come, set on the way up by whoever knows: ``before step 5/9 (canary)``."""
        self.failed: BaseException | None = None
        """What went wrong while the signal waited for its moment."""

    @property
    def exit_status(self) -> int:
        """What the process ends with: 130 for SIGINT, 143 for SIGTERM."""
        return EXIT_SIGNAL + self.number

    def __str__(self) -> str:
        where = f" {self.where}" if self.where else ""
        return f"{name_of(self.number)}: stopped{where}; the next run goes on from here"


def name_of(number: int) -> str:
    """``SIGTERM`` for 15."""
    return signal.Signals(number).name


def listen(numbers: Sequence[int] = STOPPING) -> None:
    """From now on these signals raise `Interrupted` in the main thread; one that is ignored (``nohup``) stays so."""
    for number in numbers:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _raise)


def stop_listening(numbers: Sequence[int] = STOPPING) -> None:
    """Undoes `listen`: the signals do again what they do to any Python program."""
    for number in numbers:
        if signal.getsignal(number) is _raise:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)


def ignore_all() -> None:
    """The run has ended and only its exit status is left: no signal shall make a traceback of it."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def unbroken(what: str, *, deliver: bool = True) -> Iterator[None]:
    """No signal of `STOPPING` interrupts this block; one that came takes effect right behind it.

    May be nested. Signals reach the main thread only, so elsewhere this does nothing.

    Args:
        what: what is under way, for the person who waits: ``burning the flash key into BLOCK_KEY0``.
        deliver: False: the run is being ended already, and what comes meanwhile is only answered.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        again = "still " if came or not deliver else ""
        came.append(number)
        _say(f"harness: {name_of(number)}: {again}{what}; this is not broken off, it stops in a moment")

    try:
        with ExitStack() as before:
            for number in STOPPING:
                handler = signal.getsignal(number)
                # None: a handler that is not Python's, and could not be put back.
                if handler not in (None, signal.SIG_IGN):
                    before.callback(signal.signal, number, handler)
                    signal.signal(number, note)
            yield
    except BaseException as failed:
        if came and deliver:
            _deliver(came[0], failed)
        raise
    if came and deliver:
        _deliver(came[0], None)


def _deliver(number: int, failed: BaseException | None) -> None:
    """To whatever handles it outside; what else went wrong meanwhile is not lost over it."""
    try:
        signal.raise_signal(number)
    except Interrupted as interrupted:
        interrupted.failed = failed
        raise


def _say(line: str) -> None:
    # Not through sys.stderr: the signal may have come in the middle of a write to it.
    try:
        os.write(2, f"{line}\n".encode())
    except OSError:
        return
