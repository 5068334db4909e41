"""One board, one user: a lock that dies with its holder and says who holds it."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.errors import LabError

NOTE_TIMEOUT_S = 1.0
"""The holder writes its note right after it has the lock; until then the note is that of an earlier, dead one."""


class BoardLock:
    """An exclusive lock on one device, held by an open file: the operating system frees it at death.

    The lock's key is the device (its port or state folder), not the name somebody gave it.
    """

    def __init__(self, folder: Path, key: str, *, board: str, purpose: str) -> None:
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip("_")[-120:]
        self._path = folder / f"{safe}.lock"
        self._holder = folder / f"{safe}.holder"
        self._lock = FileLock(self._path)
        self._board = board
        self._purpose = purpose

    def acquire(self) -> BoardLock:
        """Takes the lock at once or not at all.

        Raises:
            LabError: somebody else has it; the message names holder, process and since when.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise LabError(
                f"in use by {self.holder()}", board=self._board, todo="wait for that job to end, or end it"
            ) from error
        except OSError as error:
            raise LabError(f"the lock {self._path} cannot be taken: {error}", board=self._board) from error
        note = {
            "user": getpass.getuser(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "purpose": self._purpose,
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        self._holder.write_text(json.dumps(note), encoding="utf-8")
        return self

    def holder(self) -> str:
        """Who holds the lock, in words."""
        deadline = time.monotonic() + NOTE_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                note = json.loads(self._holder.read_text(encoding="utf-8"))
                if _may_live(note):
                    return f"{note['user']} (process {note['pid']}, {note['purpose']}, since {note['since']})"
            except (OSError, ValueError, KeyError, TypeError):
                pass
            time.sleep(0.02)
        return "another process"

    def release(self) -> None:
        """Lets go; may be called twice."""
        if self._lock.is_locked:
            self._holder.unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> BoardLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _may_live(note: dict[str, Any]) -> bool:
    """Whether the process of `note` can still be there; a killed one leaves its note behind."""
    if os.name != "posix" or note["host"] != socket.gethostname():
        return True
    try:
        os.kill(note["pid"], 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True
