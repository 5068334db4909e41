"""What must hold after any cut: a valid version boots, otadata can be used, and the next good update works."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.board import Board, Running, Snapshot
from harness.errors import HarnessError
from harness.ota.release import Release


@dataclass(frozen=True, slots=True)
class Expected:
    """The two versions that may run after a cut: the one that ran before, and the one that was being brought."""

    old: Snapshot
    """Its slot must be as it was, byte for byte, whatever boots."""
    new_slot: str
    new_version: str
    new_sha256: str
    """Over the raw bytes of the new version in its slot."""
    new_size_bytes: int

    @classmethod
    def of(cls, old: Snapshot, release: Release, body: bytes) -> Expected:
        """`body`: what lies in the other slot once `release` is there (`Board.body`)."""
        return cls(old, old.running.next_slot, release.version, hashlib.sha256(body).hexdigest(), len(body))


def violations(board: Board, expected: Expected, make_release: Callable[[], Release]) -> tuple[str, ...]:
    """What is broken on a board whose firmware is up after a cut; empty: nothing. It is confirmed and updated.

    Args:
        make_release: makes a version that this board has never seen.
    """
    found: list[str] = []
    try:
        found += _broken(board, expected, make_release)
    except HarnessError as error:
        found.append(error.message)
    return tuple(found)


def _broken(board: Board, expected: Expected, make_release: Callable[[], Release]) -> Iterator[str]:
    running = board.status()
    yield from _of_what_runs(board, running, expected)
    old = expected.old
    if board.slot_digest(old.running.slot) != old.digest:
        yield f"the slot of the old version, {old.running.slot}, was written to"
    if not running.agrees:
        answer = board.repair()
        if not answer.ok:
            yield f"otadata cannot be repaired: {answer}"
    if running.state == "pending":
        answer = board.confirm()
        if not answer.ok:
            yield f"{running.version} cannot be confirmed: {answer}"
    again = board.restart()
    if (again.slot, again.version) != (running.slot, running.version):
        yield f"after one more reset {again.version} runs from {again.slot}"
    settled = board.status()
    if not settled.agrees or settled.state != "valid":
        yield f"otadata names {settled.fields.get('otadata_slot')} with state {settled.state}"
    yield from _of_the_next_update(board, settled, make_release())


def _of_what_runs(board: Board, running: Running, expected: Expected) -> Iterator[str]:
    old = expected.old.running
    if (running.slot, running.version) == (old.slot, old.version):
        if running.state == "pending":
            yield f"{running.version} was confirmed, and is on trial again"
        return
    if (running.slot, running.version) != (expected.new_slot, expected.new_version):
        yield f"{running.version} runs from {running.slot}: neither the old version nor the new one"
    elif board.slot_digest(running.slot, size_bytes=expected.new_size_bytes) != expected.new_sha256:
        yield f"{running.version} runs, and {running.slot} does not hold what was served"


def _of_the_next_update(board: Board, before: Running, release: Release) -> Iterator[str]:
    answer = board.update(release)
    if not answer.ok:
        yield f"the next good update fails: {answer}"
        return
    boot = board.reboot()
    if (boot.slot, boot.version) != (before.next_slot, release.version):
        yield f"after the next good update {boot.version} runs from {boot.slot}"
    answer = board.confirm()
    if not answer.ok:
        yield f"the next good update cannot be confirmed: {answer}"
