"""The network entry of a board: password, ports and addresses, as far as this machine can tell without the board."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from harness.connection import LOOPBACK, bind_of, wifi_of
from harness.doctor.board_facts import area_of
from harness.doctor.finding import Finding, good, note, wrong
from harness.errors import HarnessError, LabError
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.network.interface import is_elsewhere
from harness.network.update_path import ENTRY_HINT
from harness.ota.listening import bind_first_free, is_loopback


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What was found of one board's network entry."""

    name: str
    entry: AnyEntry
    password: HarnessError | None = None
    """Why the Wi-Fi password cannot be read."""
    open_file: Path | None = None
    """The password's file, where others may read it."""
    listening: LabError | None = None
    """Why its server cannot listen there now."""
    address_is_elsewhere: bool = False


def probe_network(name: str, entry: AnyEntry, folder: Path) -> NetworkFacts:
    """Looks at the entry; `folder` is that of boards.yaml. A port is bound for a moment, nothing is sent."""
    wifi = wifi_of(entry, folder)
    password, open_file = None, None
    if wifi is not None:
        try:
            wifi.password()
        except HarnessError as error:
            password = error
        if wifi.password_file is not None and _others_may_read(wifi.password_file):
            open_file = wifi.password_file
    listening = None
    try:
        bind_first_free(bind_of(entry), entry.network.port.numbers).close()
    except LabError as error:
        listening = error
    address = entry.network.address
    return NetworkFacts(
        name, entry, password, open_file, listening, address is not None and is_elsewhere(address)
    )


def check_network(facts: NetworkFacts) -> list[Finding]:
    """Judges what was found. Of a virtual board whose entry says nothing about a network there is nothing to say."""
    network, area = facts.entry.network, area_of(facts.name)
    physical = isinstance(facts.entry, PhysicalEntry)
    if not physical and not network.model_fields_set:
        return []
    found = [*_password(facts, area), *_listening(facts, area)]
    if facts.address_is_elsewhere:
        text = f"its updates come from {network.address}, which is no address of this machine"
        found.append(
            note(area, text, "correct 'address' in its network entry, unless something forwards it here")
        )
    if physical and network.ssid is None:
        text = "its entry names no Wi-Fi network: firmware with Wi-Fi cannot fetch updates"
        found.append(note(area, text, ENTRY_HINT))
    elif not found:
        joins = f"joins Wi-Fi network '{network.ssid}', " if network.ssid else ""
        text = f"{joins}OTA server on {bind_of(facts.entry)}, port {network.port}: free"
        found.append(good(area, text))
    return found


def _password(facts: NetworkFacts, area: str) -> list[Finding]:
    if facts.password is not None:
        todo = facts.password.todo or "write it there"
        return [wrong(area, facts.password.message, todo)]
    if facts.open_file is not None:
        text = f"others may read the Wi-Fi password in {facts.open_file}"
        return [note(area, text, f"chmod 600 {facts.open_file}")]
    return []


def _listening(facts: NetworkFacts, area: str) -> list[Finding]:
    network = facts.entry.network
    if facts.listening is not None:
        todo = facts.listening.todo or "correct 'bind' and 'port' in its network entry"
        return [wrong(area, facts.listening.message, todo)]
    physical = isinstance(facts.entry, PhysicalEntry)
    if physical and network.address is None and is_loopback(network.bind or ""):
        text = f"its OTA server would listen on {network.bind}, where no board reaches it"
        return [wrong(area, text, f"take 'bind' out of its network entry ({LOOPBACK} is for virtual boards)")]
    return []


def _others_may_read(file: Path) -> bool:
    try:
        return os.name == "posix" and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False
