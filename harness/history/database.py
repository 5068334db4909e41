"""The file of the history: opened for a moment, by any number of processes at once, and never lost silently.

SQLite in WAL mode: readers do not wait for writers, and a writer that is killed leaves nothing behind. A file that SQLite
cannot read is put aside by the next writer, with its journal, and stays where a person finds it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from harness.errors import LabError
from harness.history.schema import SCHEMA, migrate, schema_of

T = TypeVar("T")

FILE = "history.sqlite3"
DAMAGED = "damaged"
"""What the name of a file that was put aside begins with."""

WAIT_S = 10.0
"""For other writers; each takes some milliseconds."""

_SIDE_FILES = ("", "-wal", "-shm")


class HistoryError(LabError):
    """The history cannot be read or written; boards and runs are not concerned."""


class Database:
    """The database in `folder`, which exists."""

    def __init__(self, folder: Path, *, wait_s: float = WAIT_S) -> None:
        self.path = folder / FILE
        self._wait_s = wait_s

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that writes nothing; an empty database where there is none yet.

        Raises:
            HistoryError: it is damaged, too new, or busy for too long.
        """
        try:
            with closing(self._opened_to_read()) as connection:
                yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._complaint(error) from error

    def write(self, work: Callable[[sqlite3.Connection], T]) -> tuple[T, Path | None]:
        """Does `work` in one transaction; where a damaged file was put aside comes with what it gives back.

        Raises:
            HistoryError: the file is too new, busy for too long, or cannot be written.
        """
        try:
            try:
                return self._written(work), None
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if not _tells_damage(error):
                    raise
                aside = self._put_aside()
                return self._written(work), aside
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self._complaint(error) from error
        except OSError as error:
            raise HistoryError(
                f"the history {self.path} cannot be written: {error.strerror or error}",
                todo="check free space and permissions there",
            ) from error

    def _written(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(self._connected(f"{self.path.as_uri()}?mode=rwc")) as connection:
            self._require_known(connection)
            if schema_of(connection) < SCHEMA:
                self._migrate(connection)
            connection.execute("PRAGMA foreign_keys = ON")
            # A power cut may take the last runs from the history, and never more than those.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                return work(connection)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        # The change to WAL does not wait for others by itself.
        with self._lock():
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                self._require_known(connection)
                migrate(connection)
        with suppress(OSError):
            self.path.chmod(0o600)

    def _opened_to_read(self) -> sqlite3.Connection:
        if not self.path.exists():
            return _empty()
        connection = self._connected(f"{self.path.as_uri()}?mode=ro")
        try:
            try:
                self._require_known(connection)
            except sqlite3.OperationalError:
                if os.access(self.path.parent, os.W_OK):
                    raise
                # WAL needs files beside it even to read; where none can be made, nobody writes now.
                connection.close()
                connection = self._connected(f"{self.path.as_uri()}?mode=ro&immutable=1")
                self._require_known(connection)
            if schema_of(connection) == SCHEMA:
                connection.execute("PRAGMA query_only = ON")
                return connection
            # Whoever reads only changes nothing: an older one is brought up to date in memory.
            copy = sqlite3.connect(":memory:", isolation_level=None)
            copy.text_factory = _text
            connection.backup(copy)
        except BaseException:
            connection.close()
            raise
        connection.close()
        migrate(copy)
        return copy

    def _connected(self, uri: str) -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=self._wait_s, isolation_level=None)
        connection.text_factory = _text
        return connection

    def _require_known(self, connection: sqlite3.Connection) -> None:
        found = schema_of(connection)
        if found > SCHEMA:
            raise HistoryError(
                f"the history {self.path} is of a newer harness (schema {found}, this one knows {SCHEMA})",
                todo="use that harness, or another HARNESS_HOME; nothing was touched",
            )

    def _put_aside(self) -> Path | None:
        """Renames the file if it is damaged indeed; None: it is not, another process has put it aside already."""
        with self._lock():
            if self._is_sound():
                return None
            aside = self._free_name()
            for suffix in _SIDE_FILES:
                with suppress(FileNotFoundError):
                    Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
            return aside

    def _is_sound(self) -> bool:
        if not self.path.exists():
            return True
        try:
            with closing(self._connected(f"{self.path.as_uri()}?mode=ro")) as connection:
                return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            return not _tells_damage(error)

    def _free_name(self) -> Path:
        stem = f"{DAMAGED}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        names = (
            self.path.with_name(f"{stem}{more}.sqlite3") for more in ("", *(f"-{n}" for n in range(2, 1000)))
        )
        return next(name for name in names if not name.exists())

    def _lock(self) -> FileLock:
        return FileLock(self.path.with_suffix(".lock"), timeout=self._wait_s)

    def _complaint(self, error: sqlite3.Error | UnicodeDecodeError) -> HistoryError:
        if _tells_damage(error):
            return HistoryError(
                f"the history {self.path} is damaged ({error})",
                todo="the next run puts the file aside and begins a new one; nothing of it is deleted",
            )
        busy = "locked" in str(error)
        return HistoryError(
            f"the history {self.path} {'is busy' if busy else 'cannot be used'}: {error}",
            todo="try again in a moment" if busy else "check free space and permissions there",
        )


def _text(stored: bytes) -> str:
    """Text of a damaged file may be none; what is left of it is shown."""
    return stored.decode("utf-8", "replace")


def _tells_damage(error: sqlite3.Error | UnicodeDecodeError) -> bool:
    # Of this class itself are "malformed" and "not a database"; its subclasses are something else. Names of columns that
    # are no UTF-8 nobody has written.
    return type(error) is sqlite3.DatabaseError or isinstance(error, UnicodeDecodeError)


def _empty() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    return connection
