"""Records a run: every process appends what it knows, and at the end, or after a kill, the parts become one record."""

from __future__ import annotations

import getpass
import os
import platform
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.errors import HarnessError
from harness.history.keeping import begin_run, keep_run
from harness.history.past_phases import past_phases
from harness.history.queries import PhaseSeries
from harness.home import Home
from harness.report.merging import merged
from harness.report.parts import PartWriter, fields_of, read_parts
from harness.report.run_record import BoardRecord, RunRecord, TestRecord
from harness.report.writing import write_run

if TYPE_CHECKING:
    from harness.board import Board
    from harness.report.board_watch import BoardWatch

ARTEFACTS = "artefacts"
"""Under HARNESS_HOME: the folders of runs that were not given one."""

MAIN = "main"
"""The process that began the run, and ends it."""


def new_id() -> str:
    """Sorts by time, unique on a machine."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def head_of(kind: str, subject: str, command: Sequence[str], *, run_id: str | None = None) -> dict[str, Any]:
    """What is known of a run when it begins, as fields of `RunRecord`; every process of it writes the same."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # A container's user without a name.
        user = str(os.getuid()) if hasattr(os, "getuid") else ""
    return {
        "id": run_id or new_id(),
        "kind": kind,
        "subject": subject,
        "command": shlex.join(command),
        "began_s": round(time.time(), 3),
        "user": user,
        "host": socket.gethostname(),
        # Not of the record: whether the run is still under way.
        "pid": os.getpid(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"harness": harness.__version__, "python": platform.python_version(), "platform": sys.platform}
    for name in ("esptool", "pytest", "pytest-embedded", "pytest-xdist"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


class Recorder:
    """What one process adds to the record of a run. Nothing here raises for want of space or permission."""

    def __init__(
        self,
        folder: Path,
        head: Mapping[str, Any],
        *,
        process: str = MAIN,
        tell: Callable[[str], None] = lambda _: None,
        eager: bool = True,
    ) -> None:
        """`head` is of `head_of`. With `eager` False there is no folder before `open`. `tell` gets what fails."""
        self.folder = folder
        self.head = dict(head)
        self._part = PartWriter(folder, process, tell=tell, eager=eager)
        self._part.write("run", run=self.head)
        self._watches: dict[str, BoardWatch] = {}
        self._tell = tell
        self._begins = True
        if eager:
            self._begin()

    @property
    def is_open(self) -> bool:
        """Whether anything of this process is on disk."""
        return self._part.is_open

    @property
    def failure(self) -> str | None:
        """Why this process's part cannot be written, in a sentence; None: it can."""
        return self._part.failure

    def open(self) -> None:
        """From now on everything is written, and what waited, too."""
        self._part.open()
        self._begin()

    def _begin(self) -> None:
        if self._begins and self.is_open:
            self._begins = False
            begin_run(self.head, self.folder, tell=self._tell)

    def opened(self, board: Board, *, name: str | None = None) -> BoardWatch:
        """A board of this run is open; `name` is what the record calls it."""
        # Who records a run in which no board is opened does not wait for what a board needs.
        from harness.report.board_watch import BoardWatch

        watch = BoardWatch(board, self.folder, name=name)
        self._watches[watch.name] = watch
        self.note_board(watch)
        return watch

    def note_board(
        self,
        watch: BoardWatch,
        *,
        problem: str | None = None,
        prepared: TestRecord | None = None,
        again: bool = False,
    ) -> None:
        """Writes what has become known of a board: facts that changed, and new boots."""
        facts = watch.new_facts(again=again)
        if facts is not None:
            self._part.write("board", board=fields_of(facts))
        if prepared is not None:
            self._part.write("board", board={"name": watch.name, "prepared": fields_of(prepared)})
        self._note_boots(watch, watch.new_boots())
        if problem is not None:
            self._part.write("board", board={"name": watch.name, "problem": problem})

    def _note_boots(self, watch: BoardWatch, boots: list[dict[str, Any]]) -> None:
        if boots:
            self._part.write("boots", board=watch.name, opening=id(watch), boots=boots)

    def not_opened(self, facts: BoardRecord) -> None:
        """A board that tests wanted and did not get, and why."""
        self._part.write("board", board=fields_of(facts))

    def planned(self, tests: int) -> None:
        """How many tests there are to run: should all be killed, it is known how many never began."""
        self._part.write("planned", tests=tests)

    def closing(self, watch: BoardWatch) -> None:
        """The board is about to be closed."""
        self.note_board(watch, again=True)
        # What follows from boots together is known at the end.
        self._note_boots(watch, watch.new_boots(whole=True))
        self._part.write("board", board={"name": watch.name, "findings": list(watch.findings())})
        self._watches.pop(watch.name, None)

    def began(
        self,
        test_id: str,
        name: str,
        *,
        board: str | None = None,
        profile: str | None = None,
        repeat: str | None = None,
    ) -> None:
        """A test begins: should this process be killed in it, that much is known."""
        self._part.write("began", id=test_id, name=name, board=board, profile=profile, repeat=repeat)

    def test(self, record: TestRecord) -> None:
        """A test has ended."""
        self._part.write("test", test=fields_of(record))

    def note(self, text: str) -> None:
        """Something that belongs to the whole run."""
        self._part.write("note", text=text)

    def qualification(self, fields: dict[str, Any]) -> None:
        """What becomes `RunRecord.qualification`."""
        self._part.write("qualification", qualification=fields)

    def ended(self, reason: str | None = None, *, verdict: str | None = None, failed: bool = False) -> None:
        """The run is over, by its own account; only the process that began it says so.

        `reason`: why it is over before its time. `verdict` overrules what follows from the tests; `failed`: something
        has that is no test.
        """
        self._part.write("end", reason=reason, verdict=verdict, failed=failed)

    def close(self) -> None:
        """This process adds no more."""
        self._part.close()


def finish(
    recorder: Recorder,
    *,
    reason: str | None = None,
    verdict: str | None = None,
    failed: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> RunRecord | None:
    """Ends the run: its parts become its record, and everything that is made from that. None: that cannot be written.

    `tell` gets a sentence for each thing that could not be done.
    """
    recorder.ended(reason, verdict=verdict, failed=failed)
    recorder.close()
    try:
        run = merged(read_parts(recorder.folder))
        # Its own phases are among those that its report draws.
        keep_run(run, recorder.folder, tell=tell)
        write_run(run, recorder.folder, past=_past_of(run))
    except (HarnessError, OSError) as error:
        tell(f"the record of this run cannot be written into {recorder.folder}: {error}")
        return None
    return run


def _past_of(run: RunRecord) -> tuple[PhaseSeries, ...]:
    """Of a qualification, which is sealed and signed, nothing: what other runs took is no evidence of it."""
    return () if run.qualification is not None else past_phases(run, Home.of_user())


def rebuild(folder: Path) -> RunRecord:
    """Makes the record of the run in `folder` from its parts, also after a kill, and writes ``run.json`` and the rest.

    Without parts it reads ``run.json``.

    Raises:
        UsageError: the folder holds no run.
    """
    run = merged(read_parts(folder))
    write_run(run, folder, past=_past_of(run))
    return run
