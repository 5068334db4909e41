"""A pytest session that is told to end, or killed, with boards in its hands: workers of pytest-xdist included."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

STRANGERS_TEST = """
    import os, signal, time
    from pathlib import Path

    def test_it(board, request):
        pids = [board.link.pid, os.getpid(), os.getppid()]
        Path("pids.new").write_text(" ".join(map(str, pids)))
        os.rename("pids.new", "pids")
        time.sleep(60)
"""
BOARDS = "version: 1\nboards:\n  c3: {chip: esp32c3, link: twin}\n"
ARGUMENTS = ("--profile", "open", "--board", "c3", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")


class Began:
    """A session that is in its test."""

    def __init__(self, folder: Path, *more: str) -> None:
        (folder / "pids").unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *ARGUMENTS, *more],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 60
        while not (folder / "pids").exists():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "the test never began"
            time.sleep(0.02)
        told = (folder / "pids").read_text().split()
        self.twin, self.runner, self.runners_parent = map(int, told)

    def __enter__(self) -> Began:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Exit status, and everything that it printed; whoever else holds its output open has ended, too."""
        said = self.process.communicate(timeout=30)[0]
        return self.process.returncode, said


def ends_within(timeout_s: float, pid: int) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        if not shown.strip() or shown.lstrip().startswith("Z"):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, so that only the first one compiles."""
    return tmp_path_factory.mktemp("sessions") / "home"


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, home: Path) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(home))
    pytester.makefile(".yaml", boards=BOARDS)
    pytester.makepyfile(STRANGERS_TEST)
    return pytester.path


def test_sigterm_ends_a_session_in_order_and_a_killed_one_is_named_by_the_next(folder: Path) -> None:
    with Began(folder) as killed:
        killed.process.kill()
        # Nothing of it is left, pytest-embedded's own server process neither: that holds the output open.
        killed.end()
        assert ends_within(3.0, killed.twin)
    with Began(folder) as session:
        session.process.send_signal(signal.SIGTERM)
        status, said = session.end()
        assert status == 143, said
        assert "Interrupted: SIGTERM: stopped; the next run goes on from here" in said
        earlier = rf"board c3: the run before this one \(pytest, process {killed.runner}, .* was killed in test test_it"
        assert re.search(earlier, said), said
        assert ends_within(0.5, session.twin)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=["sigterm", "sigkill"]
)
def test_workers_and_their_twins_end_with_their_controller(folder: Path, number: int, status: int) -> None:
    with Began(folder, "-n", "1") as session:
        assert session.runners_parent == session.process.pid
        session.process.send_signal(number)
        # Sooner than by execnet, which lets five seconds go by before it interrupts a worker.
        assert ends_within(4.5, session.twin)
        code, said = session.end()
        assert code == status, said
        assert ends_within(4.5, session.runner)
