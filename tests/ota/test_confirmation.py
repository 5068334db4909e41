"""The time between an update and its confirmation: what may not happen then, and what takes the version back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from row import Row, rows

from harness.board import Board
from harness.console.boot_record import BootRecord
from harness.console.device import Answer
from harness.ota.release import Release
from harness.provision.device_record import ROLLBACK

pytestmark = pytest.mark.profiles("release", full=("open", "development", "ciphertext-only"))

SWITCH_OTA = "esp-idf test_switch_ota.c"
NOT_CONFIRMED = 0x1506
"""ESP_ERR_OTA_ROLLBACK_INVALID_STATE."""


@pytest.fixture
def pending(board: Board, fresh: Callable[[], Release]) -> BootRecord:
    """A new version runs for the first time and is not confirmed."""
    assert board.update(fresh()).ok
    boot = board.reboot()
    assert board.status().state == "pending"
    return boot


# ---- no update meanwhile: the other slot is the only way back ----------------------------------------------


@dataclass(frozen=True)
class Attempt(Row):
    """An update that comes while the running version is not confirmed."""

    name: str
    send: Callable[[Board, Release], Answer]
    code: int = 0


ATTEMPTS = (
    Attempt("raw", lambda b, r: b.update(r)),
    Attempt("bare", lambda b, r: b.take(b.body(r), name="bare.bin", bare=1)),
    Attempt("raw over the UART", lambda b, r: b.update(r, over="uart")),
    Attempt(
        "stock",
        lambda b, r: b.take(r.image, name="plain.bin", command="ota-stock"),
        NOT_CONFIRMED,
    ),
)


@pytest.mark.parametrize("attempt", rows(ATTEMPTS))
def test_no_update_while_the_running_version_is_unconfirmed(
    board: Board, fresh: Callable[[], Release], attempt: Attempt
) -> None:
    start = board.status()
    fallback = board.slot_digest(start.slot)
    assert board.update(fresh()).ok
    unconfirmed = board.reboot()
    answer = attempt.send(board, fresh())
    assert (answer.error, answer.code) == ("pending-verify", attempt.code), answer
    assert board.slot_digest(start.slot) == fallback, "the only good fallback was overwritten"
    assert board.status().version == unconfirmed.version
    back = board.restart()
    assert (back.slot, back.version) == (start.slot, start.version)


def test_after_the_confirmation_the_same_update_is_taken(
    board: Board, fresh: Callable[[], Release], pending: BootRecord
) -> None:
    release = fresh()
    assert board.update(release).error == "pending-verify"
    assert board.confirm().ok
    assert board.update(release).ok
    assert (board.reboot().version, board.status().state) == (release.version, "pending")


# ---- what takes an unconfirmed version back ----------------------------------------------------------------


@dataclass(frozen=True)
class Death(Row):
    """How the first run of a version ends before it is confirmed."""

    name: str
    end: Callable[[Board], BootRecord]
    panics: bool = False


def power_cut(board: Board) -> BootRecord:
    mark = board.console.mark()
    board.power.off()
    board.power.on()
    return board.await_boot(mark)


def rejects_itself(board: Board) -> BootRecord:
    mark = board.console.mark()
    assert board.command("rollback").ok
    return board.await_boot(mark)


DEATHS = (
    Death("reset", lambda b: b.restart(), source=(SWITCH_OTA, "mcuboot run_basic_revert")),
    Death("restart by itself", lambda b: b.reboot()),
    Death("abort", lambda b: b.crash("abort"), panics=True, source=(SWITCH_OTA,)),
    Death("task watchdog", lambda b: b.crash("wdt"), panics=True),
    Death("store to address 0", lambda b: b.crash("null"), panics=True),
    Death("power cut", power_cut, needs=("power",)),
    Death("rejects itself", rejects_itself, source=(SWITCH_OTA,)),
)


@pytest.mark.parametrize("death", rows(DEATHS))
def test_a_version_that_ends_before_it_is_confirmed_gives_way(
    board: Board, fresh: Callable[[], Release], death: Death
) -> None:
    start, release = board.status(), fresh()
    kept = board.slot_digest(start.slot)
    assert board.update(release).ok
    assert board.reboot().version == release.version
    back = death.end(board)
    assert (back.slot, back.version) == (start.slot, start.version)
    assert board.slot_digest(start.slot) == kept
    assert any(record.panic is not None for record in board.boots[-3:]) is death.panics
    again = board.restart()
    assert (again.slot, again.version) == (start.slot, start.version), "it came back"
    assert board.status().state == "valid"


def test_an_unconfirmed_version_gives_way_silently_and_the_record_says_that_it_inferred_it(
    board: Board, pending: BootRecord
) -> None:
    back = board.restart()
    assert back.slot != pending.slot
    assert any("rollback" in note and "inferred" in note for note in back.inferred), back.inferred
    assert back.version is not None
    board.note_proof(ROLLBACK, version=back.version)


# ---- what does not ------------------------------------------------------------------------------------------

AFTERWARDS = tuple(
    replace(death, full=death.full or death.name == "task watchdog")  # it takes five seconds
    for death in DEATHS
    if death.name != "rejects itself"
)


@pytest.mark.parametrize("death", rows(AFTERWARDS))
def test_a_confirmed_version_stays_whatever_happens_to_it(
    board: Board, fresh: Callable[[], Release], death: Death
) -> None:
    release, slot = fresh(), board.status().next_slot
    assert board.update(release).ok
    board.reboot()
    assert board.confirm().ok
    for boot in (death.end(board), board.restart()):
        assert (boot.slot, boot.version) == (slot, release.version)
    assert board.status().state == "valid"


def test_to_confirm_twice_changes_nothing(board: Board, pending: BootRecord) -> None:
    for _ in range(2):
        assert board.confirm().ok
        assert board.status().state == "valid"
    assert board.restart().version == pending.version


def test_two_versions_in_a_row_that_are_never_confirmed_leave_the_same_one(
    board: Board, fresh: Callable[[], Release]
) -> None:
    start = board.status()
    for _ in range(2):
        release = fresh()
        assert board.update(release).ok
        assert board.reboot().version == release.version
        back = board.restart()
        assert (back.slot, back.version) == (start.slot, start.version)
