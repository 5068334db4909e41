"""Which sequences were sampled under a chip's mask ROM: what a result about the model rests on, beyond the model.

A stored state that a cut leaves was booted twice: by mask ROM and ESP-IDF's bootloader in an emulator, and by the
twin. A state agrees when both printed the same lines and left the same flash. How it was done, and what was not sampled,
is in ``docs/robustness.md``; some of it is repeated by ``tests/unit/twin/test_cuts_recorded.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sampled:
    """One sequence on one chip. All of its `states` agreed; one that does not is mended before it is counted."""

    chip: str
    sequence: str
    idf: str
    states: int
    """Stored states that were booted on both."""
    limits: str = ""
    """What of the sequence was not sampled."""

    def __str__(self) -> str:
        limits = f"; {self.limits}" if self.limits else ""
        return f"sampled under ESP-IDF {self.idf} for {self.chip}: {self.states} states agree{limits}"


SAMPLED: tuple[Sampled, ...] = (
    Sampled("esp32c3", "update", "v5.5.5", 300),
    Sampled("esp32c3", "rollback", "v5.5.5", 264),
    Sampled("esp32c3", "rollback-command", "v5.5.5", 91),
    Sampled("esp32c3", "anti-rollback", "v5.5.5", 288, "what boots; no burn was cut"),
    Sampled("esp32", "update", "v5.5.5", 64),
    Sampled("esp32", "rollback", "v5.5.5", 46),
)


def sampled(chip: str, sequence: str) -> Sampled | None:
    """What was sampled of `sequence` on `chip`; None: nothing."""
    return next((row for row in SAMPLED if (row.chip, row.sequence) == (chip, sequence)), None)


def model_lines(chip: str, sequences: Sequence[str]) -> list[str]:
    """What the model of `sequences` rests on, those that rest on the same in one line."""
    by_statement: dict[str, list[str]] = {}
    for sequence in sequences:
        row = sampled(chip, sequence)
        statement = "not sampled on this chip" if row is None else str(row)
        by_statement.setdefault(statement, []).append(sequence)
    return [f"model, {statement} ({', '.join(names)})" for statement, names in by_statement.items()]
