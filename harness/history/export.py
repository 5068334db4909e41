"""The history as JSON lines, for other tools: one object a line, runs by time, what belongs to a run right after it.

The first line is ``{"record": "history", "format": 1, …}``. Every other one has ``record`` (``run``, ``board``, ``test``,
``phase``) and, but for runs themselves, the ``run`` and ``host`` it belongs to. Moments are Unix seconds (UTC).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

import harness
from harness.history.queries import Scope

FORMAT = 1


def export_lines(database: sqlite3.Connection, scope: Scope | None = None) -> Iterator[str]:
    """The lines, without line ends. A `scope` of a board or a test leaves out the others' lines, not their runs."""
    scope = scope or Scope()
    yield _line("history", {"format": FORMAT, "harness": harness.__version__})
    runs = database.execute("SELECT * FROM runs WHERE began_s >= :since ORDER BY began_s, run", scope.values)
    for run in _objects(runs):
        number = run.pop("run")
        yield _line("run", run)
        of_run = {"run": run["id"], "host": run["host"]}
        values = {**scope.values, "run": number}
        for record, rows in (
            (
                "board",
                database.execute(
                    "SELECT * FROM boards WHERE run = :run AND (:board IS NULL OR board = :board) ORDER BY board",
                    values,
                ),
            ),
            (
                "test",
                database.execute(
                    """SELECT * FROM tests WHERE run = :run AND (:board IS NULL OR board = :board)
                    AND (:test IS NULL OR instr(id || ' ' || test, :test) > 0) ORDER BY number""",
                    values,
                ),
            ),
            (
                "phase",
                database.execute(
                    "SELECT * FROM phases WHERE run = :run AND (:board IS NULL OR board = :board) ORDER BY began_s",
                    values,
                ),
            ),
        ):
            for fields in _objects(rows):
                fields.pop("number", None)
                yield _line(record, fields | of_run)


def _objects(rows: sqlite3.Cursor) -> Iterator[dict[str, Any]]:
    names = [column[0] for column in rows.description]
    return (dict(zip(names, row, strict=True)) for row in rows)


def _line(record: str, fields: dict[str, Any]) -> str:
    # Bytes where text belongs: the file is damaged, and what is left of it is still told.
    return json.dumps({"record": record} | fields, ensure_ascii=False, default=repr)
