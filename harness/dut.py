"""pytest-embedded's `Dut` on a harness board.

What a test author already knows (``expect``, ``expect_exact``, ``write``) works on the board's link, without a ROM
sync, so also where UART download is locked. Our one reader feeds the process that pexpect reads; there is no
listener process and no second reader of the port.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, AnyStr

from pexpect import EOF, TIMEOUT
from pytest_embedded import App, Dut
from pytest_embedded.log import PexpectProcess

from harness.console.reader import Console

_GONE = "the board's port has gone"


class DutSerial:
    """The part of pytest-embedded's ``dut.serial`` that needs no ROM."""

    def __init__(self, port: Any, hard_reset: Callable[[], None]) -> None:
        self.proc = port
        self._hard_reset = hard_reset

    def hard_reset(self) -> None:
        """Resets the board into its firmware."""
        self._hard_reset()


class _LogNotes:
    """Stands where pytest-embedded has its message queue: what is put goes into the board's log as a note."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def put(self, text: AnyStr) -> None:
        self._console.note(text.decode(errors="replace") if isinstance(text, bytes) else text)


class _EndingProcess(PexpectProcess):  # type: ignore[misc]
    """pytest-embedded reads a growing file and takes no bytes for "not yet"; of a feed they mean the end."""

    def read_nonblocking(self, size: int = 1, timeout: int = -1) -> bytes:
        data: bytes = super().read_nonblocking(size, timeout)
        if not data:
            raise EOF(_GONE)
        return data


class HarnessDut(Dut):  # type: ignore[misc]
    """A `Dut` whose writes reach the board.

    The stock ``Dut.write`` puts bytes into the log queue; only the subclasses for serial services override it.
    """

    def __init__(
        self, console: Console, hard_reset: Callable[[], None], *, name: str, test: str, log: Path
    ) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._console = console
        self._stop_feeding = console.feed_to(self._ours)
        super().__init__(
            pexpect_proc=_EndingProcess(self._theirs.detach(), timeout=30),
            msg_queue=_LogNotes(console),
            app=App(),
            pexpect_logfile=str(log),
            test_case_name=test,
        )
        self.serial = DutSerial(console.port, hard_reset)
        self.name = name

    def expect(self, *args: Any, **kwargs: Any) -> Any:
        """pytest-embedded's `expect`; a failure shows the test's line, not the insides of pexpect."""
        __tracebackhide__ = True
        return self._told(super().expect, *args, **kwargs)

    def expect_exact(self, *args: Any, **kwargs: Any) -> Any:
        """pytest-embedded's `expect_exact`; failures as with `expect`."""
        __tracebackhide__ = True
        return self._told(super().expect_exact, *args, **kwargs)

    @staticmethod
    def _told(wait: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            return wait(*args, **kwargs)
        except EOF as error:
            raise EOF(f"{error}\n{_GONE}") from None
        except TIMEOUT as error:
            raise TIMEOUT(str(error)) from None

    def write(self, s: AnyStr) -> None:
        """Writes to the board: text with a newline appended, bytes as they are (pytest-embedded's rule)."""
        self._console.write(s if isinstance(s, bytes) else s.encode() + b"\n")

    def close(self) -> None:
        """Stops the feed; the board's console goes on."""
        super().close()
        self._stop_feeding()
        self._ours.close()
        self.pexpect_proc.close()
