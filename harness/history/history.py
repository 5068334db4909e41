"""The history of one HARNESS_HOME: takes runs in, and gives the questions of `harness.history.queries` a database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError
from harness.history.database import WAIT_S, Database
from harness.history.phases import phases_of, plain_board
from harness.home import Home
from harness.report.run_record import RunRecord, TestRecord

FOLDER = "history"
"""Under HARNESS_HOME."""

NOT_KEPT = "this run is not in the history"
"""What `History.record` says begins so when it could not."""

_LONGEST_TEXT = 2000


class History:
    """The history in `folder`; nothing is made before the first run is recorded."""

    def __init__(self, folder: Path, *, wait_s: float = WAIT_S) -> None:
        self.folder = folder
        self._wait_s = wait_s

    @classmethod
    def of(cls, home: Home, *, wait_s: float = WAIT_S) -> History:
        """The history of `home`."""
        return cls(home.root / FOLDER, wait_s=wait_s)

    def record(self, run: RunRecord, folder: Path | None = None) -> str | None:
        """Takes `run` in, with the folder of its artefacts; a run that is there already is replaced by what is known now.

        Never raises for what is wrong with the history: a run does not fail by it. What a person should know of it comes
        back as a sentence, None when there is nothing.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _, aside = Database(self.folder, wait_s=self._wait_s).write(
                lambda database: _take(database, run, folder)
            )
        except (HarnessError, OSError, sqlite3.Error, ValueError, ArithmeticError) as error:
            return f"{NOT_KEPT}: {error}"
        if aside is not None:
            return f"the history was damaged; it was put aside as {aside}, and a new one begins with this run"
        return None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for queries; it writes nothing, and nothing is made for it.

        Raises:
            HistoryError: the history is damaged, too new, or busy for too long.
        """
        with Database(self.folder, wait_s=self._wait_s).reading() as database:
            yield database


def key_of_test(test: TestRecord) -> str:
    """One name of a test for all its boards, profiles and parameters of them: file and name."""
    path, separator, _ = test.id.partition("::")
    return f"{path}::{test.name}" if separator else test.id


def _take(database: sqlite3.Connection, run: RunRecord, folder: Path | None) -> None:
    number = _take_run(database, run, folder)
    if number is not None:
        _take_boards(database, number, run)
        _take_tests(database, number, run)
        _take_phases(database, number, run)


def _take_run(database: sqlite3.Connection, run: RunRecord, folder: Path | None) -> int | None:
    """Its number; None: what is there already is newer. What is there and older goes, with all that belongs to it."""
    known = database.execute(
        "SELECT run, ended_s FROM runs WHERE id = ? AND host = ?", (run.id, run.host)
    ).fetchone()
    if known is not None:
        if known[1] is not None and run.ended_s is None:
            # What was written while it ran comes after its end: the end counts.
            return None
        database.execute("DELETE FROM runs WHERE run = ?", (known[0],))
    return database.execute(
        "INSERT INTO runs (id, host, kind, subject, command, began_s, ended_s, verdict, reason, user, harness, folder)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            _text(run.id),
            _text(run.host),
            _text(run.kind),
            _text(run.subject),
            _text(run.command),
            run.began_s,
            run.ended_s,
            run.verdict,
            _text(run.reason),
            _text(run.user),
            _text(run.versions.get("harness", "")),
            None if folder is None else _text(str(folder.absolute())),
        ),
    ).lastrowid


def _take_boards(database: sqlite3.Connection, number: int, run: RunRecord) -> None:
    # Of several copies of one board the one with a problem counts.
    boards = sorted(run.boards, key=lambda board: board.problem is not None)
    database.executemany(
        "INSERT OR REPLACE INTO boards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number,
                _text(plain_board(board.name)),
                board.link,
                board.chip,
                int(board.virtual),
                board.mac,
                board.revision,
                board.profile,
                board.lock,
                _text(board.app.version) if board.app else None,
                board.app.sha256 if board.app else None,
                _text(board.app.idf_version or "") if board.app else None,
                None if board.problem is None else _text(board.problem),
            )
            for board in boards
        ],
    )


def _take_tests(database: sqlite3.Connection, number: int, run: RunRecord) -> None:
    firmware = {board.name: board.app.sha256 for board in run.boards if board.app}
    database.executemany(
        "INSERT INTO tests (run, id, test, name, board, profile, firmware_sha256, outcome, began_s, duration_s, cause)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number,
                _text(test.id),
                _text(key_of_test(test)),
                _text(test.name),
                None if test.board is None else _text(plain_board(test.board)),
                test.profile,
                firmware.get(test.board) if test.board else None,
                test.outcome,
                test.began_s,
                test.duration_s,
                None if test.cause is None else _text(test.cause),
            )
            for test in run.tests
        ],
    )


def _take_phases(database: sqlite3.Connection, number: int, run: RunRecord) -> None:
    database.executemany(
        "INSERT INTO phases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number,
                phase.board,
                phase.chip,
                _text(phase.name),
                phase.began_s,
                phase.times,
                phase.median_s,
                phase.longest_s,
                phase.size,
            )
            for phase in phases_of(run)
        ],
    )


def _text(text: str) -> str:
    """`text` as SQLite takes it: no lone surrogates (names of files may have them), and no more than a page."""
    return text[:_LONGEST_TEXT].encode("utf-8", "backslashreplace").decode()
