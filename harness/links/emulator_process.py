"""One emulator, as a process that does not outlive the harness."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from harness.links import supervise
from harness.links.environment import child_environment

GRACE_S = 5.0
"""How long an emulator that is asked to end may take to write its files."""

_KEPT_LINES = 40


class EmulatorProcess:
    """Starts `command` under `harness.links.supervise`; `stop` ends it in order.

    ``end_with`` is the signal at which the program writes its files and ends.
    """

    def __init__(self, command: Sequence[str], *, end_with: signal.Signals = signal.SIGTERM) -> None:
        self.command = tuple(command)
        script = [sys.executable, "-I", "-S", str(Path(supervise.__file__))]
        self._process = subprocess.Popen(
            [*script, end_with.name, str(GRACE_S), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(),
            # A Ctrl-C at the terminal is for the harness, which then ends the emulator in order.
            start_new_session=True,
        )
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = threading.Thread(target=self._keep_lines, name="emulator-stderr", daemon=True)
        self._reader.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        self.pid = int(line) if line else None
        """Process id of the program itself; None: it could not be started."""

    def _keep_lines(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as stream:
            for raw in stream:
                self._lines.append(raw.decode(errors="replace").rstrip())

    @property
    def status(self) -> int | None:
        """Exit status of the program, 128 + n for signal n; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The exit status, if the program ends within `timeout_s` seconds."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def obituary(self) -> str:
        """How it ended and what it said last, for an error message."""
        status = self.wait(1.0)
        if status is None:
            return f"it still runs (process {self.pid})"
        self._reader.join(1.0)
        end = _signal_name(status - 128) if status > 128 else f"status {status}"
        how = f"it ended with {end}"
        said = "; ".join(line for line in self._lines if line)
        return f"{how}: {said}" if said else f"{how} and said nothing"

    def stop(self) -> None:
        """Ends the program in order, or by force when it does not; may be called twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        if self.wait(GRACE_S + 2.0) is None:
            # The supervisor itself hangs: at its death the program gets its signal from the kernel.
            self._process.kill()
            self._process.wait()
        if self._process.returncode < 0 and self.pid is not None:
            # The supervisor was killed, and with it whoever sees to it that a program that hears no signal ends.
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._reader.join(1.0)
        if self._process.stdout is not None:
            self._process.stdout.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
