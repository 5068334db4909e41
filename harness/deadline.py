"""When a run will be ended from outside (a CI job's time-out), as far as somebody has told it.

With it nothing is begun that must not be broken off and may not be over by then: a burn that is killed half way can
cost a board. Told by ``--time-left SECONDS``, or by `HARNESS_DEADLINE` (seconds since 1970), which a CI job can set
once for all its steps. Of several the soonest counts.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from harness.errors import UsageError

VARIABLE = "HARNESS_DEADLINE"

TODO = "give the seconds after which this run may be killed: --time-left 3000"


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which this run may be killed."""

    at_s: float
    """By `time.monotonic`: the same moment in every process of the run, and the machine's clock may be set meanwhile."""
    told_by: str
    """For messages: what said so."""

    def left_s(self) -> float:
        """Seconds until then; negative when it is over."""
        return self.at_s - time.monotonic()


def deadline_in(time_left_s: float | None, environment: Mapping[str, str] = os.environ) -> Deadline | None:
    """The soonest of what ``--time-left`` (None: not given) and the environment say; None: nobody said anything.

    Raises:
        UsageError: a number is expected and is not there.
    """
    found = []
    if time_left_s is not None:
        if not math.isfinite(time_left_s) or time_left_s < 0:
            raise UsageError(f"--time-left is {time_left_s}, not a number of seconds", todo=TODO)
        found.append(Deadline(time.monotonic() + time_left_s, f"--time-left {time_left_s:g}"))
    told = environment.get(VARIABLE)
    if told:
        try:
            at_s = float(told)
        except ValueError:
            at_s = math.nan
        if not math.isfinite(at_s):
            raise UsageError(
                f"{VARIABLE} is '{told[:40]}', not a time",
                todo=f"set it to seconds since 1970: {VARIABLE}=$(($(date +%s) + 3000))",
            )
        found.append(Deadline(time.monotonic() + at_s - time.time(), VARIABLE))
    return min(found, key=lambda each: each.at_s, default=None)
