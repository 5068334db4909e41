"""The udev rule that gives this user the serial ports of boards, and keeps other programs away from them."""

from __future__ import annotations

from collections.abc import Iterable

from harness.inventory.discover import BRIDGES

FILE = "/etc/udev/rules.d/60-esp32-boards.rules"
RELOAD = "sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=tty"
INSTALL = f"harness doctor --udev-rule | sudo tee {FILE}, then {RELOAD}"


def udev_rules(vendors: Iterable[int] = BRIDGES, *, group: str = "dialout") -> str:
    """The file: only ports of these USB vendors, not every terminal of the machine."""
    lines = [
        "# Serial ports of ESP32 boards: open to the group, and none of ModemManager's business.",
        f"# Install: {INSTALL}",
    ]
    for vendor in vendors:
        match = f'SUBSYSTEM=="tty", SUBSYSTEMS=="usb", ATTRS{{idVendor}}=="{vendor:04x}"'
        give = f'GROUP="{group}", MODE="0660", TAG+="uaccess", ENV{{ID_MM_DEVICE_IGNORE}}="1"'
        lines += [f"# {BRIDGES.get(vendor, 'another vendor')}", f"{match}, {give}"]
    return "\n".join(lines) + "\n"
