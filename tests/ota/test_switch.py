"""The main job: an update that stays ciphertext all the way switches the slot, and the next one switches back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.board import Board
from harness.ota.release import Release
from harness.provision.profile import Profile

pytestmark = pytest.mark.profiles("release", "development", full=("ciphertext-only",))


@pytest.mark.source("esp-idf #6172", "esp-idf PR #7305", "RIOT suit_update")
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
    assert boot.encryption == running.encryption == board.profile.told_as(board.chip).value
    assert running.release_ok is (board.profile.encryption is Profile.RELEASE)
    assert boot.secure_boot is running.fields["sb"] is board.profile.secure_boot
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


@pytest.mark.source("RIOT suit_update")
def test_sequence_numbers_grow_by_one_with_every_update(
    board: Board, confirm_in: Callable[[str], Release], fresh: Callable[[], Release]
) -> None:
    """Slot and record alternate; the number only ever grows, and the slot is (number - 1) modulo 2."""
    confirm_in("ota_1")
    number, record = active_record(board)
    assert number % 2 == 0
    for step in range(1, 9):
        release = fresh()
        assert board.update(release).ok
        boot = board.reboot()
        assert (boot.slot, boot.version) == (("ota_0", "ota_1")[step % 2 == 0], release.version)
        assert board.confirm().ok
        assert active_record(board) == (number + step, (record + step) % 2)


def active_record(board: Board) -> tuple[int, int]:
    """Sequence number and index of the otadata record that counts, as the firmware reads them."""
    answer = board.command("otadata")
    index = int(answer.fields["active"])
    return int.from_bytes(bytes.fromhex(answer.fields[f"record{index}"])[:4], "little"), index
