"""Fuzzing in processes of their own, watched from outside: what hangs or dies for good is found too."""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import os
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fuzz.findings import Finding, run_once, save, shrink
from tests.fuzz.limits import limit_memory
from tests.fuzz.mutation import Mutator
from tests.fuzz.target import REGRESSIONS, SCRATCH, Target, memory_folder

MEMORY_BYTES = 2 << 30
"""Address space of one fuzzing process."""
START_S = 600.0
"""How long a worker may take to its first input, on a machine that has other things to do."""
STUCK_S = 120.0
"""An input that nothing ends for so long; the limit of CPU time strikes long before, where Python still runs."""
_SHARED_BYTES = 4 << 20
_HEAD = struct.Struct("<QI")
_MOST_KEPT = 3000
"""Inputs that a worker without atheris keeps for the way they went."""


def has_atheris() -> bool:
    """Whether the coverage-guided engine is installed."""
    return importlib.util.find_spec("atheris") is not None


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker does."""

    target: str
    module: str
    """Where the target is defined."""
    engine: str
    seconds: float
    seed: int
    corpus: Path
    findings: Path

    def arguments(self) -> list[str]:
        """Of its process."""
        return [
            *(
                "--worker",
                self.module,
                "--target",
                self.target,
                "--engine",
                self.engine,
                "--seconds",
                f"{self.seconds:.0f}",
            ),
            *("--seed", str(self.seed), "--corpus", str(self.corpus), "--findings", str(self.findings)),
        ]


@dataclass(frozen=True, slots=True)
class Tally:
    """How a campaign went."""

    executions: int
    seconds: float
    findings: tuple[Path, ...]

    def __str__(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0.0
        return (
            f"{self.executions} inputs in {self.seconds:.0f} s ({rate:.0f}/s), {len(self.findings)} findings"
        )


class Blackboard:
    """Memory that a worker shares with its watcher: how many inputs it has begun, and the one it is at."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SHARED_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SHARED_BYTES)
        self._count = 0

    def begin(self, data: bytes) -> None:
        """One more input."""
        self._count += 1
        part = data[: _SHARED_BYTES - _HEAD.size]
        self._memory[: _HEAD.size] = _HEAD.pack(self._count, len(part))
        self._memory[_HEAD.size : _HEAD.size + len(part)] = part

    @property
    def count(self) -> int:
        return int(_HEAD.unpack_from(self._memory)[0])

    @property
    def data(self) -> bytes:
        """The input that was begun last."""
        size = _HEAD.unpack_from(self._memory)[1]
        return bytes(self._memory[_HEAD.size : _HEAD.size + size])


# --- the watcher ---


def run_campaign(jobs: list[Job]) -> Tally:
    """Runs `jobs` at the same time, each to its end; a worker that dies or hangs is replaced for the time left."""
    began_s = time.monotonic()
    folder = jobs[0].findings / jobs[0].target
    before = set(folder.glob("*"))
    with tempfile.TemporaryDirectory(dir=memory_folder()) as scratch:
        watched = [_Watched(job, Path(scratch) / f"board{number}") for number, job in enumerate(jobs)]
        at_work = watched
        while at_work:
            time.sleep(0.2)
            at_work = [each for each in watched if each.look()]
    new = tuple(sorted(file for file in set(folder.glob("*")) - before if file.suffix != ".txt"))
    return Tally(sum(each.executions for each in watched), time.monotonic() - began_s, new)


class _Watched:
    """One worker, and the one after it."""

    def __init__(self, job: Job, place: Path) -> None:
        self._job = job
        self._place = place
        self._until_s = time.monotonic() + job.seconds
        self._starts = 0
        self._done = 0
        self._start()

    @property
    def executions(self) -> int:
        return self._done + self._board.count

    def _start(self) -> None:
        left_s = max(1.0, self._until_s - time.monotonic())
        job = replace(self._job, seconds=left_s, seed=self._job.seed + 1000 * self._starts)
        self._starts += 1
        path = self._place.with_name(f"{self._place.name}-{self._starts}")
        self._board = Blackboard(path)
        self._seen, self._seen_s = -1, time.monotonic()
        self._log = path.with_suffix(".log").open("wb")
        scratch = path.with_suffix(".scratch")
        scratch.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz", *job.arguments(), "--board", str(path)],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, SCRATCH: str(scratch)},
        )

    def look(self) -> bool:
        """Whether it is still at work."""
        status = self._process.poll()
        count = self._board.count
        if count != self._seen:
            self._seen, self._seen_s = count, time.monotonic()
        patience_s = STUCK_S if count else START_S
        stuck = status is None and time.monotonic() - self._seen_s > patience_s
        if stuck:
            self._process.kill()
            self._process.wait()
        if status is None and not stuck:
            return True
        self._log.close()
        if stuck or status:
            said = Path(self._log.name).read_text(errors="replace")[-4000:]
            how = f"stuck for {STUCK_S:g} s" if stuck else f"the process ended with status {status}"
            finding = Finding(self._job.target, self._board.data, f"{how}: {said[-200:]}", said)
            print(f"  {self._job.target}: {how}; see {save(finding, self._job.findings)}.txt", flush=True)
        left = self._until_s - time.monotonic() > 2 and self._starts < 50
        if (stuck or status) and left:
            self._done += count
            self._start()
            return True
        return False


# --- the worker ---


def work(job: Job, target: Target, board: Path | None) -> None:
    """Fuzzes until the time is up. With atheris this does not return: libFuzzer ends the process."""
    limit_memory(MEMORY_BYTES)
    seen = {file.name for file in (job.findings / job.target).glob("*")}
    shared = Blackboard(board) if board is not None else None

    def one(data: bytes) -> str:
        if shared is not None:
            shared.begin(data)
        word, finding = run_once(target, data)
        if finding is not None and finding.name not in seen:
            seen.add(finding.name)
            save(shrink(target, finding), job.findings)
        return word

    seeds = [*target.seeds(), *(file.read_bytes() for file in sorted((REGRESSIONS / target.name).glob("*")))]
    job.corpus.mkdir(parents=True, exist_ok=True)
    if job.engine == "atheris":
        _run_atheris(job, target, seeds, one)
    else:
        _run_random(job, target, seeds, one)


def _run_atheris(job: Job, target: Target, seeds: list[bytes], one: Callable[[bytes], str]) -> None:
    import atheris

    for number, seed in enumerate(seeds):
        (job.corpus / f"seed{number}").write_bytes(seed)
    arguments = [
        "fuzz",
        f"-max_total_time={job.seconds:.0f}",
        f"-seed={job.seed}",
        f"-max_len={target.max_bytes * 4}",
        # Limits of time and memory are this program's own; what libFuzzer would leave behind goes beside the corpus.
        *("-rss_limit_mb=0", "-timeout=3600", "-reload=10", f"-artifact_prefix={job.corpus.parent}/"),
    ]
    if target.words:
        words = job.corpus.with_suffix(".words")
        quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in target.words)
        words.write_text("".join(f'"{each}"\n' for each in quoted))
        arguments.append(f"-dict={words}")
    arguments.append(str(job.corpus))

    def entry(data: bytes) -> None:
        one(data)

    atheris.Setup(arguments, entry)
    atheris.Fuzz()


def _run_random(job: Job, target: Target, seeds: list[bytes], one: Callable[[bytes], str]) -> None:
    """Keeps the inputs that go another way than those before, as far as their target's word tells."""
    until_s = time.monotonic() + job.seconds
    corpus = [*seeds, *(file.read_bytes() for file in sorted(job.corpus.glob("*")))][:_MOST_KEPT]
    words = {one(data) for data in corpus}
    mutator = Mutator(job.seed, target.words, target.max_bytes)
    while time.monotonic() < until_s:
        data = mutator.next(corpus)
        word = one(data)
        if word and word not in words and len(corpus) < _MOST_KEPT and len(data) <= target.max_bytes:
            words.add(word)
            corpus.append(data)
            (job.corpus / f"{job.seed}-{len(corpus)}").write_bytes(data)


def target_in(module: str, name: str, *, instrumented: bool) -> Target:
    """The target `name` of `module`; `instrumented`: atheris sees which branches of the harness it takes."""
    if instrumented:
        import atheris

        with atheris.instrument_imports(include=["harness"]):
            targets = importlib.import_module(module).TARGETS
    else:
        targets = importlib.import_module(module).TARGETS
    return next(target for target in targets if target.name == name)
