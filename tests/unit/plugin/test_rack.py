"""``pytest --rack`` as its user meets it: suites of a few lines on twins, with and without pytest-xdist."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.home import Home
from harness.rack.health import HealthBook

KEEPER = """
import sys
from pathlib import Path
from harness.rack.renewal import leased
with leased([Path(sys.argv[1])], board="a", purpose="pytest", reason="pytest tests/ota in CI job 4711"):
    print("held", flush=True)
    sys.stdin.read()
"""

SUITE = """
import pytest
pytestmark = pytest.mark.profiles("open")

@pytest.mark.parametrize("n", [1, 2])
def test_it(board, n):
    assert board.profile.value == "open"

@pytest.mark.needs("telepathy")
def test_beyond_all_boards(board):
    pass

@pytest.mark.profiles("release")
def test_for_another_profile(board):
    pass

def test_without_a_board():
    pass
"""

# What a board does is not what these tests are about, and takes a second each time.
NO_BOARDS = """
import os
import pytest
from harness.plugin import RUN

@pytest.fixture
def board(_target, request):
    run = request.config.stash[RUN]
    if run.busy(_target) is not None:
        run.skip(request.node, "busy", run.busy(_target))
    with open("workers.txt", "a") as file:
        file.write(f"{_target.name} {os.environ.get('PYTEST_XDIST_WORKER')}\\n")
    return _target
"""

QUIET = ("-p", "no:cacheprovider", "-rs")


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> pytest.Pytester:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    monkeypatch.delenv("PYTEST_XDIST_AUTO_NUM_WORKERS", raising=False)
    pytester.makefile(
        ".yaml",
        boards="version: 1\nboards:\n"
        "  a: {chip: esp32c3, link: twin}\n"
        "  b: {chip: esp32c3, link: twin, tags: [nightly]}\n"
        "  c: {chip: esp32, link: twin, profile: release, tags: [nightly]}\n",
    )
    pytester.makepyfile(SUITE)
    return pytester


@pytest.fixture
def book(own_home: Path) -> HealthBook:
    return HealthBook(Home(own_home))


@pytest.fixture
def keep(own_home: Path) -> Iterator[Callable[[str], None]]:
    """Another job takes the board."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str) -> None:
        lock = own_home / "twins" / name / "board.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


def test_a_suite_runs_on_every_board_that_fits_and_says_what_did_not_run_and_why(
    folder: pytest.Pytester, keep: Callable[[str], None]
) -> None:
    folder.makeconftest(NO_BOARDS)
    keep("a")
    result = folder.runpytest_subprocess("--rack", "-n", "auto", "--lease-wait", "0.5", *QUIET)
    result.assert_outcomes(passed=4, skipped=2)
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [
            "3 workers *6 items*",
            "*= rack: 3 boards =*",
            "board a was in use for all of 0.5 s (--lease-wait), by *pytest tests/ota in CI job 4711*",
            "1 test fits no board of the rack:",
            "  1 for the capability telepathy, for example: board * has no telepathy",
            "not run: somebody else kept board a *",
            "NOT PROVEN: *somebody else kept board a *",
        ],
    )
    result.stdout.fnmatch_lines_random(
        [
            "a      esp32c3      2                                 2 *",
            "b      esp32c3      2       2 *",
            "c      esp32        1       1 *",
        ]
    )
    workers = (folder.path / "workers.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in set(workers)) == ["b", "c"], "a board had two workers"


def test_with_load_a_test_runs_once_per_chip_on_a_board_that_is_free_and_its_id_names_no_board(
    folder: pytest.Pytester, keep: Callable[[str], None]
) -> None:
    folder.makeconftest(NO_BOARDS)
    keep("a")
    options = ("--rack", "--rack-dist", "load", "--rack-strict", "-n", "2", "-v", *QUIET)
    result = folder.runpytest_subprocess(*options)
    result.assert_outcomes(passed=4)
    assert result.ret == 6
    result.stdout.fnmatch_lines_random(
        [
            "*PASSED test_with_load*.py::test_it[[]esp32c3-open-1]*",
            "*PASSED test_with_load*.py::test_it[[]esp32c3-open-2]*",
            "*PASSED test_with_load*.py::test_for_another_profile[[]esp32-release]*",
            "board a had no test: another job had it",
        ]
    )
    result.stdout.fnmatch_lines(
        ["not run: 1 test fits no board of the rack, and --rack-strict demands that all do"]
    )
    workers = (folder.path / "workers.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in workers) == ["b", "b", "c"]


@pytest.mark.full
def test_with_load_the_tests_are_spread_over_all_boards_without_xdist_too(folder: pytest.Pytester) -> None:
    folder.makeconftest(NO_BOARDS)
    result = folder.runpytest_subprocess("--rack", "--rack-dist", "load", "-p", "no:xdist", *QUIET)
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.OK
    workers = (folder.path / "workers.txt").read_text().splitlines()
    assert sorted(line.split()[0] for line in workers) == ["a", "b", "c"]


@pytest.mark.parametrize("words", [("--rack-strict",), ("--rack-dist", "load")])
def test_what_is_for_a_rack_is_refused_without_one(folder: pytest.Pytester, words: tuple[str, ...]) -> None:
    result = folder.runpytest_inprocess(*words, *QUIET)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *for runs over the rack*"])


@pytest.mark.full
def test_a_tag_narrows_the_rack_and_n_auto_counts_what_is_left(folder: pytest.Pytester) -> None:
    folder.makeconftest(NO_BOARDS)
    result = folder.runpytest_subprocess(
        "--rack", "--board", "nightly", "--chip", "esp32", "-n", "auto", *QUIET
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["1 worker *", "*= rack: 1 board =*"])


@pytest.mark.full
def test_where_nothing_fits_the_run_is_no_success_and_says_why(folder: pytest.Pytester) -> None:
    result = folder.runpytest_subprocess("--rack", "--chip", "esp32c3", "-k", "another_profile", *QUIET)
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [
            "board a is for open, this test for release",
            "  1 for the profile, for example: board a is for open, this test for release",
            "not run: no test ran on any board of the rack: 1 test fits no board",
        ]
    )


@pytest.mark.full
def test_without_xdist_a_board_that_another_job_keeps_is_left_for_last_too(
    folder: pytest.Pytester, keep: Callable[[str], None]
) -> None:
    folder.makeconftest(NO_BOARDS)
    keep("a")
    options = ("--rack", "--chip", "esp32c3", "--lease-wait", "0.5", "-v", "--allow-busy", *QUIET)
    result = folder.runpytest_subprocess(*options)
    result.assert_outcomes(passed=3, skipped=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*test_it[[]b-open-2] PASSED*", "*test_it[[]a-open-1] SKIPPED*"])


@pytest.mark.full
def test_tests_of_a_broken_board_are_skipped_and_the_run_is_no_success_unless_another_ran_them(
    folder: pytest.Pytester, book: HealthBook
) -> None:
    book.latch("a", "no boot within 15 s", "pytest (process 7)")
    folder.makeconftest("")
    result = folder.runpytest_subprocess("--rack", "--board", "a", *QUIET)
    result.assert_outcomes(passed=1, skipped=2)
    assert result.ret == 6
    result.stdout.fnmatch_lines(
        [
            "board a is latched broken since *: no boot within 15 s*",
            "not run: 2 tests ran on no esp32c3: board a did not run them",
        ]
    )


TAKES_TIME = """
import os
import time
import pytest
pytestmark = pytest.mark.profiles("open")

@pytest.mark.parametrize("n", [1, 2, 3])
def test_it(board, n):
    before = board.status()
    time.sleep(0.5)
    if board.name == "b3" and n == 2 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), 9)
    assert board.status().mac == before.mac
"""


@pytest.mark.full
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_two_jobs_share_six_boards_and_a_killed_worker_costs_one_test(
    folder: pytest.Pytester, own_home: Path
) -> None:
    entries = "".join(
        f"  b{n}: {{chip: {chip}, link: twin}}\n" for n, chip in enumerate(["esp32c3", "esp32"] * 3)
    )
    folder.makefile(".yaml", boards=f"version: 1\nboards:\n{entries}")
    folder.makepyfile(TAKES_TIME)
    command = [sys.executable, "-m", "pytest", "--rack", "-n", "2", "-p", "no:cacheprovider"]
    jobs = [
        subprocess.Popen(command, cwd=folder.path, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(2)
    ]
    said = [job.communicate(timeout=600)[0] for job in jobs]
    assert sorted(job.returncode for job in jobs) == [0, 1], "\n".join(said)
    assert sorted(text.count("1 failed, 17 passed in") for text in said) == [0, 1], "\n".join(said)
    assert sorted(text.count("= 18 passed in") for text in said) == [0, 1], "\n".join(said)
    assert not any("in use" in text for text in said), "\n".join(said)
    assert not any(health.broken for health in HealthBook(Home(own_home)).all().values())
