"""A board that fails to be prepared or stops answering fails one test and skips the others, in this run and the next."""

from __future__ import annotations

import pytest

from harness.home import Home
from harness.rack.health import HealthBook

BOARDS = """
version: 1
boards:
  unplugged: {chip: esp32c3, link: serial, port: /dev/ttyNOWHERE}
  twin: {chip: esp32c3, link: twin, state: state}
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: object) -> pytest.Pytester:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    pytester.makefile(".yaml", boards=BOARDS)
    return pytester


@pytest.fixture
def book(folder: pytest.Pytester) -> HealthBook:
    return HealthBook(Home.of_user())


def run(folder: pytest.Pytester, *options: str) -> pytest.RunResult:
    return folder.runpytest_subprocess("-rs", "-p", "no:cacheprovider", *options)


def test_a_board_whose_port_is_gone_fails_one_test_and_skips_the_others_until_it_is_mended(
    folder: pytest.Pytester, book: HealthBook
) -> None:
    folder.makepyfile("def test_one(board): pass\ndef test_two(board): pass\ndef test_no_board(): pass\n")
    first = run(folder, "--board", "unplugged")
    first.assert_outcomes(errors=1, skipped=1, passed=1)
    first.stdout.fnmatch_lines(["*the board was not prepared: *port /dev/ttyNOWHERE does not exist*"])
    assert first.ret == pytest.ExitCode.TESTS_FAILED
    found = book.of("unplugged")
    assert (found.broken, (found.run or "").split(" (process")[0]) == (
        "port /dev/ttyNOWHERE does not exist",
        "pytest",
    )
    second = run(folder, "--board", "unplugged")
    second.assert_outcomes(skipped=2, passed=1)
    second.stdout.fnmatch_lines(
        [
            "board unplugged is latched broken: 2 tests were skipped; to clear that: harness boards mend unplugged",
            "no test got to a board: exit code 5, not proven",
            "*board unplugged is latched broken since * (found by pytest*): port /dev/ttyNOWHERE does not exist; to "
            "clear that: harness boards mend unplugged",
        ]
    )
    assert second.ret == 5, "a run that proved nothing must not be green"


def test_a_board_that_dies_in_a_test_is_latched_and_the_next_test_is_not_tried(
    folder: pytest.Pytester, book: HealthBook
) -> None:
    folder.makepyfile(
        """
        import os, signal, pytest

        pytestmark = pytest.mark.profiles("open")

        def test_good(board):
            assert board.status().version

        def test_merely_fails(board):
            assert board.status().version == "another"

        def test_dies(board):
            os.kill(board.link.pid, signal.SIGKILL)
            board.status()

        def test_after(board):
            raise AssertionError("must be skipped")
        """
    )
    # As if it had a wire: of a virtual board's process the next run starts another.
    folder.makeconftest("from harness.lab import Lab\nLab._is_end_of_process = lambda *_: False\n")
    book.latch("other", "x")
    result = run(folder, "--board", "twin")
    result.assert_outcomes(passed=1, failed=2, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "gone" in (book.of("twin").broken or "")
    assert book.of("other").broken == "x"


def test_a_board_that_is_pinned_is_brought_into_no_other_profile(folder: pytest.Pytester) -> None:
    folder.makefile(
        ".yaml", boards="version: 1\nboards:\n  a: {chip: esp32c3, link: twin, profile: development}\n"
    )
    folder.makepyfile(
        "import pytest\n@pytest.mark.profiles('open', 'development', 'release')\ndef test_it(board): pass\n"
    )
    options = ("--collect-only", "-q", "-p", "no:cacheprovider", "--board", "a")
    result = folder.runpytest_inprocess(*options)
    assert [line for line in result.outlines if "::" in line] == [
        "test_a_board_that_is_pinned_is_brought_into_no_other_profile.py::test_it[a-development]"
    ]
    refused = folder.runpytest_inprocess(*options, "--profile", "release")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["*--profile release: the entry of board a pins profile development*"])
