"""A cut on a twin that really runs: armed over its control channel, as a report words it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.errors import BoardError, UsageError
from harness.links.flash_log import END_OF_FLASH_LOG
from harness.links.twin import TwinLink

BEFORE, INSIDE, AFTER = "before", "inside", "after"


@dataclass(frozen=True, slots=True)
class LiveCut:
    """`op` counts operations of flash and eFuses from 1. Inside: after `byte` bytes, the rest as `mixture` seeds."""

    op: int
    where: str
    byte: int = 0
    mixture: int | None = None

    def __str__(self) -> str:
        text = f"{self.op}:{self.where}"
        if self.where == INSIDE:
            text += f":{self.byte}" + ("" if self.mixture is None else f":{self.mixture}")
        return text

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts cuts by when they come."""
        return self.op, (BEFORE, INSIDE, AFTER).index(self.where), self.byte

    @classmethod
    def parse(cls, text: str) -> LiveCut:
        """The inverse of ``str``.

        Raises:
            UsageError: it is no cut.
        """
        op, _, rest = text.partition(":")
        where, *numbers = rest.split(":")
        most = 2 if where == INSIDE else 0
        if (
            where not in (BEFORE, INSIDE, AFTER)
            or not op.isdecimal()
            or int(op) < 1
            or not all(number.isdecimal() for number in numbers)
            or not min(most, 1) <= len(numbers) <= most
        ):
            raise UsageError(
                f"'{text}' is no cut",
                todo="write OP:before, OP:after, or OP:inside:BYTE[:MIXTURE], as a report names it",
            )
        return cls(int(op), where, *(int(number) for number in numbers))

    def arm(self, link: TwinLink) -> None:
        """The supply goes at this operation, counted from the next one on."""
        first = link.control("flash-log", since=END_OF_FLASH_LOG)["next"]
        request = {"at_op": first + self.op - 1, "where": self.where, "byte": self.byte}
        if self.mixture is not None:
            request["mixture"] = self.mixture
        link.control("cut", **request)


def has_struck(link: TwinLink) -> bool:
    """Whether an armed cut has taken the supply away."""
    return bool(link.control("status")["state"] == "off")


def await_strike(link: TwinLink, timeout_s: float = 60.0) -> None:
    """Waits for an armed cut.

    Raises:
        BoardError: it does not come.
    """
    deadline = time.monotonic() + timeout_s
    while not has_struck(link):
        if time.monotonic() > deadline:
            raise BoardError(f"the armed cut did not strike within {timeout_s:g} s")
        time.sleep(0.02)
