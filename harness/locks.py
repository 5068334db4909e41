"""One board, one user: a lock that dies with its holder and says who holds it.

It is tied to the device and not to whoever wants it. A physical board is locked under each of its names (`harness.links.
device_names`) in a folder that all users of the machine share; a virtual one in its own state folder, whatever path leads
there. Two boards.yaml, two HARNESS_HOMEs or two users that mean one board get one lock.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from harness.errors import InUseError, LabError
from harness.lock_file import LockFile, LockHeldError, advice_for
from harness.lock_note import Note

STATE_LOCK = "board.lock"
"""In the state folder of a virtual board, held for the whole run; its twin or emulator holds ``lock`` while it lives."""

PREFIX = "esp32-harness"
"""What the names of our files begin with, in folders that are not ours alone."""

_SHARED_FOLDERS = ("/run/lock", "/var/lock", "/tmp", "/var/tmp")  # noqa: S108 - checked below, and files are never trusted
"""Where every user may make files and nobody may take away another's. Not TMPDIR: it differs from user to user."""

_NAME_LENGTH = 100


def shared_folder() -> Path:
    """The folder for what all users of this machine must see alike, whoever asks.

    Raises:
        LabError: none of the usual ones is owned by root, sticky and writable for all.
    """
    if os.name == "nt":
        return Path(tempfile.gettempdir())
    for name in _SHARED_FOLDERS:
        folder = Path(os.path.realpath(name))
        try:
            status, read_only = folder.stat(), os.statvfs(folder).f_flag & os.ST_RDONLY
        except OSError:
            continue
        if status.st_uid == 0 and stat.S_IMODE(status.st_mode) == 0o1777 and not read_only:
            return folder
    raise LabError(
        "there is no folder for locks that all users of this machine share",
        todo=f"make one of {', '.join(_SHARED_FOLDERS)} owned by root with mode 1777",
    )


def lock_files(names: Iterable[str], folder: Path | None = None) -> tuple[Path, ...]:
    """The lock files of a device with these names, one each, in `folder` (default: the shared one)."""
    where = folder or shared_folder()
    return tuple(where / f"{PREFIX}.{_file_name(name)}.lock" for name in sorted(set(names)))


def _file_name(name: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    if safe == name and len(safe) <= _NAME_LENGTH:
        return safe
    # What was cut off or replaced must still tell two names apart.
    return f"{safe[-_NAME_LENGTH:]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


class BoardLock:
    """An exclusive lock on one device, on all `files` or none."""

    def __init__(
        self, files: Iterable[Path], *, board: str, purpose: str, reason: str = "", lease_s: int = 0
    ) -> None:
        """`reason` says more than the purpose; `lease_s` is how long it is for unless it is renewed (0: not said)."""
        self._files = tuple(files)
        self._board = board
        self._purpose = purpose
        self._reason = reason
        self._lease_s = lease_s
        self._held: list[LockFile] = []

    def acquire(self) -> BoardLock:
        """Takes the lock at once or not at all.

        Raises:
            LabError: somebody else has it; the message names holder, process and since when.
        """
        try:
            self.extend(self._files)
        except LabError:
            self.release()
            raise
        return self

    def extend(self, files: Iterable[Path]) -> None:
        """Also locks `files`: the device has told another name of itself. What is held already stays so.

        Raises:
            LabError: as `acquire`; nothing is let go.
        """
        mine = {lock.path for lock in self._held}
        for path in files:
            if path not in mine:
                lock = LockFile(path)
                self._take(lock)
                self._held.append(lock)

    def _take(self, lock: LockFile) -> None:
        try:
            lock.acquire(
                Note.of_this_process(self._board, self._purpose, reason=self._reason, lease_s=self._lease_s)
            )
        except LockHeldError as held:
            raise self._refusal(held) from None
        except OSError as error:
            raise LabError(
                f"the lock {lock.path} cannot be taken: {error.strerror or error}",
                board=self._board,
                todo=advice_for(lock.path, error),
            ) from error

    def _refusal(self, held: LockHeldError) -> InUseError:
        if held.note is not None and held.note.pid == os.getpid() and held.note.board != self._board:
            return InUseError(
                f"this run has the device open already, as board {held.note.board}",
                board=self._board,
                todo="name it once: both entries of boards.yaml mean the same device",
            )
        return InUseError(
            f"in use by {held.holder}", board=self._board, todo="wait for that job to end, or end it"
        )

    def renew(self) -> None:
        """Puts off the end that others are told; from any thread. Whoever lives holds the lock, renewed or not."""
        for lock in tuple(self._held):
            lock.renew(self._lease_s)

    def release(self) -> None:
        """Lets go; may be called twice."""
        while self._held:
            self._held.pop().release()

    def __enter__(self) -> BoardLock:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
