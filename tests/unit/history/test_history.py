"""Runs go into the history whole, once, from several processes at a time, and nothing in it fails a run."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import harness.history.schema as schema
from harness.history import History
from harness.history.database import FILE, HistoryError
from harness.history.phases import phase_name
from harness.history.queries import PhasePoint, past_runs, phase_series, rates_of_boards, unfinished_folders
from harness.home import Home
from harness.report.recorder import Recorder, finish, head_of
from harness.report.run_record import Event, Outcome, TestRecord
from tests.unit.history.past_runs import NOON_S, past_run, past_test


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History.of(Home(tmp_path))


def test_an_empty_history_answers_and_makes_nothing(history: History) -> None:
    with history.reading() as database:
        assert past_runs(database) == []
        assert rates_of_boards(database) == []
    assert not history.folder.exists()


def test_a_run_that_is_recorded_twice_counts_once(history: History) -> None:
    assert history.record(past_run()) is None
    assert history.record(past_run(), Path("/runs/1")) is None
    with history.reading() as database:
        (run,) = past_runs(database)
        assert run.folder == str(Path("/runs/1"))
        assert (run.rate.passed, run.boards, run.user) == (1, ("desk-c3",), "ada")
        assert database.execute("SELECT COUNT(*) FROM boards").fetchone() == (1,)


def test_what_was_written_during_a_run_never_replaces_its_end(history: History) -> None:
    for ended in (False, True, False):
        assert history.record(past_run(ended=ended)) is None
    with history.reading() as database:
        assert [run.ended_s is not None for run in past_runs(database)] == [True]


def test_the_same_id_on_two_hosts_is_two_runs(history: History) -> None:
    history.record(past_run())
    history.record(past_run().model_copy(update={"host": "lab-2"}))
    with history.reading() as database:
        assert sorted(run.host for run in past_runs(database)) == ["lab-1", "lab-2"]


def test_copies_of_a_throwaway_board_are_one_board(history: History) -> None:
    event = Event(at_s=NOON_S, kind="phase", text="verified", duration_s=1)
    boards = [f"twin-c3 (gw{n})" for n in range(3)]
    run = past_run(1, [past_test("a", board=board, events=[event]) for board in boards], boards=boards)
    broken = (run.boards[0].model_copy(update={"problem": "it died"}), *run.boards[1:])
    history.record(run.model_copy(update={"boards": broken}))
    with history.reading() as database:
        (board,) = rates_of_boards(database)
        (series,) = phase_series(database)
    assert (board.board, board.rate.passed, board.problem) == ("twin-c3", 3, "it died")
    assert [(point.board, point.times) for point in series.points] == [("twin-c3", 3)]


@pytest.mark.parametrize(
    ("kind", "text", "name"),
    [
        ("phase", "downloaded and written", "update: downloaded and written"),
        ("update", "update (ota) to 2.5.0 in ota_1: ok", "update: all of it (ota)"),
        ("update", "update (ota) in ota_1: bad-magic", None),
        ("app", "companion 2.1.0 is up in ota_1 at 0x1a0000, pending", "boot: from reset to the app"),
        ("tool", "esptool has the port to write", "tool: esptool has the port to write"),
        ("provision", "write 65536 bytes at 0x20000", "provision: write … bytes at …"),
        ("command", "crash: ok", None),
        ("served", "GET 2.5.0.pkg → 200", None),
    ],
)
def test_a_phase_has_one_name_whatever_the_version(kind: str, text: str, name: str | None) -> None:
    assert phase_name(Event(at_s=0, kind=kind, text=text, duration_s=1)) == name
    assert phase_name(Event(at_s=0, kind=kind, text=text)) is None


def test_the_preparation_of_a_board_is_a_phase(history: History) -> None:
    run = past_run()
    event = Event(at_s=NOON_S, kind="tool", text="esptool has the port to write", duration_s=1.5)
    prepared = TestRecord(
        id="prepare/desk-c3", name="preparation", outcome="passed", began_s=NOON_S, duration_s=6, profile="release",
        events=(event,),
    )  # fmt: skip
    history.record(
        run.model_copy(update={"boards": (run.boards[0].model_copy(update={"prepared": prepared}),)})
    )
    with history.reading() as database:
        found = {series.phase: series.points[0] for series in phase_series(database)}
    assert found["board: preparation as release"].duration_s == 6
    assert found["tool: esptool has the port to write"].board == "desk-c3"


def test_a_phase_is_kept_once_for_each_board_and_run_with_its_median(history: History) -> None:
    def of(board: str, *durations: float, outcome: Outcome = "passed") -> TestRecord:
        events = [
            Event(at_s=NOON_S + n, kind="phase", text="verified", duration_s=duration_s, size=1000 * n)
            for n, duration_s in enumerate(durations, start=1)
        ]
        return past_test(f"{board} {outcome}", outcome, board=board, events=events)

    tests = [of("x", 1.0, 2.0, 9.0), of("x", 50.0, outcome="failed"), of("y", 4.0)]
    history.record(past_run(1, tests, boards=["x", "y"]))
    with history.reading() as database:
        (series,) = phase_series(database)
    assert series.phase == "update: verified"
    assert sorted(series.points, key=lambda point: str(point.board)) == [
        PhasePoint(NOON_S + 1, 2.0, 9.0, 3, "x", 2000),
        PhasePoint(NOON_S + 1, 4.0, 4.0, 1, "y", 1000),
    ]


def test_the_history_is_for_its_owner_alone(history: History) -> None:
    history.record(past_run())
    assert history.folder.stat().st_mode & 0o777 == 0o700
    assert (history.folder / FILE).stat().st_mode & 0o777 == 0o600


def test_names_that_are_no_utf_8_and_endless_texts_are_taken(history: History) -> None:
    run = past_run().model_copy(update={"command": "pytest \udcff", "reason": "x" * 1_000_000})
    assert history.record(run) is None
    with history.reading() as database:
        assert len(past_runs(database)[0].reason) < 10_000


WRITER = """
import sys
from pathlib import Path
from harness.history import History
from harness.home import Home
from tests.unit.history.past_runs import past_run, past_test

home, first = Path(sys.argv[1]), int(sys.argv[2])
for number in range(first, first + 1000):
    said = History.of(Home(home)).record(past_run(number, [past_test()] * 5))
    assert said is None, said
    print(number, flush=True)
"""


def test_four_processes_write_at_once_and_a_kill_leaves_whole_runs(history: History, tmp_path: Path) -> None:
    root = str(Path(__file__).parents[3])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(1000 * n)],
            cwd=root,
            env=os.environ | {"PYTHONPATH": root},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline(), writer.stderr and writer.stderr.read()
    time.sleep(0.3)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    said = {1000 * n for n in range(4)}
    for writer in writers:
        with writer:
            assert writer.stdout is not None
            said |= {int(line) for line in writer.stdout.read().split()}
    assert history.record(past_run(9999)) is None
    with history.reading() as database:
        whole = database.execute(
            "SELECT id, (SELECT COUNT(*) FROM tests WHERE tests.run = runs.run) FROM runs WHERE id NOT LIKE '%270f'"
        ).fetchall()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {count for _, count in whole} == {5}
    # What a writer said is there, and at most one more of each.
    found = {int(run_id.rpartition("-")[2], 16) for run_id, _ in whole}
    assert said <= found
    assert len(found - said) <= 4


def test_a_newer_schema_is_refused_in_one_sentence_and_not_touched(history: History) -> None:
    history.record(past_run())
    file = history.folder / FILE
    with sqlite3.connect(file) as database:
        database.execute(f"PRAGMA user_version = {schema.SCHEMA + 1}")
    database.close()
    before = file.read_bytes()
    said = history.record(past_run(2))
    assert said is not None
    assert f"newer harness (schema {schema.SCHEMA + 1}, this one knows {schema.SCHEMA})" in said
    with pytest.raises(HistoryError, match="newer harness"), history.reading():
        pass
    assert file.read_bytes() == before


@pytest.mark.parametrize("damage", ["text", "torn", "overwritten"])
def test_a_damaged_history_is_put_aside_with_a_message(history: History, damage: str) -> None:
    history.record(past_run(1, [past_test(f"row {n}") for n in range(500)]))
    file = history.folder / FILE
    whole = file.read_bytes()
    (history.folder / f"{FILE}-wal").unlink(missing_ok=True)
    damaged = {
        "text": b"not a database at all " * 100,
        "torn": whole[: len(whole) // 2],
        "overwritten": whole[:4096] + b"\xa5" * (len(whole) - 4096),
    }[damage]
    file.write_bytes(damaged)
    with pytest.raises(HistoryError, match=r"damaged.*") as caught, history.reading() as database:
        rates_of_boards(database)
    assert "nothing of it is deleted" in str(caught.value)
    said = history.record(past_run(7))
    assert said is not None
    (aside,) = history.folder.glob("damaged-*.sqlite3")
    assert str(aside) in said
    assert aside.read_bytes()[: len(damaged)] == damaged
    with history.reading() as database:
        assert [run.id for run in past_runs(database)] == [past_run(7).id]


def test_a_history_that_cannot_be_written_costs_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("a file where the folder belongs")
    said = History.of(Home(tmp_path)).record(past_run())
    assert said is not None
    assert "not in the history" in said


def test_a_busy_history_costs_a_sentence_and_little_time(tmp_path: Path) -> None:
    history = History.of(Home(tmp_path), wait_s=0.1)
    history.record(past_run())
    other = sqlite3.connect(history.folder / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    said = history.record(past_run(2))
    other.close()
    assert said is not None
    assert "is busy" in said


def test_an_older_schema_is_migrated_by_the_next_run_and_only_read_by_readers(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.record(past_run())
    newer = (*schema.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN mood TEXT",))
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    monkeypatch.setattr("harness.history.database.SCHEMA", len(newer))
    with history.reading() as database:
        assert database.execute("SELECT id, mood FROM runs").fetchall() == [(past_run().id, None)]
    with sqlite3.connect(history.folder / FILE) as file:
        assert schema.schema_of(file) == len(newer) - 1
    file.close()
    assert history.record(past_run(2)) is None
    with history.reading() as database:
        assert database.execute("SELECT COUNT(mood IS NULL) FROM runs").fetchone() == (2,)
        assert schema.schema_of(database) == len(newer)


SCHEMAS = [
    {
        "runs": "run id host kind subject command began_s ended_s verdict reason user harness folder",
        "boards": "run board link chip virtual mac revision profile lock firmware firmware_sha256 idf problem",
        "tests": "number run id test name board profile firmware_sha256 outcome began_s duration_s cause",
        "phases": "run board chip phase began_s duration_s size",
    },
    {"phases": "run board chip phase began_s times median_s longest_s size"},
]


def test_schemas_are_what_was_released() -> None:
    # Another text here means that databases out there have other tables than the code thinks: add a migration instead.
    assert len(SCHEMAS) == schema.SCHEMA
    database = sqlite3.connect(":memory:")
    for statements, tables in zip(schema.MIGRATIONS, SCHEMAS, strict=True):
        for statement in statements:
            database.execute(statement)
        for table, columns in tables.items():
            found = database.execute(f"PRAGMA table_info({table})").fetchall()
            assert " ".join(row[1] for row in found) == columns
    database.close()


def test_a_history_of_schema_1_keeps_what_it_has(history: History) -> None:
    history.folder.mkdir(parents=True)
    old = sqlite3.connect(history.folder / FILE)
    for statement in schema.MIGRATIONS[0]:
        old.execute(statement)
    old.execute("PRAGMA user_version = 1")
    old.execute(
        "INSERT INTO runs (run, id, host, kind, subject, command, began_s, verdict, reason, user, harness)"
        " VALUES (1, 'old', 'h', 'run', 's', 'c', 1, 'passed', '', 'u', '')"
    )
    old.executemany(
        "INSERT INTO phases VALUES (1, 'x', 'esp32', 'verify', ?, ?, ?)",
        [(5, 1.0, 100), (4, 3.0, 200), (6, 2.0, None)],
    )
    old.commit()
    old.close()
    expected = [PhasePoint(4, 2.0, 3.0, 3, "x", 150)]
    with history.reading() as database:
        assert list(phase_series(database)[0].points) == expected
    assert history.record(past_run()) is None
    with history.reading() as database:
        assert list(phase_series(database)[0].points) == expected
        assert [run.id for run in past_runs(database)] == [past_run().id, "old"]


def test_a_run_is_in_the_history_from_its_beginning_and_its_end_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    said: list[str] = []
    head = head_of("run", "desk-c3, release", ["harness", "run"])
    recorder = Recorder(tmp_path / "out", head, tell=said.append)
    with History.of(Home.of_user()).reading() as database:
        (run,) = past_runs(database)
        assert (run.id, run.ended_s, run.folder) == (head["id"], None, str(tmp_path / "out"))
        assert unfinished_folders(database) == [(head["id"], str(tmp_path / "out"))]
    assert finish(recorder, reason="all was well", verdict="passed") is not None
    with History.of(Home.of_user()).reading() as database:
        (run,) = past_runs(database)
        assert (run.verdict, run.reason) == ("passed", "all was well")
        assert unfinished_folders(database) == []
    assert said == []


def test_a_run_without_a_usable_history_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    (tmp_path / "home").write_text("a file")
    said: list[str] = []
    recorder = Recorder(tmp_path / "out", head_of("run", "x", ["harness"]), tell=said.append)
    assert finish(recorder, reason="all was well", verdict="passed", tell=said.append) is not None
    assert [line.partition(":")[0] for line in said] == ["this run is not in the history"]
