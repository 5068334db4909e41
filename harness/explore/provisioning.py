"""Host provisioning, cut at the flash and eFuse operations of esptool and espefuse, and carried on by the next run.

What the host knows (vault, intents, records) belongs to the state here, so nothing is computed: for every cut a twin of
its own is provisioned until its supply goes, and then again as a new run of the harness would. That must end in the
profile, with the key that the vault had before, and the firmware must take an update.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.errors import HarnessError, UsageError
from harness.explore.bench import NEXT
from harness.explore.live_cut import AFTER, BEFORE, INSIDE, LiveCut, has_struck
from harness.explore.result import Explored, Finding
from harness.explore.windows import FoundWindow, Window
from harness.home import Home
from harness.identification import identify
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.links.flash_log import END_OF_FLASH_LOG
from harness.links.twin import TwinLink
from harness.preparation import Consent, Demand, carry_out_plan, make_plan, prepare, settle_after
from harness.provision.execute import StepEvent
from harness.provision.told_fuses import told_profile
from harness.say import Say

NAME = "cut-off"
FIRST_BOOT = "first boot"

SACRIFICED = Window(
    name="sacrificed",
    shows="this board is sacrificed",
    does="the next run refuses, names the blocks that are spoiled, and burns nothing more",
    why="a key block's check bytes are burned with it: half a block is spoiled, and no other is left for the key",
    way_out="use another board; this one was never encrypted",
    steps=(),
    leads_out=False,
)


@dataclass(frozen=True, slots=True)
class Provisioning:
    """What is explored: from a blank board, or from one that is in `begins` already, to `demand`."""

    name: str
    about: str
    chip: str
    demand: Demand
    begins: Demand | None = None


@dataclass(frozen=True, slots=True)
class Came:
    """What came of one cut."""

    struck: bool
    problem: str | None
    said: tuple[str, ...]
    """How both runs ended, in words."""
    lines: tuple[str, ...]
    """The last lines of the UART."""
    window: str | None = None


@dataclass(slots=True)
class ProvisioningExplorer:
    """Explores one provisioning; everything that it makes lies in `work`."""

    what: Provisioning
    home: Home
    work: Path
    seed: int = 1
    every_operation: bool = False
    sample: int | None = None
    stop_after: int | None = None
    jobs: int = 1
    _template: Path = field(init=False)
    _operations: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._template = self.work / "template"
        self._template.mkdir(parents=True)
        with self._board(self._template, "template") as board:
            if self.what.begins is not None:
                self._prepare(board, self.what.begins)
            else:
                _link_of(board).control("status")

    def explore(self, explored: Explored, replay: Callable[[str], str]) -> None:
        """All of it; `replay` gives the command that repeats a cut."""
        started = time.monotonic()
        explored.clean_problem = self.record()
        explored.operations = list(self._operations)
        if explored.clean_problem is not None:
            return
        cuts = self.cuts()
        explored.cut_points = len(cuts)
        if self.sample is not None and self.sample < len(cuts):
            chosen = sorted(random.Random(self.seed).sample(range(len(cuts)), self.sample))
            cuts = [cuts[at] for at in chosen]
        lock, leaving = threading.Lock(), threading.Event()

        def one(cut: LiveCut) -> None:
            if leaving.is_set():
                return
            if self.stop_after is not None and len(explored.findings) >= self.stop_after:
                explored.stopped = True
                return
            came = self.attempt(cut)
            with lock:
                self._note(explored, cut, came, replay)

        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                list(pool.map(one, cuts))
            finally:
                # A signal, or an error: what has not begun does not begin any more.
                leaving.set()
        # Each leaves its own state, and each is run.
        explored.seen.update(map(str, cuts[: explored.cuts]))
        explored.executed = explored.cuts
        explored.seconds = (time.monotonic() - started) * self.jobs

    def _note(self, explored: Explored, cut: LiveCut, came: Came, replay: Callable[[str], str]) -> None:
        explored.cuts += 1
        if came.window is not None:
            found = explored.windows.setdefault(came.window, FoundWindow(SACRIFICED))
            found.cuts.append(str(cut))
            found.operations.add(cut.op)
            explored.booted["nothing"] += 1
            return
        explored.booted["nothing" if came.problem else NEXT] += 1
        if came.problem is not None:
            operation = self._operations[cut.op - 1]
            evidence = {"said": list(came.said), "lines": list(came.lines)}
            explored.findings.append(
                Finding(
                    self.what.name,
                    str(cut),
                    operation,
                    len(self._operations),
                    [came.problem],
                    replay(str(cut)),
                    evidence,
                )
            )

    def record(self) -> str | None:
        """The run without a cut: every operation, and the step of the plan that it belongs to; what is wrong with it."""
        ends: list[tuple[int, str]] = []
        with self._copy() as folder, self._board(folder, "clean") as board:
            link = _link_of(board)
            first = _next_number(link)

            def begun(event: StepEvent) -> None:
                if not event.done:
                    ends.append((_next_number(link) - first, f"{event.number}. {event.step.headline}"))

            try:
                planned = make_plan(
                    board, self.what.demand, self.home, say=Say(quiet=True), to_carry_out=True
                )
                carry_out_plan(board, planned, self._consent, self.home, say=Say(quiet=True), on_step=begun)
                ends.append((_next_number(link) - first, FIRST_BOOT))
                settle_after(board, planned, self.what.demand, say=Say(quiet=True))
                rows = link.control("flash-log", since=first)["ops"]
                problem = self._is_not_there(board, None)
            except HarnessError as error:
                return error.message
        for number, (_, kind, offset, length, who, _) in enumerate(rows, 1):
            step = [text for at, text in ends if at < number][-1]
            self._operations.append(
                {
                    "n": number,
                    "step": step,
                    "who": who,
                    "layer": "model",
                    "kind": kind,
                    "offset": offset,
                    "length": length,
                    "place": f"eFuse block {offset}" if kind == "burn" else f"{offset:#x}",
                }
            )
        return problem

    def replayed(self, text: str) -> dict[str, Any]:
        """One cut, told as an explorer's process tells it; to be called after `record`.

        Raises:
            UsageError: there is no such cut.
        """
        cut = LiveCut.parse(text)
        if cut.op > len(self._operations):
            raise UsageError(f"'{self.what.name}' has {len(self._operations)} operations, no cut {text}")
        came = self.attempt(cut)
        return {
            "ev": "replayed",
            "cut": text,
            **self._operations[cut.op - 1],
            "of": len(self._operations),
            "struck": came.struck,
            "booted": None if came.problem else NEXT,
            "window": came.window,
            "problems": [] if came.problem is None else [came.problem],
            "until": [],
            "recovery": [*came.said, *came.lines],
        }

    def cuts(self) -> list[LiveCut]:
        """Every burn, and of every step the first and last operation of flash: before, inside and after it."""
        chosen = []
        for place, operation in enumerate(self._operations):
            burns = operation["kind"] == "burn"
            neighbours = [
                self._operations[at] for at in (place - 1, place + 1) if 0 <= at < len(self._operations)
            ]
            inner = len(neighbours) == 2 and all(
                other["step"] == operation["step"] and other["kind"] != "burn" for other in neighbours
            )
            if burns or not inner or self.every_operation:
                chosen.append(operation)
        return [cut for operation in chosen for cut in self._cuts_at(operation)]

    def _cuts_at(self, operation: Mapping[str, Any]) -> Iterator[LiveCut]:
        number, length = operation["n"], operation["length"]
        chance = random.Random(f"{self.seed}/{number}")
        yield LiveCut(number, BEFORE)
        if operation["kind"] == "burn":
            # Half of the bytes, and any of the bits: the order in which a chip blows them is its own affair.
            yield LiveCut(number, INSIDE, length // 2)
            yield LiveCut(number, INSIDE, 0, chance.getrandbits(30))
        else:
            yield LiveCut(number, INSIDE, length // 2, chance.getrandbits(30))
        yield LiveCut(number, AFTER)

    def attempt(self, cut: LiveCut) -> Came:
        """Provisions a board until the cut, and a second time after it."""
        said: list[str] = []
        struck = False
        with self._copy() as folder:
            with self._board(folder, f"cut-{cut}") as board:
                link = _link_of(board)
                cut.arm(link)
                try:
                    self._prepare(board, self.what.demand)
                    said.append("the first run ended well")
                except HarnessError as error:
                    said.append(f"the first run ended with: {error.message}")
                struck = has_struck(link)
                lines = _last_lines(board)
            if not struck:
                return Came(struck, "the armed cut did not strike", tuple(said), lines)
            with self._board(folder, f"again-{cut}") as board:
                try:
                    problem = self._goes_on(board)
                except HarnessError as error:
                    problem = f"the next run ended with: {error.message}"
                lines = _last_lines(board)
        window = SACRIFICED.name if problem is not None and SACRIFICED.shows in problem else None
        return Came(struck, problem, (*said, problem or "the next run reached the profile"), lines, window)

    def _goes_on(self, board: Board) -> str | None:
        identify(board)
        mac = board.mac
        assert mac is not None
        board.choose_vault(self.what.demand.profile)
        before = board.vault.key(mac)
        self._prepare(board, self.what.demand)
        problem = self._is_not_there(board, before.key_id if before is not None else None)
        if problem is not None:
            return problem
        answer = board.update(board.release(NEXT))
        if not answer.ok:
            return f"it does not take its next update: {answer.error}"
        running = board.reboot()
        if running.version != NEXT or not board.confirm().ok:
            return f"it does not keep its next update: {running.summary()}"
        return None

    def _is_not_there(self, board: Board, key: str | None) -> str | None:
        """What is missing of the profile; None: nothing. `key`: id of the one that must have been kept."""
        demand = self.what.demand
        running = board.status()
        told = told_profile(board.chip, running.fields)
        if told is None or told.profile is not demand.profile or told.lock is not board.lock:
            return f"its firmware reads {told.text() if told else 'nothing'}, and {demand.profile.value} was demanded"
        assert board.mac is not None
        ref = board.vault.key(board.mac)
        if key is not None and (ref is None or ref.key_id != key):
            return f"the vault had key {key} for it, and has {ref.key_id if ref else 'none'} now"
        record = board.records.read(board.mac)
        if record is None or record.profile is not demand.profile:
            return f"its device record says {record.profile.value if record else 'nothing'}"
        if board.vault.intent(board.mac) is not None:
            return "an intent is left over"
        return None

    @property
    def _consent(self) -> Consent:
        return Consent(TwinEntry(chip=self.what.chip))

    def _prepare(self, board: Board, demand: Demand) -> None:
        prepare(board, demand, self._consent, self.home, say=Say(quiet=True))

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        """A board as it is when the provisioning begins."""
        with tempfile.TemporaryDirectory(prefix="board-", dir=self.work) as parent:
            folder = Path(parent) / "board"
            shutil.copytree(self._template, folder, ignore=shutil.ignore_patterns("lock", "running.json"))
            yield folder

    @contextmanager
    def _board(self, folder: Path, run: str) -> Iterator[Board]:
        """The board in `folder`, as a run of the harness opens it: its supply comes on."""
        inventory = Inventory(None, {NAME: TwinEntry(chip=self.what.chip, state=str(folder))})
        out = self.work / "runs" / run.replace(":", "-")
        with Lab(self.home, inventory, out, secret_from(None), purpose="harness explore") as lab:
            yield lab.open(NAME)


def _link_of(board: Board) -> TwinLink:
    assert isinstance(board.link, TwinLink)
    return board.link


def _next_number(link: TwinLink) -> int:
    return int(link.control("flash-log", since=END_OF_FLASH_LOG)["next"])


def _last_lines(board: Board, count: int = 12) -> tuple[str, ...]:
    lines = [line.text for line in board.console.lines_since(0) if not line.is_mark]
    return tuple(lines[-count:])
