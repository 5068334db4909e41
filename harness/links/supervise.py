"""Runs one program and ends it with the harness, however the harness ends.

Started as a script of its own: ``python -I -S supervise.py SIGNAL GRACE_S [--group] PROGRAM ARGUMENT…``. It holds the
read end of a pipe whose other end only the harness has: at the end of that stream the harness is gone, or wants the
program gone. The program then gets SIGNAL, and SIGKILL after GRACE_S seconds. Its process id is the one line on
standard output; what the program prints goes to standard error. Exits with the program's status, or 128 + the
number of the signal that ended it. With ``--group`` the program leads a group of its own, and whatever it started gets
the signals, too.

It imports nothing but the standard library: it must be up in milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

_NOT_STARTED = 127
"""What a shell says when there is no such program."""

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
"""Windows has no SIGKILL, and ends a program at SIGTERM."""

_PR_SET_PDEATHSIG = 1
"""``prctl(2)``."""


def main(arguments: list[str]) -> int:
    """Runs the program; returns its status."""
    ending = signal.Signals[arguments[0]]
    grace_s = float(arguments[1])
    group = arguments[2] == "--group"
    command = arguments[3:] if group else arguments[2:]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr.fileno(),
            preexec_fn=_with_parent(ending),
            start_new_session=group,
        )
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        return _NOT_STARTED
    os.write(1, f"{child.pid}\n".encode())
    send = partial(_to_group, child) if group else child.send_signal
    threading.Thread(target=_end_with_input, args=(child, send, ending, grace_s), daemon=True).start()
    status = child.wait()
    return 128 - status if status < 0 else status


def _to_group(child: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)


def _end_with_input(
    child: subprocess.Popen[bytes], send: Callable[[int], None], ending: signal.Signals, grace_s: float
) -> None:
    # Not through sys.stdin: a buffered reader that blocks in another thread stops the interpreter from ending.
    while os.read(0, 4096):
        pass
    send(ending)
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        send(_KILL)


def _with_parent(ending: signal.Signals) -> Callable[[], None] | None:
    """On Linux the program also gets `ending` when this process is killed. Elsewhere the pipe must do."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, int(ending), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie


if __name__ == "__main__":
    # No clean-up at exit: the thread that reads standard input never ends by itself.
    os._exit(main(sys.argv[1:]))
