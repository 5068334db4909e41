"""No emulator outlives whoever started it: harness killed, supervisor killed, both; and one that hears no signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from emulator_bench import is_gone

from harness.links import emulator_process
from harness.links.emulator_process import EmulatorProcess

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux ties a child to its parent's death"
)

HARNESS = """
import sys, time
from harness.links import emulator_process
emulator_process.GRACE_S = 0.3
process = emulator_process.EmulatorProcess(sys.argv[1:])
print(process.pid, flush=True)
time.sleep(600)
"""
EMULATOR = ("sleep", "600")
DEAF = ("sh", "-c", "trap '' TERM INT; echo deaf >&2; while :; do sleep 0.1; done")


def supervisor_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("command", "victims"),
    [
        pytest.param(EMULATOR, ("harness",), id="harness"),
        pytest.param(EMULATOR, ("supervisor",), id="supervisor"),
        pytest.param(EMULATOR, ("supervisor", "harness"), id="both"),
        pytest.param(DEAF, ("harness",), id="harness-of-a-deaf-one"),
    ],
)
def test_a_kill_leaves_no_emulator(command: Sequence[str], victims: Sequence[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HARNESS, *command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as harness:
        assert harness.stdout is not None
        emulator = int(harness.stdout.readline())
        pids = {"harness": harness.pid, "supervisor": supervisor_of(emulator)}
        for victim in victims:
            os.kill(pids[victim], signal.SIGKILL)
        gone = is_gone(emulator)
        harness.kill()
    assert gone
    assert is_gone(pids["supervisor"])


def test_a_deaf_emulator_whose_supervisor_was_killed_ends_when_the_link_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(emulator_process, "GRACE_S", 0.3)
    process = EmulatorProcess(DEAF)
    assert process.pid is not None
    while not process._lines:
        time.sleep(0.01)
    os.kill(supervisor_of(process.pid), signal.SIGKILL)
    process.stop()
    assert is_gone(process.pid)
