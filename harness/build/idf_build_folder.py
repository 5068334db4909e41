"""The description files of an ESP-IDF build folder, in the spellings of v5.3 to v6.x. Only reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.build.sdkconfig import parse_sdkconfig
from harness.errors import UsageError

FLASHER_ARGS = "flasher_args.json"
PROJECT_DESCRIPTION = "project_description.json"
SDKCONFIG_JSON = "config/sdkconfig.json"
SDKCONFIG = "sdkconfig"
BOOTLOADER = "bootloader/bootloader.bin"

FILE_MAX_BYTES = 128 << 20
"""The largest flash chip that ESP-IDF knows."""

_REBUILD = "build the app again with 'idf.py build', and name its build folder"


@dataclass(frozen=True, slots=True)
class FlashFile:
    """One image of a build and its place in flash."""

    role: str
    """``bootloader``, ``partition-table``, ``app``, ``otadata``, or the name that the build gives it."""
    offset: int
    """Flash address, bytes."""
    path: Path
    data: bytes = field(repr=False)
    """As built: plaintext, signed if the build signs."""


@dataclass(frozen=True, slots=True)
class IdfBuildFolder:
    """What the description files say, before it is judged."""

    dir: Path
    target: str
    """ESP-IDF's name of the chip."""
    files: tuple[FlashFile, ...]
    """In the order of their offsets; without the bootloader where the build leaves it to a person to flash it."""
    project: Mapping[str, Any]
    """``project_description.json``; empty where only the images were copied."""
    sdkconfig: Mapping[str, str] | None
    """``CONFIG_…`` names and values; None where the build's sdkconfig is not there."""

    def file(self, role: str) -> FlashFile | None:
        """The image with that role, if the build names one."""
        return next((each for each in self.files if each.role == role), None)


def read_idf_build_folder(folder: Path) -> IdfBuildFolder:
    """Reads the description files of `folder` and every image that they name.

    Raises:
        UsageError: a file is missing, not what it should be, or lies outside of the folder.
    """
    arguments = read_json(folder / FLASHER_ARGS)
    project = read_json(folder / PROJECT_DESCRIPTION) if (folder / PROJECT_DESCRIPTION).is_file() else {}
    extra = arguments.get("extra_esptool_args")
    told = [extra.get("chip") if isinstance(extra, dict) else None, project.get("target")]
    targets = {name for name in told if isinstance(name, str) and name}
    if len(targets) != 1:
        what = f"for {' and for '.join(sorted(targets))}" if targets else "for no chip that it names"
        raise UsageError(f"the build in {folder} is {what}", todo=_REBUILD)
    return IdfBuildFolder(
        dir=folder,
        target=targets.pop(),
        files=_flash_files(folder, arguments),
        project=project,
        sdkconfig=_sdkconfig(folder),
    )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        values = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON", todo=_REBUILD) from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no JSON object", todo=_REBUILD)
    return values


def read_bytes(path: Path) -> bytes:
    """The whole file, as long as it could be flashed.

    Raises:
        UsageError: it cannot be read, or is larger than any flash chip.
    """
    try:
        if path.stat().st_size > FILE_MAX_BYTES:
            raise UsageError(f"{path} is larger than any flash chip", todo=_REBUILD)
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", todo=_REBUILD) from error


def contained(folder: Path, name: object, *, where: str) -> Path:
    """The file `name` of `folder`; what lies outside does not belong to the build.

    Raises:
        UsageError: no text, absolute, or outside of the folder.
    """
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where} names no file, but {name!r}", todo=_REBUILD)
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{where} names '{name}', which is not in the build folder",
            todo="copy the file into the folder and correct the name: a build is flashed as a whole, or not at all",
        )
    return path


def _flash_files(folder: Path, arguments: Mapping[str, Any]) -> tuple[FlashFile, ...]:
    listed = arguments.get("flash_files")
    where = str(folder / FLASHER_ARGS)
    if not isinstance(listed, dict) or not listed:
        raise UsageError(f"{where} has no 'flash_files'", todo=_REBUILD)
    files = []
    for place, name in listed.items():
        offset = _number(place, where=where)
        path = contained(folder, name, where=where)
        files.append(FlashFile(_role(arguments, offset, name), offset, path, read_bytes(path)))
    return tuple(sorted(files, key=lambda each: each.offset))


def _role(arguments: Mapping[str, Any], offset: int, name: object) -> str:
    """What the build calls the image: it has an object of its own beside ``flash_files``."""
    for role, entry in arguments.items():
        if not isinstance(entry, dict) or role == "flash_files" or entry.get("file") != name:
            continue
        if _number(entry.get("offset"), where=FLASHER_ARGS) == offset:
            return role.replace("_", "-")
    return Path(str(name)).stem.replace("_", "-")


def _number(value: object, *, where: str) -> int:
    """An offset: hexadecimal text up to ESP-IDF v6, tolerated as a number."""
    if type(value) is int and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]{1,8}|[0-9]{1,10}", value):
        return int(value, 0)
    raise UsageError(f"{where}: offset is {value!r}, expected a number such as 0x10000", todo=_REBUILD)


def _sdkconfig(folder: Path) -> dict[str, str] | None:
    """The configuration that was built: CMake writes it into the folder; a copied ``sdkconfig`` will do."""
    path = folder / SDKCONFIG_JSON
    if path.is_file():
        return options_from_json(read_json(path))
    text = folder / SDKCONFIG
    if text.is_file():
        return parse_sdkconfig(read_bytes(text).decode("utf-8", "replace"))
    return None


def options_from_json(values: Mapping[str, Any]) -> dict[str, str]:
    """``config/sdkconfig.json`` (names without CONFIG_, JSON values) in the manner of an sdkconfig file."""
    options = {}
    for name, value in values.items():
        if isinstance(value, bool):
            options[f"CONFIG_{name}"] = "y" if value else "n"
        elif isinstance(value, int):
            options[f"CONFIG_{name}"] = str(value)
        elif isinstance(value, str):
            options[f"CONFIG_{name}"] = json.dumps(value, ensure_ascii=False)
    return options
