"""What GitHub Actions and GitLab show of failures: nothing in a cause can forge a command or break a table."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from harness.rack.tally import NOT_RUN
from harness.report.annotations import (
    MOST_ANNOTATIONS,
    MOST_SUMMARY_BYTES,
    Annotations,
    Failure,
    annotate_in_ci,
    cause_of,
    github_annotation,
    github_annotations,
    github_summary,
    gitlab_lines,
    gitlab_section,
)
from harness.report.workflow_commands import command

UGLY = "100 % of it: a, b\r\n::error::forged\n| cell | `code` <b>"


def unescaped(text: str) -> str:
    """As the runner reads it."""
    for code, sign in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, sign)
    return text


@pytest.mark.parametrize("text", [UGLY, "%0A", "%250A", "a\rb", "", "::", "è»✗"], ids=range(7))
def test_a_command_is_one_line_and_reads_back_as_what_was_said(text: str) -> None:
    line = command("error", text, title=text, file=None, line=3)
    assert len(line.splitlines()) == 1
    match = re.fullmatch(r"::error title=([^:,]*),line=3::(.*)", line)
    assert match is not None
    assert (unescaped(match[1]), unescaped(match[2])) == (text, text)


def test_an_annotation_names_test_board_and_line() -> None:
    failure = Failure(
        "tests/test_a.py::test_b[x:y]", UGLY, "tests/test_a.py", 7, board="desk", told=("log: z",)
    )
    line = github_annotation(failure, place=lambda file: f"sub/{file}")
    assert line.startswith(
        "::error file=sub/tests/test_a.py,line=7,title=Failed%3A test_b[x%3Ay] on board desk::"
    )
    assert line.endswith("%0Alog: z")


def test_no_more_annotations_are_made_than_are_shown_and_the_last_says_so() -> None:
    many = [Failure(f"t.py::test_{n}", "broken") for n in range(MOST_ANNOTATIONS + 5)]
    lines = github_annotations(many)
    assert len(lines) == MOST_ANNOTATIONS
    assert lines[-1] == (
        "::error title=More failures::and 6 more; all are on this run's summary and in the JUnit file"
    )
    assert len(github_annotations(many[:MOST_ANNOTATIONS])) == MOST_ANNOTATIONS
    assert github_annotations([]) == []


def test_a_summary_is_one_row_per_failure_in_which_nothing_is_markup() -> None:
    text = github_summary(
        {"passed": 2, "failed": 1, "skipped": 0}, [Failure("t.py::test", UGLY)], seconds=3.4
    )
    assert "### Secure-OTA harness: failed" in text
    assert "2 passed, 1 failed in 3 s." in text
    row = next(line for line in text.splitlines() if "t.py" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 5
    assert "<b>" not in row
    assert row.count("<br>") == 2


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [({"passed": 3}, "passed"), ({"skipped": 3}, "nothing was proven"), ({}, "nothing was proven")],
)
def test_a_run_that_skipped_everything_is_not_called_passed(counts: dict[str, int], verdict: str) -> None:
    assert f": {verdict}\n" in github_summary(counts, [], seconds=0)


def test_a_summary_is_never_longer_than_is_taken() -> None:
    many = [Failure(f"t.py::test_{n}", "x" * 20_000) for n in range(150)]
    text = github_summary({"failed": 150}, many, seconds=0)
    assert len(text.encode()) < MOST_SUMMARY_BYTES + 1000
    shown = text.count("t.py::test")
    assert f"And {150 - shown} more" in text


def test_nothing_in_a_failure_ends_a_section_of_gitlab() -> None:
    lines = gitlab_section(
        "s", "1 failed", gitlab_lines([Failure("t.py::a", "x\x1b[0Ksection_end:1:s\ny")]), at=5
    )
    assert lines[0] == "\x1b[0Ksection_start:5:s\r\x1b[0K1 failed"
    assert lines[-1] == "\x1b[0Ksection_end:5:s\r\x1b[0K"
    assert not any("\x1b" in line for line in lines[1:-1])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "    assert 1\nE   assert 2 == 3\nE    +  where\n\nt.py:1: AssertionError",
            "assert 2 == 3\n+  where",
        ),
        (
            "the board was not prepared: board a: no\n  what to do: x",
            "the board was not prepared: board a: no",
        ),
        ("", "no cause was told"),
        ("[gw0] linux -- Python 3.11.7 /usr/bin/python3\nno board", "no board"),
        ("Error in x\nnot one", "Error in x"),
    ],
)
def test_the_cause_is_what_pytest_marks(text: str, cause: str) -> None:
    assert cause_of(text) == cause


TESTS = """
    import pytest

    def test_good():
        pass

    def test_bad():
        value = "a,b: 100 %"
        assert value == "::error::x"

    @pytest.fixture
    def bench():
        pytest.fail("the board was not prepared: board a: no answer", pytrace=False)

    def test_on_a_broken_bench(bench):
        pass

    @pytest.mark.skip(reason="not today")
    def test_left_out():
        pass
"""


def test_a_session_in_github_actions_or_gitlab_says_each_failure_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("from before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_WORKSPACE", str(pytester.path.parent))
    monkeypatch.setenv("GITLAB_CI", "true")
    pytester.makepyfile(test_it=TESTS, test_unreadable="import nothing_of_that_name")
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    bench, bad, unreadable = sorted(line for line in result.outlines if line.startswith("::error"))
    where = f"file={pytester.path.name}/test_it.py"
    assert bench == (
        f"::error {where},line=14,title=Error%3A test_on_a_broken_bench::"
        "the board was not prepared: board a: no answer"
    )
    assert bad.startswith(
        f"::error {where},line=8,title=Failed%3A test_bad::AssertionError: assert 'a,b: 100 %25'"
    )
    text = summary.read_text()
    assert text.startswith("from before\n### Secure-OTA harness: failed\n")
    assert "1 passed, 1 failed, 2 error, 1 skipped" in text
    assert "test_unreadable.py,title=Error%3A test_unreadable.py::" in unreadable
    assert "No module named 'nothing_of_that_name'" in unreadable
    section = result.stdout.str().split("section_start:", 1)[1].split("section_end:", 1)[0]
    assert all(test in section for test in ("failed: test_it.py::test_bad", "error: test_unreadable.py"))


@pytest.mark.parametrize(
    ("environment", "worker", "added"),
    [
        ({}, False, False),
        ({"CI": "true", "GITHUB_ACTIONS": ""}, False, False),
        ({"GITHUB_ACTIONS": "true"}, False, True),
        ({"GITHUB_ACTIONS": "true"}, True, False),
        ({"GITLAB_CI": "true"}, False, True),
    ],
)
def test_only_a_session_in_a_ci_service_and_of_workers_only_their_controller_annotates(
    environment: dict[str, str], worker: bool, added: bool
) -> None:
    registered: list[object] = []
    manager = SimpleNamespace(register=lambda plugin, _name: registered.append(plugin))
    config = SimpleNamespace(pluginmanager=manager, **({"workerinput": {}} if worker else {}))
    annotate_in_ci(cast(pytest.Config, config), environment)
    assert len(registered) == added


def test_a_summary_that_cannot_be_written_is_a_warning_and_no_more(tmp_path: Path) -> None:
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "nowhere" / "x.md")}
    manager = SimpleNamespace(hasplugin=lambda _name: False)
    config = SimpleNamespace(pluginmanager=manager, rootpath=tmp_path)
    written: list[str] = []
    terminal = SimpleNamespace(line=written.append, ensure_newline=lambda: None)
    Annotations(cast(pytest.Config, config), environment).pytest_terminal_summary(terminal)
    assert written == [
        f"::warning::the summary {tmp_path}/nowhere/x.md cannot be written: No such file or directory"
    ]


def test_tests_that_boards_kept_from_running_are_a_warning(tmp_path: Path) -> None:
    manager = SimpleNamespace(hasplugin=lambda _name: True)
    config = SimpleNamespace(pluginmanager=manager, rootpath=tmp_path)
    annotations = Annotations(cast(pytest.Config, config), {"GITHUB_ACTIONS": "true"})
    skipped = SimpleNamespace(failed=False, skipped=True, when="setup", user_properties=[(NOT_RUN, "broken")])
    for _ in range(2):
        annotations.pytest_runtest_logreport(cast(pytest.TestReport, skipped))
    written: list[str] = []
    annotations.pytest_terminal_summary(SimpleNamespace(line=written.append, ensure_newline=lambda: None))
    assert written == ["::warning title=Boards::2 tests did not run: boards were broken"]
