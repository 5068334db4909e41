"""The command line: every bad input ends in one sentence, the right exit code, and no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

BOARDS = """\
version: 1
boards:
  desk: {chip: esp32c3, link: serial, port: PORT, mac: "7c:df:a1:00:00:01"}
  virtual: {chip: esp32c3, link: twin}
"""


def harness(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HARNESS_HOME": str(folder / "home"), "HARNESS_DEBUG": ""}
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


CASES = (
    (("boards", "--boards", "nowhere.yaml"), 2, "nowhere.yaml: cannot be read: No such file"),
    (("run", "--board", "nobody"), 2, "there is no board 'nobody'"),
    (("run", "--profile", "paranoid"), 2, "'paranoid' is not one of"),
    (("run", "--chip", "esp99"), 2, "'esp99' is not one of"),
    (("plan", "--board", "desk"), 3, "board desk: port /dev/does-not-exist does not exist"),
    (("provision",), 2, "which board?"),
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
    (("frobnicate",), 2, "No such command 'frobnicate'"),
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


def test_a_port_that_nobody_answers_on_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = f"socket://127.0.0.1:{silent.getsockname()[1]}"
        (tmp_path / "boards.yaml").write_text(BOARDS.replace("PORT", f'"{port}"'))
        done = harness(tmp_path, "plan", "--board", "desk")
    assert done.returncode == 3, done.stderr
    assert "board desk" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_board_that_another_process_holds_is_refused_and_the_holder_named(tmp_path: Path) -> None:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    script = (
        "import sys, time; from pathlib import Path; from harness.locks import BoardLock;"
        "lock = BoardLock(Path(sys.argv[1]), sys.argv[2], board='b', purpose='a long job').acquire();"
        "print('held', flush=True); time.sleep(60)"
    )
    (tmp_path / "home" / "locks").mkdir(parents=True)
    state = tmp_path / "home" / "twins" / "virtual"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "home" / "locks"), str(state)], stdout=subprocess.PIPE
    )
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
        [sys.executable, "-m", "harness", "--help"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert "4 refused" in done.stdout
