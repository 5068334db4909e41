"""The main job: an update that stays ciphertext all the way switches the slot, and the next one switches back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.board import Board
from harness.ota.release import Release
from harness.provision.device_record import ROLLBACK

pytestmark = pytest.mark.profiles("release", "development")


def test_switch_to_the_other_slot_and_back(board: Board, fresh: Callable[[], Release]) -> None:
    start = board.status()
    for slot in (start.next_slot, start.slot):
        release = fresh()
        assert board.update(release).ok
        boot = board.reboot()
        assert (boot.slot, boot.offset, boot.version) == (slot, board.slot(slot).offset, release.version)
        assert board.status().state == "pending"
        assert board.confirm().ok
        assert board.status().state == "valid"


def test_an_update_over_the_uart_switches_the_slot(board: Board, fresh: Callable[[], Release]) -> None:
    start, release = board.status(), fresh()
    body = board.body(release, board.slot(start.next_slot))
    answer = board.update(release, over="uart")
    assert answer.ok, answer
    assert board.slot_digest(start.next_slot, size_bytes=len(body)) == answer.fields["sha256"]
    boot = board.reboot()
    assert (boot.slot, boot.version) == (start.next_slot, release.version)
    assert board.status().state == "pending"


def test_the_firmware_and_the_log_agree_on_the_security_state(board: Board) -> None:
    boot, running = board.restart(), board.status()
    assert board.profile is not None
    assert boot.encryption == running.encryption == board.profile.value
    assert running.release_ok is (board.profile.value == "release")
    assert (boot.slot, boot.offset, boot.version) == (running.slot, running.offset, running.version)


def test_what_lies_in_the_slot_is_the_ciphertext_that_was_served(
    board: Board, fresh: Callable[[], Release]
) -> None:
    release, slot = fresh(), board.slot(board.status().next_slot)
    body = board.body(release, slot)
    answer = board.update(release)
    assert answer.ok
    assert board.slot_digest(slot.label, size_bytes=len(body)) == answer.fields["sha256"]
    assert release.image[:256] not in body


def test_plaintext_through_the_stock_handler_works(board: Board, fresh: Callable[[], Release]) -> None:
    release, start = fresh(), board.status()
    assert board.take(release.image, name="plain.bin", command="ota-stock").ok
    boot = board.reboot()
    assert (boot.slot, boot.version) == (start.next_slot, release.version)


def test_an_unconfirmed_version_gives_way_to_the_old_one_and_the_record_says_that_it_inferred_it(
    board: Board, fresh: Callable[[], Release]
) -> None:
    start, release = board.status(), fresh()
    assert board.update(release).ok
    assert board.reboot().version == release.version
    back = board.restart()
    assert (back.slot, back.version) == (start.slot, start.version)
    assert any("rollback" in note and "inferred" in note for note in back.inferred), back.inferred
    board.note_proof(ROLLBACK, version=start.version)


@pytest.mark.parametrize("kind", ["abort", "wdt"])
def test_a_version_that_crashes_before_it_is_confirmed_gives_way(
    board: Board, fresh: Callable[[], Release], kind: str
) -> None:
    start = board.status()
    assert board.update(fresh()).ok
    board.reboot()
    back = board.crash(kind)
    assert (back.slot, back.version) == (start.slot, start.version)
    assert any(record.panic is not None for record in board.boots[-3:])
