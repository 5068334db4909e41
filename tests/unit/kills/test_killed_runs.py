"""A harness that is killed loses no key, leaves no process, and the next run goes on; Ctrl-C ends in one sentence."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from harness.home import Home
from harness.inventory.inventory import read_inventory
from harness.lab import Lab, own_vault, secret_from
from harness.links.twin import TwinLink

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")

BOARDS = """\
version: 1
boards:
  c3: {chip: esp32c3, link: twin}
  classic: {chip: esp32, link: twin}
"""

BLOCKS = {"c3": [0x70 + 0x20 * number for number in range(6)], "classic": [0x1C]}
"""Where the key blocks lie in QEMU's eFuse files."""

PATIENCE_S = 300
"""Guards against hanging; nothing takes so long."""

STRIKING = """
import json, os, re, sys
from pathlib import Path
from harness.cli import main
from harness.say import Say

pattern, state, whom, numbers = sys.argv[1:5]
del sys.argv[1:5]
say = Say.line

def line(self, text="", **style):
    say(self, text, **style)
    if re.search(pattern, text):
        Say.line = say
        twin = json.loads((Path(state) / "running.json").read_text())["pid"]
        Path("twin.pid").write_text(str(twin))
        for number in numbers.split():
            os.kill(twin if whom == "twin" else os.getpid(), int(number))

Say.line = line
main()
"""
"""A harness that signals strike as soon as it has said a line: from outside they may come any time later."""


def at_a_terminal() -> None:
    """What is started in the background ignores SIGINT and would hand that on; at a terminal nothing does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Bench:
    """A folder with a boards.yaml and a HARNESS_HOME; its home starts with what earlier tests built."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def start(self, *arguments: str, program: Sequence[str] = ("-m", "harness")) -> subprocess.Popen[str]:
        environment = os.environ | {"HARNESS_HOME": str(self.home), "HARNESS_DEBUG": ""}
        return subprocess.Popen(
            [sys.executable, "-u", *program, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=at_a_terminal,
        )

    def provision(self, board: str) -> subprocess.Popen[str]:
        return self.start(*self._provisioning(board))

    def struck(
        self, board: str, moment: str, *numbers: signal.Signals, whom: str = "harness"
    ) -> subprocess.Popen[str]:
        """A run that gets signals, or whose twin gets them, as soon as it has said a line that matches `moment`."""
        state = str(self.home / "twins" / board)
        what = (moment, state, whom, " ".join(str(int(number)) for number in numbers))
        return self.start(*self._provisioning(board), program=("-c", STRIKING, *what))

    def struck_twin(self) -> int:
        """The process of the twin at the moment of `struck`."""
        return int((self.folder / "twin.pid").read_text())

    def _provisioning(self, board: str) -> tuple[str, ...]:
        return "provision", "--board", board, "--out", str(self.folder / "out")

    def keys(self, board: str) -> dict[str, bytes]:
        """What the vault of `board` holds, by MAC."""
        vault = own_vault(self.home / "twins" / board)
        return {ref.mac: vault.flash_key(ref.mac) for ref in vault.key_refs()}

    def burned(self, board: str) -> list[bytes]:
        """The key blocks of `board` that are not blank, in the byte order of key files."""
        content = (self.home / "twins" / board / "efuse.bin").read_bytes()
        blocks = [content[offset : offset + 32][::-1] for offset in BLOCKS[board]]
        return [block for block in blocks if any(block)]


@pytest.fixture
def bench(tmp_path: Path, own_home: Path) -> Bench:
    (tmp_path / "boards.yaml").write_text(BOARDS)
    made = Bench(tmp_path)
    assert made.home == own_home
    return made


def read_until(run: subprocess.Popen[str], pattern: str) -> None:
    """Reads standard error up to a line that matches; a run that never says it is killed."""
    assert run.stderr is not None
    watchdog = threading.Timer(PATIENCE_S, run.kill)
    watchdog.start()
    said = []
    try:
        for line in run.stderr:
            said.append(line)
            if re.search(pattern, line):
                return
    finally:
        watchdog.cancel()
    raise AssertionError(f"no '{pattern}' in:\n{''.join(said)}")


def ends(pid: int) -> bool:
    """Whether process `pid` ends by itself; one that waits for its exit status to be collected has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        if not shown.strip() or shown.lstrip().startswith("Z"):
            return True
        time.sleep(0.05)
    return False


def end(run: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit status, and what was not read yet of standard error."""
    said = run.communicate(timeout=PATIENCE_S)[1]
    return run.returncode, said


MOMENTS = {
    "c3": ("burn ENABLE_SECURITY_DOWNLOAD",),
    "classic": ("burn FLASH_CRYPT_CONFIG",),
}
"""Steps at whose beginning the harness is killed, in the order of the plan; each kill is of a run of its own."""


@pytest.mark.parametrize("board", MOMENTS)
def test_killed_runs_lose_no_key_leave_no_twin_and_the_next_one_finishes(bench: Bench, board: str) -> None:
    keys: dict[str, bytes] = {}
    for moment in MOMENTS[board]:
        run = bench.struck(board, rf"\d/\d+  {moment}", signal.SIGKILL)
        code, said = end(run)
        assert code == -signal.SIGKILL, said
        assert ends(bench.struck_twin()), f"the twin outlived the kill at '{moment}'"
        assert keys in ({}, bench.keys(board)), f"another key after the kill at '{moment}'"
        keys = bench.keys(board)
        assert set(bench.burned(board)) <= set(keys.values())
    last = bench.provision(board)
    code, said = end(last)
    assert code == 0, said
    assert re.search(rf"process {run.pid}, .*\) was killed in step \d+/\d+ \({MOMENTS[board][-1]}", said), (
        said
    )
    assert not (bench.home / "twins" / board / "run.json").exists()
    assert len(keys) == 1
    assert bench.keys(board) == keys
    assert bench.burned(board) == list(keys.values())


STOPS = [
    # A step that can be done again stops at once; a burn is finished, and a second signal does not hasten it.
    pytest.param([signal.SIGINT], "canary", 130, r"in step 3/14 \(canary\)", id="ctrl-c"),
    pytest.param(
        [signal.SIGTERM, signal.SIGTERM],
        "burn SPI_BOOT_CRYPT_CNT",
        143,
        r"before step [56]/14 \(.*\); no eFuse burn is half done",
        id="sigterm",
    ),
]


@pytest.mark.parametrize(("numbers", "moment", "status", "where"), STOPS)
def test_ctrl_c_and_sigterm_end_in_one_sentence_and_leave_a_note_for_the_next_run(
    bench: Bench, numbers: list[signal.Signals], moment: str, status: int, where: str
) -> None:
    run = bench.struck("c3", rf"\d/\d+  {moment}", *numbers)
    code, said = end(run)
    assert code == status, said
    *_, last = said.strip().splitlines()
    assert re.fullmatch(rf"harness: interrupted {where}; the next run goes on from here", last), said
    assert "Traceback" not in said
    assert ends(bench.struck_twin())
    left = json.loads((bench.home / "twins" / "c3" / "run.json").read_text())
    assert (left["pid"], left["ended_by"]) == (run.pid, numbers[0].name)
    assert re.fullmatch(where, left["doing"])


def test_a_twin_that_dies_is_named_as_the_cause_and_the_board_is_named(bench: Bench) -> None:
    code, said = end(bench.struck("c3", r"\d/\d+  canary", signal.SIGKILL, whom="twin"))
    assert code == 3, said
    assert said.count("harness: board c3: ") == 1
    assert "the twin's process ended with signal 9" in said
    assert "cable" not in said
    assert "Traceback" not in said


def test_a_second_run_on_a_board_is_refused_at_once_and_told_who_holds_it(bench: Bench) -> None:
    # It must not be done before the second one has begun.
    first = bench.struck("c3", "Plan ", signal.SIGSTOP)
    try:
        read_until(first, "Plan ")
        code, said = end(bench.provision("c3"))
    finally:
        first.kill()
        end(first)
    assert code == 3, said
    assert re.search(rf"board c3: in use by .*process {first.pid}, harness provision.*, since", said), said


def test_a_twin_starts_as_soon_as_the_one_before_it_has_let_go(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    TwinLink("esp32c3", tmp_path, tmp_path / "store", board="b").close()


def test_leftovers_of_killed_runs_go_with_the_next_one(bench: Bench) -> None:
    """What a kill leaves at the worst moment, planted: half-made builds, a half-written file."""
    (bench.home / "builds").unlink()
    making = [bench.home / "builds" / folder / ".making-x" for folder in ("objects", "artefacts")]
    for folder in making:
        folder.mkdir(parents=True)
    half_written = bench.home / "twins" / "c3" / "vault.key.0123abcd.part"
    half_written.parent.mkdir(parents=True, mode=0o700)
    half_written.touch(mode=0o600)
    code, said = end(bench.start("plan", "--board", "c3", "--out", "out"))
    assert code == 0, said
    assert not [path for path in (*making, half_written) if path.exists()]


def test_throwaway_twins_of_killed_runs_go_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    abandoned, held, young = (tmp_path / f"harness-twin-{name}" for name in ("abandoned", "held", "young"))
    for folder in (abandoned, held, young):
        folder.mkdir()
    # Anybody may plant a link in the folder of temporary files.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lock").write_text("somebody's own")
    planted = tmp_path / "harness-twin-planted"
    planted.symlink_to(tmp_path / "elsewhere")
    os.utime(planted, (0, 0), follow_symlinks=False)
    with FileLock(held / "lock"):
        for folder in (abandoned, held):
            os.utime(folder, (0, 0))
        lab = Lab(Home(tmp_path / "home"), read_inventory(None), tmp_path / "out", secret_from(None))
        with lab, lab.throwaway("esp32c3"):
            assert not abandoned.exists()
    assert sorted(tmp_path.glob("harness-twin-*")) == [held, planted, young]
    assert (tmp_path / "elsewhere" / "lock").read_text() == "somebody's own"
