"""Key material as bytes that do not print themselves, and a process that leaves none of it in a core dump."""

from __future__ import annotations

import contextlib
import sys

if sys.platform != "win32":
    import resource


class KeyBytes(bytes):
    """Bytes like any others, but for what a traceback, a log or an f-string makes of them.

    What is cut or joined from them is plain `bytes` again: this is the second line of defence, not the first.
    """

    def __repr__(self) -> str:
        return f"<key, {len(self)} bytes>"

    def __str__(self) -> str:
        return repr(self)


def leave_no_core_dump() -> None:
    """From now on this process and its children write no core file: it would hold every key in memory.

    The limit is the soft one: whoever debugs a crash may raise it again.
    """
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
