"""The timeline of a test, from the lines of a board's log and the boots in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.console.boot_record import BootRecord
from harness.console.log_line import Line
from harness.console.mark import parse_mark
from harness.report.run_record import Event


def events_of(lines: Sequence[Line], boots: Iterable[BootRecord]) -> tuple[Event, ...]:
    """What happened in `lines`, in their order; `boots` are those that touch them."""
    found: list[Event] = []
    for line in lines:
        if line.is_mark:
            mark = parse_mark(line.text)
            if mark.kind in ("reset", "power"):
                found.append(Event(at_s=line.wall_s, kind=mark.kind, text=mark.text, line=line.n))
    at = {line.n: line.wall_s for line in lines}
    for boot in boots:
        if boot.first_line in at:
            found.append(
                Event(at_s=at[boot.first_line], kind="app", text=boot.summary(), line=boot.first_line)
            )
    return tuple(sorted(found, key=lambda event: (event.at_s, event.line or 0)))
