"""Draws phase durations over time as SVG, for the history's page and the lab's. Own marks and words only, no script.

Colours are classes of ``history.css``, which follow light, dark and print. Boards are told apart by the shape of their
mark, too; every mark says what it is when pointed at, and the picture has its content in words.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from html import escape
from statistics import median

from harness.history.amounts import size_text
from harness.history.queries import PhasePoint, PhaseSeries

WIDTH, HEIGHT = 340, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 8, 10, 26
_MOST_BOARDS = 4
_OTHERS = "other boards"
_WINDOW = 7
"""Points of which the line is the median."""


def phase_plot(series: PhaseSeries) -> str:
    """An ``<svg>`` of `series`, and the names of its boards below."""
    points = series.points
    if not points:
        return ""
    first_s, last_s = points[0].at_s, points[-1].at_s
    top_s = _nice(max(point.duration_s for point in points))
    boards = _boards_of(points)

    def place(at_s: float, duration_s: float) -> tuple[float, float]:
        across = (at_s - first_s) / (last_s - first_s) if last_s > first_s else 0.5
        x = _LEFT + across * (WIDTH - _LEFT - _RIGHT)
        return x, HEIGHT - _BOTTOM - duration_s / top_s * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(in_words(series))}">',
        *_axes(first_s, last_s, top_s),
    ]
    by_mark: dict[int, list[PhasePoint]] = {}
    for point in points:
        number = boards.index(point.board or "") if (point.board or "") in boards else _MOST_BOARDS
        by_mark.setdefault(number, []).append(point)
    for number, of_board in sorted(by_mark.items()):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*each) for each in _medians(of_board)))
        parts.append(f'<polyline class="plot-line plot-line-{number}" points="{line}"/>')
        parts += [_mark(number, *place(point.at_s, point.duration_s), _title(point)) for point in of_board]
    parts.append("</svg>")
    if boards != [""]:
        parts.append(_legend(boards))
    return "".join(parts)


def in_words(series: PhaseSeries) -> str:
    """What the plot shows, in a sentence."""
    return f"{series.phase}: {in_short(series)}"


def in_short(series: PhaseSeries) -> str:
    """Last, median and longest duration, and how often it was measured."""
    durations = [point.duration_s for point in series.points]
    times = sum(point.times for point in series.points)
    longest_s = max(point.longest_s for point in series.points)
    return (
        f"last {seconds_text(durations[-1])}, median {seconds_text(median(durations))}, "
        f"longest {seconds_text(longest_s)}, measured {f'{times} times' if times > 1 else 'once'}"
    )


def seconds_text(seconds: float) -> str:
    """``85 ms``, ``1.25 s``, ``3 min 20 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def _nice(value: float) -> float:
    """A round number at or above `value`."""
    if value <= 0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10) if step * power >= value)


def _boards_of(points: Sequence[PhasePoint]) -> list[str]:
    """At most `_MOST_BOARDS` names, those with most points; the others share a mark."""
    counts: dict[str, int] = {}
    for point in points:
        counts[point.board or ""] = counts.get(point.board or "", 0) + 1
    names = sorted(counts, key=lambda name: (-counts[name], name))
    return sorted(names) if len(names) <= _MOST_BOARDS else [*sorted(names[:_MOST_BOARDS]), _OTHERS]


def _medians(points: Sequence[PhasePoint]) -> list[tuple[float, float]]:
    """The line: for each point the median of it and those before it."""
    return [
        (point.at_s, median(each.duration_s for each in points[max(0, n - _WINDOW + 1) : n + 1]))
        for n, point in enumerate(points)
    ]


def _axes(first_s: float, last_s: float, top_s: float) -> list[str]:
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
        parts.append(f'<path class="plot-grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        label = seconds_text(share * top_s) if share else "0"
        parts.append(
            f'<text class="plot-text" x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        )
    same_day = time.localtime(first_s)[:3] == time.localtime(last_s)[:3]
    form = "%H:%M" if same_day else "%Y-%m-%d"
    ends = [(_LEFT, "start", first_s), (WIDTH - _RIGHT, "end", last_s)] if last_s > first_s else []
    for x, anchor, at_s in ends or [((WIDTH + _LEFT) // 2, "middle", first_s)]:
        text = time.strftime(form, time.localtime(at_s))
        parts.append(f'<text class="plot-text" x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text}</text>')
    if same_day:
        day = time.strftime("%Y-%m-%d", time.localtime(first_s))
        middle = (WIDTH + _LEFT - _RIGHT) // 2
        if ends:
            parts.append(
                f'<text class="plot-text" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{day}</text>'
            )
    return parts


def _mark(number: int, x: float, y: float, title: str = "") -> str:
    shape = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2"',
        f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"',
        f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z"',
        f'<path d="M{x:.1f} {y - 4.4:.1f}l4.4 4.4l-4.4 4.4l-4.4 -4.4z"',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2"',
    )[number]
    inner = f"<title>{escape(title)}</title>" if title else ""
    return f'<g class="plot-mark plot-mark-{number}">{inner}{shape}/></g>'


def _title(point: PhasePoint) -> str:
    size = f", {size_text(point.size)}" if point.size else ""
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(point.at_s))
    of = f", median of {point.times}, longest {seconds_text(point.longest_s)}" if point.times > 1 else ""
    return f"{moment}, {point.board or 'no board'}: {seconds_text(point.duration_s)}{size}{of}"


def _legend(boards: Sequence[str]) -> str:
    items = "".join(
        f'<li><svg class="plot-key" viewBox="0 0 12 12" aria-hidden="true">{_mark(number, 6, 6)}</svg>'
        f"{escape(name or 'no board')}</li>"
        for number, name in enumerate(boards)
    )
    return f'<ul class="plot-legend">{items}</ul>'
