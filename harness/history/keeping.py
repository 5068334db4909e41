"""What every run does with the history: it is in it from its beginning, and at its end it prunes what is old."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.history.history import NOT_KEPT, History
from harness.history.pruning import prune_after_run
from harness.home import Home
from harness.report.run_record import RunRecord

UNDER_WAY = "it has not ended, or it was killed"
"""Reason of a run that is only known to have begun."""


def begin_run(head: Mapping[str, Any], folder: Path, *, tell: Callable[[str], None]) -> None:
    """The run has begun: whoever looks at the rack finds its folder, and a kill leaves it in the history.

    `head`: fields of `RunRecord` that are known by now. `tell` gets what a person should know; that a run cannot be
    kept is told at its end.
    """
    try:
        run = RunRecord.model_validate({**head, "verdict": "not proven", "reason": UNDER_WAY})
    except ValidationError:
        # A head that is no run's: its end will say so.
        return
    said = History.of(Home.of_user()).record(run, folder)
    if said is not None and not said.startswith(NOT_KEPT):
        tell(said)


def keep_run(run: RunRecord, folder: Path, *, tell: Callable[[str], None]) -> None:
    """The run is over. `tell` gets what could not be done, and what was pruned, a sentence each."""
    home = Home.of_user()
    for said in (History.of(home).record(run, folder), prune_after_run(home)):
        if said is not None:
            tell(said)
