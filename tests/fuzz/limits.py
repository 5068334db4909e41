"""How long one input may take and how much memory a fuzzer may use."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

if sys.platform != "win32":
    import resource


class Hang(BaseException):
    """An input took more CPU time than its target allows."""


@contextmanager
def cpu_limit(limit_s: float) -> Iterator[None]:
    """Raises `Hang` in the block after `limit_s` seconds of this process's CPU time; main thread, POSIX only.

    CPU time, because a fuzzer yields to everything else on its machine.
    """
    if sys.platform == "win32":
        yield
        return

    def strike(_signal: int, _frame: FrameType | None) -> None:
        raise Hang(f"more than {limit_s:g} s of CPU time")

    before = signal.signal(signal.SIGPROF, strike)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def limit_memory(size_bytes: int) -> None:
    """Lets allocations of this process fail beyond `size_bytes` of address space; does nothing on Windows."""
    if sys.platform != "win32":
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
