"""A process that ends with its parent, however the parent ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1
"""``prctl(2)``."""


def end_with_parent(number: signal.Signals) -> None:
    """From now on this process gets signal `number` when its parent dies. Linux only; elsewhere it does nothing."""
    if sys.platform != "linux":
        return
    import ctypes

    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:
        # It died just before: nobody else will say so.
        os.kill(os.getpid(), number)


def watch_parent() -> None:
    """In a child of `multiprocessing`: ends it at once when its parent has died. Works wherever Python does."""
    threading.Thread(target=_end_after_parent, name="parent", daemon=True).start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
