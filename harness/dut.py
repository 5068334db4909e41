"""pytest-embedded's `Dut` on a harness board.

What a test author already knows (``expect``, ``expect_exact``, ``write``) works on the board's link, without a ROM
sync, so also where UART download is locked. Our one reader feeds the process that pexpect reads; there is no
listener process and no second reader of the port.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, AnyStr, NoReturn

from pexpect import EOF, TIMEOUT
from pytest_embedded import App, Dut
from pytest_embedded.log import PexpectProcess
from pytest_embedded.unity import TestSuite

from harness.console.reader import Console
from harness.errors import NotApplicableError

_GONE = "the board's port has gone"

REFUSED = {
    # what of pytest-embedded's serial and Dut goes round the harness: what does it here
    "flash": "the harness flashes a board before its first test: name the build with --app DIR",
    "erase_flash": "erasing would take the board's keys and records apart: demand a profile instead",
    "erase_partition": "name the partition with `harness provision --erase LABEL`",
    "write_flash": "name the build with --app DIR",
    "bootloader_flash": "name the build with --app DIR",
    "load_ram": "a board with flash encryption runs nothing from RAM",
    "dump_flash": "what lies in flash is ciphertext; board.slot_digest() compares it",
    "read_flash_elf_sha256": "the board's record says what was flashed: dut.app",
    "run_all_single_board_cases": "the app has no Unity menu that the harness knows; use expect_unity_test_output()",
}


def _refuse(what: str) -> NoReturn:
    raise NotApplicableError(f"'{what}' is not for boards of the harness", todo=REFUSED[what])


class DutSerial:
    """The part of pytest-embedded's ``dut.serial`` that needs no ROM."""

    def __init__(self, port: Any, hard_reset: Callable[[], None], target: str | None = None) -> None:
        self.proc = port
        self.target = target
        self._hard_reset = hard_reset

    @property
    def port(self) -> str:
        """Name of the port; it is the board's, and open: opening it a second time would fail."""
        return str(getattr(self.proc, "port", None) or getattr(self.proc, "name", ""))

    @property
    def baud(self) -> int:
        return int(getattr(self.proc, "baudrate", 115200))

    def hard_reset(self) -> None:
        """Resets the board into its firmware."""
        self._hard_reset()

    def __getattr__(self, name: str) -> Any:
        if name in REFUSED:
            return lambda *_args, **_kwargs: _refuse(name)
        raise AttributeError(
            f"dut.serial of a harness board has no '{name}'; there are hard_reset, port, proc, baud"
        )


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

    The stock ``Dut.write`` puts bytes into the log queue; only the subclasses for serial services override it. One
    object lives as long as its board is open; `renew` gives it an empty buffer and a board that has just restarted.
    """

    def __init__(
        self,
        console: Console,
        hard_reset: Callable[[], None],
        *,
        name: str,
        test: str,
        log: Path,
        app: App | None = None,
        target: str | None = None,
    ) -> None:
        self._console = console
        self._hard_reset = hard_reset
        self.before_use: Callable[[], None] = lambda: None
        """Called before anything is expected or written; see `harness.embedded.fixtures`."""
        self._attach()
        super().__init__(
            pexpect_proc=self.pexpect_proc,
            msg_queue=_LogNotes(console),
            app=app or App(),
            pexpect_logfile=str(log),
            test_case_name=test,
        )
        self.serial = DutSerial(console.port, self._reset_when_due, target)
        self.name = name
        self.target = target

    @property
    def logdir(self) -> str:
        """Folder of the board's log, for files of a test's own."""
        return str(Path(self.logfile).parent)

    def renew(self, test: str) -> None:
        """A new turn: what was not read of the log so far is forgotten, and the board restarts."""
        self._detach()
        self._attach()
        self.begin_test(test)
        self._hard_reset()

    def rest(self) -> None:
        """The turn is over: the log is read no more until the next one."""
        self._detach()

    def begin_test(self, test: str) -> None:
        """From now on Unity's results are those of `test`; the log goes on."""
        self.test_case_name = test
        self.testsuite = TestSuite(test)

    def expect(self, *args: Any, **kwargs: Any) -> Any:
        """pytest-embedded's `expect`; a failure shows the test's line, not the insides of pexpect."""
        __tracebackhide__ = True
        self.before_use()
        return self._told(super().expect, *args, **kwargs)

    def expect_exact(self, *args: Any, **kwargs: Any) -> Any:
        """pytest-embedded's `expect_exact`; failures as with `expect`."""
        __tracebackhide__ = True
        self.before_use()
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
        self.before_use()
        self._console.write(s if isinstance(s, bytes) else s.encode() + b"\n")

    def run_all_single_board_cases(self, *_args: Any, **_kwargs: Any) -> None:
        """Not here: says what there is instead."""
        _refuse("run_all_single_board_cases")

    def close(self) -> None:
        """Stops the feed; the board's console goes on."""
        super().close()
        self._detach()

    def _reset_when_due(self) -> None:
        self.before_use()
        self._hard_reset()

    def _attach(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._stop_feeding = self._console.feed_to(self._ours)
        self.pexpect_proc = _EndingProcess(self._theirs.detach(), timeout=30)

    def _detach(self) -> None:
        self._stop_feeding()
        self._ours.close()
        self.pexpect_proc.close()
