"""Reads the record of a run back from the folder that the run left."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UsageError
from harness.report.parts import FOLDER as PARTS
from harness.report.recorder import rebuild
from harness.report.run_record import FORMAT, RUN_FILE, RunRecord

_NAME_A_FOLDER = "name the folder of a run: the one with run.json in it, as a run prints it at its end"


def read_run(place: Path) -> tuple[RunRecord, Path]:
    """The record in the folder `place` (or of the ``run.json`` that it names), and the folder.

    A run that was killed has no ``run.json``: its record is put together from its parts.

    Raises:
        UsageError: there is no such folder, nothing of a run in it, or a record that this version cannot read.
    """
    folder = place.parent if place.name == RUN_FILE else place
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", todo=_NAME_A_FOLDER)
    path = folder / RUN_FILE
    if not path.exists() and (folder / PARTS).is_dir():
        return rebuild(folder), folder
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{folder} holds no {RUN_FILE}", todo=_NAME_A_FOLDER) from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return _record_of(text, path), folder


def _record_of(text: str, path: Path) -> RunRecord:
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}", todo="run the tests again") from error
    found = fields.get("format", FORMAT) if isinstance(fields, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise UsageError(
            f"{path} has format {found}, this harness reads formats up to {FORMAT}",
            todo="use the harness that made it, or a newer one",
        )
    try:
        return RunRecord.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise UsageError(
            f"{path} is not the record of a run: {where}: {first['msg']}", todo=_NAME_A_FOLDER
        ) from error
