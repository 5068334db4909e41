"""The parts of a run: one JSON Lines file per process, appended as things happen, so that a kill loses nothing before it.

Every line is one object with ``what``: ``run``, ``board``, ``boots``, ``began``, ``test``, ``note``, ``end``. A line is
handed to the operating system before the next thing happens; it is not synced. A last line that is cut is passed over.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from pydantic import BaseModel

FOLDER = "parts"
"""Within the folder of a run."""

Entry = dict[str, Any]


class PartWriter:
    """Appends to the part file of one process. What cannot be written is told once, and stops nothing.

    With `eager` False nothing is written, and no folder made, before `open` is called: what comes until then waits.
    """

    def __init__(
        self, folder: Path, process: str, *, tell: Callable[[str], None] = lambda _: None, eager: bool = True
    ) -> None:
        self.path = folder / FOLDER / f"{process}.jsonl"
        self.failure: str | None = None
        """In a sentence; None: all could be written."""
        self._tell = tell
        self._waiting: list[Entry] = []
        self._file: TextIO | None = None
        if eager:
            self.open()

    @property
    def is_open(self) -> bool:
        """Whether there is a file by now."""
        return self._file is not None

    def open(self) -> None:
        """Makes the file; writes what waited."""
        if self._file is not None or self.failure is not None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="ascii", newline="\n")
        except OSError as error:
            self._give_up(error)
            return
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            self._append(entry)

    def write(self, what: str, **fields: Any) -> None:
        """One more line."""
        entry = {"what": what, "at_s": round(time.time(), 3), **fields}
        if self._file is not None:
            self._append(entry)
        elif self.failure is None:
            self._waiting.append(entry)

    def close(self) -> None:
        """No more comes from this process."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._give_up(error)
            self._file = None

    def _append(self, entry: Entry) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_line(entry))
            self._file.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failure = (
            f"the record of this run cannot be written: {self.path}: {error.strerror or error}; "
            "the tests go on without it"
        )
        self._waiting.clear()
        file, self._file = self._file, None
        if file is not None:
            # What could not be flushed before cannot be now.
            with suppress(OSError):
                file.close()
        self._tell(self.failure)


def _line(entry: Entry) -> str:
    """`entry` in ASCII. Half a surrogate pair (a byte of a file's name that is no UTF-8, a board's "\\ud800") would not
    go into any file that is made of it: it becomes a question mark."""
    line = json.dumps(entry, ensure_ascii=True, separators=(",", ":"))
    if "\\ud" in line:
        whole = json.dumps(entry, ensure_ascii=False).encode("utf-8", errors="replace")
        line = json.dumps(json.loads(whole), ensure_ascii=True, separators=(",", ":"))
    return f"{line}\n"


def fields_of(record: BaseModel) -> Entry:
    """A record as it is stored: what has its default is left out."""
    return record.model_dump(mode="json", exclude_defaults=True)


_LAST_MOMENT_S = float(1 << 40)
"""A time beyond it is damage, not a moment of a run; so is none at all (NaN)."""


def read_parts(folder: Path) -> list[tuple[str, Entry]]:
    """All lines of all part files of the run in `folder`, each with its process's name, in the order of their moments.

    OSError from the file system passes through.
    """
    found = [
        (path.stem, entry)
        for path in sorted((folder / FOLDER).glob("*.jsonl"))
        for entry in _entries(path.read_bytes().splitlines())
    ]
    return sorted(found, key=lambda each: float(each[1].get("at_s", 0.0)))


def _entries(lines: Iterable[bytes]) -> Iterator[Entry]:
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            # The process, or the disk, ended here.
            continue
        if (
            isinstance(entry, dict)
            and isinstance(entry.get("what"), str)
            and _is_moment(entry.get("at_s", 0.0))
        ):
            yield entry


def _is_moment(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < _LAST_MOMENT_S
