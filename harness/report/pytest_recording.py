"""Records a pytest session: every test with what its board did, in every process of pytest-xdist."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.board import Board
from harness.home import Home
from harness.rack.turn import PASSED_OVER
from harness.report.board_watch import BoardWatch, Moment
from harness.report.failure import cause_of, is_of_the_board
from harness.report.junit import properties_of
from harness.report.parts import FOLDER
from harness.report.recorder import ARTEFACTS, MAIN, Recorder, finish, head_of, new_id
from harness.report.run_record import Outcome, RunRecord, TestRecord
from harness.report.step_recording import vars_of
from harness.report.writing import REPORT_FILE

OPTION = "harness_run"
"""Among pytest's options, which xdist hands to its workers: the run's folder and what is known of it."""


@dataclass(slots=True)
class _Test:
    """The test that is under way."""

    began_s: float
    watch: BoardWatch | None = None
    moment: Moment | None = None
    reports: list[Any] = field(default_factory=list)
    causes: list[tuple[Any, str, bool]] = field(default_factory=list)
    """Report, cause, whether it speaks of the bench."""


class RunRecording:
    """A plugin of one process of a session. A run that uses no board leaves nothing."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        if not hasattr(config.option, OPTION):
            setattr(config.option, OPTION, _begun(config))
        told = getattr(config.option, OPTION)
        self.folder = Path(told["folder"])
        self._process = str(worker["workerid"]) if worker is not None else MAIN
        self.recorder = Recorder(
            self.folder, told["head"], process=self._process, tell=self._complain, eager=False
        )
        self._watches: dict[int, BoardWatch] = {}
        self._test: _Test | None = None
        self._reason: str | None = None
        self._status = 0
        self._complaints: list[str] = []
        self.not_proven: str | None = None
        """Why the run proves too little although no test failed."""

    # --- boards ---

    def opened(self, board: Board) -> BoardWatch:
        """A board is open; until it is prepared, what it does is its preparation."""
        watch = self._watches[id(board)] = self.recorder.opened(board)
        return watch

    def prepared(self, board: Board, problem: str | None = None) -> None:
        """The board is as the tests want it, or cannot be brought there."""
        self.recorder.note_board(self._watches[id(board)], problem=problem)

    def closing(self, board: Board) -> None:
        """The board is about to be closed."""
        self.recorder.closing(self._watches.pop(id(board)))

    def uses(self, item: pytest.Item, board: Board) -> None:
        """From here on what `board` does belongs to the test `item`."""
        watch = self._watches[id(board)]
        if self._test is not None:
            self._test.watch, self._test.moment = watch, watch.now()
        facts = watch.facts
        if facts is not None:
            item.user_properties += list(properties_of(facts).items())
        self.recorder.began(
            _node_id(item), item.name, board=watch.name, profile=_profile(item), repeat=_repeat(item)
        )

    # --- tests ---

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """A session with a test that takes a board is one that leaves a folder."""
        if not self._config.option.collectonly and any(
            "_target" in getattr(item, "fixturenames", ()) for item in session.items
        ):
            self.recorder.open()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """One test from its first fixture to the end of the last."""
        if not self.recorder.is_open or item.stash.get(PASSED_OVER, False):
            return (yield)
        self._test = _Test(time.time())
        self.recorder.began(_node_id(item), item.name, repeat=_repeat(item))
        try:
            return (yield)
        finally:
            test, self._test = self._test, None
            self.recorder.test(self._recorded(item, test))
            if test.watch is not None:
                self.recorder.note_board(test.watch)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """After everything else has been done to the report."""
        report = yield
        test = self._test
        if test is not None:
            test.reports.append(report)
            if call.excinfo is not None and not report.passed:
                error = call.excinfo.value
                statement = None
                if isinstance(error, AssertionError):
                    statement = str(call.excinfo.traceback[-1].statement)
                cause = cause_of(error, statement)
                watch = test.watch
                cause = watch.board.console.redacted(cause) if watch is not None else cause
                bench = report.when != "call" or not is_of_the_board(error)
                test.causes.append((report, cause, bench))
        return report

    def _recorded(self, item: pytest.Item, test: _Test) -> TestRecord:
        seen = test.watch.since(test.moment) if test.watch is not None and test.moment is not None else None
        outcome, cause, detail = _outcome(test)
        name = _plain_name(item)
        given = [(str(key), str(value)) for key, value in item.user_properties]
        facts = test.watch.facts if test.watch is not None else None
        known = properties_of(facts) if facts is not None else {}
        fields: dict[str, Any] = vars_of(seen) if seen is not None else {}
        return TestRecord(
            id=_node_id(item),
            name=name,
            outcome=outcome,
            began_s=round(test.began_s, 3),
            duration_s=round(time.time() - test.began_s, 3),
            board=test.watch.name if test.watch is not None else None,
            profile=_profile(item) or (facts.profile if facts is not None else None),
            cause=cause,
            detail=detail,
            repeat=_repeat(item),
            sources=tuple(value for key, value in given if key == "source"),
            properties={key: value for key, value in given if key != "source" and key not in known},
            **fields,
        )

    # --- the end ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Before pytest writes its own JUnit file."""
        self._status = int(exitstatus)

    def pytest_unconfigure(self) -> None:
        """Boards are closed, workers have ended: the parts become the record, and the terminal's last line."""
        if self.is_worker:
            self.recorder.close()
            return
        if not (self.folder / FOLDER).is_dir():
            return
        self.recorder.open()
        run = self._finished()
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or self._config.get_verbosity() < -1:
            return
        for line in self._complaints:
            reporter.write_line(line)
        if run is not None:
            reporter.write_line(told(run, self.folder))

    def _finished(self) -> RunRecord | None:
        failed = self._status in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERNAL_ERROR)
        unproven = None if failed or self._reason is not None else self.not_proven
        return finish(
            self.recorder,
            reason=unproven or self._reason,
            verdict=None if unproven is None else "not proven",
            failed=failed,
            tell=self._complain,
        )

    def _complain(self, text: str) -> None:
        self._complaints.append(text)


def told(run: RunRecord, folder: Path) -> str:
    """Verdict, folder and report in one line, for the end of a terminal."""
    report = folder / REPORT_FILE
    shown = report if report.exists() else folder
    return f"{run.verdict.upper()}: {run.subject}; {run.reason}. See {shown}"


def _begun(config: pytest.Config) -> dict[str, Any]:
    """Of the process that begins the session."""
    run_id = new_id()
    named = config.getoption("--harness-out")
    folder = Path(named).absolute() if named else Home.of_user().root / ARTEFACTS / run_id
    arguments = [str(argument) for argument in config.invocation_params.args]
    subject = " ".join(str(arg) for arg in config.args) if config.args else "tests"
    head = head_of("pytest", _relative_all(config, subject), ["pytest", *arguments], run_id=run_id)
    return {"folder": str(folder), "head": head}


def _relative_all(config: pytest.Config, subject: str) -> str:
    return subject.replace(f"{config.rootpath}{os.sep}", "")


def _outcome(test: _Test) -> tuple[Outcome, str | None, str | None]:
    """What became of it, why, and at length."""
    for report, cause, bench in test.causes:
        if report.failed:
            word: Outcome = "error" if bench else "failed"
            return word, cause, report.longreprtext
    for report in test.reports:
        if report.skipped:
            reason = _skip_reason(report)
            if reason.startswith(_NOT_APPLICABLE):
                return "not applicable", reason.removeprefix(_NOT_APPLICABLE), None
            return "skipped", reason, None
        if report.failed:
            return "failed", report.longreprtext.strip().splitlines()[0], report.longreprtext
    if not test.reports:
        return "error", "it was interrupted", None
    return "passed", None, None


_NOT_APPLICABLE = "not applicable: "


def _skip_reason(report: Any) -> str:
    if getattr(report, "wasxfail", None) is not None:
        return f"expected to fail: {report.wasxfail}".removesuffix(": ")
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longreprtext)


def _node_id(item: pytest.Item) -> str:
    """As without xdist, which adds the group to it."""
    marker = item.get_closest_marker("xdist_group")
    group = (marker.args[0] if marker.args else marker.kwargs.get("name", "default")) if marker else None
    return item.nodeid.removesuffix(f"@{group}") if group else item.nodeid


def _plain_name(item: pytest.Item) -> str:
    """Without board and profile, which stand beside it."""
    target = _target(item)
    name = item.name
    if target is None:
        return name
    for form in (f"[{target.id}]", f"{target.id}-", f"-{target.id}"):
        if form in name:
            return name.replace(form, "", 1)
    return name


def _target(item: pytest.Item) -> Any:
    callspec = getattr(item, "callspec", None)
    return callspec.params.get("_target") if callspec is not None else None


def _profile(item: pytest.Item) -> str | None:
    target = _target(item)
    return target.profile.value if target is not None and target.profile is not None else None


def _repeat(item: pytest.Item) -> str:
    return shlex.join(repeat_command(item))


def repeat_command(item: pytest.Item) -> Sequence[str]:
    """The words of the command that runs `item` again, from where pytest was started."""
    config, target = item.config, _target(item)
    path, colons, rest = _node_id(item).partition("::")
    here = os.path.relpath(config.rootpath / path, config.invocation_params.dir)
    words = ["pytest", f"{here}{colons}{rest}"]
    if target is not None:
        if not target.throwaway:
            words += ["--board", target.name]
        elif target.name == f"twin-{target.entry.chip}":
            words += ["--chip", target.entry.chip]
        if target.profile is not None:
            words += ["--profile", target.profile.value]
    for option in ("--boards", "--idf", "--vault-key-file"):
        if config.getoption(option):
            words += [option, str(config.getoption(option))]
    for option in ("--app", "--fragment", "--burn", "--consume", "--accept-unknown-burns"):
        for value in config.getoption(option):
            words += [option, str(value)]
    return words
