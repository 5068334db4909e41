"""What the page of the rack shows: each board, who holds it, whether it works, what it does now, what it came to last.

Everything is read from files: boards.yaml, leases, health, notes of runs, device records, parts of runs, the history.
Of boards that labgrid lends, their coordinators are asked who has them on other hosts. No port is opened, no board taken;
what cannot be read is said on the page, and the rest is shown.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.attachment import labgrid_wish
from harness.errors import HarnessError
from harness.history import History
from harness.history.amounts import DAY_S
from harness.history.database import FILE as HISTORY_FILE
from harness.history.phases import plain_board
from harness.history.queries import BoardRate, LastRun, Scope, last_runs, rates_of_boards
from harness.home import Home
from harness.inventory.entry import AnyEntry, LabgridEntry, PhysicalEntry, Rfc2217Entry, SerialEntry
from harness.inventory.inventory import DEFAULT_FILE, Inventory, read_inventory
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.rack.coordinators import WatchedCoordinators
from harness.rack.health import Health, HealthBook, mend_command
from harness.rack.lease import Lease, holder_of
from harness.run_note import RunNote
from harness.serve.live_runs import LiveBoard, LiveRun, LiveRuns
from harness.state_folder import RUN_NOTE, state_folder
from harness.vault.key_ref import DO_NOT_SHIP

SHOWN_S = 90 * DAY_S
"""How far back rates and plots go on the page."""

QUICK_S = 0.5
"""What a page waits for a busy history."""


@dataclass(frozen=True, slots=True)
class BoardView:
    """One board, as the page shows it."""

    name: str
    chip: str
    link: str
    """The kind, and where it is plugged in."""
    tags: tuple[str, ...]
    listed: bool
    """It is in boards.yaml; else it is a throwaway twin of a run under way."""
    lease: Lease | None
    health: Health
    doing: str | None
    """What it does now; None: nothing that is known."""
    doing_since_s: float | None
    run: str | None
    """Id of the run under way on it."""
    log: Path | None
    """Of that run."""
    mac: str | None = None
    profile: str | None = None
    """Of its device record, with its lock."""
    ship: str | None = None
    """Why it must not leave the house."""
    rate: BoardRate | None = None
    last: LastRun | None = None
    """The last run that ended on it."""

    @property
    def busy(self) -> bool:
        """Somebody has it, or a run says that it works on it."""
        return self.lease is not None or self.run is not None

    @property
    def mend(self) -> str:
        """The command that clears a broken board."""
        return mend_command(self.name)


@dataclass(frozen=True, slots=True)
class RackView:
    """Everything at one moment."""

    boards: tuple[BoardView, ...]
    """Those of boards.yaml in its order, then throwaway ones."""
    runs: tuple[LiveRun, ...]
    problems: tuple[str, ...]
    """What could not be read, a sentence each."""
    inventory: Path | None
    """The boards.yaml in use; None: there is none."""

    def board(self, name: str) -> BoardView | None:
        """The board of that name."""
        return next((board for board in self.boards if board.name == name), None)

    @property
    def ids(self) -> frozenset[str]:
        """Of the runs under way."""
        return frozenset(run.folder.id for run in self.runs)

    @property
    def counts(self) -> dict[str, int]:
        """How many are free, in use, broken; a broken one that somebody holds counts as both."""
        return {
            "free": sum(
                not board.busy and board.health.broken is None and board.health.retired is None
                for board in self.boards
            ),
            "in use": sum(board.busy for board in self.boards),
            "broken": sum(board.health.broken is not None for board in self.boards),
        }


@dataclass(frozen=True, slots=True)
class _Past:
    """What the history has of the boards, by name."""

    rates: Mapping[str, BoardRate]
    last: Mapping[str, LastRun]


class Rack:
    """Looks at the rack of one HARNESS_HOME and boards.yaml; not for several threads at once."""

    def __init__(self, home: Home, boards_file: Path | None = None) -> None:
        self._home = home
        self._boards_file = boards_file or Path.cwd() / DEFAULT_FILE
        self._named = boards_file is not None
        self._live = LiveRuns(home)
        self.coordinators = WatchedCoordinators()
        self._inventory: tuple[object, Inventory, str | None] | None = None
        self._past: tuple[object, _Past] | None = None

    def look(self) -> RackView:
        """The rack now."""
        inventory, inventory_problem = self._read_inventory()
        past, history_problem = self._read_past()
        runs = self._live.look()
        live: dict[str, tuple[LiveRun, LiveBoard]] = {}
        for run in reversed(runs):
            live.update({board.name: (run, board) for board in run.boards})
        problems = [problem for problem in (inventory_problem, history_problem) if problem]
        book = HealthBook(self._home)
        boards = []
        for name, entry in inventory.boards.items():
            try:
                boards.append(self._listed(name, entry, inventory, book, live.get(name), past, problems))
            except HarnessError as error:
                problems.append(f"{name}: {error.message}")
            except OSError as error:
                problems.append(f"{name}: {error.filename or 'its files'} cannot be read: {error.strerror}")
        for name, (run, board) in sorted(live.items()):
            if name not in inventory.boards:
                boards.append(_throwaway(name, run, board, past))
        return RackView(tuple(boards), tuple(runs), tuple(problems), inventory.path)

    def _listed(
        self,
        name: str,
        entry: AnyEntry,
        inventory: Inventory,
        book: HealthBook,
        live: tuple[LiveRun, LiveBoard] | None,
        past: _Past,
        problems: list[str],
    ) -> BoardView:
        lease = holder_of(name, entry, inventory, self._home)
        if lease is None and isinstance(entry, LabgridEntry):
            # Here it is nobody's; another host's job, or a person, may have it.
            try:
                lease = self.coordinators.holder_of(name, entry)
            except HarnessError as error:
                problem = (
                    f"{error.message}: who has the boards of that coordinator on other hosts is not known"
                )
                problems += [problem] if problem not in problems else []
        state = (
            None
            if isinstance(entry, PhysicalEntry)
            else state_folder(self._home, inventory.path, name, entry)
        )
        note = self._home.root / "runs" / f"{name}.json" if state is None else state / RUN_NOTE
        doing, since_s = _doing(live[1] if live else None, note, lease)
        records = self._home.place_with_keys("devices") if state is None else state / "devices"
        record = _record_of(records, entry)
        return BoardView(
            name,
            entry.chip,
            f"{entry.link} {_place(entry)}".strip(),
            tuple(entry.tags),
            True,
            lease,
            book.of(name),
            doing,
            since_s,
            live[0].folder.id if live else None,
            live[1].log if live else None,
            record.mac if record else entry.mac if isinstance(entry, PhysicalEntry) else None,
            f"{record.profile.value}, lock {record.lock.value}" if record else None,
            f"{DO_NOT_SHIP} (key {record.key_state})" if record and not record.shippable else None,
            past.rates.get(name),
            past.last.get(name),
        )

    def _read_inventory(self) -> tuple[Inventory, str | None]:
        key = _stamp(self._boards_file)
        if self._inventory is None or self._inventory[0] != key:
            try:
                read, problem = read_inventory(self._boards_file if self._named or key else None), None
            except HarnessError as error:
                # Somebody is at it with an editor: the boards are those of before.
                before = self._inventory[1] if self._inventory is not None else Inventory(None, {})
                shown = "; what is shown is from before that" if before.boards else ""
                read, problem = before, f"{error}{shown}"
            self._inventory = (key, read, problem)
        return self._inventory[1], self._inventory[2]

    def _read_past(self) -> tuple[_Past, str | None]:
        history = History.of(self._home, wait_s=QUICK_S)
        file = history.folder / HISTORY_FILE
        # The journal of SQLite grows with every run; an empty one is only a sign of readers.
        key = (_stamp(file), _stamp(file.with_name(f"{file.name}-wal"), empty=False), time.time() // 3600)
        if self._past is None or self._past[0] != key:
            scope = Scope(since_s=time.time() - SHOWN_S)
            try:
                with history.reading() as database:
                    rates = {one.board: one for one in rates_of_boards(database, scope)}
                    self._past = (key, _Past(rates, last_runs(database, scope)))
            except HarnessError as error:
                # Not kept: the next look may have better luck.
                return _Past({}, {}), str(error)
        return self._past[1], None


def _throwaway(name: str, run: LiveRun, board: LiveBoard, past: _Past) -> BoardView:
    known_as = plain_board(name)
    return BoardView(
        name,
        board.chip,
        board.link,
        (),
        False,
        None,
        Health(name, None, None, None, None),
        board.doing,
        board.since_s,
        run.folder.id,
        board.log,
        rate=past.rates.get(known_as),
        last=past.last.get(known_as),
    )


def _doing(live: LiveBoard | None, note: Path, lease: Lease | None) -> tuple[str | None, float | None]:
    """What a board does now, by the most exact of those who know."""
    earlier = RunNote(note, "").earlier if lease is not None else None
    step = None
    # What a killed run left there is no news.
    if earlier is not None and earlier.ended_by is None and lease is not None and earlier.pid == lease.pid:
        step = earlier.doing if earlier.host == socket.gethostname() else None
    if live is not None:
        # Between tests and before the first one the note says more; within one it says the same.
        return (f"{live.doing} ({step})" if step and live.doing not in step else live.doing), live.since_s
    if lease is not None:
        return step, lease.since_s
    return None, None


def _record_of(folder: Path, entry: AnyEntry) -> DeviceRecord | None:
    if not folder.is_dir():
        return None
    known = [
        record
        for record in DeviceRecords(folder).all()
        if not isinstance(entry, PhysicalEntry) or record.mac == entry.mac
    ]
    return known[0] if known else None


def _place(entry: AnyEntry) -> str:
    if isinstance(entry, Rfc2217Entry):
        return entry.url
    if isinstance(entry, LabgridEntry):
        return labgrid_wish(entry).text
    if isinstance(entry, SerialEntry):
        return entry.port or entry.usb_serial or entry.usb_location or ""
    return ""


def _stamp(path: Path, *, empty: bool = True) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a cheap look, no more
    except OSError:
        return None
    if not empty and status.st_size == 0:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
