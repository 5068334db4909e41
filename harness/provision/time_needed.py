"""How long what must not be broken off may take, and the refusal to begin it when a stated deadline comes sooner.

The figures are upper bounds, not averages: several times what was measured on twins and on QEMU (a key burned by
espefuse 2.6 s, one reset and connection included), and for remote links what a slow network adds to some 900 register
accesses of one burn. First-boot encryption by ESP-IDF's bootloader took 28 s for a slot of 1 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.deadline import Deadline
from harness.errors import RefusedError
from harness.provision.step_groups import StepGroup, burns_now
from harness.provision.steps import FirmwareCommand, Step

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Pace:
    """Upper bounds for one kind of link, in seconds."""

    burn_s: float
    """One burn through the ROM: reset, connection, programming, reading back."""
    boot_s: float
    """From reset to the running firmware, and one command to it."""
    encrypt_s_per_mib: float
    """First-boot encryption of one MiB."""

    def need_s(self, steps: Sequence[Step]) -> float:
        """Of steps that are not parted; those that burn nothing take no time worth counting."""
        return sum(self._step_s(step) for step in steps if burns_now(step))

    def _step_s(self, step: Step) -> float:
        # Behind a burn by the firmware the ROM is asked whether it took.
        return self.boot_s + self.burn_s if isinstance(step, FirmwareCommand) else self.burn_s

    def first_boot_s(self, size_bytes: int) -> float:
        """Of a firmware that enciphers `size_bytes` of flash, or burns eFuses, by itself when it first runs."""
        return self.boot_s + self.encrypt_s_per_mib * size_bytes / MIB


PACES = {
    "twin": Pace(burn_s=5, boot_s=15, encrypt_s_per_mib=5),
    "qemu": Pace(burn_s=10, boot_s=30, encrypt_s_per_mib=60),
    "espemu": Pace(burn_s=10, boot_s=30, encrypt_s_per_mib=60),
    "serial": Pace(burn_s=15, boot_s=45, encrypt_s_per_mib=60),
    "rfc2217": Pace(burn_s=60, boot_s=60, encrypt_s_per_mib=60),
    "labgrid": Pace(burn_s=60, boot_s=60, encrypt_s_per_mib=60),
}
"""By `Link.kind`."""

SLOWEST = PACES["rfc2217"]
"""Of a link that is not listed."""


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """A deadline, and what a board's link needs."""

    deadline: Deadline | None
    pace: Pace

    @classmethod
    def on(cls, link_kind: str, deadline: Deadline | None) -> TimeLeft:
        """For a board on a link of that kind."""
        return cls(deadline, PACES.get(link_kind, SLOWEST))

    def require_for(self, group: StepGroup, total: int, *, board: str) -> None:
        """Before a group of steps that burns.

        Raises:
            RefusedError: it may take longer than there is time; names the step, its need, and what is left.
        """
        first, *rest = group.steps
        name = f"step {group.first}/{total} ({first.headline})"
        if rest:
            name += f", with {'; '.join(step.headline for step in rest)}, which is not parted from it,"
        self._require(self.pace.need_s(group.steps), name, board)

    def require_for_first_boot(self, size_bytes: int, *, board: str) -> None:
        """Before the first boot of a firmware that burns by itself; raises as `require_for`."""
        self._require(
            self.pace.first_boot_s(size_bytes),
            "the first boot, in which the firmware burns by itself,",
            board,
        )

    def _require(self, need_s: float, what: str, board: str) -> None:
        if self.deadline is None:
            return
        left_s = max(0.0, self.deadline.left_s())
        if left_s < need_s:
            raise RefusedError(
                f"{what} may take {need_s:.0f} s, and {left_s:.0f} s are left ({self.deadline.told_by}). "
                "It was not begun; nothing is half done",
                board=board,
                todo="run it again with more time: the next run goes on from here",
            )
