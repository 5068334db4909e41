"""A board is leased to a process: for a few minutes, and for as long as the process lives it says so again.

The lock is the operating system's and needs no renewal: it is free the moment its holder is dead, and nobody else's
before that, whatever the lease says. What is renewed is what others are told: a holder that is stopped, or hangs so that
not even its other threads run, shows as overdue.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.locks import BoardLock

LEASE_S = 300
"""What a lease is for, from its last renewal on."""

RENEW_S = 60.0
"""Between renewals. A missed one or two (a suspended laptop, a busy machine) are not yet overdue."""


@contextmanager
def leased(files: Iterable[Path], *, board: str, purpose: str, reason: str = "") -> Iterator[BoardLock]:
    """Holds the board with these lock files while the block lasts, and renews what others are told of it.

    Raises:
        InUseError: somebody else has it; the message names holder, process, reason, since and until when. LabError.
    """
    with BoardLock(files, board=board, purpose=purpose, reason=reason, lease_s=LEASE_S) as lock:
        _RENEWER.add(lock)
        try:
            yield lock
        finally:
            _RENEWER.remove(lock)


class _Renewer:
    """One thread of this process for all its leases; it sleeps almost always."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: weakref.WeakSet[BoardLock] = weakref.WeakSet()
        self._thread: threading.Thread | None = None

    def add(self, lock: BoardLock) -> None:
        with self._guard:
            self._locks.add(lock)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._renew, name="lease-renewal", daemon=True)
                self._thread.start()

    def remove(self, lock: BoardLock) -> None:
        with self._guard:
            self._locks.discard(lock)

    def _renew(self) -> None:
        # Never set: what is waited for is the time, by a clock that nobody sets.
        never = threading.Event()
        while not never.wait(RENEW_S):
            with self._guard:
                locks = list(self._locks)
            for lock in locks:
                lock.renew()

    def forget(self) -> None:
        """In a forked child, where the locks stay with the parent, and its thread, which may have held the guard."""
        self._guard = threading.Lock()
        self._locks = weakref.WeakSet()
        self._thread = None


_RENEWER = _Renewer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_RENEWER.forget)
