"""What a run is doing on a board, in a file that only a run which was killed or interrupted leaves behind.

The next run says what it finds there. It is for people: what is to be done follows from the board, the vault's intent
and the device record alone. So it is written whole or not at all, and not synced.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.interruption import Interrupted, name_of
from harness.vault.record_file import TEMPORARY_SUFFIX

FORMAT = 1


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """The run before this one, as far as its note tells."""

    purpose: str
    """``harness provision``."""
    pid: int
    host: str
    since: str
    """When it began, UTC."""
    doing: str
    """``step 3/9 (burn the flash key into BLOCK_KEY0)``."""
    ended_by: str | None
    """The signal that it could still note; None: it was killed, or the power went."""

    def text(self) -> str:
        """For a person."""
        elsewhere = "" if self.host == socket.gethostname() else f" on {self.host}"
        end = f"was stopped by {self.ended_by}" if self.ended_by else "was killed"
        return (
            f"the run before this one ({self.purpose}, process {self.pid}{elsewhere}, begun {self.since}) {end} "
            f"{self.doing}; this run goes on from what it left"
        )


class RunNote:
    """The note of one run on one board. Make it while holding the board's lock."""

    def __init__(self, path: Path | None, purpose: str) -> None:
        """`path` is the board's file; None: nothing is kept of it (a throwaway twin)."""
        self._path = path
        self._purpose = purpose
        self._since = _now()
        self._doing: str | None = None
        self.earlier = _read(path) if path is not None else None
        """What the run before this one left; None: it came to its end."""

    def doing(self, what: str) -> None:
        """From now on the run does `what`: ``in step 3/9 (…)``, ``during the first boot``."""
        self._doing = what
        self._write(None)

    def interrupted(self, error: Interrupted) -> None:
        """The run ends here because of a signal; the note stays."""
        if self._doing is not None:
            error.where = error.where or self._doing
            self._doing = error.where
            self._write(name_of(error.number))

    def done(self) -> None:
        """The run has come to its end, good or bad, and has said so itself."""
        if self._path is not None and self._doing is not None:
            # A folder that is gone or full: the note is then the least of it.
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self, ended_by: str | None) -> None:
        if self._path is None:
            return
        fields = {
            "format": FORMAT,
            "purpose": self._purpose,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": self._since,
            "doing": self._doing,
            "ended_by": ended_by,
        }
        new = self._path.with_name(self._path.name + TEMPORARY_SUFFIX)
        # A note that cannot be written stops no work.
        with suppress(OSError):
            new.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
            new.replace(self._path)


def _read(path: Path) -> EarlierRun | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return EarlierRun(
            purpose=str(fields["purpose"]),
            pid=int(fields["pid"]),
            host=str(fields["host"]),
            since=str(fields["since"]),
            doing=str(fields["doing"]),
            ended_by=None if fields["ended_by"] is None else str(fields["ended_by"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        # Of another version, or damaged: that there was a run is all that can be said.
        return EarlierRun("its note cannot be read", 0, socket.gethostname(), "at a time unknown", "", None)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()) + " UTC"
