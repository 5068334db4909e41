"""Who holds a board of boards.yaml, why, and since when. Nothing is opened for it, and nothing taken."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from harness.attachment import labgrid_wish, named_port
from harness.errors import LabError
from harness.home import Home
from harness.inventory.entry import AnyEntry, LabgridEntry, PhysicalEntry, Rfc2217Entry, SerialEntry
from harness.inventory.inventory import Inventory
from harness.links.device_names import device_names, labgrid_name, mac_name
from harness.lock_file import Holder
from harness.lock_file import holder_of as holder_of_lock
from harness.lock_note import clock, user_name
from harness.locks import STATE_LOCK, lock_files
from harness.rack.renewal import LEASE_S
from harness.state_folder import state_folder


@dataclass(frozen=True, slots=True)
class Lease:
    """A board in somebody's hands. It ends with its process and is renewed while that lives; its end is for people.

    Who is past it may hang, and still holds the board: nobody takes it away.
    """

    board: str
    user: str
    host: str
    pid: int | None
    """None: not known, the holder is in another container."""
    reason: str
    since_s: float | None
    """Seconds since 1970; None: the holder did not say."""
    until_s: float | None
    """When it ends unless it is renewed; None: not said."""

    @property
    def is_overdue(self) -> bool:
        """Its holder has not renewed it: it is stopped, or hangs, or the clock was set forward a moment ago."""
        return self.until_s is not None and self.until_s < time.time()

    def text(self) -> str:
        """One line for a person: who, why, since when; and since when it was not renewed, if that is so."""
        who = self.user if self.host == socket.gethostname() else f"{self.user} on {self.host}"
        words = [f"process {self.pid}" if self.pid is not None else "a process elsewhere", self.reason]
        if self.since_s is not None:
            words.append(f"since {clock(self.since_s)}")
        if self.is_overdue and self.until_s is not None:
            words.append(f"not renewed since {clock(self.until_s - LEASE_S)}")
        return f"{who} ({', '.join(words)})"


def holder_of(name: str, entry: AnyEntry, inventory: Inventory, home: Home) -> Lease | None:
    """Who holds the board `name`; None: nobody. Takes nothing, opens no port, and keeps nobody from taking it."""
    for path in board_locks(name, entry, inventory, home):
        holder = holder_of_lock(path)
        if holder is not None:
            return _lease(name, holder)
    return None


def board_locks(name: str, entry: AnyEntry, inventory: Inventory, home: Home) -> tuple[Path, ...]:
    """The lock files of the board, as far as they are known without opening a port: one of them tells enough."""
    if not isinstance(entry, PhysicalEntry):
        return (state_folder(home, inventory.path, name, entry) / STATE_LOCK,)
    names = {mac_name(entry.mac)} if entry.mac is not None else set()
    if isinstance(entry, Rfc2217Entry):
        names |= set(device_names(entry.url))
    elif isinstance(entry, LabgridEntry) and entry.place is not None:
        # Who holds it on another host only its coordinator knows.
        names.add(labgrid_name(labgrid_wish(entry).coordinator, entry.place))
    elif isinstance(entry, SerialEntry):
        # Where nothing of that description is plugged in, only the MAC is left.
        with suppress(LabError):
            port = named_port(name, entry)
            # With its MAC alone, its port is found by asking chips, and its holder has the lock of that name too.
            names |= set(device_names(port)) if port is not None else set()
    return lock_files(names) if names else ()


def _lease(name: str, holder: Holder) -> Lease:
    note = holder.note
    if note is None:
        user = _user_of(holder.pid)
        return Lease(name, user, socket.gethostname(), holder.pid, "it does not say why", None, None)
    return Lease(
        name,
        note.user,
        note.host,
        note.pid,
        note.reason or note.purpose,
        float(note.since_s) or None,
        float(note.until_s) or None,
    )


def _user_of(pid: int | None) -> str:
    try:
        return user_name(Path(f"/proc/{pid}").stat().st_uid) if pid is not None else "somebody"
    except OSError:
        return "somebody"
