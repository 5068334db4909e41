"""Many boards, several jobs at once, random kills: never two holders, none left locked, every verdict right.

    python -m tests.soak.rack --boards 40 --jobs 4 --seconds 600 --seed 7
    python -m tests.soak.rack --rack --workers 4 --boards 12 --jobs 3 --seconds 600
    python -m tests.soak.rack --idle 60          # what an idle leased board costs

The boards are twins of one boards.yaml. Each job is a pytest of its own on some of them, chosen anew; now and then one is
killed with SIGKILL: pytest alone, with all that it started, or a twin. In every test a job proves that it is alone on its
board, and one test must fail in every job that gets that far. At the end no board is held, no process is left, and every
board passes `harness boards mend`.

Exit status: 0 all held, 1 something did not, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from harness.home import Home
from harness.interruption import Interrupted, listen
from harness.inventory.inventory import read_inventory
from harness.rack.health import HealthBook
from harness.rack.lease import holder_of
from tests.soak.random_kills import GONE_WITHIN_S, command_of, descendants, processes

JOB_TIMEOUT_S = 1200.0
"""From a job's start; one that takes longer hangs."""

IDLE_LIMIT_PERCENT = 1.0
"""Of one core: what an idle leased board may cost, holder and twin together."""

_PR_SET_CHILD_SUBREAPER = 36

TESTS = '''
"""What each job of the soak does on each of its boards."""

import os
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.profiles("open")
FOLDER = Path(os.environ["SOAK_FOLDER"])


def me():
    started = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return f"{os.getpid()} {started}"


def lives(who):
    pid, started = who.split()
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19] == started
    except OSError:
        return False


def complain(text):
    descriptor = os.open(FOLDER / "violations", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (text + chr(10)).encode())
    os.close(descriptor)


def test_is_alone_on_its_board(board):
    proof = FOLDER / "proof" / board.name
    before = proof.read_text() if proof.exists() else ""
    if before and before != me() and lives(before):
        complain(f"{board.name}: {me()} found {before} there")
    mine = proof.with_name(f"{board.name}.{os.getpid()}")
    mine.write_text(me())
    mine.replace(proof)
    for _ in range(3):
        assert board.status().version
        time.sleep(0.1)
        if proof.read_text() != me():
            complain(f"{board.name}: {proof.read_text()} came to {me()}")
    proof.unlink()


def test_fails_on_purpose(board):
    assert board.status().version == "never"
'''

PURPOSELY = "test_fails_on_purpose"


@dataclass
class Run:
    """One job."""

    process: subprocess.Popen[bytes]
    folder: Path
    boards: tuple[str, ...]
    began_s: float
    struck: str | None = None
    """Whom a kill struck: ``pytest``, ``everything``, ``twin`` or ``worker``."""


@dataclass
class Rack:
    """The boards, and what became of them so far."""

    folder: Path
    boards: int
    workers: int
    shared: bool
    """Each job has all boards, with ``--rack``, and waits for those that another one has."""
    choice: random.Random
    counted: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    pids: set[int] = field(default_factory=set)
    """Of everything that ever ran."""
    started: int = 0

    @property
    def names(self) -> list[str]:
        return [f"twin-{number:02d}" for number in range(self.boards)]

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"HARNESS_HOME": str(self.home.root), "SOAK_FOLDER": str(self.folder)}

    def prepare(self) -> None:
        """Writes what the jobs read, and has the firmware built once."""
        (self.folder / "proof").mkdir()
        self.home.root.mkdir(mode=0o700)
        entries = "".join(f"  {name}: {{chip: esp32c3, link: twin}}\n" for name in self.names)
        (self.folder / "boards.yaml").write_text(f"version: 1\nboards:\n{entries}")
        (self.folder / "test_job.py").write_text(TESTS)
        (self.folder / "pytest.ini").write_text("[pytest]\n")
        began = time.monotonic()
        run = self.start((self.names[0],))
        if run.process.wait(JOB_TIMEOUT_S) != 1:
            sys.exit(f"a clean job does not end as it must:\n{self.said(run)[-3000:]}")
        self.judge(run)
        print(f"a clean job on one board: {time.monotonic() - began:.1f} s", flush=True)

    def start(self, boards: tuple[str, ...]) -> Run:
        """A job on these boards."""
        self.started += 1
        folder = self.folder / f"job-{self.started}"
        folder.mkdir()
        words = ["-m", "pytest", str(self.folder / "test_job.py"), "-q", "-p", "no:cacheprovider", "-rs"]
        words += ["--rootdir", str(self.folder), "--boards", str(self.folder / "boards.yaml")]
        words += ["--harness-out", str(folder / "out"), f"--junitxml={folder / 'junit.xml'}"]
        words += ["--rack"] if self.shared else []
        words += [word for name in boards for word in ("--board", name)]
        words += ["-n", str(self.workers)] if self.workers else ["-n0"]
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, *words],
                cwd=self.folder,
                env=self.environment,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Run(process, folder, boards, time.monotonic())

    def said(self, run: Run) -> str:
        return (run.folder / "said").read_text(errors="replace")

    # --- kills ---

    def strike(self, run: Run) -> None:
        """SIGKILL to something of the job."""
        victims = ("pytest", "pytest", "everything", "twin", *(["worker"] if self.workers else []))
        victim = self.choice.choice(victims)
        below = descendants(run.process.pid)
        self.pids.update(below)
        chosen = {
            "pytest": [run.process.pid],
            "everything": [run.process.pid, *below],
            "twin": [pid for pid in below if "harness.twin" in command_of(pid)][:1],
            "worker": [pid for pid in below if "sys.stdin.readline" in command_of(pid)][:1],
        }[victim]
        if not chosen:
            return
        if run.struck not in ("pytest", "everything"):
            run.struck = victim
        self.counted[f"killed: {victim}"] += 1
        for pid in chosen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # --- verdicts ---

    def judge(self, run: Run) -> None:
        """What a job that has ended says must be what happened."""
        said = self.said(run)
        if "INTERNALERROR" in said:
            self.violation(run, "pytest's insides broke")
        if run.struck in ("pytest", "everything"):
            return None
        status = run.process.returncode
        try:
            cases = list(ElementTree.parse(run.folder / "junit.xml").iter("testcase"))
        except (OSError, ElementTree.ParseError) as error:
            return self.violation(run, f"status {status}, no JUnit report: {error}")
        if len(cases) < 2 * len(run.boards) or (len(cases) > 2 * len(run.boards) and run.struck is None):
            self.violation(run, f"{len(cases)} verdicts on {len(run.boards)} boards")
        for case in cases:
            self._judge_case(run, case)
        if status != 1:
            # Each job has a test that fails, or did not get the board that it is for.
            self.violation(run, f"it ends with status {status}")
        return None

    def _judge_case(self, run: Run, case: ElementTree.Element) -> None:
        name = str(case.get("name"))
        verdict = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        text = "" if verdict is None else f"{verdict.get('message') or ''} {verdict.text or ''}"
        if verdict is None:
            kind = "passed"
        elif str(verdict.get("message")).startswith(("AssertionError", "assert ")):
            kind = "failed on purpose" if name.startswith(PURPOSELY) else "failed"
        elif held := re.search(r"in use by .*process (\d+)", text):
            kind = "in use" if int(held[1]) in self.pids else "in use by nobody of us"
        elif "in use by" in text:
            kind = "in use"
        else:
            kind = f"its {run.struck} was killed" if run.struck in ("twin", "worker") else "for no reason"
        self.counted[kind] += 1
        wrong = kind in ("failed", "in use by nobody of us", "for no reason")
        if wrong or (kind == "passed" and name.startswith(PURPOSELY)):
            self.violation(run, f"{name}: {kind}: {text[:1500]}")

    def violation(self, run: Run | None, text: str) -> None:
        where = f" (job {run.folder.name} on {', '.join(run.boards)}, struck: {run.struck})" if run else ""
        self.violations.append(text)
        print(f"VIOLATION: {text}{where}", flush=True)

    # --- the end ---

    def check_end(self, slow: float) -> None:
        """Nothing is left of the jobs, and every board is as good as before."""
        deadline = time.monotonic() + GONE_WITHIN_S * slow
        inventory = read_inventory(self.folder / "boards.yaml")
        while True:
            reap()
            left = descendants(os.getpid())
            held = [
                f"{name}: {lease.text()}"
                for name, entry in inventory.boards.items()
                if (lease := holder_of(name, entry, inventory, self.home)) is not None
            ]
            if not left and not held:
                break
            if time.monotonic() > deadline:
                for pid in left:
                    self.violation(None, f"still alive: {pid} {command_of(pid)[:200]}")
                for text in held:
                    self.violation(None, f"still held: {text}")
                break
            time.sleep(0.05)
        book = HealthBook(self.home)
        for name, health in book.all().items():
            if health.broken is not None:
                self.violation(
                    None, f"{name} is latched although only processes were killed: {health.text()}"
                )
        words = [sys.executable, "-m", "harness", "boards", "mend", "--yes", *self.names]
        mended = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        if mended.returncode != 0:
            self.violation(None, f"not every board is well: {mended.stdout[-3000:]}{mended.stderr[-500:]}")
        with contextlib.suppress(FileNotFoundError):
            for line in (self.folder / "violations").read_text().splitlines():
                self.violation(None, f"two holders: {line}")


def reap() -> None:
    """Collects what has ended of those that we inherited."""
    for pid, (parent, state) in processes().items():
        if parent == os.getpid() and state == "Z":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def soak(asked: argparse.Namespace, folder: Path) -> int:
    """The whole of it."""
    rack = Rack(folder, asked.boards, asked.workers, asked.rack, random.Random(asked.seed))
    rack.prepare()
    until = time.monotonic() + asked.seconds
    next_kill = time.monotonic() + rack.choice.uniform(0, asked.kill_every)
    running: list[Run] = []
    while running or time.monotonic() < until:
        while len(running) < asked.jobs and time.monotonic() < until:
            # Of a few names only, most of the time, so that jobs meet.
            few = rack.names if rack.choice.random() < 0.5 else rack.names[: max(3, asked.boards // 8)]
            count = min(len(few), rack.choice.randint(1, asked.per_job))
            chosen = rack.names if asked.rack else rack.choice.sample(few, count)
            running.append(rack.start(tuple(chosen)))
        for run in running:
            rack.pids.update((run.process.pid, *descendants(run.process.pid)))
        if running and time.monotonic() >= next_kill and time.monotonic() < until:
            rack.strike(rack.choice.choice(running))
            next_kill = time.monotonic() + rack.choice.uniform(0, 2 * asked.kill_every)
        for run in [run for run in running if run.process.poll() is not None]:
            running.remove(run)
            rack.judge(run)
        for run in running:
            if time.monotonic() - run.began_s > JOB_TIMEOUT_S:
                rack.violation(run, f"it hangs:\n{rack.said(run)[-2000:]}")
                run.struck = "everything"
                for pid in (run.process.pid, *descendants(run.process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    rack.check_end(asked.slow)
    print(f"jobs: {rack.started}; {dict(sorted(rack.counted.items()))}; violations: {len(rack.violations)}")
    return 1 if rack.violations else 0


# --- what an idle leased board costs --------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from harness.home import Home
from harness.inventory.inventory import read_inventory
from harness.lab import Lab, secret_from
from harness.preparation import Consent, Demand, prepare
from harness.provision.profile import Profile
from harness.say import Say

inventory = read_inventory(Path("boards.yaml"))
with Lab(Home.of_user(), inventory, Path("out"), secret_from(None), purpose="idle") as lab:
    for name in sys.argv[1:]:
        board = lab.open(name)
        consent = Consent(inventory.named(name))
        prepare(board, Demand(Profile.OPEN), consent, lab.home, say=Say(quiet=True))
    print("idle", flush=True)
    sys.stdin.read()
"""


def idle(asked: argparse.Namespace, folder: Path) -> int:
    """Holds boards and does nothing, and counts the processor time of holder and twins."""
    rack = Rack(folder, asked.boards, 0, False, random.Random(asked.seed))
    rack.home.root.mkdir(mode=0o700)
    entries = "".join(f"  {name}: {{chip: esp32c3, link: twin}}\n" for name in rack.names)
    (folder / "boards.yaml").write_text(f"version: 1\nboards:\n{entries}")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, *rack.names],
        cwd=folder,
        env=rack.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"idle\n":
            return 1
        time.sleep(2)
        everybody = [holder.pid, *descendants(holder.pid)]
        before = {pid: spent_s(pid) for pid in everybody}
        time.sleep(asked.idle)
        share = {pid: 100 * (spent_s(pid) - before[pid]) / asked.idle for pid in everybody}
        for pid in everybody:
            print(f"{share[pid]:6.3f} % of a core: {command_of(pid)[:100]}")
        assert holder.stdin is not None
        holder.stdin.close()
    each = sum(share.values()) / asked.boards
    print(f"an idle leased board costs {each:.3f} % of a core ({asked.boards} boards, {asked.idle:.0f} s)")
    return 0 if each < IDLE_LIMIT_PERCENT else 1


def spent_s(pid: int) -> float:
    """Processor time of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.rack", description=__doc__.splitlines()[0])
    parser.add_argument("--boards", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=4, help="how many at a time")
    parser.add_argument("--per-job", type=int, default=4, help="boards of a job, at most")
    parser.add_argument(
        "--workers", type=int, default=0, help="workers of pytest-xdist in each job (0: none)"
    )
    parser.add_argument(
        "--rack", action="store_true", help="each job has all boards, with pytest --rack and its --workers"
    )
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between kills, on average")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slow", type=float, default=1.0, help="factor on time limits, for a busy machine")
    parser.add_argument("--idle", type=float, help="measure what idle boards cost, over so many seconds")
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it")
    asked = parser.parse_args()
    if sys.platform != "linux":
        parser.error("it finds orphans by what Linux keeps of processes")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listen()
    work = idle if asked.idle is not None else soak
    try:
        if asked.keep is not None:
            asked.keep.mkdir(parents=True)
            return work(asked, asked.keep.absolute())
        with tempfile.TemporaryDirectory(prefix="harness-rack-") as folder:
            return work(asked, Path(folder))
    except Interrupted as interrupted:
        return interrupted.exit_status
    finally:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
