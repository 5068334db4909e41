"""Plans for boards that a killed run left half done: only what is missing, and only with proof of the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, VirtualBoard, burns_of

from harness.chips import ESP32, ESP32C3, Chip
from harness.errors import RefusedError, UsageError
from harness.provision import Lock, Profile
from harness.provision.steps import BurnKey, Canary, ProtectKey
from harness.vault import Intent, KeyRef

OTHER_KEY = bytes(range(32))
BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


def test_a_board_whose_flash_may_be_half_written_is_not_finished_without_images(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE, Lock.NONE)
    intent = intent_for(ESP32C3, here.vault.key(MAC), "BLOCK_KEY0")
    with pytest.raises(UsageError, match="may be half written"):
        here.plan(Profile.RELEASE, Lock.NONE, intent=intent, regions=())
    plan = here.plan(Profile.RELEASE, Lock.NONE, intent=intent)
    assert plan.burns == ()
    assert len(plan.writes) == 4
    assert "an earlier run on this board was not finished" in plan.text()


def intent_for(chip: Chip, ref: KeyRef, block: str) -> Intent:
    return Intent(
        MAC, chip.name, block, ref.key_id, "plan", "release", "none", {}, True, "2025-01-01T00:00:00+00:00"
    )


@BOTH
def test_a_key_that_was_burned_and_protected_before_the_counter_is_proven_by_the_canary(bench, chip):
    here = bench(chip)
    ref = here.vault.make_flash_key(MAC, chip)
    with here.board.quietly():
        here.board.burner().burn_key(chip.fuses.key_block, chip.fuses.key_purpose, here.vault.flash_key(MAC))
    for intent in (None, intent_for(chip, ref, chip.fuses.key_storage_block)):
        plan = here.plan(Profile.RELEASE, Lock.NONE, intent=intent)
        assert not any(isinstance(step, BurnKey) for step in plan.steps)
        assert any(isinstance(step, Canary) for step in plan.steps)


@pytest.mark.parametrize("purpose_burned", [False, True])
def test_a_key_that_is_burned_but_not_protected_is_compared_and_finished(bench, purpose_burned):
    here = bench(ESP32C3)
    here.vault.make_flash_key(MAC, ESP32C3)
    key = here.vault.flash_key(MAC)
    for word in range(8):
        here.board.set_cells(word, int.from_bytes(key[::-1][word * 4 : word * 4 + 4], "little"), block=4)
    if purpose_burned:
        here.board.set_fuses(KEY_PURPOSE_0=4)
    first = here.plan(Profile.RELEASE).burns[0]
    if purpose_burned:
        assert first == ProtectKey("BLOCK_KEY0", True, True, True, "left open by a run that was cut off")
    else:
        assert first == BurnKey("BLOCK_KEY0", "BLOCK_KEY0", "XTS_AES_128_KEY", goes_on=True)
    here.run(Profile.RELEASE)
    assert here.board.key("BLOCK_KEY0") == key
    assert here.records.read(MAC).profile is Profile.RELEASE


def half_burn(board: VirtualBoard, key: bytes, *, errors: bool) -> None:
    """The first half of a key's words, and check bytes that do not fit."""
    block = 1 if board.chip is ESP32 else 4
    for word in range(4):
        board.set_cells(word, int.from_bytes(key[::-1][word * 4 : word * 4 + 4], "little"), block=block)
    if errors:
        regs = board.chip_memory.REGS
        board.chip_memory.update_reg(regs.EFUSE_RD_RS_ERR0_REG, 0xFFFFFFFF, 5 << 12 | 1 << 19)


def test_a_half_burned_reed_solomon_block_is_sealed_and_the_next_one_is_used(bench):
    here = bench(ESP32C3)
    ref = here.vault.make_flash_key(MAC, ESP32C3)
    half_burn(here.board, here.vault.flash_key(MAC), errors=True)
    here.vault.note_intent(MAC, intent_for(ESP32C3, ref, "BLOCK_KEY0"))
    plan = here.plan(Profile.RELEASE, Lock.NONE)
    assert burns_of(plan)[:2] == [
        "read- and write-protect BLOCK_KEY0 (half a key must not stay readable)",
        "key BLOCK_KEY1 XTS_AES_128_KEY",
    ]
    assert "BLOCK_KEY0 was half burned by an earlier run and is given up" in plan.remarks
    here.carry_out(plan)
    state = here.look()
    assert not state.block("BLOCK_KEY0").readable
    assert here.board.key("BLOCK_KEY1") == here.vault.flash_key(MAC)
    assert here.plan(Profile.RELEASE, Lock.NONE).empty


def test_without_an_intent_a_block_with_strange_content_is_simply_passed_over(bench):
    here = bench(ESP32C3)
    half_burn(here.board, OTHER_KEY, errors=False)
    assert burns_of(here.plan(Profile.RELEASE))[0] == "key BLOCK_KEY1 XTS_AES_128_KEY"


def test_a_half_burned_block_and_no_other_left_sacrifices_the_board(bench):
    here = bench(ESP32C3)
    with here.board.quietly():
        for number in range(1, 5):
            here.board.burner().burn_key(f"BLOCK_KEY{number}", "HMAC_UP", OTHER_KEY)
    ref = here.vault.make_flash_key(MAC, ESP32C3)
    half_burn(here.board, here.vault.flash_key(MAC), errors=True)
    with pytest.raises(RefusedError, match="this board is sacrificed"):
        here.plan(Profile.RELEASE, intent=intent_for(ESP32C3, ref, "BLOCK_KEY0"))


def test_a_half_burned_key_on_esp32_takes_its_missing_bits(bench):
    here = bench(ESP32)
    ref = here.vault.make_flash_key(MAC, ESP32)
    half_burn(here.board, here.vault.flash_key(MAC), errors=False)
    here.vault.note_intent(MAC, intent_for(ESP32, ref, "BLOCK1"))
    assert here.plan(Profile.RELEASE).burns[0] == BurnKey("BLOCK1", "flash_encryption", None, goes_on=True)
    here.run(Profile.RELEASE)
    assert here.board.key("BLOCK1") == here.vault.flash_key(MAC)


@BOTH
def test_release_fuses_without_counter_and_without_intent_leave_nothing_to_prove_the_key_with(bench, chip):
    here = bench(chip)
    ref = here.vault.make_flash_key(MAC, chip)
    fuses = chip.fuses
    with here.board.quietly():
        here.board.burner().burn_key(fuses.key_block, fuses.key_purpose, here.vault.flash_key(MAC))
    here.board.set_fuses(**{fuses.manual_encrypt_disable: 1})
    with pytest.raises(RefusedError, match="nothing proves") as refusal:
        here.plan(Profile.RELEASE)
    assert fuses.manual_encrypt_disable in str(refusal.value)
    plan = here.plan(Profile.RELEASE, Lock.NONE, intent=intent_for(chip, ref, fuses.key_storage_block))
    assert burns_of(plan)


def test_two_flash_keys_are_refused(bench):
    here = bench(ESP32C3)
    with here.board.quietly():
        here.board.burner().burn_key("BLOCK_KEY0", "XTS_AES_128_KEY", OTHER_KEY)
        here.board.burner().burn_key("BLOCK_KEY1", "XTS_AES_128_KEY", OTHER_KEY)
    with pytest.raises(RefusedError, match="BLOCK_KEY0, BLOCK_KEY1 all hold flash keys"):
        here.plan(Profile.RELEASE)
