"""Which leases of this state folder are held, for the run after one that was killed together with its agent."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from .task import Task

_UNREADABLE = (OSError, ValueError, KeyError, TypeError)
"""How a note is none: gone, half written, locked by its agent, or not ours."""


class LeaseNote:
    """A file that names an identity of ours and what it has asked for; locked as long as its agent lives."""

    def __init__(self, task: Task, identity: str) -> None:
        folder = Path(task.folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{identity.replace('/', '@')}.lease"
        self._file = self._path.open("a+")
        # Waits for nothing but another agent's short look at it.
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._fields: dict[str, Any] = {
            "coordinator": task.coordinator,
            "identity": identity,
            "place": task.held,
            "token": None,
            "host": os.uname().nodename,
            "pid": task.pid,
        }
        self.add()

    def add(self, **fields: str | None) -> None:
        """Before it is asked for: what may have to be given back."""
        self._fields.update(fields)
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(self._fields))
        self._file.flush()

    def remove(self) -> None:
        """Nothing is left to be given back."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._file.close()


def left_behind(task: Task) -> list[tuple[Path, dict[str, Any]]]:
    """Leases at the same coordinator whose agents and harnesses are dead: their files are there, and nobody holds them.

    A harness that lives is about to start another agent. A note of another host is that host's.
    """
    found = []
    for path in sorted(Path(task.folder).glob("*.lease")):
        with contextlib.suppress(*_UNREADABLE), path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fields = json.load(file)
            here = fields["coordinator"] == task.coordinator and fields["host"] == os.uname().nodename
            if here and not _lives(int(fields["pid"])):
                found.append((path, fields))
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True
