"""What a pytest run with boards leaves behind: one record, a JUnit file, the logs; whatever becomes of the run."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.chips import chip_named
from harness.console.log_file import read_log
from harness.formats.partition import (
    SUBTYPE_NVS,
    SUBTYPE_OTA_0,
    SUBTYPE_OTADATA,
    TYPE_APP,
    TYPE_DATA,
    Partition,
)
from harness.formats.partition_table import PartitionTable
from harness.report.flash_steps import Layout, Story, steps_told
from harness.report.recorder import rebuild
from harness.report.run_record import BoardRecord, Extent, FlashMap, TestRecord
from harness.report.updates import commands_in, told_in
from harness.report.writing import read_run

pytestmark = pytest.mark.xdist_group("one session for all of these")

SUITE = """
    import json
    import shutil
    from pathlib import Path

    import pytest
    from harness.errors import LabError
    from harness.formats.flash_encryption import decrypt

    def test_an_update(board):
        assert board.update(board.release("3.0.0")).ok
        board.reboot()
        assert board.confirm().ok
        # What really lies in flash, for whoever reads the record.
        where = Path("truth") / board.name
        where.mkdir(parents=True)
        shutil.copy(board.link.state / "flash.bin", where / "flash.bin")
        heads = {}
        if board.encrypts:
            raw = (where / "flash.bin").read_bytes()
            key = board.vault.flash_key(board.mac)
            for slot in board.slots:
                head = raw[slot.offset : slot.offset + 0x100]
                heads[slot.label] = decrypt(board.chip.cipher, key, slot.offset, head)[0]
        (where / "magic.json").write_text(json.dumps(heads))

    def test_that_fails(board):
        assert board.status().version == "4.0.0", "another version runs"

    def test_that_fails_without_words(board):
        chip = board.chip.name
        assert chip == "esp32c6"

    def test_on_a_bench_that_fails(board):
        raise LabError("the cable has been pulled", board=board.name)

    @pytest.mark.needs("telepathy")
    def test_that_no_board_can_do(board):
        pass

    @pytest.fixture
    def broken(board):
        raise RuntimeError("the fixture fell over")

    def test_with_a_broken_fixture(broken):
        pass

    @pytest.mark.parametrize("word", ["it's", "a b"])
    def test_with_names_for_a_shell(board, word):
        assert word == "a b"

    def test_without_a_board():
        pass
"""
OPTIONS = ("-p", "no:cacheprovider", "--harness-out", "out", "--junitxml", "own.xml")


TARGETS = ("--chip", "esp32c3", "--profile", "release", "--profile", "open")


class Ended:
    """A session that has come to its end."""

    def __init__(self, folder: Path, environment: dict[str, str], *words: str) -> None:
        self.folder = folder
        self._environment = environment
        (folder / "test_suite.py").write_text(textwrap.dedent(SUITE))
        (folder / "pytest.ini").write_text("[pytest]\n")
        self.said = self.run(sys.executable, "-m", "pytest", *words)
        self.run_ = read_run(folder / "out")

    def run(self, *words: str) -> str:
        """What it prints; whatever its exit status is."""
        done = subprocess.run(
            words, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=900
        )
        return done.stdout + done.stderr

    def tests(self, name: str) -> list[TestRecord]:
        """All tests of the function `name`, one for each board."""
        return [test for test in self.run_.tests if f"::{name}" in test.id]

    def board(self, name: str | None) -> BoardRecord:
        """The board of that name."""
        return next(board for board in self.run_.boards if board.name == name)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, users_builds: Path) -> Ended:
    """On two throwaway twins at a time."""
    folder = tmp_path_factory.mktemp("run-folder")
    home = folder / "home"
    home.mkdir(mode=0o700)
    (home / "builds").symlink_to(users_builds)
    environment = {**os.environ, "HARNESS_HOME": str(home), "PYTEST_ADDOPTS": "-p no:hypothesispytest"}
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITLAB_CI", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    return Ended(folder, environment, *OPTIONS, *TARGETS, "-n", "2")


WORKERS = ("gw0", "gw1")
BOARDS = {f"twin-esp32c3-{profile} ({worker})" for profile in ("release", "open") for worker in WORKERS}
"""Each worker has throwaway boards of its own."""


def test_the_last_line_names_the_verdict_and_the_folder_and_the_record_is_of_the_whole_run(
    ended: Ended,
) -> None:
    last = ended.said.strip().splitlines()[-1]
    assert last.startswith("FAILED: "), ended.said[-2000:]
    assert str(ended.folder / "out") in last
    run = ended.run_
    assert (run.kind, run.verdict) == ("pytest", "failed")
    assert run.reason.startswith("6 failed, 4 with errors of the bench, 5 passed, 2 skipped; first: ")
    assert "with names for a shell [it's]" in {test.name for test in run.tests}
    assert {board.name for board in run.boards} <= BOARDS
    assert run.ended_s is not None
    assert run.ended_s > run.began_s
    assert {"harness", "esptool", "pytest", "pytest-embedded", "esp-idf"} <= set(run.versions)


OUTCOMES = [
    ("test_an_update", "passed", None),
    ("test_that_fails[", "failed", "another version runs"),
    (
        "test_that_fails_without_words",
        "failed",
        "chip == \"esp32c6\" does not hold: 'esp32c3' is not 'esp32c6'",
    ),
    ("test_on_a_bench_that_fails", "error", "the cable has been pulled"),
    ("test_that_no_board_can_do", "skipped", "has no telepathy"),
    ("test_with_a_broken_fixture", "error", "RuntimeError: the fixture fell over"),
    ("test_without_a_board", "passed", None),
]


@pytest.mark.parametrize(("name", "outcome", "cause"), OUTCOMES, ids=[row[0] for row in OUTCOMES])
def test_every_test_has_its_outcome_and_its_cause_in_a_sentence(
    ended: Ended, name: str, outcome: str, cause: str | None
) -> None:
    tests = ended.tests(name)
    assert len(tests) == (1 if name == "test_without_a_board" else 2)
    for test in tests:
        assert test.outcome == outcome, test
        assert cause is None or cause in (test.cause or ""), test.cause
        assert (test.detail is None) is (outcome in ("passed", "skipped"))


def test_lines_and_events_of_a_test_are_those_of_its_boards_log(ended: Ended) -> None:
    for test in ended.tests("test_an_update"):
        lines = list(read_log(ended.folder / "out" / str(ended.board(test.board).log)))
        assert test.first_line is not None
        assert lines[test.first_line].text.startswith("note: test test_an_update")
        words = {
            "reset": "reset: into run",
            "rom": "",
            "bootloader": "2nd stage bootloader",
            "app": '"ev":"boot"',
            "update": '"cmd":"ota"',
        }
        for kind, word in words.items():
            event = next(event for event in test.events if event.kind == kind)
            assert event.line is not None
            assert word in lines[event.line].text, event
        phases = [event for event in test.events if event.kind == "phase"]
        assert [event.text for event in phases] == [
            "header received",
            "checked before anything is erased",
            "erased",
            "first sector written and read back",
            "downloaded and written",
            "verified",
            "boot partition set",
            "restarted",
        ]
        assert all(event.duration_s is not None for event in phases)
        erased, _, downloaded = (event.size for event in phases[2:5])
        assert erased is not None
        assert downloaded is not None
        assert erased == -(-downloaded // 4096) * 4096, "sectors are erased whole"
        served = [event for event in test.events if event.kind == "served"]
        assert "3.0.0.pkg → 200" in served[-1].text
        assert served[-1].size is not None
        assert 0 < served[-1].size - downloaded < 1024, "the package is the image and a header"


def at(flash: FlashMap | None, offset: int) -> Extent:
    assert flash is not None
    return next(each for each in flash.extents if each.offset <= offset < each.offset + each.size)


def test_the_flash_map_is_what_lies_in_flash(ended: Ended) -> None:
    for test in ended.tests("test_an_update"):
        truth = ended.folder / "truth" / str(test.board).partition(" ")[0]
        raw, magic = (truth / "flash.bin").read_bytes(), json.loads((truth / "magic.json").read_text())
        flash = test.flash_after
        assert flash is not None
        assert flash.size == len(raw)
        assert sum(each.size for each in flash.extents) == len(raw), (
            "a twin's flash is known to the last byte"
        )
        encrypts = "release" in str(test.board)
        for each in flash.extents:
            content = raw[each.offset : each.offset + each.size]
            assert each.source == "observed"
            assert (each.content == "erased") is (content.count(0xFF) == each.size), each
        for row in flash.partitions:
            if row.kind in ("app", "bootloader"):
                found = at(flash, row.offset)
                head = raw[row.offset]
                assert found.content == ("ciphertext" if encrypts else "plaintext")
                assert (head == 0xE9) is not encrypts
                if encrypts and row.kind == "app":
                    assert magic[row.label] == 0xE9, "what the record calls ciphertext deciphers to an image"
        steps = [(step.text, step.by) for step in test.flash_steps]
        assert steps[:3] == [
            ("ota_1: update to 3.0.0", "firmware"),
            ("otadata: ota_1 is selected for the next boot", "firmware"),
            ("otadata: changed by the bootloader", "bootloader"),
        ]
        assert steps[3] == ("otadata: the running version is confirmed", "firmware")


def layout_of(board: BoardRecord, flash: FlashMap) -> Layout:
    """As the board's table has it."""
    slots = itertools.count(SUBTYPE_OTA_0)
    subtypes = {"app": lambda: next(slots), "otadata": lambda: SUBTYPE_OTADATA, "data": lambda: SUBTYPE_NVS}
    partitions = tuple(
        Partition(
            row.label,
            TYPE_APP if row.kind == "app" else TYPE_DATA,
            subtypes[row.kind](),
            row.offset,
            row.size,
        )
        for row in flash.partitions
        if row.kind in subtypes
    )
    table_offset = next(row.offset for row in flash.partitions if row.kind == "table")
    encrypts = board.profile != "open"
    return Layout(chip_named(board.chip), PartitionTable(partitions), table_offset, encrypts=encrypts)


def test_what_the_firmware_tells_of_an_update_is_what_the_log_of_flash_operations_shows(ended: Ended) -> None:
    """A board without such a log is recorded by hearsay: here both are known."""
    for test in ended.tests("test_an_update"):
        board, flash = ended.board(test.board), test.flash_before
        assert flash is not None
        log = list(read_log(ended.folder / "out" / str(board.log)))
        lines = log[test.first_line : (test.last_line or 0) + 1]
        told = steps_told(layout_of(board, flash), Story(lines, commands_in(lines, told_in(lines))))
        firmware = [step for step in test.flash_steps if step.by == "firmware"]
        assert [(step.text, step.by, step.line) for step in told] == [
            (step.text, step.by, step.line if "confirmed" not in step.text else told[-1].line)
            for step in firmware
        ]
        assert told[0].changes == firmware[0].changes
        assert {step.source for step in told} == {"told"}


def test_otadata_is_told_before_and_after(ended: Ended) -> None:
    for test in ended.tests("test_an_update"):
        before, after = test.otadata_before, test.otadata_after
        assert before is not None
        assert after is not None
        first = before.sectors[0]
        assert (first.sequence, first.state, first.slot) == (1, "valid", "ota_0")
        assert (after.sectors[1].sequence, after.sectors[1].state) == (2, "valid")
        assert (before.active, after.active) == (0, 1)


def test_a_board_is_told_by_its_facts_its_plan_and_how_it_was_prepared(ended: Ended) -> None:
    test = next(test for test in ended.tests("test_an_update") if test.profile == "release")
    board = ended.board(test.board)
    assert (board.chip, board.link, board.virtual, board.profile) == ("esp32c3", "twin", True, "release")
    assert (board.lock, board.fuses["ENABLE_SECURITY_DOWNLOAD"]) == ("secure-download", "1")
    assert board.fuses["BLOCK_KEY0"].startswith("XTS_AES_128_KEY hidden")
    assert board.app is not None
    assert (board.app.project, board.app.version, len(board.app.sha256 or "")) == ("companion", "1.0.0", 64)
    assert board.plan is not None
    assert board.plan["id"] in board.plan_text[0]
    assert any("do not ship" in mark for mark in board.marks)
    assert board.flash_key is not None
    assert board.flash_key.endswith(", test-only")
    assert board.prepared is not None
    steps = [event for event in board.prepared.events if event.kind == "step"]
    assert [event.text.partition("/")[0] for event in steps] == [str(n + 1) for n in range(len(steps))]
    burns = [event.text for event in steps if event.text.endswith(" (for good)")]
    assert (len(burns), burns[-1][6:]) == (5, "burn ENABLE_SECURITY_DOWNLOAD (for good)")
    assert all(event.duration_s is not None for event in steps)
    assert [step.text for step in board.prepared.flash_steps][:2] == [
        "canary: known bytes, enciphered by the chip and read back",
        "bootloader: written over the UART",
    ]
    assert at(board.prepared.flash_before, 0).content == "erased"
    assert [boot["number"] for boot in board.boots] == list(range(1, len(board.boots) + 1))
    updated = [
        (boot["slot"], boot["version"])
        for boot in board.boots
        if boot["first_line"] >= (test.first_line or 0)
    ]
    assert updated[:2] == [("ota_0", "1.0.0"), ("ota_1", "3.0.0")]


def test_junit_has_the_board_on_every_test_and_every_version_on_the_suite(ended: Ended) -> None:
    own = ElementTree.parse(ended.folder / "own.xml").getroot()
    ours = ElementTree.parse(ended.folder / "out" / "junit.xml").getroot()
    for root in (own, ours):
        suite = root.find("testsuite")
        assert suite is not None
        assert int(suite.get("tests", 0)) == len(ended.run_.tests)
        names = {each.get("name") for each in suite.findall("properties/property")}
        assert {"harness version", "esp-idf", "run"} <= names
        for case in suite.findall("testcase"):
            found = {each.get("name"): each.get("value") for each in case.findall("properties/property")}
            if case.get("name", "").startswith("test_an_update"):
                wanted = {
                    "board",
                    "mac",
                    "chip",
                    "chip revision",
                    "profile",
                    "fuses",
                    "firmware",
                    "firmware sha256",
                }
                assert wanted <= set(found), found
                assert found["board"] in BOARDS
    cases = {(case.get("classname"), case.get("name")) for case in own.iter("testcase")}
    assert cases == {(case.get("classname"), case.get("name")) for case in ours.iter("testcase")}


def test_the_command_of_a_test_runs_it_again_from_a_shell(ended: Ended) -> None:
    test = next(test for test in ended.tests("test_with_names_for_a_shell") if "open-it's" in test.id)
    assert test.repeat is not None
    assert test.outcome == "failed"
    command = test.repeat.replace("pytest ", f"{shlex.quote(sys.executable)} -m pytest ", 1)
    said = ended.run("sh", "-c", f"{command} -p no:cacheprovider --harness-out again")
    again = read_run(ended.folder / "again")
    assert [(each.id, each.outcome, each.cause) for each in again.tests] == [
        (test.id, "failed", test.cause)
    ], said


def test_the_parts_alone_give_the_same_record(ended: Ended, tmp_path: Path) -> None:
    shutil.copytree(ended.folder / "out" / "parts", tmp_path / "parts")
    assert rebuild(tmp_path) == ended.run_


def test_without_an_end_the_parts_tell_of_a_run_that_was_killed(ended: Ended, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(ended.folder / "out" / "parts", parts)
    (parts / "main.jsonl").unlink()
    worker = parts / "gw0.jsonl"
    lines = worker.read_text().splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if '"what":"began"' in line)
    worker.write_text("".join(lines[: last + 1]) + '{"what":"test","at_s":1')
    run = rebuild(tmp_path)
    assert run.ended_s is None
    assert run.reason.startswith("killed during ")
    killed = [test for test in run.tests if test.cause == "the process that ran it (gw0) was killed, or died"]
    assert [test.outcome for test in killed] == ["error"]


@pytest.mark.full
def test_a_run_folder_that_cannot_be_written_is_one_sentence_and_the_tests_go_on(ended: Ended) -> None:
    (ended.folder / "a-file").write_text("not a folder")
    said = ended.run(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--chip", "esp32c3", "--profile", "open"),
        *("-k", "names_for_a_shell and b", "--harness-out", "a-file/out"),
    )
    assert "1 passed" in said, said
    assert said.count("the record of this run cannot be written") == 1
