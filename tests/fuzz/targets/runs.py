"""What runs leave for later ones: their records and parts, the history, the health of boards; and qualify.yaml."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.errors import HarnessError
from harness.history.export import export_lines
from harness.history.history import History
from harness.history.page import history_page
from harness.history.queries import Scope, flaky_tests, past_runs, rates_of_boards, rates_of_tests
from harness.home import Home
from harness.qualify.file import parse_qualify_text
from harness.rack.health import HealthBook
from harness.report.html import write_report
from harness.report.run_folder import read_run
from harness.report.run_record import BoardRecord, Event, RunRecord, TestRecord
from tests.fuzz.target import Target, refused, require, scratch_folder

LONGEST_MESSAGE = 20_000
"""Characters: a complaint is for a person to read."""


def _folder(name: str) -> Path:
    """An empty folder of that name."""
    folder = scratch_folder() / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


@cache
def _empty_home() -> None:
    """Earlier runs of the user are no part of what comes of an input."""
    home = scratch_folder() / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    os.environ["HARNESS_HOME"] = str(home)


def _run() -> RunRecord:
    """A run with one board and two tests."""
    events = (
        Event(at_s=1.5, kind="boot", text="version 1.0.0 from ota_0", line=3, detail={"slot": "ota_0"}),
        Event(at_s=2.0, kind="reset", text="EN", end_s=2.5),
    )
    tests = (
        TestRecord(
            id="t.py::a", name="a", outcome="passed", began_s=1.0, duration_s=2.0, board="c3", events=events
        ),
        TestRecord(
            id="t.py::b",
            name="b",
            outcome="failed",
            began_s=3.0,
            duration_s=1.0,
            cause="E  <b>&amp;",
            step="s",
        ),
    )
    board = BoardRecord(
        name="c3",
        chip="esp32c3",
        link="twin",
        virtual=True,
        mac="aa:bb:cc:00:00:01",
        profile="release",
        log="c3.log",
    )
    return RunRecord(
        id="20260101-000000-abcd", kind="pytest", subject="tests", command="pytest", began_s=1.0, ended_s=9.0,
        verdict="failed", boards=(board,), tests=tests, user="u", host="h",
    )  # fmt: skip


def check_run_record(data: bytes) -> str:
    """The record of a run: its report, and the history that takes it in."""
    _empty_home()
    folder = _folder("run")
    (folder / "run.json").write_bytes(data)
    (folder / "c3.log").write_text("12:00:00.000 I (1) boot: x\n")
    (scratch_folder() / "outside.log").write_text("<<outside>>")
    try:
        run, _ = read_run(folder)
    except HarnessError as error:
        require(len(str(error)) < LONGEST_MESSAGE, f"a complaint has {len(str(error))} characters")
        return refused(error)
    page = write_report(run, folder).read_text(encoding="utf-8")
    require("<<outside>>" not in page, "a report shows a file from outside of its folder")
    require("<script>evil" not in page and "<b>evil" not in page, "a report takes text for HTML")
    complaint = History(_folder("history")).record(run, folder)
    return f"{len(run.tests)} {len(run.boards)} {complaint is None}"


def run_records() -> Iterator[bytes]:
    yield json.dumps({"id": "20260101-000000-abcd"}).encode()
    yield _run().model_dump_json(exclude_defaults=True).encode()


def check_run_parts(data: bytes) -> str:
    """A killed run: its record is put together from lines, of which any may be damaged."""
    _empty_home()
    folder = _folder("run")
    (folder / "parts").mkdir()
    (folder / "parts" / "main.jsonl").write_bytes(data)
    try:
        run, _ = read_run(folder)
    except HarnessError as error:
        require(len(str(error)) < LONGEST_MESSAGE, f"a complaint has {len(str(error))} characters")
        return refused(error)
    require(read_run(folder)[0] == run, "a record differs when it is written and read")
    return f"{len(run.tests)} {len(run.boards)} {run.verdict}"


def run_parts() -> Iterator[bytes]:
    run = _run()
    head = {
        "id": run.id,
        "kind": "pytest",
        "subject": "tests",
        "command": "pytest",
        "began_s": 1.0,
        "user": "u",
        "host": "h",
        "pid": 4711,
    }
    entries = [
        {"what": "run", "at_s": 1.0, "run": head},
        {"what": "planned", "at_s": 1.1, "tests": 2},
        {"what": "began", "at_s": 1.2, "id": "t.py::a", "name": "a"},
        {"what": "board", "at_s": 1.3, "board": run.boards[0].model_dump(mode="json", exclude_defaults=True)},
        {"what": "test", "at_s": 2.0, "test": run.tests[0].model_dump(mode="json", exclude_defaults=True)},
        {"what": "end", "at_s": 3.0, "reason": None, "verdict": None, "failed": False},
    ]
    lines = [json.dumps(entry).encode() + b"\n" for entry in entries]
    yield lines[0]
    yield b"".join(lines)
    yield b"".join(lines[:-1])


def check_history(data: bytes) -> str:
    """The history's file with anything in it: read, asked everything, and written to by the next run."""
    folder = _folder("history")
    (folder / "history.sqlite3").write_bytes(data)
    history = History(folder, wait_s=0.1)
    try:
        with history.reading() as database:
            found = len(list(past_runs(database)))
            rates_of_boards(database)
            rates_of_tests(database)
            flaky_tests(database)
            for line in export_lines(database):
                json.loads(line)
            history_page(database, Scope())
        word = f"{min(found, 3)}"
    except HarnessError as error:
        word = refused(error)
    complaint = history.record(_run())
    if complaint is not None:
        return f"{word}; {refused(ValueError(complaint))}"
    with history.reading() as database:
        require(
            any(run.id == _run().id for run in past_runs(database)), "a run that was taken in is not there"
        )
    return word


@cache
def _database() -> bytes:
    folder = _folder("made")
    History(folder).record(_run())
    # What is beside the file in its log comes into it when the last one who has it open closes it.
    return (folder / "history.sqlite3").read_bytes()


def histories() -> Iterator[bytes]:
    yield b""
    yield _database()


def check_health(data: bytes) -> str:
    """The records of a board that is broken, retired, or both."""
    home = Home(_folder("home-of-boards"))
    (home.root / "health").mkdir(mode=0o700)
    book = HealthBook(home)
    book.latch("c3", "x")
    book.retire("c3", "y")
    for path in sorted((home.root / "health").iterdir()):
        path.write_bytes(data)
    health = book.of("c3")
    require(health.broken is not None and health.retired is not None, "a damaged record counts for nothing")
    require(len(health.text()) < LONGEST_MESSAGE, "a text that nobody reads")
    health.retired_text()
    require(set(book.all()) == {"c3"}, "another board than the one that the files are of")
    book.mend("c3")
    require(book.of("c3").broken is None, "a board cannot be mended")
    return health.text()[:20]


def healths() -> Iterator[bytes]:
    yield json.dumps({"format": 1, "reason": "no answer", "since_s": 1.0, "run": None}).encode()
    yield json.dumps({"format": 2, "reason": "no answer", "since_s": 1.0, "run": "r"}).encode()


def check_qualify_yaml(data: bytes) -> str:
    text = data.decode("utf-8", "surrogateescape")
    try:
        file = parse_qualify_text(text, Path("qualify.yaml"))
    except HarnessError as error:
        require(len(str(error)) < LONGEST_MESSAGE, f"a complaint has {len(str(error))} characters")
        return refused(error)
    return f"{file.unit} {len(file.trigger)}"


def qualify_yamls() -> Iterator[bytes]:
    sha = "ab" * 32
    apps = f"running: &a {{path: a.bin, sha256: {sha}}}\nupdate: *a\nimage: plaintext\n"
    yield f"version: 1\nunit: ship\n{apps}trigger: [{{by: reset}}]\n".encode()
    yield f"""\
version: 1
unit: sacrificial
running: {{path: a.bin, sha256: {sha}}}
update: {{path: b.bin, sha256: {sha}}}
image: ciphertext
trigger: [{{by: uart, send: "ota {{url}} {{secret:pin}}"}}]
confirm: [{{by: uart, send: "confirm"}}]
witness: {{confirmed: {{send: status, pattern: 'state=(\\w+)'}}, failed: "E (.*)"}}
times: {{settle_s: 0.5, update_s: 20}}
requirements: {{OTA-1: [good-update]}}
rollback: true
""".encode()


_JSON = (
    b"null", b"true", b"-1", b"1e999", b"NaN", b"Infinity", b"[]", b"{}", b'"x"', b"9" * 30, b"9" * 5000, b"0.5",
    b"[" * 200, b'{"a":' * 200, b'"\\ud800"', b'"\\u0000"', b'"<script>evil"', b'"<b>evil"', b'"../outside.log"',
    b'"/etc/passwd"', b'"format":99,', b'"log":"../outside.log",', b'"boards":[', b'"tests":[', b'"events":[',
    b'"at_s":', b'"began_s":-1e300,', b'"duration_s":1e308,', b'"line":-1,', b'"detail":{', b"\n",
)  # fmt: skip

TARGETS = (
    Target("run-record", "run.json, as `harness report` and the history take it", check_run_record, run_records, _JSON,
           limit_s=3.0),
    Target("run-parts", "the parts of a killed run", check_run_parts, run_parts, (*_JSON, b'"what":"test"',
           b'"what":"end"', b'"what":"boots","board":"c3","opening":1,"boots":[{}]'), limit_s=3.0),
    Target("history", "the history's database", check_history, histories,
           (b"SQLite format 3\0", b"\0" * 16, b"\xff" * 16, b"CREATE TABLE run", b"\x0d\0\0\0", b"\x05\0\0\0"),
           max_bytes=200_000, limit_s=5.0),
    Target("health", "what is known of a broken board", check_health, healths, _JSON),
    Target("qualify-yaml", "qualify.yaml", check_qualify_yaml, qualify_yamls,
           (b"&a ", b"*a", b"<<: *a", b"!!binary ", b"!!set ", b"? ", b"- ", b": ", b"{", b"[", b"|\n",
            b"%YAML 1.1\n---\n", b"0x" + b"F" * 40, b".inf", b"~", b"\n  ", b"by: uart", b"by: http",
            b"by: command", b"by: prompt", b"send: ", b"pattern: '(a+)+$'", b"{url}", b"{secret:x}",
            b"unit: ship", b"served:", b"witness:", b"\xff", b'"\\x00"'), limit_s=3.0),
)  # fmt: skip
