"""Secure boot v2 by plan: which burns, in which order, from which states, and what is refused before the first."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from fuse_bench import MAC, Bench, Killed, boot_key, burns_of, firmware, signed

from harness.chips import CHIPS, ESP32, ESP32C3, ESP32C5, ESP32H2, ESP32P4, SigningScheme
from harness.errors import RefusedError, UsageError
from harness.firmware import burned_by_itself
from harness.provision import Lock, Profile, profile_of
from harness.provision.boot_keys import BootDigest
from harness.provision.firmware_steps import lock_of_release
from harness.provision.planner import FlashedFirmware
from harness.provision.secure_boot_steps import also_trusted
from harness.provision.steps import BurnDigest, BurnFuses, ConfirmFuses, FirmwareBurns, ReadBack, WriteFlash

BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


C3_BOOT = [
    "digest BLOCK_KEY1 SECURE_BOOT_DIGEST0",
    "SECURE_BOOT_EN=1",
    "SOFT_DIS_JTAG=7",
    "write-protect RD_DIS",
    "SECURE_BOOT_KEY_REVOKE1=1 SECURE_BOOT_KEY_REVOKE2=1",
]
C3_BOOT_ALONE = [
    "digest BLOCK_KEY0 SECURE_BOOT_DIGEST0",
    "SECURE_BOOT_EN=1",
    "SOFT_DIS_JTAG=7 DIS_DIRECT_BOOT=1 DIS_USB_JTAG=1 DIS_PAD_JTAG=1",
    *C3_BOOT[3:],
]
C3_RELEASE = [
    "key BLOCK_KEY0 XTS_AES_128_KEY",
    "SPI_BOOT_CRYPT_CNT=7",
    "DIS_DOWNLOAD_ICACHE=1 DIS_DIRECT_BOOT=1 DIS_USB_JTAG=1 DIS_PAD_JTAG=1 DIS_DOWNLOAD_MANUAL_ENCRYPT=1",
    "write-protect DIS_ICACHE",
]
ESP32_RELEASE = [
    "key flash_encryption",
    "FLASH_CRYPT_CONFIG=15",
    "FLASH_CRYPT_CNT=127",
    "DISABLE_DL_ENCRYPT=1 DISABLE_DL_DECRYPT=1 DISABLE_DL_CACHE=1 JTAG_DISABLE=1 CONSOLE_DEBUG_DISABLE=1",
    "write-protect DIS_CACHE",
]
ESP32_BOOT = ["digest secure_boot_v2", "ABS_DONE_1=1", "write-protect RD_DIS"]
ESP32_BOOT_ALONE = [*ESP32_BOOT[:2], "JTAG_DISABLE=1 CONSOLE_DEBUG_DISABLE=1", ESP32_BOOT[2]]
C3_CIPHERTEXT = [*C3_RELEASE[:2], "DIS_DOWNLOAD_MANUAL_ENCRYPT=1"]
ESP32_CIPHERTEXT = [*ESP32_RELEASE[:3], "DISABLE_DL_ENCRYPT=1"]


@pytest.mark.parametrize(
    ("chip", "profile", "burns"),
    [
        (ESP32C3, Profile.OPEN_SBV2, C3_BOOT_ALONE),
        (
            ESP32C3,
            Profile.DEVELOPMENT_SBV2,
            [C3_RELEASE[0], "SPI_BOOT_CRYPT_CNT=1", C3_BOOT[0], *C3_BOOT_ALONE[1:]],
        ),
        (ESP32C3, Profile.CIPHERTEXT_ONLY, C3_CIPHERTEXT),
        (ESP32C3, Profile.CIPHERTEXT_ONLY_SBV2, [*C3_CIPHERTEXT, C3_BOOT[0], *C3_BOOT_ALONE[1:]]),
        (ESP32C3, Profile.RELEASE_SBV2, [*C3_RELEASE, *C3_BOOT, "lock ENABLE_SECURITY_DOWNLOAD"]),
        (ESP32, Profile.OPEN_SBV2, ESP32_BOOT_ALONE),
        (
            ESP32,
            Profile.DEVELOPMENT_SBV2,
            [*ESP32_RELEASE[:2], "FLASH_CRYPT_CNT=1", *ESP32_BOOT_ALONE],
        ),
        (ESP32, Profile.CIPHERTEXT_ONLY, ESP32_CIPHERTEXT),
        (ESP32, Profile.CIPHERTEXT_ONLY_SBV2, [*ESP32_CIPHERTEXT, *ESP32_BOOT_ALONE]),
        (ESP32, Profile.RELEASE_SBV2, [*ESP32_RELEASE, *ESP32_BOOT]),
    ],
)
def test_a_new_board_is_burned_fuse_by_fuse_encryption_first_and_the_lock_last(bench, chip, profile, burns):
    assert burns_of(bench(chip).plan(profile)) == burns


@BOTH
def test_flash_is_written_after_secure_boot_is_on_and_compared_before_the_fuses_are(bench, chip):
    kinds = [type(step) for step in bench(chip).plan(Profile.RELEASE_SBV2, Lock.NONE).steps]
    assert kinds[-7:-1] == [*[WriteFlash] * 4, ReadBack, ConfirmFuses]
    assert BurnDigest in kinds[:-7]


STEPS_UP = [
    (Profile.OPEN, Profile.OPEN_SBV2),
    (Profile.OPEN, Profile.CIPHERTEXT_ONLY),
    (Profile.DEVELOPMENT, Profile.CIPHERTEXT_ONLY),
    (Profile.DEVELOPMENT, Profile.DEVELOPMENT_SBV2),
    (Profile.DEVELOPMENT, Profile.RELEASE_SBV2),
    (Profile.CIPHERTEXT_ONLY, Profile.CIPHERTEXT_ONLY_SBV2),
    (Profile.CIPHERTEXT_ONLY, Profile.RELEASE),
    (Profile.CIPHERTEXT_ONLY, Profile.RELEASE_SBV2),
    (Profile.RELEASE, Profile.RELEASE_SBV2),
    (Profile.DEVELOPMENT_SBV2, Profile.CIPHERTEXT_ONLY_SBV2),
    (Profile.DEVELOPMENT_SBV2, Profile.RELEASE_SBV2),
    (Profile.CIPHERTEXT_ONLY_SBV2, Profile.RELEASE_SBV2),
]


@BOTH
@pytest.mark.parametrize(("first", "then"), STEPS_UP, ids=lambda each: each.value)
def test_a_board_takes_one_profile_after_the_other(bench, chip, first, then):
    here = bench(chip)
    here.run(first, Lock.NONE)
    programs = len(here.board.programs)
    here.run(then, Lock.NONE)
    assert profile_of(here.look()).profile is then
    assert profile_of(here.look()).missing_boot == ()
    assert len(here.board.programs) > programs
    assert here.records.read(MAC).profile is then
    assert (
        (here.board.key(chip.fuses.key_storage_block) == here.vault.flash_key(MAC)) if then.encrypts else True
    )
    assert then.encryption is Profile.OPEN or here.plan(then, Lock.NONE).empty


STEPS_BACK = [
    (Profile.OPEN_SBV2, Profile.OPEN, {ESP32: "ABS_DONE_1 is set", ESP32C3: "SECURE_BOOT_EN is set"}),
    (Profile.OPEN_SBV2, Profile.DEVELOPMENT_SBV2, "RD_DIS is write-protected"),
    (Profile.OPEN_SBV2, Profile.RELEASE_SBV2, "RD_DIS is write-protected"),
    (Profile.OPEN_SBV2, Profile.CIPHERTEXT_ONLY_SBV2, "RD_DIS is write-protected"),
    (Profile.DEVELOPMENT_SBV2, Profile.RELEASE, "secure boot is on, and stays on"),
    (Profile.CIPHERTEXT_ONLY, Profile.DEVELOPMENT, "encryption is permanent"),
    (Profile.CIPHERTEXT_ONLY, Profile.OPEN, "has been encrypted"),
    (Profile.RELEASE, Profile.CIPHERTEXT_ONLY, "this is release, and goes further"),
    (Profile.RELEASE, Profile.DEVELOPMENT, "the ROM no longer enciphers"),
    (Profile.RELEASE_SBV2, Profile.CIPHERTEXT_ONLY_SBV2, "this is release, and goes further"),
    (Profile.DEVELOPMENT, Profile.OPEN_SBV2, "has been encrypted"),
]


@BOTH
@pytest.mark.parametrize(("first", "then", "said"), STEPS_BACK)
def test_no_way_leads_back_and_the_refusal_names_the_fuse(bench, chip, first, then, said):
    here = bench(chip)
    here.run(first, Lock.NONE)
    with pytest.raises(RefusedError) as refusal:
        here.plan(then, Lock.NONE)
    assert (said if isinstance(said, str) else said[chip]) in str(refusal.value)


@BOTH
def test_what_the_plan_promised_is_what_espefuse_reads(bench, chip):
    here = bench(chip)
    plan = here.plan(Profile.RELEASE_SBV2, Lock.NONE)
    here.carry_out(plan)
    promise = next(step for step in plan.steps if isinstance(step, ConfirmFuses))
    found = here.look()
    assert {name: found.fuses[name] for name, _ in promise.fuses} == dict(promise.fuses)
    boot = chip.secure_boot
    assert found.fuses[boot.enable] == 1
    assert "RD_DIS" in found.write_protected
    assert len(promise.fuses) > 20


@BOTH
def test_the_record_knows_the_boot_keys(bench, chip):
    here = bench(chip)
    here.run(Profile.RELEASE_SBV2, Lock.NONE)
    assert here.records.read(MAC).digests == {"0": here.boot_keys[0].digest.hex()}


def test_three_boot_keys_take_three_blocks_and_nothing_is_revoked(bench):
    here = bench(ESP32C3)
    here.boot_keys = (boot_key(0), boot_key(1), boot_key(2))
    burns = burns_of(here.plan(Profile.RELEASE_SBV2))
    assert [each for each in burns if each.startswith("digest")] == [
        f"digest BLOCK_KEY{slot + 1} SECURE_BOOT_DIGEST{slot}" for slot in range(3)
    ]
    assert not any("REVOKE" in each for each in burns)
    here.run(Profile.RELEASE_SBV2, Lock.NONE)
    assert here.plan(Profile.RELEASE_SBV2, Lock.NONE).empty


def test_aggressive_revocation_is_left_out_named_and_burned_when_asked_for(bench):
    here = bench(ESP32C3)
    plan = here.plan(Profile.RELEASE_SBV2)
    assert "SECURE_BOOT_AGGRESSIVE_REVOKE is not burned" in plan.text()
    asked = here.plan(Profile.RELEASE_SBV2, aggressive_revoke=True)
    assert "SECURE_BOOT_AGGRESSIVE_REVOKE=1" in " ".join(burns_of(asked))
    assert "SECURE_BOOT_AGGRESSIVE_REVOKE is not burned" not in asked.text()
    with pytest.raises(UsageError, match="aggressive revocation goes with secure boot"):
        here.plan(Profile.RELEASE, aggressive_revoke=True)


def test_esp32_has_no_aggressive_revocation(bench):
    with pytest.raises(RefusedError, match="has no aggressive revocation"):
        bench(ESP32).plan(Profile.OPEN_SBV2, aggressive_revoke=True)


@BOTH
@pytest.mark.parametrize("profile", [Profile.OPEN_SBV2, Profile.RELEASE_SBV2])
def test_an_image_that_the_rom_would_refuse_is_refused_before_the_first_burn(bench, chip, profile):
    here = bench(chip)
    unsigned, foreign = firmware(chip), signed(firmware(chip), boot_key(0, "somebody else's key"))
    right = signed(firmware(chip), boot_key(0))
    for regions, said in (
        (unsigned, "bootloader at .* has no signature that verifies"),
        (foreign, "bootloader at .* is signed with"),
        ((right[0], *unsigned[1:]), "app at 0x20000 has no signature that verifies"),
        ((right[0], *foreign[1:]), "app at 0x20000 is signed with"),
    ):
        with pytest.raises(RefusedError, match=said):
            here.plan(profile, regions=regions)
    assert here.board.programs == []


@BOTH
def test_a_board_with_secure_boot_is_not_reflashed_with_what_it_would_not_boot(bench, chip):
    here = bench(chip)
    here.run(Profile.RELEASE_SBV2, Lock.NONE)
    with pytest.raises(RefusedError, match="has no signature that verifies"):
        here.plan(Profile.RELEASE_SBV2, Lock.NONE, reflash=True, regions=firmware(chip))


def test_a_real_image_is_read_as_the_rom_would(bench):
    """Garbage behind a good header is no image at all."""
    with pytest.raises(RefusedError, match="cannot be verified"):
        bench(ESP32C3).plan(Profile.OPEN_SBV2, signers=None)


@BOTH
def test_secure_boot_without_a_key_or_without_a_bootloader_is_wrong_usage(bench, chip):
    here = bench(chip)
    with pytest.raises(UsageError, match="without a boot key"):
        here.plan(Profile.OPEN_SBV2, digests=())
    with pytest.raises(UsageError, match="without a signed bootloader"):
        here.plan(Profile.OPEN_SBV2, regions=())


@pytest.mark.parametrize(
    ("digests", "said"),
    [
        ((BootDigest(0, b"short", "a"),), "has 5 bytes, not 32"),
        ((BootDigest(3, bytes(32), "a"),), "has 3, from 0"),
        ((boot_key(0), boot_key(0, "b")), "share slot 0"),
        ((boot_key(0), dataclasses.replace(boot_key(0), slot=1)), "given for two slots"),
    ],
)
def test_digests_that_cannot_be_burned_are_wrong_usage(bench, digests, said):
    with pytest.raises(UsageError, match=said):
        bench(ESP32C3).plan(Profile.OPEN_SBV2, digests=digests)


def test_a_digest_that_is_there_already_is_used_wherever_it_is(bench):
    here = bench(ESP32C3)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY3", "SECURE_BOOT_DIGEST1", boot_key(0).digest)
    plan = here.plan(Profile.OPEN_SBV2)
    assert not any(isinstance(step, BurnDigest) for step in plan.steps)
    assert "boot key 0 is in slot 1 already" in plan.text()
    assert "SECURE_BOOT_KEY_REVOKE0=1 SECURE_BOOT_KEY_REVOKE2=1" in burns_of(plan)
    here.carry_out(plan)
    assert profile_of(here.look()).profile is Profile.OPEN_SBV2
    assert here.records.read(MAC).digests == {"1": boot_key(0).digest.hex()}


@pytest.mark.parametrize("slot", [0, 2])
def test_a_foreign_digest_that_would_be_trusted_is_refused(bench, slot):
    here = bench(ESP32C3)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY3", f"SECURE_BOOT_DIGEST{slot}", boot_key(0, "other").digest)
    with pytest.raises(RefusedError, match=f"BLOCK_KEY3 holds another boot key's digest .* in slot {slot}"):
        here.plan(Profile.OPEN_SBV2)


def test_a_revoked_foreign_digest_is_in_nobodys_way(bench):
    here = bench(ESP32C3)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY3", "SECURE_BOOT_DIGEST2", boot_key(0, "other").digest)
    here.board.set_fuses(SECURE_BOOT_KEY_REVOKE2=1)
    here.run(Profile.OPEN_SBV2)
    assert profile_of(here.look()).profile is Profile.OPEN_SBV2


@pytest.mark.parametrize(
    ("chip", "setup", "said"),
    [
        (ESP32C3, lambda b: b.set_fuses(SECURE_BOOT_KEY_REVOKE0=1), "SECURE_BOOT_KEY_REVOKE0 is burned"),
        (ESP32C3, lambda b: b.protect("SECURE_BOOT_EN"), "SECURE_BOOT_EN is write-protected (WR_DIS bit 15)"),
        (
            ESP32C3,
            lambda b: b.protect("SECURE_BOOT_KEY_REVOKE2"),
            "SECURE_BOOT_KEY_REVOKE2 is write-protected (WR_DIS bit 7)",
        ),
        (
            ESP32C3,
            lambda b: b.protect("DIS_DIRECT_BOOT"),
            "DIS_DIRECT_BOOT is write-protected (WR_DIS bit 18)",
        ),
        (ESP32, lambda b: b.protect("ABS_DONE_1"), "ABS_DONE_1 is write-protected (WR_DIS bit 13)"),
        (ESP32, lambda b: b.set_fuses(ABS_DONE_0=1), "secure boot v1 is on"),
        (ESP32, lambda b: b.protect("BLOCK2"), "no key block is free for the digest of boot key"),
        (ESP32, lambda b: b.set_cells(0, 1, block=2), "BLOCK2 holds another boot key's digest"),
        (ESP32, lambda b: b.set_fuses(RD_DIS=2), "BLOCK2 is read-protected"),
    ],
)
def test_what_is_in_the_way_of_secure_boot_is_named(bench, chip, setup, said):
    here = bench(chip)
    setup(here.board)
    with pytest.raises(RefusedError) as refusal:
        here.plan(Profile.OPEN_SBV2)
    assert said in str(refusal.value)


def test_an_old_esp32_cannot_verify_and_is_refused_with_the_reason(bench):
    with pytest.raises(RefusedError, match=r"v1\.0 cannot verify secure boot v2"):
        bench(ESP32, revision=100).plan(Profile.OPEN_SBV2)


def turned_on_by_somebody_else(here: Bench, *keys: BootDigest) -> None:
    """The digests and the fuse, and nothing else of Espressif's workflow."""
    boot = here.chip.secure_boot
    with here.board.quietly():
        for key in keys or (boot_key(0),):
            place = ("BLOCK2", "secure_boot_v2") if here.chip is ESP32 else (f"BLOCK_KEY{key.slot + 2}",)
            purpose = boot.digest_purposes[key.slot] if boot.digest_purposes else None
            here.board.burner().burn_key(place[-1], purpose, key.digest)
    here.board.set_fuses(**{boot.enable: 1})


@pytest.mark.parametrize(
    ("chip", "first", "lock", "burns"),
    [
        (ESP32C3, Profile.OPEN, Lock.SECURE_DOWNLOAD, [*C3_BOOT_ALONE[2:], "lock ENABLE_SECURITY_DOWNLOAD"]),
        (ESP32C3, Profile.DEVELOPMENT, Lock.NONE, C3_BOOT_ALONE[2:]),
        (ESP32C3, Profile.RELEASE, Lock.NONE, C3_BOOT[2:]),
        (ESP32C3, Profile.RELEASE, Lock.SECURE_DOWNLOAD, [*C3_BOOT[2:], "lock ENABLE_SECURITY_DOWNLOAD"]),
        (ESP32, Profile.OPEN, Lock.NONE, ESP32_BOOT_ALONE[2:]),
        (ESP32, Profile.RELEASE, Lock.DOWNLOAD_OFF, [ESP32_BOOT[2], "lock UART_DOWNLOAD_DIS FINAL"]),
    ],
)
def test_what_somebody_else_left_out_of_secure_boot_is_burned_before_the_lock(
    bench, chip, first, lock, burns
):
    here = bench(chip)
    here.run(first, Lock.NONE)
    turned_on_by_somebody_else(here)
    plan = here.plan(Profile.of(first, secure_boot=True), lock)
    assert burns_of(plan) == burns
    assert "not as Espressif's workflow" not in plan.text()
    here.carry_out(plan)
    assert here.plan(Profile.of(first, secure_boot=True), lock, regions=()).empty
    with here.board.quietly():
        assert profile_of(here.board.burner().state()).missing_boot == ()


def test_a_completion_that_is_cut_off_anywhere_is_gone_on_with(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    turned_on_by_somebody_else(here)
    for cut in range(2, 60, 3):
        here.board.plug.reset(cut)
        try:
            here.run(Profile.RELEASE_SBV2, Lock.NONE)
        except Killed:
            continue
        break
    here.board.plug.reset(None)
    assert cut > 2
    assert profile_of(here.look()).missing_boot == ()
    assert here.vault.intent(MAC) is None
    assert here.plan(Profile.RELEASE_SBV2, Lock.NONE).empty


def test_a_board_in_release_is_completed_before_its_firmware_locks_it(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    turned_on_by_somebody_else(here)
    burns = burns_of(here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, by_firmware=True))
    assert burns[:-1] == C3_BOOT[2:]
    assert "esp_efuse_enable_rom_secure_download_mode()" in burns[-1]


@pytest.mark.parametrize(
    ("chip", "frozen", "lock"),
    [
        (ESP32C3, "DIS_PAD_JTAG", Lock.SECURE_DOWNLOAD),
        (ESP32C3, "SECURE_BOOT_KEY_REVOKE1", Lock.SECURE_DOWNLOAD),
        (ESP32, "WR_DIS", Lock.DOWNLOAD_OFF),
    ],
)
def test_what_of_secure_boot_cannot_be_burned_any_more_is_said_and_refuses_the_lock(
    bench, chip, frozen, lock
):
    here = bench(chip)
    turned_on_by_somebody_else(here)
    here.board.protect(frozen)
    plan = here.plan(Profile.OPEN_SBV2)
    assert f"note: {frozen} is write-protected" in plan.text()
    assert "note: secure boot is not as Espressif's workflow leaves it" in plan.text()
    assert frozen not in " ".join(burns_of(plan))
    here.carry_out(plan)
    assert here.plan(Profile.OPEN_SBV2).burns == ()
    with pytest.raises(RefusedError, match=f"{frozen} is write-protected"):
        here.plan(Profile.OPEN_SBV2, lock)


def test_a_key_that_the_entry_does_not_name_is_said_and_refuses_the_lock(bench):
    here = bench(ESP32C3)
    here.boot_keys = (boot_key(0), boot_key(1))
    here.run(Profile.RELEASE_SBV2, Lock.NONE)
    only = {"digests": (boot_key(0),)}
    said = f"slot 1 also trusts {boot_key(1).digest.hex()[:16]}… (BLOCK_KEY2), which no key of the entry has"
    plan = here.plan(Profile.RELEASE_SBV2, Lock.NONE, **only)
    assert plan.empty
    assert f"note: {said}" in plan.text()
    assert also_trusted(here.look(), [digest for _, digest, _ in plan.digests])[0].startswith(said)
    assert also_trusted(here.look(), [key.digest.hex() for key in here.boot_keys]) == ()
    for by_firmware in (False, True):
        with pytest.raises(RefusedError) as refusal:
            here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, by_firmware=by_firmware, **only)
        assert said in str(refusal.value)
    assert here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD).burns
    here.board.set_fuses(SECURE_BOOT_KEY_REVOKE1=1)
    assert here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, **only).burns
    # Revoked, and given all the same: it counts no more, and the other one still does.
    assert "boot key 1 is not one that the board trusts" in here.plan(Profile.RELEASE_SBV2).text()


def test_another_key_goes_into_a_slot_that_was_left_open(bench):
    here = bench(ESP32C3)
    turned_on_by_somebody_else(here)
    here.boot_keys = (boot_key(0), boot_key(1))
    burns = burns_of(here.plan(Profile.OPEN_SBV2))
    assert burns[0] == "digest BLOCK_KEY0 SECURE_BOOT_DIGEST1"
    assert burns[-1] == "SECURE_BOOT_KEY_REVOKE2=1"


@pytest.mark.parametrize("profile", [Profile.OPEN_SBV2, Profile.RELEASE_SBV2])
def test_a_board_without_a_key_that_counts_is_lost_whatever_signed_its_images(bench, profile):
    here = bench(ESP32C3)
    here.run(profile, Lock.NONE)
    here.board.set_fuses(SECURE_BOOT_KEY_REVOKE0=1)
    for regions in (here.regions, firmware(ESP32C3)):
        with pytest.raises(
            RefusedError, match=r"no boot key is trusted any more: .* no key can help"
        ) as said:
            here.plan(profile, regions=regions, reflash=True)
        assert "(slot 0) is revoked" in str(said.value)


@pytest.mark.parametrize("first", [Profile.CIPHERTEXT_ONLY, Profile.CIPHERTEXT_ONLY_SBV2, Profile.RELEASE])
def test_the_firmwares_own_step_starts_from_development_only(bench, first):
    here = bench(ESP32C3)
    here.run(first, Lock.NONE)
    with pytest.raises(
        RefusedError, match=f"starts from development, .* it is {re.escape(first.value)}"
    ) as refusal:
        here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, by_firmware=True)
    assert refusal.value.todo.startswith("leave out --by-firmware")
    assert here.plan(Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD).burns


@pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
def test_with_a_key_of_the_device_secure_boot_is_burned_first_and_rd_dis_is_left_to_the_firmware(bench, chip):
    here = bench(chip)
    plan = here.plan(Profile.DEVELOPMENT_SBV2, device_key=True)
    alone = {ESP32: ESP32_BOOT_ALONE, ESP32C3: C3_BOOT_ALONE}[chip]
    assert burns_of(plan) == [each for each in alone if each != "write-protect RD_DIS"]
    assert not any(step.enciphered for step in plan.writes)
    assert "RD_DIS is left open for the firmware" in plan.text()
    assert (plan.burns_up_to, plan.key_id) == (Profile.DEVELOPMENT_SBV2, None)
    assert "WR_DIS of RD_DIS" in by_itself(here, Profile.DEVELOPMENT_SBV2, device_key=True)
    here.carry_out(plan)
    assert "RD_DIS" not in here.look().write_protected
    assert here.records.read(MAC).key_state == "device-made"


def test_a_key_of_the_device_that_could_not_be_hidden_is_refused(bench):
    here = bench(ESP32C3)
    here.run(Profile.OPEN_SBV2)
    with pytest.raises(RefusedError, match="RD_DIS is write-protected: a key that the device makes"):
        here.plan(Profile.DEVELOPMENT_SBV2, device_key=True)


def test_the_one_block_of_an_esp32c2_takes_no_digest_before_the_key_of_the_device(bench):
    with pytest.raises(RefusedError, match="only ESP-IDF's own first boot can burn both"):
        bench(CHIPS["esp32c2"]).plan(Profile.DEVELOPMENT_SBV2, device_key=True)


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_no_fuse_is_listed_twice_where_the_firmware_burns_release(bench, chip):
    lock = lock_of_release(chip)
    steps = bench(chip).plan(Profile.RELEASE_SBV2, lock, by_firmware=True).steps
    names = [name for step in steps if isinstance(step, BurnFuses) for name, _ in step.fuses]
    assert len(names) == len(set(names))


def test_a_board_that_somebody_else_left_loose_is_known_and_what_is_missing_is_said(bench):
    here = bench(ESP32C3)
    turned_on_by_somebody_else(here)
    found = profile_of(here.look())
    assert found.profile is Profile.OPEN_SBV2
    missing = " | ".join(found.missing_boot)
    for fuse in (
        "RD_DIS",
        "SECURE_BOOT_KEY_REVOKE1",
        "SECURE_BOOT_KEY_REVOKE2",
        "DIS_PAD_JTAG",
        "SOFT_DIS_JTAG",
    ):
        assert fuse in missing


def test_secure_boot_with_every_digest_revoked_boots_nothing_and_is_no_profile(bench):
    here = bench(ESP32C3)
    here.run(Profile.OPEN_SBV2)
    here.board.set_fuses(SECURE_BOOT_KEY_REVOKE0=1)
    found = profile_of(here.look())
    assert found.profile is None
    assert "BLOCK_KEY0 (slot 0) is revoked" in found.text()


def test_open_with_secure_boot_may_be_locked_and_still_takes_signed_images(bench):
    here = bench(ESP32C3)
    here.run(Profile.OPEN_SBV2, Lock.SECURE_DOWNLOAD)
    assert profile_of(here.look(), here.records.read(MAC)).profile is Profile.OPEN_SBV2
    plan = here.plan(Profile.OPEN_SBV2, Lock.SECURE_DOWNLOAD, reflash=True)
    assert not any(step.enciphered for step in plan.writes)
    assert len(plan.writes) == 4
    with pytest.raises(RefusedError, match="has no signature that verifies"):
        here.plan(Profile.OPEN_SBV2, Lock.SECURE_DOWNLOAD, reflash=True, regions=firmware(ESP32C3))


@pytest.mark.parametrize(
    ("flags", "purposes", "said"),
    [
        (0x485, (4, 9), None),
        (0x484, (4, 9), "secure boot is off in the chip"),
        (0x485, (4, 0), "no key block has the purpose SECURE_BOOT_DIGEST0"),
        (0x485 | 1 << 3, (4, 9), "every boot key that the record knows is revoked"),
        (0x485 | 1 << 4, (4, 9), None),
    ],
)
def test_behind_the_lock_the_record_is_believed_unless_the_security_info_objects(
    bench, flags, purposes, said
):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE_SBV2)
    state = here.look()
    assert state.security_info.secure_boot
    info = dataclasses.replace(state.security_info, flags=flags, key_purposes=purposes)
    found = profile_of(dataclasses.replace(state, security_info=info), here.records.read(MAC))
    assert found.profile is (Profile.RELEASE_SBV2 if said is None else None)
    assert said is None or said in found.text()


def test_a_boot_key_that_only_one_place_has_is_not_burned_into_a_physical_board(bench):
    here = bench(ESP32C3)
    with pytest.raises(RefusedError, match="no second copy"):
        here.carry_out(here.plan(Profile.OPEN_SBV2), physical=True)
    assert here.look().fuses["SECURE_BOOT_EN"] == 0


# Signatures over SHA-384


@pytest.mark.parametrize("chip", [ESP32C5, ESP32P4], ids=lambda chip: chip.name)
def test_a_p384_key_is_told_to_the_rom_together_with_secure_boot(bench, chip):
    here = bench(chip)
    here.boot_keys = (dataclasses.replace(boot_key(0), scheme=SigningScheme.ECDSA_P384),)
    here.run(Profile.RELEASE_SBV2, Lock.NONE)
    state = here.look()
    assert state.fuses["SECURE_BOOT_SHA384_EN"] == 1
    assert profile_of(state).missing_boot == ()


def test_mixed_hashes_and_chips_without_sha384_are_refused(bench, tmp_path):
    long = dataclasses.replace(boot_key(1), scheme=SigningScheme.ECDSA_P384)
    with pytest.raises(UsageError, match="these are mixed"):
        bench(ESP32P4).plan(Profile.OPEN_SBV2, digests=(boot_key(0), long))
    with pytest.raises(UsageError, match="verifies no signatures over SHA-384"):
        Bench(ESP32C3, tmp_path / "c3").plan(Profile.OPEN_SBV2, digests=(long,))


def test_a_rom_that_was_told_of_sha384_takes_no_other_key(bench):
    here = bench(ESP32P4)
    here.board.set_fuses(SECURE_BOOT_SHA384_EN=1)
    with pytest.raises(RefusedError, match="SECURE_BOOT_SHA384_EN is set"):
        here.plan(Profile.OPEN_SBV2)


# The curve that the hardware does not do by itself


def test_an_esp32h2_is_told_of_p192_before_that_is_frozen(bench):
    here = bench(ESP32H2)
    here.boot_keys = (dataclasses.replace(boot_key(0), scheme=SigningScheme.ECDSA_P192),)
    plan = here.plan(Profile.RELEASE_SBV2, Lock.NONE)
    burns = burns_of(plan)
    assert [each for each in burns if "CURVE" in each] == [
        "ECDSA_CURVE_MODE=2 SOFT_DIS_JTAG=7",
        "write-protect ECDSA_CURVE_MODE",
    ]
    assert any(remark.startswith("unlike Espressif's page: ECDSA_CURVE_MODE") for remark in plan.remarks)
    here.carry_out(plan)
    assert here.board.fuse("ECDSA_CURVE_MODE") == 2
    assert not here.plan(Profile.RELEASE_SBV2, Lock.NONE).burns


@pytest.mark.parametrize(
    ("mode", "frozen", "scheme", "words"),
    [
        (3, False, SigningScheme.ECDSA_P192, r"ECDSA_CURVE_MODE is 3, for good: .* \(ecdsa192\)"),
        (1, False, SigningScheme.ECDSA_P256, r"ECDSA_CURVE_MODE is 1, for good: .* \(ecdsa256\)"),
        (0, True, SigningScheme.ECDSA_P192, "ECDSA_CURVE_MODE is write-protected"),
    ],
)
def test_a_boot_key_of_a_curve_that_an_esp32h2_will_never_do_is_refused(bench, mode, frozen, scheme, words):
    here = bench(ESP32H2)
    if mode:
        here.board.set_fuses(ECDSA_CURVE_MODE=mode)
    if frozen:
        here.board.protect("ECDSA_CURVE_MODE")
    with pytest.raises(RefusedError, match=words):
        here.plan(Profile.OPEN_SBV2, digests=(dataclasses.replace(boot_key(0), scheme=scheme),))


def test_what_release_still_needs_is_frozen_only_with_release(bench):
    here = bench(ESP32C5)
    plan = here.plan(Profile.DEVELOPMENT_SBV2)
    assert (
        "SECURE_BOOT_SHA384_EN is not write-protected: its bit would also freeze XTS_DPA_PSEUDO_LEVEL"
        in plan.text()
    )
    here.carry_out(plan)
    assert burns_of(here.plan(Profile.RELEASE_SBV2, Lock.NONE))[-1] == "write-protect SECURE_BOOT_SHA384_EN"
    here.run(Profile.RELEASE_SBV2, Lock.NONE)
    assert profile_of(here.look()).missing_boot == ()


# What the firmware burns by itself


def by_itself(
    here: Bench, profile: Profile, lock: Lock = Lock.NONE, *, options: Sequence[str] = (), **more: bool
) -> set[str]:
    """Of an app that ESP-IDF configured for secure boot and release, with every other default but `options`."""
    app = SimpleNamespace(
        chip=here.chip,
        sdkconfig={
            f"CONFIG_{option}": "y"
            for option in (
                "SECURE_BOOT",
                "SECURE_BOOT_V2_ENABLED",
                "SECURE_FLASH_ENC_ENABLED",
                "SECURE_FLASH_ENCRYPTION_MODE_RELEASE",
                *options,
            )
        },
    )
    return {burn.fuse for burn in burned_by_itself(app, here.look(), profile, lock, **more).burns}


@pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
def test_what_the_plan_burns_the_firmware_does_not_burn_again(bench, chip):
    assert by_itself(bench(chip), Profile.RELEASE_SBV2) == set()


def test_what_the_plan_cannot_freeze_yet_the_firmware_freezes(bench):
    here = bench(ESP32C5)
    frozen = "WR_DIS of SECURE_BOOT_SHA384_EN"
    assert frozen in by_itself(here, Profile.DEVELOPMENT_SBV2)
    assert frozen in by_itself(here, Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD, by_firmware=True)
    here.board.protect("SECURE_BOOT_SHA384_EN")
    assert frozen not in by_itself(here, Profile.DEVELOPMENT_SBV2)


@pytest.mark.parametrize(
    ("chip", "fuse"),
    [(ESP32H2, "ECDSA_CURVE_MODE"), (ESP32C5, "SECURE_BOOT_SHA384_EN")],
    ids=lambda value: getattr(value, "name", value),
)
def test_nothing_is_frozen_that_an_app_burns_at_its_start_and_does_not_start_without(bench, chip, fuse):
    here = bench(chip)
    option = "ESP_CRYPTO_FORCE_ECC_CONSTANT_TIME_POINT_MUL"
    own = by_itself(here, Profile.RELEASE_SBV2, options=[option])
    assert own == {"ECC_FORCE_CONST_TIME", f"WR_DIS of {fuse}"}
    firmware = FlashedFirmware((FirmwareBurns("app", "at every start", tuple(own)),))
    plan = here.plan(Profile.RELEASE_SBV2, Lock.NONE, firmware=firmware)
    assert f"write-protect {fuse}" not in burns_of(plan)
    assert any("ECC_FORCE_CONST_TIME, which the firmware burns by itself" in each for each in plan.remarks)


def test_an_app_that_is_signed_with_p192_finds_its_curve_burned_by_the_plan(bench):
    options = ["SECURE_BOOT_ECDSA_KEY_LEN_192_BITS"]
    assert by_itself(bench(ESP32H2), Profile.RELEASE_SBV2, options=options) == set()


def test_slots_that_were_locked_open_are_closed_by_the_firmware(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    turned_on_by_somebody_else(here)
    assert by_itself(here, Profile.RELEASE_SBV2) == set()
    here.board.set_fuses(ENABLE_SECURITY_DOWNLOAD=1)
    assert by_itself(here, Profile.RELEASE_SBV2, Lock.SECURE_DOWNLOAD) == {
        "SECURE_BOOT_KEY_REVOKE1",
        "SECURE_BOOT_KEY_REVOKE2",
    }


def test_a_promise_that_was_found_broken_is_said_until_something_is_burned(bench):
    here = bench(ESP32C3)
    here.run(Profile.OPEN_SBV2)
    here.records.note_differences(MAC, ("SECURE_BOOT_KEY_REVOKE1 is 1, not 0",))
    said = "read other eFuses than were promised, and nothing was burned since: SECURE_BOOT_KEY_REVOKE1 is"
    plan = here.plan(Profile.OPEN_SBV2, regions=())
    assert plan.empty
    assert said in plan.text()
    here.run(Profile.OPEN_SBV2)
    assert said in here.plan(Profile.OPEN_SBV2).text()
    here.run(Profile.OPEN_SBV2, Lock.SECURE_DOWNLOAD)
    assert said not in here.plan(Profile.OPEN_SBV2, Lock.SECURE_DOWNLOAD).text()
