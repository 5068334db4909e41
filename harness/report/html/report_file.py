"""`write_report`: the record of a run and the logs beside it become one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import harness
from harness.errors import LabError
from harness.history.plots import in_short, phase_plot
from harness.history.queries import PhaseSeries
from harness.report.html import words
from harness.report.html.board_log import (
    MAX_CHARACTERS,
    packed,
    packed_text,
    read_board_log,
    within_budget,
)
from harness.report.html.timeline import lane_of
from harness.report.html.views import RunView, references_of, view_of
from harness.report.run_record import RunRecord

REPORT_FILE = "report.html"
"""In the folder of a run."""

STYLES = ("page", "drawings", "log", "qualification", "narrow", "paper")
"""In this order: what is said of a phone or of paper overrules the rest."""

_HEADINGS = re.compile(r"(?=<h3>)")
"""Of the template's own: in what comes from a board ``<`` is escaped."""

FILTERS = (
    "sign",
    "tone",
    "duration",
    "size",
    "address",
    "moment",
    "counted",
    "how_known",
    "done_by",
    "percent",
    "since",
)


def write_report(run: RunRecord, folder: Path, past: Sequence[PhaseSeries] = ()) -> Path:
    """Writes ``report.html`` into `folder`, in which the logs are that `run` names; replaces an older one at once.

    `past` is of `harness.history.past_phases`.

    Raises:
        LabError: the file cannot be written.
    """
    text = report_of(run, folder, past)
    path = folder / REPORT_FILE
    beside = folder / f".{REPORT_FILE}.{os.getpid()}"
    try:
        beside.write_text(text, encoding="utf-8", errors="replace", newline="\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise LabError(
            f"the report {path} cannot be written: {error.strerror or error}",
            todo="check free space and permissions there, then run `harness report` on the folder",
        ) from error
    return path


def report_of(run: RunRecord, folder: Path, past: Sequence[PhaseSeries] = ()) -> str:
    """The HTML text."""
    logs = {
        n: read_board_log(folder, board.log, board.boots)
        for n, board in enumerate(run.boards)
        if board.log is not None
    }
    view = view_of(run, logs)
    style = _asset("look.css", "harness.report") + "".join(_asset(f"styles/{name}.css") for name in STYLES)
    if past:
        style += _asset("plots.css", "harness.history")
    script = _asset("report.js")
    environment = _environment()
    body = environment.get_template("test_body.html.j2")
    bodies = {
        test.id: body.render(test=test, drawn=True)
        for test in (*view.tests, *view.prepared.values())
        if not test.in_full
    }
    return environment.get_template("report.html.j2").render(
        view=view,
        run=run,
        qualification=run.qualification,
        open_groups=view.groups("not proven"),
        left_groups=view.groups("skipped", "not applicable"),
        board_names=sorted({board.name for board in run.boards}),
        style=Markup(style),  # noqa: S704 (our own file)
        script=Markup(script),  # noqa: S704 (our own file)
        policy=_policy(style, script),
        logs=dict(_packed_logs(view)),
        details=_packed_bodies(bodies),
        # All that is not ours in a plot is escaped where it is drawn.
        past=[(one.phase, in_short(one), Markup(phase_plot(one))) for one in past],  # noqa: S704
        harness_version=harness.__version__,
    )


@dataclass(frozen=True, slots=True)
class PackedLog:
    """The log of one board as the page carries it."""

    data: str
    left_out: int
    """Lines for which there was no room."""


def _packed_logs(view: RunView) -> Iterable[tuple[str, PackedLog]]:
    """By the id of their board."""
    total = sum(board.log.characters for board in view.boards if board.log)
    for board in view.boards:
        if board.log is None or not board.log.lines:
            continue
        references = references_of((*view.tests, *view.prepared.values()), board)
        keep = {line for line, _id, _text in references} | {boot.first_line for boot in board.boots}
        share = MAX_CHARACTERS * board.log.characters // total if total > MAX_CHARACTERS else total
        lines, gaps = within_budget(board.log, sorted(keep), share)
        heads = {boot.first_line: boot.summary for boot in board.boots}
        left_out = sum(last - first + 1 for first, last in gaps)
        yield board.id, PackedLog(packed(lines, gaps, heads, references), left_out)


def _packed_bodies(bodies: Mapping[str, str]) -> str:
    """The bodies of tests by their ids, cut at their headings: what is alike lies side by side, and packs to half."""
    pieces: dict[str, list[str]] = {}
    tests: dict[str, list[tuple[str, int]]] = {}
    for test, body in bodies.items():
        for piece in _HEADINGS.split(body):
            heading = piece[4:].partition("<")[0] if piece.startswith("<h3>") else ""
            alike = pieces.setdefault(heading, [])
            tests.setdefault(test, []).append((heading, len(alike)))
            alike.append(piece)
    return packed_text(
        json.dumps({"tests": tests, "pieces": pieces}, ensure_ascii=False, separators=(",", ":"))
    )


@cache
def _environment() -> Environment:
    """Everything that comes from a board is hostile text: nothing is put in unescaped but our own style and script."""
    environment = Environment(
        loader=PackageLoader("harness.report.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(words, name) for name in FILTERS})
    environment.filters["lane"] = lane_of
    return environment


def _asset(name: str, package: str = "harness.report.html") -> str:
    return (resources.files(package) / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style and this script, nothing else, and nothing from anywhere."""
    return (
        "default-src 'none'; "
        f"style-src {_hash_of(style)}; script-src {_hash_of(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
