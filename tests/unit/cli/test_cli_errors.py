"""The command line: every bad input ends in one sentence, the right exit code, and no traceback."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.cli.encrypt import _table
from harness.cli.main import _run
from harness.errors import FormatError, UsageError
from harness.locks import STATE_LOCK
from harness.preparation import Demand
from harness.say import Say

BOARDS = """\
version: 1
boards:
  desk: {chip: esp32c3, link: serial, port: PORT, mac: "7c:df:a1:00:00:01"}
  virtual: {chip: esp32c3, link: twin}
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def harness(folder: Path, *arguments: str) -> Done:
    """In this process, errors and all: starting one takes longer than what most commands do."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(stdout), redirect_stderr(stderr):
        patched.chdir(folder)
        patched.setenv("HARNESS_HOME", str(folder / "home"))
        patched.delenv("HARNESS_DEBUG", raising=False)
        patched.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as ended:
            _run()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, stdout.getvalue(), stderr.getvalue())


CASES = (
    (("boards", "--boards", "nowhere.yaml"), 2, "nowhere.yaml: cannot be read: No such file"),
    (("run", "--board", "nobody"), 2, "there is no board 'nobody'"),
    (("run", "--profile", "paranoid"), 2, "'paranoid' is not one of"),
    (("run", "--chip", "esp99"), 2, "'esp99' is not one of"),
    (("plan", "--board", "desk"), 3, "board desk: port /dev/does-not-exist does not exist"),
    (("provision",), 2, "which board?"),
    (("run", "--burn", "nope"), 2, "--burn: there is no board 'nope'"),
    (("run", "--accept-unknown-burns", "nope"), 2, "--accept-unknown-burns: there is no board 'nope'"),
    (("provision", "--board", "virtual", "--burn", "desc"), 2, "boards: desk, virtual"),
    (
        ("rescue", "desk", "--as", "7c:df:a1:00:00:01", "--burn", "nope"),
        2,
        "--burn: there is no board",
    ),
    (("provision", "--plan", "0123456789abcdef"), 2, "there is no plan 0123456789abcdef"),
    (("provision", "--plan", "../../etc/passwd"), 2, "is not a plan id"),
    (("log", "nowhere.log"), 2, "nowhere.log"),
    (
        ("encrypt", "nowhere.bin", "--board", "desk", "--table", "t.csv", "--out", "o"),
        2,
        "nothing opens the vault",
    ),
    (("vault", "verify"), 2, "nothing opens the vault"),
    (("twin", "--state", "boards.yaml"), 2, "is a file"),
    (("twin", "--state", "new", "--mac", "zz"), 2, "--mac: 'zz' is not the MAC address of a board"),
    (("twin", "--state", "new", "--mac", "01:02:03:04:05:06"), 2, "the first one even"),
    (("vault", "verify", "--vault-passphrase-fd", "-1"), 2, "-1 is not in the range"),
    (("vault", "verify", "--board", "virtual"), 2, "board virtual has no vault yet"),
    (
        ("encrypt", "nowhere.bin", "--board", "virtual", "--table", "t.csv", "--out", "o"),
        2,
        "board virtual has no known MAC",
    ),
    (("frobnicate",), 2, "No such command 'frobnicate'"),
    # `--board "$BOARD"` with a variable that is not set: never a throwaway twin instead of the board.
    (("run", "--board", ""), 2, "an empty argument after --board"),
    (("run", "--board="), 2, "an empty argument for --board"),
    (("run", "--board=nobody="), 2, "no board 'nobody='"),
    (("run", "--board", "n\udcff"), 2, "there is no board 'n"),
    (("vault", "verify", "--vault-passphrase-fd", "9" * 20), 2, "cannot be read from descriptor 9999"),
)


@pytest.mark.parametrize(("arguments", "code", "said"), CASES, ids=lambda value: str(value)[:40])
def test_bad_input_ends_in_one_sentence_and_its_exit_code(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS.replace("PORT", "/dev/does-not-exist"))
    done = harness(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


PLAN = "0123456789abcdef"
NOTE = {"format": 1, "board": "virtual", "profile": "release", "lock": None, "plan": "{}"}


@pytest.mark.parametrize(
    ("note", "options", "said"),
    [
        ("{", (), "cannot be read"),
        ("[]", (), "is damaged"),
        (json.dumps(NOTE | {"format": 2}), (), "was made by a newer harness"),
        (json.dumps(NOTE | {"profile": "paranoid"}), (), "is damaged: 'paranoid'"),
        (json.dumps(NOTE | {"lock": 5}), (), "is damaged: 5"),
        (json.dumps(NOTE | {"plan": 5}), (), "is damaged"),
        (json.dumps({"format": 1}), (), "is damaged: 'board'"),
        (json.dumps(NOTE), (), "this is not a stored plan"),
        (json.dumps(NOTE), ("--board", "desk"), f"plan {PLAN} is for board virtual, not desk"),
        (json.dumps(NOTE), ("--profile", "development"), "is for profile release, not development"),
        (json.dumps(NOTE), ("--lock", "none"), "is for lock by default, not none"),
        (json.dumps(NOTE), ("--revoke", "1"), "is for revoke by default, not 1"),
        (json.dumps(NOTE | {"revoke": [0]}), ("--revoke", "1"), "is for revoke 0, not 1"),
        (json.dumps(NOTE | {"revoke": ["0"]}), (), "is damaged: revoke is not a list of slots"),
    ],
)
def test_a_plan_that_is_damaged_or_for_something_else_is_not_carried_out(
    tmp_path: Path, note: str, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    plans = tmp_path / "home" / "plans"
    plans.mkdir(parents=True)
    (plans / f"{PLAN}.json").write_text(note)
    done = harness(tmp_path, "provision", "--plan", PLAN, *options)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_partition_table_is_named_with_its_file(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("ota_0,app,ota_0,0x20000,nonsense\n")
    with pytest.raises(FormatError, match=r"mine\.csv: line 1 \(ota_0\): size 'nonsense'"):
        _table(table, "0x8000")
    with pytest.raises(UsageError, match="'-5' is not an offset in flash"):
        _table(table, "-5")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_where_no_error_can_be_told_the_exit_status_still_tells_it(tmp_path: Path) -> None:
    """As after the terminal was closed, or with the log on a full disk."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "boards", "--boards", "none.yaml"],
            cwd=tmp_path,
            stderr=full,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"HARNESS_HOME": str(tmp_path / "home"), "HARNESS_DEBUG": ""},
            check=False,
        )
    assert done.returncode == 2


def test_progress_that_cannot_be_told_stops_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Least of all between a burn and the record of it."""

    class ClosedTerminal(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(sys, "stderr", ClosedTerminal())
    Say().step("burn")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_of_the_lab(tmp_path: Path) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness", "boards"],
            cwd=tmp_path,
            env=os.environ | {"HARNESS_HOME": str(tmp_path / "home"), "HARNESS_DEBUG": ""},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert done.returncode == 3
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_that_nobody_answers_on_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = f"socket://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "boards.yaml").write_text(BOARDS.replace("PORT", f'"{port}"'))
        done = harness(tmp_path, "plan", "--board", "desk")
    assert done.returncode == 3, done.stderr
    assert "board desk" in done.stderr
    assert "what to do: a socket:// port has no reset lines" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_board_that_another_process_holds_is_refused_and_the_holder_named(tmp_path: Path) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    script = (
        "import sys, time; from pathlib import Path; from harness.locks import BoardLock;"
        "lock = BoardLock([Path(sys.argv[1])], board='b', purpose='a long job').acquire();"
        "print('held', flush=True); time.sleep(600)"
    )
    state = tmp_path / "home" / "twins" / "virtual"
    state.mkdir(parents=True)
    holder = subprocess.Popen([sys.executable, "-c", script, str(state / STATE_LOCK)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        done = harness(tmp_path, "plan", "--board", "virtual")
    finally:
        holder.kill()
        holder.communicate()
    assert done.returncode == 3, done.stderr
    assert f"process {holder.pid}, a long job" in done.stderr


def test_boards_are_listed_for_people_and_for_machines(tmp_path: Path) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    assert "desk" in harness(tmp_path, "boards").stdout
    assert '"burn up to": "never"' in harness(tmp_path, "boards", "--json").stdout


def test_help_teaches_the_exit_codes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--help"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0
    assert "4 refused" in done.stdout


def test_a_run_reaches_its_profile_in_every_way_that_provision_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refused(_board: object, demand: Demand, *_: object, **__: object) -> None:
        asked.append(demand)
        raise UsageError("enough")

    monkeypatch.setattr("harness.cli.run.run_main_job", refused)
    ways = ("--by-firmware", "--device-key", "--aggressive-revoke", "--revoke", "0", "--revoke", "2")
    assert harness(tmp_path, "run", *ways).returncode == 2
    [demand] = asked
    assert (demand.by_firmware, demand.device_key, demand.aggressive_revoke) == (True, True, True)
    assert demand.revoke == (0, 2)
