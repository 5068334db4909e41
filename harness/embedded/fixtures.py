"""`dut`, `app` and `serial` on harness boards; registered late, since of two plugins pytest takes the later one's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.dut import DutSerial, HarnessDut
from harness.embedded.chips import is_for_this_chip
from harness.embedded.turn import DUT, INI, MARKER, SCOPES, scope_of, turn_of
from harness.errors import HarnessError, UsageError

SECOND_USERS = {
    "jtag": "it would start OpenOCD on a board that the harness holds",
    "qemu": "the emulator is a board of the harness: 'link: qemu' in boards.yaml",
    "espemu": "the emulator is a board of the harness: 'link: espemu' in boards.yaml",
    "wokwi": "it knows nothing of eFuses and flash encryption",
}
"""Services of pytest-embedded that cannot be beside a harness board, and why."""

NOT_STARTED = ("port", "port_location", "port_mac", "flash_port", "erase_all", "erase_nvs")
"""Options of pytest-embedded that choose or change a board; here boards.yaml does."""

INI_HELP = f"how long pytest-embedded's dut goes on over tests: {', '.join(SCOPES)}"
MARKER_HELP = (
    f"{MARKER}(scope): the board and its log go on over the tests of this class, module, package or session"
)


@pytest.fixture(scope="session")
def dut(_bench: Any, request: pytest.FixtureRequest) -> Iterator[HarnessDut]:
    """pytest-embedded's `Dut` on this board. Each test gets a board that has just restarted, unless a wider fixture,
    ``@pytest.mark.dut_scope`` or the ini option harness_dut_scope lets it go on."""
    board = _bench.usable(lambda _reason, text: pytest.skip(text), on_rack=False)
    opened: HarnessDut = board.open_dut(DUT)
    opened.before_use = lambda: _take_turn(_bench, opened, request.config)
    yield opened
    _bench.turn = None
    _bench.board.close_dut()


@pytest.fixture
def app(dut: HarnessDut) -> Any:
    """What is flashed: ``dut.app``."""
    return dut.app


@pytest.fixture
def serial(dut: HarnessDut) -> DutSerial:
    """``dut.serial``: no second port is opened."""
    return dut.serial


@pytest.fixture
def embedded_services(request: pytest.FixtureRequest) -> str | None:
    """None for a test with a harness board, so that none of them is started, or has to be installed; else as given."""
    if DUT in request.fixturenames:
        return None
    told: str | None = getattr(request, "param", None) or request.config.getoption("embedded_services", None)
    return told


@pytest.fixture(autouse=True)
def _dut_of_this_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """Before a test with a `dut`: the board is settled, the `dut`'s turn begins or goes on."""
    if DUT not in request.fixturenames:
        yield
        return
    try:
        _require_one_user(request)
    except UsageError as error:
        pytest.fail(str(error), pytrace=False)
    request.getfixturevalue("board")
    bench = request.getfixturevalue("_bench")
    opened: HarnessDut = bench.board.open_dut(DUT)
    opened.begin_test(request.node.name)
    _take_turn(bench, opened, request.config)
    yield
    _keep_unity_results(request, opened)
    if scope_of(request.node) == SCOPES[0]:
        # A test that is repeated gets a turn of its own, and nobody reads on until the next one.
        bench.turn = bench.turn_settled = None
        opened.rest()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the first fixture, which may be a class's that uses the `dut`."""
    if DUT in getattr(item, "fixturenames", ()):
        try:
            item.config.stash[TURN] = (turn_of(item), item.name)
        except HarnessError as error:
            pytest.fail(str(error), pytrace=False)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """What was said on the command line and has no effect here."""
    line = ignored_options(config)
    return [line] if line is not None else []


TURN = pytest.StashKey[tuple[str, str]]()
"""Whose turn it is, and the name of the test that begins it."""


def goes_on(bench: Any, request: pytest.FixtureRequest) -> bool:
    """Whether the board of `bench` is in the middle of a `dut`'s turn, and must not be restarted for this test."""
    return DUT in request.fixturenames and bench.turn is not None and bench.turn == due(request.config)


def may_go_on(request: pytest.FixtureRequest) -> bool:
    """Whether the next test may read on in this one's log: what the firmware is asked meanwhile would stand in it."""
    return DUT in request.fixturenames and scope_of(request.node) != SCOPES[0]


def due(config: pytest.Config) -> str | None:
    """Whose turn it is now; None: no test with a `dut` runs."""
    told = config.stash.get(TURN, None)
    return told[0] if told is not None else None


def _take_turn(bench: Any, dut: HarnessDut, config: pytest.Config) -> None:
    turn = config.stash.get(TURN, None)
    if turn is None or bench.turn == turn[0]:
        return
    if bench.turn_settled != turn[0]:
        # A fixture of a class or module comes before the board of its first test.
        bench.settle(bench.board)
        bench.turn_settled = turn[0]
    bench.turn = turn[0]
    dut.renew(turn[1])


def _require_one_user(request: pytest.FixtureRequest) -> None:
    """That nothing else is asked to use the board.

    Raises:
        UsageError: several boards in one test, or a service that would open the port a second time.
    """
    callspec = getattr(request.node, "callspec", None)
    params = callspec.params if callspec is not None else {}
    count = params.get("count", request.config.getoption("count", 1))
    if int(count or 1) > 1:
        raise UsageError(
            f"the test wants {count} boards at once, and a harness test has one",
            todo="run it with pytest-embedded alone: -p no:esp32_secure_ota_harness",
        )
    services = str(params.get("embedded_services") or request.config.getoption("embedded_services", "") or "")
    for service in (word.strip() for part in services.split("|") for word in part.split(",")):
        if service in SECOND_USERS:
            raise UsageError(
                f"--embedded-services {service} cannot be beside a harness board: {SECOND_USERS[service]}",
                todo=f"leave '{service}' out, or run without the harness: -p no:esp32_secure_ota_harness",
            )


def ignored_options(config: pytest.Config) -> str | None:
    """One line about options of pytest-embedded that have no effect here; None: there are none."""
    named = [f"--{name.replace('_', '-')}" for name in NOT_STARTED if config.getoption(name, None)]
    if not named:
        return None
    return f"harness: {', '.join(named)}: no effect on harness boards, whose ports boards.yaml names"


def no_board(chips: Sequence[str]) -> pytest.MarkDecorator:
    """Skips a test for which no board of this run is of the right chip."""
    return pytest.mark.skip(reason=f"the test is for {' or '.join(chips)}, and no board of this run is one")


def drop_other_chips(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test that is parametrised by `target` and by boards, only those stay where both are the same chip."""
    chosen: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        board = callspec.params.get("_target") if callspec is not None else None
        # Of a test that is for no board of this run, pytest makes an item without one.
        entry = getattr(board, "entry", None)
        fits = entry is None or is_for_this_chip(item, entry.chip)
        (chosen if fits else dropped).append(item)
    if dropped:
        items[:] = chosen
        config.hook.pytest_deselected(items=dropped)


def _keep_unity_results(request: pytest.FixtureRequest, dut: HarnessDut) -> None:
    """Where pytest-embedded looks for them when it completes the JUnit file."""
    if dut.testsuite.testcases:
        folder = Path(request.getfixturevalue("test_case_tempdir"))
        folder.mkdir(parents=True, exist_ok=True)
        dut.testsuite.dump(str(folder / "dut.xml"))


def register(config: pytest.Config) -> None:
    """Adds the fixtures to a session whose plugins are all there."""
    config.pluginmanager.register(sys.modules[__name__], "harness-dut")


__all__ = [
    "INI",
    "INI_HELP",
    "MARKER_HELP",
    "drop_other_chips",
    "due",
    "goes_on",
    "ignored_options",
    "register",
]
