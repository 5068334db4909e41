"""The board of one round of a pytest session: opened and prepared once, and what became of that for each test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from harness.errors import HarnessError, RefusedError
from harness.inventory.entry import TwinEntry
from harness.provision.profile import Profile
from harness.provision.recognition import profile_of
from harness.rack.broken_boards import BoardFate
from harness.rack.health import latches
from harness.rack.tally import Reason
from harness.rack.target import Target
from harness.say import Say

if TYPE_CHECKING:
    from harness.board import Board
    from harness.lab import Lab


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
            if self.told and (on_rack or self.fate.watch is not None):
                skip("refused", f"the board was not prepared: {self.broken}")
            self.told = True
            pytest.fail(f"the board was not prepared: {self.broken}", pytrace=False)
        if self.board.console.is_over:
            gone = f"board {self.board.name}: its port went in the middle of this run, or its twin ended"
            if self.told:
                skip("broken", gone)
            self.told = True
            pytest.fail(gone, pytrace=False)
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


def opened(lab: Lab, target: Target) -> Board:
    if target.throwaway:
        assert isinstance(target.entry, TwinEntry)
        return lab.throwaway(target.entry.chip, target.id, entry=target.entry)
    return lab.open(target.name)


def prepare_for(bench: Bench, board: Board, target: Target, lab: Lab, config: pytest.Config) -> None:
    # A session that opens no board does not wait for what a board needs.
    from harness.preparation import Consent, Demand, identify, prepare, reflash

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
