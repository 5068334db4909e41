"""How long the phases of a run took, under names that stay the same from run to run.

What changes each time (versions, addresses, byte counts) is left out of the name: ``update to 1.1.0`` and ``update to
1.2.0`` are one phase.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.report.run_record import Event, RunRecord

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


def phase_name(event: Event) -> str:
    """``kind: what``, without what differs from run to run."""
    words = re.sub(r"\s+", " ", _CHANGING.sub("…", event.text)).strip()
    return f"{event.kind}: {words}"[:_LONGEST_NAME] if words else event.kind


def phases_of(run: RunRecord) -> Iterator[Phase]:
    """Everything on the timelines of `run` that has a duration."""
    chips = {board.name: board.chip for board in run.boards}
    for test in run.tests:
        for event in test.events:
            if event.duration_s is not None and event.duration_s >= 0:
                chip = chips.get(test.board) if test.board else None
                yield Phase(test.board, chip, phase_name(event), event.at_s, event.duration_s, event.size)
