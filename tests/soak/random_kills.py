"""Kills harness runs at random moments, and checks after each kill what must hold. See docs/robustness.md.

    python tests/soak/random_kills.py --kills 500 --seed 7

A series is one board of its own (chip, profile, lock, command), started again and again: killed one to four times at
moments drawn uniformly over the time that a clean run takes, then left to finish. After every kill: every key in the
board's eFuses is in its vault, no process of the run is left, no lock is held, every file can be read. The next run must
say what it found, and the last one must pass. Both cores work on series of their own.

Exit status: 0 all held, 1 something did not (printed with the command that repeats it), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.chips.efuses import efuse_geometry
from harness.errors import HarnessError
from harness.interruption import Interrupted, listen
from harness.lab import own_vault
from harness.provision.device_record import DeviceRecords
from harness.vault import verify
from harness.vault.boot_keys import boot_keys

ROOT = Path(__file__).parents[2]
BOARD = "b"
GONE_WITHIN_S = 2.0
"""How long whatever belonged to a killed run may take to end; see --slow."""
RUN_TIMEOUT_S = 300.0

_PR_SET_CHILD_SUBREAPER = 36
"""``prctl(2)``: whatever a killed run leaves becomes our child, and can be found."""


@dataclass(frozen=True)
class Job:
    """What is run, on which board."""

    command: str
    """``provision``, ``run``, ``pytest``, or ``pytest-n1`` (under a worker of pytest-xdist)."""
    chip: str
    profile: str
    lock: str | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.command, self.chip, self.profile, self.lock)))

    def arguments(self, out: Path) -> list[str]:
        """Of the Python interpreter."""
        if self.command.startswith("pytest"):
            workers = ["-n", "1"] if self.command == "pytest-n1" else []
            words = ["pytest", "tests/ota/test_switch.py", "-k", PYTEST_CASE, "--profile", self.profile]
            words += ["-q", "-p", "no:cacheprovider", "--harness-out", str(out), "--rootdir", str(ROOT)]
            return ["-m", *words, *workers, "--board", BOARD, "--boards", str(out.parent / "boards.yaml")]
        words = ["harness", self.command, "--board", BOARD, "--profile", self.profile, "--out", str(out)]
        return ["-m", *words, *(["--lock", self.lock] if self.lock else [])]

    @property
    def victims(self) -> tuple[str, ...]:
        """Whom a kill may strike."""
        both = ("harness", "harness", "everything", "twin")
        return (*both, "worker") if self.command == "pytest-n1" else both


PYTEST_CASE = "switch_to_the_other_slot_and_back"

JOBS = (
    Job("provision", "esp32c3", "release"),
    Job("provision", "esp32", "release"),
    Job("provision", "esp32c3", "release+sbv2"),
    Job("provision", "esp32", "release+sbv2", "download-off"),
    Job("provision", "esp32s3", "release+sbv2"),
    Job("provision", "esp32c2", "release+sbv2"),
    Job("provision", "esp32s2", "ciphertext-only"),
    Job("provision", "esp32c6", "development"),
    Job("provision", "esp32h2", "open+sbv2"),
    Job("provision", "esp32c3", "release", "download-off"),
    Job("run", "esp32c3", "release"),
    Job("run", "esp32", "development"),
    Job("run", "esp32c5", "release+sbv2"),
    Job("pytest", "esp32c3", "release"),
    Job("pytest-n1", "esp32", "release"),
)


class ViolationError(Exception):
    """Something that must hold after a kill did not."""


@dataclass
class Bench:
    """The folder of one series."""

    folder: Path
    job: Job
    keys: dict[str, bytes] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def state(self) -> Path:
        return self.home / "twins" / BOARD

    def prepare(self, builds: Path | None) -> None:
        """A blank board; with `builds` nothing has to be compiled."""
        self.home.mkdir(mode=0o700, parents=True)
        (self.folder / "boards.yaml").write_text(
            f"version: 1\nboards:\n  {BOARD}: {{chip: {self.job.chip}, link: twin}}\n"
        )
        if builds is not None:
            shutil.copytree(builds, self.home / "builds")

    def start(self) -> subprocess.Popen[str]:
        """The job, in a session of its own; what it says goes to ``said.txt``."""
        environment = os.environ | {
            "HARNESS_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("HARNESS_DEBUG", None)
        with (self.folder / "said.txt").open("w") as said:
            return subprocess.Popen(
                [sys.executable, *self.job.arguments(self.folder / "out")],
                cwd=ROOT if self.job.command.startswith("pytest") else self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text(errors="replace")

    def note(self) -> dict[str, object] | None:
        """What the last run left for the next one to say."""
        try:
            found: dict[str, object] = json.loads((self.state / "run.json").read_text())
        except FileNotFoundError:
            return None
        return found

    # --- what must hold ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that is on disk, with no process of the run alive."""
        for path in self.home.rglob("*.json"):
            if not any(part.startswith(".making-") for part in path.parts):
                self._readable(path)
        self._locks_free()
        if not (self.state / "vault").exists():
            if any(self._burned()):
                raise ViolationError("a key block is burned and there is no vault")
            return
        try:
            vault = own_vault(self.state)
            report = verify(vault)
            if not report.ok:
                raise ViolationError(f"the vault does not verify: {report}")
            now = {ref.mac: vault.flash_key(ref.mac) for ref in vault.key_refs()}
            for mac in now:
                vault.intent(mac)
            DeviceRecords(self.state / "devices").all()
            known = [key.digest for key in boot_keys(vault)]
        except HarnessError as error:
            raise ViolationError(f"vault or records cannot be read: {error}") from error
        for mac, key in self.keys.items():
            if now.get(mac) != key:
                raise ViolationError(f"the key of {mac} is lost or another one")
        self.keys = now
        halves = [part for key in now.values() for part in _sixteens(key)]
        halves += [part for digest in known for part in _sixteens(digest)]
        for name, content in self._burned():
            if not all(part in halves for part in _sixteens(content) if any(part)):
                raise ViolationError(f"{name} holds a key that is not in the vault")

    def _readable(self, path: Path) -> None:
        try:
            json.loads(path.read_text())
        except FileNotFoundError:
            pass
        except ValueError as error:
            raise ViolationError(f"{path.relative_to(self.home)} is no whole JSON file: {error}") from error

    def _locks_free(self) -> None:
        for path in (*self.home.rglob("*.lock"), *self.home.rglob("lock")):
            with path.open("a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise ViolationError(f"{path.relative_to(self.home)} is still held") from error

    def _burned(self) -> Iterator[tuple[str, bytes]]:
        """Key blocks that are not blank, as they lie in the eFuse file."""
        try:
            content = (self.state / "efuse.bin").read_bytes()
        except FileNotFoundError:
            return
        first = 1 if self.job.chip == "esp32" else 3 if self.job.chip == "esp32c2" else 4
        last = 2 if self.job.chip == "esp32" else 3 if self.job.chip == "esp32c2" else 9
        for block in efuse_geometry(self.job.chip).blocks:
            if first <= block.index <= last:
                data = content[block.file_offset : block.file_offset + block.size_bytes]
                if any(data):
                    yield block.name, data


def _sixteens(content: bytes) -> list[bytes]:
    """16-byte halves, both ways round: flash keys are burned byte-reversed, digests as they are."""
    both = (content, content[::-1])
    return [each[at : at + 16] for each in both for at in range(0, len(each), 16)]


# --- processes --------------------------------------------------------------------------------------------------


def processes() -> dict[int, tuple[int, str]]:
    """Parent and state of everything that runs on this machine, by process id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        # It may be gone by now.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = path.read_text().rpartition(")")[2].split()
            found[int(path.parent.name)] = (int(fields[1]), fields[0])
    return found


def descendants(root: int) -> list[int]:
    """Everything below `root`, nearest first."""
    parents: dict[int, int] = {}
    for pid, (parent, state) in processes().items():
        if state != "Z":
            parents[pid] = parent
    below: list[int] = []
    level = [root]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        below += level
    return below


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def reap_orphans(run: subprocess.Popen[str]) -> None:
    """Collects what has ended of those that we inherited; `run` itself is Popen's."""
    for pid, found in processes().items():
        if found == (os.getpid(), "Z") and pid != run.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def strike(run: subprocess.Popen[str], victim: str) -> str | None:
    """SIGKILL to the victim; who it was, or None: it is not there at this moment."""
    below = descendants(run.pid)
    chosen = {
        "harness": lambda: [run.pid],
        "everything": lambda: [run.pid, *below],
        "twin": lambda: [pid for pid in below if "harness.twin" in command_of(pid)],
        "worker": lambda: [pid for pid in below if "sys.stdin.readline" in command_of(pid)],
    }[victim]()
    for pid in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return f"{victim} ({', '.join(map(str, chosen))})" if chosen else None


def await_end_of_all(run: subprocess.Popen[str], within_s: float) -> None:
    """Nothing that the run has started is left."""
    deadline = time.monotonic() + within_s
    while True:
        reap_orphans(run)
        left = [pid for pid in descendants(os.getpid()) if pid != run.pid]
        if not left:
            return
        if time.monotonic() > deadline:
            names = "; ".join(f"{pid} {command_of(pid)[:150]}" for pid in left)
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise ViolationError(f"still alive {within_s:.0f} s after the kill: {names}")
        time.sleep(0.02)


# --- series -----------------------------------------------------------------------------------------------------


@dataclass
class Slot:
    """One core's share of the work."""

    seed: int
    kills: int
    gone_within_s: float
    builds: Path
    scratch: Path
    durations: dict[str, float] = field(default_factory=dict)
    struck: int = 0
    violations: int = 0

    def warm(self, jobs: tuple[Job, ...]) -> None:
        """One clean run of every job: how long it takes, and its builds for the series to come."""
        for job in jobs:
            folder = self.scratch / "warm"
            bench = Bench(folder, job)
            bench.prepare(self.builds if self.builds.exists() else None)
            began = time.monotonic()
            run = bench.start()
            status = run.wait(RUN_TIMEOUT_S)
            if status != 0:
                sys.exit(f"a clean run of '{job.name}' fails (status {status}):\n{bench.said()[-3000:]}")
            self.durations[job.name] = time.monotonic() - began
            shutil.copytree(bench.home / "builds", self.builds, dirs_exist_ok=True)
            shutil.rmtree(folder)
            print(f"clean run of {job.name}: {self.durations[job.name]:.1f} s", flush=True)

    def series(self, number: int, at_most: int) -> None:
        """One board, killed up to `at_most` times and finished."""
        choice = random.Random(f"{self.seed}/{number}")
        job = choice.choice(JOBS)
        folder = self.scratch / f"series-{number}"
        bench = Bench(folder, job)
        # One in five has everything still to build.
        bench.prepare(self.builds if choice.random() < 0.8 else None)
        wanted = choice.randint(1, 4)
        story: list[str] = []
        try:
            for _ in range(wanted):
                if self.struck >= self.kills or at_most <= 0:
                    break
                if not self._killed(bench, choice, story):
                    break
                at_most -= 1
            self._finished(bench, story)
        except ViolationError as violation:
            self.violations += 1
            kept = Path(tempfile.mkdtemp(prefix="harness-kills-")) / f"series-{number}"
            shutil.move(folder, kept)
            print(
                f"VIOLATION in series {number} ({job.name}): {violation}\n  story: {'; '.join(story)}\n"
                f"  what is left of it: {kept}\n"
                f"  again: python tests/soak/random_kills.py --seed {self.seed} --series {number}",
                flush=True,
            )
        else:
            shutil.rmtree(folder)
            print(f"series {number} ({job.name}): {'; '.join(story)}", flush=True)

    def _killed(self, bench: Bench, choice: random.Random, story: list[str]) -> bool:
        """One run with one kill in it; False: it came to its end before."""
        moment = choice.random() * self.durations.get(bench.job.name, 5.0)
        victim = choice.choice(bench.job.victims)
        earlier = bench.note()
        run = bench.start()
        try:
            status = run.wait(moment)
        except subprocess.TimeoutExpired:
            who = strike(run, victim) or strike(run, "harness")
        else:
            story.append(f"ended with {status} before a kill at {moment:.2f} s")
            self._require_good(bench, status, earlier)
            return False
        story.append(f"killed {who} at {moment:.2f} s")
        self.struck += 1
        try:
            status = run.wait(RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            run.kill()
            raise ViolationError(f"it hangs after the kill:\n{bench.said()[-2000:]}") from error
        await_end_of_all(run, self.gone_within_s)
        self._require_sane(bench, status)
        bench.check()
        self._require_told(bench, earlier, may_be_cut=True)
        return True

    def _finished(self, bench: Bench, story: list[str]) -> None:
        earlier = bench.note()
        run = bench.start()
        try:
            status = run.wait(RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            run.kill()
            raise ViolationError(f"the last run hangs:\n{bench.said()[-2000:]}") from error
        await_end_of_all(run, self.gone_within_s)
        self._require_good(bench, status, earlier)
        story.append("finished")

    def _require_good(self, bench: Bench, status: int, earlier: dict[str, object] | None) -> None:
        if status != 0:
            raise ViolationError(f"a run that nobody killed ends with {status}:\n{bench.said()[-3000:]}")
        bench.check()
        if bench.note() is not None:
            raise ViolationError("a run that came to its end leaves a note")
        self._require_told(bench, earlier, may_be_cut=False)

    def _require_told(self, bench: Bench, earlier: dict[str, object] | None, *, may_be_cut: bool) -> None:
        """What the run before left was said, unless this one was killed before it opened its board."""
        if earlier is None or (may_be_cut and bench.note() in (None, earlier)):
            return
        said = bench.said()
        if may_be_cut and bench.job.command.startswith("pytest"):
            return  # it says so at its end
        if f"process {earlier['pid']}" not in said:
            raise ViolationError(f"nothing is said of the run before, which left {earlier}:\n{said[-2000:]}")

    def _require_sane(self, bench: Bench, status: int) -> None:
        """A harness whose twin was killed ends with a sentence, never with a traceback."""
        said = bench.said()
        if status == 70 or (not bench.job.command.startswith("pytest") and "Traceback" in said):
            raise ViolationError(f"it does not end with a sentence (status {status}):\n{said[-3000:]}")
        if re.search(r"INTERNALERROR", said):
            raise ViolationError(f"pytest's insides broke:\n{said[-3000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--series", type=int, help="only this series of the seed")
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1, help="how many at a time")
    parser.add_argument("--slow", type=float, default=1.0, help="factor on time limits, for a busy machine")
    parser.add_argument("--slot", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--durations", help=argparse.SUPPRESS)
    parser.add_argument("--builds", type=Path, help="keep builds here, to begin sooner the next time")
    asked = parser.parse_args()
    if sys.platform != "linux":
        parser.error("it finds orphans by what Linux keeps of processes")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listen()
    try:
        return _work(asked)
    except Interrupted as interrupted:
        return interrupted.exit_status
    finally:
        # Every run is a session of its own, which no Ctrl-C reaches.
        for pid in descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if asked.slot is None else signal.SIGKILL)


def _work(asked: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="harness-kills-") as scratch:
        builds = asked.builds or Path(scratch) / "builds"
        slot = Slot(asked.seed, asked.kills, GONE_WITHIN_S * asked.slow, builds, Path(scratch))
        if asked.series is not None:
            job = random.Random(f"{asked.seed}/{asked.series}").choice(JOBS)
            slot.warm((job,))
            slot.series(asked.series, asked.kills)
        elif asked.slot is not None:
            slot.durations = json.loads(asked.durations)
            number = asked.slot
            while slot.struck < slot.kills and not slot.violations:
                slot.series(number, slot.kills - slot.struck)
                number += asked.slots
        else:
            slot.warm(JOBS)
            return _in_slots(asked, builds, slot.durations)
        print(f"kills: {slot.struck}, violations: {slot.violations}", flush=True)
        return 1 if slot.violations else 0


def _in_slots(asked: argparse.Namespace, builds: Path, durations: dict[str, float]) -> int:
    """Each slot is a process of its own, so that what it inherits is its own."""
    began = time.monotonic()
    share = -(-asked.kills // asked.slots)
    more = ["--seed", asked.seed, "--kills", share, "--slots", asked.slots, "--slow", asked.slow]
    more += ["--builds", builds, "--durations", json.dumps(durations)]
    slots = [
        subprocess.Popen(
            [sys.executable, __file__, *map(str, more), "--slot", str(number)],
        )
        for number in range(asked.slots)
    ]
    statuses = [slot.wait() for slot in slots]
    print(f"seed {asked.seed}: {time.monotonic() - began:.0f} s; slots ended with {statuses}", flush=True)
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
