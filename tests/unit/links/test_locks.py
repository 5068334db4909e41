"""Board locks: one user, named, freed by death."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.errors import LabError
from harness.locks import BoardLock


def test_a_held_board_is_refused_and_the_holder_is_named(tmp_path: Path) -> None:
    with (
        BoardLock(tmp_path, "/dev/ttyUSB0", board="desk", purpose="harness run"),
        pytest.raises(LabError, match=r"board desk: in use by .*harness run, since") as caught,
    ):
        BoardLock(tmp_path, "/dev/ttyUSB0", board="desk", purpose="pytest").acquire()
    assert "what to do" in str(caught.value)
    with BoardLock(tmp_path, "/dev/ttyUSB0", board="desk", purpose="pytest"):
        pass


def test_a_lock_is_freed_when_its_holder_is_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from harness.locks import BoardLock
        lock = BoardLock(Path(sys.argv[1]), "k", board="b", purpose="p").acquire()
        print("held", flush=True)
        time.sleep(60)
        """
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LabError, match=f"process {holder.pid}"):
        BoardLock(tmp_path, "k", board="b", purpose="q").acquire()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with BoardLock(tmp_path, "k", board="b", purpose="q") as lock:
        assert "process" in lock.holder()
