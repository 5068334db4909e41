"""The boards of boards.yaml: each is looked at from outside, and started or reset only where that is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from harness.attachment import labgrid_wish
from harness.board import Board
from harness.doctor.board_facts import BoardFacts, area_of, check_board
from harness.doctor.finding import Finding, good, note, wrong
from harness.doctor.network import check_network, probe_network
from harness.doctor.rack import check_board_unopened, is_held, is_retired
from harness.doctor.serial_ports import Access, complaint_on
from harness.errors import BoardError, HarnessError, InUseError, LabError
from harness.identification import ask_rom
from harness.inventory.discover import Attached
from harness.inventory.entry import (
    AnyEntry,
    EspEmuEntry,
    LabgridEntry,
    PhysicalEntry,
    QemuEntry,
    Rfc2217Entry,
    SerialEntry,
)
from harness.lab import Lab
from harness.links import espemu, qemu
from harness.links.emulator import find_program
from harness.links.find_port import (
    SerialPort,
    port_by_usb_location,
    port_by_usb_serial,
)
from harness.links.labgrid_program import labgrid_python
from harness.links.link import BootMode
from harness.links.qemu import MACHINES
from harness.state_folder import base_folder, state_folder


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What boards are looked at against."""

    attached: Sequence[Attached]
    access: Callable[[str], Access]
    probe: bool
    """Physical boards may be reset to read them."""
    holder: Callable[[str], str | None] = lambda _device: None
    """Who has a port open that is none of `attached`: a link, a pseudo terminal."""


def examine(lab: Lab, name: str, around: Surroundings) -> list[Finding]:
    """Everything that can be said of the board `name`; whatever fails is a finding."""
    entry = lab.inventory.named(name)
    known = check_board_unopened(name, entry, lab.inventory, lab.home)
    if is_retired(known):
        return known
    network = check_network(probe_network(name, entry, base_folder(lab.inventory.path)))
    # Somebody is at work on it: neither its port nor its twin is ours to look at.
    seen = [] if is_held(known) else _examine(lab, name, entry, around)
    return [*known, *seen, *network]


def _examine(lab: Lab, name: str, entry: AnyEntry, around: Surroundings) -> list[Finding]:
    area = area_of(name)
    if isinstance(entry, PhysicalEntry):
        seen = check_from_outside(name, entry, around)
        if not around.probe or any(finding.todo for finding in seen):
            return seen
        return [*seen, *_read(lab, name, entry)]
    missing = missing_emulator(name, entry)
    if missing is not None:
        return [missing]
    state = state_folder(lab.home, lab.inventory.path, name, entry)
    if os.path.lexists(state) and not state.is_dir():
        todo = "name a folder with 'state' in its entry, or take that away"
        return [wrong(area, f"its state {state} is no folder", todo)]
    if not (state / "flash.bin").exists():
        return [note(area, f"{entry.chip} on {entry.link}: its state {state} is made at its first use")]
    return _read(lab, name, entry)


def missing_emulator(name: str, entry: AnyEntry) -> Finding | None:
    """The finding that the program which is to execute this board is not installed; None: it is, or none is needed."""
    try:
        if isinstance(entry, QemuEntry):
            if entry.chip not in MACHINES:
                return wrong(area_of(name), f"QEMU has no {entry.chip}", f"use one of {', '.join(MACHINES)}")
            machine = MACHINES[entry.chip]
            find_program(
                machine.program, given=entry.qemu, variable=machine.variable, install=qemu.INSTALL, board=name
            )
        elif isinstance(entry, EspEmuEntry):
            find_program(
                espemu.PROGRAM,
                given=entry.espemu,
                variable=espemu.VARIABLE,
                install=espemu.INSTALL,
                board=name,
            )
    except LabError as error:
        return wrong(area_of(name), error.message, error.todo or "install it")
    return None


def check_from_outside(name: str, entry: PhysicalEntry, around: Surroundings) -> list[Finding]:
    """What can be said of a physical board without opening its port."""
    area = area_of(name)
    ask = None if around.probe else f"harness doctor --probe reads chip and eFuses; that resets {name}"
    if isinstance(entry, Rfc2217Entry):
        return [] if around.probe else [note(area, f"{entry.chip} at {entry.url}: not opened", ask)]
    if isinstance(entry, LabgridEntry):
        try:
            labgrid_python(entry.client, board=name)
        except LabError as error:
            return [wrong(area, error.message, error.todo or "install it")]
        where = f"{entry.chip} at labgrid place {labgrid_wish(entry).text}"
        return [] if around.probe else [note(area, f"{where}: not taken", ask)]
    assert isinstance(entry, SerialEntry)
    try:
        device, why = _device_of(name, entry, around)
    except HarnessError as error:
        return [wrong(area, error.message, error.todo or "plug the board in, or correct its entry")]
    if device is None:
        return [] if around.probe else [note(area, why, ask)]
    complaint = complaint_on(around.access(device))
    if complaint is not None:
        return [wrong(area, f"port {device} {complaint[0]}", _with_other_names(device, complaint[1], around))]
    there = _attached_at(device, around.attached)
    holder = there.holder if there is not None else around.holder(device)
    if holder is not None:
        return [note(area, f"port {device} is held by {holder}; not opened", "look again when it is free")]
    if there is not None and there.says_its_mac and entry.console == "uart0":
        return [
            wrong(
                area,
                f"{device} is the chip's own USB, where a firmware with 'console: uart0' says nothing",
                "write 'console: usb-serial-jtag' into its entry, or name the port of its UART bridge",
            )
        ]
    found = (
        [] if around.probe else [note(area, f"{entry.chip} at {device}: there, and free; not opened", ask)]
    )
    if there is not None and there.says_its_mac and entry.mac is not None:
        if there.mac != entry.mac:
            return [
                wrong(
                    area,
                    f"boards.yaml says {entry.mac}, the chip at {device} is {there.mac}",
                    "connect the right board, or correct 'mac:' or the port in its entry",
                )
            ]
        found.append(good(area, f"the MAC in its USB serial number is as declared: {there.mac}"))
    return found


def _with_other_names(device: str, todo: str, around: Surroundings) -> str:
    """A lasting name that leads nowhere: the adapter was exchanged; says what is there instead."""
    if not device.startswith("/dev/serial/"):
        return todo
    there = [one.name for one in around.attached if one.may_be_a_board]
    return f"{todo}; there {'is' if len(there) == 1 else 'are'}: {', '.join(there)}" if there else todo


def _device_of(name: str, entry: SerialEntry, around: Surroundings) -> tuple[str | None, str]:
    """Its port as far as that is known without opening one, else why not.

    Raises:
        LabError: nothing of that description is plugged in.
    """
    ports = [one.port for one in around.attached]
    if entry.port is not None:
        if "://" in entry.port:
            return None, f"{entry.chip} at {entry.port}: not opened"
        return entry.port, ""
    if entry.usb_serial is not None:
        return port_by_usb_serial(entry.usb_serial, ports, board=name).device, ""
    if entry.usb_location is not None:
        return port_by_usb_location(entry.usb_location, ports, board=name).device, ""
    by_usb = next(
        (one.port.device for one in around.attached if one.says_its_mac and one.mac == entry.mac), None
    )
    return by_usb, f"{entry.chip} {entry.mac}: to find its port by its MAC, boards must be reset"


def _attached_at(device: str, attached: Sequence[Attached]) -> Attached | None:
    def is_it(port: SerialPort, lasting: str) -> bool:
        return device in (port.device, lasting)

    return next((one for one in attached if is_it(one.port, one.name)), None)


def _read(lab: Lab, name: str, entry: AnyEntry) -> list[Finding]:
    """Opens the board, reads its eFuses through its ROM, and lets it run again."""
    area = area_of(name)
    try:
        return check_board(_facts(lab.open(name), entry))
    except HarnessError as error:
        if isinstance(error, InUseError):
            return [note(area, f"{error.message}; not looked at", error.todo)]
        text, todo = error.message, error.todo
        if isinstance(error, BoardError) and todo is None:
            todo = "check cable, power, 'port' and 'chip'; hold BOOT and press EN by hand where there is no auto-reset"
        return [wrong(area, text, todo or "correct its entry, or mend what the line says")]


def _facts(board: Board, entry: AnyEntry) -> BoardFacts:
    try:
        state = ask_rom(board)
    finally:
        # The port may be the very thing that failed, which is what is told then.
        with suppress(LabError):
            board.reset(BootMode.RUN)
    mac = state.mac or getattr(board.link, "mac", None)
    record = None
    known_as = mac or entry.mac
    if known_as is not None:
        record = board.records.read(known_as)
    return BoardFacts(board.name, entry, board.link.description, state, mac.lower() if mac else None, record)
