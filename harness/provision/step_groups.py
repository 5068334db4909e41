"""Which steps of a plan belong together: a signal waits for the end of a group, and time is asked for the whole of it.

After every step a board is left that the next run can go on with, so most burns stand alone. Together stay the two
halves of one key, and a lock with the record behind it: once it is burned the chip tells next to nothing, and the
record is what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.provision.steps import (
    BurnKey,
    FirmwareBurns,
    FirmwareCommand,
    LockDownload,
    ProtectKey,
    Step,
    WriteRecord,
)


@dataclass(frozen=True, slots=True)
class StepGroup:
    """Steps that are not parted, in their order."""

    first: int
    """Number of the first one, from 1."""
    steps: tuple[Step, ...]

    @property
    def burns(self) -> bool:
        """eFuses are burned in it, by the host or at its word."""
        return any(burns_now(step) for step in self.steps)


def burns_now(step: Step) -> bool:
    """Whether doing this step burns; what a firmware burns by itself it burns when it boots."""
    return step.irreversible and not isinstance(step, FirmwareBurns)


def groups_of(steps: Sequence[Step]) -> tuple[StepGroup, ...]:
    """All steps of a plan, grouped."""
    groups: list[StepGroup] = []
    for number, step in enumerate(steps, 1):
        if groups and _belongs_to(step, groups[-1].steps[-1]):
            groups[-1] = StepGroup(groups[-1].first, (*groups[-1].steps, step))
        else:
            groups.append(StepGroup(number, (step,)))
    return tuple(groups)


def _belongs_to(step: Step, before: Step) -> bool:
    if isinstance(before, (LockDownload, FirmwareCommand)):
        return isinstance(step, WriteRecord)
    half_done = isinstance(before, BurnKey) and before.half == 0
    return half_done and isinstance(step, (BurnKey, ProtectKey))
