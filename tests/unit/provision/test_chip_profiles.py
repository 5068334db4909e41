"""Every chip takes every profile, by the real espefuse on its virtual eFuses, and is recognised in it again."""

from __future__ import annotations

import functools
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, Killed, boot_key, burns_of

from harness.chips import CHIPS, ESP32C2, ESP32C3, ESP32S2, KEY_PURPOSE_NUMBERS, Chip
from harness.errors import RefusedError
from harness.provision import ChipState, DeviceRecord, Lock, Profile, plan_for, profile_of
from harness.provision.key_blocks import shares_one_block
from harness.provision.steps import BurnKey
from harness.vault import KeyRef, key_id

CHIP = pytest.mark.parametrize("chip", CHIPS.values(), ids=lambda chip: chip.name)
PROFILE = pytest.mark.parametrize("profile", Profile, ids=lambda profile: profile.value)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


def summary(here: Bench) -> dict[str, object]:
    """What ``espefuse summary`` shows, by field."""
    path = here.records.folder.parent / "summary.json"
    with path.open("w") as file, here.board.quietly():
        here.board.burner()._commands.summary(format="json", file=file)  # espefuse closes the file
    told = json.loads(path.read_text())
    return {name: field["value"] for name, field in told.items()}


@CHIP
@PROFILE
def test_a_blank_board_becomes_what_was_planned_and_espefuse_shows_it(bench, chip, profile):
    here = bench(chip)
    here.run(profile, Lock.NONE)
    found = profile_of(here.look())
    assert (found.profile, found.missing_boot) == (profile, ())
    shown, fuses, boot = summary(here), chip.fuses, chip.secure_boot
    if profile.encrypts:
        assert here.board.flash_key() == here.vault.flash_key(MAC)
        assert here.look().crypt_count == (
            1 if profile.encryption is Profile.DEVELOPMENT else fuses.counter_release
        )
        assert here.board.raw(fuses.manual_encrypt_disable) == (profile.encryption is not Profile.DEVELOPMENT)
    if profile.encryption is Profile.RELEASE:
        assert all(shown[fuse] for fuse in fuses.release)
    assert bool(here.board.raw(boot.enable)) is profile.secure_boot
    assert ("RD_DIS" in here.look().write_protected) is profile.secure_boot
    assert not here.board.raw(fuses.download_off)
    assert fuses.secure_download is None or not here.board.raw(fuses.secure_download)
    if profile.encrypts:
        assert here.plan(profile, Lock.NONE).empty


@functools.cache
def been(chip: Chip, profile: Profile) -> tuple[ChipState, KeyRef | None, DeviceRecord]:
    """A board in `profile`: its state, the vault's key, its record."""
    with tempfile.TemporaryDirectory() as folder:
        here = Bench(chip, Path(folder))
        here.run(profile, Lock.NONE)
        record = here.records.read(MAC)
        assert record is not None
        return here.look(), here.vault.key(MAC), record


@CHIP
@pytest.mark.parametrize("first", Profile, ids=lambda profile: profile.value)
def test_what_silicon_allows_is_planned_and_the_rest_is_refused(bench, chip, first):
    state, key, record = been(chip, first)
    here = bench(chip)
    for then in Profile:
        if then is first:
            continue
        possible = then.covers(first)
        if first is Profile.OPEN_SBV2 and then.encrypts:
            possible = False  # RD_DIS is frozen: no key can be hidden any more
        if shares_one_block(chip) and first.encrypts and then.secure_boot and not first.secure_boot:
            possible = False  # the one key block is burned
        given = {"key": key if then.encrypts else None, "record": record}
        if not possible:
            with pytest.raises(RefusedError) as refusal:
                _planned(here, state, then, given)
            assert "  - " in str(refusal.value), then
            continue
        assert _planned(here, state, then, given).burns, then


def _planned(here: Bench, state: ChipState, then: Profile, given: dict) -> object:
    here.plan(then, Lock.NONE)  # signs the bench's regions
    more = {"digests": here.boot_keys, "signers": _signers} if then.secure_boot else {}
    return plan_for(state, profile=then, lock=Lock.NONE, regions=here.regions, **more, **given)


def _signers(image: bytes) -> tuple[bytes, ...]:
    return (boot_key(0).digest,)


# ESP32-S2, S3, P4: one key in two blocks


def test_a_key_of_two_blocks_is_burned_half_by_half(bench):
    burns = burns_of(bench(ESP32S2).plan(Profile.DEVELOPMENT))
    assert burns[:2] == ["key BLOCK_KEY0 XTS_AES_256_KEY_1", "key BLOCK_KEY1 XTS_AES_256_KEY_2"]


def test_a_key_of_two_blocks_goes_on_with_the_half_that_is_missing(bench):
    here = bench(ESP32S2)
    here.vault.make_flash_key(MAC, ESP32S2)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY3", "XTS_AES_256_KEY_1", here.vault.flash_key(MAC)[:32])
    burns = burns_of(here.plan(Profile.DEVELOPMENT))
    assert burns[0] == "key BLOCK_KEY0 XTS_AES_256_KEY_2"
    here.run(Profile.DEVELOPMENT)
    assert here.board.flash_key() == here.vault.flash_key(MAC)


def test_half_a_key_is_none_and_two_first_halves_are_refused(bench):
    here = bench(ESP32S2)
    here.vault.make_flash_key(MAC, ESP32S2)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY0", "XTS_AES_256_KEY_1", bytes(range(32)))
    here.board.set_fuses(SPI_BOOT_CRYPT_CNT=1)
    assert "half of the flash key is missing" in profile_of(here.look()).text()
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY2", "XTS_AES_256_KEY_1", bytes(range(1, 33)))
    with pytest.raises(RefusedError, match="BLOCK_KEY0, BLOCK_KEY2 all hold flash keys"):
        here.plan(Profile.DEVELOPMENT)


def test_two_free_blocks_are_needed_for_two_halves(bench):
    here = bench(ESP32S2)
    with here.board.quietly():
        for number in range(5):
            here.board.burner().burn_key(f"BLOCK_KEY{number}", "HMAC_UP", bytes(range(32)))
    with pytest.raises(RefusedError, match="no key block is free for a flash key, of which it takes two"):
        here.plan(Profile.DEVELOPMENT)


def test_the_shorter_key_that_the_chip_could_also_take_is_not_mixed_with_ours(bench):
    here = bench(ESP32S2)
    here.vault.make_flash_key(MAC, ESP32S2)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY0", "XTS_AES_128_KEY", bytes(range(32)))
    with pytest.raises(
        RefusedError, match=r"BLOCK_KEY0 \(XTS_AES_128_KEY\) holds a flash key of another kind"
    ):
        here.plan(Profile.DEVELOPMENT)


def test_the_vault_names_both_halves_and_shows_neither(bench):
    here = bench(ESP32S2)
    ref = here.vault.make_flash_key(MAC, ESP32S2)
    key = here.vault.flash_key(MAC)
    assert ref.part_ids == (key_id(key[:32]), key_id(key[32:]))
    assert here.vault.key(MAC) == ref


# ESP32-C2: one block for both


def test_key_and_digest_of_one_block_are_burned_in_one_batch(bench):
    here = bench(ESP32C2)
    plan = here.plan(Profile.RELEASE_SBV2)
    first = plan.burns[0]
    assert isinstance(first, BurnKey)
    assert burns_of(plan)[0] == (
        "key BLOCK_KEY0 XTS_AES_128_KEY_DERIVED_FROM_128_EFUSE_BITS with SECURE_BOOT_DIGEST"
    )
    here.carry_out(plan)
    assert here.board.flash_key() == here.vault.flash_key(MAC)
    assert here.records.read(MAC).digests == {"0": boot_key(0).digest.hex()}


def test_the_digest_stays_readable_beside_a_hidden_key(bench):
    here = bench(ESP32C2)
    here.run(Profile.DEVELOPMENT_SBV2)
    key, digest = here.look().block("BLOCK_KEY0"), here.look().block("BLOCK_KEY0_HI_128")
    assert (key.readable, digest.readable) == (False, True)
    assert digest.digest == boot_key(0).digest[:16].hex()


def test_what_freezes_secure_boot_comes_behind_it(bench):
    burns = burns_of(bench(ESP32C2).plan(Profile.RELEASE_SBV2))
    assert burns.index("SECURE_BOOT_EN=1") < burns.index("write-protect SPI_BOOT_CRYPT_CNT")


def test_a_burned_block_takes_no_second_burn_and_the_refusal_says_so(bench):
    here = bench(ESP32C2)
    here.run(Profile.RELEASE, Lock.NONE)
    with pytest.raises(RefusedError) as refusal:
        here.plan(Profile.RELEASE_SBV2, Lock.NONE)
    assert "both have to be burned in one go" in str(refusal.value)
    assert "SECURE_BOOT_EN is write-protected (WR_DIS bit 2)" in str(refusal.value)


@pytest.mark.parametrize("profile", [Profile.OPEN_SBV2, Profile.RELEASE_SBV2])
def test_a_half_burned_block_that_is_the_only_one_sacrifices_the_board(bench, profile):
    here = bench(ESP32C2)
    rehearsal = Bench(ESP32C2, here.vault.path.parent / "rehearsal")
    rehearsal.run(profile, Lock.NONE)
    here.board.plug.reset(rehearsal.board.plug.events.index("before a burn"), tear=random.Random(3))
    with pytest.raises(Killed):
        here.run(profile, Lock.NONE)
    here.board.plug.reset(None)
    with pytest.raises(RefusedError, match="this board is sacrificed"):
        here.plan(profile, Lock.NONE)


def test_purposes_have_the_numbers_that_espefuse_writes(bench):
    here = bench(ESP32C3)
    for number, name in enumerate(("XTS_AES_128_KEY", "SECURE_BOOT_DIGEST0", "SECURE_BOOT_DIGEST2")):
        with here.board.quietly():
            here.board.burner().burn_key(f"BLOCK_KEY{number}", name, bytes(range(32)))
        assert here.board.raw(f"KEY_PURPOSE_{number}") == KEY_PURPOSE_NUMBERS[name]
