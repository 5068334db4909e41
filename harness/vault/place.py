"""Whether a vault lies where a key may be kept that is about to be burned into a physical board.

A flash key that is lost leaves a board that nobody can ever write to again, a lost signing key one that boots
nothing new. So before the first burn the
vault must lie on something that survives a reboot, and a second copy must exist on another file system.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError, RefusedError
from harness.vault.boot_keys import boot_key, boot_keys
from harness.vault.vault import Vault

VOLATILE_FILE_SYSTEMS = frozenset(
    {"tmpfs", "ramfs", "devtmpfs", "rootfs", "overlay", "overlayfs", "aufs", "fuse-overlayfs", "hugetlbfs"}
)
"""Kinds that end with the machine's uptime or with the container."""

_MOUNTS = Path("/proc/self/mounts")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/mounts."""

    source: str
    point: str
    kind: str


@dataclass(frozen=True, slots=True)
class CopyFacts:
    """One second copy as it was found."""

    place: Path
    elsewhere: bool
    """On another file system than the vault."""
    volatile: bool
    problem: str | None
    """Why it does not count, or None: it opens with the same secret, holds this device's key and those it boots with."""


@dataclass(frozen=True, slots=True)
class PlaceFacts:
    """What `probe_place` saw; `place_problems` judges it."""

    path: Path
    kind: str | None
    """Kind of file system, or None where the operating system does not tell."""
    record_problem: str | None
    """Why the device's record, or that of a secure boot key, does not open, or None."""
    copies: tuple[CopyFacts, ...]


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """The lines of /proc/mounts; octal escapes (``\\040``) are undone, lines that are not mounts skipped."""
    mounts = []
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) >= 3:
            mounts.append(Mount(_unescaped(words[0]), _unescaped(words[1]), words[2]))
    return tuple(mounts)


def mount_of(path: Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that `path` (absolute) lies on: the longest mount point above it; of equals the last one."""
    best: Mount | None = None
    for mount in mounts:
        point = Path(mount.point)
        if (path == point or point in path.parents) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def place_problems(facts: PlaceFacts) -> tuple[str, ...]:
    """Why keys for physical boards must not be kept there yet; empty when they may."""
    problems = []
    if facts.kind in VOLATILE_FILE_SYSTEMS:
        problems.append(
            f"the vault {facts.path} lies on {facts.kind}, which does not outlive this machine's uptime"
        )
    if facts.record_problem:
        problems.append(f"a key record does not open: {facts.record_problem}")
    good = [copy for copy in facts.copies if copy.elsewhere and not copy.volatile and copy.problem is None]
    if not good:
        if not facts.copies:
            problems.append("the vault has no second copy")
        for copy in facts.copies:
            why = copy.problem or (
                "it lies on a file system that does not last"
                if copy.volatile
                else "it lies on the same file system as the vault"
            )
            problems.append(f"the second copy in {copy.place} does not count: {why}")
    return tuple(problems)


def probe_place(vault: Vault, mac: str | None = None) -> PlaceFacts:
    """Looks at the vault, its copies, and, with `mac`, whether that device's key opens in each."""
    mounts = _mounts()
    mount = mount_of(vault.path.resolve(), mounts) if mounts else None
    copies = tuple(_probe_copy(vault, place, mac, mounts) for place in vault.copies())
    return PlaceFacts(vault.path, mount.kind if mount else None, _record_problem(vault, mac), copies)


def require_safe_place(vault: Vault, mac: str) -> tuple[str, ...]:
    """Refuses the first burn of a physical board when its key could get lost.

    Returns:
        Remarks for the person, e.g. that this operating system does not tell the kind of a file system.

    Raises:
        RefusedError: all reasons at once.
    """
    facts = probe_place(vault, mac)
    problems = place_problems(facts)
    if problems:
        raise RefusedError(
            "no key is burned into a physical board from this vault:\n  - " + "\n  - ".join(problems),
            todo="put the vault on a disk (HARNESS_VAULT), copy it to another: harness vault backup FOLDER",
        )
    if facts.kind is None:
        return (f"the kind of file system under {vault.path} cannot be told on {sys.platform}; not checked",)
    return ()


def lies_elsewhere(first: Path, second: Path) -> bool:
    """Whether two existing folders lie on different file systems.

    Two subvolumes of one disk have different device numbers; on Linux the mounted device tells them apart.
    """
    if first.stat().st_dev == second.stat().st_dev:
        return False
    mounts = _mounts()
    one, other = (mount_of(path.resolve(), mounts) for path in (first, second))
    if one is None or other is None or not one.source.startswith("/"):
        return True
    return one.source != other.source


def _probe_copy(vault: Vault, place: Path, mac: str | None, mounts: tuple[Mount, ...]) -> CopyFacts:
    if not place.is_dir():
        return CopyFacts(place, False, False, "it is not there (unplugged?)")
    mount = mount_of(place.resolve(), mounts)
    volatile = mount is not None and mount.kind in VOLATILE_FILE_SYSTEMS
    problem: str | None
    try:
        copy = Vault.open(place, vault.secret)
        problem = None if copy.vault_id == vault.vault_id else "it is a copy of another vault"
        if problem is None and mac is not None and vault.key(mac) is not None:
            problem = (
                None
                if copy.stored_key(mac) == vault.stored_key(mac)
                else "it holds another key for this board"
            )
        for key in boot_keys(vault) if problem is None else ():
            if boot_key(copy, key.scheme, key.slot) != key:
                problem = f"it holds another secure boot key {key.name}"
    except HarnessError as error:
        problem = error.message
    return CopyFacts(place, lies_elsewhere(vault.path, place), volatile, problem)


def _record_problem(vault: Vault, mac: str | None) -> str | None:
    try:
        if mac is not None and vault.key(mac) is not None:
            vault.stored_key(mac)
        boot_keys(vault)
    except HarnessError as error:
        return error.message
    return None


def _mounts() -> tuple[Mount, ...]:
    try:
        return parse_mounts(_MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return ()  # not Linux: the kind of file system is reported as unknown


def _unescaped(word: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, character)
    return word
