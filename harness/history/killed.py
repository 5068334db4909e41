"""Runs that were killed: what they had done by then is in their parts; the next look at the history takes it in."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import suppress
from pathlib import Path

from harness.errors import HarnessError
from harness.history.history import History
from harness.history.keeping import UNDER_WAY
from harness.history.run_folders import run_folder
from harness.home import Home


def take_in_killed(home: Home) -> list[str]:
    """Takes runs of this host in that began, did not end, and whose processes are gone; their ids.

    Their folders get the record and the report that they had not come to. What cannot be read stays as it is.
    """
    # The recorder uses the history.
    from harness.report.recorder import rebuild

    history = History.of(home)
    taken: list[str] = []
    for run_id, folder in _begun(history):
        with suppress(HarnessError, OSError):
            found = run_folder(folder, run_id)
            if found is not None and found.ended and history.record(rebuild(folder), folder) is None:
                taken.append(run_id)
    return taken


def _begun(history: History) -> list[tuple[str, Path]]:
    try:
        with history.reading() as database:
            rows = database.execute(
                "SELECT id, folder FROM runs WHERE ended_s IS NULL AND reason = ? AND host = ? AND folder NOT NULL",
                (UNDER_WAY, socket.gethostname()),
            ).fetchall()
    except (HarnessError, sqlite3.Error):
        return []
    return [(str(run_id), Path(folder)) for run_id, folder in rows]
