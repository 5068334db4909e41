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

from harness.report.recorder import rebuild

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")

STRANGERS_TEST = """
    import os, signal, time
    from pathlib import Path

    def test_it(board, request):
        pids = [board.link.pid, os.getpid(), os.getppid()]
        Path("pids.new").write_text(" ".join(map(str, pids)))
        os.rename("pids.new", "pids")
        time.sleep(600)
"""
BOARDS = "version: 1\nboards:\n  c3: {chip: esp32c3, link: twin}\n"
WITHOUT_EXECNET = """
    from execnet.gateway_base import WorkerGateway
    from xdist.workermanage import NodeManager

    # xdist kills a worker that takes longer than ten seconds to end, as on a busy machine it may.
    NodeManager.EXIT_TIMEOUT = 300
    # execnet interrupts an abandoned worker after five seconds; the harness must not need that.
    WorkerGateway._terminate_execution = lambda self: self._execpool.trigger_shutdown()
"""
PATIENCE_S = 300
"""Guards against hanging; nothing takes so long."""

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
        deadline = time.monotonic() + PATIENCE_S
        while not (folder / "pids").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise AssertionError(f"the test never began: {self.process.communicate()[0]}")
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
        said = self.process.communicate(timeout=PATIENCE_S)[0]
        return self.process.returncode, said


def ends(pid: int) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        if not shown.strip() or shown.lstrip().startswith("Z"):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, own_home: Path) -> Path:
    monkeypatch.setenv("HARNESS_HOME", str(own_home))
    pytester.makefile(".yaml", boards=BOARDS)
    pytester.makeconftest(WITHOUT_EXECNET)
    pytester.makepyfile(STRANGERS_TEST)
    return pytester.path


def test_workers_and_twins_end_with_their_controller_and_the_next_session_says_what_it_found(
    folder: Path,
) -> None:
    with Began(folder, "-n", "1") as session:
        session.process.send_signal(signal.SIGTERM)
        assert ends(session.twin)
        status, said = session.end()
        assert status == 143, said
        assert "Interrupted: SIGTERM: stopped; the next run goes on from here" in said
        assert ends(session.runner)
    with Began(folder, "-n", "1", "--harness-out", "out") as killed:
        assert killed.runners_parent == killed.process.pid
        killed.process.kill()
        assert ends(killed.twin)
        # Nothing of it is left, pytest-embedded's own server process neither: that holds the output open.
        killed.end()
        assert ends(killed.runner)
    run = rebuild(folder / "out")
    assert (run.verdict, run.ended_s) == ("failed", None)
    # An abandoned worker writes down what became of its test if it gets so far; else its record says that it died in it.
    ((outcome, cause, name),) = ((test.outcome, test.cause, test.name) for test in run.tests)
    during = "" if cause == "it was interrupted" else f" during {name}"
    assert cause == "it was interrupted" or str(cause).startswith("the process that ran it (gw0) was killed")
    assert (outcome, run.reason) == ("error", f"killed{during}; by then: 1 with errors of the bench")
    log = (folder / "out" / "c3" / "serial.log").read_text()
    earlier = rf"the run before this one \(pytest, process {session.runner}, .*\) was stopped by SIGTERM in test test_it"
    assert re.search(earlier, log), log[:500]
