"""The pytest plugin: a board in a test's hands, in the profile that the test demands.

Fixtures: ``board`` (a prepared `Board`, settled before each test), ``ota_server`` (its HTTP server), ``boot_record``
(its last boot), ``dut`` (pytest-embedded's, on the board's link).
Markers: ``profiles(...)``: the security profiles a test is for; ``needs(...)``: what the board's link must be able to do;
``full``: outside of the default subset; ``consumes(...)``: what a run of it uses up for good; ``source(...)``: the public
case that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from harness.console.log_file import BOARD_SIGN, MARK_SIGN
from harness.console.sanitizer_report import sanitizer_report
from harness.consumption import Consumption
from harness.embedded import fixtures as embedded
from harness.errors import HarnessError, NotApplicableError
from harness.home import Home
from harness.pytest_bench import Bench, opened, prepare_for
from harness.pytest_options import DEADLINE, MARKERS, add_options, check_options
from harness.pytest_targets import targets_of
from harness.rack import workers
from harness.rack.broken_boards import BOARDS_NOT_RUN, BoardFate, BrokenBoards
from harness.rack.reason import reason_of_session
from harness.rack.registration import (
    choice_of,
    demands_of,
    inventory_of,
    register_run,
)
from harness.rack.run import BoardRun
from harness.rack.spread import LOAD
from harness.rack.target import Target
from harness.report.annotations import annotate_in_ci
from harness.report.pytest_recording import RunRecording
from harness.session_ending import SessionEnding
from harness.subset import Subset
from harness.traceback_values import hide_values

if TYPE_CHECKING:
    from harness.board import Board
    from harness.console.boot_record import BootRecord
    from harness.ota.server import OtaServer

SUBSET = pytest.StashKey[Subset]()
CONSUMPTION = pytest.StashKey[Consumption]()
ENDING = pytest.StashKey[SessionEnding]()
RUN = pytest.StashKey[BoardRun]()
BROKEN = pytest.StashKey[BrokenBoards]()
RECORDING = pytest.StashKey[RunRecording]()
EARLIER_RUNS = pytest.StashKey[list[str]]()
"""What runs before this one left on the boards of this one, a sentence each."""
WORKER_OUTPUT = "harness"
"""Under this name a worker of pytest-xdist tells its controller what it has to say at the end."""

FOREIGN_WARNINGS = (
    # pytest-embedded's autouse fixtures, in every test of the session.
    "ignore:record_xml_attribute is an experimental feature",
    "ignore:record_xml_attribute is incompatible with junit_family",
)
"""Warnings that a test author can do nothing about."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the harness; `pytest --help` shows them as a group."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    for warning in FOREIGN_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)
    check_options(config)
    config.stash[ENDING] = SessionEnding(config)
    config.pluginmanager.register(config.stash[ENDING], "harness-session-ending")
    config.stash[BROKEN] = BrokenBoards()
    config.pluginmanager.register(config.stash[BROKEN], "harness-broken-boards")
    reason_of_session(config)
    config.stash[RECORDING] = RunRecording(config)
    config.pluginmanager.register(config.stash[RECORDING], "harness-run-recording")
    annotate_in_ci(config)
    config.stash[EARLIER_RUNS] = []
    config.stash[SUBSET] = Subset.of(config)
    config.stash[CONSUMPTION] = Consumption(frozenset(config.getoption("--consume")))
    config.stash[RUN] = register_run(config)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """With ``--rack``, ``-n auto`` counts boards and not processors."""
    try:
        choice = choice_of(config)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error
    return choice.workers if choice is not None else None


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """After every plugin has been configured."""
    embedded.register(session.config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test that takes a board runs once per board and profile; tests of one board run together."""
    if "_target" not in metafunc.fixturenames:
        return
    config = metafunc.config
    subset = config.stash[SUBSET]
    try:
        demands = demands_of(metafunc.definition)
        inventory = inventory_of(config)
        if config.getoption("--rack"):
            everything = targets = config.stash[RUN].targets(metafunc.definition.nodeid, demands, inventory)
        else:
            targets = targets_of(config, inventory, demands, full=subset.full)
            everything = targets if subset.full else targets_of(config, inventory, demands, full=True)
    except HarnessError as error:
        # Of collection errors this one is shown without a traceback.
        raise pytest.Collector.CollectError(str(error)) from error
    if config.getoption("--rack-dist") == LOAD:
        shares = config.stash[RUN].shares(metafunc.definition.nodeid, targets)
        everything = targets = [share.targets[0] for share in shares]
        parameters = [pytest.param(share.targets[0], id=share.id) for share in shares]
    else:
        parameters = [pytest.param(target, id=target.id) for target in targets]
    if not targets and demands.chips and not config.getoption("--rack"):
        parameters = [pytest.param(None, id="no-board", marks=embedded.no_board(demands.chips))]
    else:
        subset.multiply(metafunc.definition.nodeid, chosen=len(targets), everything=len(everything))
    metafunc.parametrize("_target", parameters, indirect=True, scope="session")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """After ``-k`` and ``-m``: what is not in the default subset is deselected; sources go into the report."""
    embedded.drop_other_chips(config, items)
    subset = config.stash[SUBSET]
    config.stash[RUN].count_unfit([item for item in items if not subset.leaves_out(item)])
    subset.select(config, items)
    if config.getoption("--rack-dist") == LOAD:
        config.stash[RUN].spread(items)
    for item in items:
        item.user_properties += [
            ("source", str(case)) for marker in item.iter_markers("source") for case in marker.args
        ]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """What the default subset leaves out."""
    line = config.stash[SUBSET].line
    return [line] if line is not None else []


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker of pytest-xdist is about to start."""
    deadline = node.config.stash[DEADLINE]
    workers.tell(node, {workers.DEADLINE: deadline.at_s if deadline is not None else None})
    config_choice = node.config.stash[RUN].choice
    if config_choice is not None:
        workers.tell(node, {workers.CHOICE: config_choice.to_fields()})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended: what it counted is shown by its controller."""
    told = getattr(node, "workeroutput", {}).get(WORKER_OUTPUT)
    if told is not None:
        node.config.stash[SUBSET].take(told["subset"])
        node.config.stash[CONSUMPTION].lines.update(told["left"])
        node.config.stash[EARLIER_RUNS] += told["earlier"]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells its controller; the controller says what the run leaves unproven."""
    config = session.config
    if hasattr(config, "workeroutput"):
        told = {
            "subset": config.stash[SUBSET].to_fields(),
            "left": config.stash[CONSUMPTION].lines,
            "earlier": config.stash[EARLIER_RUNS],
        }
        config.workeroutput[WORKER_OUTPUT] = told
        return
    # That nothing failed does not make a run green on which boards were left out.
    problems = config.stash[RUN].problems if config.getoption("--rack") else config.stash[BROKEN].problems
    if problems and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = BOARDS_NOT_RUN
        config.stash[RECORDING].not_proven = "; ".join(problems)
    for line in (*config.stash[RUN].notes, *_closing_lines(config)):
        config.stash[RECORDING].note(line)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What a person should read at the end."""
    for line in _closing_lines(config):
        terminalreporter.write_line(line)


def _closing_lines(config: pytest.Config) -> list[str]:
    """What was left out, and what the boards have left of what does not come back."""
    left_out = config.stash[SUBSET].line
    left = sorted(config.stash[CONSUMPTION].lines.items())
    return [
        *([left_out] if left_out is not None else []),
        *config.stash[EARLIER_RUNS],
        *(f"left of what board {name} has only once: {words}" for name, words in left),
    ]


@pytest.fixture(scope="session")
def _target(request: pytest.FixtureRequest) -> Target:
    """The board and profile of this round."""
    target: Target = request.param
    return target


@pytest.fixture(scope="session")
def _bench(_target: Target, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Opens and prepares the board of this round, once; what went wrong is kept for every test that wanted it."""
    # A session that opens no board does not wait for what a board needs.
    from harness.lab import Lab, secret_from

    config = request.config
    recording = config.stash[RECORDING]
    lab = Lab(
        Home.of_user(),
        inventory_of(config),
        recording.logs_of(throwaway=_target.throwaway),
        secret_from(config.getoption("--vault-key-file")),
        purpose="pytest",
        reason=reason_of_session(config),
        burn=frozenset(config.getoption("--burn")),
        deadline=config.stash[DEADLINE],
    )
    run = config.stash[RUN]
    bench = Bench(
        BoardFate(_target.name, None if _target.throwaway else lab.watch(_target.name)), run.busy(_target)
    )
    if bench.fate.skips is not None or bench.busy is not None:
        recording.not_opened(_target, bench.fate.skips or bench.busy)
        yield bench
        return
    with lab:
        try:
            bench.board = run.open(_target, lambda: opened(lab, _target))
            recording.opened(bench.board, throwaway=_target.throwaway)
            if bench.board.run_note.earlier is not None:
                earlier = bench.board.run_note.earlier.text()
                config.stash[EARLIER_RUNS].append(f"board {bench.board.name}: {earlier}")
            prepare_for(bench, bench.board, _target, lab, config)
        except NotApplicableError as error:
            bench.refused = str(error)
        except HarnessError as error:
            bench.fate.failed(error)
            bench.broken = str(error)
        if bench.board is not None and bench.broken is None and bench.refused is None:
            bench.fate.ready()
            config.stash[CONSUMPTION].look(bench.board, _target.entry)
        if bench.board is not None:
            recording.prepared(bench.board, bench.broken)
        else:
            recording.not_opened(_target, bench.broken or bench.refused)
        yield bench
        if bench.board is not None:
            recording.closing(bench.board)
        interrupted = config.stash[ENDING].interrupted
        if interrupted is not None:
            lab.note_interrupted(interrupted)


@pytest.fixture
def board(_bench: Bench, _target: Target, request: pytest.FixtureRequest) -> Iterator[Board]:
    """The board, up, its version confirmed, otadata in step; its log goes on over all tests of the session."""
    run = request.config.stash[RUN]
    board = _bench.usable(partial(run.skip, request.node), on_rack=run.choice is not None)
    marker = request.node.get_closest_marker("needs")
    missing = [word for word in (marker.args if marker else ()) if word not in board.capabilities]
    if missing:
        pytest.skip(f"board {board.name} has no {', '.join(missing)} ({board.link.kind} link)")
    if board.profile is not None and not demands_of(request.node).scope.admits(board.profile):
        pytest.skip(f"board {board.name} is in profile {board.profile.value}, which this scenario is not for")
    recording = request.config.stash[RECORDING]
    recording.uses(request.node, board)
    board.console.note(f"test {request.node.name}")
    board.run_note.doing(f"in test {request.node.name}")
    refusal = request.config.stash[CONSUMPTION].begin(request.node, board, _target.entry)
    if refusal is not None:
        pytest.skip(refusal)
    if not embedded.goes_on(_bench, request):
        _bench.settle(board)
        _bench.turn_settled = embedded.due(request.config)
    recording.settled(board)
    yield board
    board.server.faults.clear()
    recording.left(board)


@pytest.fixture
def ota_server(board: Board) -> OtaServer:
    """The HTTP server that this board updates from; ``ota_server.faults`` makes it misbehave."""
    return board.server


@pytest.fixture
def boot_record(board: Board) -> BootRecord:
    """The board's last boot, as the log tells it."""
    return board.boots[-1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A scenario whose question does not arise for this board's app is skipped, with the reason."""
    with _failing_on_sanitizer_reports(item), _skipping_what_does_not_apply():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """The same for what fixtures ask of a board."""
    with _failing_on_sanitizer_reports(item), _skipping_what_does_not_apply():
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """What the firmware did after the test's last word still counts."""
    with _failing_on_sanitizer_reports(item):
        return (yield)


@contextmanager
def _failing_on_sanitizer_reports(item: pytest.Item) -> Iterator[None]:
    """What a sanitizer found in the firmware fails the test, whatever else came of it: also where the test itself made
    the board crash, or was content with a reset."""
    try:
        yield
    finally:
        bench = getattr(item, "funcargs", {}).get("_bench")
        if isinstance(bench, Bench) and bench.board is not None:
            lines = bench.board.console.lines_since(bench.judged)
            bench.judged = lines[-1].n + 1 if lines else bench.judged
            found = sanitizer_report(lines)
            if found is not None:
                pytest.fail(f"a sanitizer reports from the firmware:\n{found}", pytrace=False)


@contextmanager
def _skipping_what_does_not_apply() -> Iterator[None]:
    try:
        yield
    except NotApplicableError as error:
        pytest.skip(f"not applicable: {error}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:  # noqa: ARG001
    """A test that fails names the board, the last boot and the file of the full log."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        hide_values(report, item.config.invocation_params.dir)
    funcargs = getattr(item, "funcargs", {})
    bench = funcargs.get("_bench")
    if report.failed and isinstance(bench, Bench) and bench.board is not None:
        board = bench.board
        bench.told = bench.told or board.console.is_over
        boots = [record.summary() for record in board.boots[-3:]]
        tail = [
            f"{MARK_SIGN if line.is_mark else BOARD_SIGN} {line.text}" for line in board.console.lines[-25:]
        ]
        report.sections.append((f"board {board.name}", "\n".join([*boots, f"full log: {board.log_path}"])))
        report.sections.append((f"end of the serial log of {board.name}", "\n".join(tail)))
        _hide_secrets(report, board)


def _hide_secrets(report: Any, board: Board) -> None:
    """A traceback shows arguments, with --showlocals every variable: what was sent in secret is taken out of it."""
    shown = board.console.redacted(report.longreprtext)
    if shown != report.longreprtext:
        report.longrepr = shown
    report.sections = [(title, board.console.redacted(text)) for title, text in report.sections]
