"""The manifest of the evidence: SHA-256 of every file, and one digest over all.

``evidence.sha256`` has the form of `sha256sum`, so that anybody can check it without this harness.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.report.run_record import RUN_FILE
from harness.report.writing import JUNIT_FILE, REPORT_FILE

MANIFEST = "evidence.sha256"
SIGNATURE = "evidence.sig.json"
STATEMENT = "qualification.json"
"""What was concluded; it is evidence itself, so that nobody can exchange it."""
PAGE = "qualification.txt"

DERIVED = frozenset({MANIFEST, SIGNATURE, RUN_FILE, JUNIT_FILE, REPORT_FILE, PAGE})
"""Made from the evidence afterwards; each names the evidence's digest."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of one folder, by their path relative to it."""

    sha256: dict[str, str]

    def text(self) -> str:
        """As ``sha256sum`` writes it, sorted by path."""
        return "".join(f"{digest}  {path}\n" for path, digest in sorted(self.sha256.items()))

    @property
    def digest(self) -> str:
        """SHA-256 over `text`: one number for all of the evidence."""
        return hashlib.sha256(self.text().encode()).hexdigest()


def manifest_of(folder: Path) -> Manifest:
    """The manifest of every file in `folder`, as they are now; what is derived from it is left out."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.is_symlink() and name not in DERIVED:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return Manifest(found)


def write_manifest(folder: Path) -> Manifest:
    """Writes the manifest of `folder` into it."""
    manifest = manifest_of(folder)
    (folder / MANIFEST).write_bytes(manifest.text().encode())
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest that lies in `folder`.

    Raises:
        UsageError: there is none, or it is none.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{folder} holds no evidence: {MANIFEST} cannot be read",
            todo="name the folder of a qualification",
        ) from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or name.startswith("/") or ".." in Path(name).parts:
            raise UsageError(f"{path}:{number}: no line of a manifest")
        found[name] = digest
    return Manifest(found)


@dataclass(frozen=True, slots=True)
class Discrepancies:
    """How a folder differs from its manifest."""

    changed: tuple[str, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def any(self) -> bool:
        return bool(self.changed or self.missing or self.added)

    def lines(self) -> list[str]:
        """One line each."""
        words = {"changed": self.changed, "missing": self.missing, "not in the manifest": self.added}
        return [f"{name}: {word}" for word, names in words.items() for name in names]


def compare(folder: Path, manifest: Manifest) -> Discrepancies:
    """How the files in `folder` differ from `manifest`."""
    now = manifest_of(folder).sha256
    then = manifest.sha256
    return Discrepancies(
        tuple(name for name in sorted(then) if name in now and now[name] != then[name]),
        tuple(name for name in sorted(then) if name not in now),
        tuple(name for name in sorted(now) if name not in then),
    )
