"""Records a pytest session: every test with what its board did, in every process of pytest-xdist."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.errors import HarnessError
from harness.home import Home
from harness.interruption import Interrupted, name_of
from harness.rack.layout import LayoutItem
from harness.rack.target import Target
from harness.rack.turn import PASSED_OVER
from harness.report.failure import cause_of, is_of_the_board
from harness.report.junit import properties_of, run_properties
from harness.report.merging import merged
from harness.report.parts import FOLDER, read_parts
from harness.report.pytest_items import (
    board_name,
    entry_facts,
    node_id,
    plain_name,
    profile_of_item,
    repeat_line,
    target_of,
)
from harness.report.recorder import ARTEFACTS, MAIN, Recorder, finish, head_of, new_id
from harness.report.run_record import Outcome, RunRecord, TestRecord
from harness.report.writing import REPORT_FILE

if TYPE_CHECKING:
    from harness.board import Board
    from harness.report.board_watch import BoardWatch, Moment, Seen

WORKER_INPUT = "harness_run"
"""Under this name a controller tells its workers the run's folder and what is known of it."""


@dataclass(slots=True)
class _Test:
    """The test that is under way."""

    began_s: float
    watch: BoardWatch | None = None
    moment: Moment | None = None
    reports: list[Any] = field(default_factory=list)
    causes: list[tuple[Any, str, bool]] = field(default_factory=list)
    """Report, cause, whether it speaks of the bench."""
    seen: Seen | None = None

    def look(self) -> Seen | None:
        """What its board has done, up to the first time that this is asked."""
        if self.seen is None and self.watch is not None and self.moment is not None:
            self.seen = self.watch.since(self.moment)
        return self.seen


class RunRecording:
    """A plugin of one process of a session. A run that uses no board leaves nothing."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        worker = getattr(config, "workerinput", None)
        self.is_worker = worker is not None
        self._begun: dict[str, Any] = worker[WORKER_INPUT] if worker is not None else _begun(config)
        self.folder = Path(self._begun["folder"])
        self._process = str(worker["workerid"]) if worker is not None else MAIN
        self.recorder = Recorder(
            self.folder, self._begun["head"], process=self._process, tell=self._complain, eager=False
        )
        self._watches: dict[int, BoardWatch] = {}
        self._opened: dict[int, Moment] = {}
        self._test: _Test | None = None
        self._reason: str | None = None
        self._status = 0
        self._complaints: list[str] = []
        self.not_proven: str | None = None
        """Why the run proves too little although no test failed."""
        self._instead: Path | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A worker of pytest-xdist is about to start: it adds to the same run."""
        node.workerinput[WORKER_INPUT] = self._begun

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """A worker of pytest-xdist has ended: what it could not write is said by its controller."""
        self._complaints += getattr(node, "workeroutput", {}).get(WORKER_INPUT, [])

    def logs_of(self, *, throwaway: bool) -> Path:
        """In which folder a board leaves its logs; where the run's cannot be written, one that nobody keeps.

        Every worker of pytest-xdist may have a throwaway board of the same name.
        """
        if self.recorder.failure is not None:
            if self._instead is None:
                self._instead = Path(tempfile.mkdtemp(prefix="harness-logs-"))
                self._complain(f"the boards' logs are in {self._instead}")
            return self._instead
        return self.folder / self._process if throwaway and self.is_worker else self.folder

    # --- boards ---

    @contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """The record must not cost a test its verdict: what cannot be recorded is said at the end."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, the test goes on
            # Without its message, which may show what it was about.
            self._complain(f"the record is incomplete: {what}: {type(error).__name__}")

    def opened(self, board: Board, *, throwaway: bool) -> None:
        """A board is open; until it is prepared, what it does is its preparation."""
        with self._guarded(f"board {board.name}"):
            name = f"{board.name} ({self._process})" if throwaway and self.is_worker else board.name
            watch = self._watches[id(board)] = self.recorder.opened(board, name=name)
            self._opened[id(board)] = watch.now()

    def prepared(self, board: Board, problem: str | None = None) -> None:
        """The board is as the tests want it, or cannot be brought there."""
        with self._guarded(f"preparation of board {board.name}"):
            watch, moment = self._watches[id(board)], self._opened.pop(id(board))
            record = TestRecord(
                id=f"prepare/{watch.name}",
                name="preparation",
                outcome="passed" if problem is None else "error",
                began_s=round(moment.at_s, 3),
                duration_s=round(time.time() - moment.at_s, 3),
                board=watch.name,
                profile=board.profile.value if board.profile is not None else None,
                cause=problem,
                **watch.since(moment).fields(),
            )
            self.recorder.note_board(watch, problem=problem, prepared=record)

    def not_opened(self, target: Target, problem: str | None) -> None:
        """A board whose tests cannot have it: what its entry says of it, and why."""
        with self._guarded(f"board {target.name}"):
            self.recorder.not_opened(entry_facts(target, problem))

    def closing(self, board: Board) -> None:
        """The board is about to be closed, with or after the last test that had it."""
        with self._guarded(f"board {board.name}"):
            watch = self._watches.pop(id(board))
            if self._test is not None and self._test.watch is watch:
                self._test.look()
            self.recorder.closing(watch)

    def uses(self, item: pytest.Item, board: Board) -> None:
        """From here on what `board` does belongs to the test `item`."""
        with self._guarded(node_id(item)):
            watch = self._watches[id(board)]
            if self._test is not None:
                self._test.watch, self._test.moment = watch, watch.now()
                # The board's preparation, which is in the first test's set-up, has a record of its own.
                self._test.began_s = self._test.moment.at_s
            if watch.facts is not None:
                item.user_properties += list(properties_of(watch.facts).items())
            self.recorder.began(
                node_id(item),
                plain_name(item),
                board=watch.name,
                profile=profile_of_item(item),
                repeat=repeat_line(item),
            )

    def settled(self, board: Board) -> None:
        """The board is where the test begins: what its firmware says of otadata is what was there before."""
        with self._guarded(f"otadata of board {board.name}"):
            told = self._watches[id(board)].ask_otadata()
            if told is not None and self._test is not None and self._test.moment is not None:
                self._test.moment = replace(self._test.moment, otadata=told)

    def left(self, board: Board) -> None:
        """The test has done with the board."""
        with self._guarded(f"otadata of board {board.name}"):
            self._watches[id(board)].ask_otadata()

    # --- tests ---

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """A session with a test that takes a board is one that leaves a folder."""
        if not self._config.option.collectonly and any(
            "_target" in getattr(item, "fixturenames", ()) for item in session.items
        ):
            self.recorder.open()
            # Behind them there may be an item of the rack's scheduler.
            self.recorder.planned(sum(not isinstance(item, LayoutItem) for item in session.items))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """One test from its first fixture to the end of the last."""
        if not self.recorder.is_open or item.stash.get(PASSED_OVER, False):
            return (yield)
        test = self._test = _Test(time.time())
        self.recorder.began(node_id(item), plain_name(item), repeat=repeat_line(item))
        try:
            return (yield)
        finally:
            with self._guarded(node_id(item)):
                test.look()
            with self._guarded(node_id(item)):
                self.recorder.test(self._recorded(item, test))
                if test.watch is not None and test.watch in self._watches.values():
                    self.recorder.note_board(test.watch)
            self._test = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """The user's own JUnit file names the board that a test would have had, too."""
        target = target_of(item)
        if target is not None and self._test is not None and self._test.watch is None:
            item.user_properties += list(properties_of(entry_facts(target, None)).items())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        """After everything else has been done to the report."""
        report = yield
        test = self._test
        if test is not None:
            test.reports.append(report)
            if call.excinfo is not None and not report.passed:
                with self._guarded(f"cause of {report.nodeid}"):
                    test.causes.append((report, *_cause(call.excinfo, report, test.watch)))
        return report

    def _recorded(self, item: pytest.Item, test: _Test) -> TestRecord:
        seen = test.seen
        outcome, cause, detail = _outcome(test)
        name = plain_name(item)
        given = [(str(key), str(value)) for key, value in item.user_properties]
        facts = test.watch.facts if test.watch is not None else None
        known = properties_of(facts) if facts is not None else {}
        target = target_of(item)
        if facts is None and target is not None:
            known = properties_of(entry_facts(target, None))
        fields: dict[str, Any] = seen.fields() if seen is not None else {}
        return TestRecord(
            id=node_id(item),
            name=name,
            outcome=outcome,
            began_s=round(test.began_s, 3),
            duration_s=round(time.time() - test.began_s, 3),
            board=test.watch.name if test.watch is not None else board_name(item),
            profile=profile_of_item(item) or (facts.profile if facts is not None else None),
            cause=cause,
            detail=detail,
            repeat=repeat_line(item),
            sources=tuple(value for key, value in given if key == "source"),
            properties={key: value for key, value in given if key != "source" and key not in known},
            **fields,
        )

    # --- the end ---

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Before pytest writes its own JUnit file."""
        self._status = int(exitstatus)
        if self.is_worker:
            self._config.workeroutput[WORKER_INPUT] = self._complaints  # type: ignore[attr-defined]
        elif (self.folder / FOLDER).is_dir():
            self._tell_junit()

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Ctrl-C, or a signal that this process has made one of."""
        error = excinfo.value
        if isinstance(error, KeyboardInterrupt):
            signal = name_of(error.number) if isinstance(error, Interrupted) else "SIGINT"
            self._reason = f"interrupted by {signal}"
        else:
            self._reason = cause_of(error)

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """pytest itself, or a plugin, failed."""
        self._reason = f"internal error of pytest: {cause_of(excinfo.value)}"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file whose tests cannot be found out is an error of the run."""
        if report.failed and not self.is_worker:
            text = str(report.longreprtext).strip()
            self.recorder.test(
                TestRecord(
                    id=report.nodeid or "collection",
                    name=f"collecting {report.nodeid}",
                    outcome="error",
                    began_s=round(time.time(), 3),
                    duration_s=0.0,
                    cause=text.splitlines()[-1].removeprefix("E").strip()
                    if text
                    else "it cannot be collected",
                    detail=text,
                )
            )

    def _tell_junit(self) -> None:
        """What the user's own JUnit file is told of the whole run."""
        adders = [
            add
            for plugin in self._config.pluginmanager.get_plugins()
            if (add := getattr(plugin, "add_global_property", None)) is not None
        ]
        if not adders:
            return
        try:
            properties = run_properties(merged(read_parts(self.folder)))
        except (HarnessError, OSError):
            # The run's own end says it.
            return
        for add in adders:
            for name, value in properties:
                add(name, value)

    def pytest_unconfigure(self) -> None:
        """Boards are closed, workers have ended: the parts become the record, and the terminal's last line."""
        if self.is_worker:
            self.recorder.close()
            return
        begun = (self.folder / FOLDER).is_dir()
        if begun:
            self.recorder.open()
        run = self._finished() if begun else None
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None or self._config.get_verbosity() < -1:
            return
        for line in dict.fromkeys(self._complaints):
            reporter.write_line(line)
        if run is not None:
            reporter.write_line(told(run, self.folder))

    def note(self, text: str) -> None:
        """Something that belongs to the whole run."""
        self.recorder.note(text)

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


def _cause(
    excinfo: pytest.ExceptionInfo[BaseException], report: Any, watch: BoardWatch | None
) -> tuple[str, bool]:
    """In one sentence, and whether it speaks of the bench."""
    error = excinfo.value
    statement = str(excinfo.traceback[-1].statement) if isinstance(error, AssertionError) else None
    cause = cause_of(error, statement)
    if watch is not None:
        cause = watch.board.console.redacted(cause)
    return cause, report.when != "call" or not is_of_the_board(error)


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
    if not any(report.when == "call" for report in test.reports):
        return "error", "it was interrupted", None
    return "passed", None, None


_NOT_APPLICABLE = "not applicable: "


def _skip_reason(report: Any) -> str:
    if getattr(report, "wasxfail", None) is not None:
        return f"expected to fail: {report.wasxfail}".removesuffix(": ")
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2]).removeprefix("Skipped: ")
    return str(report.longreprtext)
