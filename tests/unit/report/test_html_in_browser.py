"""The HTML report in headless Chromium: nothing leaves it, nothing fails in it, and every way in it leads somewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from harness.console.log_file import stamp
from harness.report.html import write_report
from harness.report.run_record import RunRecord
from tests.unit.report.made_run import BEGAN_S, made_run

CHROMIUM = "/usr/bin/chromium"
HOSTILE = "</script><script>window.taken=1</script><img src=x onerror='window.taken=2'>"


def missing() -> str | None:
    """Why there is no browser."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return None if Path(CHROMIUM).exists() else f"there is no {CHROMIUM}"


@dataclass
class Reader:
    """A browser that notes what a report may not do: complain, or ask for anything beside itself."""

    browser: Any
    complaints: list[str] = field(default_factory=list)
    contexts: list[Any] = field(default_factory=list)

    def opens(self, path: Path, *, width: int = 1200, scheme: str = "light", script: bool = True) -> Any:
        """The page of the report at `path`."""
        context = self.browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script
        )
        self.contexts.append(context)
        context.set_default_timeout(60_000)
        page = context.new_page()
        own = path.resolve().as_uri()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "request",
            lambda request: (
                self.complaints.append(f"asks for {request.url}")
                if not request.url.startswith((own, "data:", "blob:"))
                else None
            ),
        )
        page.goto(own)
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all."""
    why = missing()
    if why is not None:
        if os.environ.get("CI"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def reader(browser: Any) -> Iterator[Reader]:
    """Fails the test when a page complained."""
    found = Reader(browser)
    yield found
    for context in found.contexts:
        context.close()
    assert found.complaints == []


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of sixteen tests: more than are all in the page with everything."""
    folder = tmp_path_factory.mktemp("small")
    return write_report(made_run(folder, 16), folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of sixty tests."""
    folder = tmp_path_factory.mktemp("large")
    return write_report(made_run(folder, 60, 4), folder)


def wide(page: Any) -> bool:
    """Whether the page has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def test_a_test_that_passed_is_drawn_when_it_is_opened(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    test = page.locator(".tests > .good").first
    assert test.locator(".body table").count() == 0
    test.locator("summary").first.click()
    test.locator("figure.flash").wait_for()
    assert test.locator("figure.timeline .bar").count() >= 4
    assert "After: the bootloader follows sector 0: ota_0, sequence 3, valid" in test.inner_text()


def test_an_event_leads_to_its_line_and_back(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    link = page.locator("details.test.bad table.events a.line").nth(1)
    n = link.get_attribute("href").split("l")[1]
    link.click()
    line = page.locator(f"#log-lines .ll.here[data-n='{n}']")
    line.wait_for()
    assert line.is_visible()
    assert '"phase":"header"' in line.inner_text()
    back = line.locator("a.reference").first
    assert "update: header" in back.inner_text()
    back.click()
    page.locator("tr.here-now").wait_for()
    assert "header" in page.locator("tr.here-now").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("#dock").is_hidden()
    assert link.evaluate("link => document.activeElement === link")


def test_a_claim_of_a_closed_test_is_reached_from_the_log(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    page.locator("button.open-log").first.click()
    reference = page.locator("#log-lines a.reference", has_text="proven: the log proves the switch").first
    reference.click()
    claim = page.locator("tr.here-now")
    claim.wait_for()
    assert claim.is_visible()
    assert "ota_1" in claim.inner_text()


def test_the_log_is_searched_forwards_and_back(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    page.locator("button.open-log").first.click()
    search = page.locator("#log-search")
    search.fill("loaded APP from")
    page.locator("#log-count", has_text=" of ").wait_for()
    at, _of, total, _lines = page.locator("#log-count").inner_text().split(" ")
    assert (at, int(total) > 2) == ("1", True)
    first = page.locator("#log-lines .here").get_attribute("data-n")
    assert page.locator("#log-lines .here mark").inner_text() == "Loaded app from"
    search.press("Enter")
    second = page.locator("#log-lines .here").get_attribute("data-n")
    assert int(second) > int(first)
    search.press("Shift+Enter")
    assert page.locator("#log-lines .here").get_attribute("data-n") == first
    page.locator("#log-previous").click()
    assert page.locator("#log-count").inner_text() == f"{total} of {total} lines"  # round the end
    search.fill("no such text")
    page.locator("#log-count", has_text="not found").wait_for()


def test_only_telling_lines_are_left_and_the_one_that_is_asked_for(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    page.locator("button.open-log").first.click()
    lines = page.locator("#log-lines .ll")
    lines.first.wait_for()
    plain = page.locator("#log-lines .ll", has_text="main_task: Calling app_main").first
    n = plain.get_attribute("data-n")
    page.locator("#log-telling").check()
    assert page.locator("#log-lines .ll", has_text="main_task").count() == 0
    assert page.locator("#log-lines .ll", has_text="Loaded app from").count() > 0
    page.evaluate(f"location.hash = 'b0l{n}'")
    page.locator(f"#log-lines .ll.here[data-n='{n}']").wait_for()
    assert page.locator("#log-lines .ll", has_text="main_task").count() == 1


def test_the_filter_leaves_what_was_asked_for(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    shown = page.locator(".tests > details.test:not([hidden])")
    assert shown.count() == 16
    page.locator("#filter-text").fill("DROPPED connection")
    assert page.locator("#filter-count").inner_text() == f"{shown.count()} of 16"
    assert 0 < shown.count() < 16
    page.locator("#filter-text").fill("")
    page.locator("#filter-outcome").select_option("failed")
    assert shown.count() == 2


@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_makes_the_page_wider_than_its_window(reader: Reader, small: Path, width: int) -> None:
    page = reader.opens(small, width=width, scheme="dark")
    assert not wide(page)
    page.evaluate("document.querySelectorAll('details').forEach((closed) => { closed.open = true; })")
    page.locator("figure.flash").last.wait_for()
    assert not wide(page)
    page.locator("details.test a.line").first.click()
    page.locator("#log-lines .ll.here").wait_for()
    assert not wide(page)


def test_without_javascript_the_essential_is_there(reader: Reader, small: Path) -> None:
    page = reader.opens(small, script=False)
    text = page.locator("body").inner_text()
    assert "FAILED" in text
    assert "After the restart ota_0 ran 1.0.0, expected ota_1 with 1.1.0." in text
    assert "the logs are files beside this one" in text
    assert page.locator("details.test.bad figure.flash").first.is_visible()
    passed = page.locator(".tests > .good").first
    passed.locator("summary").first.click()
    assert "the log proves the switch to 1.1.0" in passed.inner_text()
    assert passed.locator("table.events tbody tr").count() > 8
    assert page.locator("button.copy").first.is_hidden()


def test_headings_go_down_one_level_at_a_time(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    page.evaluate("document.querySelectorAll('details').forEach((closed) => { closed.open = true; })")
    page.locator("figure.flash").last.wait_for()
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4,h5')].map((head) => +head.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_everything_is_reached_by_the_keyboard(reader: Reader, small: Path) -> None:
    page = reader.opens(small)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the tests"
    page.locator("#t0 summary").first.focus()
    page.keyboard.press("Enter")
    page.locator("#t0 figure.flash").wait_for()
    page.locator("#t0 table.events a.line").first.focus()
    page.keyboard.press("Enter")
    page.locator("#log-lines .ll.here").wait_for()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "log-search"


def test_hostile_text_stays_text_in_the_browser(reader: Reader, tmp_path: Path) -> None:
    fields = made_run(tmp_path, 3).model_dump(mode="json")
    for board in fields["boards"]:
        board["name"] += HOSTILE
        log = tmp_path / board["log"]
        log.write_text(log.read_text() + f"{stamp(BEGAN_S + 99)} | {HOSTILE}\n")
    for test in fields["tests"]:
        test["name"], test["board"], test["cause"] = HOSTILE, test["board"] + HOSTILE, HOSTILE
        for step in test["flash_steps"]:
            step["text"] = HOSTILE
        for event in test["events"]:
            event["text"] = HOSTILE
    page = reader.opens(write_report(RunRecord.model_validate(fields), tmp_path))
    page.evaluate("document.querySelectorAll('details').forEach((closed) => { closed.open = true; })")
    page.locator("figure.flash").last.wait_for()
    page.locator("button.open-log").first.click()
    page.locator("#log-search").fill("window.taken")
    page.locator("#log-lines .here mark").first.wait_for()
    assert page.evaluate("[window.taken, document.querySelectorAll('img').length]") == [None, 0]


@pytest.mark.parametrize("lines", [20_000, pytest.param(100_000, marks=pytest.mark.full)])
def test_a_long_log_is_searched_to_its_end(reader: Reader, tmp_path: Path, lines: int) -> None:
    run = made_run(tmp_path, 1, 1)
    log = tmp_path / str(run.boards[0].log)
    began = len(log.read_text().splitlines())
    with log.open("a", encoding="utf-8") as file:
        for n in range(lines):
            file.write(
                f"{stamp(BEGAN_S + 60 + n / 1000)} | I ({n}) app: measured {n * 7919 % 10007} of {n}\n"
            )
    page = reader.opens(write_report(run, tmp_path))
    page.locator("button.open-log").first.click()
    page.locator("#log-search").fill(f"of {lines - 1}")
    page.locator(f"#log-lines .ll.here[data-n='{began + lines - 1}']").wait_for()
    assert page.locator("#log-lines .ll").count() < 5000


def test_every_failure_is_open_on_paper(reader: Reader, large: Path) -> None:
    page = reader.opens(large)
    assert page.locator(".tests > details.test").count() == 60
    assert page.locator("details.test.bad:not([open])").count() > 0
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.test.bad:not([open])").count() == 0
    assert not page.locator("#filter-text").is_visible()


def test_many_failures_are_unpacked_for_paper_although_not_in_the_page(
    reader: Reader, tmp_path: Path
) -> None:
    fields = made_run(tmp_path, 30, 2, all_pass=True).model_dump(mode="json")
    for test in fields["tests"]:
        test["outcome"] = "failed"
    page = reader.opens(write_report(RunRecord.model_validate(fields), tmp_path))
    assert page.locator("details.test.bad > .body > .lazy").count() == 10
    page.locator("html.unpacked").wait_for()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(".tests > details.test.bad[open] figure.flash").count() == 30


def test_a_run_of_few_tests_is_on_paper_with_everything(reader: Reader, tmp_path: Path) -> None:
    page = reader.opens(write_report(made_run(tmp_path, 3, all_pass=True), tmp_path))
    seen = "[...document.querySelectorAll('figure.flash')].filter((map) => map.checkVisibility()).length"
    assert page.evaluate(seen) == 0
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate(seen) == 5  # of three tests, and of the preparation of two boards
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert page.evaluate(seen) == 0
