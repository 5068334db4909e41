"""The one family of errors a person gets to see.

Every error says what was being done, to which board, what was found and what to do next. The class decides
the exit code of the command line, so a CI job can tell a failing device from a failing lab.
"""

from __future__ import annotations

from typing import ClassVar


class HarnessError(Exception):
    """Base of all errors that are meant for a person; never carries key material.

    ``exit_code`` is what ``harness`` exits with: 1 a test failed, 3 the board or the lab failed, 4 refused,
    5 not proven, 2 wrong usage (click's own number).
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, board: str | None = None, todo: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.board = board
        self.todo = todo

    def __str__(self) -> str:
        where = f"board {self.board}: " if self.board else ""
        then = f"\n  what to do: {self.todo}" if self.todo else ""
        return f"{where}{self.message}{then}"


class UsageError(HarnessError):
    """The input is wrong: a YAML field, an argument, a file that is not what it should be."""

    exit_code = 2


class NotApplicableError(UsageError):
    """The question does not arise for this board or this app: a scenario that asks it is left out with this reason."""


class LabError(HarnessError):
    """The bench failed, not the device: a port missing or taken, a tool absent, a twin that died."""

    exit_code = 3


class LinkError(LabError):
    """The way to one board failed: its port is missing or gone, does not open or reset, its twin's process has ended."""


class InUseError(LabError):
    """Somebody else has the board; nothing is wrong with it."""


class BoardError(HarnessError):
    """The board did not do what a working board does: no answer, no boot, a protocol it does not speak."""

    exit_code = 3


class AppDownError(BoardError):
    """The app that somebody gave for the board does not come up on it; the board itself took it as any does."""


class RefusedError(HarnessError):
    """The harness refuses: consent is missing, the board has changed, the state cannot reach the profile."""

    exit_code = 4


class NotProvenError(HarnessError):
    """Nothing failed, but the evidence does not suffice for the claim."""

    exit_code = 5


class CheckFailedError(HarnessError):
    """The device did something that the check under way forbids."""

    exit_code = 1


class FormatError(UsageError):
    """Bytes or text that are not what their format demands; the message names offset and field."""
