"""What the pages say, whatever of the lab is missing, broken or hostile; and that looking changes nothing."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.history import History
from harness.history.database import FILE
from harness.home import Home
from harness.locks import STATE_LOCK, BoardLock
from harness.rack.health import HealthBook
from harness.run_note import RunNote
from harness.serve.live_runs import LiveRuns
from harness.state_folder import RUN_NOTE
from tests.unit.history.past_runs import past_run, past_test
from tests.unit.serve.lab_of_paper import BOARDS, PaperRun, ServedPage

HOSTILE = "<script>alert(1)</script>\"'"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A lab that is looked at anew for every request, and waits for nobody."""
    monkeypatch.setattr("harness.serve.app.FRESH_S", 0)
    for module in ("app", "rack"):
        monkeypatch.setattr(f"harness.serve.{module}.QUICK_S", 0.05)
    return Home(tmp_path / "home")


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    path = tmp_path / "boards.yaml"
    path.write_text(BOARDS)
    return path


def read(home: Home, path: str = "/", boards: Path | None = None) -> str:
    """The text of a page, as a reader sees it."""
    with ServedPage(home, boards) as page:
        answer = page.get(path)
    assert answer.status in (200, 404), answer.text
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text.replace("<wbr>", "")).split())


@contextmanager
def held(home: Home, board: str = "twin-c3") -> Iterator[None]:
    folder = home.twin(board)
    folder.mkdir(parents=True)
    with BoardLock(
        [folder / STATE_LOCK], board=board, purpose="pytest", reason="pytest tests/ota in CI job 4711"
    ):
        yield


def test_an_empty_lab_says_how_to_fill_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "harness init" in read(home)
    assert "There is none in the history yet" in read(home, "/runs")
    assert "nothing in the history yet" in read(home, "/history")
    assert "There is no board nobody here" in read(home, "/board/nobody")
    assert "it was pruned, or it is on another machine" in read(home, "/run/20251126-120000-0001")


def test_a_broken_boards_yaml_is_shown_and_the_rest_of_the_page_too(home: Home, boards: Path) -> None:
    boards.write_text("version: 1\nboards:\n  desk: {chip: esp99, link: twin}\n")
    PaperRun(home)
    text = read(home, boards=boards)
    assert "boards.yaml:3: boards.desk.chip" in text
    assert "twin-c3" in text


def test_boards_yaml_may_be_mended_while_the_page_is_open(home: Home, boards: Path) -> None:
    boards.write_text("version: 1\nboards: [")
    with ServedPage(home, boards) as page:
        assert "not valid YAML" in page.get("/").text
        boards.write_text(BOARDS)
        assert "desk-c3" in page.get("/").text
        # Broken again: its boards are still who holds what, from before.
        boards.write_text("version: 1\nboards: [[")
        text = page.get("/").text
        assert "not valid YAML" in text
        assert "desk-c3" in text


def test_a_board_is_free_held_or_broken_and_says_by_whom_and_why(home: Home, boards: Path) -> None:
    HealthBook(home).latch("desk-c3", "it did not answer after the reset", "pytest tests/ota (process 12)")
    with held(home):
        text = read(home, boards=boards)
    assert "2 boards: 0 free 1 in use 1 broken" in text
    assert f"(process {os.getpid()}) for pytest tests/ota in CI job 4711" in text
    assert "it did not answer after the reset (found by pytest tests/ota (process 12))" in text
    assert "harness boards mend desk-c3" in text


def test_what_a_board_does_now_follows_its_run(home: Home, boards: Path) -> None:
    run = PaperRun(home)
    with ServedPage(home, boards) as page:
        assert "being prepared" in page.get("/").text
        run.begins("test_switch")
        run.logs("I (10) boot: Loaded app", 'password=<redacted> & "quotes"')
        assert "test_<wbr>switch" in page.get("/").text
        first = page.get("/board/twin-c3/log").text
        assert "Loaded app" in first
        run.ends("test_switch", "failed")
        text = page.get("/").text
        assert "between two tests" in text
        assert "1 failed" in text
        run.says("end", reason=None)
        assert "None. A run of pytest" in page.get("/").text


@pytest.mark.parametrize(
    ("test", "step", "shown"),
    [
        (None, "in step 3/9 (burn the flash key)", "being prepared (in step 3/9 (burn the flash key)) since"),
        ("test_x", "in test test_x", "test_x since"),
        (None, None, "being prepared since"),
    ],
)
def test_a_note_of_the_holder_says_which_step(
    home: Home, boards: Path, test: str | None, step: str | None, shown: str
) -> None:
    run = PaperRun(home)
    if test is not None:
        run.begins(test)
    with held(home):
        if step is not None:
            RunNote(home.twin("twin-c3") / RUN_NOTE, "pytest").doing(step)
        assert shown in read(home, boards=boards)


def test_a_throwaway_twin_shows_while_a_run_uses_it(home: Home, boards: Path) -> None:
    PaperRun(home, board="twin-esp32-release")
    assert "twin-esp32-release esp32c3, twin, not in boards.yaml in use" in read(home, boards=boards)


def test_a_run_of_several_processes_is_under_way_before_its_controller_says_anything(home: Home) -> None:
    PaperRun(home, process="gw1").begins("test_x")
    (run,) = LiveRuns(home).look()
    assert (run.subject, run.boards[0].doing) == ("tests/ota", "test_x")


def test_a_run_that_was_killed_is_not_under_way(home: Home) -> None:
    PaperRun(home, pid=2**22 + 1)
    assert LiveRuns(home).look() == []


def test_of_a_killed_run_nobody_has_counted_no_test_is_said_to_have_none(home: Home) -> None:
    run = PaperRun(home, pid=2**22 + 1)
    record = past_run(ended=False).model_copy(update={"id": run.folder.name, "tests": ()})
    History.of(home).record(record, run.folder)
    with ServedPage(home) as page:
        assert page.get("/runs").text.count('<td class="number">–</td>') == 3
        assert "not counted yet" in page.get(f"/run/{run.folder.name}").text


def test_a_run_with_a_folder_elsewhere_is_found_through_the_history(home: Home, tmp_path: Path) -> None:
    run = PaperRun(Home(tmp_path / "elsewhere"))
    folder = run.folder.rename(tmp_path / "harness-out")
    record = past_run(ended=False).model_copy(update={"id": run.folder.name})
    History.of(home).record(record, folder)
    (live,) = LiveRuns(home).look()
    assert live.boards[0].log == folder / "twin-c3" / "serial.log"


def test_parts_that_are_torn_or_strange_are_passed_over(home: Home) -> None:
    run = PaperRun(home)
    live = LiveRuns(home)
    with (run.folder / "parts" / "gw0.jsonl").open("w") as part:
        part.write(
            'nonsense\n{"what":"began"}\n[]\n{"what":"board","at_s":1,"board":{"name":"b","log":"../../x"}}\n{"what":"bo'
        )
    (run.folder / "parts" / "gw1.jsonl").symlink_to("/dev/zero")
    boards = {board.name: board for board in live.look()[0].boards}
    assert boards["b"].log == run.folder / "b" / "serial.log"
    with (run.folder / "parts" / "gw0.jsonl").open("a") as part:
        part.write('ard","at_s":2,"board":{"name":"c","chip":"esp32"}}\n')
    assert "c" in {board.name for board in live.look()[0].boards}


def test_names_from_outside_stay_text(home: Home, boards: Path) -> None:
    PaperRun(home, board="evil", subject=HOSTILE, user=HOSTILE).begins(HOSTILE)
    HealthBook(home).latch("desk-c3", HOSTILE, HOSTILE)
    test = past_test(HOSTILE, "failed", board="desk-c3", cause=HOSTILE)
    run = past_run(1, [test]).model_copy(update={"subject": HOSTILE, "began_s": time.time()})
    History.of(home).record(run, Path("/nowhere"))
    with ServedPage(home, boards) as page:
        for path in (
            "/",
            "/runs",
            "/history",
            "/board/desk-c3",
            f"/board/{'%3Cscript%3E'}",
            "/run/20251126-120000-aaaa",
        ):
            text = page.get(path).text
            assert "<script>alert" not in text
            assert text.count("<script") == 1, path


def test_a_damaged_history_costs_a_sentence_and_nothing_else(home: Home, boards: Path) -> None:
    History.of(home).record(past_run())
    (home.root / "history" / FILE).write_bytes(b"not a database" * 100)
    for path in ("/", "/runs", "/history", "/board/desk-c3"):
        assert "is damaged" in read(home, path, boards)


def test_a_history_that_somebody_holds_costs_a_sentence_and_nothing_else(home: Home, boards: Path) -> None:
    History.of(home).record(past_run())
    other = sqlite3.connect(home.root / "history" / FILE, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    try:
        assert "is busy" in read(home, "/history", boards)
        assert "desk-c3" in read(home, "/", boards)
    finally:
        other.close()


def test_nothing_changed_is_said_in_a_few_bytes(home: Home, boards: Path) -> None:
    PaperRun(home)
    with ServedPage(home, boards) as page:
        first = page.get("/?live")
        again = page.get("/?live", {"If-None-Match": first.headers["etag"]})
    assert (again.status, again.text) == (304, "")


def test_looking_changes_nothing_on_disk(home: Home, boards: Path) -> None:
    run = PaperRun(home)
    run.logs("hello")
    History.of(home).record(past_run())
    HealthBook(home).latch("desk-c3", "broken")

    def state() -> dict[str, tuple[int, int]]:
        return {
            str(path): (path.stat().st_mtime_ns, path.stat().st_size)
            for path in home.root.rglob("*")
            # SQLite's own index for readers, empty of content; where twins will be, so far empty.
            if not path.name.endswith(("-shm", "-wal")) and path.name not in ("history", "twins")
        }

    before = state()
    with ServedPage(home, boards) as page:
        for path in (
            "/",
            "/runs",
            "/history",
            "/board/twin-c3",
            "/board/twin-c3/log",
            f"/run/{run.folder.name}",
        ):
            assert page.get(path).status == 200
    assert state() == before
