"""A run of pytest on boards of boards.yaml: which test on which, when, and what is said at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from harness.embedded.turn import scope_of
from harness.inventory.inventory import Inventory
from harness.rack import tally as tallies
from harness.rack.choice import Choice
from harness.rack.demands import Demands, Misfit, fits
from harness.rack.layout import Layout, append_to, take_from
from harness.rack.scheduler import BoardScheduling
from harness.rack.shares import shares as parted
from harness.rack.spread import Share, shares_of, spread
from harness.rack.tally import NOT_RUN, Reason, Tally
from harness.rack.target import Target
from harness.rack.turn import HeldBy, Turns, board_of, open_in_turn, target_of

if TYPE_CHECKING:
    from harness.board import Board

LEASE_WAIT_S = 600.0
"""How long ``--rack`` waits for boards that somebody else has, when nothing else is left to do."""


# Not compared: pytest keeps plugins in sets.
@dataclass(slots=True, eq=False)
class BoardRun:
    """A plugin of one process: of pytest, of a controller of pytest-xdist, or of one of its workers."""

    config: pytest.Config
    choice: Choice | None
    """With ``--rack``."""
    held_by: HeldBy
    lease_wait_s: float
    supplied: bool
    """This is a worker that `BoardScheduling` supplies, or its controller."""
    turns: Turns
    tally: Tally = field(default_factory=Tally)
    _begun: bool = False
    _shares: dict[tuple[str, str, str], Share] = field(default_factory=dict)
    """By test function, id of the share, and id of its first board: the boards that the function fits."""
    _layout: Layout = field(default_factory=Layout)
    _selected: set[str] = field(default_factory=set)
    """Test functions that ``-k`` and the like left."""
    _of_boards: dict[str, list[tuple[str, Misfit]]] = field(default_factory=dict)
    """By board: the test functions that it does not fit, and why."""
    _misfits: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By test function: the demand that no board meets, and a sentence of it."""

    @property
    def is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    # --- collection ---------------------------------------------------------------------------------------------

    def targets(self, nodeid: str, demands: Demands, inventory: Inventory) -> list[Target]:
        """The boards of the rack, in profiles, on which the test function `nodeid` runs."""
        assert self.choice is not None
        found: list[Target] = []
        misfits = []
        for place in self.choice.places:
            profiles, misfit = fits(place, demands)
            found += [
                Target(place.name, inventory.boards[place.name], profile, throwaway=False)
                for profile in profiles
            ]
            if misfit is not None:
                misfits.append(misfit)
                self._of_boards.setdefault(place.name, []).append((nodeid, misfit))
        if not found and misfits:
            # Of boards that fail for several reasons, the one that most of them share.
            demand = Counter(misfit.demand for misfit in misfits).most_common(1)[0][0]
            text = next(misfit.text for misfit in misfits if misfit.demand == demand)
            self._misfits[nodeid] = (demand, text)
        return found

    def count_unfit(self, items: Sequence[pytest.Item]) -> None:
        """`items`: what is selected, tests that fit no board among them."""
        unfit: Counter[str] = Counter()
        examples: dict[str, str] = {}
        self._selected = {item.nodeid.split("[")[0] for item in items}
        for item in items:
            found = self._misfits.get(item.nodeid.split("[")[0])
            if found is not None:
                unfit[found[0]] += 1
                examples.setdefault(*found)
        self.tally.unfit, self.tally.examples = dict(unfit), examples

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All other plugins have had their say in what is run."""
        layout = self._layout_of(session.items)
        if self.is_worker and self.supplied:
            append_to(session, layout)
        elif not self.is_worker:
            self._begin(layout, [item.nodeid for item in session.items])

    def _layout_of(self, items: Sequence[pytest.Item]) -> Layout:
        units: dict[str, list[int]] = {}
        tests: dict[str, tuple[str, str]] = {}
        twins: dict[str, list[int]] = {}
        for number, item in enumerate(items):
            target = target_of(item)
            if target is not None and target.throwaway:
                twins.setdefault(target.id, []).append(number)
            else:
                name = target.name if target is not None else _group_of(item)
                if name is not None:
                    units.setdefault(name, []).append(number)
            if target is not None and not target.throwaway:
                tests[str(number)] = (target.id, target.entry.chip)
        boards = list(dict.fromkeys(name for item in items if (name := board_of(item)) is not None))
        if self.choice is not None:
            rank = self.choice.rank
            units = dict(sorted(units.items(), key=lambda unit: rank(unit[0])))
        told: Mapping[str, Any] = getattr(self.config, "workerinput", {})
        if told:
            units |= parted(twins, int(told["workercount"]))
        # With load a board may fit tests of which it gets none.
        fitting = {
            target.name
            for (function, _, _), share in self._shares.items()
            if function in self._selected
            for target in share.targets
        }
        idle = {
            name: next(misfit.text for nodeid, misfit in misfits if nodeid in self._selected)
            for name, misfits in self._of_boards.items()
            if name not in units
            and name not in fitting
            and any(nodeid in self._selected for nodeid, _ in misfits)
        }
        return Layout(units, boards, tests, dict(self.tally.unfit), dict(self.tally.examples), idle)

    def _begin(self, layout: Layout, ids: Sequence[str]) -> None:
        if self._begun:
            return
        self._begun, self._layout = True, layout
        board = {test: name for name, tests in layout.units.items() for test in tests}
        self.tally.begin(
            {ids[int(n)]: (board[int(n)], target, chip) for n, (target, chip) in layout.tests.items()}
        )
        self.tally.unfit, self.tally.examples = layout.unfit, layout.examples

    # --- one board of several ------------------------------------------------------------------------------------

    def shares(self, nodeid: str, targets: Sequence[Target]) -> list[Share]:
        """With ``--rack-dist load``: `targets` of the test function `nodeid` by chip and profile."""
        found = shares_of(targets)
        self._shares |= {(nodeid, share.id, share.targets[0].id): share for share in found}
        return found

    def spread(self, items: list[pytest.Item]) -> None:
        """Gives each of the `items` that are selected its board, and brings those of one board together.

        Tests over which a `dut` goes on (of a class, of a module) stay on one board. Other tests of a class do not: its
        fixtures are then made for each of the boards.
        """
        wanted = []
        for item in items:
            target = target_of(item)
            function = item.nodeid.split("[")[0]
            share = None
            if target is not None and not target.throwaway:
                named = (
                    found for key, found in self._shares.items() if key[0] == function and key[2] == target.id
                )
                share = next(named, None)
            if share is not None:
                scope = scope_of(item)
                together = item.nodeid if scope == "function" else function.rpartition("::")[0]
                together = together if scope in ("function", "class") else function.partition("::")[0]
                wanted.append((item, together, share))
        choice = self.choice
        assert choice is not None
        found = spread([(together, share) for _, together, share in wanted], choice.passed_over)
        for (item, _, _), target in zip(wanted, found, strict=True):
            item.callspec.params["_target"] = target  # type: ignore[attr-defined]
        order = {name: number for number, name in enumerate(dict.fromkeys(target.name for target in found))}
        # A board goes from profile to profile, and no way leads back.
        items.sort(key=lambda item: (order.get(board_of(item) or "", -1), _distance(target_of(item))))

    # --- pytest-xdist -------------------------------------------------------------------------------------------

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:  # noqa: ARG002
        """A worker has collected."""
        layout = take_from(ids)
        if layout is not None:
            self._begin(layout, ids)

    @pytest.hookimpl(optionalhook=True, tryfirst=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config) -> BoardScheduling | None:
        """By board, unless the command line says otherwise."""
        if not self.supplied:
            return None
        from xdist.workermanage import parse_tx_spec_config

        return BoardScheduling(
            config,
            len(parse_tx_spec_config(config)),
            layout=lambda: self._layout,
            is_held=self._is_held,
            lease_wait_s=self.lease_wait_s,
        )

    def _is_held(self, name: str) -> bool:
        if name not in self._layout.boards or self.is_skipped(name):
            return False
        return self.held_by(name) is not None

    def is_skipped(self, name: str) -> bool:
        """Nothing is to be done on the board: it was broken when the run began."""
        return self.choice is not None and name in self.choice.broken

    # --- the board of a test ------------------------------------------------------------------------------------

    def busy(self, target: Target) -> str | None:
        """Why the board is not even opened: somebody else has it, and was waited for in vain."""
        holder = None if target.throwaway else self.turns.given_up.get(target.name)
        if holder is None:
            return None
        return (
            f"board {target.name} was in use for all of {self.lease_wait_s:g} s (--lease-wait), by {holder}"
        )

    def open(self, target: Target, opening: Callable[[], Board]) -> Board:
        """Opens the board; where another job was faster by a moment, it is waited for.

        Raises:
            what `opening` raises.
        """
        return open_in_turn(opening, 0.0 if target.throwaway else self.lease_wait_s)

    def skip(self, node: pytest.Item, reason: Reason, text: str) -> NoReturn:
        """Skips a test because of the bench; on the rack, that is counted."""
        if self.choice is not None:
            node.user_properties.append((NOT_RUN, reason))
        pytest.skip(text)

    # --- what became of it --------------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        if self.is_worker:
            return
        not_run = dict(report.user_properties).get(NOT_RUN)
        if getattr(report, "harness_latched", False):
            not_run = "broken"
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else None
        self.tally.add(
            report.nodeid,
            report.when or "",
            report.outcome,
            report.duration,
            None if not_run is None else str(not_run),
            None if reason is None else reason.removeprefix("Skipped: "),
        )

    @property
    def problems(self) -> list[str]:
        """Why this run is no success although no test failed."""
        if self.is_worker or self.config.option.collectonly or not self._begun:
            return []
        if self.choice is None:
            return []
        wrong = [
            (place.chip, place.refusal.text)
            for place in self.choice.places
            if place.refusal is not None and place.refusal.is_wrong
        ]
        return tallies.problems_of(
            self.tally,
            allow_busy=bool(self.config.getoption("--allow-busy")),
            strict=bool(self.config.getoption("--rack-strict")),
            wrong=wrong,
        )

    @property
    def notes(self) -> list[str]:
        """What the run's record must say of boards and tests that did not come together; the terminal has a table."""
        if self.choice is None or self.is_worker:
            return []
        idle = [said for name, _, said in self._chosen() if name not in self.tally.rows]
        return [*idle, *tallies.unfit_lines(self.tally)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Per board, then what is missing."""
        if self.is_worker or self.config.option.collectonly:
            return
        if self.choice is not None:
            terminalreporter.write_sep("=", f"rack: {_count(len(self.choice.places), 'board')}")
            for line in tallies.lines_of(self.tally, self._chosen()):
                terminalreporter.write_line(line)
            for line in tallies.unfit_lines(self.tally):
                terminalreporter.write_line(line)
        for problem in self.problems:
            terminalreporter.write_line(f"not run: {problem}", red=True)

    def _why_idle(self, name: str) -> str:
        assert self.choice is not None
        if name in self.choice.broken:
            return self.choice.broken[name]
        other = "had no test: another job had it" if name in self.choice.held else "had no test"
        return self._layout.idle.get(name, other)

    def _chosen(self) -> list[tuple[str, str, str]]:
        assert self.choice is not None
        return [
            (
                place.name,
                place.chip,
                place.refusal.text if place.refusal is not None else self._why_idle(place.name),
            )
            for place in self.choice.places
        ]


def _distance(target: Target | None) -> int:
    """How far its profile is; 0: none is asked for."""
    return target.profile.distance if target is not None and target.profile is not None else 0


def _group_of(item: pytest.Item) -> str | None:
    """The group that somebody marked a test with for pytest-xdist."""
    marks = list(item.iter_markers("xdist_group"))
    if not marks:
        return None
    names = sorted({str(mark.args[0] if mark.args else mark.kwargs.get("name", "default")) for mark in marks})
    return "group " + "_".join(names)


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
