"""The pytest plugin: a board in a test's hands, in the profile that the test demands.

Fixtures: ``board`` (a prepared `Board`, settled before each test), ``ota_server`` (its HTTP server), ``boot_record``
(its last boot), ``dut`` (pytest-embedded's, on the board's link).
Markers: ``profiles(...)``: the security profiles a test is for; ``needs(...)``: what the board's link must be able to do;
``full``: outside of the default subset; ``consumes(...)``: what a run of it uses up for good; ``source(...)``: the public
case that it comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from harness.board import Board
from harness.build.app_dir import read_app_dir
from harness.chips import CHIPS, TWINS
from harness.console.boot_record import BootRecord
from harness.console.log_file import BOARD_SIGN, MARK_SIGN
from harness.console.sanitizer_report import sanitizer_report
from harness.consumption import Consumption
from harness.deadline import TODO, Deadline, deadline_in
from harness.embedded import fixtures as embedded
from harness.embedded.turn import INI, scope_named
from harness.errors import HarnessError, NotApplicableError, RefusedError, UsageError
from harness.home import Home
from harness.inventory.entry import AnyEntry, PhysicalEntry, SecureBoot, TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.ota.server import OtaServer
from harness.preparation import Consent, Demand, identify, prepare, reflash
from harness.provision.profile import Profile
from harness.provision.recognition import profile_of
from harness.rack import workers
from harness.rack.broken_boards import BoardFate, BrokenBoards
from harness.rack.demands import Demands
from harness.rack.health import latches
from harness.rack.reason import reason_of_session
from harness.rack.registration import (
    check_rack_options,
    choice_of,
    demands_of,
    inventory_of,
    register_run,
    twin_chip,
)
from harness.rack.run import BOARDS_NOT_RUN, LEASE_WAIT_S, BoardRun
from harness.rack.tally import Reason
from harness.rack.target import Target
from harness.report.annotations import annotate_in_ci
from harness.report.pytest_recording import RunRecording
from harness.say import Say
from harness.scope import profile_named
from harness.session_ending import SessionEnding
from harness.subset import FULL, Subset
from harness.traceback_values import hide_values

DEFAULT_CHIP = "esp32c3"

SUBSET = pytest.StashKey[Subset]()
CONSUMPTION = pytest.StashKey[Consumption]()
DEADLINE = pytest.StashKey[Deadline | None]()
ENDING = pytest.StashKey[SessionEnding]()
RUN = pytest.StashKey[BoardRun]()
RECORDING = pytest.StashKey[RunRecording]()
EARLIER_RUNS = pytest.StashKey[list[str]]()
"""What runs before this one left on the boards of this one, a sentence each."""
WORKER_OUTPUT = "harness"
"""Under this name a worker of pytest-xdist tells its controller what it has to say at the end."""

FOREIGN_WARNINGS = (
    # pytest-embedded's autouse fixtures, in every test of the session.
    "ignore:record_xml_attribute is an experimental feature",
)
"""Warnings that a test author can do nothing about."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the harness; `pytest --help` shows them as a group."""
    group = parser.getgroup("harness", "ESP32 secure-OTA harness")
    profiles = ", ".join(profile.value for profile in Profile)
    options: list[tuple[str, dict[str, Any]]] = [
        (
            "--board",
            {
                "action": "append",
                "metavar": "NAME",
                "help": "board or tag of boards.yaml, may be repeated; default: throwaway twins",
            },
        ),
        (
            "--rack",
            {
                "action": "store_true",
                "help": "run on every board of boards.yaml (of --board and --chip, if given) that a test's demands fit; "
                "with pytest-xdist, -n auto starts one worker per board",
            },
        ),
        (
            "--lease-wait",
            {
                "metavar": "SECONDS",
                "help": "how long to wait for a board that another job has, when nothing else is left to do; default: "
                f"{LEASE_WAIT_S:g} with --rack, else 0",
            },
        ),
        (
            "--allow-busy",
            {
                "action": "store_true",
                "help": "a --rack run may succeed without boards that another job kept, if other boards of the chip ran "
                "the tests",
            },
        ),
        (
            "--boards",
            {"metavar": "FILE", "help": "the boards.yaml to use; default: the one in the root folder"},
        ),
        (
            "--profile",
            {"action": "append", "metavar": "P", "help": f"only these security profiles: {profiles}"},
        ),
        (
            "--chip",
            {
                "action": "append",
                "metavar": "CHIP",
                "help": f"chips of the throwaway twins: {', '.join(TWINS)}",
            },
        ),
        (
            "--burn",
            {
                "action": "append",
                "metavar": "NAME",
                "help": "allow this run to burn eFuses of the board NAME, as far as its burn_up_to says",
            },
        ),
        (
            "--consume",
            {
                "action": "append",
                "metavar": "NAME",
                "help": "allow this run scenarios that use something of the board NAME up for good, within its budget",
            },
        ),
        (
            f"--{FULL}",
            {
                "action": "store_true",
                "help": "every scenario on the twins of all chips and in every profile where it makes sense; default: "
                "a subset of a few minutes, which says what it leaves out",
            },
        ),
        (
            "--accept-unknown-burns",
            {
                "action": "append",
                "metavar": "NAME",
                "help": "allow the board NAME firmware without an sdkconfig, which may burn any eFuse by itself",
            },
        ),
        (
            "--app",
            {
                "action": "append",
                "metavar": "DIR",
                "help": "flash this build (of `harness build`, or an ESP-IDF build folder), may be repeated: of several "
                "the one for the board's chip and profile is taken",
            },
        ),
        (
            "--fragment",
            {
                "action": "append",
                "metavar": "NAME",
                "help": "sdkconfig fragment that the companion firmware is built with besides, e.g. rollback.anti",
            },
        ),
        (
            "--idf",
            {"metavar": "DIR", "help": "ESP-IDF to build the companion firmware with; default: IDF_PATH"},
        ),
        (
            "--time-left",
            {
                "metavar": "SECONDS",
                "help": "this run may be killed after so long (a CI job's time-out): begin no eFuse burn that may not be "
                "over by then; HARNESS_DEADLINE says the same in seconds since 1970",
            },
        ),
        ("--vault-key-file", {"metavar": "FILE", "help": "key file of the vault of physical boards"}),
        (
            "--harness-out",
            {
                "metavar": "DIR",
                "help": "folder for the run's record, report and logs; default: one per run under HARNESS_HOME/artefacts",
            },
        ),
    ]
    for name, settings in options:
        default = {"append": [], "store_true": False}.get(settings.get("action", ""))
        group.addoption(name, default=default, **settings)
    parser.addini(INI, embedded.INI_HELP, default="function")


MARKERS = (
    "profiles(*names, full=(), secure_boot=None): security profiles this test is for; default: release. Each stands for "
    "its encryption, with secure boot and without, unless secure_boot says which; those in full need --full or --profile",
    "needs(*capabilities): what the board must be able to do: power, network, burnable, uart-download, flash-log, …",
    "chips(*names): the chips this test is for; default: every chip",
    "full: not in the default subset; --full runs it",
    "in_turn: rows that differ little from chip to chip: in the default subset each runs on one of the throwaway twins",
    "source(*cases): the public cases that this comes from, e.g. 'esp-idf #6172'; kept in the JUnit report",
    embedded.MARKER_HELP,
    "consumes(**amounts): what one run uses up for good (secure_version, digest_slots, revocations, device_keys); on "
    "physical boards only with --consume NAME and a budget in the board's entry",
)


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers."""
    for line in MARKERS:
        config.addinivalue_line("markers", line)
    for warning in FOREIGN_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)
    _check_options(config)
    config.stash[ENDING] = SessionEnding(config)
    config.pluginmanager.register(config.stash[ENDING], "harness-session-ending")
    config.pluginmanager.register(BrokenBoards(), "harness-broken-boards")
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


def _check_options(config: pytest.Config) -> None:
    """What was said on the command line is checked before anything is collected: one sentence, exit code 4."""
    try:
        for word in config.getoption("--profile"):
            profile_named(word)
        for word in config.getoption("--chip"):
            twin_chip(word)
        for folder in config.getoption("--app"):
            read_app_dir(Path(folder))
        if config.getoption("--boards") or config.getoption("--board"):
            inventory_of(config).select(config.getoption("--board"))
        for option in ("--burn", "--consume", "--accept-unknown-burns"):
            if config.getoption(option):
                inventory_of(config).require_named(config.getoption(option), option)
        config.stash[DEADLINE] = _deadline(config)
        scope_named(str(config.getini(INI)))
        check_rack_options(config)
    except HarnessError as error:
        raise pytest.UsageError(str(error)) from error


def _deadline(config: pytest.Config) -> Deadline | None:
    """Counted from the start of the controller, which hands it to its workers among its options."""
    told = workers.told(config).get(workers.DEADLINE)
    if told is not None:
        return Deadline(told, "--time-left or HARNESS_DEADLINE")
    option = config.getoption("--time-left")
    try:
        found = deadline_in(float(option) if option is not None else None)
    except ValueError as error:
        raise UsageError(f"--time-left is '{option}', not a number of seconds", todo=TODO) from error
    return found


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """After every plugin has been configured."""
    embedded.register(session.config)


@dataclass(slots=True)
class Bench:
    """One open board of this session, and what became of preparing it."""

    fate: BoardFate
    busy: str | None = None
    """Somebody else has it, and was waited for in vain."""
    board: Board | None = None
    refused: str | None = None
    broken: str | None = None
    recover: Callable[[], object] = field(default=lambda: None)
    """Flashes the board again, where its UART still allows it."""
    told: bool = False
    """One test has failed with that; those after it are skipped, if the board is latched broken for it."""
    judged: int = 0
    """Lines of its log before this one have been searched for reports of a sanitizer."""
    turn: str | None = None
    """Whose `dut` goes on: `harness.embedded.turn.turn_of`."""
    turn_settled: str | None = None
    """For whose `dut` it was settled last."""

    def usable(self, skip: Callable[[Reason, str], NoReturn], *, on_rack: bool) -> Board:
        """The board; a test that cannot have it is skipped, or fails with the reason."""
        if self.busy is not None:
            skip("busy", self.busy)
        if self.refused is not None:
            skip("refused", self.refused)
        if self.broken is None or self.told:
            self.fate.skip_if_broken()
        if self.broken is not None or self.board is None:
            if self.told and on_rack:
                skip("refused", f"the board was not prepared: {self.broken}")
            self.told = True
            pytest.fail(f"the board was not prepared: {self.broken}", pytrace=False)
        lost = self.board.link.lost
        if lost is not None and self.told:
            skip("busy", lost)
        if lost is not None:
            self.told = True
            pytest.fail(f"board {self.board.name}: {lost}", pytrace=False)
        return self.board

    def settle(self, board: Board) -> None:
        """Brings the board where every test starts."""
        try:
            board.settle()
        except HarnessError as error:
            # One test must not take the others with it: what it left is mended over the UART, where that still works.
            board.console.note(f"does not settle and is flashed again: {error.message}")
            try:
                self.recover()
            except HarnessError as again:
                self.fate.failed(error if latches(error) else again, answers=False)
                raise


def _targets(config: pytest.Config, inventory: Inventory, demands: Demands, *, full: bool) -> list[Target]:
    """Boards times profiles for one test."""
    scope, for_chips = demands.scope, demands.chips
    only = [profile_named(word) for word in config.getoption("--profile")]
    wanted = scope.chosen(only, full=full)
    names = config.getoption("--board")
    if names:
        # A board that stays goes from profile to profile, and no way leads back.
        wanted = tuple(sorted(wanted, key=lambda profile: profile.distance))
        chosen = inventory.select(names)
        burn = config.getoption("--burn")
        return [
            Target(name, entry, profile, throwaway=False)
            for name, entry in chosen.items()
            if not for_chips or entry.chip in for_chips
            for profile in _profiles_on(entry, wanted, stays=not only and name not in burn)
        ]
    twins: dict[str, TwinEntry] = inventory.twins()
    chips = [twin_chip(word) for word in config.getoption("--chip")]
    if not chips and for_chips and not any(entry.chip in for_chips for entry in twins.values()):
        # A test that names its chips needs no --chip.
        chips = [chip for chip in TWINS if chip in for_chips]
        chips = [DEFAULT_CHIP] if DEFAULT_CHIP in chips else chips
    if chips or not twins:
        twins = {_twin_name(chip): _twin(chip) for chip in chips or [DEFAULT_CHIP]}
    if full and not chips:
        there = {entry.chip for entry in twins.values()}
        twins |= {_twin_name(chip): _twin(chip) for chip in TWINS if chip not in there}
    if for_chips:
        twins = {name: entry for name, entry in twins.items() if entry.chip in for_chips}
    return [Target(n, e, p, throwaway=True) for n, e in twins.items() for p in wanted]


def _profiles_on(entry: AnyEntry, wanted: tuple[Profile, ...], *, stays: bool) -> tuple[Profile | None, ...]:
    """Those in which a test runs on a board that it names: its pinned one alone; a physical one stays where it is."""
    if entry.profile is not None:
        return (Profile(entry.profile),)
    return (None,) if isinstance(entry, PhysicalEntry) and stays else wanted


def _twin_name(chip: str) -> str:
    return f"twin-{chip}"


def _twin(chip: str) -> TwinEntry:
    """With secure boot it knows two keys, where the chip has room for them: then one can be revoked."""
    keys = ["vault"] * min(2, CHIPS[chip].secure_boot.digest_slots)
    return TwinEntry(chip=chip, secure_boot=SecureBoot(keys=keys))


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
            targets = _targets(config, inventory, demands, full=subset.full)
            everything = targets if subset.full else _targets(config, inventory, demands, full=True)
    except HarnessError as error:
        # Of collection errors this one is shown without a traceback.
        raise pytest.Collector.CollectError(str(error)) from error
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
    """A worker tells its controller."""
    config = session.config
    if session.exitstatus == BOARDS_NOT_RUN:
        config.stash[RECORDING].not_proven = "; ".join(config.stash[RUN].problems)
    if hasattr(config, "workeroutput"):
        told = {
            "subset": config.stash[SUBSET].to_fields(),
            "left": config.stash[CONSUMPTION].lines,
            "earlier": config.stash[EARLIER_RUNS],
        }
        config.workeroutput[WORKER_OUTPUT] = told
        return
    for line in _closing_lines(config):
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
        yield bench
        return
    with lab:
        try:
            bench.board = run.open(_target, lambda: _opened(lab, _target))
            recording.opened(bench.board, throwaway=_target.throwaway)
            if bench.board.run_note.earlier is not None:
                earlier = bench.board.run_note.earlier.text()
                config.stash[EARLIER_RUNS].append(f"board {bench.board.name}: {earlier}")
            _prepare(bench, bench.board, _target, lab, config)
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
        yield bench
        if bench.board is not None:
            recording.closing(bench.board)
        interrupted = config.stash[ENDING].interrupted
        if interrupted is not None:
            lab.note_interrupted(interrupted)


def _opened(lab: Lab, target: Target) -> Board:
    if target.throwaway:
        assert isinstance(target.entry, TwinEntry)
        return lab.throwaway(target.entry.chip, target.id, entry=target.entry)
    return lab.open(target.name)


def _prepare(bench: Bench, board: Board, target: Target, lab: Lab, config: pytest.Config) -> None:
    burn = frozenset(config.getoption("--burn"))
    profile = target.profile
    if profile is None or board.link.physical:
        state = identify(board)
        now = profile_of(state, board.records.read(board.mac) if board.mac else None).profile
        if profile is None:
            profile = now or Profile.OPEN
        elif now is not profile and target.name not in burn:
            bench.refused = (
                f"board {target.name} is in profile {now.value if now else 'unknown'}, this test demands "
                f"{profile.value}; burning needs --burn {target.name} and burn_up_to in its entry"
            )
            return
    idf = config.getoption("--idf")
    demand = Demand(
        profile,
        apps=tuple(map(Path, config.getoption("--app"))),
        idf=Path(idf) if idf else lab.inventory.esp_idf,
        fragments=tuple(config.getoption("--fragment")),
    )
    consent = Consent(target.entry, burn, frozenset(config.getoption("--accept-unknown-burns")))
    say = Say(quiet=True)
    bench.recover = lambda: reflash(board, demand, consent, lab.home, say=say)
    try:
        prepare(board, demand, consent, lab.home, say=say)
    except RefusedError as error:
        # That a virtual board has gone too far for a profile is a matter of course. What a physical one is refused for
        # (another chip, no consent, another vault) a person asked for and must hear of.
        if board.link.physical:
            raise
        bench.refused = str(error)


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
