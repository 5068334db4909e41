"""The default subset of scenarios, and that what it leaves out is counted and said."""

from __future__ import annotations

from pathlib import Path

import pytest

BOARDS = """
    version: 1
    boards:
      a: {chip: esp32c3, link: twin}
      b: {chip: esp32, link: twin}
"""

TABLE = """
    import pytest

    pytestmark = pytest.mark.profiles("release", full=("development",))

    ROWS = [
        pytest.param(1, id="one", marks=pytest.mark.source("esp-idf #6172", "forum t=7800")),
        pytest.param(2, id="two", marks=pytest.mark.full),
    ]

    @pytest.mark.parametrize("row", ROWS)
    def test_table(board, row):
        pass

    @pytest.mark.profiles(full=("ciphertext-only",))
    def test_later(board):
        pass

    def test_without_a_board():
        pass
"""


@pytest.fixture
def table(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> pytest.Pytester:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    pytester.makefile(".yaml", boards=BOARDS)
    pytester.makepyfile(test_it=TABLE)
    return pytester


def collected(table: pytest.Pytester, *options: str) -> tuple[list[str], str]:
    result = table.runpytest_inprocess("--collect-only", "-q", "-p", "no:cacheprovider", *options)
    lines = [line.removeprefix("test_it.py::") for line in result.outlines if line.startswith("test_it.py::")]
    return lines, result.stdout.str()


def test_rows_and_profiles_outside_of_the_subset_are_left_out_and_counted(table: pytest.Pytester) -> None:
    tests, said = collected(table)
    assert tests == ["test_table[a-release-one]", "test_table[b-release-one]", "test_without_a_board"]
    # test_table: 2 rows on 2 boards in 4 profiles; test_later: 2 boards in 2 profiles.
    assert "default subset: 2 of " in said
    assert "Left out: 2 rows" in said
    assert "All of them: --full" in said


def test_a_scenario_that_makes_its_own_boards_is_left_out_and_counted_too(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("chip", ["esp32c3", pytest.param("esp32", marks=pytest.mark.full)])
        def test_of_its_own(chip):
            pass

        def test_that_is_no_scenario():
            pass
        """
    )
    tests, said = collected(pytester)
    assert tests == ["test_of_its_own[esp32c3]", "test_that_is_no_scenario"]
    assert "default subset: 1 of 2 scenarios. Left out: 1 rows" in said
    tests, said = collected(pytester, "--full")
    assert tests == ["test_of_its_own[esp32c3]", "test_of_its_own[esp32]", "test_that_is_no_scenario"]


def test_with_one_option_everything_runs_and_nothing_is_said(table: pytest.Pytester) -> None:
    tests, said = collected(table, "--full", "--chip", "esp32")
    profiles = ["development", "release", "development+sbv2", "release+sbv2"]
    rows = [f"test_table[twin-esp32-{p}-{row}]" for row in ("one", "two") for p in profiles]
    later = [f"test_later[twin-esp32-{p}]" for p in ("ciphertext-only", "ciphertext-only+sbv2")]
    assert sorted(tests) == sorted([*rows, *later, "test_without_a_board"])
    assert "default subset" not in said


def test_the_number_that_is_said_is_the_number_that_the_option_adds(table: pytest.Pytester) -> None:
    everything, _ = collected(table, "--full")
    _, said = collected(table)
    assert f"of {len(everything) - 1} scenarios" in said


def test_a_profile_that_is_named_is_run_where_it_makes_sense(table: pytest.Pytester) -> None:
    tests, _ = collected(table, "--profile", "development+sbv2", "--chip", "esp32")
    assert tests == ["test_table[twin-esp32-development+sbv2-one]", "test_without_a_board"]
    tests, _ = collected(table, "--profile", "ciphertext-only", "--chip", "esp32", "-k", "later")
    assert tests == ["test_later[twin-esp32-ciphertext-only]"]


def test_rows_that_differ_little_from_chip_to_chip_take_the_twins_in_turn(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    pytester.makefile(".yaml", boards=BOARDS)
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.in_turn
        @pytest.mark.parametrize("row", ["a", "b", "c"])
        def test_table(board, row):
            pass
        """
    )
    tests, said = collected(pytester)
    assert tests == [f"test_table[{row}]" for row in ("a-release-a", "a-release-c", "b-release-b")]
    assert "Left out: 3 rows" in said
    assert len(collected(pytester, "--full", "--profile", "release")[0]) >= 6
    assert collected(pytester, "test_it.py::test_table[b-release-a]")[0] == ["test_table[b-release-a]"]
    assert len(collected(pytester, "--board", "b", "--profile", "release")[0]) == 3


def test_a_row_that_is_named_by_its_id_is_meant(table: pytest.Pytester) -> None:
    tests, _ = collected(table, "test_it.py::test_table[b-release-two]")
    assert tests == ["test_table[b-release-two]"]


def test_a_row_that_a_keyword_finds_is_left_out_and_said(table: pytest.Pytester) -> None:
    tests, said = collected(table, "-k", "two")
    assert tests == []
    assert "Left out: 2 rows" in said


@pytest.mark.parametrize("parallel", [(), ("-n", "2")], ids=["alone", "in parallel"])
def test_what_was_left_out_is_said_at_the_end_and_sources_are_in_the_report(
    table: pytest.Pytester, parallel: tuple[str, ...]
) -> None:
    result = table.runpytest_subprocess(
        "-k", "table", "--chip", "esp32", "--junitxml=out.xml", "-p", "no:cacheprovider", *parallel
    )
    result.assert_outcomes(passed=1, deselected=0 if parallel else 3)
    result.stdout.fnmatch_lines(["default subset: 1 of 8 scenarios. Left out: 1 rows, and 6 on further *"])
    report = (table.path / "out.xml").read_text()
    assert 'name="source" value="esp-idf #6172"' in report
    assert 'name="source" value="forum t=7800"' in report
