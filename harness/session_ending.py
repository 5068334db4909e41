"""How a pytest session ends when it is told to by a signal: as after Ctrl-C, in every process of it."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any

import pytest
from pytest_embedded.log import MessageQueueManager

from harness.interruption import STOPPING, Interrupted, listen, stop_listening
from harness.parent_death import end_with_parent, watch_parent

SIGNALS = tuple(number for number in STOPPING if number != signal.SIGINT)
"""SIGINT is pytest's own."""


class SessionEnding:
    """A plugin of one session. Boards are closed in order; a fuse burn that has begun is finished before."""

    def __init__(self, config: pytest.Config) -> None:
        """From now on SIGTERM interrupts, and a worker of pytest-xdist ends with its controller."""
        self._interrupted: Interrupted | None = None
        self._workers: list[int] = []
        _tie_queue_server()
        if threading.current_thread() is not threading.main_thread():
            return
        listen(SIGNALS)
        config.add_cleanup(lambda: stop_listening(SIGNALS))
        if hasattr(config, "workerinput"):
            # execnet gives an abandoned worker five seconds before it interrupts it.
            end_with_parent(signal.SIGTERM)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Keeps the signal, for the exit status."""
        self._interrupted = excinfo.value if isinstance(excinfo.value, Interrupted) else None

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_newgateway(self, gateway: Any) -> None:
        """A worker has started; xdist itself asks for this, and keeps it."""
        self._workers.append(gateway._rinfo().pid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A controller hands the signal on to its workers, each of which has boards, before they are waited for."""
        if self._interrupted is None or hasattr(session.config, "workerinput"):
            return
        session.exitstatus = self._interrupted.exit_status
        for pid in self._workers:
            with suppress(OSError):
                os.kill(pid, signal.SIGTERM)


def _tie_queue_server() -> None:
    """pytest-embedded starts a server process in every session; of one that is killed it would stay for ever."""
    start = MessageQueueManager.start
    if getattr(start, "tied", False):
        return

    def tied(manager: MessageQueueManager) -> None:
        start(manager, initializer=watch_parent)

    tied.tied = True  # type: ignore[attr-defined]
    MessageQueueManager.start = tied
