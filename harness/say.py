"""Progress for a person while something works; colour only on a terminal, nothing at all for machines."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import click


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a run: its name, how long it took in seconds, and bytes on the UART meanwhile."""

    name: str
    seconds: float
    uart_bytes: int


@dataclass(slots=True)
class Say:
    """Prints steps to `stream`; with ``quiet`` it only keeps the phases."""

    quiet: bool = False
    phases: list[Phase] = field(default_factory=list)
    started_s: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def line(self, text: str = "", *, style: str | None = None) -> None:
        """One line to standard error, so that ``--json`` output stays clean."""
        if self.quiet:
            return
        # A terminal that was closed, a full disk: what cannot be told stops no work, least of all between a burn and
        # the record of it.
        with self._lock, suppress(OSError):
            click.echo(click.style(text, fg=style) if style else text, err=True)

    def step(self, text: str) -> None:
        """A step begins; stamped with the seconds since the run began."""
        self.line(f"{click.style(f'{time.monotonic() - self.started_s:6.1f} s', dim=True)}  {text}")

    def detail(self, text: str) -> None:
        """Something worth knowing about the step under way."""
        self.line(f"          {text}")

    @contextmanager
    def phase(self, name: str, uart_bytes: Callable[[], int]) -> Iterator[None]:
        """Times what happens inside, and counts the bytes that `uart_bytes` gained."""
        began, bytes_before = time.monotonic(), uart_bytes()
        try:
            yield
        finally:
            self.phases.append(Phase(name, time.monotonic() - began, uart_bytes() - bytes_before))


def is_terminal() -> bool:
    """Whether a person is looking."""
    return sys.stderr.isatty()
