"""A server or a network that misbehaves: the update ends in its own error, or is resumed; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.board import Board, Snapshot
from harness.console.boot_record import BootRecord
from harness.ota.faults import Fault, FaultKind
from harness.ota.release import Release
from harness.ota.server import OtaServer

pytestmark = [
    pytest.mark.in_turn,
    pytest.mark.profiles("release", full=("open", "development", "ciphertext-only")),
]

FAULTS = (
    (Fault(FaultKind.STATUS, code=404), "http-status"),
    (Fault(FaultKind.STATUS, code=500), "http-status"),
    (Fault(FaultKind.TRUNCATE, at_byte=20_000, times=None), "truncated"),
    # Whoever translates addresses on the way, as a router does, may make a close of a reset.
    (Fault(FaultKind.RESET, at_byte=20_000, times=None), "http-read or truncated"),
    pytest.param(
        Fault(FaultKind.STALL, at_byte=20_000, seconds=60, times=None), "http-timeout", marks=pytest.mark.full
    ),
    (Fault(FaultKind.FLIP, at_byte=20_000), "body-hash"),
    (Fault(FaultKind.FLIP, at_byte=40), "bad-signature"),
    (Fault(FaultKind.WRONG_LENGTH, delta=-4096), "truncated"),
    (Fault(FaultKind.WRONG_LENGTH, delta=4096), "wrong-size"),
)


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=lambda value: str(value))
def test_a_server_fault_ends_the_update_with_its_own_error(
    board: Board,
    ota_server: OtaServer,
    fault: Fault,
    error: str,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    armed = ota_server.faults.add(fault)
    answer = board.update(fresh())
    assert answer.error in error.split(" or "), answer
    assert armed.struck >= 1, "the fault never took effect"
    ota_server.faults.clear()
    still_runs()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.SLOW, bytes_per_s=400_000),
        Fault(FaultKind.CHUNKED),
        Fault(FaultKind.MISSING_LENGTH),
        Fault(FaultKind.RESET, at_byte=20_000),
        Fault(FaultKind.TRUNCATE, at_byte=20_000),
    ],
    ids=str,
)
def test_what_a_server_may_do_does_not_hurt_the_update(
    board: Board, ota_server: OtaServer, fault: Fault, fresh: Callable[[], Release]
) -> None:
    armed, release, slot = ota_server.faults.add(fault), fresh(), board.status().next_slot
    answer = board.update(release)
    assert answer.ok, answer
    assert armed.struck >= 1, "the fault never took effect"
    assert (board.reboot().slot, board.status().version) == (slot, release.version)


def test_a_redirect_is_followed(board: Board, ota_server: OtaServer, fresh: Callable[[], Release]) -> None:
    release, start = fresh(), board.status()
    ota_server.publish(start.mac, "moved.pkg", board.package(release))
    armed = ota_server.faults.add(Fault(FaultKind.REDIRECT, match="here.pkg", target="moved.pkg"))
    try:
        assert board.take(b"not this", name="here.pkg").ok
    finally:
        ota_server.withdraw(start.mac, "moved.pkg")
    assert armed.struck == 1
    assert (board.reboot().slot, board.status().version) == (start.next_slot, release.version)


def test_a_redirect_without_end_is_not_followed_for_ever(
    board: Board, ota_server: OtaServer, fresh: Callable[[], Release], still_runs: Callable[[], BootRecord]
) -> None:
    armed = ota_server.faults.add(Fault(FaultKind.REDIRECT, target="update.pkg", times=None))
    assert board.take(board.package(fresh())).error == "http-status"
    assert armed.struck < 20
    ota_server.faults.clear()
    still_runs()


def test_a_server_that_answers_otherwise_on_resume_is_found_out(
    board: Board, ota_server: OtaServer, fresh: Callable[[], Release], still_runs: Callable[[], BootRecord]
) -> None:
    ota_server.faults.add(Fault(FaultKind.RESET, at_byte=20_000))
    changed = ota_server.faults.add(Fault(FaultKind.CHANGED_ON_RESUME))
    assert board.update(fresh()).error == "changed"
    assert changed.struck == 1
    ota_server.faults.clear()
    still_runs()


def test_a_device_gets_nothing_that_was_published_for_another(board: Board, ota_server: OtaServer) -> None:
    mine, other = board.status().mac, "7c:df:a1:ff:ff:fe"
    ota_server.publish(other, "secret.pkg", b"not for you")
    ota_server.publish(mine, "mine.pkg", b"for you, and not a package")
    own = board.url_for("mine.pkg")
    try:
        assert board.command("ota", url=own).error == "truncated"
        assert board.command("ota", url=own.replace("mine.pkg", "secret.pkg")).error == "http-status"
    finally:
        ota_server.withdraw(mine)
        ota_server.withdraw(other)
