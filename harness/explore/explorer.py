"""Runs explorations: a bench for every kind of board, a process for every core, one result for every sequence."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Queue
from typing import Any

from filelock import FileLock

from harness.errors import BoardError, HarnessError, LabError, UsageError
from harness.explore.bench import Bench
from harness.explore.live_cut import LiveCut
from harness.explore.order import Order
from harness.explore.process import ExplorerProcess
from harness.explore.provisioning import Provisioning, ProvisioningExplorer
from harness.explore.result import Explored, Finding
from harness.explore.sequences import Exploration
from harness.explore.sequences import Sequence as Steps
from harness.explore.windows import FoundWindow, Window
from harness.lab import Lab
from harness.preparation import Demand
from harness.provision.profile import Lock, Profile
from harness.say import Say


@dataclass(frozen=True, slots=True)
class Depth:
    """How much is tried. `chains`: how many chains of two, three, … cuts."""

    seed: int = 1
    every_byte: bool = False
    sample: int | None = None
    """How many cuts of a sequence at most; None: all."""
    stop_after: int | None = 20
    """How many violations end a sequence; None: none do."""
    share: bool = True
    chains: Mapping[int, int] = field(default_factory=lambda: {2: 200, 3: 100})
    proofs: int = 3
    """In how many cuts of a window its way out is gone, on a board that runs."""
    jobs: int = 1
    """Processes at once."""

    def with_chains(self, chains: Mapping[int, int]) -> Depth:
        """The same, with so many chains of these sizes instead of the default."""
        return replace(self, chains={**self.chains, **chains})


@dataclass(frozen=True, slots=True)
class Target:
    """The board that is explored."""

    chip: str
    profile: Profile | None = None
    """None: the one that a sequence is about, else release."""
    lock: Lock | None = None


def explore_all(
    lab: Lab, target: Target, sequences: Sequence[Steps], depth: Depth, *, say: Say
) -> list[Explored]:
    """Explores each of `sequences` on throwaway twins.

    Raises:
        HarnessError: a board could not be prepared, or an explorer did not work.
    """
    results = []
    benches: dict[tuple[Any, ...], Bench] = {}
    for sequence in sequences:
        if sequence.make is None:
            say.step(f"{sequence.name}: {sequence.about}")
            results.append(explore_provisioning(lab, target, sequence, depth))
            for line in results[-1].lines()[1:]:
                say.detail(line.strip())
            continue
        demand = demand_of(target, sequence)
        key = (demand.profile, demand.lock, demand.fragments, sequence.bench)
        try:
            if key not in benches or benches[key].spoiled:
                state = "not started yet" if sequence.bench else "updated once"
                say.step(f"a {target.chip} twin for {demand.profile.value}, {state}")
                benches[key] = _bench_for(lab, target, sequence)
        except BoardError as error:
            # What is explored is the firmware, and one that does not even get here has failed.
            results.append(Explored(sequence.name, sequence.about, clean_problem=str(error)))
            continue
        say.step(f"{sequence.name}: {sequence.about}")
        benches[key].board.run_note.doing(f"while '{sequence.name}' was explored")
        with work_folder() as work:
            job = job_of(benches[key], sequence, lab, work, depth)
            explored = _run(job, sequence, target, depth)
        _prove(explored, lab, target, sequence, depth)
        for line in explored.lines()[1:]:
            say.detail(line.strip())
        results.append(explored)
    return results


def replay(
    lab: Lab,
    target: Target,
    sequence: Steps,
    depth: Depth,
    *,
    cut: str | None = None,
    chain: Mapping[int, int] | None = None,
) -> dict[str, Any]:
    """Runs `sequence` with that one cut on the board itself, or one chain; the explorer's answer, as JSON.

    Raises:
        UsageError: there is no such cut.
    """
    if sequence.make is None:
        if cut is None:
            raise UsageError(f"'{sequence.name}' has no chains", todo="name one cut with --cut")
        return replay_provisioning(lab, target, sequence, depth, cut)
    bench = _bench_for(lab, target, sequence)
    answers: list[dict[str, Any]] = []
    with work_folder() as work:
        only = {"only": cut, "only_chain": next(iter(chain.items())) if chain else None}
        _carry_out({**job_of(bench, sequence, lab, work, depth), **only}, answers.append)
    for answer in answers:
        if answer["ev"] == "no-such-cut":
            raise UsageError(f"'{sequence.name}' {answer['problem']}, no cut {cut}")
        if answer["ev"] in ("replayed", "clean-run-failed"):
            return answer
    raise LabError("the explorer said nothing of the cut")


@contextmanager
def _provisioning(lab: Lab, target: Target, sequence: Steps, depth: Depth) -> Iterator[ProvisioningExplorer]:
    demand = demand_of(target, sequence)
    begins = None
    if sequence.begins is not None:
        begins = Demand(Profile.of(sequence.begins, secure_boot=demand.profile.secure_boot), lock=Lock.NONE)
    what = Provisioning(sequence.name, sequence.about, target.chip, demand, begins)
    with work_folder() as work:
        yield ProvisioningExplorer(
            what,
            lab.home,
            work,
            seed=depth.seed,
            every_operation=depth.every_byte,
            sample=depth.sample,
            stop_after=depth.stop_after,
            jobs=depth.jobs,
        )


def explore_provisioning(lab: Lab, target: Target, sequence: Steps, depth: Depth) -> Explored:
    """Explores a provisioning by the host, each cut on a twin of its own.

    Raises:
        HarnessError: the board that it begins on could not be prepared.
    """
    explored = Explored(sequence.name, sequence.about)
    with _provisioning(lab, target, sequence, depth) as explorer:
        explorer.explore(explored, lambda cut: _replay_command(sequence.name, target, depth, f"--cut {cut}"))
    for found in explored.windows.values():
        found.cuts.sort(key=lambda cut: LiveCut.parse(cut).order)
    return explored


def replay_provisioning(lab: Lab, target: Target, sequence: Steps, depth: Depth, cut: str) -> dict[str, Any]:
    """One cut of a provisioning, in the words of `replay`.

    Raises:
        UsageError: there is no such cut.
    """
    with _provisioning(lab, target, sequence, depth) as explorer:
        problem = explorer.record()
        if problem is not None:
            return {"ev": "clean-run-failed", "problem": problem, "lines": []}
        return explorer.replayed(cut)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for copies of boards; held while it is in use, so that no other run takes it for a killed one's."""
    with tempfile.TemporaryDirectory(prefix="harness-twin-explore-") as name, FileLock(Path(name) / "lock"):
        yield Path(name)


def demand_of(target: Target, sequence: Steps) -> Demand:
    """What the board of `sequence` is prepared as.

    Raises:
        UsageError: the sequence is for another profile.
    """
    profile, lock = target.profile or sequence.profile or Profile.RELEASE, target.lock
    if sequence.profile is not None:
        if profile.encryption not in (sequence.profile, *sequence.also):
            raise UsageError(
                f"sequence '{sequence.name}' is for profile {sequence.profile.value}, not {profile.value}",
                todo=f"use --profile {sequence.profile.value}",
            )
        lock = sequence.lock if sequence.make is not None else lock
    return Demand(profile, lock=lock, fragments=sequence.fragments)


def applies(target: Target, sequence: Steps) -> bool:
    """Whether `sequence` makes sense on `target`."""
    return target.profile is None or (
        sequence.profile is None or target.profile.encryption in (sequence.profile, *sequence.also)
    )


def _bench_for(lab: Lab, target: Target, sequence: Steps) -> Bench:
    demand = demand_of(target, sequence)
    if sequence.bench is not None:
        return sequence.bench(lab, target.chip, demand)
    raised = int("rollback.anti" in demand.fragments)
    return Bench.prepared(lab, target.chip, demand, secure_version=raised, say=Say(quiet=True))


def job_of(bench: Bench, sequence: Steps, lab: Lab, work: Path, depth: Depth) -> dict[str, Any]:
    """What an explorer is told (`harness.twin.explorer.job`)."""
    assert sequence.make is not None
    made: Exploration = sequence.make(bench)
    return {
        **bench.job(lab.home, work, work / "state"),
        "steps": list(made.steps),
        "recovery": list(made.recovery),
        "stuck": list(made.stuck),
        "windows": [
            {
                "name": window.name,
                "shows": window.shows,
                "steps": list(window.steps),
                "sign": window.sign,
            }
            for window in sequence.windows
        ],
        "fuses": dict(made.fuses),
        "first_boot": made.first_boot,
        "few_inside": made.first_boot,
        "seed": depth.seed,
        "every_byte": depth.every_byte,
        "sample": depth.sample,
        "stop_after": depth.stop_after,
        "share": depth.share,
        "chains": {
            str(size): min(count, sequence.most_chains or count) for size, count in depth.chains.items()
        },
    }


def _run(job: dict[str, Any], sequence: Steps, target: Target, depth: Depth) -> Explored:
    explored = Explored(sequence.name, sequence.about, places=job["places"])
    rows: Queue[dict[str, Any] | HarnessError | None] = Queue()
    runs = [ExplorerProcess({**job, "shard": [shard, depth.jobs]}) for shard in range(depth.jobs)]
    order = Order()
    try:
        for run in runs:
            run.start(rows)
        working = len(runs)
        while working:
            # In this thread, so that a signal ends it, and the explorers with it.
            row = rows.get()
            if isinstance(row, HarnessError):
                raise row
            working -= row is None
            if row is not None:
                order.note(row)
                _note(explored, row, target, depth, sequence.windows)
    finally:
        for run in runs:
            run.close()
    for cut, problem in order.returns([str(op["step"]) for op in explored.operations]):
        operation = explored.operations[int(cut.split(":")[0]) - 1]
        again = _replay_command(explored.sequence, target, depth, f"--cut {cut}")
        explored.findings.append(
            Finding(explored.sequence, cut, operation, len(explored.operations), [problem], again)
        )
    for found in explored.windows.values():
        found.cuts.sort(key=lambda cut: LiveCut.parse(cut).order)
    return explored


def _prove(explored: Explored, lab: Lab, target: Target, sequence: Steps, depth: Depth) -> None:
    """Brings boards into the windows that were met, and leads them out again as the windows say."""
    if sequence.prove is None:
        return
    for found in explored.windows.values():
        for cut in found.sample(depth.proofs) if found.window.leads_out else ():
            proof = sequence.prove(
                lab, target.chip, demand_of(target, sequence), found.window, LiveCut.parse(cut)
            )
            found.proofs.append(proof)


def _window(explored: Explored, name: str, declared: Sequence[Window]) -> FoundWindow:
    window = next(window for window in declared if window.name == name)
    return explored.windows.setdefault(name, FoundWindow(window))


def _note(
    explored: Explored, row: dict[str, Any], target: Target, depth: Depth, declared: Sequence[Window]
) -> None:
    event = row["ev"]
    if "state" in row:
        explored.seen.add(row["state"])
    if event == "clean":
        explored.operations, explored.wear = row["operations"], row["wear"]
        explored.cut_points = row["cut_points"]
        if row["problems"]:
            explored.clean_problem = "; ".join(row["problems"])
    elif event == "clean-run-failed":
        explored.clean_problem, explored.clean_lines = row["problem"], row["lines"]
    elif event == "cut":
        explored.booted[row["booted"] or "nothing"] += 1
        if "window" in row:
            found = _window(explored, row["window"], declared)
            found.cuts.append(row["cut"])
            found.operations.add(row["n"])
    elif event == "chain-in-window":
        _window(explored, row["window"], declared).chains += 1
    elif event == "violation":
        explored.booted[row["booted"] or "nothing"] += 1
        explored.findings.append(_finding(explored.sequence, row, target, depth))
    elif event == "explored":
        explored.cuts += row["cuts"]
        explored.executed += row["executed"]
        explored.seconds += row["seconds"]
        explored.stopped |= row["stopped"]
        for size, count in row["chains"].items():
            explored.chains[size] += count


_OPERATION = ("n", "step", "who", "layer", "kind", "offset", "length", "place")
_EVIDENCE = ("otadata", "legend", "before", "after", "lines")


def _finding(sequence: str, row: dict[str, Any], target: Target, depth: Depth) -> Finding:
    which = f"--chain {row['chain'][0]}:{row['chain'][1]}" if "chain" in row else f"--cut {row['cut']}"
    return Finding(
        sequence,
        row["cut"],
        {name: row[name] for name in _OPERATION},
        row["of"],
        row["problems"],
        _replay_command(sequence, target, depth, which),
        {name: row[name] for name in _EVIDENCE},
    )


def _replay_command(sequence: str, target: Target, depth: Depth, which: str) -> str:
    words = ["harness explore", f"--chip {target.chip}"]
    words += [f"--profile {target.profile.value}"] if target.profile else []
    words += [f"--lock {target.lock.value}"] if target.lock else []
    return " ".join([*words, f"--sequence {sequence}", f"--seed {depth.seed}", which])


def _carry_out(job: Mapping[str, Any], take: Callable[[dict[str, Any]], None]) -> None:
    """Runs one explorer to its end.

    Raises:
        LabError: it failed; the message holds what it said.
    """
    rows: Queue[dict[str, Any] | HarnessError | None] = Queue()
    run = ExplorerProcess(job)
    try:
        run.start(rows)
        while (row := rows.get()) is not None:
            if isinstance(row, HarnessError):
                raise row
            take(row)
    finally:
        run.close()


def cores() -> int:
    """How many processes may work at once here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
