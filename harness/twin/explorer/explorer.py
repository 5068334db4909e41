"""The exploration of one sequence: the clean run, every cut, chains of cuts, and what was found."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.chips import CHIPS
from harness.twin.explorer.cut_points import Cut, cuts_of, inside, parse_cut, sampled
from harness.twin.explorer.flash_map import LEGEND, flash_map
from harness.twin.explorer.job import Job, Step
from harness.twin.explorer.judge import Judge
from harness.twin.explorer.player import BoardDead, Player, SupplyGone
from harness.twin.explorer.script import Script, Unexpected
from harness.twin.explorer.stored import FLASH_KINDS, Key, StoredState, Walker, in_sectors
from harness.twin.half_done import SECTOR_BYTES
from harness.twin.operations import Change, CutPoint
from harness.twin.state import EFUSE_FILE, StateFolder

Emit = Callable[[dict[str, Any]], None]

_LAST_LINES = 12
_MODEL = frozenset({"rom", "stub", "host", "bootloader"})


@dataclass(frozen=True, slots=True)
class Recovery:
    """What came of switching a board on after a cut."""

    booted: str | None
    """The version that came up; None: none did."""
    problem: str | None
    """Why it does not go on from there; None: it took its next update, and that runs confirmed."""
    journal: tuple[Change, ...]
    """Every operation of the recovery."""
    lines: tuple[str, ...] = field(default=(), repr=False)
    """What the UART said last since its supply was last switched on."""
    windows: tuple[str, ...] = ()
    """Those whose sign is in what was wrong, or in all that the UART said."""


class Explorer:
    """Explores one job; `emit` takes what there is to tell, as JSON objects."""

    def __init__(self, job: Job, work: Path, emit: Emit) -> None:
        """`work` is an empty folder for a copy of the board."""
        self._job = job
        self._emit = emit
        chip = CHIPS[job.chip]
        board = work / "board"
        shutil.copytree(job.state, board, ignore=shutil.ignore_patterns("vault*", "lock", "running.json"))
        self._folder = StateFolder.open(board, chip)
        scratch = work / "scratch"
        scratch.mkdir()
        shutil.copyfile(job.state / EFUSE_FILE, scratch / EFUSE_FILE)
        self._judge = Judge(chip, job, scratch / EFUSE_FILE)
        self._walker = Walker(self._judge.scratch, job.stuck)
        self._player = Player(chip, self._folder, job.build_store)
        self._player.machine.flash.stuck = job.stuck
        base, cells = self._player.stored()
        self._start = StoredState(in_sectors(base), cells)
        self._changes: list[Change] = []
        self._step_of: list[int] = []
        """The step that each operation belongs to."""
        self._clean = self._start
        self._known: dict[tuple[int, ...], dict[Key, Recovery]] = {}
        self._executed = 0
        self._keeps_lines = job.only is not None or job.only_chain is not None

    def close(self) -> None:
        self._player.close()
        self._judge.close()
        self._folder.close()

    def run(self) -> None:
        """All of it. What is found wrong is emitted, nothing is raised for it."""
        if not self._record_clean_run():
            return
        if self._job.only is not None:
            self._replay(parse_cut(self._job.only))
            return
        if self._job.only_chain is not None:
            self._replay_chain(*self._job.only_chain)
            return
        started = time.monotonic()
        counts: Counter[str] = Counter()
        for cut, state in self._cut_states():
            if self._enough(counts):
                break
            problems, recovery = self._judged(state)
            problems += self._out_of_place(cut, recovery)
            self._report(cut, state, problems, recovery, counts)
        for size, count in sorted(self._job.chains.items()):
            self._chains(size, count, counts)
        self._emit(
            {
                "ev": "explored",
                "cuts": counts["cuts"],
                "chains": {str(size): counts[f"chains of {size}"] for size in sorted(self._job.chains)},
                "violations": counts["violations"],
                "windows": counts["windows"],
                "executed": self._executed,
                "stopped": self._enough(counts),
                "seconds": time.monotonic() - started,
            }
        )

    def _enough(self, counts: Counter[str]) -> bool:
        most = self._job.stop_after
        return most is not None and counts["violations"] >= most

    # The clean run

    def _record_clean_run(self) -> bool:
        player, job = self._player, self._job
        player.restore(self._start)
        self._changes = player.record()
        ends: list[int] = []
        script = Script(player, job.packages, on_step=lambda _: ends.append(len(self._changes)))
        problem = None
        try:
            script.run(job.steps)
        except (Unexpected, BoardDead) as error:
            problem = str(error)
        finally:
            lines = player.lines[-_LAST_LINES:]
            player.off()
        self._step_of = [max(k for k, at in enumerate(ends) if at <= op) for op in range(len(self._changes))]
        self._clean = self._walker.after_all(self._start, self._changes)
        if problem is not None:
            self._emit({"ev": "clean-run-failed", "problem": problem, "lines": lines})
            return False
        stored, cells = player.stored()
        replayed = self._clean
        if cells != replayed.efuses or stored != replayed.read(0, len(stored)):
            raise RuntimeError("the recorded operations do not make the stored state that the clean run left")
        self._emit(
            {
                "ev": "clean",
                "cut_points": len(self._cuts()),
                "steps": [step.name for step in job.steps],
                "operations": [self._operation(op) for op in range(len(self._changes))],
                "wear": _wear(self._changes),
                "problems": self._judge.problems(replayed),
            }
        )
        return True

    def _operation(self, op: int) -> dict[str, Any]:
        operation = self._changes[op].operation
        return {
            "n": op + 1,
            "step": self._job.steps[self._step_of[op]].name,
            "who": operation.who,
            "layer": self._layer(op),
            "kind": operation.kind,
            "offset": operation.offset,
            "length": operation.length,
            "place": self._place(op),
        }

    def _layer(self, op: int) -> str:
        """Who decided on the operation: the shipping handler's C, the port of ESP-IDF's functions, or the model."""
        operation = self._changes[op].operation
        if operation.who in _MODEL or operation.kind not in FLASH_KINDS:
            return "model"
        return "shipping C" if operation.kind == "write" and self._slot_at(operation.offset) else "port"

    def _place(self, op: int) -> str:
        operation = self._changes[op].operation
        if operation.kind not in FLASH_KINDS:
            return f"eFuse block {operation.offset}"
        otadata = self._job.otadata
        if otadata.offset <= operation.offset < otadata.offset + otadata.size:
            return f"otadata[{(operation.offset - otadata.offset) // SECTOR_BYTES}]"
        for place in self._job.places:
            if place.offset <= operation.offset < place.offset + place.size:
                return f"{place.label} + {operation.offset - place.offset:#x}"
        return f"{operation.offset:#x}"

    def _slot_at(self, offset: int) -> bool:
        return any(slot.offset <= offset < slot.offset + slot.size for slot in self._job.slots)

    # Cuts

    def _cuts(self) -> list[Cut]:
        job = self._job
        few = job.few_inside and not job.every_byte
        return list(cuts_of(self._changes, seed=job.seed, every_byte=job.every_byte, few_inside=few))

    @property
    def _decisive(self) -> frozenset[int]:
        otadata = self._job.otadata
        return frozenset(
            op
            for op, change in enumerate(self._changes)
            if change.operation.kind not in FLASH_KINDS
            or otadata.offset <= change.operation.offset < otadata.offset + otadata.size
        )

    def _cut_states(self) -> Iterator[tuple[Cut, StoredState]]:
        """Every cut of this shard, with what it leaves."""
        k, n = self._job.shard
        state, reached = self._start, 0
        cuts = sampled(self._cuts(), self._job.sample, self._job.seed, self._decisive)
        for number, cut in enumerate(cuts):
            while reached < cut.op:
                state = self._walker.after_all(state, [self._changes[reached]])
                reached += 1
            if number % n != k:
                continue
            yield cut, self._after_cut(state, self._changes[cut.op], cut)

    def _judged(self, state: StoredState) -> tuple[list[str], Recovery]:
        problems = self._judge.problems(state)
        recovery = self._recovery(state)
        if recovery.problem is not None:
            problems.append(recovery.problem)
        return problems, recovery

    def _recovery(self, state: StoredState) -> Recovery:
        if self._job.share:
            for sectors, results in self._known.items():
                found = results.get(state.key(sectors))
                if found is not None:
                    return found
        recovery, sectors = self._recover(state)
        self._known.setdefault(sectors, {})[state.key(sectors)] = recovery
        return recovery

    def _recover(self, state: StoredState) -> tuple[Recovery, tuple[int, ...]]:
        """Switches the board on and has it take its next update."""
        player = self._player
        player.restore(state)
        journal, touches = player.record(), player.watch()
        self._executed += 1
        booted: str | None = None
        problem: str | None = None
        script = Script(player, self._job.packages)
        try:
            script.run([Step("power on", "boot")])
            booted = str(script.last.get("version"))
            self._compare_state(state, script.last)
            script.run(self._job.recovery)
        except (Unexpected, BoardDead) as error:
            problem = f"does not boot: {error}" if booted is None else f"does not recover: {error}"
        finally:
            lines = tuple(player.lines)
            player.off()
        after = self._walker.after_all(state, journal)
        if problem is None:
            left = [*self._judge.problems(after), *self._judge.unset_fuses(after)]
            problem = next((f"after the recovery: {p}" for p in left), None)
        kept = lines if self._keeps_lines else lines[-_LAST_LINES:] if problem is not None else ()
        windows = () if problem is None else self._windows_of(after, (problem, *lines))
        return Recovery(booted, problem, tuple(journal), kept, windows), tuple(sorted(touches.read))

    def _compare_state(self, state: StoredState, boot: Mapping[str, Any]) -> None:
        """A version on trial says so: nothing confirms it but the command."""
        expected = self._judge.expected_state(state, str(boot.get("slot")))
        if expected is not None and boot.get("state") != expected:
            raise Unexpected(
                f"{boot.get('version')} says '{boot.get('state')}' of itself after power came back, not '{expected}'"
            )

    def _windows_of(self, state: StoredState, said: Sequence[str]) -> tuple[str, ...]:
        """Those whose signs there are, in the order in which they are declared."""
        return tuple(
            window.name
            for window in self._job.windows
            if any(window.shows in line for line in said)
            and (not window.sign or self._judge.shows(state, window.sign))
        )

    def _out_of_place(self, cut: Cut, recovery: Recovery) -> list[str]:
        """What is wrong with the version that came up, given where the cut was."""
        booted = recovery.booted
        if booted is None:
            return []
        number = self._step_of[cut.op]
        step = self._job.steps[number]
        if step.boots and booted not in step.boots:
            return [f"{booted} runs after a cut in '{step.name}', expected: {' or '.join(step.boots)}"]
        last = cut.op + 1 == len(self._changes) or self._step_of[cut.op + 1] != number
        if step.then is not None and last and cut.where is CutPoint.AFTER and booted != step.then:
            return [f"{booted} runs after a cut at the end of '{step.name}', expected: {step.then}"]
        return []

    def _report(
        self, cut: Cut, state: StoredState, problems: Sequence[str], recovery: Recovery, counts: Counter[str]
    ) -> None:
        counts["cuts"] += 1
        row: dict[str, Any] = {
            "ev": "cut",
            "cut": str(cut),
            "booted": recovery.booted,
            "state": state.digest(),
        }
        window = self._window_of(cut, problems, recovery)
        if window is not None:
            counts["windows"] += 1
            self._emit({**row, "window": window, "n": cut.op + 1})
            return
        if not problems:
            self._emit(row)
            return
        counts["violations"] += 1
        self._emit(
            {**row, "ev": "violation", **self._evidence(state, problems, recovery), **self._operation(cut.op)}
        )

    def _evidence(self, state: StoredState, problems: Sequence[str], recovery: Recovery) -> dict[str, Any]:
        places = self._job.places
        return {
            "of": len(self._changes),
            "problems": list(problems),
            "otadata": self._judge.records(state),
            "legend": LEGEND,
            "before": flash_map(places, self._start, self._clean),
            "after": flash_map(places, state, self._clean),
            "lines": list(recovery.lines[-_LAST_LINES:]),
        }

    # Chains

    def _chain_of(self, size: int, number: int) -> _Chain:
        """A cut in the sequence, and each further one in the recovery from the one before it; ends at a problem."""
        chance = random.Random(f"{self._job.seed}/{size}/{number}")
        chain = _Chain(self._start)
        changes: Sequence[Change] = self._changes
        while len(chain.cuts) < size and changes and not chain.problems:
            cut = _random_cut(changes, chance)
            chain.cuts.append(cut)
            chain.state = self._after_cut(
                self._walker.after_all(chain.state, changes[: cut.op]), changes[cut.op], cut
            )
            chain.problems, chain.recovery = self._judged(chain.state)
            changes = chain.recovery.journal
        first, booted = self._job.steps[self._step_of[chain.cuts[0].op]], chain.recovery.booted
        if first.boots and booted is not None and booted not in (*first.boots, self._job.safe):
            chain.problems.append(f"{booted} runs after cuts that began in '{first.name}'")
        return chain

    def _after_cut(self, state: StoredState, change: Change, cut: Cut) -> StoredState:
        extent = cut.extent(max(change.operation.length, len(change.data)))
        return state if extent is None else self._walker.after(state, change, extent)

    def _chains(self, size: int, count: int, counts: Counter[str]) -> None:
        k, n = self._job.shard
        if not self._changes:
            return
        for number in range(k, count, n):
            if self._enough(counts):
                break
            chain = self._chain_of(size, number)
            counts[f"chains of {size}"] += 1
            window = self._window_of(chain.cuts[0], chain.problems, chain.recovery)
            if window is not None:
                self._emit({"ev": "chain-in-window", "window": window})
            if window is not None or not chain.problems:
                continue
            counts["violations"] += 1
            self._emit({"ev": "violation", "chain": [size, number], **self._told(chain)})

    def _told(self, chain: _Chain) -> dict[str, Any]:
        return {
            "cut": " then ".join(str(cut) for cut in chain.cuts),
            "booted": chain.recovery.booted,
            **self._operation(chain.cuts[0].op),
            **self._evidence(chain.state, chain.problems, chain.recovery),
        }

    def _window_of(self, cut: Cut, problems: Sequence[str], recovery: Recovery) -> str | None:
        """The declared window that this is, and nothing else is wrong; None: it is none, or nothing is wrong."""
        step = self._job.steps[self._step_of[cut.op]].name
        if recovery.problem is None or list(problems) != [recovery.problem]:
            return None
        for window in self._job.windows:
            if step in window.steps and window.name in recovery.windows:
                return window.name
        return None

    def _replay_chain(self, size: int, number: int) -> None:
        chain = self._chain_of(size, number)
        told = {"ev": "replayed", "struck": True, "as_computed": True, "until": [], **self._told(chain)}
        told["window"] = self._window_of(chain.cuts[0], chain.problems, chain.recovery)
        self._emit({**told, "recovery": list(chain.recovery.lines)})

    # One cut, on the board itself

    def _no_such_cut(self, cut: Cut) -> str | None:
        if cut.op >= len(self._changes):
            return f"has {len(self._changes)} operations"
        change = self._changes[cut.op]
        length = max(change.operation.length, len(change.data))
        if cut.where is CutPoint.INSIDE and not 0 <= cut.byte < length:
            return f"writes or erases {length} bytes in operation {cut.op + 1}"
        return None

    def _replay(self, cut: Cut) -> None:
        """Runs the sequence with the cut armed, and the recovery; tells everything, and whether it is as computed."""
        problem = self._no_such_cut(cut)
        if problem is not None:
            self._emit({"ev": "no-such-cut", "problem": problem})
            return
        player = self._player
        player.restore(self._start)
        player.arm(cut.op, cut.where, cut.byte, cut.mixture)
        lines: list[str] = []
        struck = False
        try:
            Script(player, self._job.packages).run(self._job.steps)
        except SupplyGone:
            struck = True
        finally:
            lines += player.lines
            player.off()
        stored, cells = player.stored()
        before = self._walker.after_all(self._start, self._changes[: cut.op])
        computed = self._after_cut(before, self._changes[cut.op], cut)
        same = struck and cells == computed.efuses and stored == computed.read(0, len(stored))
        problems, recovery = self._judged(computed)
        problems += self._out_of_place(cut, recovery)
        self._emit(
            {
                "ev": "replayed",
                "cut": str(cut),
                "struck": struck,
                "as_computed": same,
                "booted": recovery.booted,
                "window": self._window_of(cut, problems, recovery),
                "until": lines,
                "recovery": list(recovery.lines),
                **self._operation(cut.op),
                **self._evidence(computed, problems, recovery),
            }
        )


@dataclass(slots=True)
class _Chain:
    """Cuts one after another, and what the last one left."""

    state: StoredState
    cuts: list[Cut] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    recovery: Recovery = field(default_factory=lambda: Recovery(None, None, ()))


def _random_cut(changes: Sequence[Change], chance: random.Random) -> Cut:
    op = chance.randrange(len(changes))
    within = list(inside(changes[op], chance, every_byte=False))
    choice = chance.randrange(len(within) + 2)
    if choice >= len(within):
        return Cut(op, CutPoint.BEFORE if choice == len(within) else CutPoint.AFTER)
    return Cut(op, CutPoint.INSIDE, *within[choice])


def _wear(changes: Sequence[Change]) -> list[list[int]]:
    """[sector, erases, bytes written] of every sector that the sequence touched."""
    erases: Counter[int] = Counter()
    written: Counter[int] = Counter()
    for change in changes:
        operation = change.operation
        if operation.kind not in FLASH_KINDS:
            continue
        for at in range(operation.offset, operation.offset + operation.length, SECTOR_BYTES):
            sector = at // SECTOR_BYTES
            if operation.kind == "erase":
                erases[sector] += 1
            else:
                end = min(operation.offset + operation.length, (sector + 1) * SECTOR_BYTES)
                written[sector] += end - max(operation.offset, sector * SECTOR_BYTES)
    return [[sector, erases[sector], written[sector]] for sector in sorted(erases.keys() | written.keys())]
