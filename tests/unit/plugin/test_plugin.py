"""The pytest plugin on tests of a stranger's kind: few lines, in any folder, with or without boards.yaml."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

OWN_TESTS = """
    import pytest

    def test_the_update_switches(board):
        before = board.status()
        assert board.update(board.release("3.0.0")).ok
        boot = board.reboot()
        assert boot.slot == before.next_slot
        assert boot.version == "3.0.0"

    def test_pytest_embedded_style(dut):
        dut.expect_exact("Calling app_main()")
        dut.expect(r'@evt .*"ev":"boot"', timeout=60)
        dut.write("status id=4711")
        dut.expect(r'"ev":"done".*"id":4711')

    @pytest.mark.needs("telepathy")
    def test_what_no_board_can_do(board):
        raise AssertionError("must be skipped")
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> pytest.Pytester:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    return pytester


def test_a_strangers_three_tests_run_on_a_twin_without_any_set_up(folder: pytest.Pytester) -> None:
    folder.makepyfile(OWN_TESTS)
    result = folder.runpytest_subprocess("-rs", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*board twin-esp32c3-release has no telepathy (twin link)*"])


def test_a_failing_test_names_the_board_the_last_boot_and_the_log(folder: pytest.Pytester) -> None:
    folder.makepyfile("def test_it(board):\n    assert board.status().version == 'something else'\n")
    result = folder.runpytest_inprocess("--chip", "esp32", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*board twin-esp32-release*", "*ota_0 @ 0x20000, 1.0.0*", "full log: *serial.log"]
    )


def test_a_failing_test_does_not_show_a_wifi_password_even_with_its_variables(
    folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_WIFI", "correct horse,&battery")
    folder.makepyfile(
        """
        import os

        def test_it(board):
            password = os.environ["LAB_WIFI"]
            print("joining with", password)
            answer = board.command("wifi", ssid="lab", password=password)
            assert answer.ok, f"not with {password}"
        """
    )
    result = folder.runpytest_inprocess(
        "--profile", "open", "--showlocals", "--junitxml=out.xml", "-p", "no:cacheprovider"
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*sent: wifi id=* ssid=lab password=<redacted> crc=*"])
    said = result.stdout.str() + result.stderr.str() + (folder.path / "out.xml").read_text()
    assert "battery" not in said


def test_what_a_sanitizer_reports_fails_also_a_test_that_wanted_the_reset(folder: pytest.Pytester) -> None:
    folder.makepyfile(
        """
        import pytest
        from harness.console import sanitizer_report

        # A panic stands in for a report, so that this needs no sanitizer.
        sanitizer_report.SIGN = "Guru Meditation"
        pytestmark = pytest.mark.profiles("open")

        def test_first(board):
            assert board.crash("null").panic is not None

        def test_second(board):
            assert board.restart().slot == "ota_0"

        @pytest.fixture
        def dies_at_the_end(board):
            yield
            board.crash("null")

        def test_third(dies_at_the_end):
            pass
        """
    )
    result = folder.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_third*",
            "a sanitizer reports from the firmware:",
            "*_ test_first*",
            "a sanitizer reports from the firmware:",
            "Guru Meditation Error: *",
        ]
    )


def test_a_wrong_boards_file_is_one_usage_error(folder: pytest.Pytester) -> None:
    folder.makefile(".yaml", boards="version: 1\nboards:\n  a: {chip: esp99, link: twin}\n")
    folder.makepyfile("def test_it(board):\n    pass\n")
    result = folder.runpytest_inprocess("-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.INTERRUPTED or result.ret == pytest.ExitCode.USAGE_ERROR
    said = result.stdout.str() + result.stderr.str()
    assert "boards.yaml:3: boards.a.chip: chip 'esp99'" in said
    assert "plugin.py" not in said


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("--profile", "paranoid", "ERROR: there is no profile 'paranoid'"),
        ("--chip", "esp99", "ERROR: chip 'esp99' is not supported"),
        ("--time-left", "soon", "ERROR: --time-left is 'soon', not a number of seconds"),
        ("--board", "nobody", "ERROR: there is no board 'nobody'*"),
        ("--boards", "nowhere.yaml", "ERROR: nowhere.yaml: cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_option_is_one_sentence_before_anything_is_collected(
    folder: pytest.Pytester, option: str, value: str, complaint: str
) -> None:
    folder.makepyfile("def test_it(board):\n    pass\n")
    result = folder.runpytest_inprocess(option, value, "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([complaint, "  what to do: *"])


def test_without_xdist_and_with_strict_markers_tests_are_collected_without_a_warning(
    folder: pytest.Pytester,
) -> None:
    folder.makepyfile("def test_it(board):\n    pass\n")
    result = folder.runpytest_inprocess(
        "--collect-only", "-q", "--strict-markers", "-p", "no:xdist", "-p", "no:cacheprovider"
    )
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*test_it?twin-esp32c3-release?*"])
    result.stdout.no_fnmatch_line("*Warning*")


def test_what_dut_waits_for_in_vain_is_told_without_the_insides_of_pexpect(folder: pytest.Pytester) -> None:
    folder.makepyfile("def test_it(dut):\n    dut.expect_exact('never said', timeout=0.5)\n")
    result = folder.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, warnings=0)
    result.stdout.fnmatch_lines(['E *Not found "never said"', "*board twin-esp32c3-release*", "full log: *"])
    result.stdout.no_fnmatch_line("*/pexpect/expect.py*")


def test_an_unknown_board_lists_those_there_are(folder: pytest.Pytester) -> None:
    folder.makefile(".yaml", boards="version: 1\nboards:\n  mine: {chip: esp32, link: twin}\n")
    folder.makepyfile("def test_it(board):\n    pass\n")
    result = folder.runpytest_inprocess("--board", "yours", "-p", "no:cacheprovider")
    assert result.ret != 0
    said = result.stdout.str() + result.stderr.str()
    assert "there is no board 'yours'" in said
    assert "boards: mine" in said


def test_a_scenario_that_asks_of_an_app_what_it_does_not_do_is_skipped_with_the_reason(
    folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "build")
    from idf_folder import write_idf_folder

    write_idf_folder(folder.path / "theirs")
    folder.makepyfile(
        """
        def test_it_boots(board, boot_record):
            assert boot_record.offset == board.app.app_partition.offset

        def test_it_updates(board):
            assert board.update(board.release("9.9.9")).ok
        """
    )
    result = folder.runpytest_inprocess("--app", "theirs", "-rs", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*not applicable: *version 9.9.9 is not among the builds that were given: 1.0.0*"]
    )


@pytest.mark.parametrize("option", ["--burn", "--consume", "--accept-unknown-burns"])
def test_consent_for_a_board_that_there_is_not_is_one_usage_error_that_lists_the_boards(
    folder: pytest.Pytester, option: str
) -> None:
    folder.makefile(".yaml", boards="version: 1\nboards:\n  mine: {chip: esp32, link: twin, tags: [desk]}\n")
    folder.makepyfile("def test_it():\n    pass\n")
    for name in ("nope", "desk"):
        result = folder.runpytest_inprocess(option, "mine", option, name, "-p", "no:cacheprovider")
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {option}: there is no board '{name}' (*; boards: mine)"])
    assert folder.runpytest_inprocess(option, "mine", "-p", "no:cacheprovider").ret == pytest.ExitCode.OK


def test_a_folder_that_holds_no_build_is_one_usage_error(folder: pytest.Pytester) -> None:
    folder.makepyfile("def test_it(board):\n    pass\n")
    (folder.path / "empty").mkdir()
    result = folder.runpytest_inprocess("--app", "empty", "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*empty holds no build: it has neither artefacts.json nor flasher_args.json*"]
    )


def test_of_a_board_that_stays_the_nearer_profile_comes_first(folder: pytest.Pytester) -> None:
    folder.makefile(".yaml", boards="version: 1\nboards:\n  a: {chip: esp32c3, link: twin, state: state}\n")
    folder.makepyfile(
        """
        import pytest

        @pytest.mark.profiles("release", "development")
        def test_it(board):
            assert board.status().encryption == board.profile.value
        """
    )
    earlier = {"purpose": "pytest", "pid": 7, "host": "bench", "since": "then", "doing": "in test test_it"}
    state = folder.path / "state"
    state.mkdir()
    (state / "run.json").write_text(json.dumps(earlier | {"ended_by": None}))
    result = folder.runpytest_inprocess("--board", "a", "-v", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(
        [
            "board a: the run before this one (pytest, process 7 on bench, begun then) was killed in test test_it; *"
        ]
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_it?a-development? PASSED*", "*test_it?a-release? PASSED*"])
