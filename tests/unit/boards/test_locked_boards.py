"""What is left of a board that was locked, or locked by half: it is recognised, and used as far as it allows."""

from __future__ import annotations

import pytest
from wired_twin import Start, WiredLab, entry_of, provisioned

from harness.board import Board
from harness.errors import BoardError, RefusedError
from harness.preparation import Consent, Demand, make_plan, prepare, reflash
from harness.provision.chip_state import Download
from harness.provision.profile import Lock, Profile
from harness.say import Say

QUIET = Say(quiet=True)
RELEASE = Demand(Profile.RELEASE)


def takes_an_update(board: Board) -> None:
    before = board.status()
    assert board.update(board.release("3.0.0")).ok
    assert (board.reboot().slot, board.confirm().ok) == (before.next_slot, True)


@pytest.mark.parametrize("chip", ["esp32c3", "esp32"])
def test_a_board_without_uart_download_is_known_by_its_firmware_and_updated_over_the_air(
    start: Start, wired: WiredLab, chip: str
):
    twin = provisioned(start, wired, Lock.DOWNLOAD_OFF, chip=chip)
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    planned = make_plan(board, RELEASE, wired.home, say=QUIET)
    assert (planned.state.download, planned.plan.empty, board.mac) == (Download.OFF, True, twin.mac)
    # It was asked for download mode, and nobody tried to speak to a ROM that does not answer.
    assert not any("esptool" in line.text for line in board.console.lines)
    prepare(board, RELEASE, Consent(entry), wired.home, say=QUIET)
    assert "uart-download" not in board.capabilities
    takes_an_update(board)
    with pytest.raises(RefusedError, match="only the firmware can write"):
        reflash(board, RELEASE, Consent(entry), wired.home, say=QUIET)


def test_a_board_that_lost_its_download_mode_elsewhere_is_recognised_too(start: Start, wired: WiredLab):
    twin = provisioned(start, wired, Lock.DOWNLOAD_OFF)
    for record in wired.home.devices.glob("*.json"):
        record.unlink()
    board = wired.open(entry_of(twin, mac=twin.mac))
    with pytest.raises(RefusedError, match="DIS_DOWNLOAD_MODE is burned"):
        make_plan(board, RELEASE, wired.home, say=QUIET)
    assert board.identity.found == twin.mac


def test_a_board_in_secure_download_mode_takes_updates_and_ciphertext_but_tells_nothing(
    start: Start, wired: WiredLab
):
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    prepare(board, RELEASE, Consent(entry), wired.home, say=QUIET)
    assert "uart-download" in board.capabilities
    takes_an_update(board)
    with board.rom(writes_flash=False) as session:
        for forbidden in (
            lambda: session.read_flash(0, 4096),
            lambda: session.flash_md5(0, 4096),
            lambda: session.burn_fuses({"DIS_PAD_JTAG": 1}),
        ):
            with pytest.raises(BoardError, match="in Secure Download Mode"):
                forbidden()
    assert reflash(board, RELEASE, Consent(entry), wired.home, say=QUIET).running.slot == "ota_0"


def test_a_board_that_no_longer_enciphers_is_used_as_it_is(start: Start, wired: WiredLab):
    def half_lock(board: Board) -> None:
        with board.rom() as session:
            session.burn_fuses({"SPI_BOOT_CRYPT_CNT": 7, "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1})

    twin = provisioned(start, wired, Lock.NONE, profile=Profile.DEVELOPMENT, then=half_lock)
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    demand = Demand(Profile.CIPHERTEXT_ONLY)
    prepare(board, demand, Consent(entry), wired.home, say=QUIET)
    takes_an_update(board)
    again = reflash(board, demand, Consent(entry), wired.home, say=QUIET)
    assert (again.running.slot, again.running.encryption) == ("ota_0", "development")
    assert [step.do for step in again.plan.steps if step.irreversible] == []
    with pytest.raises(RefusedError, match="the ROM no longer enciphers"):
        make_plan(board, Demand(Profile.DEVELOPMENT), wired.home, say=QUIET)
