"""What came of an exploration: counts, findings, wear. Data and its printed forms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.explore.windows import FoundWindow

FORMAT = 1

LAYERS = {
    "shipping C": "the handler's own call, the same source as on the chip",
    "port": "a function of ESP-IDF as the native port has it",
    "model": "ROM, bootloader, eFuse driver or host tool as the twin has them",
}
"""Who made an operation, and what a result about it rests on."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One cut, or chain of cuts, after which something does not hold."""

    sequence: str
    cut: str
    operation: Mapping[str, Any]
    """n, step, who, layer, kind, offset, length, place of the operation that was cut."""
    of: int
    """How many operations the sequence has."""
    problems: Sequence[str]
    replay: str
    """The command that repeats it."""
    evidence: Mapping[str, Any] = field(repr=False, default_factory=dict)
    """otadata, flash maps before and after, the last lines of the UART."""

    def lines(self) -> list[str]:
        """For a person, as many lines as it takes."""
        op = self.operation
        head = (
            f"{self.sequence}: cut {self.cut}: operation {op['n']} of {self.of}, in '{op['step']}': "
            f"{op['kind']} of {op['length']} bytes at {op['place']} by {op['who']} ({op['layer']})"
        )
        lines = [head, *(f"  {problem}" for problem in self.problems)]
        if "otadata" in self.evidence:
            lines.append(f"  otadata: {self.evidence['otadata']}")
        for name in ("before", "after"):
            if self.evidence.get(name):
                lines += [f"  flash {name}:", *(f"    {row}" for row in self.evidence[name])]
        if self.evidence.get("legend"):
            lines.append(f"    {self.evidence['legend']}")
        lines += [f"  {text}" for text in self.evidence.get("said", ())]
        if self.evidence.get("lines"):
            lines += ["  last lines of the UART:", *(f"    {row}" for row in self.evidence["lines"])]
        return [*lines, f"  again: {self.replay}"]


@dataclass(slots=True)
class Explored:
    """Everything about one sequence."""

    sequence: str
    about: str
    places: Sequence[Mapping[str, Any]] = ()
    """label, offset and size of every partition."""
    operations: list[Mapping[str, Any]] = field(default_factory=list)
    wear: list[list[int]] = field(default_factory=list)
    """[sector, erases, bytes written] of the clean run."""
    cut_points: int = 0
    """How many cuts there are, at the depth that was asked for."""
    cuts: int = 0
    """How many of them were tried."""
    chains: Counter[str] = field(default_factory=Counter)
    """How many chains were tried, by the number of cuts in each."""
    seen: set[str] = field(default_factory=set, repr=False)
    """Digests of the stored states that cuts left."""
    executed: int = 0
    """How often a board was switched on for it; the other cuts share what came of one of these."""
    seconds: float = 0.0
    """Of one core."""
    booted: Counter[str] = field(default_factory=Counter)
    stopped: bool = False
    """There were so many violations that the rest was not tried."""
    findings: list[Finding] = field(default_factory=list)
    windows: dict[str, FoundWindow] = field(default_factory=dict)
    """By name: those of the declared ones that were met."""
    clean_problem: str | None = None
    """Why the run without a cut did not come out as it must."""
    clean_lines: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        proven = all(proof.problem is None for window in self.windows.values() for proof in window.proofs)
        return not self.findings and self.clean_problem is None and bool(self.operations) and proven

    @property
    def in_windows(self) -> int:
        """Cuts and chains after which the board was in a declared window: neither passed nor violations."""
        return sum(len(window.cuts) + window.chains for window in self.windows.values())

    @property
    def states(self) -> int:
        """How many stored states differ, over all cuts; chains not counted."""
        return len(self.seen)

    @property
    def layers(self) -> Counter[str]:
        """Operations by who made them."""
        return Counter(str(operation["layer"]) for operation in self.operations)

    @property
    def rate(self) -> float:
        """Cuts and chains per second and core."""
        tried = self.cuts + sum(self.chains.values())
        return tried / self.seconds if self.seconds else 0.0

    @property
    def _tried(self) -> str:
        return (
            f"{self.cuts} cuts" if self.cuts == self.cut_points else f"{self.cuts} of {self.cut_points} cuts"
        )

    def lines(self) -> list[str]:
        """For a person."""
        if self.clean_problem is not None:
            said = [f"    {line}" for line in self.clean_lines]
            return [f"✗ {self.sequence}: without any cut: {self.clean_problem}", *said]
        layers = ", ".join(f"{count} {layer}" for layer, count in sorted(self.layers.items()))
        chains = "".join(
            f", {count} chains of {size}" for size, count in sorted(self.chains.items()) if count
        )
        ran = ", ".join(f"{version} {count}×" for version, count in sorted(self.booted.items()))
        lines = [
            f"{'✓' if self.ok else '✗'} {self.sequence}: {self.about}",
            f"    {len(self.operations)} operations ({layers})",
            f"    {self._tried}{chains}: {len(self.findings)} violations"
            + (", and no more were looked for" if self.stopped else ""),
            f"    {self.states} different stored states, {self.executed} recoveries run; what came up: {ran}",
            f"    {self.rate:.0f} cuts per second and core",
        ]
        lines += [f"    wear: {line}" for line in wear_lines(self.wear, self.places)]
        for window in self.windows.values():
            lines += [f"    {line}" for line in window.lines(self.operations, self.cuts)]
        for finding in self.findings[:5]:
            lines += [f"    {line}" for line in finding.lines()]
        if len(self.findings) > 5:
            lines.append(f"    … {len(self.findings) - 5} more in explore.json")
        return lines

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "sequence": self.sequence,
            "about": self.about,
            "ok": self.ok,
            "cut_points": self.cut_points,
            "cuts": self.cuts,
            "chains": dict(self.chains),
            "violations": len(self.findings),
            "stopped": self.stopped,
            "states": self.states,
            "executed": self.executed,
            "seconds": round(self.seconds, 3),
            "cuts_per_second_and_core": round(self.rate, 1),
            "booted": dict(self.booted),
            "layers": dict(self.layers),
            "clean_problem": self.clean_problem,
            "operations": [dict(operation) for operation in self.operations],
            "wear": self.wear,
            "windows": [window.to_json(self.operations) for window in self.windows.values()],
            "findings": [
                {
                    "cut": finding.cut,
                    "operation": dict(finding.operation),
                    "of": finding.of,
                    "problems": list(finding.problems),
                    "replay": finding.replay,
                    **finding.evidence,
                }
                for finding in self.findings
            ],
        }


def wear_lines(wear: Sequence[Sequence[int]], places: Sequence[Mapping[str, Any]]) -> list[str]:
    """Erases and bytes written per partition, the sector that wears most first; one line a partition."""
    lines = []
    for place in places:
        first, last = place["offset"] // 0x1000, (place["offset"] + place["size"]) // 0x1000
        rows = [row for row in wear if first <= row[0] < last]
        if rows:
            most = max(row[1] for row in rows)
            lines.append(
                f"{place['label']}: {len(rows)} sectors, {sum(row[1] for row in rows)} erases (at most {most} of one), "
                f"{sum(row[2] for row in rows)} bytes written"
            )
    return lines
