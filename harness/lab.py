"""The bench: opens boards, with their locks, links, vaults and folders, and closes them again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness.board import Board
from harness.build.board_keys import KeySources
from harness.chips import chip_named
from harness.connection import (
    key_source_of,
    labgrid_lease,
    lent_link,
    lent_names,
    names_of,
    network_of,
    physical_link,
    physical_port,
    power_of,
    virtual_link,
)
from harness.deadline import Deadline, deadline_in
from harness.errors import HarnessError, UsageError
from harness.home import Home
from harness.interruption import Interrupted, unbroken
from harness.inventory.entry import (
    AnyEntry,
    LabgridEntry,
    PhysicalEntry,
    Rfc2217Entry,
    SerialEntry,
    TwinEntry,
    VirtualEntry,
)
from harness.inventory.inventory import Inventory
from harness.links.device_names import mac_name
from harness.links.emulator_port import EMULATOR_GONE
from harness.links.labgrid_lease import PlaceLease
from harness.links.link import Link
from harness.links.twin import TwinLink
from harness.locks import STATE_LOCK, BoardLock, lock_files
from harness.provision.device_record import DeviceRecords
from harness.provision.flash_baud import FlashBauds
from harness.provision.profile import Profile
from harness.provision.time_needed import TimeLeft
from harness.rack.health import HealthBook
from harness.rack.offers import offers_besides_link
from harness.rack.reason import reason_of
from harness.rack.renewal import leased
from harness.rack.watch import BoardWatch
from harness.run_note import RunNote
from harness.say import Say
from harness.state_folder import RUN_NOTE, base_folder, make_state_folder, make_throwaway_folder, state_folder
from harness.vault.record_file import remove_leftovers
from harness.vault.secret import KeyFile, Secret
from harness.vault.vault import Vault

BENCH = "bench"
"""Folder of the vault that signs packages for physical boards in profile ``open``."""


@dataclass(slots=True)
class Lab:
    """What a run needs to open boards; boards are closed with it, last opened first.

    ``secret`` opens the vault of physical boards; it is asked for only when that vault is needed.
    """

    home: Home
    inventory: Inventory
    out: Path
    secret: Callable[[Path], Secret]
    purpose: str = "harness"
    reason: str = ""
    """What others are told who want a board that this run holds; default: the purpose, and the CI job."""
    say: Say = field(default_factory=lambda: Say(quiet=True))
    burn: frozenset[str] = frozenset()
    """Boards whose eFuses a person allowed this run to burn, by name."""
    deadline: Deadline | None = field(default_factory=lambda: deadline_in(None))
    """When this run may be ended from outside; see `harness.deadline`."""
    _stack: ExitStack = field(default_factory=ExitStack)
    _twins: list[tuple[str, TwinLink]] = field(default_factory=list)
    _notes: list[RunNote] = field(default_factory=list)
    _leases: list[tuple[str, PlaceLease]] = field(default_factory=list)

    def open(self, name: str) -> Board:
        """Opens the board `name` of the inventory; its state persists.

        Raises:
            UsageError: there is no such board. LabError: it is in use, or its link cannot be opened.
        """
        entry = self.inventory.named(name)
        if isinstance(entry, PhysicalEntry):
            return self._open_physical(name, entry)
        state = state_folder(self.home, self.inventory.path, name, entry)
        make_state_folder(name, state)
        self._lock(name, [state / STATE_LOCK])
        for folder in (state, state / "devices"):
            remove_leftovers(folder)
        return self._open_virtual(name, entry, state)

    def watch(self, name: str) -> BoardWatch:
        """What latches the board `name` as broken when it fails in this run; a person is told if it is already."""
        watch = BoardWatch(
            HealthBook(self.home),
            name,
            run=self._why,
            say=self.say,
            starts_anew=lambda error: self._is_end_of_process(name, error) or self._is_lost(name),
        )
        watch.warn()
        return watch

    def _is_end_of_process(self, name: str, error: HarnessError) -> bool:
        """Whether what failed is that the process of a virtual board has ended."""
        ended = (link.ended for twin, link in self._twins if twin == name)
        return EMULATOR_GONE in error.message or any(how is not None for how in ended)

    def _is_lost(self, name: str) -> bool:
        """Whether the board is one that labgrid has lent, and lends to somebody else now: its silence is none."""
        return any(lease.ending is not None for lent, lease in self._leases if lent == name)

    @property
    def _why(self) -> str:
        return self.reason or reason_of(self.purpose)

    def throwaway(self, chip: str, name: str | None = None, *, entry: TwinEntry | None = None) -> Board:
        """A twin with blank flash and eFuses that is gone when the lab closes."""
        folder = make_throwaway_folder()
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return self._open_virtual(name or f"twin-{chip}", entry or TwinEntry(chip=chip), folder)

    def note_interrupted(self, error: Interrupted) -> None:
        """The next run on each of the boards is told that a signal ended this one, and where."""
        for note in self._notes:
            note.interrupted(error)

    def close(self) -> None:
        """Closes every board."""
        self._stack.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: object, error: object, _: object) -> None:
        if isinstance(error, HarnessError):
            self._blame_twin(error)
        if isinstance(error, Interrupted):
            self.note_interrupted(error)
        elif error is None or isinstance(error, Exception):
            for note in self._notes:
                note.done()
        with unbroken("the boards are being closed", deliver=not isinstance(error, KeyboardInterrupt)):
            self.close()

    def _blame_twin(self, error: HarnessError) -> None:
        """A virtual board has no cable: what looks like a pulled one is the end of its process."""
        if EMULATOR_GONE in error.message:
            error.todo = "run it again, the next run goes on from here"
        for name, lease in self._leases:
            if error.board == name and lease.ending is not None:
                # Whatever failed, this is why.
                error.message, error.todo = lease.error().message, lease.error().todo
        for name, link in self._twins:
            how = link.ended if error.board == name else None
            if how is not None:
                error.todo = f"{how}; run it again, the next run goes on from here"

    def _open_virtual(self, name: str, entry: VirtualEntry, state: Path) -> Board:
        link = virtual_link(name, entry, state, self.home)
        if isinstance(link, TwinLink):
            self._twins.append((name, link))
        # A virtual board has a vault of its own beside its state, so that no two share a record and no passphrase
        # is needed to try things out.
        board = self._opened(name, entry, link, lambda: own_vault(state), state / "devices")
        return self._noted(board, state / RUN_NOTE)

    def _open_physical(self, name: str, entry: PhysicalEntry) -> Board:
        assert isinstance(entry, (SerialEntry, Rfc2217Entry, LabgridEntry))
        with ExitStack() as taken:
            link, names = self._reached(name, entry, taken)
            lock = self._lock(name, lock_files(names))
            self._stack.push(taken.pop_all())
        place = self.home.vault
        board = self._opened(
            name,
            entry,
            link,
            lambda: Vault.open(place, self.secret(place)),
            self.home.devices,
            bench_vault=lambda: own_vault(self.home.folder(BENCH)),
            # Its MAC tells that it is the board of another wire, which somebody else may hold.
            claim=lambda mac: lock.extend(lock_files([mac_name(mac)])),
        )
        return self._noted(board, self.home.folder("runs") / f"{name}.json")

    def _reached(
        self, name: str, entry: SerialEntry | Rfc2217Entry | LabgridEntry, taken: ExitStack
    ) -> tuple[Link, tuple[str, ...]]:
        """The link to a physical board, and what tells it from others; a place of labgrid is taken first, by `taken`."""
        if isinstance(entry, LabgridEntry):
            lease = labgrid_lease(name, entry, self.home, self.say.line)
            taken.enter_context(lease)
            self._leases.append((name, lease))
            lent = lent_link(name, entry, lease)
            return lent, lent_names(entry, lent)
        port = physical_port(name, entry, self.inventory)
        return physical_link(name, entry, port), names_of(entry, port)

    def _noted(self, board: Board, path: Path) -> Board:
        """Says what the run before this one left in `path`, and keeps this one's note there."""
        note = board.run_note = RunNote(path, self.purpose)
        board.time_left = TimeLeft.on(board.link.kind, self.deadline)
        self._notes.append(note)
        if note.earlier is not None:
            self.say.line(f"{board.name}: {note.earlier.text()}")
            board.console.note(note.earlier.text())
        return board

    def _lock(self, name: str, files: Iterable[Path]) -> BoardLock:
        book = HealthBook(self.home)
        lock = self._stack.enter_context(leased(files, board=name, purpose=self.purpose, reason=self._why))
        # Also when it is let go of: a long run's board was used until then.
        self._stack.callback(book.used, name)
        book.used(name)
        return lock

    def _opened(
        self,
        name: str,
        entry: AnyEntry,
        link: Link,
        vault: Callable[[], Vault],
        records: Path,
        *,
        bench_vault: Callable[[], Vault] | None = None,
        claim: Callable[[str], None] | None = None,
    ) -> Board:
        self._stack.callback(link.close)
        folder = self.out / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the folder {folder} cannot be made: {error.strerror}", todo="choose another with --out"
            ) from error
        journal = folder / "server-journal.jsonl"
        network = network_of(name, entry, link, base_folder(self.inventory.path))
        keys = key_source_of(entry, base_folder(self.inventory.path))
        board = Board(
            name,
            chip_named(entry.chip),
            link,
            folder=folder,
            vault=lambda: vault().take_keys_from(keys),
            bench_vault=bench_vault,
            records=DeviceRecords(records),
            serve=lambda: network.serve(journal),
            network=network,
            power=power_of(entry, link, name),
            declared_mac=entry.mac if isinstance(entry, PhysicalEntry) else None,
            claim=claim,
            fragments=entry.firmware_fragments,
            sacrificial=isinstance(entry, PhysicalEntry) and entry.sacrificial,
            boot_keys=KeySources.of_entry(entry, base_folder(self.inventory.path)),
            bauds=FlashBauds(self.home.root / "flash-baud") if isinstance(entry, PhysicalEntry) else None,
            offers=offers_besides_link(name, entry, self.burn),
        )
        self._stack.callback(board.close)
        return board


def open_vault(
    home: Home,
    inventory: Path | None,
    name: str,
    entry: AnyEntry,
    secret: Callable[[Path], Secret],
    *,
    profile: Profile | None = None,
) -> Vault:
    """The vault that holds the keys of the board `name`: a virtual board's own, or that of the physical ones.

    In profile ``open`` a physical board has no key but the one that its packages are signed with, see
    `Board.choose_vault`.
    """
    if isinstance(entry, PhysicalEntry) and profile is Profile.OPEN:
        return own_vault(home.folder(BENCH))
    if isinstance(entry, PhysicalEntry):
        return Vault.open(home.vault, secret(home.vault))
    return own_vault(state_folder(home, inventory, name, entry))


def own_vault(state: Path) -> Vault:
    """The vault of a virtual board: in its state folder, opened by a key file in it."""
    key_file = state / "vault.key"
    secret = KeyFile(key_file) if key_file.exists() else KeyFile.create(key_file)
    return Vault.open(state / "vault", secret, create=True)


def secret_from(key_file: str | None) -> Callable[[Path], Secret]:
    """How a physical vault is opened: by a key file named on the command line or in HARNESS_VAULT_KEY_FILE.

    Only the file's name may be in the environment, never a passphrase: environments are readable to others.
    """

    def secret(place: Path) -> Secret:
        named = key_file or os.environ.get("HARNESS_VAULT_KEY_FILE")
        if not named:
            raise UsageError(
                f"nothing opens the vault {place}",
                todo="name its key file with --vault-key-file FILE or HARNESS_VAULT_KEY_FILE, "
                "or give the passphrase on a descriptor with --vault-passphrase-fd N",
            )
        return KeyFile(Path(named).expanduser())

    return secret
