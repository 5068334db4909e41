"""Where the state of a virtual board lies: flash, eFuses, vault, device records, and what the run on it is doing."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import LabError
from harness.home import Home
from harness.inventory.entry import VirtualEntry

RUN_NOTE = "run.json"
"""What the run on a virtual board is doing; in its state folder."""

_THROWAWAY_PREFIX = "harness-twin-"
_THROWAWAY_AGE_S = 3600.0
"""Older folders of throwaway twins that nobody holds were left by a harness that was killed."""


def base_folder(inventory: Path | None) -> Path:
    """What relative paths in a boards.yaml are relative to."""
    return inventory.parent if inventory else Path.cwd()


def state_folder(home: Home, inventory: Path | None, name: str, entry: VirtualEntry) -> Path:
    """Where the state of the virtual board `name` lies; a relative `state:` is relative to its boards.yaml."""
    if entry.state is None:
        return home.twin(name)
    return (base_folder(inventory) / Path(entry.state).expanduser()).absolute()


def make_state_folder(name: str, state: Path) -> None:
    """Makes the folder `state` of the board `name`, for its user alone.

    Raises:
        LabError: it cannot be made.
    """
    try:
        for folder in (*reversed(state.parents), state):
            # With its parents' own mode, mkdir(parents=True) would leave them open to all.
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"the state folder {state} cannot be made: {error.strerror}",
            board=name,
            todo="choose a folder that you may write to",
        ) from error


def make_throwaway_folder() -> Path:
    """A folder for a twin that goes with its lab; first removes those whose harness was killed."""
    _remove_abandoned()
    return Path(tempfile.mkdtemp(prefix=_THROWAWAY_PREFIX))


def _remove_abandoned() -> None:
    """Throwaway twins go with their lab; this removes those whose harness was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_THROWAWAY_PREFIX}*"):
        try:
            status = folder.lstat()
            if time.time() - status.st_mtime < _THROWAWAY_AGE_S or not _is_own_folder(status):
                continue
            with FileLock(folder / "lock", timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):
            # A long job's.
            continue


def _is_own_folder(status: os.stat_result) -> bool:
    """In a folder that all write to, a link of this name may lead anywhere, and another's folder is not ours to open."""
    return stat.S_ISDIR(status.st_mode) and (os.name != "posix" or status.st_uid == os.getuid())
