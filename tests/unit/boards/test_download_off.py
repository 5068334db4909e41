"""UART download switched off for good: the board is brought back, and its firmware renewed, by updates alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from wired_twin import Start, WiredLab, WiredTwin, entry_of, provisioned

from harness.board import Board
from harness.errors import BoardError, RefusedError
from harness.formats.ota_package import HEADER_BYTES
from harness.main_job import run_main_job
from harness.ota import variants
from harness.preparation import Consent, Demand, carry_out_plan, make_plan, prepare, reflash, settle_after
from harness.provision.chip_state import Download
from harness.provision.device_record import ROLLBACK
from harness.provision.profile import Lock, Profile
from harness.say import Say

QUIET = Say(quiet=True)
OPEN_RELEASE = Demand(Profile.RELEASE, Lock.NONE)
AS_IT_IS = Demand(Profile.RELEASE)
LOST = "ota data partition invalid and no factory, will try all partitions"


def updated(board: Board, version: str) -> None:
    """To a version that is confirmed, in the other slot."""
    before = board.status()
    assert board.update(board.release(version)).ok
    boot = board.reboot()
    assert (boot.slot, boot.version) == (before.next_slot, version)
    assert board.status().state == "pending"
    assert board.confirm().ok
    assert (board.status().state, board.status().agrees) == ("valid", True)


def goes_there_and_back(board: Board) -> None:
    start = board.status().slot
    updated(board, "1.1.0")
    updated(board, "1.2.0")
    assert board.status().slot == start


def rolls_back(board: Board) -> None:
    before = board.status()
    assert board.update(board.release("1.3.0")).ok
    assert board.reboot().version == "1.3.0"
    back = board.restart()
    assert (back.slot, back.version) == (before.slot, before.version)


def lock_by_plan(start: Start, wired: WiredLab, chip: str, *, by_firmware: bool = False) -> WiredTwin:
    """As a person locks a physical board: the plan says FINAL, and wants consent by name and what has passed on it."""
    twin = provisioned(start, wired, Lock.NONE, chip=chip)
    entry = entry_of(twin, mac=twin.mac, burn_up_to="release")
    board = wired.open(entry)
    consent = Consent(entry, frozenset({"desk"}))
    final = Demand(Profile.RELEASE, Lock.DOWNLOAD_OFF, by_firmware=by_firmware)
    prepare(board, OPEN_RELEASE, consent, wired.home, say=QUIET)

    def refused(consent: Consent, *missing: str) -> None:
        planned = make_plan(board, final, wired.home, say=QUIET, to_carry_out=True)
        assert "FINAL: " in planned.plan.text()
        with pytest.raises(RefusedError) as refusal:
            carry_out_plan(board, planned, consent, wired.home, say=QUIET)
        listed = refusal.value.message.split("Missing:")[1].splitlines()[1:]
        assert [any(word in line for line in listed) for word in missing] == [True] * len(listed), listed

    refused(
        Consent(entry), "'--burn desk' on this run", "a raw update to the other", "update back", "a rollback"
    )
    assert run_main_job(board, OPEN_RELEASE, consent, wired.home, say=QUIET).exit_code == 0
    refused(consent, "a rollback that passed on this very board")
    board.restart()
    rolls_back(board)
    board.note_proof(ROLLBACK, version=board.status().version)
    with pytest.raises(RefusedError, match="burns eFuses for good"):
        board.command("lock", mode="download-off")
    planned = make_plan(board, final, wired.home, say=QUIET, to_carry_out=True)
    assert planned.state.download is Download.OPEN
    carry_out_plan(board, planned, consent, wired.home, say=QUIET)
    assert settle_after(board, planned, final, say=QUIET).running is not None
    wired.close()
    return twin


def lock_by_planned_command(start: Start, wired: WiredLab, chip: str) -> WiredTwin:
    """The same, but the running firmware burns it."""
    return lock_by_plan(start, wired, chip, by_firmware=True)


def lock_by_itself(start: Start, wired: WiredLab, chip: str) -> WiredTwin:
    """As a product may lock itself: by its own command, of which no device record knows."""

    def lock(board: Board) -> None:
        goes_there_and_back(board)
        rolls_back(board)
        assert board.command("lock", mode="download-off").ok
        assert board.says_download_is_off()

    return provisioned(start, wired, Lock.NONE, chip=chip, then=lock)


@pytest.fixture(autouse=True)
def safe_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault of a test lies in a folder that is thrown away, which is refused for physical boards."""
    monkeypatch.setattr("harness.provision.execute.require_safe_place", lambda *_: ())
    monkeypatch.setattr("harness.provision.execute.refresh", lambda *_: ())


@pytest.mark.parametrize(
    ("locked", "chip"),
    [
        (lock_by_plan, "esp32c3"),
        pytest.param(lock_by_plan, "esp32", marks=pytest.mark.full),
        pytest.param(lock_by_planned_command, "esp32c3", marks=pytest.mark.full),
        (lock_by_itself, "esp32"),
    ],
)
def test_a_board_whose_cable_is_of_no_use_any_more_lives_by_updates_alone(
    start: Start, wired: WiredLab, locked: Callable[[Start, WiredLab, str], WiredTwin], chip: str
):
    twin = locked(start, wired, chip)
    # Another day, another process: all that is known is in the record and the vault.
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    prepared = prepare(board, AS_IT_IS, Consent(entry), wired.home, say=QUIET)
    assert prepared.plan.empty
    assert prepared.plan.lock is board.lock is Lock.DOWNLOAD_OFF
    assert board.identity.found == twin.mac, "its firmware says who it is"
    assert "uart-download" not in board.capabilities

    mark = board.console.mark()
    updated(board, "5.0.0")
    updated(board, "5.1.0")
    survives_a_bad_update(board)
    survives_a_version_that_crashes(board)
    survives_damaged_otadata(board)
    updated(board, "6.0.0")
    since = [line.text for line in board.console.lines_since(mark)]
    assert not any("into download" in text or "esptool" in text for text in since), (
        "all of it without the ROM"
    )

    with pytest.raises(RefusedError, match="only the firmware can write"):
        reflash(board, AS_IT_IS, Consent(entry), wired.home, say=QUIET)
    with pytest.raises(BoardError):
        board.read_state()
    assert board.restart().version == "6.0.0", "asking for download mode has cost nothing"


def survives_a_bad_update(board: Board) -> None:
    before = board.snapshot()
    recipe = board.recipe(board.release("5.2.0"), board.slot(before.running.next_slot))
    answer = board.take(variants.flipped(recipe.package(), HEADER_BYTES + 0x3000))
    assert not answer.ok, answer
    assert board.slot_digest(before.running.slot) == before.digest
    boot = board.restart()
    assert (boot.slot, boot.version) == (before.running.slot, before.running.version)


def survives_a_version_that_crashes(board: Board) -> None:
    before = board.status()
    assert board.update(board.release("5.3.0")).ok
    assert board.reboot().version == "5.3.0"
    back = board.crash("abort")
    assert (back.slot, back.version) == (before.slot, before.version)


def survives_damaged_otadata(board: Board) -> None:
    for kind in ("plaintext", "erase"):
        assert board.command("otadata-raw", kind=kind).ok
        boot = board.restart()
        assert any(LOST in error.text for error in boot.errors)
        assert not board.status().agrees
        assert board.repair().ok
        mended = board.restart()
        assert (mended.slot, mended.errors) == (boot.slot, ())
        assert board.status().agrees
