"""Deletes old artefacts of runs, by age and by size, and nothing else.

What can go: folders of runs under ``HARNESS_HOME/artefacts`` that are ours by their content, and printed plans. What
never goes: vaults, device records, states of virtual boards, builds, the history itself, runs under way, runs of
``harness qualify`` (they are somebody's evidence), and whatever somebody marked with a file ``keep``.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import HarnessError, UsageError
from harness.history.amounts import DAY_S, GB, age_s, age_text, size_bytes, size_text
from harness.history.run_folders import ARTEFACTS, Contents, RunFolder, contents_of, run_folder, run_folders
from harness.home import Home

AGE_VARIABLE = "HARNESS_KEEP_AGE"
SIZE_VARIABLE = "HARNESS_KEEP_SIZE"
EVERYTHING = "all"
"""Value of both variables: nothing is deleted for that reason."""

KEEP_AGE_S = 90 * DAY_S
KEEP_SIZE = 20 * GB
INTERVAL_S = 3600.0
"""Between two prunings that runs do by themselves."""

KEPT_KINDS = ("qualify",)

_GOING = ".going-"
"""A folder of this name is being deleted; what a kill left of one goes the next time."""
_STAMP = ".pruned"

Amount = TypeVar("Amount", int, float)


@dataclass(frozen=True, slots=True)
class Limits:
    """What may stay. None: without limit."""

    age_s: float | None = KEEP_AGE_S
    size: int | None = KEEP_SIZE
    """Bytes of all run folders together."""

    @classmethod
    def of_environment(cls) -> Limits:
        """From HARNESS_KEEP_AGE and HARNESS_KEEP_SIZE.

        Raises:
            UsageError: one is no age, or no size.
        """
        return cls(
            _of_variable(AGE_VARIABLE, age_s, KEEP_AGE_S), _of_variable(SIZE_VARIABLE, size_bytes, KEEP_SIZE)
        )


def _of_variable(variable: str, amount: Callable[[str], Amount], default: Amount) -> Amount | None:
    """What the environment says of a limit; None: there is none."""
    said = os.environ.get(variable)
    if said is None or said == EVERYTHING:
        return default if said is None else None
    try:
        return amount(said)
    except UsageError as error:
        error.message = f"the environment variable {variable}: {error.message}"
        raise


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run folder, with what is in it."""

    folder: RunFolder
    contents: Contents


@dataclass(frozen=True, slots=True)
class Chosen:
    """One thing to delete."""

    path: Path
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was deleted, or would be."""

    deleted: tuple[Chosen, ...] = ()
    kept: tuple[str, ...] = ()
    """What should have gone and stays, a sentence each."""

    @property
    def size(self) -> int:
        """Bytes that it freed."""
        return sum(chosen.size for chosen in self.deleted)


def choose(candidates: Sequence[Candidate], limits: Limits, now_s: float) -> list[Chosen]:
    """Which of the run folders go: those too old, then the oldest until the rest fits. The newest one always stays."""
    by_age = sorted(candidates, key=lambda each: each.folder.began_s)
    total = sum(each.contents.size for each in by_age)
    chosen = []
    for each in by_age[:-1]:
        age_s = now_s - max(each.folder.began_s, each.contents.touched_s)
        if limits.age_s is not None and age_s > limits.age_s:
            why = f"{age_text(age_s)} old"
        elif limits.size is not None and total > limits.size:
            why = f"all runs together hold more than {size_text(limits.size)}"
        else:
            continue
        if not _must_stay(each):
            chosen.append(Chosen(each.folder.path, each.contents.size, why))
            total -= each.contents.size
    return chosen


def _must_stay(each: Candidate) -> bool:
    return (
        not each.folder.ended
        or each.folder.keep
        or each.folder.kind in KEPT_KINDS
        or each.contents.strange is not None
    )


def prune(home: Home, limits: Limits, *, dry_run: bool = False) -> Pruned:
    """Deletes what `limits` leaves no place for; with `dry_run` it only says what that is."""
    candidates, kept = [], []
    for folder in run_folders(home):
        try:
            candidates.append(Candidate(folder, contents_of(folder.path)))
        except OSError as error:
            kept.append(f"{folder.path} stays: it cannot be read ({error.strerror})")
    chosen = choose(candidates, limits, time.time())
    kept += [
        f"{each.folder.path} stays: {each.contents.strange}" for each in candidates if each.contents.strange
    ]
    inodes = {each.folder.path: (each.folder.device, each.folder.inode) for each in candidates}
    plans = _old_plans(home, limits)
    if dry_run:
        return Pruned((*chosen, *plans), tuple(kept))
    _finish_earlier(home)
    deleted = []
    for each in (*chosen, *plans):
        try:
            if each.path in inodes:
                _delete(each.path, inodes[each.path], home)
            else:
                each.path.unlink()
            deleted.append(each)
        except FileNotFoundError:
            # Another process prunes, too.
            continue
        except OSError as error:
            kept.append(f"{each.path} stays: {error.strerror or error}")
    return Pruned(tuple(deleted), tuple(kept))


def prune_after_run(home: Home) -> str | None:
    """What every run does at its end, at most once an hour; a sentence where there is something to say.

    Never raises for what is wrong in that folder: no run fails by it.
    """
    stamp = home.root / ARTEFACTS / _STAMP
    if not stamp.parent.is_dir():
        return None
    try:
        with suppress(FileNotFoundError):
            if 0 <= time.time() - stamp.lstat().st_mtime < INTERVAL_S:
                return None
        limits = Limits.of_environment()
        stamp.touch(mode=0o600)
        done = prune(home, limits)
    except (OSError, HarnessError) as error:
        return f"old artefacts were not pruned: {error}"
    if not done.deleted:
        return None
    return (
        f"pruned {len(done.deleted)} old artefacts ({size_text(done.size)}) under {home.root}; "
        f"{AGE_VARIABLE} and {SIZE_VARIABLE} say what is kept"
    )


def _delete(path: Path, inode: tuple[int, int], home: Home) -> None:
    """Deletes a run folder that still is the one that was looked at."""
    status = path.lstat()
    if (status.st_dev, status.st_ino) != inode or run_folder(path) is None:
        raise OSError(None, "it is another one now")
    vault = home.vault.resolve()
    if vault == path.resolve() or path.resolve() in vault.parents:
        raise OSError(None, "the vault is in it")
    going = path.with_name(f"{_GOING}{path.name}.{secrets.token_hex(4)}")
    # Under another name at once: nobody takes half a folder for a run.
    path.rename(going)
    shutil.rmtree(going)


def _finish_earlier(home: Home) -> None:
    with suppress(OSError):
        for path in sorted((home.root / ARTEFACTS).iterdir()):
            if re.fullmatch(rf"{re.escape(_GOING)}[0-9a-f.-]+", path.name):
                status = path.lstat()
                mine = os.name != "posix" or status.st_uid == os.geteuid()
                if stat.S_ISDIR(status.st_mode) and mine:
                    shutil.rmtree(path, ignore_errors=True)


def _old_plans(home: Home, limits: Limits) -> list[Chosen]:
    if limits.age_s is None:
        return []
    found = []
    now_s = time.time()
    with suppress(OSError), os.scandir(home.root / "plans") as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if (
                re.fullmatch(r"[0-9A-Za-z-]+\.json", entry.name)
                and stat.S_ISREG(status.st_mode)
                and now_s - status.st_mtime > limits.age_s
            ):
                found.append(
                    Chosen(Path(entry.path), status.st_size, f"{age_text(now_s - status.st_mtime)} old")
                )
    return sorted(found, key=lambda chosen: chosen.path)
