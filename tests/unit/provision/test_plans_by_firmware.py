"""Burns that are left to the firmware: release by ESP-IDF's own function, locks behind a lock, keys of the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, burns_of

from harness.chips import CHIPS, ESP32, ESP32C3
from harness.errors import BoardError, RefusedError, UsageError
from harness.provision import FlashRegion, Lock, Plan, Profile, profile_of
from harness.provision.device_record import RAW_UPDATE_BACK, RAW_UPDATE_THERE, ROLLBACK, DeviceRecord
from harness.provision.planner import FlashedFirmware
from harness.provision.promise import broken_promises, last_promise
from harness.provision.steps import FirmwareBurns, FirmwareCommand, WriteFlash

RELEASE_LOCK = {ESP32: Lock.DOWNLOAD_OFF, ESP32C3: Lock.SECURE_DOWNLOAD}
BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


def obeying(here: Bench) -> Callable[[FirmwareCommand], None]:
    """A firmware that burns what `FirmwareCommand` says, with the chip's own eFuse driver."""

    def burn(step: FirmwareCommand) -> None:
        for words in step.fuses:
            name = words.removeprefix("WR_DIS of ")
            if name != words:
                here.board.protect(name)
            else:
                here.board.set_fuses(**{name: 1})

    return burn


@BOTH
@pytest.mark.parametrize("first", [Profile.OPEN, Profile.DEVELOPMENT])
def test_release_by_the_firmware_leaves_nothing_of_release_out(bench, chip, first):
    here = bench(chip)
    here.run(first)
    plan = here.plan(Profile.RELEASE, RELEASE_LOCK[chip], by_firmware=True)
    told: list[FirmwareCommand] = []
    outcome = here.carry_out(plan, firmware=lambda step: (told.append(step), obeying(here)(step)))
    assert [step.arguments for step in told] == [(("mode", "release"),)]
    record = outcome.record
    assert (record.profile, record.lock) == (Profile.RELEASE, RELEASE_LOCK[chip])
    with here.board.quietly():
        after = dataclasses.replace(here.board.burner().state())
    assert profile_of(after).profile is Profile.RELEASE
    promise = last_promise(plan)
    assert promise is not None
    assert broken_promises(promise, after) == ()
    assert here.plan(Profile.RELEASE, RELEASE_LOCK[chip]).empty


@BOTH
@pytest.mark.parametrize("by_firmware", [True, False])
def test_the_plan_says_when_the_firmware_runs_first(bench, chip, by_firmware):
    plan = bench(chip).plan(Profile.RELEASE, RELEASE_LOCK[chip], by_firmware=by_firmware)
    command = [number for number, step in enumerate(plan.steps, 1) if isinstance(step, FirmwareCommand)]
    said = [remark for remark in plan.remarks if remark.startswith("the firmware")]
    assert said == [
        f"the firmware runs for the first time in step {command[0]}, when it burns fuses, and not before"
        if by_firmware
        else "the firmware does not run before the last step is done"
    ]


@BOTH
def test_what_the_function_does_not_burn_is_burned_before_its_lock(bench, chip):
    here = bench(chip)
    here.run(Profile.DEVELOPMENT)
    burns = burns_of(here.plan(Profile.RELEASE, RELEASE_LOCK[chip], by_firmware=True))
    assert (
        burns[0]
        == {
            ESP32: "JTAG_DISABLE=1 CONSOLE_DEBUG_DISABLE=1",
            ESP32C3: "DIS_DIRECT_BOOT=1 DIS_USB_JTAG=1 DIS_PAD_JTAG=1",
        }[chip]
    )
    assert "esp_flash_encryption_set_release_mode()" in burns[-1]
    assert ("FINAL" in burns[-1]) is (chip is ESP32)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_a_lock_that_the_function_does_not_burn_is_wrong_usage(bench, chip):
    with pytest.raises(
        UsageError, match=r"it leads to lock (secure-download|download-off, which is FINAL), not to none"
    ):
        bench(chip).plan(Profile.RELEASE, Lock.NONE, by_firmware=True)


def test_the_firmware_leads_to_release_only(bench):
    with pytest.raises(UsageError, match="leads to release, not to ciphertext-only"):
        bench(ESP32C3).plan(Profile.CIPHERTEXT_ONLY, by_firmware=True)


@BOTH
def test_a_plan_that_needs_the_firmware_is_not_begun_without_it(bench, chip):
    here = bench(chip)
    plan = here.plan(Profile.RELEASE, RELEASE_LOCK[chip], by_firmware=True)
    with pytest.raises(UsageError, match="nothing reaches it"):
        here.carry_out(plan)
    assert here.board.programs == []


def test_a_firmware_that_did_nothing_is_found_out(bench):
    here = bench(ESP32C3)
    here.run(Profile.DEVELOPMENT)
    with pytest.raises(BoardError, match="did not take"):
        here.carry_out(
            here.plan(Profile.RELEASE, Lock.SECURE_DOWNLOAD, by_firmware=True), firmware=lambda _: None
        )
    assert here.vault.intent(MAC) is not None
    assert here.records.read(MAC).profile is Profile.DEVELOPMENT


def test_only_the_firmware_can_go_on_from_secure_download_mode(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    with pytest.raises(RefusedError, match=r"(?s)espefuse does not reach DIS_DOWNLOAD_MODE .*--by-firmware"):
        here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF)
    plan = here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF, by_firmware=True)
    assert [step.do for step in plan.steps] == [*["write-flash"] * 4, "firmware-command", "write-record"]
    assert "FINAL: let the firmware run 'lock mode=download-off'" in plan.text()
    assert Plan.from_json(plan.to_json()) == plan
    with pytest.raises(BoardError, match="did not take"):
        here.carry_out(plan, firmware=lambda _: None)
    record = here.records.read(MAC)
    assert (record.profile, record.lock) == (Profile.RELEASE, Lock.SECURE_DOWNLOAD)
    here.carry_out(here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF, by_firmware=True), firmware=obeying(here))
    assert here.records.read(MAC).lock is Lock.DOWNLOAD_OFF
    assert here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF).empty


def test_a_lock_may_be_left_to_the_firmware_while_the_rom_still_works(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    plan = here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF, by_firmware=True)
    assert burns_of(plan) == [plan.burns[0].text()]
    assert plan.final
    back = here.plan(Profile.RELEASE, Lock.DOWNLOAD_OFF)
    assert burns_of(back) == ["lock DIS_DOWNLOAD_MODE FINAL"]


# What has passed on a board


def test_a_record_tells_what_must_still_pass_before_download_is_switched_off(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    record = here.records.read(MAC)
    assert len(record.missing_proofs()) == 3
    for number, what in enumerate((RAW_UPDATE_THERE, RAW_UPDATE_BACK, ROLLBACK)):
        here.records.note_proof(MAC, what, version=f"1.{number}.0", when="2025-01-01T00:00:00+00:00")
    here.records.note_proof(MAC, ROLLBACK, version="2.0.0", when="2025-01-02T00:00:00+00:00")
    record = here.records.read(MAC)
    assert record.missing_proofs() == ()
    assert record.passed(ROLLBACK).version == "2.0.0"
    here.run(Profile.RELEASE, Lock.SECURE_DOWNLOAD)
    assert here.records.read(MAC).proven == record.proven


def test_a_proof_without_a_record_is_forgotten(bench):
    here = bench(ESP32C3)
    here.records.note_proof(MAC, ROLLBACK, version="1.0.0", when="")
    assert here.records.read(MAC) is None


# Keys that the device makes


BY_ITSELF = FlashedFirmware(
    burns=(FirmwareBurns("bootloader", "at the first start", ("a key", "SPI_BOOT_CRYPT_CNT")),)
)


def self_encrypting(here: Bench, profile: Profile) -> tuple[FlashRegion, ...]:
    return tuple(dataclasses.replace(each, burns_up_to=profile) for each in here.regions)


@BOTH
@pytest.mark.parametrize("profile", [Profile.DEVELOPMENT, Profile.RELEASE])
def test_a_key_of_the_device_takes_plaintext_and_a_firmware_that_burns(bench, chip, profile):
    here = bench(chip)
    regions = self_encrypting(here, profile)
    plan = here.plan(profile, Lock.NONE, device_key=True, firmware=BY_ITSELF, regions=regions)
    assert [step.do for step in plan.steps] == [
        *["write-flash"] * 4,
        "read-back",
        "firmware-burns",
        "write-record",
    ]
    assert not any(step.enciphered for step in plan.writes)
    assert (plan.burns_up_to, plan.key_id) == (profile, None)
    assert "raw updates are not applicable" in plan.text()
    here.carry_out(plan, regions=regions)
    record = here.records.read(MAC)
    assert (record.profile, record.key_state, record.key_id) == (profile, "device-made", None)
    assert here.vault.key(MAC) is None


def made_by_itself(here: Bench, *, release: bool = False) -> DeviceRecord | None:
    """What ESP-IDF's first boot leaves, with a key that nobody knows."""
    fuses = here.chip.fuses
    with here.board.quietly():
        here.board.burner().burn_key(fuses.key_block, fuses.key_purpose, bytes(range(7, 39)))
    here.board.set_fuses(**dict(fuses.key_config), **{fuses.counter: fuses.counter_release if release else 1})
    if release:
        here.board.set_fuses(**dict.fromkeys(fuses.release, 1))
        here.board.protect(str(fuses.release_write_protect))
    return here.records.read(MAC)


@BOTH
def test_a_device_that_lost_power_while_it_encrypted_itself_gets_the_same_plaintext_again(bench, chip):
    here = bench(chip)
    regions = self_encrypting(here, Profile.DEVELOPMENT)
    asked = {"device_key": True, "firmware": BY_ITSELF, "regions": regions}
    here.carry_out(here.plan(Profile.DEVELOPMENT, Lock.NONE, **asked), regions=regions)
    with here.board.quietly():
        here.board.burner().burn_key(chip.fuses.key_block, chip.fuses.key_purpose, bytes(range(7, 39)))
    plan = here.plan(Profile.DEVELOPMENT, Lock.NONE, **asked)
    assert [step.do for step in plan.writes] == ["write-flash"] * 4
    assert not any(step.enciphered or step.by_chip for step in plan.writes)
    here.carry_out(plan, regions=regions)


def test_a_key_that_somebody_burned_is_none_that_the_device_made(bench):
    here = bench(ESP32C3)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY0", "XTS_AES_128_KEY", bytes(range(7, 39)))
    with pytest.raises(RefusedError, match="BLOCK_KEY0 holds a flash key, but encryption is not on"):
        here.plan(Profile.DEVELOPMENT, Lock.NONE, device_key=True, firmware=BY_ITSELF)


@BOTH
@pytest.mark.parametrize("profile", [Profile.DEVELOPMENT, Profile.RELEASE])
def test_a_board_whose_key_is_elsewhere_is_used_as_what_it_is(bench, chip, profile):
    here = bench(chip)
    made_by_itself(here, release=profile is Profile.RELEASE)
    plan = here.plan(profile, Lock.NONE)
    assert plan.empty
    assert plan.key_state == "elsewhere"
    assert "not in the vault: the device itself enciphers its updates" in plan.text()


def test_its_flash_is_written_through_the_chips_own_encryption_while_the_rom_enciphers(bench):
    here = bench(ESP32C3)
    made_by_itself(here)
    plan = here.plan(Profile.DEVELOPMENT, reflash=True)
    assert all(step.by_chip for step in plan.steps if isinstance(step, WriteFlash))
    here.carry_out(plan)


def test_a_released_board_with_a_key_of_its_own_takes_nothing_over_the_uart(bench):
    released = bench(ESP32C3)
    made_by_itself(released, release=True)
    with pytest.raises(
        RefusedError, match="DIS_DOWNLOAD_MANUAL_ENCRYPT is burned: nobody can encipher for it"
    ):
        released.plan(Profile.RELEASE, Lock.NONE, reflash=True)


def test_a_device_with_a_key_of_its_own_goes_to_release_through_its_firmware_only(bench):
    here = bench(ESP32C3)
    made_by_itself(here)
    with pytest.raises(RefusedError, match="its flash key is not in the vault"):
        here.plan(Profile.RELEASE)
    plan = here.plan(Profile.RELEASE, Lock.SECURE_DOWNLOAD, by_firmware=True)
    here.carry_out(plan, firmware=obeying(here))
    assert here.plan(Profile.RELEASE).empty
    assert here.records.read(MAC).key_state == "elsewhere"


@pytest.mark.parametrize("profile", [Profile.OPEN, Profile.CIPHERTEXT_ONLY])
def test_a_key_of_the_device_is_for_development_or_release(bench, profile):
    with pytest.raises(UsageError, match="for development or release"):
        bench(ESP32C3).plan(profile, device_key=True)


def test_a_key_in_the_vault_and_a_key_of_the_device_exclude_each_other(bench):
    here = bench(ESP32C3)
    here.vault.make_flash_key(MAC, ESP32C3)
    with pytest.raises(UsageError, match="would shut it out"):
        here.plan(Profile.DEVELOPMENT, device_key=True)
