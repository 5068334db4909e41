"""The manifests of a qualification: SHA-256 of every file of evidence, and then of every page that is made from it.

The first page names the digest over the evidence, so it cannot be part of it. There are two manifests therefore:
``evidence.sha256`` over logs and conclusions, and ``sealed.sha256`` over the pages and ``evidence.sha256``; a
signature is over the second, and so over all. Both have the form of `sha256sum`, so that anybody can check them
without this harness.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import LabError, RefusedError, UsageError
from harness.report.run_record import RUN_FILE
from harness.report.writing import JUNIT_FILE, REPORT_FILE

MANIFEST = "evidence.sha256"
SEAL = "sealed.sha256"
SIGNATURE = "sealed.sig.json"
STATEMENT = "qualification.json"
"""What was concluded; it is evidence itself, so that nobody can exchange it."""
PAGE = "qualification.txt"

SEALED = (MANIFEST, PAGE, JUNIT_FILE, REPORT_FILE, RUN_FILE)
"""What is made from the evidence afterwards, and the manifest of the evidence."""
NOT_EVIDENCE = frozenset({*SEALED, SEAL, SIGNATURE})

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclass(frozen=True, slots=True)
class Manifest:
    """Files of one folder, by their path relative to it."""

    sha256: dict[str, str]

    def text(self) -> str:
        """As ``sha256sum`` writes it, sorted by path."""
        return "".join(f"{digest}  {path}\n" for path, digest in sorted(self.sha256.items()))

    @property
    def digest(self) -> str:
        """SHA-256 over `text`: one number for all of them."""
        return hashlib.sha256(self.text().encode()).hexdigest()


def evidence_in(folder: Path) -> Manifest:
    """Every file of evidence in `folder`, as it is now."""
    return Manifest({name: _sha256_of(folder / name) for name in _files(folder) if name not in NOT_EVIDENCE})


def sealed_in(folder: Path) -> Manifest:
    """What in `folder` is made from the evidence, as it is now."""
    return Manifest({name: _sha256_of(folder / name) for name in _files(folder) if name in SEALED})


def foreign_in(folder: Path) -> tuple[str, ...]:
    """What is neither file nor folder: a link shows somebody what lies elsewhere, and no manifest has it."""
    return tuple(
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not (path.is_file() or path.is_dir())
    )


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix()


def _sha256_of(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise LabError(f"{path} cannot be read: {error.strerror}", todo="check its permissions") from error


def write_evidence(folder: Path) -> Manifest:
    """Writes the manifest of the evidence in `folder` into it."""
    return _write(folder / MANIFEST, evidence_in(folder))


def write_seal(folder: Path) -> Manifest:
    """Writes the manifest of all that is made from the evidence into `folder`; nothing in there may change any more."""
    return _write(folder / SEAL, sealed_in(folder))


def require_sealed_record(folder: Path) -> None:
    """That ``run.json`` is the one that was sealed, where `folder` is a qualification's.

    Raises:
        RefusedError: it was changed since. UsageError: the seal is none.
    """
    if not (folder / SEAL).exists():
        return
    then = read_manifest(folder / SEAL).sha256.get(RUN_FILE)
    if then != sealed_in(folder).sha256.get(RUN_FILE):
        raise RefusedError(
            f"{folder / RUN_FILE} is not the one that was sealed: a report made of it would say what nobody has signed",
            todo=f"see what was changed: harness qualify --verify {folder}",
        )


def _write(path: Path, manifest: Manifest) -> Manifest:
    odd = [name for name in manifest.sha256 if not name.isprintable()]
    if odd:
        raise LabError(f"{path.parent} holds a file whose name no manifest can hold: {odd[0]!a}")
    path.write_bytes(manifest.text().encode())
    return manifest


def read_manifest(path: Path) -> Manifest:
    """The manifest in the file `path`.

    Raises:
        UsageError: there is none, or it is none.
    """
    try:
        if path.is_symlink():
            raise UsageError(f"{path} is a link: the manifest of a qualification is a file")
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path.parent} holds no evidence that is sealed: {path.name} cannot be read",
            todo="name the folder of a qualification",
        ) from error
    found: dict[str, str] = {}
    # Not splitlines: that takes more characters for the end of a line than whoever else reads this.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
        match = _LINE.fullmatch(line)
        name = match[2] if match else ""
        if (
            match is None
            or not name.isprintable()
            or name.startswith("/")
            or {"", ".", ".."} & set(name.split("/"))
            or name in found
        ):
            raise UsageError(f"{path}:{number}: no line of a manifest")
        found[name] = match[1]
    return Manifest(found)


@dataclass(frozen=True, slots=True)
class Discrepancies:
    """How a folder differs from its manifests."""

    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    """See `foreign_in`."""

    @property
    def any(self) -> bool:
        return bool(self.changed or self.missing or self.added or self.foreign)

    def lines(self) -> list[str]:
        """One line each."""
        words = {
            "changed": self.changed,
            "missing": self.missing,
            "not in the manifest": self.added,
            "neither a file nor a folder, so nobody knows what it shows": self.foreign,
        }
        # A name may hold whatever whoever put it there wanted: on the terminal it is no line of its own.
        return [
            f"{name if name.isprintable() else ascii(name)}: {word}"
            for word, names in words.items()
            for name in names
        ]


def compare(now: Manifest, then: Manifest) -> Discrepancies:
    """How the files that are there now differ from those of then."""
    return Discrepancies(
        tuple(
            name
            for name in sorted(then.sha256)
            if now.sha256.get(name, then.sha256[name]) != then.sha256[name]
        ),
        tuple(name for name in sorted(then.sha256) if name not in now.sha256),
        tuple(name for name in sorted(now.sha256) if name not in then.sha256),
    )


def both(found: Iterable[Discrepancies], foreign: tuple[str, ...]) -> Discrepancies:
    """All of them as one."""
    every = tuple(found)
    return Discrepancies(
        tuple(name for each in every for name in each.changed),
        tuple(name for each in every for name in each.missing),
        tuple(name for each in every for name in each.added),
        foreign,
    )
