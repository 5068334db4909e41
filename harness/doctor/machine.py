"""What a harness needs of a machine besides tools: a clock that is right, a folder for locks, packages that fit."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import harness
from harness.doctor.finding import Finding, good, note, wrong
from harness.errors import LabError
from harness.locks import shared_folder

DAY_S = 86_400.0

MEDDLING_PLUGINS = {
    # distribution: what its pytest plugin does to tests on boards
    "labgrid": "its fixture 'target' takes the place of pytest-embedded's, and its pyserial that of pyserial's",
    "pyserial-labgrid": "its files overwrite those of pyserial, which opens every board",
    "pytest-twister-harness": "it has a fixture 'dut' of its own",
    "pytest-timeout": "a test that is timed out by 'thread' ends the whole session, with a board in the middle of it",
}


@dataclass(frozen=True, slots=True)
class MachineFacts:
    """What `probe_machine` saw."""

    now_s: float
    """The clock, Unix seconds."""
    installed_s: float
    """When the newest file of the harness was made: no clock that is right is before it."""
    lock_folder: str | None
    """None: there is none."""
    lock_complaint: LabError | None = None
    temporary: str = ""
    temporary_complaint: str | None = None
    """Why nothing can be written there."""
    espefuse_complaint: str | None = None
    """Why espefuse cannot be imported."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Installed distributions that matter, with their versions."""
    key_file: str | None = None
    """As HARNESS_VAULT_KEY_FILE names it."""
    key_file_complaint: tuple[str, str] | None = None
    """What is wrong with it, and what mends that."""


def probe_machine() -> MachineFacts:
    """Looks; writes one temporary file, and takes it away again."""
    lock_folder, lock_complaint = None, None
    try:
        lock_folder = str(shared_folder())
    except LabError as error:
        lock_complaint = error
    named = os.environ.get("HARNESS_VAULT_KEY_FILE")
    temporary, temporary_complaint = _temporary()
    return MachineFacts(
        now_s=time.time(),
        installed_s=_newest(Path(harness.__file__).parent),
        lock_folder=lock_folder,
        lock_complaint=lock_complaint,
        temporary=temporary,
        temporary_complaint=temporary_complaint,
        espefuse_complaint=_importing("espefuse"),
        versions=_versions(),
        key_file=named,
        key_file_complaint=key_file_complaint(Path(named).expanduser()) if named else None,
    )


def check_machine(facts: MachineFacts) -> list[Finding]:
    """Judges. What is as it should be takes one line at most."""
    return [*_check_clock(facts), *_check_packages(facts), *_check_folders(facts)]


def _check_clock(facts: MachineFacts) -> list[Finding]:
    if facts.now_s > facts.installed_s - DAY_S:
        return []
    told = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts.now_s))
    text = (
        f"the clock says {told}, which is before the harness was installed: records, leases and TLS go by it"
    )
    return [wrong("host", text, "set the clock: sudo timedatectl set-ntp true, or sudo date -s '…'")]


def _check_packages(facts: MachineFacts) -> list[Finding]:
    found = []
    if facts.espefuse_complaint is not None:
        bitstring = facts.versions.get("bitstring")
        trap = f" (bitstring {bitstring} is installed; older esptools need bitstring<5)" if bitstring else ""
        found.append(
            wrong(
                "host",
                f"espefuse cannot be imported: {facts.espefuse_complaint}{trap}",
                "python -m pip install --upgrade 'esptool>=5.6,<6' into the harness's environment",
            )
        )
    base = facts.versions.get("pytest-embedded")
    others = {
        name: version
        for name, version in facts.versions.items()
        if name.startswith("pytest-embedded-") and base is not None and version != base
    }
    if others:
        listed = ", ".join(f"{name} {version}" for name, version in sorted(others.items()))
        todo = f"python -m pip install {' '.join(f'{name}=={base}' for name in sorted(others))}"
        found.append(
            note("host", f"beside pytest-embedded {base} there are {listed}: they belong together", todo)
        )
    for name, why in MEDDLING_PLUGINS.items():
        if name in facts.versions:
            todo = f"install {name} into an environment of its own"
            found.append(note("host", f"{name} {facts.versions[name]} is in this environment: {why}", todo))
    return found


def _check_folders(facts: MachineFacts) -> list[Finding]:
    found = []
    if facts.lock_complaint is not None:
        todo = facts.lock_complaint.todo or "make /run/lock writable"
        found.append(wrong("host", facts.lock_complaint.message, todo))
    if facts.temporary_complaint is not None:
        text = f"nothing can be written to {facts.temporary or 'a temporary folder'}: {facts.temporary_complaint}"
        found.append(wrong("host", text, "make room there, or set TMPDIR to a folder with some"))
    return found


def check_key_file(facts: MachineFacts) -> list[Finding]:
    """Judges the file that HARNESS_VAULT_KEY_FILE names."""
    if facts.key_file is None:
        return []
    if facts.key_file_complaint is not None:
        return [wrong("vault", *facts.key_file_complaint)]
    return [good("vault", f"key file {facts.key_file}: there, and private")]


# --- looking ---


def key_file_complaint(path: Path) -> tuple[str, str] | None:
    """Why the key file at `path` is of no use, or known to others, and what mends it; it is not read."""
    try:
        status = path.stat()
    except OSError as error:
        text = f"the key file {path} cannot be used: {error.strerror}"
        return text, "name the right file with HARNESS_VAULT_KEY_FILE; without it no key of the vault opens"
    if os.name == "posix" and status.st_mode & 0o077:
        todo = f"chmod 600 {path}; if others may have read it, treat the vault's keys as known to them"
        return f"others may read the key file {path}, which opens every key of the vault", todo
    return None


def _temporary() -> tuple[str, str | None]:
    try:
        with tempfile.NamedTemporaryFile(prefix="harness-doctor-") as file:
            file.write(bytes(4096))
            file.flush()
        return tempfile.gettempdir(), None
    except OSError as error:
        return os.environ.get("TMPDIR", ""), error.strerror or str(error)


def _importing(name: str) -> str | None:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return str(error)
    return None


def _newest(package: Path) -> float:
    return max((file.stat().st_mtime for file in package.glob("*.py")), default=0.0)


def _versions() -> dict[str, str]:
    wanted = {"bitstring", "pytest-embedded", *MEDDLING_PLUGINS}
    found = {}
    for distribution in importlib.metadata.distributions():
        name = str(distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name in wanted or name.startswith("pytest-embedded-"):
            found[name] = distribution.version
    return found
