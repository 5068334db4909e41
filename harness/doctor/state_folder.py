"""HARNESS_HOME and the vault: writable, private, on something that lasts, copied elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.doctor.finding import Finding, good, note, wrong
from harness.doctor.host import existing_part, is_there
from harness.errors import HarnessError
from harness.history.pruning import Limits
from harness.history.run_folders import contents_of, run_folders
from harness.home import Home
from harness.vault import copies
from harness.vault.place import VOLATILE_FILE_SYSTEMS, lies_elsewhere, mount_of, parse_mounts
from harness.vault.record_file import read_record, require_private
from harness.vault.secret import Secret
from harness.vault.vault import COPIES_FILE, FORMAT, HEAD_FILE, KEYS_FOLDER, Vault

MUCH_ARTEFACTS = 50 << 30
"""Bytes; told where nothing is pruned by itself."""

_MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """One folder as it was found."""

    path: Path
    exists: bool
    is_folder: bool
    writable: bool
    """By this user; of one that does not exist: whether it can be made."""
    private: bool
    """Nobody else may write to it; for what is in it: nobody else may even look."""
    open_parts: tuple[Path, ...]
    """Folders in it that others may look into."""
    file_system: str | None
    """None where the operating system does not tell."""


@dataclass(frozen=True, slots=True)
class CopyPlace:
    """Where a second copy of the vault was made."""

    path: Path
    there: bool
    elsewhere: bool


@dataclass(frozen=True, slots=True)
class VaultFacts:
    """The vault of physical boards, as far as it can be seen without its secret, or with it."""

    path: Path
    exists: bool
    keys: int = 0
    """Key files in it."""
    problems: tuple[str, ...] = ()
    """What is wrong with what can be seen."""
    copies: tuple[CopyPlace, ...] = ()
    file_system: str | None = None
    opened: bool = False
    """With a secret: every record was opened, and its key compared with its key id."""


def probe_home(home: Home) -> FolderFacts:
    """Looks at the state folder; makes nothing."""
    path = home.root
    if not is_there(path) and os.path.lexists(path):
        # A link that leads nowhere, or in a circle.
        return FolderFacts(path, True, False, False, False, (), None)
    if not is_there(path):
        above = existing_part(path)
        return FolderFacts(path, False, True, os.access(above, os.W_OK | os.X_OK), True, (), _kind(above))
    is_folder = path.is_dir()
    parts = tuple(
        part
        for part in (sorted(path.iterdir()) if is_folder and os.access(path, os.R_OK) else ())
        if _open(part)
    )
    status = path.stat()
    mine = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    private = os.name != "posix" or (mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return FolderFacts(path, True, is_folder, os.access(path, os.W_OK | os.X_OK), private, parts, _kind(path))


def check_home(facts: FolderFacts) -> list[Finding]:
    """Judges the state folder."""
    where = f"state folder {facts.path}"
    if not facts.is_folder:
        return [wrong("state", f"{where} is no folder", "set HARNESS_HOME to a folder")]
    if not facts.writable:
        how = "may not be written to" if facts.exists else "cannot be made"
        return [wrong("state", f"{where} {how}", "set HARNESS_HOME to a folder that you may write to")]
    found = []
    if not facts.private:
        found.append(
            wrong(
                "state",
                f"{where} belongs to another user, or others may write to it",
                f"chmod 700 {facts.path}; if it is another user's, set HARNESS_HOME to one of your own",
            )
        )
    if facts.open_parts:
        names = " ".join(str(part) for part in facts.open_parts)
        found.append(wrong("state", f"others may look into {names}", f"chmod 700 {names}"))
    if facts.file_system in VOLATILE_FILE_SYSTEMS:
        found.append(
            note(
                "state",
                f"{where} lies on {facts.file_system}, which does not last; twins are lost with it",
                "set HARNESS_HOME to a folder on a disk before a physical board is burned",
            )
        )
    if not found:
        made = "writable and private" if facts.exists else "will be made at the first use"
        found.append(good("state", f"{where}: {made}"))
    return found


def probe_vault(path: Path, secret: Callable[[Path], Secret] | None) -> VaultFacts:
    """Looks at the vault; with `secret` it is opened and verified."""
    if not path.is_dir() or not (path / HEAD_FILE).is_file():
        there = path.is_dir() and any(path.iterdir()) if os.access(path, os.R_OK) else False
        return VaultFacts(
            path, False, problems=(f"{path} holds something that is no vault",) if there else ()
        )
    problems: list[str] = []
    places: tuple[CopyPlace, ...] = ()
    try:
        require_private(path)
        require_private(path / HEAD_FILE)
        places = _copy_places(path)
    except HarnessError as error:
        problems.append(str(error))
    opened = False
    if secret is not None and not problems:
        try:
            report = copies.verify(Vault.open(path, secret(path)))
            problems += report.problems
            opened = True
        except HarnessError as error:
            problems.append(str(error))
    keys = len(list((path / KEYS_FOLDER).glob("*.json")))
    return VaultFacts(path, True, keys, tuple(problems), places, _kind(path), opened)


def check_vault(facts: VaultFacts, *, burns: bool) -> list[Finding]:
    """Judges the vault. `burns`: boards.yaml allows to burn a physical board, so a vault is needed."""
    where = f"vault {facts.path}"
    if facts.problems:
        return [
            wrong(
                "vault",
                f"{where}: {problem}",
                "mend that before anything is burned; `harness vault verify` tells more",
            )
            for problem in facts.problems
        ]
    if not facts.exists:
        todo = "harness vault new-key-file FILE, then harness vault create --vault-key-file FILE"
        text = f"{where}: not made yet"
        if burns:
            return [wrong("vault", f"{text}, and a board of boards.yaml may be burned", todo)]
        return [note("vault", f"{text}; only physical boards beyond profile open need it")]
    found = []
    if facts.file_system in VOLATILE_FILE_SYSTEMS:
        found.append(
            wrong(
                "vault",
                f"{where} lies on {facts.file_system}, which does not last",
                "set HARNESS_VAULT to a folder on a disk and move the vault there; nothing is burned before",
            )
        )
    checked = "every key opens and matches its key id" if facts.opened else "not opened"
    todo_open = None if facts.opened else "have every key checked: harness doctor --vault-key-file FILE"
    state = f"{where}: {facts.keys} key{'' if facts.keys == 1 else 's'}, {checked}"
    found.append(good("vault", state) if facts.opened else note("vault", state, todo_open))
    return [*found, *_check_copies(facts, burns=burns)]


def artefact_bytes(home: Home) -> int:
    """What the folders of runs hold together."""
    total = 0
    for each in run_folders(home):
        # A run that ends meanwhile may be pruned by itself.
        with suppress(OSError):
            total += contents_of(each.path).size
    return total


def check_artefacts(size: int, limits: Limits) -> list[Finding]:
    """Judges the space that old runs take; runs prune by themselves what is beyond the limits."""
    if limits.size is not None and size <= limits.size:
        return []
    if limits.size is None and size < MUCH_ARTEFACTS:
        return []
    todo = "harness prune --dry-run shows what would go, harness prune deletes it; HARNESS_KEEP_SIZE is the limit"
    return [note("state", f"the folders of runs hold {size / (1 << 30):.1f} GiB", todo)]


def _check_copies(facts: VaultFacts, *, burns: bool) -> list[Finding]:
    todo = "harness vault backup FOLDER, with a FOLDER on another disk"
    safe = [copy for copy in facts.copies if copy.there and copy.elsewhere]
    found = [
        note("vault", f"copy in {copy.path}: {'on the same file system' if copy.there else 'not plugged in'}")
        for copy in facts.copies
        if copy not in safe
    ]
    found += [good("vault", f"copy in {copy.path}: on another file system") for copy in safe]
    if not safe:
        text = "no copy of the vault on another file system: a lost key is a lost board"
        found.append(wrong("vault", text, todo) if burns or facts.keys else note("vault", text, todo))
    return found


def _copy_places(path: Path) -> tuple[CopyPlace, ...]:
    file = path / COPIES_FILE
    if not file.exists():
        return ()
    fields = read_record(file, newest=FORMAT, what="the list of copies")
    places = [Path(str(place)) for place in fields.get("copies", [])]
    return tuple(
        CopyPlace(place, place.is_dir(), place.is_dir() and lies_elsewhere(path, place)) for place in places
    )


def _open(part: Path) -> bool:
    return os.name == "posix" and part.is_dir() and bool(part.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _kind(path: Path) -> str | None:
    try:
        mounts = parse_mounts(_MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return None
    mount = mount_of(path.resolve(), mounts)
    return mount.kind if mount else None
