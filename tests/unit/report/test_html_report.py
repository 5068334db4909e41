"""The HTML report as text: what is in it without any browser, and what may never be."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli.report import report
from harness.errors import UsageError
from harness.report.html import write_report
from harness.report.run_record import RunRecord
from tests.unit.report.made_run import made_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{ 7*7 }}"


def text_of(run: RunRecord, folder: Path) -> str:
    return write_report(run, folder).read_text(encoding="utf-8")


def unpacked(page: str, element: str) -> Any:
    packed = re.search(rf'<script type="text/plain" id="{element}">([^<]*)</script>', page)
    assert packed is not None
    return json.loads(gzip.decompress(base64.b64decode(packed[1])))


def test_the_verdict_is_on_top_then_the_failures_with_cause_and_command(tmp_path: Path) -> None:
    run = made_run(tmp_path, 8)
    page = text_of(run, tmp_path)
    failed = next(test for test in run.tests if test.outcome == "failed")
    body = page[page.index("<body>") :]
    order = [
        "FAILED",
        'id="failures"',
        failed.cause,
        'id="open"',
        'id="left-out"',
        'id="boards"',
        'id="tests"',
    ]
    places = [body.index(str(word)) for word in order]
    assert places == sorted(places)
    assert str(failed.repeat).replace("'", "&#39;") in body[places[1] : places[3]]


def test_a_verdict_on_models_says_so_beside_it(tmp_path: Path) -> None:
    said = "on virtual boards only: models, not silicon"
    run = made_run(tmp_path, 2, all_pass=True)
    real = run.model_copy(
        update={"boards": tuple(b.model_copy(update={"virtual": False}) for b in run.boards)}
    )
    assert said in text_of(run, tmp_path).partition("</header>")[0]
    assert said not in text_of(real, tmp_path)


def test_the_fuses_of_a_plan_that_was_broken_off_are_not_taken_for_what_is_burned_now(tmp_path: Path) -> None:
    run = made_run(tmp_path, 2, all_pass=True)
    part = run.model_copy(
        update={"boards": tuple(b.model_copy(update={"unfinished": True}) for b in run.boards)}
    )
    assert "<summary>Fuses: " in text_of(run, tmp_path)
    assert "<summary>Fuses before the plan: " in text_of(part, tmp_path)
    assert "not carried out to its end" in text_of(part, tmp_path)


def test_many_failures_of_one_cause_are_told_once_with_the_command_of_each(tmp_path: Path) -> None:
    fields = made_run(tmp_path, 6, 1, all_pass=True).model_dump(mode="json")
    for n, test in enumerate(fields["tests"]):
        test.update(outcome="error", cause="the hub does not answer" if n != 2 else "something else")
    page = text_of(RunRecord.model_validate(fields), tmp_path)
    failures = page[page.index('<section id="failures"') : page.index('<section id="boards"')]
    assert failures.count("the hub does not answer") == 1
    assert "The same cause: 4 further tests" in failures
    assert failures.count("something else") == 1
    for test in fields["tests"]:
        assert str(test["repeat"]).replace("'", "&#39;") in failures


def test_the_page_names_nothing_outside_itself(tmp_path: Path) -> None:
    page = text_of(made_run(tmp_path, 8), tmp_path)
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    outside = [link for link in links if not link.startswith(("#", "data:,")) and "serial" not in link]
    assert outside == []
    assert "url(http" not in page
    assert " style=" not in page


def test_the_policy_lets_in_exactly_its_own_style_and_script(tmp_path: Path) -> None:
    page = text_of(made_run(tmp_path, 2), tmp_path)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    said = policy[1].replace("&#39;", "'")
    assert said.startswith("default-src 'none'; ")
    assert "unsafe" not in said
    for pattern in (r"<style>(.*?)</style>", r"<script>(.*?)</script>"):
        (inside,) = re.findall(pattern, page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in said


def test_hostile_text_is_text_wherever_it_comes_from(tmp_path: Path) -> None:
    fields = made_run(tmp_path, 4).model_dump(mode="json")
    log = tmp_path / fields["boards"][0]["log"]
    log.write_text(log.read_text() + f"2026-11-26 18:27:00.000 | {HOSTILE}\n")
    for key in ("subject", "command", "reason", "user", "host"):
        fields[key] = HOSTILE
    fields["notes"] = [HOSTILE]
    fields["versions"] = {HOSTILE: HOSTILE}
    for board in fields["boards"]:
        for key in ("name", "chip", "link", "revision", "mac", "profile", "lock", "problem"):
            board[key] = HOSTILE
        board["fuses"] = {HOSTILE: HOSTILE}
        board["plan_text"] = board["findings"] = board["marks"] = [HOSTILE]
        board["app"] = dict.fromkeys(board["app"], HOSTILE)
        board["boots"] = [
            {"number": 1, "summary": HOSTILE, "slot": HOSTILE, "version": HOSTILE, "first_line": 0}
        ]
    for test in fields["tests"]:
        for key in ("id", "name", "board", "profile", "cause", "detail", "repeat"):
            test[key] = HOSTILE
        test["properties"] = {HOSTILE: HOSTILE}
        for claim in test["claims"]:
            claim["text"] = claim["evidence"] = HOSTILE
        for event in test["events"]:
            event["text"] = event["kind"] = HOSTILE
        for step in test["flash_steps"]:
            step["text"] = HOSTILE
        for flash in (test["flash_before"], test["flash_after"]):
            for row in flash["partitions"] if flash else ():
                row["label"] = HOSTILE
        for view in (test["otadata_before"], test["otadata_after"]):
            for sector in view["sectors"] if view else ():
                sector["state"] = sector["slot"] = HOSTILE
    page = text_of(RunRecord.model_validate(fields), tmp_path)
    parts = [
        page,
        *(piece for pieces in unpacked(page, "details-data")["pieces"].values() for piece in pieces),
    ]
    for part in parts:
        assert "<img" not in part
        assert "<script>alert" not in part
        assert "onerror=alert(2)>" not in part
        assert "&amp;49" not in part
    assert page.count("<script>") == 1
    assert HOSTILE in unpacked(page, "b0data")["text"]


def test_a_log_is_in_the_page_once_with_each_line(tmp_path: Path) -> None:
    run = made_run(tmp_path, 6, 1)
    page = text_of(run, tmp_path)
    data = unpacked(page, "b0data")
    lines = (tmp_path / str(run.boards[0].log)).read_text().splitlines()
    assert [line.split(" ", 1)[1][1:] for line in data["text"].split("\n")] == [
        re.sub(r"^\S+ \S+ (?:\||>>>) ", "", line) for line in lines
    ]
    assert page.count("b0data") == 1


def test_what_has_no_room_is_left_out_in_the_middle_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.report.html.report_file.MAX_CHARACTERS", 6000)
    monkeypatch.setattr("harness.report.html.board_log.AROUND", 0)
    run = made_run(tmp_path, 30, 1)
    page = text_of(run, tmp_path)
    data = unpacked(page, "b0data")
    total = len((tmp_path / str(run.boards[0].log)).read_text().splitlines())
    left_out = sum(last - first + 1 for first, last in data["gaps"])
    assert 0 < left_out == total - len(data["text"].split("\n"))
    assert "had no room here" in page
    named = {line for line, _id, _text in data["references"]}
    assert not any(first <= line <= last for first, last in data["gaps"] for line in named)


def test_thousands_of_events_in_one_test_are_counted_not_all_shown(tmp_path: Path) -> None:
    fields = made_run(tmp_path, 1).model_dump(mode="json")
    event = fields["tests"][0]["events"][0]
    fields["tests"][0]["events"] = [dict(event, at_s=event["at_s"] + n / 1000) for n in range(5000)]
    page = text_of(RunRecord.model_validate(fields), tmp_path)
    assert "4\u202f600 further events: see run.json." in page
    assert len(page) < 400_000


def test_two_hundred_tests_stay_small(tmp_path: Path) -> None:
    path = write_report(made_run(tmp_path, 200, 4), tmp_path)
    assert path.stat().st_size < 5_000_000


@pytest.mark.parametrize(
    "change",
    [
        {"log": "no/such/file.log"},
        {"log": "../outside.log"},
        {"log": None},
        {"boots": [{}]},
        {"boots": [{"number": 1, "first_line": 99999, "last_line": 999999}]},
    ],
    ids=["log missing", "log outside", "no log", "empty boot", "boot beyond the log"],
)
def test_a_record_with_holes_still_makes_a_report(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "outside.log").write_text("never shown\n")
    folder = tmp_path / "run"
    folder.mkdir()
    fields = made_run(folder, 3).model_dump(mode="json")
    fields["boards"][0].update(change)
    page = text_of(RunRecord.model_validate(fields), folder)
    assert "desk-0" in page
    if change.get("log") == "../outside.log":
        assert "outside the run&#39;s folder" in page
        assert 'id="b0data"' not in page


def test_a_run_without_boards_and_tests_is_a_page_too(tmp_path: Path) -> None:
    run = RunRecord(
        id="x", kind="pytest", subject="nothing", command="pytest", began_s=0.0, verdict="not proven"
    )
    page = text_of(run, tmp_path)
    assert "NOT PROVEN" in page
    assert "The run was killed." in page
    assert "No test was run." in page


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(report, list(arguments), standalone_mode=False)


def test_the_command_makes_the_report_again_from_the_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(made_run(tmp_path, 3).model_dump_json())
    for place in (tmp_path, tmp_path / "run.json"):
        done = invoke(str(place))
        assert done.exception is None, done.output
        assert Path(done.output.strip()) == tmp_path / "report.html"
    assert "desk-0" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "holds no run.json"),
        ("{", "is not JSON"),
        ('{"format": 999}', "has format 999, this harness reads formats up to 1"),
        ('{"format": 1}', "is not the record of a run: id: Field required"),
        ("[]", "is not the record of a run"),
    ],
    ids=["nothing there", "no JSON", "newer", "fields missing", "a list"],
)
def test_what_is_no_run_is_refused_in_a_sentence(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    done = invoke(str(tmp_path))
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
    assert "\n" not in done.exception.message


def test_a_folder_that_is_none_is_refused_in_a_sentence(tmp_path: Path) -> None:
    done = invoke(str(tmp_path / "nowhere"))
    assert isinstance(done.exception, UsageError)
    assert "is not a folder" in str(done.exception)
