"""Revoking a boot key in use: what is written first, what is burned, what is refused before anything is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuse_bench import MAC, Bench, Killed, boot_key, burns_of, signed

from harness.chips import ESP32, ESP32C2, ESP32C3, Chip
from harness.errors import RefusedError, UsageError
from harness.formats.otadata import OtaData, OtaState
from harness.formats.partition_table import PartitionTable
from harness.provision import ChipState, FlashRegion, Lock, Plan, Profile, SecurityInfo, profile_of
from harness.provision.chip_state import Download
from harness.provision.consent import check_consent
from harness.provision.consumables import Resource, stocks_of
from harness.provision.plan import Plan as StoredPlan
from harness.provision.revocation import revocation_problems, revoked_by
from harness.provision.steps import BurnFuses, ConfirmFuses, ReadBack, WriteFlash, WriteRecord

KEYS = (boot_key(0), boot_key(1))
TABLE = PartitionTable.from_csv(
    "otadata,data,ota,0x1d000,0x2000\nota_0,app,ota_0,0x20000,0x20000\nota_1,app,ota_1,0x40000,0x20000\n",
    table_offset=0x10000,
)
SBV2 = (
    Profile.OPEN_SBV2,
    Profile.DEVELOPMENT_SBV2,
    Profile.CIPHERTEXT_ONLY_SBV2,
    Profile.RELEASE_SBV2,
)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def board(profile: Profile, chip: Chip = ESP32C3, lock: Lock = Lock.NONE) -> Bench:
        made = Bench(chip, tmp_path)
        made.boot_keys = KEYS if len(chip.secure_boot.revoke) > 1 else KEYS[:1]
        made.regions = tuple(
            dataclasses.replace(each, data=TABLE.to_binary()) if each.name == "partition-table" else each
            for each in made.regions
        )
        made.run(profile, lock)
        return made

    return board


def revoke(board: Bench, profile: Profile, *slots: int, **more: Any) -> Plan:
    return board.plan(profile, Lock.NONE, revoke=slots, **more)


def changed(board: Bench, name: str, change: Callable[[bytes], bytes]) -> tuple[FlashRegion, ...]:
    """The regions with other content in one of them, signed as before."""
    return tuple(
        dataclasses.replace(each, data=change(each.data)) if each.name == name else each
        for each in board.regions
    )


@pytest.mark.parametrize("profile", SBV2, ids=lambda each: each.value)
def test_what_starts_is_written_and_compared_before_the_one_burn_and_recorded_after_it(bench, profile):
    here = bench(profile)
    plan = revoke(here, profile, 0)
    assert burns_of(plan) == ["SECURE_BOOT_KEY_REVOKE0=1"]
    kinds = [type(step) for step in plan.steps]
    assert kinds[-8:] == [*[WriteFlash] * 4, ReadBack, BurnFuses, ConfirmFuses, WriteRecord]
    assert dict(next(step for step in plan.steps if isinstance(step, ConfirmFuses)).fuses)[
        "SECURE_BOOT_KEY_REVOKE0"
    ]
    assert "boot key boot key 0 in slot 0 is not accepted any more" in plan.text()
    assert "afterwards the board trusts boot key 1 in slot 1, and no other key" in plan.remarks
    assert StoredPlan.from_json(plan.to_json()) == plan
    here.carry_out(plan)
    after = here.look()
    assert profile_of(after).profile is profile
    assert here.records.read(MAC).digests == {"1": KEYS[1].digest.hex()}
    assert stocks_of(after).left(Resource.REVOCATIONS) == 0


def test_the_app_that_is_kept_is_named_and_one_that_is_written_or_erased_is_not(bench):
    here = bench(Profile.OPEN_SBV2)
    told = "ota_1 may hold an image signed only with the revoked key: it would not boot any more; update it first"
    assert told in revoke(here, Profile.OPEN_SBV2, 0).remarks
    here.regions += (FlashRegion("ota_1", 0x40000, b"\xff" * 0x20000),)
    assert told not in revoke(here, Profile.OPEN_SBV2, 0).remarks


def test_several_slots_are_revoked_in_one_burn(bench):
    here = bench(Profile.OPEN_SBV2)
    three = (*KEYS, boot_key(2))
    here.boot_keys = three
    state = dataclasses.replace(here.look(), fuses={**here.look().fuses, "SECURE_BOOT_KEY_REVOKE2": 0})
    blocks = [
        dataclasses.replace(
            each,
            purpose="SECURE_BOOT_DIGEST2",
            empty=False,
            writeable=False,
            purpose_writeable=False,
            digest=three[2].digest.hex(),
        )
        if each.name == "BLOCK_KEY4"
        else each
        for each in state.key_blocks
    ]
    here.look = lambda: dataclasses.replace(state, key_blocks=tuple(blocks))
    plan = revoke(here, Profile.OPEN_SBV2, 2, 0, 2)
    assert burns_of(plan) == ["SECURE_BOOT_KEY_REVOKE2=1 SECURE_BOOT_KEY_REVOKE0=1"]
    assert revoked_by(plan) == (0, 2)


@pytest.mark.parametrize("signer", [0, 1])
@pytest.mark.parametrize("name", ["bootloader", "app"])
def test_an_image_that_only_the_revoked_key_has_signed_is_refused(bench, monkeypatch, name, signer):
    here = bench(Profile.OPEN_SBV2)
    one = signed(here.regions, KEYS[signer])
    regions = tuple(new if new.name == name else old for old, new in zip(here.regions, one, strict=True))
    monkeypatch.setattr("fuse_bench.signed", lambda given, *keys: given)
    if signer == 1:
        assert burns_of(revoke(here, Profile.OPEN_SBV2, 0, regions=regions)) == ["SECURE_BOOT_KEY_REVOKE0=1"]
        return
    with pytest.raises(RefusedError, match=f"{name} at .* is signed with {KEYS[0].digest[:8].hex()}"):
        revoke(here, Profile.OPEN_SBV2, 0, regions=regions)


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ("bootloader", "the bootloader"),
        ("partition-table", "the partition table"),
        ("otadata", "otadata"),
        ("app", "the app in ota_0"),
    ],
)
def test_all_that_the_board_starts_by_itself_must_be_given(bench, left_out, said):
    here = bench(Profile.OPEN_SBV2)
    here.regions = tuple(each for each in here.regions if each.name != left_out)
    with pytest.raises(UsageError, match=f"not given: {said}"):
        revoke(here, Profile.OPEN_SBV2, 0)


def test_the_slot_that_the_given_otadata_selects_is_the_one_that_must_be_given(bench):
    here = bench(Profile.OPEN_SBV2)
    selects = OtaData.for_slot(1, 2, OtaState.VALID).to_bytes()
    here.regions = changed(here, "otadata", lambda _: selects)
    with pytest.raises(UsageError, match="not given: the app in ota_1"):
        revoke(here, Profile.OPEN_SBV2, 0)
    here.regions = changed(here, "app", lambda data: b"\xff" * len(data))
    here.regions += (FlashRegion("ota_1", 0x40000, here.regions[0].data),)
    assert burns_of(revoke(here, Profile.OPEN_SBV2, 0))


def test_an_app_slot_that_is_erased_is_no_app(bench):
    here = bench(Profile.OPEN_SBV2)
    here.regions = changed(here, "app", lambda data: b"\xff" * len(data))
    with pytest.raises(UsageError, match="not given: the app in ota_0"):
        revoke(here, Profile.OPEN_SBV2, 0)


def set_in(state: ChipState, **fuses: int) -> ChipState:
    return dataclasses.replace(state, fuses={**state.fuses, **fuses})


REFUSED = [
    ((1, 0), lambda state: state, "no trusted key is left: the board would start nothing, for good"),
    ((0,), lambda state: set_in(state, SECURE_BOOT_KEY_REVOKE1=1), "without slot 0 no trusted key is left"),
    ((2,), lambda state: state, "slot 2 is revoked already: SECURE_BOOT_KEY_REVOKE2 is burned"),
    ((2,), lambda state: set_in(state, SECURE_BOOT_KEY_REVOKE2=0), "slot 2 holds no digest"),
    ((3,), lambda state: state, "there is no slot 3: ESP32-C3 has 3, from 0"),
    (
        (0,),
        lambda state: dataclasses.replace(
            state, write_protected=state.write_protected | {"SECURE_BOOT_KEY_REVOKE0"}
        ),
        "SECURE_BOOT_KEY_REVOKE0 is write-protected (WR_DIS bit ",
    ),
    ((0,), lambda state: set_in(state, SECURE_BOOT_EN=0), "SECURE_BOOT_EN is not set: secure boot is not on"),
    (
        (0,),
        lambda state: dataclasses.replace(
            state,
            key_blocks=tuple(
                dataclasses.replace(each, coding_errors=-1) if each.purpose == "SECURE_BOOT_DIGEST1" else each
                for each in state.key_blocks
            ),
        ),
        "without slot 0 no trusted key is left",
    ),
]


@pytest.mark.parametrize(("slots", "change", "said"), REFUSED, ids=[said for _, _, said in REFUSED])
def test_what_cannot_be_revoked_or_must_not_be_is_refused_with_the_fuse(bench, slots, change, said):
    here = bench(Profile.OPEN_SBV2)
    assert revocation_problems(here.look(), (0,)) == ()
    found = change(here.look())
    assert any(said in problem for problem in revocation_problems(found, slots))
    here.look = lambda: found
    with pytest.raises(RefusedError, match="no boot key of"):
        revoke(here, Profile.OPEN_SBV2, *slots)


@pytest.mark.parametrize("chip", [ESP32, ESP32C2], ids=lambda chip: chip.name)
def test_a_chip_with_one_slot_has_nothing_to_revoke_with(bench, chip):
    here = bench(Profile.OPEN_SBV2, chip)
    with pytest.raises(RefusedError, match="has one slot for a boot key and no eFuse that revokes it"):
        revoke(here, Profile.OPEN_SBV2, 0)


def test_behind_secure_download_mode_only_the_firmware_could(bench):
    here = bench(Profile.RELEASE_SBV2, lock=Lock.SECURE_DOWNLOAD)
    assert here.look().download is Download.SECURE
    with pytest.raises(
        RefusedError, match=r"ENABLE_SECURITY_DOWNLOAD is burned: .* only the board's own firmware"
    ):
        here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, revoke=(0,))


@pytest.mark.parametrize(
    ("profile", "more", "error", "said"),
    [
        (Profile.RELEASE_SBV2, {}, RefusedError, "this one is open\\+sbv2"),
        (Profile.OPEN, {}, UsageError, "is revoked with secure boot, not with open"),
        (Profile.RELEASE_SBV2, {"by_firmware": True}, UsageError, "do not go together"),
    ],
)
def test_a_board_is_in_its_profile_before_a_key_is_revoked(bench, profile, more, error, said):
    with pytest.raises(error, match=said):
        revoke(bench(Profile.OPEN_SBV2), profile, 0, **more)


def test_it_needs_the_consent_of_any_burn(bench):
    plan = revoke(bench(Profile.DEVELOPMENT_SBV2), Profile.DEVELOPMENT_SBV2, 0)
    named: dict[str, Any] = {"board_name": "desk", "physical": True, "mac_declared": MAC, "mac_found": MAC}
    with pytest.raises(RefusedError, match="'--burn desk' on this run"):
        check_consent(**named, burn_up_to="development+sbv2", burn_names=(), plan=plan)
    with pytest.raises(RefusedError, match="'burn_up_to: development"):
        check_consent(**named, burn_up_to="development", burn_names=("desk",), plan=plan)
    check_consent(**named, burn_up_to="development+sbv2", burn_names=("desk",), plan=plan)


def test_killed_anywhere_the_next_run_finishes_it_with_or_without_the_option(bench, tmp_path_factory):
    profile = Profile.DEVELOPMENT_SBV2
    here = bench(profile)
    at, finished = 0, False
    while not finished:
        # Once the fuse is burned nobody needs to ask for it again; every other run does all the same.
        asked = at % 2 == 0 or not here.look().is_set("SECURE_BOOT_KEY_REVOKE0")
        plan = here.plan(profile, Lock.NONE, revoke=(0,) if asked else ())
        here.board.plug.reset(at)
        try:
            here.carry_out(plan)
            finished = True
        except Killed:
            at += 1
            here.board.plug.reset(None)
    here.board.plug.reset(None)
    assert at > 5
    assert here.vault.intent(MAC) is None
    assert here.look().is_set("SECURE_BOOT_KEY_REVOKE0")
    assert here.plan(profile, Lock.NONE).empty


def test_afterwards_the_entry_may_still_name_the_key_on_the_way_to_release(bench):
    here = bench(Profile.DEVELOPMENT_SBV2)
    here.carry_out(revoke(here, Profile.DEVELOPMENT_SBV2, 0))
    plan = here.plan(Profile.DEVELOPMENT_SBV2, Lock.NONE)
    assert plan.empty
    assert "boot key boot key 0 is not one that the board trusts" in plan.remarks
    here.run(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD)
    assert here.records.read(MAC).digests == {"1": KEYS[1].digest.hex()}
    info = here.look().security_info
    assert isinstance(info, SecurityInfo)
    here.run(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, reflash=True)
    assert here.records.read(MAC).digests == {"1": KEYS[1].digest.hex()}


def test_behind_the_lock_an_image_of_the_revoked_key_alone_is_still_refused(bench, monkeypatch):
    here = bench(Profile.DEVELOPMENT_SBV2)
    here.carry_out(revoke(here, Profile.DEVELOPMENT_SBV2, 0))
    here.run(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD)
    here.run(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, reflash=True)
    here.regions = signed(here.regions, KEYS[0])
    monkeypatch.setattr("fuse_bench.signed", lambda given, *keys: given)
    with pytest.raises(RefusedError, match="would never boot"):
        here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, reflash=True)
