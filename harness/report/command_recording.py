"""The record of one command (``harness run``, ``harness qualify``): begun, watched, concluded, whatever ends it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.interruption import Interrupted, name_of
from harness.report.failure import cause_of
from harness.report.recorder import Recorder, finish, head_of
from harness.report.run_record import RunRecord
from harness.report.step_recording import StepRecording
from harness.report.verdict import Verdict
from harness.report.writing import REPORT_FILE


class CommandRecording:
    """What a command records; nothing before `into` says where."""

    def __init__(self, kind: str, subject: str, tell: Callable[[str], None]) -> None:
        self.run: RunRecord | None = None
        """The record, once the command is over."""
        self.folder: Path | None = None
        self._head = head_of(kind, subject, ["harness", *sys.argv[1:]])
        self._kind = kind
        self._tell = tell
        self._recorder: Recorder | None = None
        self._verdict: str | None = None
        self._reason: str | None = None

    @property
    def report(self) -> Path | None:
        """The report for people, once the command is over."""
        report = self.folder / REPORT_FILE if self.folder is not None else None
        return report if report is not None and report.exists() else None

    @property
    def recorder(self) -> Recorder:
        """For what is neither a board nor a step: notes."""
        assert self._recorder is not None
        return self._recorder

    def into(self, folder: Path) -> None:
        """The run's folder, which exists."""
        self.folder = folder
        self._recorder = Recorder(folder, self._head, tell=self._tell)

    @contextmanager
    def watching(self, board: Board) -> Iterator[StepRecording]:
        """`board` is one of this run; gives what its steps are recorded with."""
        watch = self.recorder.opened(board)
        try:
            yield StepRecording(self.recorder, watch, prefix=self._kind)
        finally:
            self.recorder.closing(watch)

    def conclude(self, verdict: Verdict) -> None:
        """The command's own verdict counts, not what follows from its steps."""
        self._verdict = verdict.word.lower()
        self._reason = verdict.reason

    def qualify(self, fields: dict[str, Any]) -> None:
        """What becomes `RunRecord.qualification`."""
        self.recorder.qualification(fields)

    def end(self, error: BaseException | None) -> None:
        """Boards are closed; the parts become the record."""
        if self._recorder is None:
            return
        reason, failed = self._reason, False
        if isinstance(error, KeyboardInterrupt):
            signal = name_of(error.number) if isinstance(error, Interrupted) else "SIGINT"
            reason = f"interrupted by {signal}"
        elif error is not None:
            reason, failed = cause_of(error), True
        verdict = self._verdict if error is None else None
        self.run = finish(self._recorder, reason=reason, verdict=verdict, failed=failed, tell=self._tell)


@contextmanager
def recorded_command(kind: str, subject: str, *, tell: Callable[[str], None]) -> Iterator[CommandRecording]:
    """Records a command of `kind` (``run``, ``qualify``); `tell` gets what cannot be written."""
    recording = CommandRecording(kind, subject, tell)
    try:
        yield recording
    except BaseException as error:
        recording.end(error)
        raise
    else:
        recording.end(None)
