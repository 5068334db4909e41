"""Parts of a run become one record, whatever is missing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.report.merging import merged
from harness.report.parts import PartWriter, read_parts
from harness.report.recorder import rebuild
from harness.report.run_record import Outcome, TestRecord

HEAD = {
    "id": "20261126-190000-aaaa",
    "kind": "pytest",
    "subject": "tests/ota",
    "command": "pytest",
    "began_s": 100.0,
}


def head(**changes: Any) -> dict[str, Any]:
    return {"what": "run", "at_s": 100.0, "run": {**HEAD, **changes}}


def began(name: str, at_s: float) -> dict[str, Any]:
    return {
        "what": "began",
        "at_s": at_s,
        "id": f"t.py::{name}",
        "name": name,
        "board": "c3",
        "profile": "open",
    }


def ended(name: str, outcome: Outcome, at_s: float = 110.0) -> dict[str, Any]:
    record = TestRecord(id=f"t.py::{name}", name=name, outcome=outcome, began_s=at_s, duration_s=1.0)
    return {"what": "test", "at_s": at_s + 1, "test": record.model_dump(mode="json")}


def end(**fields: Any) -> dict[str, Any]:
    return {"what": "end", "at_s": 120.0, "reason": None, "verdict": None, "failed": False, **fields}


VERDICTS: list[tuple[str, list[dict[str, Any]], str, str]] = [
    ("all pass", [ended("a", "passed"), ended("b", "skipped"), end()], "passed", "1 passed, 1 skipped"),
    ("one fails", [ended("a", "failed"), ended("b", "passed"), end()], "failed", "1 failed, 1 passed"),
    ("the bench fails", [ended("a", "error"), end()], "failed", "1 with errors of the bench"),
    ("all is skipped", [ended("a", "skipped"), end()], "not proven", "1 skipped"),
    ("nothing ran", [end()], "not proven", "nothing ran"),
    (
        "not proven",
        [ended("a", "passed"), ended("b", "not proven"), end()],
        "not proven",
        "1 not proven, 1 passed",
    ),
    ("interrupted", [ended("a", "passed"), end(reason="by SIGTERM")], "not proven", "by SIGTERM; 1 passed"),
    ("pytest fails", [ended("a", "passed"), end(failed=True)], "failed", "1 passed"),
    (
        "its own verdict",
        [ended("a", "failed"), end(verdict="passed", reason="so it is")],
        "passed",
        "so it is",
    ),
    ("killed", [ended("a", "passed")], "not proven", "killed; by then: 1 passed"),
    ("killed after a failure", [ended("a", "failed")], "failed", "killed; by then: 1 failed"),
]


@pytest.mark.parametrize(
    ("entries", "verdict", "reason"), [row[1:] for row in VERDICTS], ids=[r[0] for r in VERDICTS]
)
def test_the_verdict_follows_from_tests_and_end(
    entries: list[dict[str, Any]], verdict: str, reason: str
) -> None:
    run = merged([("main", head()), *(("main", entry) for entry in entries)])
    assert (run.verdict, run.reason) == (verdict, reason)
    assert (run.ended_s is None) is reason.startswith("killed")


def test_a_test_that_never_ended_is_an_error_that_says_which_process_died() -> None:
    entries = [("main", head()), ("gw1", head()), ("gw1", ended("a", "passed")), ("gw1", began("b", 112.0))]
    run = merged([*entries, ("main", end())])
    lost = run.tests[-1]
    assert (lost.id, lost.outcome, lost.board, lost.began_s) == ("t.py::b", "error", "c3", 112.0)
    assert lost.cause == "the process that ran it (gw1) was killed, or died"
    assert run.verdict == "failed"


def test_of_two_runs_in_one_folder_only_the_newer_counts() -> None:
    older = [("main", head()), ("main", ended("a", "failed")), ("main", end())]
    newer = [("main", head(id="b", began_s=200.0)), ("main", ended("b", "passed", 210.0)), ("main", end())]
    run = merged([*older, ("gw0", head()), ("gw0", ended("c", "failed")), *newer])
    assert (run.id, run.verdict, [test.name for test in run.tests]) == ("b", "passed", ["b"])


def test_boots_that_come_again_are_the_later_ones_and_facts_add_up() -> None:
    def boots(*pairs: tuple[int, str]) -> dict[str, Any]:
        rows = [{"number": number, "first_line": number, "summary": text} for number, text in pairs]
        return {"what": "boots", "at_s": 105.0, "board": "c3", "opening": 1, "boots": rows}

    board = {
        "what": "board",
        "at_s": 104.0,
        "board": {"name": "c3", "link": "twin", "chip": "esp32c3", "virtual": True},
    }
    more = {"what": "board", "at_s": 106.0, "board": {"name": "c3", "profile": "release"}}
    entries = [head(), board, boots((1, "half")), boots((1, "whole"), (2, "two")), more, end()]
    run = merged([("main", entry) for entry in entries])
    assert [(boot["number"], boot["summary"]) for boot in run.boards[0].boots] == [(1, "whole"), (2, "two")]
    assert (run.boards[0].chip, run.boards[0].profile) == ("esp32c3", "release")
    assert run.subject == "tests/ota on c3"


def test_a_line_that_was_cut_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, "main")
    writer.write("run", run=HEAD)
    writer.close()
    with writer.path.open("a") as file:
        file.write('{"what":"test","at_s":3,"tes')
    assert [entry["what"] for _, entry in read_parts(tmp_path)] == ["run"]
    assert rebuild(tmp_path).reason == "killed; by then: nothing ran"
    assert (tmp_path / "run.json").exists()


def test_what_another_version_wrote_is_left_out_and_noted(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, "main")
    writer.write("run", run=HEAD)
    writer.write("planned", tests="many")
    writer.write("test", test={"id": "t.py::test_a"})
    writer.write("board", board={"name": "c3"})
    writer.write("end", verdict="splendid")
    writer.write("note", text="kept")
    writer.close()
    run = rebuild(tmp_path)
    assert (run.verdict, run.tests, run.boards) == ("not proven", (), ())
    assert run.notes == (
        "kept",
        "4 of what its processes wrote down cannot be read: damaged, or of another version",
    )


def test_what_waits_is_written_once_there_is_a_folder(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path / "run", "main", eager=False)
    writer.write("run", run=HEAD)
    assert not (tmp_path / "run").exists()
    writer.open()
    writer.close()
    assert [entry["what"] for _, entry in read_parts(tmp_path / "run")] == ["run"]


def test_a_folder_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    told: list[str] = []
    writer = PartWriter(tmp_path / "file", "main", tell=told.append)
    for _ in range(3):
        writer.write("note", text="x")
    writer.close()
    assert len(told) == 1
    assert told[0].startswith("the record of this run cannot be written: ")
    assert writer.failure == told[0]


def test_a_full_disk_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "main.jsonl").symlink_to(full)
    told: list[str] = []
    writer = PartWriter(tmp_path, "main", tell=told.append)
    for _ in range(3):
        writer.write("note", text="x")
    writer.close()
    assert len(told) == 1
    assert "No space left on device" in told[0]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no record of a run"):
        rebuild(tmp_path)


def test_a_byte_that_is_no_text_costs_one_character_and_not_the_record(tmp_path: Path) -> None:
    writer = PartWriter(tmp_path, "main")
    writer.write("run", run={**HEAD, "subject": "board n\udcff \U0001f4a5"})
    writer.close()
    assert rebuild(tmp_path).subject == "board n? \U0001f4a5"
