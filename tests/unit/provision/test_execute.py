"""Carrying a plan out: what is promised before the first burn, during, and after."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, Killed, VirtualSession

from harness.chips import ESP32, ESP32C3
from harness.errors import BoardError, RefusedError, UsageError
from harness.formats.flash_encryption import decrypt, pad_to_block
from harness.provision import FlashRegion, Lock, Profile, StepEvent, carry_out
from harness.provision.steps import BurnFuses, DecipherCheck
from harness.vault import back_up
from harness.vault import place as place_module

BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


def in_flash(here: Bench, region: FlashRegion) -> bytes:
    """What the chip reads at a region's place."""
    size = len(pad_to_block(region.data))
    raw = bytes(here.board.flash[region.offset : region.offset + size])
    return decrypt(here.chip.cipher, here.vault.flash_key(MAC), region.offset, raw)


@BOTH
@pytest.mark.parametrize("profile", [Profile.DEVELOPMENT, Profile.RELEASE])
def test_a_provisioned_board_reads_its_firmware_through_the_vaults_key(bench, chip, profile):
    here = bench(chip)
    outcome = here.run(profile)
    assert here.board.key(chip.fuses.key_storage_block) == here.vault.flash_key(MAC)
    for region in here.regions:
        assert in_flash(here, region) == pad_to_block(region.data)
    record = here.records.read(MAC)
    assert outcome.record == record
    assert record.profile is profile
    assert record.key_id == here.vault.key(MAC).key_id
    assert record.key_state == "test-only"
    assert not record.shippable
    assert record.flashed == {region.name: region.sha256 for region in here.regions}
    assert record.fuses[chip.fuses.counter] == (
        chip.fuses.counter_release if profile is Profile.RELEASE else 1
    )
    assert here.vault.intent(MAC) is None


@BOTH
def test_an_open_board_gets_its_firmware_as_it_is_and_no_key(bench, chip):
    here = bench(chip)
    here.run(Profile.OPEN)
    for region in here.regions:
        assert here.board.flash[region.offset : region.offset + len(region.data)] == region.data
    assert here.vault.key(MAC) is None
    assert here.board.programs == []
    assert here.records.read(MAC).key_id is None


@BOTH
def test_key_and_intent_are_on_disk_before_the_first_burn(bench, chip):
    here = bench(chip)
    here.board.plug.reset(None)
    seen = {}

    def look(event: StepEvent) -> None:
        if event.step.irreversible and not event.done and not seen:
            seen.update(key=here.vault.flash_key(MAC), burned=len(here.board.programs))

    plan = here.plan(Profile.RELEASE, Lock.NONE)
    carry_out(
        plan,
        here.board.session,
        here.vault,
        records=here.records,
        regions=here.regions,
        physical=False,
        on_step=look,
    )
    assert seen["key"] == here.vault.flash_key(MAC)
    assert seen["burned"] == 0
    dying = Bench(chip, here.vault.path.parent / "second")
    plan = dying.plan(Profile.RELEASE, Lock.NONE)
    dying.board.plug.reset(dying_at(dying, "before a burn"))
    with pytest.raises(Killed):
        dying.carry_out(plan)
    assert dying.board.programs == []
    intent = dying.vault.intent(MAC)
    assert intent is not None
    assert intent.block == chip.fuses.key_storage_block
    assert intent.key_id == dying.vault.key(MAC).key_id
    assert intent.plan_id == plan.id
    assert intent.fuses == plan.state.fuses


def dying_at(here: Bench, event: str) -> int:
    """The number of the first event of that name in a clean run on a board of its own."""
    other = Bench(here.chip, here.vault.path.parent / "rehearsal")
    other.run(Profile.RELEASE, Lock.NONE)
    return other.board.plug.events.index(event)


def test_an_empty_plan_does_not_even_connect(bench):
    here = bench(ESP32C3)
    here.run(Profile.DEVELOPMENT)
    plan = here.plan(Profile.DEVELOPMENT)
    resets = here.board.resets
    outcome = here.carry_out(plan)
    assert (here.board.resets, outcome.sessions) == (resets, 0)


@BOTH
def test_a_canary_that_does_not_match_stops_before_the_counter_and_names_the_board(bench, chip):
    here = bench(chip)
    here.vault.make_flash_key(MAC, chip)
    with here.board.quietly():
        # Another key than the vault's, protected: nobody can tell by looking.
        here.board.burner().burn_key(chip.fuses.key_block, chip.fuses.key_purpose, bytes(range(32)))
    programs = len(here.board.programs)
    with pytest.raises(BoardError, match="its key is not the vault's") as error:
        here.run(Profile.RELEASE)
    assert MAC in str(error.value)
    assert here.board.fuse(chip.fuses.counter) == 0
    burned_since = len(here.board.programs) - programs
    assert burned_since == (1 if chip is ESP32 else 0)  # FLASH_CRYPT_CONFIG at most


def test_a_wrong_configuration_shows_in_the_canary(bench):
    here = bench(ESP32)
    plan = here.plan(Profile.RELEASE)
    without = tuple(
        step
        for step in plan.steps
        if not (isinstance(step, BurnFuses) and step.fuses[0][0] == "FLASH_CRYPT_CONFIG")
    )
    with pytest.raises(BoardError, match="canary"):
        here.carry_out(dataclasses.replace(plan, steps=without))
    assert here.board.fuse("FLASH_CRYPT_CNT") == 0


def test_a_board_enciphered_with_another_key_is_not_reflashed(bench, tmp_path):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    here.board.flash[:32] = bytes(range(32))
    before = bytes(here.board.flash)
    with pytest.raises(BoardError, match="does not decipher with the vault's key"):
        here.carry_out(here.plan(Profile.RELEASE, Lock.NONE, reflash=True))
    assert bytes(here.board.flash) == before


def test_flash_that_is_known_to_be_spoiled_proves_nothing_and_the_record_vouches_for_the_key(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    good = bytes(here.board.flash)
    here.board.flash[:0x1000] = b"\xff" * 0x1000
    record = here.records.read(MAC)
    other = dataclasses.replace(record, key_id="0" * 16)
    for doubtful in (None, other):
        plan = here.plan(Profile.RELEASE, Lock.NONE, reflash=True, spoiled=True, record=doubtful)
        assert any(isinstance(step, DecipherCheck) for step in plan.steps)
    here.carry_out(here.plan(Profile.RELEASE, Lock.NONE, reflash=True, spoiled=True))
    assert bytes(here.board.flash) == good


@BOTH
def test_reflashing_writes_only_what_differs(bench, chip):
    here = bench(chip)
    here.run(Profile.RELEASE, Lock.NONE)
    here.board.plug.reset(None)
    changed = (*here.regions[:3], dataclasses.replace(here.regions[3], data=b"\xe9" + b"second application"))
    plan = here.plan(Profile.RELEASE, Lock.NONE, regions=changed, reflash=True)
    here.carry_out(plan, regions=changed)
    assert here.board.plug.events.count("before a flash write") == 1
    assert in_flash(here, changed[3])[: len(changed[3].data)] == changed[3].data


def test_flash_that_does_not_hold_what_was_written_is_an_error(bench, monkeypatch):
    monkeypatch.setattr(VirtualSession, "flash_md5", lambda *_: "0" * 32)
    with pytest.raises(BoardError, match="flash does not hold what was written: bootloader at 0x0"):
        bench(ESP32C3).run(Profile.DEVELOPMENT)


def test_a_burn_that_did_not_take_is_found_before_the_lock(bench, monkeypatch):
    real = VirtualSession.burn_fuses

    def forgetful(self, fuses):
        real(self, {name: value for name, value in fuses.items() if name != "DIS_PAD_JTAG"})

    monkeypatch.setattr(VirtualSession, "burn_fuses", forgetful)
    here = bench(ESP32C3)
    with pytest.raises(BoardError, match="DIS_PAD_JTAG is 0, not 1"):
        here.run(Profile.RELEASE)
    assert here.board.raw("ENABLE_SECURITY_DOWNLOAD") == 0
    assert here.vault.intent(MAC) is not None


def test_a_lock_that_did_not_take_is_an_error(bench, monkeypatch):
    monkeypatch.setattr(VirtualSession, "burn_lock", lambda *_: None)
    here = bench(ESP32C3)
    with pytest.raises(BoardError, match="ENABLE_SECURITY_DOWNLOAD did not take"):
        here.run(Profile.RELEASE)


def test_a_final_lock_that_did_not_take_is_an_error(bench, monkeypatch):
    monkeypatch.setattr(VirtualSession, "burn_lock", lambda *_: None)
    with pytest.raises(BoardError, match="UART_DOWNLOAD_DIS did not take"):
        bench(ESP32).run(Profile.RELEASE, Lock.DOWNLOAD_OFF)


def test_other_contents_than_planned_are_refused_before_connecting(bench):
    here = bench(ESP32C3)
    plan = here.plan(Profile.RELEASE)
    resets = here.board.resets
    for regions, said in (
        (here.regions[:3], "app is not given"),
        ((*here.regions[:3], FlashRegion("app", 0x20000, b"other")), "app is not the one"),
    ):
        with pytest.raises(UsageError, match=said):
            here.carry_out(plan, regions=regions)
    assert here.board.resets == resets
    assert here.vault.key(MAC) is None


def test_a_plan_for_another_key_is_refused(bench):
    here = bench(ESP32C3)
    here.vault.make_flash_key(MAC, ESP32C3)
    plan = here.plan(Profile.RELEASE)
    (here.vault.path / "keys" / f"{MAC.replace(':', '-')}.json").unlink()
    here.vault.make_flash_key(MAC, ESP32C3)
    with pytest.raises(RefusedError, match="the plan was made for key"):
        here.carry_out(plan)
    assert here.board.programs == []


# Physical boards: the vault's place


def test_no_physical_board_is_burned_from_a_vault_without_second_copy(bench):
    here = bench(ESP32C3)
    with pytest.raises(RefusedError, match="no second copy"):
        here.carry_out(here.plan(Profile.DEVELOPMENT), physical=True)
    assert here.board.programs == []
    assert here.vault.intent(MAC) is None


def test_the_new_key_is_in_the_second_copy_before_the_first_burn(bench, tmp_path, monkeypatch):
    here = bench(ESP32C3)
    monkeypatch.setattr(place_module, "lies_elsewhere", lambda *_: True)
    monkeypatch.setattr(place_module, "_MOUNTS", tmp_path / "none")
    back_up(here.vault, tmp_path / "copy")
    record = tmp_path / "copy" / "keys" / f"{MAC.replace(':', '-')}.json"
    assert not record.exists()
    plan = here.plan(Profile.DEVELOPMENT)
    here.board.plug.reset(dying_at(here, "before a burn"))
    with pytest.raises(Killed):
        here.carry_out(plan, physical=True)
    assert record.exists()
    here.board.plug.reset(None)
    outcome = here.carry_out(here.plan(Profile.DEVELOPMENT), physical=True)
    assert any("copied to" in remark for remark in outcome.remarks)
    assert any("not checked" in remark for remark in outcome.remarks)


def test_progress_and_steps_are_told(bench):
    here = bench(ESP32C3)
    progress: list[tuple[int, int]] = []
    here.carry_out(
        here.plan(Profile.DEVELOPMENT), on_progress=lambda done, total: progress.append((done, total))
    )
    assert (12288, 12288) not in progress
    assert any(done == total > 8000 for done, total in progress)
