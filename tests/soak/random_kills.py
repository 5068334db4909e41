"""Kills harness runs at random moments, and checks after each kill what must hold. See docs/robustness.md.

    python tests/soak/random_kills.py --kills 500 --seed 7

A series is one board of its own (chip, profile, lock, command), started again and again: killed one to four times at
moments drawn uniformly over the time that a clean run takes, then left to finish. After every kill: every key in the
board's eFuses is in its vault, no process of the run is left, no lock is held, every file can be read. The next run must
say what it found, and the last one must pass. Both cores work on series of their own. `qualify`, `boards mend` and `keys`
begin with a provisioned board, and `harness run` says at the end of their series whether it is still one.

Exit status: 0 all held, 1 something did not (printed with the command that repeats it), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import hashlib
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
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.chips.efuses import efuse_geometry
from harness.errors import HarnessError
from harness.home import Home
from harness.interruption import Interrupted, listen
from harness.inventory.inventory import read_inventory
from harness.lab import Lab, own_vault, secret_from
from harness.preparation import Consent, Demand, prepare
from harness.provision.device_record import DeviceRecords
from harness.provision.profile import Profile
from harness.say import Say
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
    """``provision``, ``run``, ``pytest``, ``pytest-n1`` (under a worker of pytest-xdist), ``pytest-n2`` (two boards, each
    with a worker), or one of `LATER`."""
    chip: str
    profile: str
    lock: str | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.command, self.chip, self.profile, self.lock)))

    def arguments(self, folder: Path, attempt: int) -> list[str]:
        """Of the Python interpreter; `attempt` counts the runs in `folder`."""
        out = folder / "out"
        if self.command.startswith("pytest"):
            count = self.command.partition("-n")[2]
            workers = ["-n", count] if count else []
            boards = [word for name in self.boards for word in ("--board", name)]
            words = ["pytest", "tests/ota/test_switch.py", "-k", PYTEST_CASE, "--profile", self.profile]
            words += ["-q", "-p", "no:cacheprovider", "--harness-out", str(out), "--rootdir", str(ROOT)]
            return ["-m", *words, *workers, *boards, "--boards", str(folder / "boards.yaml")]
        if self.command == "mend":
            return ["-m", "harness", "boards", "mend", BOARD, "--out", str(out)]
        if self.command == "keys":
            verb, name = (("export", "key-{}.bin"), ("hand-over", "for-owner-{}"))[attempt % 2]
            return ["-m", "harness", "keys", verb, "--board", BOARD, "--out", name.format(attempt)]
        if self.command == "qualify":
            words = ["harness", "qualify", "qualify.yaml", "--board", BOARD, "--out", f"out-{attempt}"]
            return ["-m", *words]
        words = ["harness", self.command, "--board", BOARD, "--profile", self.profile, "--out", str(out)]
        return ["-m", *words, *(["--lock", self.lock] if self.lock else [])]

    @property
    def victims(self) -> tuple[str, ...]:
        """Whom a kill may strike."""
        if self.command == "keys":
            return ("harness",)
        both = ("harness", "harness", "everything", "twin")
        return (*both, "worker") if self.command.startswith("pytest-n") else both

    @property
    def boards(self) -> tuple[str, ...]:
        return (BOARD, f"{BOARD}2") if self.command == "pytest-n2" else (BOARD,)

    @property
    def good_statuses(self) -> tuple[int, ...]:
        """Of a run that nobody killed."""
        # A unit that took its update, or is half way, is no more the one that arrives; that is a verdict, too.
        return (0, 1, 5) if self.command == "qualify" else (0,)

    @property
    def last(self) -> Job:
        """What ends a series of it."""
        return replace(self, command="run", lock=None) if self.command in LATER else self


LATER = ("qualify", "mend", "keys")
"""Commands that need a board that is provisioned."""
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
    Job("pytest-n2", "esp32c3", "release+sbv2"),
    Job("qualify", "esp32c3", "release"),
    Job("qualify", "esp32", "release+sbv2"),
    Job("mend", "esp32", "release"),
    Job("keys", "esp32c3", "release"),
)


class ViolationError(Exception):
    """Something that must hold after a kill did not."""


@dataclass
class Bench:
    """The folder of one series."""

    folder: Path
    job: Job
    keys: dict[str, bytes] = field(default_factory=dict)
    attempts: int = 0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def state(self, name: str = BOARD) -> Path:
        return self.home / "twins" / name

    def prepare(self, builds: Path | None, made: Path) -> None:
        """A blank board, or a provisioned one out of `made`; with `builds` nothing has to be compiled."""
        self.home.mkdir(mode=0o700, parents=True)
        lines = [f"  {name}: {{chip: {self.job.chip}, link: twin}}\n" for name in self.job.boards]
        (self.folder / "boards.yaml").write_text("version: 1\nboards:\n" + "".join(lines))
        if builds is not None:
            shutil.copytree(builds, self.home / "builds")
        if self.job.command in LATER:
            shutil.copytree(made / self.job.chip / self.job.profile, self.folder, dirs_exist_ok=True)

    def start(self, *, last: bool = False) -> subprocess.Popen[str]:
        """The job, in a session of its own, or what ends a series of it; what it says goes to ``said.txt``."""
        environment = os.environ | {
            "HARNESS_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop("HARNESS_DEBUG", None)
        job = self.job.last if last else self.job
        arguments = job.arguments(self.folder, self.attempts)
        self.attempts += 1
        with (self.folder / "said.txt").open("w") as said:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT if job.command.startswith("pytest") else self.folder,
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
        """What the last run left for the next one to say (of two boards: of the first one that has something)."""
        for name in self.job.boards:
            with contextlib.suppress(FileNotFoundError):
                found: dict[str, object] = json.loads((self.state(name) / "run.json").read_text())
                return found
        return None

    # --- what must hold ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that is on disk, with no process of the run alive."""
        for path in self.home.rglob("*.json"):
            if not any(part.startswith(".making-") for part in path.parts):
                self._readable(path)
        self._locks_free()
        known: dict[str, bytes] = {}
        for name in self.job.boards:
            known |= self._check_board(name)
        for mac, key in self.keys.items():
            if known.get(mac) != key:
                raise ViolationError(f"the key of {mac} is lost or another one")
        self.keys = known
        for path in self.folder.glob("key-*.bin"):
            if path.read_bytes() not in known.values():
                raise ViolationError(f"{path.name} is no whole key")

    def _check_board(self, name: str) -> dict[str, bytes]:
        """What belongs to one board; its keys by MAC."""
        state = self.state(name)
        if not (state / "vault").exists():
            if any(self._burned(state)):
                raise ViolationError("a key block is burned and there is no vault")
            return {}
        try:
            vault = own_vault(state)
            report = verify(vault)
            if not report.ok:
                raise ViolationError(f"the vault does not verify: {report}")
            now = {ref.mac: vault.flash_key(ref.mac) for ref in vault.key_refs()}
            for mac in now:
                vault.intent(mac)
            DeviceRecords(state / "devices").all()
            known = [key.digest for key in boot_keys(vault)]
        except HarnessError as error:
            raise ViolationError(f"vault or records cannot be read: {error}") from error
        halves = [part for key in now.values() for part in _sixteens(key)]
        halves += [part for digest in known for part in _sixteens(digest)]
        for block, content in self._burned(state):
            if not all(part in halves for part in _sixteens(content) if any(part)):
                raise ViolationError(f"{block} holds a key that is not in the vault")
        return now

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

    def _burned(self, state: Path) -> Iterator[tuple[str, bytes]]:
        """Key blocks that are not blank, as they lie in the eFuse file."""
        try:
            content = (state / "efuse.bin").read_bytes()
        except FileNotFoundError:
            return
        first = 1 if self.job.chip == "esp32" else 3 if self.job.chip == "esp32c2" else 4
        last = 2 if self.job.chip == "esp32" else 3 if self.job.chip == "esp32c2" else 9
        for block in efuse_geometry(self.job.chip).blocks:
            if first <= block.index <= last:
                data = content[block.file_offset : block.file_offset + block.size_bytes]
                if any(data):
                    yield block.name, data


def provision(folder: Path, profile: str) -> None:
    """Gives the board in `folder` the companion, and a ``qualify.yaml`` beside it with the apps that it names."""
    home, inventory = Home(folder / "home"), read_inventory(folder / "boards.yaml")
    apps: dict[str, dict[str, str]] = {}
    with Lab(home, inventory, folder / "made", secret_from(None)) as lab:
        board = lab.open(BOARD)
        demand = Demand(Profile(profile))
        prepare(board, demand, Consent(inventory.boards[BOARD]), home, say=Say(quiet=True))
        for role, version in (("running", "1.0.0"), ("update", "1.1.0")):
            image = board.release(version).image
            (folder / f"{role}.bin").write_bytes(image)
            apps[role] = {"path": f"{role}.bin", "sha256": hashlib.sha256(image).hexdigest()}
    shutil.rmtree(folder / "made")
    told = {
        "version": 1,
        "unit": "sacrificial",
        **apps,
        "image": "ciphertext",
        "trigger": [{"by": "uart", "send": "ota id=901 bare=1 reboot=1 url={url}"}],
        "confirm": [{"by": "uart", "send": "confirm id=902"}],
        "times": {"settle_s": 0.5, "update_s": 60, "boot_s": 30, "confirm_s": 1, "steady_s": 0.2},
    }
    (folder / "qualify.yaml").write_text(json.dumps(told))


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
        "worker": lambda: [pid for pid in below if "sys.stdin.readline" in command_of(pid)][:1],
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
    most_kills: int = 4
    """In one series."""
    job: str = ""
    """Only jobs whose name has this."""
    durations: dict[str, float] = field(default_factory=dict)
    struck: int = 0
    violations: int = 0

    def warm(self, jobs: tuple[Job, ...]) -> None:
        """One clean run of every job: how long it takes, and its builds for the series to come."""
        for job in jobs:
            folder = self.scratch / "warm"
            bench = Bench(folder, job)
            if job.command in LATER:
                self._make(job)
            bench.prepare(self.builds if self.builds.exists() else None, self._made)
            began = time.monotonic()
            run = bench.start()
            status = run.wait(RUN_TIMEOUT_S)
            if status not in job.good_statuses:
                sys.exit(f"a clean run of '{job.name}' fails (status {status}):\n{bench.said()[-3000:]}")
            self.durations[job.name] = time.monotonic() - began
            shutil.copytree(bench.home / "builds", self.builds, dirs_exist_ok=True)
            shutil.rmtree(folder)
            print(f"clean run of {job.name}: {self.durations[job.name]:.1f} s", flush=True)

    @property
    def _made(self) -> Path:
        """Provisioned boards, by chip and profile."""
        return self.builds.with_name(f"{self.builds.name}-boards")

    def _make(self, job: Job) -> None:
        """A provisioned board for a job of `LATER`, and what a qualification of it names."""
        folder = self._made / job.chip / job.profile
        if folder.exists():
            return
        bench = Bench(self.scratch / "made", replace(job, command="run"))
        bench.prepare(self.builds if self.builds.exists() else None, self._made)
        provision(bench.folder, job.profile)
        shutil.copytree(bench.home / "builds", self.builds, dirs_exist_ok=True)
        shutil.rmtree(bench.home / "builds")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(bench.folder, folder)

    def series(self, number: int, at_most: int, jobs: tuple[Job, ...]) -> None:
        """One board, killed up to `at_most` times and finished."""
        choice = random.Random(f"{self.seed}/{number}")
        job = choice.choice(jobs)
        folder = self.scratch / f"series-{number}"
        bench = Bench(folder, job)
        # One in five has everything still to build.
        bench.prepare(self.builds if choice.random() < 0.8 else None, self._made)
        wanted = choice.randint(1, self.most_kills)
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
            more = f" --most {self.most_kills}" + (f" --job '{self.job}'" if self.job else "")
            kept = Path(tempfile.mkdtemp(prefix="harness-kills-")) / f"series-{number}"
            shutil.move(folder, kept)
            print(
                f"VIOLATION in series {number} ({job.name}): {violation}\n  story: {'; '.join(story)}\n"
                f"  what is left of it: {kept}\n"
                f"  again: python tests/soak/random_kills.py --seed {self.seed} --series {number}{more}",
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
        run = bench.start(last=True)
        try:
            status = run.wait(RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            run.kill()
            raise ViolationError(f"the last run hangs:\n{bench.said()[-2000:]}") from error
        await_end_of_all(run, self.gone_within_s)
        self._require_good(bench, status, earlier, last=True)
        story.append("finished")

    def _require_good(
        self, bench: Bench, status: int, earlier: dict[str, object] | None, *, last: bool = False
    ) -> None:
        if status not in (bench.job.last if last else bench.job).good_statuses:
            raise ViolationError(f"a run that nobody killed ends with {status}:\n{bench.said()[-3000:]}")
        bench.check()
        if bench.note() is not None:
            raise ViolationError("a run that came to its end leaves a note")
        self._require_told(bench, earlier, may_be_cut=False)

    def _require_told(self, bench: Bench, earlier: dict[str, object] | None, *, may_be_cut: bool) -> None:
        """What the run before left was said, unless this one was killed before it opened its board."""
        if earlier is None or (may_be_cut and bench.note() in (None, earlier)) or bench.note() == earlier:
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
    parser.add_argument(
        "--job", default="", metavar="TEXT", help="only jobs whose name has this: qualify, +sbv2"
    )
    parser.add_argument("--most", type=int, default=4, help="kills in one series, at most")
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
        jobs = tuple(job for job in JOBS if asked.job in job.name)
        if not jobs:
            raise SystemExit(f"no job has '{asked.job}' in its name: {', '.join(job.name for job in JOBS)}")
        slot = Slot(asked.seed, asked.kills, GONE_WITHIN_S * asked.slow, builds, Path(scratch))
        slot.most_kills, slot.job = asked.most, asked.job
        if asked.series is not None:
            job = random.Random(f"{asked.seed}/{asked.series}").choice(jobs)
            slot.warm((job,))
            slot.series(asked.series, asked.kills, jobs)
        elif asked.slot is not None:
            slot.durations = json.loads(asked.durations)
            number = asked.slot
            while slot.struck < slot.kills and not slot.violations:
                slot.series(number, slot.kills - slot.struck, jobs)
                number += asked.slots
        else:
            slot.warm(jobs)
            return _in_slots(asked, builds, slot.durations)
        print(f"kills: {slot.struck}, violations: {slot.violations}", flush=True)
        return 1 if slot.violations else 0


def _in_slots(asked: argparse.Namespace, builds: Path, durations: dict[str, float]) -> int:
    """Each slot is a process of its own, so that what it inherits is its own."""
    began = time.monotonic()
    share = -(-asked.kills // asked.slots)
    more = ["--seed", asked.seed, "--kills", share, "--slots", asked.slots, "--slow", asked.slow]
    more += [
        "--job",
        asked.job,
        "--most",
        asked.most,
        "--builds",
        builds,
        "--durations",
        json.dumps(durations),
    ]
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
