"""The serial ports: whether this user may open them, and who has them. Nothing is opened."""

from __future__ import annotations

import getpass
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.doctor.finding import Finding, good, note, wrong
from harness.doctor.udev import INSTALL
from harness.inventory.discover import Attached


@dataclass(frozen=True, slots=True)
class Access:
    """Who may open a device file. `exists` False: there is no such file."""

    device: str
    exists: bool
    allowed: bool = False
    group: str | None = None
    """The file's group; None where the operating system has none."""
    group_may: bool = False
    in_group: bool = False
    """This process has the group."""
    member: bool = False
    """The user is in the group by the system's books, so that a new login has it."""
    character_device: bool = True
    """False: a file or a folder, so no port at all."""


def probe_access(device: str) -> Access:
    """Looks at the device file; a port that is no file (``COM5``, a URL) counts as allowed."""
    if not device.startswith("/"):
        return Access(device, exists=True, allowed=True)
    try:
        status = Path(device).stat()
    except FileNotFoundError:
        return Access(device, exists=False)
    except OSError:
        return Access(device, exists=True)
    if os.name != "posix":
        return Access(device, exists=True, allowed=True)
    import grp

    try:
        group = grp.getgrgid(status.st_gid)
        name, members = group.gr_name, group.gr_mem
    except KeyError:
        name, members = str(status.st_gid), []
    return Access(
        device,
        exists=True,
        allowed=os.access(device, os.R_OK | os.W_OK),
        group=name,
        group_may=status.st_mode & 0o060 == 0o060,
        in_group=status.st_gid in (os.getegid(), *os.getgroups()),
        member=_user() in members,
        character_device=stat.S_ISCHR(status.st_mode),
    )


def check_ports(
    attached: Sequence[Attached], access: Callable[[str], Access], *, services: Iterable[str] = ()
) -> list[Finding]:
    """Judges every port by which a board may be attached. `services` are programs that run and get in the way."""
    boards = [one for one in attached if one.may_be_a_board]
    found = [_check_port(one, access(one.port.device)) for one in boards]
    if not boards:
        count = len(attached)
        others = f" ({count} other serial port{'s' if count > 1 else ''})" if count else ""
        found.append(note("ports", f"no board is plugged in by USB{others}"))
    if boards and "ModemManager" in services:
        found.append(
            note(
                "ports",
                "ModemManager runs: it talks to new ports for some seconds, which disturbs a board",
                "sudo systemctl mask --now ModemManager, where no modem is used; with one: harness doctor --udev-rule",
            )
        )
    return found


def _check_port(one: Attached, access: Access) -> Finding:
    known = " ".join(
        filter(None, [one.port.description, f"serial {one.port.usb_serial}" if one.port.usb_serial else ""])
    )
    text = f"{one.port.device}" + (f" ({known})" if known else "")
    complaint = complaint_on(access)
    if complaint is not None:
        return wrong("ports", f"{text}: {complaint[0]}", complaint[1])
    if one.holder is not None:
        return note("ports", f"{text}: held by {one.holder}", "end it before a run needs this port")
    return good("ports", f"{text}: may be opened, nobody has it")


def complaint_on(access: Access) -> tuple[str, str] | None:
    """Why this user cannot open the port, and the sentence that mends it; None: the user can."""
    if not access.exists:
        return "does not exist", "plug the board in, or correct the port in its entry"
    if not access.character_device:
        return "is a file or a folder, not a serial port", "correct the port in its entry"
    if access.allowed:
        return None
    text = f"this user ({_user()}) may not open it"
    if access.group_may and access.group not in (None, "root"):
        if access.member and not access.in_group:
            return (
                text,
                f"log out and in again: you are in the group '{access.group}', this session is not yet",
            )
        return text, f"sudo usermod -aG {access.group} {_user()}, then log out and in again"
    return text, f"install the udev rule: {INSTALL}"


def probe_services(processes: Path = Path("/proc")) -> tuple[str, ...]:
    """Programs that are known to open serial ports by themselves, as far as they run."""
    found = set()
    for comm in processes.glob("[0-9]*/comm"):
        try:
            name = comm.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            # It has ended since.
            continue
        if name == "ModemManager":
            found.add(name)
    return tuple(sorted(found))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else "this one"
