"""The history as a page: one file that needs no network, and the pieces of it for the lab's page."""

from __future__ import annotations

import sqlite3
import time
from importlib.resources import files

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.history.amounts import age_text
from harness.history.flakiness import RULE
from harness.history.plots import in_short, phase_plot, seconds_text
from harness.history.queries import (
    PhaseSeries,
    Scope,
    flaky_tests,
    past_runs,
    phase_series,
    rates_of_boards,
    rates_of_tests,
)

SIGNS = {"passed": "+", "failed": "x", "error": "!", "not proven": "?"}
"""Of outcomes, for rows of them."""


def css() -> str:
    """The look of all pages, and that of the history's."""
    files_of_history = ("history.css", "plots.css")
    return _text("harness.report", "look.css") + "".join(
        _text("harness.history", name) for name in files_of_history
    )


def templates_of_history() -> BaseLoader:
    """Where ``_history.html.j2`` is."""
    return PackageLoader("harness.history")


def environment(loader: BaseLoader) -> Environment:
    """Templates that escape everything, with the filters that the history's pieces use."""
    made = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters.update(
        moment=moment_text,
        seconds=seconds_text,
        age=age_text,
        percent=percent_text,
        sign=lambda outcome: SIGNS.get(outcome, "?"),
        plot=_plot,
        breakable=_breakable,
        in_short=in_short,
    )
    return made


def history_page(database: sqlite3.Connection, scope: Scope) -> str:
    """The whole page, self-contained."""
    return (
        environment(templates_of_history())
        .get_template("history.html.j2")
        .render(
            css=css(),
            now_s=time.time(),
            scope_text=_scope_text(scope),
            boards=rates_of_boards(database, scope),
            tests=rates_of_tests(database, scope),
            flaky=flaky_tests(database, scope),
            rule=RULE,
            phases=phase_series(database, scope),
            runs=past_runs(database, scope),
        )
    )


def moment_text(moment_s: float) -> str:
    """Local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(moment_s))


def percent_text(share: float) -> str:
    """Never 100 % when something failed."""
    percent = share * 100
    return "100 %" if share == 1 else f"{min(percent, 99.9):.1f} %" if percent > 99 else f"{percent:.0f} %"


def _breakable(name: str) -> Markup:
    """A long name of a test, which may go on in the next line where a word ends."""
    text = escape(name)
    for sign in ("_", "/", "::"):
        text = text.replace(sign, Markup(f"{sign}<wbr>"))  # noqa: S704 - three signs of ours
    return text


def _plot(series: PhaseSeries) -> Markup:
    # All that is not ours in it is escaped there.
    return Markup(phase_plot(series))  # noqa: S704


def _scope_text(scope: Scope) -> str:
    parts = [f"board {scope.board}" if scope.board else "All boards"]
    if scope.test:
        parts.append(f"tests with “{scope.test}” in their id")
    parts.append("everything there is" if scope.since_s is None else f"since {moment_text(scope.since_s)}")
    text = ", ".join(parts)
    return text[0].upper() + text[1:]


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
