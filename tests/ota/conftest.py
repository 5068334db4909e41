"""What the scenarios share. Nothing here knows what kind of board it is on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from harness.board import Board, Snapshot
from harness.console.boot_record import BootRecord
from harness.ota.release import Release

_numbers = itertools.count(1)


@pytest.fixture
def fresh(board: Board) -> Callable[[], Release]:
    """Makes a release with a version that this board has never seen."""

    def make() -> Release:
        burned = 0
        if "anti-rollback" in board.capabilities:
            burned = int(board.status().fields["fuse_secure_version"])
        return board.release(f"2.{next(_numbers)}.0", secure_version=burned)

    return make


@pytest.fixture
def confirm_in(board: Board, fresh: Callable[[], Release]) -> Callable[[str], Release]:
    """Fills both slots with confirmed versions, the newest of them in the slot that is asked for, running."""

    def fill(label: str) -> Release:
        for _ in range(2 if board.status().slot == label else 3):
            release = fresh()
            assert board.update(release).ok
            assert board.reboot().version == release.version
            assert board.confirm().ok
        assert board.status().slot == label
        return release

    return fill


@pytest.fixture
def before(board: Board) -> Snapshot:
    """What ran before the scenario, and what lay in its slot."""
    return board.snapshot()


@pytest.fixture
def still_runs(board: Board, before: Snapshot, fresh: Callable[[], Release]) -> Callable[[], BootRecord]:
    """Asserts that nothing was lost: the old slot boots with every byte as it was, and the next good update works."""

    def check() -> BootRecord:
        again = board.restart()
        assert (again.slot, again.version) == (before.running.slot, before.running.version)
        assert board.slot_digest(before.running.slot) == before.digest, "the running slot was written to"
        release = fresh()
        answer = board.update(release)
        assert answer.ok, f"the next good update fails: {answer}"
        updated = board.reboot()
        assert (updated.slot, updated.version) == (before.running.next_slot, release.version)
        return again

    return check
