"""Where a board hangs, as far as its entry says it: no chip is asked and no port opened."""

from __future__ import annotations

import os

from harness.inventory.entry import LabgridEntry, SerialEntry
from harness.links.find_port import port_by_usb_location, port_by_usb_serial, serial_ports
from harness.links.labgrid_lease import DEFAULT_COORDINATOR, PlaceWish


def named_port(name: str, entry: SerialEntry) -> str | None:
    """The port of the serial board `name`, by path, USB serial number or USB location; None: its entry has a MAC alone.

    Raises:
        LabError: nothing of that description is plugged in.
    """
    if entry.port:
        return entry.port
    if entry.usb_serial:
        return port_by_usb_serial(entry.usb_serial, serial_ports(), board=name).device
    if entry.usb_location:
        return port_by_usb_location(entry.usb_location, serial_ports(), board=name).device
    return None


def labgrid_wish(entry: LabgridEntry) -> PlaceWish:
    """What a coordinator is asked for, and which one."""
    return PlaceWish(
        entry.coordinator or os.environ.get("LG_COORDINATOR") or DEFAULT_COORDINATOR,
        entry.place,
        dict(entry.filter or {}),
        entry.reserve_timeout_s,
        entry.grace_s,
        entry.serial_port,
        entry.power_port,
    )
