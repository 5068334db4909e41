"""The page and its plots: self-contained, escaped, and the same in words."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from harness.history import History
from harness.history.page import history_page, percent_text
from harness.history.plots import in_words, phase_plot, seconds_text
from harness.history.queries import PhasePoint, PhaseSeries, Scope
from harness.home import Home
from harness.report.run_record import Event
from tests.unit.history.past_runs import NOON_S, past_run, past_test

HOSTILE = "</style></title><script>alert(1)</script>\" onload='x'"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def series(
    *durations: float, boards: tuple[str, ...] = ("desk-c3",), phase: str = "update: download"
) -> PhaseSeries:
    return PhaseSeries(
        phase,
        tuple(
            PhasePoint(NOON_S + n * 86400, duration, duration * 2, 3, boards[n % len(boards)], 4096)
            for n, duration in enumerate(durations)
        ),
    )


def test_names_from_outside_stay_text(tmp_path: Path) -> None:
    history = History.of(Home(tmp_path))
    event = Event(at_s=NOON_S, kind=HOSTILE, text=HOSTILE, duration_s=1)
    test = past_test(HOSTILE, "failed", board=HOSTILE, cause=HOSTILE, events=[event])
    run = past_run(1, [test], boards=[HOSTILE], problem=HOSTILE)
    history.record(run.model_copy(update={"subject": HOSTILE, "user": HOSTILE, "reason": HOSTILE}))
    with history.reading() as database:
        page = history_page(database, Scope(test=HOSTILE[:10]))
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.names
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    # Nothing is fetched from anywhere.
    assert not [value for name, value in tags.attributes if name in ("src", "href") or "url(" in value]
    assert "alert(1)" in page


def test_an_empty_history_has_a_page_that_says_what_fills_it(tmp_path: Path) -> None:
    with History.of(Home(tmp_path)).reading() as database:
        assert "Every run of pytest" in history_page(database, Scope())


@pytest.mark.parametrize(
    "drawn",
    [series(1.0), series(0.0, 0.0), series(1.5, 2.5, 90.0), series(*range(1, 9), boards=tuple("abcdefg"))],
    ids=["one point", "no time at all", "three points", "more boards than marks"],
)
def test_a_plot_is_well_formed_and_every_point_is_inside_and_says_what_it_is(drawn: PhaseSeries) -> None:
    root = ET.fromstring(f"<div>{phase_plot(drawn)}</div>")
    (svg, *_) = root.findall("svg")
    _, _, width, height = (float(value) for value in svg.attrib["viewBox"].split())
    assert svg.attrib["aria-label"] == in_words(drawn)
    titles = [title.text for title in root.iter("title")]
    assert len(titles) == len(drawn.points)
    for line in svg.findall("polyline"):
        for pair in line.attrib["points"].split():
            x, y = (float(number) for number in pair.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_a_plot_without_points_is_nothing() -> None:
    assert phase_plot(series()) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0854, "85 ms"), (1.254, "1.25 s"), (12.34, "12.3 s"), (200, "3 min 20 s")]
)
def test_durations_are_told_as_people_say_them(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"), [(1, "100 %"), (0.9999, "99.9 %"), (0.994, "99.4 %"), (0.5, "50 %"), (0, "0 %")]
)
def test_a_rate_is_100_percent_only_when_nothing_failed(share: float, text: str) -> None:
    assert percent_text(share) == text
