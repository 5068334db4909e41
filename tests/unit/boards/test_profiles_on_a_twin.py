"""Profiles from the plan to the running firmware, which then reads of its eFuses what was promised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.board import Board, Running
from harness.errors import BoardError, NotApplicableError, UsageError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.main_job import run_main_job
from harness.preparation import Consent, Demand, Prepared, make_plan, prepare, require_promised
from harness.provision.chip_state import Download
from harness.provision.profile import Lock, Profile
from harness.provision.steps import FirmwareCommand
from harness.report.board_facts import facts_of
from harness.report.verdict import Standing
from harness.say import Say

QUIET = Say(quiet=True)


@pytest.fixture
def lab(tmp_path: Path, home: Home) -> Iterator[Lab]:
    with Lab(home, Inventory(None, {}), tmp_path, secret_from(None)) as lab:
        yield lab


def prepared(lab: Lab, board: Board, demand: Demand) -> Prepared:
    return prepare(board, demand, Consent(TwinEntry(chip=board.chip.name)), lab.home, say=QUIET)


@pytest.mark.parametrize(
    ("chip", "lock"),
    [("esp32c3", Lock.SECURE_DOWNLOAD), ("esp32", Lock.DOWNLOAD_OFF)],
    ids=lambda each: str(each),
)
def test_development_goes_to_release_by_the_firmwares_own_function(lab: Lab, chip: str, lock: Lock) -> None:
    board = lab.throwaway(chip)
    assert prepared(lab, board, Demand(Profile.DEVELOPMENT)).running.encryption == "development"
    done = prepared(lab, board, Demand(Profile.RELEASE, lock, by_firmware=True))
    assert any(isinstance(step, FirmwareCommand) for step in done.plan.steps)
    assert (done.running.encryption, done.running.release_ok) == ("release", True)
    record = board.records.read(board.mac)
    assert (record.profile, record.lock) == (Profile.RELEASE, lock)
    state = make_plan(board, Demand(Profile.RELEASE, lock), lab.home, say=QUIET).state
    assert state.download is (Download.SECURE if lock is Lock.SECURE_DOWNLOAD else Download.OFF)
    board.restart()
    before = board.status()
    assert board.update(board.release("2.0.0")).ok
    assert board.reboot().slot == before.next_slot


def test_a_board_in_secure_download_mode_is_locked_for_good_by_its_firmware(lab: Lab) -> None:
    board = lab.throwaway("esp32c3")
    prepared(lab, board, Demand(Profile.RELEASE))
    done = prepared(lab, board, Demand(Profile.RELEASE, Lock.DOWNLOAD_OFF, by_firmware=True))
    assert [step.do for step in done.plan.steps][-2:] == ["firmware-command", "write-record"]
    assert board.records.read(board.mac).lock is Lock.DOWNLOAD_OFF


@pytest.mark.parametrize(
    ("profile", "block"),
    [
        (Profile.DEVELOPMENT, "BLOCK_KEY0"),
        pytest.param(Profile.DEVELOPMENT_SBV2, "BLOCK_KEY1", marks=pytest.mark.full),
    ],
    ids=lambda each: getattr(each, "value", each),
)
def test_a_device_with_a_key_of_its_own_runs_and_raw_updates_do_not_apply(
    lab: Lab, profile: Profile, block: str, tmp_path: Path
) -> None:
    board = lab.throwaway("esp32c3")
    done = prepared(lab, board, Demand(profile, device_key=True))
    assert done.running.encryption == "development"
    record = board.records.read(board.mac)
    assert (record.profile, record.key_state, record.key_block) == (profile, "device-made", block)
    assert facts_of(board, tmp_path).flash_key == "made by the device itself"
    with pytest.raises(NotApplicableError, match="not applicable: no key"):
        board.package(board.release("2.0.0"))
    again = make_plan(board, Demand(profile), lab.home, say=QUIET)
    assert again.plan.empty
    assert ("RD_DIS" in again.state.write_protected) is profile.secure_boot
    verdict = run_main_job(board, Demand(profile), Consent(TwinEntry(chip="esp32c3")), lab.home, say=QUIET)
    assert Standing.NOT_APPLICABLE in {claim.standing for claim in verdict.claims}
    assert verdict.standing is Standing.PROVEN


def test_a_build_that_makes_no_key_is_no_way_to_a_key_of_the_device(lab: Lab) -> None:
    board = lab.throwaway("esp32c3")
    prepared(lab, board, Demand(Profile.DEVELOPMENT))
    with pytest.raises(UsageError, match="would shut it out"):
        make_plan(board, Demand(Profile.DEVELOPMENT, device_key=True), lab.home, say=QUIET)


def test_a_device_makes_its_key_and_releases_itself_in_two_runs(lab: Lab) -> None:
    both = Demand(Profile.RELEASE, device_key=True, by_firmware=True)
    with pytest.raises(UsageError, match="at a first boot") as refused:
        make_plan(lab.throwaway("esp32c3"), both, lab.home, say=QUIET)
    assert "first --device-key --profile development" in str(refused.value)


def test_the_way_from_development_to_release_stays_open_with_secure_boot(lab: Lab) -> None:
    """ESP32-C5, where an app that was built otherwise freezes a fuse of release at its first start."""
    board = lab.throwaway("esp32c5")
    done = prepared(lab, board, Demand(Profile.DEVELOPMENT_SBV2))
    assert done.running.encryption == "development"
    state = make_plan(board, Demand(Profile.DEVELOPMENT_SBV2), lab.home, say=QUIET).state
    assert "XTS_DPA_PSEUDO_LEVEL" not in state.write_protected
    done = prepared(lab, board, Demand(Profile.RELEASE_SBV2, Lock.NONE))
    assert (done.running.encryption, done.running.release_ok) == ("release", True)
    assert {"SECURE_BOOT_SHA384_EN", "XTS_DPA_PSEUDO_LEVEL"} <= make_plan(
        board, Demand(Profile.RELEASE_SBV2, Lock.NONE), lab.home, say=QUIET
    ).state.write_protected


@pytest.mark.parametrize("chip", ["esp32c3", "esp32"])
@pytest.mark.parametrize(
    "profile", [Profile.RELEASE_SBV2, Profile.CIPHERTEXT_ONLY], ids=lambda each: each.value
)
def test_what_was_promised_is_what_the_firmware_reads(lab: Lab, chip: str, profile: Profile) -> None:
    board = lab.throwaway(chip)
    done = prepared(lab, board, Demand(profile))
    told = board.told_state()
    assert told is not None
    assert bool(told.fuses[board.chip.secure_boot.enable]) is profile.secure_boot
    blank = "00" * (len(str(done.running.fields["fuses"])) // 2)
    lying = Running.from_fields({**done.running.fields, "fuses": blank})
    with pytest.raises(BoardError, match="its firmware reads other eFuses than plan"):
        require_promised(board, done.plan, lying)
    again = make_plan(board, Demand(profile), lab.home, say=QUIET).plan
    assert "its firmware read other eFuses than were promised" in again.text()


def test_a_verdict_says_which_key_the_board_trusts_besides_those_of_its_entry(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = lab.throwaway("esp32c3")
    demand = Demand(Profile.OPEN_SBV2)
    prepared(lab, board, demand)
    consent = Consent(TwinEntry(chip="esp32c3"))
    verdict = run_main_job(board, demand, consent, lab.home, say=QUIET)
    assert not any("also trusts" in mark for mark in verdict.marks)
    planned = make_plan(board, demand, lab.home, say=QUIET)
    unnamed = replace(planned, plan=replace(planned.plan, digests=(), steps=()))
    monkeypatch.setattr("harness.main_job.make_plan", lambda *_, **__: unnamed)
    verdict = run_main_job(board, demand, consent, lab.home, say=QUIET)
    assert any("slot 0 also trusts" in line for line in verdict.lines())
