"""An unproven key enciphers nothing that a chip boots from, a forgotten one nothing: in plans and in doing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from fuse_bench import MAC, Bench, firmware

from harness.chips import ESP32, ESP32C3, ESP32S3, Chip
from harness.errors import BoardError, RefusedError
from harness.formats.app_image import Segment, build_app_image
from harness.provision import DeviceRecords, FlashRegion, Lock, Plan, Profile
from harness.provision.chip_state import ChipState
from harness.provision.key_blocks import key_parts
from harness.provision.key_proof import proof_by_bootloader, proof_by_key_block
from harness.provision.proven import require_key, require_proven, saying_what_became_of, with_key_notes
from harness.provision.steps import BurnFuses, BurnKey, Canary, MakeKey, Step, WriteFlash
from harness.vault import KeyFile, KeyRef, KeyState, NoKeyHereError, Vault, key_id
from harness.vault.key_life import (
    answer_to,
    forget,
    hand_over,
    import_key,
    mark_proven,
    note_device_made,
    offer,
)
from harness.vault.key_proof import ProofResult

BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
WRONG = bytes(range(32))


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    return lambda chip, **board: Bench(chip, tmp_path, **board)


def whole_bootloader(chip: Chip) -> FlashRegion:
    image = build_app_image(chip, [Segment(0x3FCE0000, bytes(range(256)) * 30)], entry_point=0x403CE000)
    return FlashRegion("bootloader", chip.bootloader_offset, image)


def with_whole_bootloader(here: Bench) -> Bench:
    here.regions = (whole_bootloader(here.chip), *firmware(here.chip)[1:])
    return here


def in_other_hands(here: Bench, folder: Path, key: bytes | None = None) -> bytes:
    """The board comes to somebody with another vault, who imports `key` (by default the right one); gives that."""
    right = here.vault.flash_key(MAC)
    here.vault = Vault.open(folder / "vault", KeyFile.create(folder / "key"), create=True)
    import_key(here.vault, MAC, here.chip, key or right)
    return right


def state_of(here: Bench) -> KeyState:
    record = here.vault.key_record(MAC)
    assert record is not None
    return record.state


# --- the small function ---

WRITE = WriteFlash("bootloader", 0, 16, "0" * 64, True)
DEPENDS = (
    (WRITE, True),
    (WriteFlash("partition-table", 0x10000, 16, "0" * 64, True), True),
    (BurnKey("BLOCK_KEY0", "BLOCK_KEY0", "XTS_AES_128_KEY", False), True),
    (MakeKey(), True),
    (dataclasses.replace(WRITE, enciphered=False), False),
    (Canary(0x1000), False),
    (BurnFuses((("DIS_DOWNLOAD_ICACHE", 1),), "release mode"), False),
)


@pytest.mark.parametrize(("step", "depends"), DEPENDS, ids=lambda value: getattr(value, "do", str(value)))
@pytest.mark.parametrize("state", list(KeyState), ids=lambda state: state.value)
def test_only_steps_that_depend_on_an_unproven_key_are_refused(
    step: Step, depends: bool, state: KeyState
) -> None:
    ref = KeyRef(MAC, "esp32c3", "0" * 16, state)
    if state is KeyState.UNPROVEN and depends:
        with pytest.raises(RefusedError, match="is unproven: not done"):
            require_proven(ref, step)
    else:
        require_proven(ref, step)
    require_proven(None, step)


# --- over a board ---


@BOTH
def test_the_canary_proves_an_imported_key_before_anything_is_written_with_it(bench, tmp_path, chip):
    here = bench(chip)
    here.run(Profile.DEVELOPMENT)
    in_other_hands(here, tmp_path / "other")
    plan = here.plan(Profile.DEVELOPMENT, reflash=True)
    require_key(plan, here.vault.key_record(MAC))
    here.carry_out(plan)
    assert state_of(here) is KeyState.TEST_ONLY
    assert here.records.read(MAC).key_state == "test-only"


@BOTH
def test_a_canary_that_does_not_match_leaves_key_and_bootloader_as_they_were(bench, tmp_path, chip):
    here = bench(chip)
    here.run(Profile.DEVELOPMENT)
    in_other_hands(here, tmp_path / "other", WRONG)
    before = bytes(here.board.flash[: here.regions[0].end])
    with pytest.raises(BoardError, match="its key is not the vault's"):
        here.carry_out(here.plan(Profile.DEVELOPMENT, reflash=True))
    assert bytes(here.board.flash[: here.regions[0].end]) == before
    assert state_of(here) is KeyState.UNPROVEN


@BOTH
def test_where_the_chip_no_longer_enciphers_a_whole_bootloader_proves_the_key(bench, tmp_path, chip):
    here = with_whole_bootloader(bench(chip))
    here.run(Profile.RELEASE, Lock.NONE)
    in_other_hands(here, tmp_path / "other")
    here.carry_out(here.plan(Profile.RELEASE, Lock.NONE, reflash=True))
    assert state_of(here) is KeyState.TEST_ONLY


@BOTH
def test_the_head_of_an_image_alone_does_not_prove_a_key(bench, tmp_path, chip):
    here = bench(chip)
    here.run(Profile.RELEASE, Lock.NONE)
    in_other_hands(here, tmp_path / "other")
    with pytest.raises(RefusedError, match="is unproven"):
        here.carry_out(here.plan(Profile.RELEASE, Lock.NONE, reflash=True))
    assert state_of(here) is KeyState.UNPROVEN


def test_behind_its_lock_a_board_gets_nothing_that_is_enciphered_with_an_unproven_key(bench, tmp_path):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    in_other_hands(here, tmp_path / "other")
    plan = here.plan(Profile.RELEASE, reflash=True)
    assert plan.writes
    with pytest.raises(RefusedError, match="is unproven"):
        require_key(plan, here.vault.key_record(MAC))
    before = bytes(here.board.flash)
    with pytest.raises(RefusedError, match="is unproven"):
        here.carry_out(plan)
    assert bytes(here.board.flash) == before
    mark_proven(here.vault, MAC, "by its firmware")
    here.carry_out(here.plan(Profile.RELEASE, reflash=True))


@BOTH
def test_an_unproven_key_is_not_burned(bench, chip):
    here = bench(chip)
    import_key(here.vault, MAC, chip, WRONG)
    plan = here.plan(Profile.DEVELOPMENT)
    with pytest.raises(RefusedError, match="not done: burn the flash key"):
        require_key(plan, here.vault.key_record(MAC))
    with pytest.raises(RefusedError, match="not done: burn the flash key"):
        here.carry_out(plan)
    assert here.board.programs == []


def forgotten(vault: Vault, chip: Chip) -> None:
    vault.make_flash_key(MAC, chip)
    forget(vault, MAC, lose_updates=True)


@pytest.mark.parametrize("lose", [forgotten, lambda vault, chip: note_device_made(vault, MAC, chip)])
def test_no_other_key_is_made_for_a_device_whose_key_is_not_here(bench, lose):
    here = bench(ESP32C3)
    lose(here.vault, ESP32C3)
    plan = here.plan(Profile.DEVELOPMENT)
    with pytest.raises(NoKeyHereError, match="The plan needs it to make a flash key"):
        require_key(plan, here.vault.key_record(MAC))
    with pytest.raises(NoKeyHereError):
        here.carry_out(plan)
    assert here.board.programs == []


def test_a_plan_that_needs_a_forgotten_key_says_what_became_of_it(bench):
    here = bench(ESP32C3)
    here.run(Profile.RELEASE)
    record = forget(here.vault, MAC, lose_updates=True).record
    here.records.note_key(record)
    with pytest.raises(RefusedError, match="was forgotten here on") as error, saying_what_became_of(record):
        here.plan(Profile.RELEASE, reflash=True)
    assert "keys import" in str(error.value)
    # A board that is there already needs no key for that, and its plan says what it lacks.
    plan = here.plan(Profile.RELEASE)
    require_key(plan, record)
    assert "takes updates only from who holds a copy" in with_key_notes(plan, record).text()


def test_while_its_rom_enciphers_a_board_is_flashed_without_the_key_that_was_forgotten(bench):
    here = bench(ESP32C3)
    here.run(Profile.DEVELOPMENT)
    record = forget(here.vault, MAC, lose_updates=True).record
    here.records.note_key(record)
    plan = here.plan(Profile.DEVELOPMENT, reflash=True)
    require_key(plan, record)
    assert plan.key_state == "forgotten"
    here.carry_out(plan)
    assert here.records.read(MAC).key_state == "forgotten"


def test_a_key_that_never_was_here_is_not_called_the_devices_own(bench, tmp_path):
    here = bench(ESP32C3)
    here.run(Profile.DEVELOPMENT)
    here.vault = Vault.open(tmp_path / "other", KeyFile.create(tmp_path / "key"), create=True)
    here.records = DeviceRecords(tmp_path / "others")
    plan = here.plan(Profile.DEVELOPMENT, reflash=True)
    assert plan.key_state == "elsewhere"
    assert "made elsewhere" in plan.text()
    here.carry_out(plan)
    assert here.records.read(MAC).key_state == "elsewhere"
    # So whoever comes with the key later can still have it taken in.
    assert import_key(here.vault, MAC, ESP32C3, WRONG).state is KeyState.UNPROVEN


# --- what plans and records say ---


def noted(plan: Plan, vault: Vault) -> str:
    return with_key_notes(plan, vault.key_record(MAC)).text()


def test_the_mark_is_on_every_plan_and_record_until_the_key_is_handed_over(bench):
    here = bench(ESP32C3)
    first = here.plan(Profile.DEVELOPMENT)
    here.carry_out(first)
    assert noted(first, here.vault).count("do not ship") == 1
    again = here.plan(Profile.DEVELOPMENT)
    assert noted(again, here.vault).count("do not ship") == 1
    assert again.id == with_key_notes(again, here.vault.key_record(MAC)).id
    assert here.records.read(MAC).to_fields()["ship"] == "do not ship"
    asked = offer(here.vault, MAC, "")
    record = hand_over(here.vault, MAC, answer_to(ESP32C3, here.vault.flash_key(MAC), asked.challenge))
    assert "do not ship" not in noted(again, here.vault)
    device = here.records.note_key(record)
    assert device is not None
    assert (device.shippable, device.key_state) == (True, "handed-over")
    assert here.records.read(MAC) == device


def test_an_open_board_is_told_nothing_of_keys(bench):
    here = bench(ESP32C3)
    here.vault.make_flash_key(MAC, ESP32C3)
    assert "ship" not in noted(here.plan(Profile.OPEN), here.vault)


def test_the_record_of_another_key_is_not_touched(bench):
    here = bench(ESP32C3)
    here.run(Profile.DEVELOPMENT)
    before = here.records.read(MAC)
    record = dataclasses.replace(here.vault.key_record(MAC), key_id="0" * 16, state=KeyState.HANDED_OVER)
    assert here.records.note_key(record) is None
    assert here.records.read(MAC) == before


# --- proofs by reading ---


@BOTH
@pytest.mark.parametrize(
    ("key", "damage", "result"),
    [
        (None, None, ProofResult.PROVEN),
        (WRONG, None, ProofResult.WRONG),
        (None, 0x100, ProofResult.OPEN),
        (WRONG, 0x100, ProofResult.WRONG),
    ],
)
def test_a_raw_read_of_the_bootloader_tells_the_key(bench, chip, key, damage, result):
    here = with_whole_bootloader(bench(chip))
    here.run(Profile.RELEASE, Lock.NONE)
    if damage is not None:
        here.board.flash[chip.bootloader_offset + damage] ^= 1
    with here.board.session() as session:
        proof = proof_by_bootloader(session, chip, key or here.vault.flash_key(MAC))
    assert proof.result is result


def test_plaintext_in_flash_proves_no_key(bench):
    here = with_whole_bootloader(bench(ESP32C3))
    here.run(Profile.OPEN)
    with here.board.session() as session:
        assert proof_by_bootloader(session, ESP32C3, WRONG).result is ProofResult.WRONG


def with_key_in_sight(here: Bench, key: bytes) -> ChipState:
    """The board as if `key` had been burned and its blocks not been protected."""
    fuses, blocks = here.chip.fuses, list(here.board.state().key_blocks)
    first = next(at for at, block in enumerate(blocks) if block.name == fuses.key_storage_block)
    for at, part in enumerate(key_parts(here.chip), first):
        blocks[at] = dataclasses.replace(
            blocks[at], empty=False, readable=True, purpose=part.purpose, key_id=key_id(part.of(key))
        )
    return dataclasses.replace(here.board.state(), key_blocks=tuple(blocks))


@pytest.mark.parametrize("chip", [ESP32, ESP32C3, ESP32S3], ids=lambda chip: chip.name)
def test_key_blocks_that_can_be_read_tell_the_key(bench, chip):
    here = bench(chip)
    size = chip.cipher.key_size_bytes
    key, other = bytes(range(1, size + 1)), bytes(range(size - 1)) + b"\xff"
    state = with_key_in_sight(here, key)
    assert proof_by_key_block(state, key).result is ProofResult.PROVEN
    assert proof_by_key_block(state, other).result is ProofResult.WRONG
    hidden = tuple(dataclasses.replace(block, readable=False, key_id=None) for block in state.key_blocks)
    assert proof_by_key_block(dataclasses.replace(state, key_blocks=hidden), key) is None
    assert proof_by_key_block(here.board.state(), key) is None


def test_half_a_key_in_sight_proves_none(bench):
    here = bench(ESP32S3)
    state = with_key_in_sight(here, bytes(range(64)))
    half = tuple(
        dataclasses.replace(block, purpose="USER") if block.purpose == "XTS_AES_256_KEY_2" else block
        for block in state.key_blocks
    )
    assert proof_by_key_block(dataclasses.replace(state, key_blocks=half), bytes(range(64))) is None
