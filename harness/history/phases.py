"""How long the phases of a run took, under names that stay the same from run to run.

What changes each time (versions, addresses, byte counts) is left out of the name: ``update to 1.1.0`` and ``update to
1.2.0`` are one phase.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.report.run_record import RunRecord

_CHANGING = re.compile(r"\b0x[0-9a-fA-F]+\b|\bv?\d+(?:\.\d+)*(?:[-+][\w.]+)?\b|\b[0-9a-fA-F]{8,}\b")
_LONGEST_NAME = 80


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of a run."""

    board: str | None
    chip: str | None
    name: str
    began_s: float
    duration_s: float
    size: int | None
    """Bytes that it moved."""


def phase_name(kind: str, text: str) -> str:
    """``kind: what``, without what differs from run to run."""
    words = re.sub(r"\s+", " ", _CHANGING.sub("…", text)).strip()
    return f"{kind}: {words}"[:_LONGEST_NAME] if words else kind


def phases_of(run: RunRecord) -> Iterator[Phase]:
    """Everything on the timelines of `run` that has a duration, and the steps of a run that is no pytest."""
    chips = {board.name: board.chip for board in run.boards}
    for test in run.tests:
        chip = chips.get(test.board) if test.board else None
        if "::" not in test.id and test.outcome == "passed":
            name = phase_name(run.kind, test.name)
            yield Phase(test.board, chip, name, test.began_s, test.duration_s, None)
        for event in test.events:
            if event.duration_s is not None and event.duration_s >= 0:
                name = phase_name(event.kind, event.text)
                yield Phase(test.board, chip, name, event.at_s, event.duration_s, event.size)
