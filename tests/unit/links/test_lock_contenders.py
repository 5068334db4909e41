"""Many processes that want one board and are killed at any moment: never two hold it, and it is never lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")

CONTENDERS = 20
KILLS = 60

RACE = textwrap.dedent(
    """
    import contextlib, json, os, random, signal, sys, time
    from pathlib import Path
    from harness.errors import LabError
    from harness.locks import BoardLock

    folder, contenders, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    counter, taken, broken = folder / "counter", folder / "taken", folder / "broken"
    counter.write_text("0")
    # Two names, as most boards have: a process may be killed between the two.
    names = [folder / "by-usb.lock", folder / "by-mac.lock"]

    def append(path, text):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, text.encode())
        os.close(descriptor)

    def use():
        # As slow and as careless as can be: only the lock makes it right.
        before = int(counter.read_text())
        (folder / "user").write_text(str(os.getpid()))
        time.sleep(random.uniform(0, 0.002))
        if (folder / "user").read_text() != str(os.getpid()):
            append(broken, f"{os.getpid()} was not alone\\n")
        new = folder / f"counter.{os.getpid()}"
        new.write_text(str(before + 1))
        new.replace(counter)
        append(taken, f"{before + 1}\\n")

    def contend():
        random.seed()
        while True:
            try:
                with BoardLock(names, board="b", purpose="race"):
                    use()
            except LabError as error:
                if "in use by" not in error.message:
                    append(broken, f"{error}\\n")
            time.sleep(random.uniform(0, 0.002))

    def start():
        pid = os.fork()
        if pid == 0:
            try:
                contend()
            finally:
                os._exit(3)
        return pid

    def progress():
        deadline, before = time.monotonic() + 120, counter.read_text()
        while counter.read_text() == before:
            assert time.monotonic() < deadline, "nobody gets the board any more"
            time.sleep(0.001)

    def victim():
        # Every other time one that was about to work on the board a moment ago.
        with contextlib.suppress(OSError, ValueError):
            user = int((folder / "user").read_text())
            if user in living and random.random() < 0.5:
                return user
        return random.choice(living)

    living = [start() for _ in range(contenders)]
    for _ in range(kills):
        progress()
        time.sleep(random.uniform(0, 0.005))
        chosen = victim()
        living.remove(chosen)
        os.kill(chosen, signal.SIGKILL)
        assert os.waitpid(chosen, 0)[1] == signal.SIGKILL, "it had ended by itself"
        living.append(start())
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    lock = BoardLock(names, board="b", purpose="after").acquire()
    lock.release()
    print(json.dumps({"left": sorted(path.name for path in folder.glob("*.lock"))}))
    """
)


def test_twenty_contenders_under_sigkill_never_hold_the_board_together_and_never_lose_it(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path), str(CONTENDERS), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    broken = tmp_path / "broken"
    assert not broken.exists(), broken.read_text()
    taken = [int(line) for line in (tmp_path / "taken").read_text().split()]
    assert len(set(taken)) == len(taken), "two counted at a time"
    assert taken == sorted(taken)
    # Whoever is killed between counting and saying so leaves a gap, no more.
    assert max(taken) - len(taken) <= KILLS + CONTENDERS
    assert json.loads(done.stdout) == {"left": []}
