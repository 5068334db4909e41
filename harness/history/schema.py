"""The tables of the history, and how a database of an earlier schema becomes one of this.

Schema N is what the first N of `MIGRATIONS` make of an empty file; ``PRAGMA user_version`` holds N. A migration that was
released is never changed: what comes next is another one. Moments are Unix seconds (UTC), durations seconds, sizes bytes.
"""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # `id` is unique on one machine; several may share a HARNESS_HOME.
        """CREATE TABLE runs (
            run INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            host TEXT NOT NULL,
            kind TEXT NOT NULL,
            subject TEXT NOT NULL,
            command TEXT NOT NULL,
            began_s REAL NOT NULL,
            ended_s REAL,
            verdict TEXT NOT NULL,
            reason TEXT NOT NULL,
            user TEXT NOT NULL,
            harness TEXT NOT NULL,
            folder TEXT,
            UNIQUE (id, host)
        )""",
        """CREATE TABLE boards (
            run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            board TEXT NOT NULL,
            link TEXT NOT NULL,
            chip TEXT NOT NULL,
            virtual INTEGER NOT NULL,
            mac TEXT,
            revision TEXT,
            profile TEXT,
            lock TEXT,
            firmware TEXT,
            firmware_sha256 TEXT,
            idf TEXT,
            problem TEXT,
            PRIMARY KEY (run, board)
        )""",
        # `test` is the same for all boards and profiles, `id` is not.
        """CREATE TABLE tests (
            number INTEGER PRIMARY KEY,
            run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            id TEXT NOT NULL,
            test TEXT NOT NULL,
            name TEXT NOT NULL,
            board TEXT,
            profile TEXT,
            firmware_sha256 TEXT,
            outcome TEXT NOT NULL,
            began_s REAL NOT NULL,
            duration_s REAL NOT NULL,
            cause TEXT
        )""",
        """CREATE TABLE phases (
            run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            board TEXT,
            chip TEXT,
            phase TEXT NOT NULL,
            began_s REAL NOT NULL,
            duration_s REAL NOT NULL,
            size INTEGER
        )""",
        "CREATE INDEX runs_by_time ON runs (began_s)",
        "CREATE INDEX boards_by_name ON boards (board)",
        "CREATE INDEX tests_by_run ON tests (run)",
        "CREATE INDEX tests_by_time ON tests (began_s)",
        "CREATE INDEX tests_by_board ON tests (board, began_s)",
        "CREATE INDEX phases_by_run ON phases (run)",
        "CREATE INDEX phases_by_name ON phases (phase, began_s)",
    ),
    (
        # One row for each phase, board and run, no longer one for each time.
        "ALTER TABLE phases RENAME TO times",
        """CREATE TABLE phases (
            run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            board TEXT,
            chip TEXT,
            phase TEXT NOT NULL,
            began_s REAL NOT NULL,
            times INTEGER NOT NULL,
            median_s REAL NOT NULL,
            longest_s REAL NOT NULL,
            size INTEGER
        )""",
        """INSERT INTO phases SELECT run, board, chip, phase, MIN(began_s), COUNT(*), AVG(duration_s), MAX(duration_s),
            CAST(AVG(size) AS INTEGER) FROM times GROUP BY run, board, chip, phase""",
        "DROP TABLE times",
        "CREATE INDEX phases_by_run ON phases (run)",
        "CREATE INDEX phases_by_name ON phases (phase, began_s)",
    ),
)

SCHEMA = len(MIGRATIONS)
"""The newest schema; this harness reads all up to it."""


def schema_of(connection: sqlite3.Connection) -> int:
    """The schema that the database has; 0: it is empty."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Makes the newest schema of whatever older one there is, in the transaction that is open.

    sqlite3.Error passes through.
    """
    for number, statements in enumerate(MIGRATIONS[schema_of(connection) :], start=schema_of(connection) + 1):
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
