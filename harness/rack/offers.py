"""What a board can do, as far as its entry and the command line tell: nothing is opened for it.

`harness.linked_board.LinkedBoard.capabilities` says the same of an open board, and what only that one knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from harness.inventory.entry import AnyEntry, LabgridEntry, PhysicalEntry, QemuEntry, TwinEntry
from harness.links.espemu import EspEmuLink
from harness.links.labgrid import LabgridLink
from harness.links.link import Link
from harness.links.qemu import QemuLink
from harness.links.rfc2217 import Rfc2217Link
from harness.links.serial_port import SerialLink
from harness.links.twin import TwinLink

NETWORK = "network"
"""Its companion firmware takes updates over a network, not over the UART alone."""
BURNABLE = "burnable"
"""This run may burn its eFuses: it is virtual, or named with ``--burn`` and its entry allows it."""
POWER = "power"

LEFT_TO_THE_RUN = frozenset({"anti-rollback"})
"""Capabilities of the firmware that a board gets: no entry tells them."""

_LINKS: Mapping[str, type[Link]] = {
    "twin": TwinLink,
    "qemu": QemuLink,
    "espemu": EspEmuLink,
    "rfc2217": Rfc2217Link,
    "labgrid": LabgridLink,
    # A chip's own USB offers the same.
    "serial": SerialLink,
}


def offers(name: str, entry: AnyEntry, burn: Collection[str]) -> frozenset[str]:
    """What the board `name` can do before anything was done to it; `burn`: boards named with ``--burn``."""
    more = offers_besides_link(name, entry, burn)
    if isinstance(entry, LabgridEntry) or (isinstance(entry, PhysicalEntry) and entry.power is not None):
        # What a place of labgrid lacks shows when it is held; then a test that needs it is skipped.
        more |= {POWER}
    return _LINKS[entry.link].capabilities | more


def offers_besides_link(name: str, entry: AnyEntry, burn: Collection[str]) -> frozenset[str]:
    """What its entry and this run add to what its link and its power can."""
    more = set()
    if isinstance(entry, (TwinEntry, QemuEntry)) or entry.network.ssid is not None:
        more.add(NETWORK)
    if not isinstance(entry, PhysicalEntry) or (
        name in burn and entry.burn_up_to is not None and entry.mac is not None
    ):
        more.add(BURNABLE)
    return frozenset(more)
