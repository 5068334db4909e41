"""Sees to it that a board which fails to be prepared, or stops answering, is latched broken for whoever wants it next.

The rule: while a board is opened and prepared, whatever `harness.rack.health.latches` says is the board's own failure
latches it. Once it is ready, only the loss of the way to it does (`LinkError`): what else fails then is a test's verdict
on its firmware. The end of a virtual board's process latches nothing: the next run starts another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from harness.errors import HarnessError, LabError, LinkError
from harness.rack.health import HealthBook, latches, mend_command
from harness.say import Say


class BoardWatch:
    """One board of boards.yaml in one run."""

    def __init__(
        self,
        book: HealthBook,
        name: str,
        *,
        run: str,
        say: Say,
        starts_anew: Callable[[HarnessError], bool] = lambda _error: False,
    ) -> None:
        """`run` is what this run is called where others read of it. `starts_anew` says of an error that it is only the
        end of a virtual board's process, or of a place that labgrid lent: the next run starts another."""
        self._book = book
        self._name = name
        self._run = f"{run} (process {os.getpid()})"
        self._say = say
        self._starts_anew = starts_anew
        self._ready = False

    @property
    def refusal(self) -> str | None:
        """Why a test must not begin on this board: it is latched broken; None: it is not."""
        health = self._book.of(self._name)
        if health.broken is None:
            return None
        return f"{health.text()}; to clear that: {mend_command(self._name)}"

    def warn(self) -> None:
        """Tells a person who named a board that is latched, or retired: it is tried all the same."""
        health = self._book.of(self._name)
        if health.retired is not None:
            self._say.line(f"{health.retired_text()}; it was named, and is used all the same")
        if health.broken is not None:
            self._say.line(f"{health.text()}; it is tried all the same, and mended if it works")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While the board is opened, prepared and used: what ends the block may latch it."""
        try:
            yield
        except HarnessError as error:
            self.failed(error)
            raise

    def ready(self) -> None:
        """The board is prepared and its firmware is up: it is not broken, whatever was known of it."""
        self._ready = True
        if self._book.of(self._name).broken is not None:
            try:
                self._book.mend(self._name)
            except LabError as error:
                self._say.line(str(error))
            else:
                self._say.line(f"board {self._name} works again: it is not latched broken any more")

    def failed(self, error: BaseException, *, answers: bool = True) -> bool:
        """Latches the board if `error` is one that does; says whether.

        `answers`: False where a ready board did not come back although it was reset and flashed again.
        """
        if not (isinstance(error, LinkError) or (latches(error) and not (self._ready and answers))):
            return False
        assert isinstance(error, HarnessError)
        if self._starts_anew(error):
            return False
        try:
            self._book.latch(self._name, error.message, self._run)
        except LabError as unwritten:
            # What went wrong with the board is what is told, not this.
            self._say.line(str(unwritten))
            return False
        self._say.line(
            f"board {self._name} is latched broken from now on; to clear that: {mend_command(self._name)}"
        )
        return True
