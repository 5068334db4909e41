"""What the runs under way do on their boards, from the parts that they write as things happen.

Only what is new in a part file is read each time, so that looking often costs next to nothing.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.history import History
from harness.history.plain_file import open_plain
from harness.history.queries import unfinished_folders
from harness.history.run_folders import PARTS, RunFolder, run_folder, run_folders
from harness.home import Home

_MOST_BYTES = 16 << 20
"""Read of one part file at a time; a longer one is caught up with in several looks."""

DEFAULT_LOG = "serial.log"


@dataclass(frozen=True, slots=True)
class LiveBoard:
    """One board in a run under way."""

    name: str
    chip: str
    link: str
    doing: str
    """In a few words: the test, or what comes between tests."""
    since_s: float
    log: Path
    """The file that its serial log goes to; it may not be there yet."""


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run under way."""

    folder: RunFolder
    subject: str
    command: str
    user: str
    host: str
    boards: tuple[LiveBoard, ...]
    passed: int
    failed: int
    """Tests that ended otherwise than passed, skipped or not applicable."""
    done: int


@dataclass(slots=True)
class _Known:
    """What the parts of one run have told so far."""

    offsets: dict[str, int] = field(default_factory=dict)
    head: dict[str, Any] = field(default_factory=dict)
    boards: dict[str, dict[str, Any]] = field(default_factory=dict)
    doing: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    """By board: id, name and beginning of the test under way."""
    since: dict[str, float] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)


class LiveRuns:
    """Follows the runs of one HARNESS_HOME; not for several threads at once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._known: dict[Path, _Known] = {}
        self._over: set[str] = set()

    def look(self) -> list[LiveRun]:
        """The runs under way now, newest first."""
        folders = {}
        for folder in (*run_folders(self._home, leave_out=self._over), *self._elsewhere()):
            if folder.ended:
                self._over.add(folder.id)
            else:
                folders[folder.path] = folder
        for gone in self._known.keys() - folders.keys():
            del self._known[gone]
        runs = [self._run(folder) for folder in folders.values()]
        return sorted(runs, key=lambda run: -run.folder.began_s)

    def _elsewhere(self) -> list[RunFolder]:
        """Runs that were given a folder of their own, which the history knows from their beginning."""
        found = []
        with suppress(HarnessError), History.of(self._home, wait_s=0.5).reading() as database:
            for run_id, path in unfinished_folders(database):
                if run_id in self._over:
                    continue
                with suppress(OSError):
                    folder = run_folder(Path(path), run_id)
                    if folder is not None:
                        found.append(folder)
        return found

    def _run(self, folder: RunFolder) -> LiveRun:
        known = self._known.setdefault(folder.path, _Known())
        for part in sorted((folder.path / PARTS).glob("*.jsonl")):
            with suppress(OSError):
                _follow(part, known)
        counted = known.outcomes
        aside = sum(counted.get(word, 0) for word in ("passed", "skipped", "not applicable"))
        done = sum(counted.values())
        return LiveRun(
            folder,
            str(known.head.get("subject", "")),
            str(known.head.get("command", "")),
            str(known.head.get("user", "")),
            str(known.head.get("host", "")),
            tuple(_board(folder, name, known) for name in sorted(known.boards)),
            counted.get("passed", 0),
            done - aside,
            done,
        )


def _board(folder: RunFolder, name: str, known: _Known) -> LiveBoard:
    facts = known.boards[name]
    test = known.doing.get(name)
    since_s = test[2] if test else known.since.get(name, folder.began_s)
    doing = test[1] if test else "between two tests" if known.outcomes else "being prepared"
    log = inside(folder.path, str(facts.get("log") or f"{name}/{DEFAULT_LOG}"))
    return LiveBoard(
        name,
        str(facts.get("chip", "")),
        str(facts.get("link", "")),
        doing,
        since_s,
        log or folder.path / name / DEFAULT_LOG,
    )


def inside(folder: Path, name: str) -> Path | None:
    """The file `name` of a run's folder; None: the name, or a link, leads out of it. It need not exist."""
    parts = name.replace("\\", "/").split("/")
    if any(part in ("", ".", "..") or "\0" in part or ":" in part for part in parts):
        return None
    path = folder
    for part in parts:
        path = path / part
        with suppress(FileNotFoundError, NotADirectoryError):
            if stat.S_ISLNK(path.lstat().st_mode):
                return None
    return path


def _follow(part: Path, known: _Known) -> None:
    offset = known.offsets.get(part.name, 0)
    with open_plain(part) as file:
        if os.fstat(file.fileno()).st_size <= offset:
            return
        file.seek(offset)
        data = file.read(_MOST_BYTES)
    whole, newline, _ = data.rpartition(b"\n")
    if not newline:
        return
    known.offsets[part.name] = offset + len(whole) + 1
    for line in whole.split(b"\n"):
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            _take(json.loads(line), known)


def _take(entry: dict[str, Any], known: _Known) -> None:
    what, at_s = entry["what"], float(entry["at_s"])
    if what == "run":
        known.head = known.head or dict(entry["run"])
    elif what == "board":
        facts = entry["board"]
        known.boards.setdefault(str(facts["name"]), {}).update(facts)
        known.since.setdefault(str(facts["name"]), at_s)
    elif what == "began" and entry.get("board"):
        board = str(entry["board"])
        known.boards.setdefault(board, {})
        known.doing[board] = (str(entry["id"]), str(entry["name"]), at_s)
    elif what == "test":
        test = entry["test"]
        outcome = str(test["outcome"])
        known.outcomes[outcome] = known.outcomes.get(outcome, 0) + 1
        for board, (test_id, _, _) in list(known.doing.items()):
            if test_id == test["id"]:
                del known.doing[board]
                known.since[board] = at_s
