"""Jobs that share a rack and are killed at any moment; ``python -m tests.soak.rack`` does it with whole boards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")

BOARDS = 3
JOBS = 4
KILLS = 20

RACE = textwrap.dedent(
    """
    import json, os, random, signal, sys, time
    from pathlib import Path
    from harness.errors import InUseError
    from harness.home import Home
    from harness.inventory.entry import TwinEntry
    from harness.inventory.inventory import Inventory
    from harness.rack.health import HealthBook, order
    from harness.rack.lease import board_locks, holder_of
    from harness.rack.renewal import leased

    folder, boards, jobs, kills = Path(sys.argv[1]), *map(int, sys.argv[2:])
    home, book = Home(folder), HealthBook(Home(folder))
    inventory = Inventory(None, {f"b{number}": TwinEntry(chip="esp32c3") for number in range(boards)})
    for name in inventory.boards:
        home.twin(name).mkdir(parents=True)

    def tell(file, text):
        descriptor = os.open(folder / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, (text + "\\n").encode())
        os.close(descriptor)

    def use(name):
        proof = folder / f"{name}.user"
        proof.write_text(str(os.getpid()))
        book.used(name)
        lease = holder_of(name, inventory.named(name), inventory, home)
        if lease is None or lease.pid != os.getpid():
            tell("broken", f"{name} is held by {os.getpid()}, and others are told {lease}")
        if random.random() < 0.3:
            book.latch(name, "does not boot", run=f"job {os.getpid()}")
            book.mend(name)
        time.sleep(random.uniform(0, 0.003))
        if proof.read_text() != str(os.getpid()):
            tell("broken", f"{name}: {os.getpid()} was not alone")
        tell("used", name)

    def job():
        random.seed()
        while True:
            for name in order(inventory.boards, book):
                try:
                    locks = board_locks(name, inventory.named(name), inventory, home)
                    with leased(locks, board=name, purpose="race", reason=f"job {os.getpid()}"):
                        use(name)
                        break
                except InUseError:
                    tell("refused", name)
                except Exception as error:
                    tell("broken", repr(error))
            time.sleep(random.uniform(0, 0.004))

    def start():
        pid = os.fork()
        if pid == 0:
            try:
                job()
            finally:
                os._exit(1)
        return pid

    def used():
        return (folder / "used").stat().st_size if (folder / "used").exists() else 0

    running = [start() for _ in range(jobs)]
    for _ in range(kills):
        before, deadline = used(), time.monotonic() + 120
        while used() == before:
            assert time.monotonic() < deadline, "nobody gets a board any more"
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.02))
        victim = running.pop(random.randrange(jobs))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        running.append(start())
    for pid in running:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    held = [name for name, entry in inventory.boards.items() if holder_of(name, entry, inventory, home)]
    damaged = [health.broken for health in book.all().values() if "read" in (health.broken or "")]
    lines = {file: (folder / file).read_text().split() if (folder / file).exists() else []
             for file in ("used", "refused")}
    broken = (folder / "broken").read_text() if (folder / "broken").exists() else ""
    print(json.dumps({"held": held, "damaged": damaged, "broken": broken,
                      "used": sorted(set(lines["used"])), "refused": len(lines["refused"])}))
    """
)


def test_killed_jobs_leave_every_board_free_known_and_never_with_two_holders(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path), str(BOARDS), str(JOBS), str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["broken"] == ""
    assert found["held"] == []
    assert found["damaged"] == []
    assert found["used"] == [f"b{number}" for number in range(BOARDS)], "each has its turn"
    assert found["refused"] > 0, "they did meet"
