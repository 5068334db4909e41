"""Writes a run's record into its folder: ``run.json``, ``junit.xml`` and the report."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.report.junit import junit_xml
from harness.report.run_record import RUN_FILE, RunRecord

JUNIT_FILE = "junit.xml"
REPORT_FILE = "report.html"


def write_run(run: RunRecord, folder: Path, past: Sequence[Any] = ()) -> Path | None:
    """Writes all files; returns the report's, None where there is no report.

    `past` is of `harness.history.past_phases`: what the report shows of earlier runs.

    OSError from the file system passes through.
    """
    _replace(folder / RUN_FILE, run.model_dump_json(exclude_defaults=True) + "\n")
    _replace(folder / JUNIT_FILE, junit_xml(run))
    return _report(run, folder, past)


def read_run(folder: Path) -> RunRecord:
    """The record in ``run.json``. OSError and pydantic's ValidationError pass through."""
    return RunRecord.model_validate_json((folder / RUN_FILE).read_text(encoding="utf-8"))


def _replace(path: Path, text: str) -> None:
    """Whole or not at all: a reader never sees half a file."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)  # noqa: PTH105 - one call on all systems


def _report(run: RunRecord, folder: Path, past: Sequence[Any]) -> Path | None:
    try:
        html = importlib.import_module("harness.report.html")
    except ModuleNotFoundError:
        return None
    path: Path = html.write_report(run, folder, past)
    return path
