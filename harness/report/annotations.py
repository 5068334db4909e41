"""What a CI service shows of a failure where people look first: beside the line, and on the page of the run.

GitHub Actions reads workflow commands (``::error …``) from a step's output and a Markdown file for its summary; GitLab
reads the JUnit file for its merge request, and folds sections of a job's log. Everything said here is made from pytest's
reports as they are shown in the terminal, out of which secrets have been taken.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.rack.tally import NOT_RUN
from harness.report.workflow_commands import command

MOST_ANNOTATIONS = 10
"""GitHub shows no more errors of one step than this."""
MOST_SUMMARY_ROWS = 100
MOST_SUMMARY_BYTES = 900_000
"""GitHub takes 1 MiB of one step, and shows nothing of a longer file."""
MOST_CAUSE = 800
"""Characters of one cause."""
OUTCOMES = ("passed", "failed", "error", "skipped")
OTHER_PLUGIN = "pytest_github_actions_annotate_failures"
"""Says the same; both together would say everything twice."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One test, or one file that could not be collected."""

    test: str
    """Node id."""
    cause: str
    """The sentence that it failed with; may have several lines."""
    file: str | None = None
    """Relative to the root folder, or absolute."""
    line: int | None = None
    """From 1."""
    outcome: str = "failed"
    """``failed``: what was tested; ``error``: the bench, a fixture, or the file itself."""
    board: str | None = None
    told: tuple[str, ...] = ()
    """Of the board: its last boots and where its log is."""


# --- GitHub ---


def github_annotation(failure: Failure, *, place: Callable[[str], str] = str) -> str:
    """The command that shows `failure` beside the line; `place` makes a path relative to the checkout."""
    words = "Error" if failure.outcome == "error" else "Failed"
    on = f" on board {failure.board}" if failure.board else ""
    name = failure.test.rsplit("::", 1)[-1]
    text = "\n".join([failure.cause, *failure.told])
    file = None if failure.file is None else place(failure.file)
    return command("error", text, file=file, line=failure.line, title=f"{words}: {name}{on}")


def github_annotations(failures: Iterable[Failure], *, place: Callable[[str], str] = str) -> list[str]:
    """As many as are shown; the last one then says how many there are more."""
    lines = [github_annotation(failure, place=place) for failure in failures]
    if len(lines) <= MOST_ANNOTATIONS:
        return lines
    more = len(lines) - MOST_ANNOTATIONS + 1
    text = f"and {more} more; all are on this run's summary and in the JUnit file"
    return [*lines[: MOST_ANNOTATIONS - 1], command("error", text, title="More failures")]


def github_summary(counts: Mapping[str, int], failures: Iterable[Failure], *, seconds: float) -> str:
    """Markdown for ``GITHUB_STEP_SUMMARY``: the verdict, then failures, each with its cause."""
    failures = tuple(failures)
    said = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no test ran"
    verdict = "failed" if failures else ("passed" if counts.get("passed") else "nothing was proven")
    lines = [f"### Secure-OTA harness: {verdict}", "", f"{said} in {seconds:.0f} s.", ""]
    if failures:
        lines += ["| | test | board | cause |", "|---|---|---|---|"]
    for failure in failures[:MOST_SUMMARY_ROWS]:
        cells = (
            failure.outcome,
            failure.test,
            failure.board or "",
            "\n".join([failure.cause, *failure.told]),
        )
        row = f"| {' | '.join(map(_cell, cells))} |"
        if sum(len(line.encode()) + 1 for line in lines) + len(row.encode()) > MOST_SUMMARY_BYTES:
            break
        lines.append(row)
    shown = max(0, len(lines) - 6)
    if len(failures) > shown:
        lines += ["", f"And {len(failures) - shown} more, in the JUnit file."]
    return "\n".join([*lines, ""]) + "\n"


def _cell(text: str) -> str:
    """One cell of a table: nothing in it is markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]|~#!@])", r"\\\1", text)
    return re.sub(r"\r?\n|\r", "<br>", text)


# --- GitLab ---


def gitlab_section(name: str, title: str, lines: Iterable[str], *, at: int) -> list[str]:
    """`lines` under a heading that folds; `at` in Unix seconds."""
    inside = [line.replace("\x1b", "") for line in lines]
    start = f"\x1b[0Ksection_start:{at}:{name}\r\x1b[0K{title}"
    return [start, *inside, f"\x1b[0Ksection_end:{at}:{name}\r\x1b[0K"]


def gitlab_lines(failures: Iterable[Failure]) -> list[str]:
    """Each failure in two or three lines."""
    found = []
    for failure in failures:
        on = f" on board {failure.board}" if failure.board else ""
        found.append(f"{failure.outcome}: {failure.test}{on}")
        found += [f"    {line}" for text in (failure.cause, *failure.told) for line in text.splitlines()]
    return found


# --- from pytest's reports ---


def failure_of(report: Any) -> Failure:
    """From a report of pytest that failed, of a test or of collecting."""
    file, line = _place(report)
    sections = dict(report.sections)
    board = next((title.split(" ", 1)[1] for title in sections if title.startswith("board ")), None)
    told = tuple(sections.get(f"board {board}", "").splitlines()) if board else ()
    call = getattr(report, "when", "collect") == "call"
    return Failure(
        test=report.nodeid,
        cause=cause_of(report.longreprtext),
        file=file,
        line=line,
        outcome="failed" if call else "error",
        board=board,
        told=told,
    )


def cause_of(text: str) -> str:
    """What a failed test says of itself: the lines that pytest marks with ``E``, else the first line."""
    lines = text.splitlines()
    marked = [line[1:].strip() for line in lines if re.match(r"E\s+\S", line)]
    if marked:
        # A longer explanation (a diff, variables) is in the log.
        cause = "\n".join(marked[:5])
    else:
        # pytest-xdist says first which worker it was.
        own = [line.strip() for line in lines if line.strip() and not re.match(r"\[gw\d+\] ", line)]
        cause = own[0] if own else "no cause was told"
    return cause if len(cause) <= MOST_CAUSE else f"{cause[:MOST_CAUSE]}…"


def _place(report: Any) -> tuple[str | None, int | None]:
    """The line of the test's own file that it failed in; else where the test begins."""
    location = getattr(report, "location", None)
    if location is None:
        return (report.nodeid.split("::", 1)[0] or None), None
    file, first, _name = location
    line = None if first is None else first + 1
    entries = getattr(getattr(report.longrepr, "reprtraceback", None), "reprentries", [])
    for entry in reversed(entries):
        found = getattr(entry, "reprfileloc", None)
        if found is not None and Path(str(found.path)).name == Path(file).name:
            return file, int(found.lineno)
    return file, line


@dataclass(slots=True)
class Annotations:
    """A plugin of a session that runs in a CI service; of pytest-xdist only the controller has one."""

    config: pytest.Config
    environment: Mapping[str, str]
    began: float = field(default_factory=time.monotonic)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    failures: list[Failure] = field(default_factory=list)
    not_run: dict[str, int] = field(default_factory=dict)
    """Tests that a board of the rack kept from running, by reason: nothing has failed, and too little was run."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts each test once, and keeps what failed."""
        if report.failed:
            self.failures.append(failure_of(report))
            self.counts["failed" if report.when == "call" else "error"] += 1
        elif report.skipped and not hasattr(report, "wasxfail"):
            self.counts["skipped"] += 1
            reason = dict(report.user_properties).get(NOT_RUN)
            if reason is not None:
                self.not_run[str(reason)] = self.not_run.get(str(reason), 0) + 1
        elif report.when == "call":
            self.counts["passed"] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read is a failure, too."""
        if report.failed:
            self.failures.append(failure_of(report))
            self.counts["error"] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """At the end, where no progress line is being written."""
        write: Callable[[str], None] = terminalreporter.line
        terminalreporter.ensure_newline()
        if self.environment.get("GITHUB_ACTIONS") == "true":
            if not self.config.pluginmanager.hasplugin(OTHER_PLUGIN):
                for line in github_annotations(self.failures, place=self._place):
                    write(line)
            for reason, count in self.not_run.items():
                text = f"{count} test{'' if count == 1 else 's'} did not run: boards were {reason}"
                write(command("warning", text, title="Boards"))
            self._append_summary(write)
        if self.environment.get("GITLAB_CI") == "true" and self.failures:
            title = f"{len(self.failures)} failed"
            for line in gitlab_section(
                "harness_failures", title, gitlab_lines(self.failures), at=int(time.time())
            ):
                write(line)

    def _append_summary(self, write: Callable[[str], None]) -> None:
        file = self.environment.get("GITHUB_STEP_SUMMARY")
        if not file:
            return
        text = github_summary(self.counts, self.failures, seconds=time.monotonic() - self.began)
        try:
            with Path(file).open("a", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            # The verdict is pytest's exit code, not this page.
            write(command("warning", f"the summary {file} cannot be written: {error.strerror}"))

    def _place(self, file: str) -> str:
        """GitHub wants paths from the root of the checkout."""
        path = self.config.rootpath / file
        checkout = self.environment.get("GITHUB_WORKSPACE")
        if checkout and path.is_relative_to(checkout):
            return path.relative_to(checkout).as_posix()
        return file


def annotate_in_ci(config: pytest.Config, environment: Mapping[str, str] = os.environ) -> None:
    """Adds annotations to a session that runs in GitHub Actions or GitLab; elsewhere, and in workers, nothing."""
    in_ci = environment.get("GITHUB_ACTIONS") == "true" or environment.get("GITLAB_CI") == "true"
    if in_ci and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Annotations(config, environment), "harness-annotations")
