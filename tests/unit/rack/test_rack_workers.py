"""Under pytest-xdist: which worker gets which tests, and what a controller tells its workers."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> pytest.Pytester:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    return pytester


@pytest.mark.full
def test_all_tests_of_a_board_run_in_one_worker_whatever_file_and_profile_they_are_for(
    folder: pytest.Pytester,
) -> None:
    folder.makefile(
        ".yaml",
        boards="version: 1\nboards:\n  a: {chip: esp32c3, link: twin}\n  b: {chip: esp32c3, link: twin}\n",
    )
    folder.makeconftest(
        """
        import os
        import pytest

        # What a board does is not what this is about.
        @pytest.fixture
        def where(_target):
            with open("workers.txt", "a") as file:
                file.write(f"{_target.name} {os.environ['PYTEST_XDIST_WORKER']}\\n")
        """
    )
    tests = "import pytest\n@pytest.mark.parametrize('i', range(5))\ndef test_it(where, i):\n    pass\n"
    folder.makepyfile(test_one=tests, test_two=tests)
    profiles = ("--profile", "development", "--profile", "release")
    result = folder.runpytest_subprocess(
        "--board", "a", "--board", "b", *profiles, "-n", "2", "-p", "no:cacheprovider"
    )
    result.assert_outcomes(passed=40)
    lines = (folder.path / "workers.txt").read_text().splitlines()
    assert len(set(lines)) == 2, "a board was used by two workers"


@pytest.mark.full
def test_a_replaced_worker_knows_when_the_run_began(folder: pytest.Pytester) -> None:
    folder.makepyfile(
        """
        import os
        import time
        from harness.pytest_options import DEADLINE

        def test_it(request):
            assert request.config.stash[DEADLINE].at_s == float(open("deadline.txt").read())
        """
    )
    folder.makeconftest(
        """
        import pytest
        from harness.pytest_options import DEADLINE

        @pytest.hookimpl(trylast=True)
        def pytest_sessionstart(session):
            if not hasattr(session.config, "workerinput"):
                open("deadline.txt", "w").write(repr(session.config.stash[DEADLINE].at_s))
        """
    )
    result = folder.runpytest_subprocess("--time-left", "600", "-n", "1", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
