"""How long the phases of a run's boards took in the runs before it: what its report draws."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from harness.errors import HarnessError
from harness.history.history import History
from harness.history.queries import PhaseSeries, Scope, phase_series
from harness.home import Home
from harness.report.run_record import RunRecord

SINCE_S = 90 * 86_400.0
MOST_PHASES = 8
MOST_POINTS = 120
WAIT_S = 1.0
"""A report does not wait for a history that others write to."""

_COPY = re.compile(r" \(gw\d+\)$")
"""A throwaway board of one worker of pytest-xdist has its name behind the board's."""


def past_phases(run: RunRecord, home: Home) -> tuple[PhaseSeries, ...]:
    """The phases that take most time on the boards of `run`, over time; those that were seen in one run only are left
    out. Empty where the history tells nothing, or cannot be read."""
    names = {_COPY.sub("", board.name) for board in run.boards}
    if not names:
        return ()
    try:
        with History.of(home, wait_s=WAIT_S).reading() as database:
            series = phase_series(
                database, Scope(None, None, time.time() - SINCE_S), limit=4 * MOST_PHASES, points=MOST_POINTS
            )
    except HarnessError:
        return ()
    found = []
    for one in series:
        points = tuple(point for point in one.points if point.board in names)
        if len({point.at_s for point in points}) > 1:
            found.append(replace(one, points=points))
    return tuple(found[:MOST_PHASES])
