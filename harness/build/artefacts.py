"""What a build left behind, by path and SHA-256: the thing that `--app DIR` names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.build.sdkconfig import parse_sdkconfig
from harness.chips import Chip, chip_named
from harness.errors import FormatError, HarnessError, LabError
from harness.formats.partition_table import PartitionTable

FORMAT_VERSION = 1
FILE_NAME = "artefacts.json"
KINDS = ("native", "target")

BOOTLOADER = "bootloader"
PARTITION_TABLE = "partition-table"
APP = "app"
SDKCONFIG = "sdkconfig"
ROLES = (BOOTLOADER, PARTITION_TABLE, APP, SDKCONFIG)
"""What each file of a build is for; keys of ``files`` in the JSON."""


@dataclass(frozen=True, slots=True)
class Artefacts:
    """One build of one version for one chip."""

    dir: Path
    chip: Chip
    kind: str
    """``native``: the app runs on a twin of this host; ``target``: on the chip."""
    project: str
    version: str
    secure_version: int
    """Of the app, for anti-rollback."""
    bootloader: Path
    """Image for `Chip.bootloader_offset`, plaintext."""
    partition_table: PartitionTable
    table_offset: int
    """Flash address of the partition table."""
    app: Path
    """Application image, plaintext."""
    sdkconfig: Mapping[str, str]
    """``CONFIG_…`` names and values as in an sdkconfig file; texts keep their quotes."""
    sha256: Mapping[str, str]
    """SHA-256 of each file in `dir`, by file name, lower-case hexadecimal."""

    @classmethod
    def write(
        cls,
        directory: Path,
        *,
        chip: Chip,
        kind: str,
        project: str,
        version: str,
        secure_version: int,
        bootloader: bytes,
        partition_table: PartitionTable,
        table_offset: int,
        app: bytes,
        sdkconfig: str,
    ) -> Artefacts:
        """Writes the files of a build and their description into `directory`, which must exist.

        Raises:
            LabError: a file cannot be written.
        """
        files = {
            BOOTLOADER: ("bootloader.bin", bootloader),
            PARTITION_TABLE: ("partition-table.bin", partition_table.to_binary()),
            APP: (f"{project}.bin", app),
            SDKCONFIG: ("sdkconfig", sdkconfig.encode()),
        }
        description = {
            "format": FORMAT_VERSION,
            "kind": kind,
            "chip": chip.name,
            "project": project,
            "version": version,
            "secure_version": secure_version,
            "table_offset": table_offset,
            "files": {role: {"name": name, "sha256": _sha256(data)} for role, (name, data) in files.items()},
        }
        try:
            for name, data in files.values():
                (directory / name).write_bytes(data)
            (directory / FILE_NAME).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise LabError(
                f"the build in {directory} cannot be written: {error.strerror}",
                todo="see whether the disk is full",
            ) from error
        return cls.read(directory)

    @classmethod
    def read(cls, directory: Path) -> Artefacts:
        """The build in `directory`, every file checked against its SHA-256.

        Raises:
            FormatError: there is no build, it is of a newer format, or a file is missing or has changed.
        """
        values = _read_description(directory)
        try:
            files = {role: _checked_file(directory, role, values["files"][role]) for role in ROLES}
            sdkconfig = parse_sdkconfig(files[SDKCONFIG][1].decode("utf-8", "replace"))
            return cls(
                dir=directory,
                chip=chip_named(str(values["chip"])),
                kind=_kind(values["kind"]),
                project=str(values["project"]),
                version=str(values["version"]),
                secure_version=int(values["secure_version"]),
                bootloader=files[BOOTLOADER][0],
                partition_table=PartitionTable.from_binary(files[PARTITION_TABLE][1]),
                table_offset=int(values["table_offset"]),
                app=files[APP][0],
                sdkconfig=sdkconfig,
                sha256={path.name: _sha256(data) for path, data in files.values()},
            )
        except HarnessError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{directory / FILE_NAME}: a field is missing or of the wrong kind ({error})",
                todo="build again",
            ) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _kind(value: object) -> str:
    if value not in KINDS:
        raise ValueError(f"kind is {value!r}")
    return str(value)


def _read_description(directory: Path) -> dict[str, Any]:
    path = directory / FILE_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(
            f"{directory} holds no build: {path.name} cannot be read ({error.strerror})",
            todo="name the folder that a build left",
        ) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON", todo="build again") from error
    if not isinstance(values, dict) or type(values.get("format")) is not int:
        raise FormatError(f"{path} has no number 'format'", todo="build again")
    if values["format"] != FORMAT_VERSION:
        raise FormatError(
            f"{path}: format is {values['format']}, this release reads {FORMAT_VERSION}",
            todo="use the release that built it, or a newer one",
        )
    return values


def _checked_file(directory: Path, role: str, entry: Mapping[str, Any]) -> tuple[Path, bytes]:
    name = str(entry["name"])
    path = directory / name
    if path.parent != directory or name in ("", ".", ".."):
        raise FormatError(f"{directory / FILE_NAME}: '{name}' is not a file of the build", todo="build again")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(
            f"the build in {directory} lacks its {role}: {name} cannot be read ({error.strerror})",
            todo="build again",
        ) from error
    found, expected = _sha256(data), str(entry["sha256"])
    if found != expected:
        raise FormatError(
            f"{path} has changed since it was built: SHA-256 {found[:16]}…, expected {expected[:16]}…",
            todo="build again",
        )
    return path, data
