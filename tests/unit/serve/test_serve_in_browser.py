"""The lab's page in headless Chromium: it follows a run live, on any screen, and nothing in it complains."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.history import History
from harness.home import Home
from harness.rack.health import HealthBook
from harness.report.run_record import Event
from tests.unit.history.past_runs import past_run, past_test
from tests.unit.serve.lab_of_paper import BOARDS, PaperRun, ServedPage

CHROMIUM = "/usr/bin/chromium"
TOKEN = "a-token-of-this-test-0123456789"
OLD_RUN = "20251126-110000-0001"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all."""
    try:
        from playwright.sync_api import sync_playwright

        why = None if Path(CHROMIUM).exists() else f"there is no {CHROMIUM}"
    except ImportError:
        why = "playwright is not installed"
    if why is not None:
        if os.environ.get("CI"):
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A lab with a past: runs, a broken board, a run with a report."""
    home = Home(tmp_path_factory.mktemp("home"))
    HealthBook(home).latch("desk-c3", "it did not answer within 5 s after the reset", "pytest tests/ota")
    now = time.time()
    for number, outcome in enumerate(("passed", "failed", "passed", "passed")):
        at_s = now - 86400 * (5 - number)
        events = [Event(at_s=at_s, kind="phase", text="downloaded", duration_s=1 + number / 10, size=270_000)]
        test = past_test(outcome=outcome, board="twin-c3", began_s=at_s, events=events)  # type: ignore[arg-type]
        History.of(home).record(past_run(number, [test], began_s=at_s, boards=["twin-c3"]))
    old = PaperRun(home, OLD_RUN, pid=2**22 + 1)
    old.logs("I (1) boot: an old log")
    (old.folder / "report.html").write_text(
        "<title>report</title><p id=p>no script</p><a href='twin-c3/serial.log'>log</a>"
        "<script>document.getElementById('p').textContent = 'script ran, cookie: ' + (() => {"
        "try { return document.cookie } catch (e) { return 'none' } })()</script>"
    )
    History.of(home).record(
        past_run(9, [], boards=["twin-c3"]).model_copy(update={"id": OLD_RUN}), old.folder
    )
    return home


@pytest.fixture(scope="module")
def served(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedPage]:
    boards = tmp_path_factory.mktemp("boards") / "boards.yaml"
    boards.write_text(BOARDS)
    with ServedPage(home, boards) as page:
        yield page


class Reader:
    """One who opens pages; fails at the end when a page complained, or asked for anything elsewhere."""

    def __init__(self, browser: Any, url: str) -> None:
        self._browser, self.url = browser, url
        self.complaints: list[str] = []
        self.contexts: list[Any] = []

    def opens(self, path: str, *, width: int = 1200, scheme: str = "light") -> Any:
        context = self._browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(60_000)
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(self.url) else self.complaints.append(request.url),
        )
        page.goto(f"{self.url}{path}")
        return page


@pytest.fixture
def reader(browser: Any, served: ServedPage) -> Iterator[Reader]:
    reader = Reader(browser, served.url)
    yield reader
    for context in reader.contexts:
        context.close()
    assert reader.complaints == []


def test_every_page_fits_a_phone_in_the_dark(reader: Reader) -> None:
    page = reader.opens("/", width=390, scheme="dark")
    for path in ("/", "/runs", "/history", "/board/twin-c3", "/board/desk-c3", f"/run/{OLD_RUN}"):
        page.goto(f"{reader.url}{path}")
        page.wait_for_selector("h1")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"


def test_the_rack_follows_a_run_without_being_loaded_again(reader: Reader, home: Home) -> None:
    page = reader.opens("/")
    row = page.locator("#board-twin-c3")
    row.get_by_text("free", exact=True).wait_for()
    assert "harness boards mend desk-c3" in page.locator("#board-desk-c3").inner_text()
    page.evaluate("window.stayed = true")
    run = PaperRun(home, "20251126-130000-aaaa")
    try:
        run.begins("test_switch_there_and_back")
        row.get_by_text("test_switch_there_and_back").wait_for()
        row.get_by_text("in use", exact=True).wait_for()
        page.get_by_text("2 boards:").wait_for()
        run.ends("test_switch_there_and_back", "failed")
        page.get_by_text("1 failed").wait_for()
    finally:
        run.says("end", reason=None)
    row.get_by_text("free", exact=True).wait_for()
    assert page.evaluate("window.stayed")
    assert page.locator("#freshness").inner_text() == "live"


def test_the_log_of_a_board_grows_and_stays_text(reader: Reader, home: Home) -> None:
    run = PaperRun(home, "20251126-140000-aaaa")
    try:
        run.logs("reset: EN", sign=">>>")
        run.logs("I (10) boot: <b>first</b>")
        page = reader.opens("/board/twin-c3")
        log = page.locator("#log")
        log.get_by_text("<b>first</b>").wait_for()
        assert log.locator("b").count() == 0
        run.logs("I (20) app: second")
        log.get_by_text("app: second").wait_for()
        assert log.locator("> div").count() == 3
        assert log.locator(".mark").inner_text() == "12:00:00.123 >>> reset: EN"
        # A long log stays at its end, unless somebody reads further up.
        run.logs(*(f"line {n}" for n in range(200)))
        log.get_by_text("line 199").wait_for()
        page.wait_for_function("log.scrollTop + log.clientHeight >= log.scrollHeight - 2")
        log.evaluate("log => log.scrollTop = 0")
        run.logs("the last one")
        log.get_by_text("the last one").wait_for(state="attached")
        assert log.evaluate("log => log.scrollTop") == 0
    finally:
        run.says("end", reason=None)


def test_a_board_has_its_runs_with_their_reports_and_plots(reader: Reader) -> None:
    page = reader.opens("/board/twin-c3")
    assert (
        page.locator("svg.plot")
        .first.get_attribute("aria-label")
        .startswith("update: downloaded: last 1.30 s")
    )
    assert "2 of 3" in page.locator("main").inner_text() or "75 %" in page.locator("main").inner_text()
    page.get_by_role("link", name="2025-11-26").first.click()
    page.get_by_role("link", name="Open the report").click()
    # Its script runs, in an origin of its own.
    page.get_by_text("script ran, cookie: none").wait_for()
    page.get_by_role("link", name="log").click()
    page.get_by_text("an old log").wait_for()


def test_a_server_that_is_gone_is_said_and_not_hidden(browser: Any, home: Home) -> None:
    with ServedPage(home) as served:
        reader = Reader(browser, served.url)
        page = reader.opens("/runs")
        page.get_by_text("live", exact=True).wait_for()
    page.get_by_text("the server does not answer").wait_for()
    page.context.close()


def test_from_elsewhere_one_comes_in_by_the_token_and_it_leaves_the_address(browser: Any, home: Home) -> None:
    with ServedPage(home, token=TOKEN) as served:
        reader = Reader(browser, served.url)
        page = reader.opens(f"/?token={TOKEN}")
        page.wait_for_url(f"{served.url}/")
        page.get_by_role("link", name="Runs", exact=True).click()
        page.get_by_text("No run is under way").wait_for()
        page.go_back()
        page.wait_for_url(f"{served.url}/")
        # A browser that never had the token gets nothing.
        assert reader.opens("/").get_by_text("this page needs its token").count() == 1
        assert [each for each in reader.complaints if "401" not in each] == []
        for context in reader.contexts:
            context.close()


@pytest.mark.full
def test_a_real_run_on_a_twin_is_seen_live(
    reader: Reader, home: Home, own_home: Path, served: ServedPage
) -> None:
    (home.root / "builds").symlink_to(own_home / "builds")
    boards = own_home / "boards.yaml"
    boards.write_text(BOARDS)
    page = reader.opens("/board/twin-c3")
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "--board",
        "twin-c3",
        "--boards",
        str(boards),
        "--out",
        str(own_home / "out"),
    ]
    with subprocess.Popen(
        command, env=os.environ | {"HARNESS_HOME": str(home.root)}, stdout=subprocess.DEVNULL
    ) as run:
        page.get_by_text("in use", exact=True).wait_for(timeout=60_000)
        page.locator("#log .mark").first.wait_for(timeout=60_000)
        assert run.wait(120) == 0
    page.get_by_text("free", exact=True).wait_for()
