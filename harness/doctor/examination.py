"""The whole examination: the machine, its ports, the state folder, the vault, every board."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.doctor.boards import Surroundings, examine
from harness.doctor.finding import Finding, Level, good, note, wrong
from harness.doctor.host import HostFacts, check_host, probe_host
from harness.doctor.machine import check_key_file, check_machine, probe_machine
from harness.doctor.programs import check_hubs, check_qemu, probe_hubs, probe_qemu
from harness.doctor.rack import check_coordinators, check_names_apart
from harness.doctor.serial_ports import check_ports, probe_access, probe_services
from harness.doctor.state_folder import (
    artefact_bytes,
    check_artefacts,
    check_home,
    check_vault,
    probe_home,
    probe_vault,
)
from harness.errors import HarnessError, UsageError
from harness.history.pruning import Limits
from harness.home import Home
from harness.inventory.discover import look_around
from harness.inventory.entry import AnyEntry, PhysicalEntry, UhubctlEntry
from harness.inventory.inventory import Inventory, read_inventory
from harness.lab import Lab
from harness.links.find_port import SerialPort, port_holder, serial_ports
from harness.vault.secret import Secret


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be looked at, and how closely."""

    home: Home
    boards_file: Path | None
    only: tuple[str, ...] = ()
    """Boards by name or tag; empty: all."""
    probe: bool = False
    secret: Callable[[Path], Secret] | None = None
    """Opens the vault; None: it is looked at from outside."""


def examination(
    request: Request,
    *,
    ports: Callable[[], Sequence[SerialPort]] = serial_ports,
    holder: Callable[[str], str | None] = port_holder,
) -> Iterator[Finding]:
    """Yields findings as they are made, so that a person sees them while boards are being read.

    Raises:
        UsageError: the file that was named does not exist, or a board that was named is not in it.
    """
    inventory, complaint = _inventory(request.boards_file)
    chosen = inventory.select(request.only) if request.only else dict(inventory.boards)
    entries = list(inventory.boards.values())
    # Without a file, tests run on throwaway twins.
    links = {entry.link for entry in entries} if entries else {"twin"}
    attached = look_around(ports(), holder=holder)
    power_by_hub = any(isinstance(getattr(entry, "power", None), UhubctlEntry) for entry in entries)
    folders = (request.home.root, Path.cwd(), Path(tempfile.gettempdir()))
    host, machine = probe_host(folders), probe_machine()
    yield from check_host(host, links, power_by_hub=power_by_hub)
    yield from _programs(host, entries, power_by_hub=power_by_hub)
    yield from check_machine(machine)
    yield from check_ports(attached, probe_access, services=probe_services())
    home = check_home(probe_home(request.home))
    yield from home
    yield from _artefacts(request.home)
    burns = any(isinstance(entry, PhysicalEntry) and entry.burn_up_to for entry in entries)
    yield from check_key_file(machine)
    yield from check_vault(probe_vault(request.home.vault, request.secret), burns=burns)
    yield from complaint
    if not complaint:
        yield from _file(inventory)
        yield from check_names_apart(inventory.boards)
        yield from check_coordinators(chosen)
    if all(each.level is not Level.WRONG for each in home):
        around = Surroundings(attached, probe_access, request.probe, holder)
        yield from _boards(request, inventory, chosen, around)
    elif chosen:
        yield note("boards", "the boards were not looked at: the state folder must be usable first")


def _artefacts(home: Home) -> list[Finding]:
    try:
        return check_artefacts(artefact_bytes(home), Limits.of_environment())
    except UsageError as error:
        return [wrong("state", error.message, error.todo or "correct it")]


def _programs(host: HostFacts, entries: Sequence[AnyEntry], *, power_by_hub: bool) -> Iterator[Finding]:
    """What the programs that were found say of themselves."""
    found = {name: tool.found for name, tool in host.qemu.items() if tool.found is not None}
    chips = frozenset(entry.chip for entry in entries if entry.link == "qemu")
    for facts in probe_qemu(found):
        yield from check_qemu(facts, chips)
    if host.uhubctl.found is not None:
        yield from check_hubs(probe_hubs(host.uhubctl.found), needed=power_by_hub)


def _inventory(path: Path | None) -> tuple[Inventory, list[Finding]]:
    try:
        return read_inventory(path), []
    except UsageError as error:
        if path is not None and not os.path.lexists(path):
            raise
        return Inventory(None, {}), [wrong("boards", error.message, error.todo or "mend boards.yaml")]


def _file(inventory: Inventory) -> list[Finding]:
    if inventory.path is None:
        return [
            note(
                "boards",
                "no boards.yaml here: tests and runs use throwaway twins",
                "harness init writes one from what is plugged in",
            )
        ]
    count = len(inventory.boards)
    return [good("boards", f"{inventory.path}: {count} board{'' if count == 1 else 's'}")]


def _boards(
    request: Request,
    inventory: Inventory,
    chosen: dict[str, AnyEntry],
    around: Surroundings,
) -> Iterator[Finding]:
    # What a look leaves behind is of no use to anybody; the board's own logs are those of its runs.
    with tempfile.TemporaryDirectory(prefix="harness-doctor-") as out:
        for name in chosen:
            with Lab(request.home, inventory, Path(out), _no_secret, purpose="harness doctor") as lab:
                yield from examine(lab, name, around)


def _no_secret(place: Path) -> Secret:
    raise HarnessError(f"the doctor needs no vault to read a board ({place})")
