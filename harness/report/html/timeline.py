"""The timeline of a test as a drawing: lanes, bars and marks at shares of the width. Pure.

Time runs to scale, but a long stretch in which nothing happens is cut out, with a note of how long it was: an update of
60 ms would vanish beside a wait of ten seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from harness.report.run_record import Event

LANES = (
    ("reset", frozenset({"reset", "power", "cut"})),
    ("boot", frozenset({"rom", "bootloader", "app", "boot"})),
    ("update", frozenset({"update", "phase", "provision", "step"})),
    ("command", frozenset({"command"})),
    ("server", frozenset({"served"})),
    ("tool", frozenset({"tool"})),
    ("error", frozenset({"error", "panic"})),
)
OTHER = "notes"

BREAK_SHARE = 0.03
"""Of the width, that a cut-out stretch keeps."""
MARK_SHARE = 0.012
"""Of the width, that a mark takes."""
MAX_ROWS = 4
"""Of a lane; what does not fit lies over others, and the list below has all."""
IDLE_RATIO = 0.5
"""A stretch in which nothing happens is cut out when it is longer than this part of all in which something does."""
ALL_BREAKS = 0.3
"""Of the width, that all cut-out stretches together may keep."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One event with a duration, or a mark (``width`` 0) for one without."""

    event: Event
    number: int
    """Of the event in its test, from 1: the list below has the same numbers."""
    x: float
    width: float
    row: int
    """Within its lane: events at the same time lie under each other."""
    room: float = 0.0
    """Share of the width up to the next one in the row: what a mark's number may take."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Events of one sort."""

    name: str
    bars: tuple[Bar, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Break:
    """A stretch that is cut out."""

    x: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on the time axis; seconds since the test began."""

    x: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """What there is to draw."""

    lanes: tuple[Lane, ...]
    breaks: tuple[Break, ...]
    ticks: tuple[Tick, ...]


class _Scale:
    """From moments to shares of the width."""

    def __init__(self, spans: Sequence[tuple[float, float]], began_s: float, ended_s: float) -> None:
        pieces = _pieces(spans, began_s, ended_s)
        busy = sum(end - start for start, end, idle in pieces if not idle)
        cut = [idle and busy > 0 and end - start > IDLE_RATIO * busy for start, end, idle in pieces]
        shown = sum(end - start for (start, end, _), out in zip(pieces, cut, strict=True) if not out)
        share = min(BREAK_SHARE, ALL_BREAKS / max(sum(cut), 1))
        free = 1.0 - share * sum(cut)
        self.breaks: list[Break] = []
        self._places: list[tuple[float, float, float, float]] = []
        x = 0.0
        for (start, end, _), out in zip(pieces, cut, strict=True):
            width = share if out else free * (end - start) / shown if shown else free / len(pieces)
            if out:
                self.breaks.append(Break(x, width, end - start))
            self._places.append((start, end, x, width))
            x += width

    def at(self, moment_s: float) -> float:
        """The share of the width at which `moment_s` lies."""
        for start, end, x, width in self._places:
            if moment_s <= end:
                inside = (moment_s - start) / (end - start) if end > start else 0.0
                return x + width * max(0.0, inside)
        return 1.0

    def ticks(self, began_s: float) -> list[Tick]:
        """Where time is told: at quarters of the width, whatever was cut out before them."""
        found = []
        for quarter in range(4):
            x = quarter / 4
            start, end, left, width = next(
                place for place in self._places if x < place[2] + place[3] or place is self._places[-1]
            )
            inside = (x - left) / width if width else 0.0
            found.append(Tick(x, start + (end - start) * inside - began_s))
        return found


def timeline_of(events: Sequence[Event], began_s: float, duration_s: float) -> Timeline | None:
    """The drawing of `events`; None without any."""
    if not events:
        return None
    spans = [_span_of(event) for event in events]
    began = min([began_s, *(start for start, _ in spans)])
    ended = max([began_s + duration_s, *(end for _, end in spans)])
    scale = _Scale(spans, began, ended)
    by_lane: dict[str, list[Bar]] = {}
    for number, (event, (start, end)) in enumerate(zip(events, spans, strict=True), start=1):
        x = scale.at(start)
        width = scale.at(end) - x if event.duration_s else 0.0
        by_lane.setdefault(lane_of(event.kind), []).append(Bar(event, number, x, width, 0))
    order = [name for name, _ in LANES] + [OTHER]
    lanes = tuple(_laid_out(name, by_lane[name]) for name in order if name in by_lane)
    return Timeline(lanes, tuple(scale.breaks), tuple(scale.ticks(began_s)))


def lane_of(kind: str) -> str:
    """The lane in which events of `kind` lie."""
    return next((name for name, kinds in LANES if kind in kinds), OTHER)


def _span_of(event: Event) -> tuple[float, float]:
    """From when to when. An app's event is when it is up, with the time since the ROM's first line."""
    took = event.duration_s or 0.0
    return (event.at_s - took, event.at_s) if event.kind == "app" else (event.at_s, event.at_s + took)


def _pieces(
    spans: Sequence[tuple[float, float]], began_s: float, ended_s: float
) -> list[tuple[float, float, bool]]:
    """Start, end and whether nothing is under way, for the stretches between all moments that matter."""
    changes: dict[float, int] = {began_s: 0, ended_s: 0}
    for start, end in spans:
        if end > start:
            changes[start] = changes.get(start, 0) + 1
            changes[end] = changes.get(end, 0) - 1
        else:
            changes.setdefault(start, 0)
    under_way = 0
    pieces = []
    for start, end in pairwise(sorted(changes)):
        under_way += changes[start]
        pieces.append((start, end, under_way == 0))
    return pieces or [(began_s, began_s + 1.0, False)]


def _laid_out(name: str, bars: Sequence[Bar]) -> Lane:
    """`bars` in as few rows as keep them apart."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: (bar.x, bar.number)):
        free = [n for n, row in enumerate(rows) if bar.x >= _end(row[-1]) - 1e-9]
        if free:
            row = free[0]
        elif len(rows) < MAX_ROWS:
            row = len(rows)
            rows.append([])
        else:
            row = min(range(len(rows)), key=lambda n: _end(rows[n][-1]))
        rows[row].append(replace(bar, row=row))
    placed = []
    for line in rows:
        nexts = [bar.x for bar in line[1:]] + [1.0 + MARK_SHARE]
        placed += [replace(bar, room=x - bar.x) for bar, x in zip(line, nexts, strict=True)]
    return Lane(name, tuple(sorted(placed, key=lambda bar: bar.number)), len(rows))


def _end(bar: Bar) -> float:
    # Phases that follow each other share a row, however short they are.
    return bar.x + (bar.width if bar.event.duration_s else MARK_SHARE)
