"""A run that ended before its lock: the next one finishes what was planned, the lock included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import BoardError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.preparation import Consent, Demand, make_plan, prepare
from harness.provision.profile import Lock, Profile
from harness.provision.rom import RomSession
from harness.say import Say

QUIET = Say(quiet=True)


@pytest.fixture
def lab(tmp_path: Path, home: Home) -> Iterator[Lab]:
    with Lab(home, Inventory(None, {}), tmp_path, secret_from(None)) as lab:
        yield lab


@pytest.mark.parametrize("asked", [None, Lock.SECURE_DOWNLOAD])
def test_a_board_that_lacks_only_its_lock_gets_the_lock_that_was_planned(
    lab: Lab, asked: Lock | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, consent = lab.throwaway("esp32c3"), Consent(TwinEntry(chip="esp32c3"))
    demand = Demand(Profile.RELEASE, asked)

    def cut(self: RomSession, fuse: str) -> None:
        raise BoardError(f"the cable was pulled before {fuse}")

    with monkeypatch.context() as patch:
        patch.setattr(RomSession, "burn_lock", cut)
        with pytest.raises(BoardError, match="the cable was pulled before ENABLE_SECURITY_DOWNLOAD"):
            prepare(board, demand, consent, lab.home, say=QUIET)

    planned = make_plan(board, Demand(Profile.RELEASE), lab.home, say=QUIET)
    assert planned.plan.lock is Lock.SECURE_DOWNLOAD
    assert planned.plan.goes_on
    prepared = prepare(board, Demand(Profile.RELEASE), consent, lab.home, say=QUIET)
    assert prepared.plan.lock is Lock.SECURE_DOWNLOAD
    assert board.read_state().security_info is not None, "the ROM still tells everything"
