"""Plans for boards whose download mode tells nothing any more: the record speaks, unless the chip objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, VirtualBoard, firmware

from harness.chips import ESP32, ESP32C3
from harness.errors import RefusedError, UsageError
from harness.provision import Lock, Profile, plan_for, unreachable_state
from harness.vault import KeyRef


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


def test_a_locked_board_is_recognised_by_its_record_and_left_alone(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    assert here.look().mac is None
    plan = here.plan(Profile.RELEASE)
    assert plan.empty
    assert plan.mac == MAC
    assert "its device record says release" in plan.text()


def test_a_board_without_any_download_mode_is_recognised_by_its_record(bench):
    here = bench(ESP32)
    here.run(Profile.RELEASE, Lock.DOWNLOAD_OFF)
    assert here.look() == unreachable_state(ESP32, MAC)
    assert here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF).empty


def test_a_board_in_secure_download_mode_takes_ciphertext_and_says_that_nothing_is_verified(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    plan = here.plan(Profile.RELEASE, reflash=True)
    assert [step.do for step in plan.steps] == [*["write-flash"] * 4, "write-record"]
    assert plan.burns_up_to is None
    assert "not verified over UART" in plan.text()
    before = here.records.read(MAC)
    here.board.flash[0x20000:0x21000] = b"\0" * 0x1000
    here.carry_out(plan)
    assert here.board.flash[0x20000:0x21000] != b"\0" * 0x1000
    after = here.records.read(MAC)
    assert (after.fuses, after.key_block, after.lock) == (before.fuses, "BLOCK_KEY0", Lock.SECURE_DOWNLOAD)
    assert here.plan(Profile.RELEASE).empty


def test_a_locked_board_takes_nothing_without_the_key_its_record_tells_of(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    other = KeyRef(MAC, "esp32c3", "0" * 16)
    for key in (None, other):
        with pytest.raises(RefusedError, match="the device record tells of key"):
            here.plan(Profile.RELEASE, reflash=True, key=key)
    with pytest.raises(UsageError, match="no images"):
        here.plan(Profile.RELEASE, reflash=True, regions=())


def test_a_board_without_download_mode_takes_nothing_at_all(bench):
    here = bench(ESP32)
    here.run(Profile.RELEASE, Lock.DOWNLOAD_OFF)
    with pytest.raises(RefusedError, match="UART_DOWNLOAD_DIS is burned: only the firmware can write"):
        here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF, reflash=True)


@pytest.mark.parametrize(
    ("profile", "lock", "named"),
    [
        (Profile.DEVELOPMENT, Lock.NONE, "ENABLE_SECURITY_DOWNLOAD is burned"),
        (Profile.RELEASE, Lock.NONE, "ENABLE_SECURITY_DOWNLOAD is burned"),
        (Profile.RELEASE, Lock.DOWNLOAD_OFF, "ENABLE_SECURITY_DOWNLOAD is burned"),
        (Profile.OPEN, Lock.NONE, "ENABLE_SECURITY_DOWNLOAD is burned"),
    ],
)
def test_nothing_else_can_be_made_of_a_locked_board(bench, profile, lock, named):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    with pytest.raises(RefusedError, match=named):
        here.plan(profile, lock)


def test_a_locked_board_that_nobody_knows_is_refused(bench):
    here = bench(ESP32C3)
    here.board.set_fuses(SPI_BOOT_CRYPT_CNT=7, ENABLE_SECURITY_DOWNLOAD=1)
    with pytest.raises(RefusedError, match="nothing is known of this board"):
        here.plan(Profile.RELEASE)


def test_a_record_that_the_chip_contradicts_is_not_believed(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    record = here.records.read(MAC)
    impostor = VirtualBoard(ESP32C3)
    impostor.set_fuses(SPI_BOOT_CRYPT_CNT=1, ENABLE_SECURITY_DOWNLOAD=1)
    with pytest.raises(RefusedError, match="disagree"):
        plan_for(impostor.state(), profile=Profile.RELEASE, record=record)


def test_a_lock_fuse_burned_in_this_very_session_counts_already(bench):
    here = bench(ESP32)
    here.board.set_fuses(UART_DOWNLOAD_DIS=1)
    with here.board.quietly():
        state = here.board.burner().state()
    with pytest.raises(RefusedError, match="UART_DOWNLOAD_DIS is burned"):
        plan_for(state, profile=Profile.RELEASE, regions=firmware(ESP32))
