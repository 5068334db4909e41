"""A verdict is a list of claims, each with the evidence it rests on; pure data and its two printed forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

FORMAT_VERSION = 1


class Standing(str, Enum):
    """What became of a claim. A claim without evidence is ``not proven``, never ``proven``."""

    PROVEN = "proven"
    FAILED = "failed"
    NOT_PROVEN = "not proven"
    NOT_APPLICABLE = "not applicable"
    """The question does not arise for this board; it neither passes nor fails."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence about the device, and what was seen of it."""

    text: str
    standing: Standing
    evidence: str

    @classmethod
    def of(cls, text: str, holds: bool, evidence: str) -> Claim:
        """A claim that was looked at: proven or failed; without evidence it is not proven."""
        if not evidence:
            return cls(text, Standing.NOT_PROVEN, "nothing was seen")
        return cls(text, Standing.PROVEN if holds else Standing.FAILED, evidence)


@dataclass(frozen=True, slots=True)
class Verdict:
    """All claims of one run; failed if one failed, else not proven if one is, else passed."""

    subject: str
    claims: Sequence[Claim]
    facts: Mapping[str, Any]
    marks: Sequence[str] = ()
    """What whoever holds the device must know, whatever was proven: that it must not be shipped, and why."""

    @property
    def standing(self) -> Standing:
        """The worst standing among the claims; none at all proves nothing."""
        kinds = {claim.standing for claim in self.claims} - {Standing.NOT_APPLICABLE}
        if Standing.FAILED in kinds:
            return Standing.FAILED
        if Standing.NOT_PROVEN in kinds or not kinds:
            return Standing.NOT_PROVEN
        return Standing.PROVEN

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 5 not proven."""
        return {Standing.PROVEN: 0, Standing.FAILED: 1, Standing.NOT_PROVEN: 5}[self.standing]

    @property
    def word(self) -> str:
        """PASSED, FAILED or NOT PROVEN."""
        return {Standing.PROVEN: "PASSED", Standing.FAILED: "FAILED", Standing.NOT_PROVEN: "NOT PROVEN"}[
            self.standing
        ]

    @property
    def reason(self) -> str:
        """In one sentence: the first claim that fails or is not proven, else how many are."""
        for kind in (Standing.FAILED, Standing.NOT_PROVEN):
            claim = next((each for each in self.claims if each.standing is kind), None)
            if claim is not None:
                return f"{claim.text}: {kind.value} ({claim.evidence})"
        proven = sum(claim.standing is Standing.PROVEN for claim in self.claims)
        return f"{proven} claims, each with its evidence" if proven else "nothing was claimed"

    def lines(self) -> list[str]:
        """For a person: one line per claim, its evidence behind it, then the marks, the verdict last."""
        marks = {
            Standing.PROVEN: "✓",
            Standing.FAILED: "✗",
            Standing.NOT_PROVEN: "?",
            Standing.NOT_APPLICABLE: "-",
        }
        width = max((len(claim.text) for claim in self.claims), default=0)
        rows = [f"  {marks[c.standing]} {c.text.ljust(width)}  {c.evidence}" for c in self.claims]
        return [*rows, *(f"  ! {mark}" for mark in self.marks), "", f"{self.word}: {self.subject}"]

    def to_json(self) -> dict[str, Any]:
        """For machines; carries its format version."""
        return {
            "format": FORMAT_VERSION,
            "verdict": self.word.lower(),
            "subject": self.subject,
            "claims": [
                {"text": c.text, "standing": c.standing.value, "evidence": c.evidence} for c in self.claims
            ],
            "marks": list(self.marks),
            "facts": dict(self.facts),
        }
