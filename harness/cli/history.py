"""`harness history`: pass rates, flaky tests and durations over all runs of this user."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from statistics import median

import click

from harness.cli.options import json_option
from harness.errors import UsageError
from harness.history.amounts import age_s, age_text
from harness.history.export import export_lines
from harness.history.flakiness import RULE, Flaky
from harness.history.history import History
from harness.history.killed import take_in_killed
from harness.history.page import SIGNS, history_page
from harness.history.queries import (
    BoardRate,
    PhaseSeries,
    Rate,
    Scope,
    TestRate,
    flaky_tests,
    past_runs,
    phase_series,
    rates_of_boards,
    rates_of_tests,
)
from harness.home import Home

_LEGEND = "last, newest on the right: + passed   x failed   ! error of the bench   ? not proven"
_MOST_TESTS = 30
_LONGEST_CAUSE = 100


@click.command(
    epilog="""\b
Examples:
  harness history --since 30d
  harness history --board desk-c3 --flaky
  harness history --html history.html
  harness history --export runs.jsonl
""",
)
@click.option("--board", metavar="NAME", help="Only this board.")
@click.option("--test", metavar="PART", help="Only tests that have PART in their id.")
@click.option("--since", metavar="AGE", help="Only the last 30d, 12h, 8w, … (default: all there is).")
@click.option("--flaky", is_flag=True, help="Only the flaky tests, with the rule.")
@click.option(
    "--export", metavar="FILE", help="Write everything to FILE as JSON lines; - is standard output."
)
@click.option("--html", metavar="FILE", help="Write a page with plots to FILE; it needs no network.")
@json_option
def history(
    board: str | None,
    test: str | None,
    since: str | None,
    flaky: bool,
    export: str | None,
    html: str | None,
    as_json: bool,
) -> None:
    """Say what all runs under HARNESS_HOME came to: per board, per test, flaky tests, how long phases took."""
    scope = Scope(board, test, None if since is None else time.time() - age_s(since))
    take_in_killed(Home.of_user())
    with History.of(Home.of_user()).reading() as database:
        if export is not None:
            _export(database, scope, export)
            return
        if html is not None:
            _write([history_page(database, scope)], html)
            return
        unstable = flaky_tests(database, scope)
        if flaky:
            _tell_flaky(unstable, as_json=as_json)
            return
        boards, tests = rates_of_boards(database, scope), rates_of_tests(database, scope)
        phases = phase_series(database, scope)
        if as_json:
            runs = [asdict(run) for run in past_runs(database, scope)]
            told = {
                "format": 1,
                "boards": [asdict(one) | {"pass_rate": one.rate.rate} for one in boards],
                "tests": [asdict(one) | {"pass_rate": one.rate.rate} for one in tests],
                "flaky": {"rule": RULE, "tests": [asdict(one) for one in unstable]},
                "phases": [asdict(one) for one in phases],
                "runs": runs,
            }
            click.echo(json.dumps(told, indent=1))
            return
    _tell(boards, tests, unstable, phases)


def _tell(
    boards: list[BoardRate], tests: list[TestRate], unstable: list[Flaky], phases: list[PhaseSeries]
) -> None:
    if not boards and not tests:
        click.echo(
            "There is nothing in the history for that: every run of pytest and `harness run` adds to it."
        )
        return
    _table(
        ("board", "chip", "passed", "bench errors", "runs", "last used", "last", "last broken"),
        [
            (
                one.board,
                one.chip,
                _percent(one.rate),
                str(one.rate.errors or ""),
                str(one.runs),
                _ago(one.last_run_s),
                _signs(one.last),
                f"{_ago(one.broken_s)}: {_short(one.problem)}" if one.broken_s is not None else "never",
            )
            for one in boards
        ],
    )
    click.echo()
    _table(
        ("test", "passed", "median", "last", "last failure"),
        [
            (
                one.test,
                _percent(one.rate),
                f"{one.median_s:.1f} s",
                _signs(one.last),
                f"{_ago(one.failed_s)}: {_short(one.cause)}" if one.failed_s is not None else "never",
            )
            for one in tests[:_MOST_TESTS]
        ],
    )
    if len(tests) > _MOST_TESTS:
        click.echo(f"… and {len(tests) - _MOST_TESTS} tests that pass as often or more; --json has all")
    click.echo(f"({_LEGEND})")
    if unstable:
        click.echo()
        _tell_flaky(unstable, as_json=False)
    if phases:
        click.echo()
        _table(
            ("phase", "last", "median", "longest", "times"),
            [
                (
                    one.phase,
                    *(f"{value:.2f} s" for value in _spread(one)),
                    str(sum(point.times for point in one.points)),
                )
                for one in phases
            ],
        )


def _spread(series: PhaseSeries) -> tuple[float, float, float]:
    durations = [point.duration_s for point in series.points]
    return durations[-1], median(durations), max(point.longest_s for point in series.points)


def _tell_flaky(unstable: list[Flaky], *, as_json: bool) -> None:
    if as_json:
        told = {"format": 1, "rule": RULE, "tests": [asdict(one) for one in unstable]}
        click.echo(json.dumps(told, indent=1))
        return
    if unstable:
        _table(
            ("flaky test", "board", "profile", "firmware", "passed", "failed", "changes"),
            [
                (
                    one.test,
                    one.board or "",
                    one.profile or "",
                    (one.firmware_sha256 or "")[:12],
                    str(one.passed),
                    str(one.failed),
                    str(one.flips),
                )
                for one in unstable
            ],
        )
    else:
        click.echo("No test is flaky.")
    click.echo(RULE)


def _export(database: sqlite3.Connection, scope: Scope, file: str) -> None:
    lines = export_lines(database, scope)
    if file == "-":
        for line in lines:
            click.echo(line)
    else:
        _write((f"{line}\n" for line in lines), file)


def _write(texts: Iterable[str], file: str) -> None:
    path = Path(file)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        # A reader never sees half of it.
        with part.open("x", encoding="utf-8") as out:
            out.writelines(texts)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise UsageError(
            f"{file} cannot be written: {error.strerror or error}", todo="name a file in a folder of yours"
        ) from error
    click.echo(f"{os.fspath(path)}: written", err=True)


def _percent(rate: Rate) -> str:
    return "" if rate.rate is None else f"{rate.passed}/{rate.passed + rate.failed} {rate.rate:.0%}"


def _signs(outcomes: Sequence[str]) -> str:
    return "".join(SIGNS.get(outcome, "?") for outcome in outcomes)


def _ago(moment_s: float) -> str:
    return f"{age_text(time.time() - moment_s)} ago"


def _short(cause: str | None) -> str:
    line = " ".join((cause or "no cause noted").split())
    return line if len(line) <= _LONGEST_CAUSE else f"{line[:_LONGEST_CAUSE]}…"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = [columns, *rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for number, line in enumerate(table):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)
