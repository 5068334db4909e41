"""What the commands are called and take, as plain data: written once per version, read at each keystroke."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

import harness

FORMAT = 1
"""Of the table's file; another number is as good as no file."""

BOARD_METAVARS = frozenset({"NAME", "BOARD", "BOARDS"})
"""Metavars of parameters that take a board of boards.yaml."""
NAMES_ONLY = frozenset({"--burn", "--consume", "--accept-unknown-burns"})
"""Consent is by name, a tag is none."""
BOARD_OPTIONS = NAMES_ONLY | {"--board"}


def table_of(command: click.Command) -> dict[str, Any]:
    """The table of a command, and of those below it."""
    # No context: what a parameter says of itself does not depend on one.
    context = click.Context(command, info_name=command.name)
    found: dict[str, Any] = {
        "help": command.get_short_help_str(limit=100),
        "params": [
            _param(each) for each in command.get_params(context) if not getattr(each, "hidden", False)
        ],
    }
    if isinstance(command, click.Group):
        names = command.list_commands(context)
        below = {name: command.get_command(context, name) for name in names}
        found["commands"] = {name: table_of(each) for name, each in below.items() if each and not each.hidden}
    return found


def _param(param: click.Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"name": param.name, "nargs": param.nargs, "words": _words(param)}
    if isinstance(param, click.Option):
        pairs = [*param.opts]
        if param.secondary_opts:
            pairs = [f"{yes}/{no}" for yes, no in zip(param.opts, param.secondary_opts, strict=False)]
        found |= {"opts": pairs, "flag": param.is_flag, "count": param.count, "multiple": param.multiple}
        found["help"] = (param.help or "").split(". ")[0]
    return found


def _words(param: click.Parameter) -> dict[str, Any] | None:
    """What may stand there: ``choice``, ``path``, ``board``; None: nothing that is known."""
    kind = param.type
    if isinstance(kind, click.Choice):
        return {"kind": "choice", "choices": [str(getattr(each, "value", each)) for each in kind.choices]}
    if isinstance(kind, click.Path):
        return {"kind": "path", "files": kind.file_okay}
    if isinstance(kind, click.File):
        return {"kind": "path", "files": True}
    opts = set(param.opts)
    shown = param.metavar or (param.human_readable_name.upper() if isinstance(param, click.Argument) else "")
    is_board = isinstance(param, click.Argument) and shown.strip("[].") in BOARD_METAVARS
    if opts & BOARD_OPTIONS or is_board:
        return {"kind": "board", "tags": not opts & NAMES_ONLY}
    return None


# --- the file ---


def table_file() -> Path:
    """Where the table of this very harness is kept: other commands, another file."""
    import platformdirs

    folder = platformdirs.user_cache_path("esp32-secure-ota-harness")
    return folder / f"completion-{_fingerprint(Path(__file__).parents[1])}.json"


def _fingerprint(package: Path) -> str:
    """Of the code that the table is made from: version, and when each command's file was changed."""
    digest = hashlib.sha256(f"{FORMAT} {harness.__version__} {package}".encode())
    for file in sorted((package / "cli").glob("*.py")):
        digest.update(f"{file.name} {file.stat().st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def read_table(file: Path, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The table in `file`, else a new one, which is kept there where that is possible."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] == FORMAT:
            table: Mapping[str, Any] = found["table"]
            return table
    except (OSError, ValueError, KeyError, TypeError):
        # Not there yet, or spoiled: it is made again.
        pass
    made = make()
    _keep(file, made)
    return made


def _keep(file: Path, table: Mapping[str, Any]) -> None:
    """Whole or not at all: two shells may ask at once. Tables of other versions go."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for old in file.parent.glob("completion-*.json"):
            if old != file:
                old.unlink()
        descriptor, name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump({"format": FORMAT, "table": table}, stream)
        Path(name).replace(file)
    except OSError:
        # Completion is slow then, and right.
        return
