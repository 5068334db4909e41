"""From an entry of boards.yaml to the link, the power, the network and the key that it names."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness.attachment import labgrid_wish, named_port
from harness.chips import chip_named
from harness.errors import BoardError, LabError
from harness.home import Home
from harness.inventory.entry import (
    AnyEntry,
    CommandEntry,
    LabgridEntry,
    PhysicalEntry,
    QemuEntry,
    Rfc2217Entry,
    SerialEntry,
    TwinEntry,
    UhubctlEntry,
    VirtualEntry,
)
from harness.inventory.inventory import Inventory
from harness.links.device_names import device_names, labgrid_name, mac_name
from harness.links.environment import child_environment
from harness.links.espemu import EspEmu, EspEmuLink
from harness.links.find_port import (
    LastingPort,
    port_by_mac,
    serial_ports,
)
from harness.links.labgrid import LabgridLink, labgrid_link
from harness.links.labgrid_lease import PlaceLease
from harness.links.labgrid_program import labgrid_python
from harness.links.link import BootMode, Link
from harness.links.qemu import Qemu, QemuLink
from harness.links.rfc2217 import Rfc2217Link
from harness.links.serial_port import SerialLink
from harness.links.twin import TwinLink
from harness.links.usb_serial_jtag import UsbSerialJtagLink, place_of
from harness.locks import BoardLock, lock_files
from harness.network.credentials import WifiNetwork
from harness.network.update_path import UpdatePath
from harness.power import Power
from harness.power.command import CommandPower
from harness.power.hub_guard import HubGuard, hub_and_port
from harness.power.labgrid import LabgridPower
from harness.power.uhubctl import UhubctlPower
from harness.power.virtual import EmulatorPower, TwinPower
from harness.provision.rom import RomSession
from harness.vault.key_source import CommandSource, FileSource, KeySource

LOOPBACK = "127.0.0.1"
ALL_INTERFACES = "0.0.0.0"  # noqa: S104 - what it serves has secret paths, and is enciphered where flash is


def virtual_link(name: str, entry: VirtualEntry, state: Path, home: Home) -> Link:
    """The twin or the emulator on the state folder `state`, started."""
    if isinstance(entry, TwinEntry):
        return TwinLink(chip_named(entry.chip).name, state, home.build_store, mac=entry.mac, board=name)
    arguments = tuple(entry.arguments)
    size = entry.flash_bytes
    if isinstance(entry, QemuEntry):
        qemu = Qemu(entry.qemu, watchdog=entry.watchdog, arguments=arguments)
        return QemuLink(entry.chip, state, qemu, mac=entry.mac, flash_bytes=size, baud=entry.baud, board=name)
    espemu = EspEmu(entry.espemu, arguments)
    return EspEmuLink(entry.chip, state, espemu, mac=entry.mac, flash_bytes=size, baud=entry.baud, board=name)


def physical_port(name: str, entry: SerialEntry | Rfc2217Entry, inventory: Inventory) -> str:
    """Where the board is: the URL, or the port that its entry names, by path or in another way.

    Raises:
        LabError: nothing of that description is plugged in.
    """
    return entry.url if isinstance(entry, Rfc2217Entry) else port_of(name, entry, inventory)


def names_of(entry: SerialEntry | Rfc2217Entry, port: str) -> tuple[str, ...]:
    """What tells the board at `port` from all others of this machine."""
    return (*device_names(port), *((mac_name(entry.mac),) if entry.mac is not None else ()))


def physical_link(name: str, entry: SerialEntry | Rfc2217Entry, port: str) -> Link:
    """The link to the device at `port`, as `physical_port` gave it; it is opened when first used."""
    if isinstance(entry, Rfc2217Entry):
        return Rfc2217Link(port, baud=entry.baud, console_baud=entry.console_baud, board=name)
    place = place_of(port)
    if _on_own_usb(entry, place):
        return UsbSerialJtagLink(place, name=port, baud=entry.baud, board=name)
    # An adapter that hangs on the supply that is cut comes back, too.
    lasting = place if isinstance(entry.power, UhubctlEntry) else None
    return SerialLink(port, baud=entry.baud, console_baud=entry.console_baud, board=name, place=lasting)


def labgrid_lease(name: str, entry: LabgridEntry, home: Home, waiting: Callable[[str], None]) -> PlaceLease:
    """The lease on the place that the entry names; nothing is asked for yet.

    Raises:
        LabError: labgrid is not installed.
    """
    python = labgrid_python(entry.client, board=name)
    return PlaceLease(labgrid_wish(entry), python, home.folder("labgrid"), board=name, waiting=waiting)


def lent_link(name: str, entry: LabgridEntry, lease: PlaceLease) -> LabgridLink:
    """The link to the board of the place that `lease` holds; it is opened when first used."""
    return labgrid_link(lease, baud=entry.baud, console_baud=entry.console_baud, board=name)


def lent_names(entry: LabgridEntry, link: LabgridLink) -> tuple[str, ...]:
    """What tells the board of a place from all others of this machine: it may have another entry, by another link."""
    lease = link.lease
    names = (labgrid_name(lease.wish.coordinator, lease.place), *device_names(link.where.url))
    return (*names, *((mac_name(entry.mac),) if entry.mac is not None else ()))


def _on_own_usb(entry: SerialEntry, place: LastingPort) -> bool:
    """Whether the wire is the chip's own USB: by its entry, or because the port says so."""
    return entry.console == "usb-serial-jtag" or place.mac is not None


def port_of(name: str, entry: SerialEntry, inventory: Inventory) -> str:
    """The port of a serial board, by path, USB serial number, USB location, or the MAC of its chip.

    Raises:
        LabError: nothing of that description is plugged in.
    """
    named = named_port(name, entry)
    if named is not None:
        return named
    assert entry.mac is not None
    others = (other for other_name, other in inventory.boards.items() if other_name != name)
    claimed = [other.port for other in others if isinstance(other, SerialEntry) and other.port]
    return port_by_mac(
        entry.mac,
        serial_ports(),
        claimed=claimed,
        board=name,
        guard=lambda device: BoardLock(lock_files(device_names(device)), board=name, purpose="search by MAC"),
        probe=lambda device: _mac_at(device, entry),
    ).device


def link_at(device: str) -> Link:
    """The link that fits the port `device`, which no entry describes: a chip's own USB, or a bridge."""
    place = place_of(device)
    return UsbSerialJtagLink(place, name=device) if place.mac is not None else SerialLink(device)


def _mac_at(device: str, entry: SerialEntry) -> str | None:
    """The MAC of the chip at `device`, which is reset for it; None when no such chip answers."""
    link = link_at(device)
    try:
        link.reset(BootMode.DOWNLOAD)
        try:
            with RomSession(link.port, chip_named(entry.chip)) as session:
                return session.state().mac
        except BoardError:
            return None
        finally:
            link.reset(BootMode.RUN)
    finally:
        link.close()


def wifi_of(entry: AnyEntry, folder: Path) -> WifiNetwork | None:
    """The Wi-Fi network that the entry names; `folder` is what a relative `password_file` is relative to."""
    network = entry.network
    if network.ssid is None:
        return None
    file = (folder / Path(network.password_file).expanduser()).absolute() if network.password_file else None
    return WifiNetwork(network.ssid, file, network.password_env)


def bind_of(entry: AnyEntry) -> str:
    """The address that the board's OTA server listens on, unless its entry says another.

    A virtual board is on this machine: loopback. A physical one is somewhere in a network, and where is only known
    once it has an address: all interfaces.
    """
    return entry.network.bind or (ALL_INTERFACES if isinstance(entry, PhysicalEntry) else LOOPBACK)


def network_of(name: str, entry: AnyEntry, link: Link, folder: Path) -> UpdatePath:
    """How the board reaches its OTA server."""
    network, wifi = entry.network, wifi_of(entry, folder)
    return UpdatePath(name, bind_of(entry), network.port, network.address or link.host_address, wifi)


def key_source_of(entry: AnyEntry, folder: Path) -> KeySource | None:
    """Where a new flash key of the board comes from; None: it is made here. `folder` is that of boards.yaml."""
    named = entry.flash_key
    if named is None:
        return None
    if named.file is not None:
        return FileSource(named.file, folder.absolute())
    assert named.command is not None
    environment = child_environment(named.variables)
    return CommandSource(tuple(named.command), environment, folder.absolute(), named.timeout_s)


def power_of(entry: AnyEntry, link: Link, name: str) -> Power | None:
    """What switches the board's supply; None when nothing does."""
    if isinstance(link, TwinLink):
        return TwinPower(link)
    if isinstance(link, (QemuLink, EspEmuLink)):
        return EmulatorPower(link)
    power = getattr(entry, "power", None)
    if isinstance(power, CommandEntry):
        return CommandPower(
            power.off, power.on, timeout_s=power.timeout_s, variables=power.variables, board=name
        )
    if isinstance(power, UhubctlEntry):
        hub, port = (power.hub, power.port) if power.hub and power.port else _plugged_in(link, name)
        return UhubctlPower(hub, port, HubGuard(), program=power.program, board=name)
    if isinstance(link, LabgridLink) and link.lease.power is not None:
        return LabgridPower(link.lease)
    return None


def burn_guard(link: Link, name: str) -> AbstractContextManager[None]:
    """Held while eFuses of a board are burned: nobody on this machine cuts the USB hub that it hangs on."""
    found = _hub_of(link) if link.physical else None
    return HubGuard().burning(found[0], name) if found is not None else nullcontext()


def _hub_of(link: Link) -> tuple[str, int] | None:
    """USB hub and port of what `link` is plugged in at; None when that is no hub's."""
    path = os.path.realpath(link.description)
    port = next((p for p in serial_ports() if os.path.realpath(p.device) == path), None)
    return hub_and_port(port.usb_location or "") if port else None


def _plugged_in(link: Link, name: str) -> tuple[str, int]:
    """USB hub and port of a serial board, from where its own port is."""
    found = _hub_of(link)
    if found is None:
        raise LabError(
            f"{link.description} is at no USB hub", board=name, todo="give 'hub' and 'port' under 'power'"
        )
    return found
