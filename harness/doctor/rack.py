"""What can be said of the boards of a file together, and of one unopened: who has it, and is it known broken."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress

from harness.doctor.board_facts import area_of
from harness.doctor.finding import Finding, note, wrong
from harness.errors import HarnessError
from harness.home import Home
from harness.inventory.entry import AnyEntry, LabgridEntry, PhysicalEntry
from harness.inventory.inventory import Inventory
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.rack.health import Health, HealthBook, mend_command, take_back_command
from harness.rack.lease import Lease, holder_of

CONNECT_TIMEOUT_S = 2.0

SAME_PLACE = ("port", "usb_serial", "usb_location", "url", "mac", "place")
"""Fields that two entries of one file cannot share, since they mean one board."""


def check_names_apart(boards: Mapping[str, AnyEntry]) -> list[Finding]:
    """That no two entries are one board: then each would find it held by the other."""
    found = []
    for field in SAME_PLACE:
        names = defaultdict(list)
        # Windows tells no 'COM5' from a 'com5'; a person finds it as it is written.
        written: dict[str, str] = {}
        for name, entry in boards.items():
            value = getattr(entry, field, None)
            if value is not None and isinstance(entry, PhysicalEntry):
                names[str(value).lower()].append(name)
                written.setdefault(str(value).lower(), str(value))
        found += [
            wrong(
                "boards",
                f"{' and '.join(same)} have the same '{field}': {written[value]}",
                "take one of them out, or correct it",
            )
            for value, same in names.items()
            if len(same) > 1
        ]
    return found


def check_board_unopened(name: str, entry: AnyEntry, inventory: Inventory, home: Home) -> list[Finding]:
    """What the state folder and the locks say of the board; nothing is opened, nothing taken."""
    health = HealthBook(home).of(name)
    if health.retired is not None:
        text = health.retired_text().removeprefix(f"board {name} is ")
        return [note(area_of(name), f"{text}; not looked at", f"to undo that: {take_back_command(name)}")]
    lease: Lease | None = None
    # A port that cannot be found is told by who looks at the port.
    with suppress(HarnessError):
        lease = holder_of(name, entry, inventory, home)
    return [
        *check_health(health),
        *check_lease(name, lease),
        *check_record(name, entry, _record_of(entry, home)),
    ]


def is_held(found: Iterable[Finding]) -> bool:
    """Whether a finding of `check_board_unopened` says that somebody has the board: it is not opened then."""
    return any(finding.text.startswith(HELD) for finding in found)


def is_retired(found: Iterable[Finding]) -> bool:
    """Whether a finding of `check_board_unopened` says that the board is none of the rack: nothing of it is looked at."""
    return any(finding.text.startswith(RETIRED) for finding in found)


HELD = "held by"
RETIRED = "retired"


def check_health(health: Health) -> list[Finding]:
    """Judges a board's entry in the health book."""
    if health.broken is None:
        return []
    text = health.text().removeprefix(f"board {health.board} is ")
    return [wrong(area_of(health.board), text, f"mend what the line says, then {mend_command(health.board)}")]


def check_lease(name: str, lease: Lease | None) -> list[Finding]:
    """Judges a lease: an overdue one hangs, any other is nothing but somebody at work."""
    if lease is None:
        return []
    text = f"{HELD} {lease.text()}; not looked at"
    if not lease.is_overdue:
        return [note(area_of(name), text, "look again when it is free")]
    which = f"kill {lease.pid}" if lease.pid is not None else "end that process"
    return [
        wrong(
            area_of(name),
            text,
            f"its holder hangs: ask {lease.user}, or {which}; the board is free at once then",
        )
    ]


def check_record(name: str, entry: AnyEntry, record: DeviceRecord | None) -> list[Finding]:
    """The device record of the MAC in the entry against the entry."""
    if record is None or record.chip_name == entry.chip:
        return []
    text = f"boards.yaml says {entry.chip}, the device record of {entry.mac} says {record.chip_name}"
    return [wrong(area_of(name), text, "correct 'chip' or 'mac' in its entry")]


def _record_of(entry: AnyEntry, home: Home) -> DeviceRecord | None:
    if not isinstance(entry, PhysicalEntry) or entry.mac is None or not (home.root / "devices").is_dir():
        return None
    try:
        return DeviceRecords(home.devices).read(entry.mac)
    except HarnessError:
        # A damaged record is told by whoever reads the board.
        return None


def check_coordinators(boards: Mapping[str, AnyEntry]) -> list[Finding]:
    """That each labgrid coordinator of the file takes a connection. Nothing is asked of it."""
    found = []
    for address in sorted({_address(entry) for entry in boards.values() if isinstance(entry, LabgridEntry)}):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host or address, int(port or 20408)), CONNECT_TIMEOUT_S).close()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            todo = (
                "start labgrid-coordinator there, open its port, or correct 'coordinator' or LG_COORDINATOR"
            )
            found.append(wrong("labgrid", f"the coordinator at {address} is not reached: {why}", todo))
        else:
            found.append(
                Finding("labgrid", note("", "").level, f"the coordinator at {address} takes connections")
            )
    return found


def _address(entry: LabgridEntry) -> str:
    from harness.attachment import labgrid_wish

    address = str(labgrid_wish(entry).coordinator)
    return address if ":" in address else f"{address}:20408"
