"""No port of a USB hub is cut while a board on it burns eFuses.

Whoever burns holds a lock file with the hub's location in its name; whoever cuts makes sure that nobody holds one
at or below its hub. Both are held by open files, so they die with their holder, and lie where all users of the machine
see them: a hub is nobody's own.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import LabError
from harness.lock_file import LockFile, LockHeldError, advice_for
from harness.lock_note import Note
from harness.locks import PREFIX, shared_folder

WAIT_S = 60.0
"""A burn takes seconds. Whoever wants to cut waits that long for it, and no longer."""

_POLL_S = 0.1

_BURNING = f"{PREFIX}.burning."
"""What the name of a lock file begins with whose holder burns; hub, board and user follow."""


def hub_and_port(usb_location: str) -> tuple[str, int] | None:
    """The hub of a USB location and the number of its port, in uhubctl's spelling; None: this is no location.

    ``1-1.4:1.0`` is port 4 of hub ``1-1``; ``1-4`` is port 4 of the root hub ``1``.
    """
    found = re.fullmatch(r"(\d+)-((?:\d+\.)*)(\d+)(?::.*)?", usb_location)
    if found is None:
        return None
    bus, chain, port = found.groups()
    return (f"{bus}-{chain[:-1]}" if chain else bus), int(port)


def is_at_or_below(hub: str, other: str) -> bool:
    """Whether hub `other` is `hub`, or gets its supply through it."""
    if hub == other:
        return True
    return other.startswith(f"{hub}-" if "-" not in hub else f"{hub}.")


class HubGuard:
    """The lock files of all hubs of this machine, in one folder that all its users share."""

    def __init__(self, folder: Path | None = None, *, wait_s: float = WAIT_S) -> None:
        self._folder = folder or shared_folder()
        self._wait_s = wait_s

    @contextmanager
    def burning(self, hub: str, board: str) -> Iterator[None]:
        """Keeps the supply of `hub` up while the block lasts. Several boards may burn at a time.

        Raises:
            LabError: a port of it is being cut, and that does not end.
        """
        # Two users may call their boards alike.
        mine = LockFile(self._folder / f"{_BURNING}{hub}.{_file_name(board)}-{_user_id()}")
        # Those who cut hold this one from their look at the others until the cut is done.
        with self._held(self._cut_lock, f"a port of a hub is being cut (wanted: eFuses on hub {hub})", board):
            self._take(mine, f"this board already burns eFuses on hub {hub}", board)
        try:
            yield
        finally:
            mine.release()

    @contextmanager
    def cutting(self, hub: str, board: str | None = None) -> Iterator[None]:
        """Waits until nobody burns at or below `hub`, and lets nobody begin while the block lasts.

        Raises:
            LabError: a burn does not end in time; names the board.
        """
        deadline = time.monotonic() + self._wait_s
        while True:
            with self._held(self._cut_lock, "a port of another hub is being cut", board):
                busy = self._boards_burning(hub)
                if not busy:
                    yield
                    return
            if time.monotonic() >= deadline:
                raise LabError(
                    f"no port of hub {hub} may be cut: {', '.join(busy)} burns eFuses on it",
                    board=board,
                    todo="wait for that run to end",
                )
            time.sleep(_POLL_S)

    @property
    def _cut_lock(self) -> LockFile:
        return LockFile(self._folder / f"{PREFIX}.hubs.cutting")

    def _boards_burning(self, hub: str) -> list[str]:
        boards = []
        for path in sorted(self._folder.glob(f"{_BURNING}*")):
            where, _, name = path.name.removeprefix(_BURNING).rpartition(".")
            if is_at_or_below(hub, where) and (holder := _holder(path)) is not None:
                boards.append(holder.note.board if holder.note else name)
        return boards

    @contextmanager
    def _held(self, lock: LockFile, otherwise: str, board: str | None) -> Iterator[None]:
        self._take(lock, otherwise, board)
        try:
            yield
        finally:
            lock.release()

    def _take(self, lock: LockFile, otherwise: str, board: str | None) -> None:
        deadline = time.monotonic() + self._wait_s
        while True:
            try:
                lock.acquire(Note.of_this_process(board or "", "a USB hub"))
            except LockHeldError as held:
                if time.monotonic() >= deadline:
                    raise LabError(
                        f"{otherwise}; by {held.holder}", board=board, todo="wait for the other run to end"
                    ) from None
                time.sleep(_POLL_S)
            except OSError as error:
                raise LabError(
                    f"the lock {lock.path} cannot be taken: {error.strerror or error}",
                    board=board,
                    todo=advice_for(lock.path, error),
                ) from error
            else:
                return


def _file_name(board: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", board)


def _user_id() -> int:
    return os.getuid() if os.name == "posix" else 0


def _holder(path: Path) -> LockHeldError | None:
    """Who burns there; None: nobody, whoever left this file."""
    lock = LockFile(path)
    try:
        lock.acquire(Note.of_this_process("", "a look at a USB hub"))
    except LockHeldError as held:
        return held
    except OSError:
        # Planted, or gone: no lock of ours.
        return None
    lock.release()
    return None
