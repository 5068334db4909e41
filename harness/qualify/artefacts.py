"""The images and tables of a qualification: by path and SHA-256, never built here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import FormatError, RefusedError, UsageError
from harness.formats.partition_table import PartitionTable
from harness.ota.release import Release, parse_release
from harness.qualify.file import ArtefactFile, QualifyPlan
from harness.qualify.sighting import ImageFacts

MAX_FILE_BYTES = 64 << 20
"""No flash of these chips holds more."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One file whose SHA-256 is the demanded one."""

    path: Path
    data: bytes = field(repr=False)
    sha256: str


@dataclass(frozen=True, slots=True)
class App:
    """One of the two apps."""

    file: Loaded
    release: Release
    facts: ImageFacts


@dataclass(frozen=True, slots=True)
class Artefacts:
    """All files that a qualification names."""

    running: App
    update: App
    served: Mapping[str, Loaded]
    served_back: Mapping[str, Loaded]
    table: PartitionTable | None
    files: tuple[Loaded, ...]


def load_artefacts(plan: QualifyPlan) -> Artefacts:
    """Reads every file that the qualification names and compares its SHA-256; nothing else is touched before.

    Raises:
        RefusedError: a file is another one than was demanded.
        UsageError: one cannot be read, or is no app.
    """
    file = plan.file
    seen: list[Loaded] = []

    def load(what: str, entry: ArtefactFile) -> Loaded:
        loaded = _load(plan.place(entry.path), entry.sha256, what)
        seen.append(loaded)
        return loaded

    running = _app("running", load("running", file.running))
    update = _app("update", load("update", file.update))
    if running.facts.elf_sha256 == update.facts.elf_sha256:
        raise UsageError(
            f"{plan.path}: running and update are the same app ({update.facts.text()}): no log could tell them apart",
            todo="give two versions",
        )
    running, update = _rivals(running, update)
    table = None
    if file.partition_table is not None:
        loaded = load("partition_table", file.partition_table)
        try:
            table = PartitionTable.from_binary(loaded.data)
        except FormatError as error:
            raise UsageError(f"{loaded.path}: {error.message}", todo=error.todo) from error
    served = {slot: load(f"served.{slot}", entry) for slot, entry in file.served.items()}
    back = {slot: load(f"served_back.{slot}", entry) for slot, entry in file.served_back.items()}
    return Artefacts(running, update, served, back, table, tuple(seen))


def _rivals(one: App, other: App) -> tuple[App, App]:
    """Both, each with what the other would print: a version that both have proves neither."""
    return (
        replace(one, facts=replace(one.facts, rival=other.facts)),
        replace(other, facts=replace(other.facts, rival=one.facts)),
    )


def _load(path: Path, demanded: str, what: str) -> Loaded:
    try:
        # A device or a pipe may never end.
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(
                f"{what}: {path} is no file of at most {MAX_FILE_BYTES >> 20} MiB",
                todo="correct 'path' in qualify.yaml",
            )
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{what}: {path} cannot be read: {error.strerror}", todo="correct 'path' in qualify.yaml"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != demanded:
        raise RefusedError(
            f"{what}: {path} has SHA-256 {found}, {demanded} is demanded. Nothing was touched",
            todo="give the file that was released, or demand this one in qualify.yaml",
        )
    return Loaded(path, data, found)


def _app(name: str, loaded: Loaded) -> App:
    try:
        release = parse_release(loaded.data, name=str(loaded.path))
    except FormatError as error:
        raise UsageError(f"{name}: {error.message}", todo=error.todo) from error
    stored = release.parsed.stored_hash
    facts = ImageFacts(
        name=name,
        project=release.project_name,
        version=release.version,
        elf_sha256=release.description.elf_sha256.hex(),
        image_sha256=stored.hex() if stored is not None else "",
        file_sha256=loaded.sha256,
        size_bytes=len(loaded.data),
        secure_version=release.secure_version,
        idf_version=release.description.idf_ver,
    )
    return App(loaded, release, facts)
