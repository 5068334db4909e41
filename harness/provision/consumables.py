"""What a board has only so many of: bits of secure version, slots for boot keys, revocations, a flash key. Pure.

A scenario says what it uses up each time it runs. Nothing of it ever comes back, so a physical board gives it only
when it is named for that, and within the budget of its entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from harness.chips.chip import KEY_PURPOSE_NUMBERS
from harness.chips.efuses import efuse_geometry
from harness.errors import UsageError
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord
from harness.provision.key_blocks import flash_key_blocks

SECURE_VERSION_FUSE = "SECURE_VERSION"
_DIGEST = "SECURE_BOOT_DIGEST"
"""With what the purpose of a block that holds a boot key begins."""

_DIGEST_PURPOSES = {n: name for name, n in KEY_PURPOSE_NUMBERS.items() if name.startswith(_DIGEST)}


class Resource(str, Enum):
    """The value is the word in ``@pytest.mark.consumes`` and in a board's ``budget``."""

    SECURE_VERSION = "secure_version"
    """Bits of the anti-rollback counter: raising it by n burns n of them."""
    DIGEST_SLOTS = "digest_slots"
    """Places for the digest of a boot key, neither filled nor revoked."""
    REVOCATIONS = "revocations"
    """Boot keys that can be revoked. The last one that is valid does not count: without it nothing boots."""
    DEVICE_KEYS = "device_keys"
    """Flash keys that the device can still make itself: one, as long as it has none."""


Uses = Mapping[Resource, int]
"""How much of each is used up; what is not named is not used."""


def uses_of(amounts: Mapping[str, object]) -> dict[Resource, int]:
    """What ``@pytest.mark.consumes(secure_version=1)`` says.

    Raises:
        UsageError: there is no such resource, or the amount is not a positive number.
    """
    uses: dict[Resource, int] = {}
    for word, amount in amounts.items():
        try:
            resource = Resource(word)
        except ValueError:
            known = ", ".join(each.value for each in Resource)
            raise UsageError(f"nothing called '{word}' can be used up", todo=f"use one of: {known}") from None
        if not isinstance(amount, int) or isinstance(amount, bool) or amount < 1:
            raise UsageError(f"{word}={amount!r}: how much is used up is a number from 1")
        uses[resource] = amount
    return uses


def budget_of(amounts: Mapping[str, int]) -> dict[Resource, int]:
    """The budget in a board's entry: every resource by its word, 0 for those that may not be used up."""
    return {Resource(word): amount for word, amount in amounts.items()}


def added(uses: Iterable[Uses]) -> dict[Resource, int]:
    """All of `uses` together."""
    total: dict[Resource, int] = {}
    for each in uses:
        for resource, amount in each.items():
            total[resource] = total.get(resource, 0) + amount
    return total


@dataclass(frozen=True, slots=True)
class Stock:
    """How much of one resource a chip has left."""

    resource: Resource
    left: int | None
    """None: the chip does not tell, and neither does its record."""
    total: int
    """Of a blank chip of this kind."""

    def __str__(self) -> str:
        return f"{self.resource.value} {'?' if self.left is None else self.left} of {self.total}"


@dataclass(frozen=True, slots=True)
class Stocks:
    """What one chip has left of everything that can be used up."""

    by_resource: Mapping[Resource, Stock]

    def left(self, resource: Resource) -> int | None:
        return self.by_resource[resource].left

    def less(self, uses: Uses) -> Stocks:
        """What is left when `uses` have been used up, too; never below 0."""
        return Stocks(
            {
                resource: Stock(resource, _less(stock.left, uses.get(resource, 0)), stock.total)
                for resource, stock in self.by_resource.items()
            }
        )

    def text(self) -> str:
        """``secure_version 14 of 16, digest_slots 2 of 3, …``"""
        return ", ".join(str(stock) for stock in self.by_resource.values())

    def to_fields(self) -> dict[str, dict[str, int | None]]:
        """For JSON."""
        return {
            stock.resource.value: {"left": stock.left, "of": stock.total}
            for stock in self.by_resource.values()
        }


def stocks_of(state: ChipState, record: DeviceRecord | None = None) -> Stocks:
    """What the chip in `state` has left.

    Behind a lock of the download mode the chip tells nothing; then `record` does, as of the day it was written.
    What scenarios have used up since then is the caller's to subtract (`Stocks.less`).
    """
    chip = state.chip
    bits = efuse_geometry(chip.name).field(SECURE_VERSION_FUSE).bits
    slots = max(1, len(chip.secure_boot.revoke))
    totals = {
        Resource.SECURE_VERSION: bits,
        Resource.DIGEST_SLOTS: slots,
        Resource.REVOCATIONS: max(0, len(chip.secure_boot.revoke) - 1),
        Resource.DEVICE_KEYS: 1,
    }
    left: dict[Resource, int | None] = dict.fromkeys(Resource)
    if state.download is Download.OPEN:
        left = _left(state, _blocks_of(state))
    elif record is not None and record.fuses:
        left = _left(replace(state, fuses=record.fuses), _blocks_by_record(record))
    return Stocks({each: Stock(each, left[each], totals[each]) for each in Resource})


@dataclass(frozen=True, slots=True)
class _KeyBlocks:
    """What is known of a chip's key blocks."""

    purposes: frozenset[str]
    free: int
    has_flash_key: bool


def _blocks_of(state: ChipState) -> _KeyBlocks:
    return _KeyBlocks(
        frozenset(block.purpose for block in state.key_blocks if block.purpose is not None),
        sum(block.unused for block in state.key_blocks),
        bool(flash_key_blocks(state)),
    )


def _blocks_by_record(record: DeviceRecord) -> _KeyBlocks:
    """From the numbers in the record's snapshot of BLOCK0."""
    numbers = [value for name, value in record.fuses.items() if name.startswith("KEY_PURPOSE_")]
    return _KeyBlocks(
        frozenset(_DIGEST_PURPOSES[number] for number in numbers if number in _DIGEST_PURPOSES),
        numbers.count(0),
        record.profile.encrypts,
    )


def _left(state: ChipState, blocks: _KeyBlocks) -> dict[Resource, int | None]:
    boot = state.chip.secure_boot
    valid = [
        slot
        for slot, fuse in enumerate(boot.revoke)
        if f"{_DIGEST}{slot}" in blocks.purposes and not state.is_set(fuse)
    ]
    keyed = blocks.has_flash_key or bool(state.crypt_count)
    return {
        Resource.SECURE_VERSION: _secure_version_left(state),
        Resource.DIGEST_SLOTS: _digest_slots_left(state, blocks),
        Resource.REVOCATIONS: max(0, len(valid) - 1),
        Resource.DEVICE_KEYS: 0 if keyed else 1,
    }


def _secure_version_left(state: ChipState) -> int | None:
    if SECURE_VERSION_FUSE not in state.fuses:
        return None
    if SECURE_VERSION_FUSE in state.write_protected:
        return 0
    bits = efuse_geometry(state.chip_name).field(SECURE_VERSION_FUSE).bits
    return bits - bin(state.fuses[SECURE_VERSION_FUSE]).count("1")


def _digest_slots_left(state: ChipState, blocks: _KeyBlocks) -> int:
    boot = state.chip.secure_boot
    if not boot.revoke:
        block = state.block(boot.digest_block or "")
        return 0 if state.is_set(boot.enable) or (block is not None and not block.unused) else 1
    slots = [
        slot
        for slot, fuse in enumerate(boot.revoke)
        if f"{_DIGEST}{slot}" not in blocks.purposes and not state.is_set(fuse)
    ]
    return min(blocks.free, len(slots))


def _less(left: int | None, used: int) -> int | None:
    return None if left is None else max(0, left - used)


def refusal_of_use(
    uses: Uses,
    *,
    board_name: str,
    physical: bool,
    consumed: Collection[str],
    budget: Uses,
    spent: Uses,
    stocks: Stocks,
) -> str | None:
    """Why a scenario that uses up `uses` must not run on this board; None: it may.

    Args:
        physical: virtual boards need no consent, but what they have is used up, too.
        consumed: the names given with ``--consume`` on this run.
        budget: how much scenarios may use up in the life of this board, by its entry.
        spent: how much they have used up, by its ledger.
        stocks: what the chip has left.
    """
    wanted = ", ".join(f"{resource.value} {amount}" for resource, amount in uses.items())
    if physical:
        missing = [] if board_name in consumed else [f"'--consume {board_name}' on this run"]
        for resource, amount in uses.items():
            allowed, gone = budget.get(resource, 0), spent.get(resource, 0)
            if gone + amount > allowed:
                missing.append(
                    f"a budget in its entry: {resource.value} {allowed}, of which {gone} are spent"
                    if allowed
                    else f"'budget: {{{resource.value}: …}}' in its entry"
                )
        if missing:
            return f"uses up {wanted} of board {board_name} for good; needs {' and '.join(missing)}"
    for resource, amount in uses.items():
        left = stocks.left(resource)
        if left is None and physical:
            return f"uses up {wanted}, and nothing tells what board {board_name} has left of {resource.value}"
        if left is not None and left < amount:
            return f"uses up {wanted}; board {board_name} has left: {stocks.by_resource[resource]}"
    return None
