"""Where in a recorded sequence the power is cut. Pure: the same list for the same recording and seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import UsageError
from harness.twin.half_done import ERASE_MIXTURES, PAGE_BYTES, SECTOR_BYTES, Extent, burned
from harness.twin.operations import Change, CutPoint

SMALL_WRITE_BYTES = 64
"""A write up to this size is cut at each of its bytes: an otadata record."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One cut. `op` counts the operations of the sequence from 0; `byte` and `mixture` as those of a `PowerCut`."""

    op: int
    where: CutPoint
    byte: int = 0
    mixture: int | None = None

    def extent(self, length: int) -> Extent | None:
        """How much of an operation of `length` bytes it leaves done; None: it did not begin."""
        if self.where is CutPoint.BEFORE:
            return None
        return Extent(self.byte, self.mixture) if self.where is CutPoint.INSIDE else Extent(length)

    def __str__(self) -> str:
        """As `parse_cut` takes it, operations counted from 1: ``17:inside:2048:5``."""
        text = f"{self.op + 1}:{self.where.value}"
        if self.where is CutPoint.INSIDE:
            text += f":{self.byte}" + ("" if self.mixture is None else f":{self.mixture}")
        return text


def parse_cut(text: str) -> Cut:
    """The cut that `Cut.__str__` printed.

    Raises:
        UsageError: it is none.
    """
    todo = "write OP:before, OP:after, or OP:inside:BYTE[:MIXTURE], as a report names it"
    parts = text.split(":")
    try:
        op, where, numbers = int(parts[0]), CutPoint(parts[1]), [int(part) for part in parts[2:]]
    except (ValueError, IndexError):
        raise UsageError(f"'{text}' is no cut", todo=todo) from None
    wanted = (1, 2) if where is CutPoint.INSIDE else (0,)
    if op < 1 or len(numbers) not in wanted or any(number < 0 for number in numbers):
        raise UsageError(f"'{text}' is no cut", todo=todo)
    return Cut(op - 1, where, *numbers)


def cuts_of(
    changes: Sequence[Change], *, seed: int, every_byte: bool = False, few_inside: bool = False
) -> Iterator[Cut]:
    """Before the first operation, inside each, and after each; what is after one is before the next.

    Inside an erase: at every sector's end, and in every sector with each of `ERASE_MIXTURES`. Inside a small write: at
    every byte, sharp and with the bits in progress mixed; inside a burn each set of bits that this gives, once. Inside a
    larger write: at every page's end and somewhere in every page; with `every_byte` at every byte. With `few_inside` an
    operation of flash is cut inside in one of these places only.
    """
    if changes:
        yield Cut(0, CutPoint.BEFORE)
    for op, change in enumerate(changes):
        chance = random.Random(f"{seed}/{op}")
        within = list(inside(change, chance, every_byte=every_byte))
        if few_inside and within and change.operation.kind != "burn":
            within = [chance.choice(within)]
        for byte, mixture in within:
            yield Cut(op, CutPoint.INSIDE, byte, mixture)
        yield Cut(op, CutPoint.AFTER)


def sampled(cuts: Sequence[Cut], count: int | None, seed: int, decisive: frozenset[int]) -> list[Cut]:
    """`count` of `cuts`, in their order; None: all.

    What lies whole on both sides of an operation comes first; then, in turns, one inside of each operation and two of
    those in `decisive` (otadata, eFuses), of which there are few, and on which it depends what boots.
    """
    if count is None or count >= len(cuts):
        return list(cuts)
    chance = random.Random(seed)
    whole: list[int] = []
    by_op: dict[int, list[int]] = {}
    for at, cut in enumerate(cuts):
        if cut.where is CutPoint.INSIDE:
            by_op.setdefault(cut.op, []).append(at)
        else:
            whole.append(at)
    whole.sort(key=lambda at: (cuts[at].op not in decisive, chance.random()))
    chosen = set(whole[:count])
    groups = {op: chance.sample(group, len(group)) for op, group in by_op.items()}
    turn = [*groups, *(op for op in groups if op in decisive)]
    while len(chosen) < count:
        turn.sort(key=lambda op: (op not in decisive, chance.random()))
        for op in turn:
            if groups[op] and len(chosen) < count:
                chosen.add(groups[op].pop())
    return [cuts[at] for at in sorted(chosen)]


def inside(change: Change, chance: random.Random, *, every_byte: bool) -> Iterator[tuple[int, int | None]]:
    """(byte, mixture) of every cut inside one operation."""
    if change.operation.kind == "erase":
        yield from _inside_erase(change.operation.length, chance)
        return
    if change.operation.kind == "burn":
        yield from _inside_burn(change.data, chance)
        return
    length = len(change.data)
    sharp = every_byte or length <= SMALL_WRITE_BYTES
    for byte in range(1, length) if sharp else range(PAGE_BYTES, length, PAGE_BYTES):
        yield byte, None
    if length <= SMALL_WRITE_BYTES:
        for byte in range(length):
            yield byte, chance.getrandbits(30)
        return
    for page in range(0, length, PAGE_BYTES):
        yield page + chance.randrange(min(PAGE_BYTES, length - page)), chance.getrandbits(30)


def _inside_burn(data: bytes, chance: random.Random) -> Iterator[tuple[int, int | None]]:
    """Each set of bits that may be blown once: of a burn of one bit there is no half."""
    value = int.from_bytes(data, "little")
    seen = {0, value}
    places = [(byte, None) for byte in range(1, len(data))]
    for byte, mixture in [*places, *((byte, chance.getrandbits(30)) for byte in range(len(data)))]:
        blown = burned(value, Extent(byte, mixture), len(data))
        if blown not in seen:
            seen.add(blown)
            yield byte, mixture


def _inside_erase(length: int, chance: random.Random) -> Iterator[tuple[int, int | None]]:
    for sector in range(0, length, SECTOR_BYTES):
        if sector:
            yield sector, None
        for kind in range(len(ERASE_MIXTURES)):
            yield sector, kind + len(ERASE_MIXTURES) * chance.getrandbits(26)
