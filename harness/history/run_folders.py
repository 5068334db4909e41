"""The folders that runs left under HARNESS_HOME: which are ours, which still run, how much they hold.

A folder counts as ours by what is in it, not by its name alone: the first line of a file in ``parts`` or the beginning
of ``run.json`` has the id that the folder is named by. A link is never followed, whatever it is called.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import time
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.history.plain_file import open_plain
from harness.home import VAULT_HEAD, Home
from harness.report.run_record import RUN_FILE

ARTEFACTS = "artefacts"
"""Under HARNESS_HOME; `harness.report.recorder` makes them, which imports this."""
PARTS = "parts"
"""In the folder of a run: one JSON Lines file per process."""
MAIN_PART = "main.jsonl"
KEEP_FILE = "keep"
"""Whoever puts a file of this name into the folder of a run keeps it for good."""

STALE_S = 24 * 3600.0
"""A run that has not ended, of whose process nothing is known, and that wrote nothing for so long is over."""

_CLOCK_STEP_S = 300.0
"""By how much a process may seem younger than its run: the clock is set now and then."""

ID_PATTERN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4,16}")
_KEY_SUFFIXES = (".key", ".pem", ".p12", ".pfx", ".der")
_HEAD_BYTES = 8192
_TAIL_BYTES = 65536


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    id: str
    path: Path
    device: int
    inode: int
    began_s: float
    """By its name's time, local, where nothing else tells."""
    kind: str
    """``pytest``, ``run``, ``qualify``; empty: it cannot be told."""
    ended: bool
    """By the run's own account."""

    @property
    def keep(self) -> bool:
        """Somebody wants it kept."""
        return os.path.lexists(self.path / KEEP_FILE)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a walk through a folder found."""

    size: int
    """Bytes of its plain files."""
    touched_s: float
    """When anything in it last changed."""
    strange: str | None
    """Why it is not one to delete: a vault in it, another file system; None: there is nothing of the kind."""


def run_folders(home: Home, *, leave_out: Container[str] = ()) -> list[RunFolder]:
    """The folders of runs, oldest first; other things there are passed over, and the ids in `leave_out`."""
    found = []
    with suppress(OSError), os.scandir(home.root / ARTEFACTS) as entries:
        for entry in entries:
            if ID_PATTERN.fullmatch(entry.name) and entry.name not in leave_out:
                with suppress(OSError):
                    folder = run_folder(Path(entry.path))
                    if folder is not None:
                        found.append(folder)
    return sorted(found, key=lambda folder: (folder.began_s, folder.id))


def run_folder(path: Path, run_id: str | None = None) -> RunFolder | None:
    """The folder of the run `run_id` (default: by the folder's name) at `path`; None: there is none that we made.

    That is so of a link, of another user's folder, and of one with something else in it. OSError passes through.
    """
    wanted = run_id or path.name
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or (os.name == "posix" and status.st_uid != os.geteuid()):
        return None
    head = _head_in_parts(path)
    if head is not None:
        of_run, ended = head
        if of_run.get("id") != wanted:
            return None
        began_s = of_run.get("began_s")
        return RunFolder(
            wanted,
            path,
            status.st_dev,
            status.st_ino,
            float(began_s) if isinstance(began_s, (int, float)) else _named_time_s(wanted),
            str(of_run.get("kind", "")),
            ended or not _may_run(of_run, path),
        )
    text = _beginning(path / RUN_FILE)
    found = re.search(r'"id"\s*:\s*"([^"]*)"', text)
    if found is None or found[1] != wanted:
        return None
    kind = re.search(r'"kind"\s*:\s*"([^"]*)"', text)
    return RunFolder(
        wanted, path, status.st_dev, status.st_ino, _named_time_s(wanted), kind[1] if kind else "", ended=True
    )


def contents_of(folder: Path) -> Contents:
    """Walks through `folder`, links not followed. OSError passes through."""
    size, touched_s, strange = 0, 0.0, None
    device = folder.lstat().st_dev
    for path, status in _walk(folder):
        touched_s = max(touched_s, status.st_mtime)
        if stat.S_ISREG(status.st_mode):
            size += status.st_size
        if path.name == VAULT_HEAD:
            strange = f"there is a vault in {path.parent}"
        elif path.suffix.lower() in _KEY_SUFFIXES:
            # No run leaves one: a person has put it there.
            strange = f"{path} may be a key"
        elif status.st_dev != device:
            strange = f"{path} is on another file system"
    return Contents(size, touched_s, strange)


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    yield folder, folder.lstat()
    with os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(Path(entry.path))
            else:
                yield Path(entry.path), status


def _head_in_parts(folder: Path) -> tuple[dict[str, object], bool] | None:
    """What the run said of itself when it began, and whether it has said that it is over; None: there is nothing."""
    main = folder / PARTS / MAIN_PART
    # The controller of pytest-xdist begins its part at the end; each of its workers says the same of the run.
    for path in (main, *sorted((folder / PARTS).glob("gw*.jsonl"))):
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            first = json.loads(_beginning(path).split("\n", 1)[0])
            if first["what"] == "run" and isinstance(first["run"], dict):
                return first["run"], '"what":"end"' in _end(main)
    return None


def _may_run(head: dict[str, object], folder: Path) -> bool:
    """Whether the run that has not ended by its own account may still be under way."""
    pid = head.get("pid")
    if isinstance(pid, int) and pid > 0 and head.get("host") == socket.gethostname() and os.name == "posix":
        try:
            os.kill(pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:
            pass  # another user's
        began_s, started_s = head.get("began_s"), _started_s(pid)
        # A number is given again, soon after the machine was started: that process is younger than the run. Where the
        # clock was set meanwhile, a run that goes on looks like that, too, and writes.
        is_its_own = (
            started_s is None or not isinstance(began_s, (int, float)) or started_s < began_s + _CLOCK_STEP_S
        )
        if is_its_own:
            return True
    return time.time() - contents_of(folder).touched_s < STALE_S


def _started_s(pid: int) -> float | None:
    """When process `pid` began, in seconds since 1970; None: this system does not tell."""
    try:
        # Fields behind the name, which may hold anything: the first is the state, the 20th the start.
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        booted = re.search(r"^btime (\d+)$", Path("/proc/stat").read_text(), re.MULTILINE)
        return None if booted is None else int(booted[1]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None


def _beginning(path: Path) -> str:
    return _read(path, 0, _HEAD_BYTES)


def _end(path: Path) -> str:
    try:
        return _read(path, max(0, path.lstat().st_size - _TAIL_BYTES), _TAIL_BYTES)
    except OSError:
        return ""


def _read(path: Path, offset: int, size: int) -> str:
    """Of a plain file that is no link; empty of anything else."""
    try:
        with open_plain(path) as file:
            file.seek(offset)
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""


def _named_time_s(name: str) -> float:
    try:
        return time.mktime(time.strptime(name[:15], "%Y%m%d-%H%M%S"))
    except (ValueError, OverflowError):
        return 0.0
