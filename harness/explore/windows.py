"""Windows that the silicon leaves: cuts after which a board cannot go on by itself. Declared, named, never passed over.

A sequence declares what may be found and what leads out of it. A cut that shows exactly this is counted to the window
instead of to the violations; anything else that is wrong after the same cut stays a violation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SECTOR_BYTES = 0x1000
PAGE_BYTES = 0x100

ERASE_MS = 45.0
"""Of a sector: what data sheets of 4 MiB NOR flash call typical (at most 300)."""
PAGE_MS = 0.7
"""Of a page program: the same (at most 3)."""
BURN_MS = 0.32
"""Of any burn: EFUSE_PWR_ON_NUM (0x3000) and EFUSE_PWR_OFF_NUM (0x190) cycles of 40 MHz (``efuse_hal_set_timing``)."""
BIT_MS = 0.01
"""Of every bit that is blown, one after another; here all bits of a block are counted, the most that it can be."""


@dataclass(frozen=True, slots=True)
class Window:
    """What a sequence declares."""

    name: str
    shows: str
    """What is in the one thing that is wrong after such a cut, or in what the UART said."""
    does: str
    """What the board does then."""
    why: str
    """Whose it is, and why it cannot be closed."""
    way_out: str
    """What leads out of it, and until when."""
    steps: tuple[str, ...]
    """The steps of the sequence that it lies in."""
    sign: str = ""
    """What eFuses show besides, a word of `harness.twin.explorer.signs`; empty: nothing in particular."""
    leads_out: bool = True
    """False: the board is lost to the profile, and sacrificed."""


@dataclass(slots=True)
class FoundWindow:
    """A window that was met."""

    window: Window
    cuts: list[str] = field(default_factory=list)
    operations: set[int] = field(default_factory=set)
    """Numbers (from 1) of those that were cut."""
    chains: int = 0
    """Chains of cuts that ended in it."""
    proofs: list[Proof] = field(default_factory=list)

    @property
    def first(self) -> int:
        return min(self.operations, default=0)

    @property
    def last(self) -> int:
        return max(self.operations, default=0)

    def sample(self, count: int) -> list[str]:
        """`count` of its cuts, as evenly spread as there are: one at each end, and the others between."""
        last, count = len(self.cuts) - 1, min(count, len(self.cuts))
        return [self.cuts[last * place // max(count - 1, 1)] for place in range(count)]

    def length_ms(self, operations: Sequence[Mapping[str, Any]]) -> float:
        """How long a board is in it in a run without a cut: the operations from the first to the last that was cut."""
        return sum(duration_ms(op) for op in operations if self.first <= op["n"] <= self.last)

    def lines(self, operations: Sequence[Mapping[str, Any]], cuts: int) -> list[str]:
        """For a person."""
        met = f"{len(self.cuts)} of {cuts} cuts" if self.cuts else "no single cut"
        met += f", {self.chains} chains" if self.chains else ""
        where = ""
        if self.cuts:
            kinds = {op["kind"] for op in operations if op["n"] in self.operations}
            place = (
                f"operation {self.first}"
                if self.first == self.last
                else f"operations {self.first} to {self.last}"
            )
            where = (
                f", {place} of {len(operations)} ({', '.join(sorted(kinds))}; cuts {self.cuts[0]} to {self.cuts[-1]}), "
                f"{said_ms(self.length_ms(operations))}"
            )
        return [
            f"window '{self.window.name}': {met}{where}",
            f"    then: {self.window.does}",
            f"    why: {self.window.why}",
            f"    {'way out' if self.window.leads_out else 'NO WAY OUT'}: {self.window.way_out}",
            *(f"    {proof.text()}" for proof in self.proofs),
        ]

    def to_json(self, operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """For machines."""
        return {
            "name": self.window.name,
            "cuts": self.cuts,
            "chains": self.chains,
            "first_operation": self.first,
            "last_operation": self.last,
            "of": len(operations),
            "length_ms": round(self.length_ms(operations), 2),
            "then": self.window.does,
            "why": self.window.why,
            "way_out": self.window.way_out,
            "leads_out": self.window.leads_out,
            "proofs": [
                {"cut": proof.cut, "ok": proof.problem is None, "came_to": proof.text()}
                for proof in self.proofs
            ],
        }


@dataclass(frozen=True, slots=True)
class Proof:
    """A board that was brought into a window by that cut, and led out of it again."""

    cut: str
    problem: str | None
    """Why the way out did not lead to where it must; None: it did."""
    ends: str
    """Where it led."""

    def text(self) -> str:
        if self.problem is not None:
            return f"NOT proven at cut {self.cut}: {self.problem}"
        return f"proven at cut {self.cut}: {self.ends}"


def duration_ms(operation: Mapping[str, Any]) -> float:
    """What one operation takes on silicon, as modelled here; `operation` has kind and length in bytes."""
    kind, length = str(operation["kind"]), int(operation["length"])
    if kind == "burn":
        return BURN_MS + BIT_MS * 8 * length
    if kind == "erase":
        return ERASE_MS * max(1, length // SECTOR_BYTES)
    return PAGE_MS * -(-length // PAGE_BYTES)


def said_ms(value: float) -> str:
    """A length of time in words, and that it is modelled."""
    return f"{value / 1000:.1f} s (modelled)" if value >= 1000 else f"{value:.1f} ms at most (modelled)"
