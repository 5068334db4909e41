"""`harness boards`: what boards.yaml has, and what is known of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.cli.options import boards_option, json_option
from harness.connection import labgrid_wish
from harness.home import Home
from harness.inventory.entry import AnyEntry, LabgridEntry, PhysicalEntry, Rfc2217Entry, SerialEntry
from harness.inventory.inventory import read_inventory
from harness.lab import state_folder
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.vault.key_ref import DO_NOT_SHIP


@click.command(short_help="List the boards of boards.yaml.")
@boards_option
@json_option
def boards(boards_file: Path | None, as_json: bool) -> None:
    """List the boards of boards.yaml: chip, link, profile, consent to burn. Opens no port."""
    inventory = read_inventory(boards_file)
    home = Home.of_user()
    rows = [_row(name, entry, home, inventory.path) for name, entry in inventory.boards.items()]
    if as_json:
        click.echo(json.dumps({"format": 1, "boards": rows}, indent=1))
        return
    if not rows:
        click.echo(
            "There is no boards.yaml here, or it names no board: commands without --board use throwaway twins."
        )
        return
    columns = ("board", "chip", "link", "profile", "ship", "burn up to", "tags")
    table = [columns, *[tuple(str(row[column]) for column in columns) for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for number, line in enumerate(table):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)


def _row(name: str, entry: AnyEntry, home: Home, path: Path | None) -> dict[str, Any]:
    folder = (
        home.devices
        if isinstance(entry, PhysicalEntry)
        else state_folder(home, path, name, entry) / "devices"
    )
    known = [record for record in DeviceRecords(folder).all() if _is_of(record.mac, entry)]
    profile = f"{known[0].profile.value}, lock {known[0].lock.value}" if known else "unknown"
    return {
        "board": name,
        "chip": entry.chip,
        "link": f"{entry.link} {_place(entry)}".strip(),
        "profile": profile,
        "ship": _ship(known),
        "burn up to": (entry.burn_up_to or "never") if isinstance(entry, PhysicalEntry) else "virtual",
        "tags": ", ".join(entry.tags),
        "mac": known[0].mac if known else entry.mac,
    }


def _ship(known: list[DeviceRecord]) -> str:
    """The mark of a device whose key is still only here; nothing is said of one that nothing is known of."""
    if not known:
        return ""
    return "" if known[0].shippable else f"{DO_NOT_SHIP} (key {known[0].key_state})"


def _is_of(mac: str, entry: AnyEntry) -> bool:
    return not isinstance(entry, PhysicalEntry) or mac == entry.mac


def _place(entry: AnyEntry) -> str:
    """Where a physical board is, in the word that its entry uses."""
    if isinstance(entry, Rfc2217Entry):
        return entry.url
    if isinstance(entry, LabgridEntry):
        return labgrid_wish(entry).text
    if isinstance(entry, SerialEntry):
        return entry.port or entry.usb_serial or entry.usb_location or f"with MAC {entry.mac}"
    return ""
