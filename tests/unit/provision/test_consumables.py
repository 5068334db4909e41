"""What a chip has left of what does not come back, and when a scenario may use it up."""

from __future__ import annotations

import dataclasses

import pytest
from fuse_bench import MAC, VirtualBoard
from test_device_record import RECORD

from harness.chips import ESP32, ESP32C3, Chip
from harness.errors import UsageError
from harness.provision import Profile, unreachable_state
from harness.provision.chip_state import ChipState
from harness.provision.consumables import (
    Resource,
    Stocks,
    added,
    refusal_of_use,
    stocks_of,
    uses_of,
)

BITS, SLOTS, REVOCATIONS, DEVICE_KEYS = Resource


def left(state: ChipState) -> list[int | None]:
    stocks = stocks_of(state)
    return [stocks.left(resource) for resource in Resource]


@pytest.mark.parametrize(
    ("chip", "bits", "slots"), [(ESP32, 32, 1), (ESP32C3, 16, 3)], ids=["esp32", "esp32c3"]
)
def test_a_blank_chip_has_everything_but_keys_that_could_be_revoked(chip: Chip, bits: int, slots: int):
    assert left(VirtualBoard(chip).state()) == [bits, slots, 0, 1]


@pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
def test_burned_bits_of_the_secure_version_are_gone(chip: Chip):
    board = VirtualBoard(chip)
    board.set_fuses(SECURE_VERSION=0b0111)
    blank = stocks_of(VirtualBoard(chip).state()).left(BITS)
    assert blank is not None
    assert stocks_of(board.state()).left(BITS) == blank - 3
    board.protect("SECURE_VERSION")
    assert stocks_of(board.state()).left(BITS) == 0


def test_a_key_for_the_flash_leaves_none_for_the_device_to_make():
    board = VirtualBoard(ESP32C3)
    with board.quietly():
        board.burner().burn_key("BLOCK_KEY0", "XTS_AES_128_KEY", bytes(range(32)))
    assert left(board.state()) == [16, 3, 0, 0]


def with_digests(*slots: int, revoked: tuple[int, ...] = ()) -> ChipState:
    """An ESP32-C3 whose key blocks hold boot keys for `slots`."""
    board = VirtualBoard(ESP32C3)
    with board.quietly():
        for block, slot in enumerate(slots, start=1):
            board.burner().burn_key(f"BLOCK_KEY{block}", f"SECURE_BOOT_DIGEST{slot}", bytes([slot + 1] * 32))
    board.set_fuses(SECURE_BOOT_EN=1, **{f"SECURE_BOOT_KEY_REVOKE{slot}": 1 for slot in revoked})
    return board.state()


@pytest.mark.parametrize(
    ("digests", "revoked", "slots", "revocations"),
    [
        ((0,), (), 2, 0),
        ((0,), (1, 2), 0, 0),
        ((0, 1), (), 1, 1),
        ((0, 1), (0,), 1, 0),
        ((0, 1, 2), (), 0, 2),
        ((0, 1, 2), (1,), 0, 1),
    ],
)
def test_of_the_boot_keys_all_but_the_last_valid_one_can_be_revoked(
    digests: tuple[int, ...], revoked: tuple[int, ...], slots: int, revocations: int
):
    stocks = stocks_of(with_digests(*digests, revoked=revoked))
    assert (stocks.left(SLOTS), stocks.left(REVOCATIONS)) == (slots, revocations)


def test_slots_without_a_free_key_block_are_none():
    board = VirtualBoard(ESP32C3)
    with board.quietly():
        for block in range(5):
            board.burner().burn_key(f"BLOCK_KEY{block}", "HMAC_UP", bytes([block + 1] * 32))
    assert stocks_of(board.state()).left(SLOTS) == 1


def test_behind_a_lock_the_record_tells():
    locked = unreachable_state(ESP32C3, MAC)
    assert [stocks_of(locked).left(resource) for resource in Resource] == [None] * 4
    fuses = {"SECURE_VERSION": 1, "SPI_BOOT_CRYPT_CNT": 7, "KEY_PURPOSE_0": 4, "KEY_PURPOSE_1": 9}
    fuses |= {"KEY_PURPOSE_2": 10, **{f"KEY_PURPOSE_{n}": 0 for n in (3, 4, 5)}}
    record = dataclasses.replace(RECORD, fuses=fuses, profile=Profile.RELEASE_SBV2)
    stocks = stocks_of(locked, record)
    assert [stocks.left(resource) for resource in Resource] == [15, 1, 1, 0]
    assert stocks.less({BITS: 2, SLOTS: 3}).text() == (
        "secure_version 13 of 16, digest_slots 0 of 3, revocations 1 of 2, device_keys 0 of 1"
    )


FULL = stocks_of(VirtualBoard(ESP32C3).state())
EMPTY = FULL.less({BITS: 15})
UNKNOWN = stocks_of(unreachable_state(ESP32C3, MAC))


@pytest.mark.parametrize(
    ("physical", "named", "budget", "spent", "stocks", "said"),
    [
        (False, False, 0, 0, FULL, None),
        (False, False, 0, 0, UNKNOWN, None),
        (False, False, 0, 0, EMPTY, "has left: secure_version 1 of 16"),
        (True, True, 4, 0, FULL, None),
        (True, True, 4, 2, FULL, None),
        (True, False, 4, 0, FULL, "needs '--consume desk' on this run"),
        (True, True, 0, 0, FULL, "needs 'budget: {secure_version: …}' in its entry"),
        (True, False, 0, 0, FULL, "needs '--consume desk' on this run and 'budget: "),
        (True, True, 4, 3, FULL, "a budget in its entry: secure_version 4, of which 3 are spent"),
        (True, True, 4, 0, EMPTY, "has left: secure_version 1 of 16"),
        (True, True, 4, 0, UNKNOWN, "nothing tells what board desk has left of secure_version"),
    ],
)
def test_a_physical_board_gives_only_when_named_and_within_its_budget_and_none_gives_more_than_it_has(
    physical: bool, named: bool, budget: int, spent: int, stocks: Stocks, said: str | None
):
    found = refusal_of_use(
        {BITS: 2},
        board_name="desk",
        physical=physical,
        consumed={"desk"} if named else {"other"},
        budget={BITS: budget, SLOTS: 0},
        spent={BITS: spent},
        stocks=stocks,
    )
    assert (found is None) if said is None else (found is not None and said in found), found


def test_what_is_declared_is_checked():
    assert uses_of({"secure_version": 2, "revocations": 1}) == {BITS: 2, REVOCATIONS: 1}
    assert added([{BITS: 2}, {BITS: 1, SLOTS: 1}]) == {BITS: 3, SLOTS: 1}
    with pytest.raises(UsageError, match="nothing called 'luck' can be used up"):
        uses_of({"luck": 1})
    for amount in (0, -1, True, "1"):
        with pytest.raises(UsageError, match="is a number from 1"):
            uses_of({"secure_version": amount})
