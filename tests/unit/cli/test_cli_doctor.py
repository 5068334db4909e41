"""`harness doctor`: findings for people and machines, exit code 0 or 3, and nothing but findings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli.doctor import doctor
from harness.doctor.host import HostFacts, Tool
from harness.errors import UsageError

HOST = HostFacts(
    python=(3, 11, 7),
    system="Linux x86_64",
    esptool="5.6.0",
    compiler=Tool("cc"),
    idf=Tool(None),
    qemu={"qemu-system-xtensa": Tool(None, "not there", "install it")},
    espemu=Tool(None, "not there", "install it"),
    uhubctl=Tool(None, "not there", "install it"),
    free_bytes={"/h": 8 << 30},
)

BOARDS = """\
version: 1
boards:
  twin: {chip: esp32c3, link: twin}
  desk: {chip: esp32, link: serial, port: /dev/ttyUSB77, mac: "24:6f:28:00:00:01"}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bench of our own, on a machine where all is well."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_VAULT", raising=False)
    monkeypatch.delenv("HARNESS_VAULT_KEY_FILE", raising=False)
    monkeypatch.setattr("harness.doctor.examination.probe_host", lambda _folders: HOST)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(doctor, list(arguments), standalone_mode=False)


def test_without_boards_nothing_is_wrong_and_nothing_is_made(folder: Path) -> None:
    done = run()
    assert (done.exception, done.return_value) == (None, 0), done.output
    assert "no boards.yaml here" in done.output
    assert "Nothing is wrong." in done.output
    assert list(folder.iterdir()) == []


def test_a_board_that_is_not_plugged_in_is_wrong_and_the_exit_code_says_so(folder: Path) -> None:
    (folder / "boards.yaml").write_text(BOARDS)
    done = run()
    assert done.return_value == 3
    assert "✗ port /dev/ttyUSB77 does not exist" in done.output
    assert "→ plug the board in" in done.output
    assert "1 thing is wrong" in done.output


def test_machines_get_every_finding_as_json(folder: Path) -> None:
    (folder / "boards.yaml").write_text(BOARDS)
    said = json.loads(run("--json").output)
    assert (said["format"], said["ok"]) == (1, False)
    assert {"host", "tools", "ports", "state", "vault", "boards", "board twin", "board desk"} == {
        finding["area"] for finding in said["findings"]
    }
    assert all(finding["todo"] for finding in said["findings"] if finding["level"] == "wrong")


def test_only_the_boards_that_are_named_are_looked_at(folder: Path) -> None:
    (folder / "boards.yaml").write_text(BOARDS)
    done = run("--board", "twin")
    assert done.return_value == 0
    assert "ttyUSB77" not in done.output


def test_a_boards_yaml_that_is_wrong_is_a_finding_and_the_rest_is_still_looked_at(folder: Path) -> None:
    (folder / "boards.yaml").write_text("version: 1\nboards:\n  a: {chip: esp99, link: twin}\n")
    done = run()
    assert done.return_value == 3
    assert "boards.yaml:3: boards.a.chip: chip 'esp99' is not supported" in done.output
    assert "✓ Python 3.11.7" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--boards", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("--board", "nobody"), "there is no board 'nobody'"),
    ],
)
def test_what_was_named_wrongly_is_a_usage_error(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    (folder / "boards.yaml").write_text(BOARDS)
    done = run(*arguments)
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)


def test_a_state_folder_that_is_a_file_stops_the_boards_but_not_the_doctor(folder: Path) -> None:
    (folder / "home").write_text("")
    (folder / "boards.yaml").write_text(BOARDS)
    done = run()
    assert (done.exception, done.return_value) == (None, 3)
    assert "the boards were not looked at" in done.output
