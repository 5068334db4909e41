"""From development to release by the firmware itself, and UART download switched off by it: no way leads back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from one_way import EVERY_CHIP, ONE_CHIP, OneWayBench

from harness.board import Board
from harness.chips import CHIPS, Chip
from harness.chips.idf_burns import idf_burns
from harness.console.boot_record import BootRecord
from harness.errors import BoardError
from harness.provision.chip_state import Download
from harness.provision.profile import Lock, Profile
from harness.provision.told_fuses import told_profile


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[OneWayBench]:
    made = OneWayBench.opened(tmp_path)
    with made.lab:
        yield made


def final_lock(chip: Chip) -> Lock:
    """What the function leaves of UART download."""
    return Lock.DOWNLOAD_OFF if chip.fuses.secure_download is None else Lock.SECURE_DOWNLOAD


def left_out(chip: Chip) -> dict[str, int]:
    """What ESP-IDF's release check wants and its function does not burn."""
    burns = idf_burns(chip.name)
    by_function = {*burns.release_mode, burns.release_pseudo_rounds}
    return dict.fromkeys(set(chip.fuses.release) - by_function, 1)


def said(board: Board, mark: int) -> list[str]:
    return [line.text for line in board.console.lines_since(mark) if not line.is_mark]


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_the_firmware_goes_to_release_and_locks_the_download_with_it(bench: OneWayBench, chip: str) -> None:
    board = bench.prepared(chip, Profile.DEVELOPMENT)
    with board.rom() as session:
        # Behind the lock nobody could burn them any more, so a plan burns them first.
        session.burn_fuses(left_out(board.chip))
    board.settle()
    assert board.status().encryption == "development"

    mark = board.console.mark()
    assert board.set_release_mode().ok
    lines = said(board, mark)
    burns = idf_burns(board.chip.name)
    bits = [*burns.release_mode, burns.release_pseudo_rounds, burns.write_protect, "counter", "lock"]
    burned = sum("efuse: BURN BLOCK0 - OK (all write block bits are set)" in line for line in lines)
    assert burned == len([bit for bit in bits if bit is not None]), "every fuse in a burn of its own"

    running = board.status()
    assert (running.encryption, running.release_ok) == ("release", True)
    found = told_profile(board.chip, running.fields)
    assert found is not None
    assert (found.profile, found.lock) == (Profile.RELEASE, final_lock(board.chip))
    assert (board.profile, board.lock) == (Profile.RELEASE, final_lock(board.chip))
    state = board.told_state()
    assert state is not None
    # As final as a full counter, without the even number of ones that a cut on the way there leaves.
    assert state.crypt_count == 1
    assert board.chip.fuses.counter in state.write_protected
    guard = board.chip.fuses.release_write_protect
    assert guard is None or guard in state.write_protected
    record = board.records.read(running.mac)
    assert record is not None
    assert (record.profile, record.lock) == (Profile.RELEASE, final_lock(board.chip))


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_a_plan_that_leaves_release_to_the_firmware_ends_in_release(bench: OneWayBench, chip: str) -> None:
    board = bench.prepared(chip, Profile.RELEASE, lock=final_lock(CHIPS[chip]), by_firmware=True)
    running = board.status()
    assert (running.encryption, running.release_ok) == ("release", True)
    assert board.update(board.release("2.0.0")).ok
    assert board.reboot().version == "2.0.0"


@pytest.mark.parametrize("chip", [ONE_CHIP, "esp32"])
def test_what_the_rom_still_offers_afterwards(bench: OneWayBench, chip: str) -> None:
    board = bench.prepared(chip, Profile.DEVELOPMENT)
    assert board.set_release_mode().ok
    if final_lock(board.chip) is Lock.DOWNLOAD_OFF:
        assert board.says_download_is_off()
        assert "uart-download" not in board.capabilities
    else:
        assert board.read_state().download is Download.SECURE
    booted = board.restart()
    assert booted.app_started


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_updates_go_round_after_it_and_come_back(bench: OneWayBench, chip: str) -> None:
    """A board whose UART is closed is renewed over the air alone: there, back, and a rollback between."""
    board = bench.prepared(chip, Profile.DEVELOPMENT)
    assert board.set_release_mode().ok
    if board.lock is not Lock.DOWNLOAD_OFF:
        assert board.disable_download().ok
    assert board.says_download_is_off()
    board.restart()
    slots = []
    for version in ("2.0.0", "2.1.0", "2.2.0"):
        release = board.release(version)
        assert board.update(release).ok
        booted = board.reboot()
        assert booted.version == version
        assert board.confirm().ok
        slots.append(booted.slot)
    assert slots == ["ota_1", "ota_0", "ota_1"]
    assert board.update(board.release("2.3.0")).ok
    assert board.reboot().version == "2.3.0"
    assert board.restart().version == "2.2.0", "unconfirmed: the reset takes it back"


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_without_the_fuses_that_it_leaves_out_the_release_check_still_objects(
    bench: OneWayBench, chip: str
) -> None:
    board = bench.prepared(chip, Profile.DEVELOPMENT)
    assert board.set_release_mode().ok
    mark = board.console.mark()
    running = board.status()
    assert (running.encryption, running.release_ok) == ("release", False)
    warnings = [line for line in said(board, mark) if "flash_encrypt: Not" in line]
    assert warnings
    words = ("JTAG", "ROM BASIC", "direct boot", "boot from RAM", "SPI boot")
    assert all(any(word in line for word in words) for line in warnings)


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_with_encryption_off_it_aborts_and_burns_nothing(bench: OneWayBench, chip: str) -> None:
    board = bench.prepared(chip, Profile.OPEN)
    before = board.told_state()
    mark = board.console.mark()
    with pytest.raises(BoardError, match="restarted while it worked on 'lock'"):
        board.set_release_mode()
    assert any("Flash encryption eFuse is not enabled, abort.." in line for line in said(board, mark))

    def is_up(record: BootRecord) -> bool:
        return record.evt_boot is not None

    board.console.wait_for_boot(is_up, 30, since=mark)
    assert board.status().fields["reset"] == "panic"
    assert board.told_state() == before
    assert (board.profile, board.lock) == (Profile.OPEN, Lock.NONE)


@pytest.mark.full
def test_a_second_time_it_burns_nothing(bench: OneWayBench) -> None:
    board = bench.prepared("esp32c3", Profile.DEVELOPMENT)
    assert board.set_release_mode().ok
    board.restart()
    mark = board.console.mark()
    assert board.set_release_mode().ok
    assert not any("BURN" in line for line in said(board, mark))


def test_a_build_with_the_lock_of_release_burns_it_when_it_starts(bench: OneWayBench) -> None:
    """ESP-IDF's start-up does, in every start: a plan must not let such an app run before its last step."""
    fragments = ("lock.secure-download", "key.device")
    board = bench.flashed_as_plaintext("esp32c3", Profile.RELEASE, fragments=fragments)
    board.profile, board.lock = Profile.RELEASE, Lock.NONE
    mark = board.console.mark()
    board.restart()
    assert any("efuse: BURN BLOCK0" in line for line in said(board, mark))
    state = board.told_state()
    assert state is not None
    assert state.is_set("ENABLE_SECURITY_DOWNLOAD")
    assert board.read_state().download is Download.SECURE
