"""A board that encrypts itself at its first start, with a key that nobody else ever has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from one_way import EVERY_CHIP, OneWayBench, await_power_loss, cut_power_in, flash_plaintext

from harness.board import Board
from harness.chips.idf_burns import idf_burns
from harness.console.boot_record import BootRecord, Outcome
from harness.errors import NotApplicableError
from harness.links.link import BootMode
from harness.provision.profile import Lock, Profile
from harness.provision.told_fuses import told_profile

pytestmark = pytest.mark.consumes(device_keys=1)

KEY_OF_DEVICE = ("key.device",)
FULL = pytest.mark.full
PROFILES = [Profile.DEVELOPMENT, pytest.param(Profile.RELEASE, marks=FULL)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[OneWayBench]:
    made = OneWayBench.opened(tmp_path)
    with made.lab:
        yield made


def first_start(bench: OneWayBench, chip: str, profile: Profile) -> Board:
    """A board that has encrypted itself, up."""
    board = bench.flashed_as_plaintext(chip, profile, fragments=KEY_OF_DEVICE)
    board.profile, board.lock = profile, Lock.NONE
    board.restart()
    return board


@pytest.mark.parametrize("profile", PROFILES, ids=lambda each: each.value)
@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_the_first_start_encrypts_and_the_second_runs(
    bench: OneWayBench, chip: str, profile: Profile
) -> None:
    board = first_start(bench, chip, profile)
    first, second = board.boots[-2:]
    assert first.outcome is Outcome.ENCRYPTED
    assert second.reset_code == 3
    assert second.evt_boot is not None

    running = board.status()
    assert (running.encryption, running.slot, running.agrees) == (profile.value, "ota_0", True)
    burns = idf_burns(chip)
    # ESP32-P4's bootloader does not burn the pseudo rounds that ESP-IDF's check wants.
    complete = burns.pseudo_rounds == burns.release_pseudo_rounds
    assert running.release_ok is (profile is Profile.RELEASE and complete)
    found = told_profile(board.chip, running.fields)
    assert found is not None
    assert found.lock is Lock.NONE
    if not complete and profile is Profile.RELEASE:
        return
    # A development build of ESP-IDF closes JTAG and more: it is not what the harness calls development, and no less.
    assert found.profile is profile


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_nothing_that_was_flashed_can_be_read_over_the_uart_afterwards(bench: OneWayBench, chip: str) -> None:
    board = first_start(bench, chip, Profile.DEVELOPMENT)
    assert board.app is not None
    with board.rom(writes_flash=False) as session:
        state = session.state()
        head = session.read_flash(board.slot("ota_0").offset, 0x1000)
    assert state.encrypted
    assert head != board.app.release.image[: len(head)]
    assert head[:1] != b"\xe9"
    keys = [block for block in state.key_blocks if not block.readable]
    assert len(keys) == 1, "the key is there, and nobody can read it"


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_such_a_board_takes_updates_by_the_stock_path_and_no_ciphertext_of_a_host(
    bench: OneWayBench, chip: str
) -> None:
    board = first_start(bench, chip, Profile.DEVELOPMENT)
    release = board.release("2.0.0")
    answer = board.take(release.image, name="plain.bin", command="ota-stock")
    assert answer.ok, answer
    booted = board.reboot()
    assert (booted.version, booted.slot) == ("2.0.0", "ota_1")
    assert board.confirm().ok
    # A host's key is never the device's.
    noise = bytes(range(256)) * 64
    answer = board.take(noise, name="bare.bin", bare=1)
    assert answer.error == "not-deciphered"
    back = board.restart()
    assert (back.version, back.slot) == ("2.0.0", "ota_1")


@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_development_made_by_the_device_goes_to_release_by_its_firmware(
    bench: OneWayBench, chip: str
) -> None:
    board = first_start(bench, chip, Profile.DEVELOPMENT)
    assert board.set_release_mode().ok
    running = board.status()
    # The bootloader has burned what the function leaves out.
    assert (running.encryption, running.release_ok) == ("release", True)
    assert board.restart().app_started


@pytest.mark.parametrize("profile", PROFILES, ids=lambda each: each.value)
@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_a_plan_leaves_the_key_to_the_device_and_raw_updates_do_not_apply(
    bench: OneWayBench, chip: str, profile: Profile
) -> None:
    board = bench.prepared(chip, profile, lock=Lock.NONE, device_key=True)
    assert board.status().encryption == profile.value
    with pytest.raises(NotApplicableError, match="key"):
        board.package(board.release("2.0.0"))
    release = board.release("2.0.0")
    assert board.take(release.image, name="plain.bin", command="ota-stock").ok
    assert board.reboot().version == "2.0.0"


def stuck(record: BootRecord) -> bool:
    return record.rom_header_lines > 0


@pytest.mark.parametrize("share", [0.5, pytest.param(0.1, marks=FULL), pytest.param(0.95, marks=FULL)])
@pytest.mark.parametrize("chip", EVERY_CHIP)
def test_a_cut_within_the_encryption_is_mended_with_plaintext_alone(
    bench: OneWayBench, chip: str, share: float
) -> None:
    board = bench.flashed_as_plaintext(chip, Profile.DEVELOPMENT, fragments=KEY_OF_DEVICE)
    assert board.app is not None
    sectors = -(-len(board.app.release.image) // 0x1000)
    # Two operations per sector; key and fuses come before them, and the record of the first start.
    cut_power_in(board, 6 + int(2 * sectors * share))
    board.reset(BootMode.RUN)
    await_power_loss(board)
    board.profile, board.lock = Profile.DEVELOPMENT, Lock.NONE
    record = board.watch_boot(until=stuck)
    assert record.outcome is Outcome.ROM_FAILED
    assert not record.app_started

    flash_plaintext(board)
    mark = board.console.mark()
    board.restart()
    lines = [line.text for line in board.console.lines_since(mark)]
    assert any("Using pre-loaded flash encryption key in efuse" in line for line in lines)
    assert board.status().encryption == "development"


def test_a_build_that_wants_the_hosts_key_refuses_a_blank_chip(bench: OneWayBench) -> None:
    board = bench.flashed_as_plaintext("esp32c3", Profile.DEVELOPMENT, fragments=())
    board.profile, board.lock = Profile.DEVELOPMENT, Lock.NONE
    record = board.watch_boot(until=lambda boot: len(boot.not_bootable) == 2)
    assert record.not_bootable == ("ota_0", "ota_1")
    assert any("REQUIRE_ALREADY_ENABLED is set, refusing to boot" in error.text for error in record.errors)
    assert not board.read_state().encrypted
