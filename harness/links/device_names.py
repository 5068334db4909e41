"""What tells one device from all others, whatever path, link, URL or entry leads to it.

A serial port is the socket that it is plugged into (USB bus, port and interface, from sysfs) and not its device node,
which goes from board to board; a chip on its own USB is also its MAC. What is no USB port is its device number. A remote
port is address and TCP port, whichever protocol is spoken there and however the host is called.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import sys
from pathlib import Path
from urllib.parse import urlsplit

from serial.tools import list_ports

from harness.links.find_port import ESPRESSIF_VENDOR_ID, LastingPort, serial_ports

LOCAL = "localhost"
"""Every address of this machine."""

_SYS = Path("/sys")
_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_USB_INTERFACE = re.compile(r"\d+-[\d.]+:\d+\.\d+")


def device_names(port: str) -> tuple[str, ...]:
    """Names of the device behind `port`: a path, a COM port, or a URL of pyserial. Nothing is opened.

    Two ports that are one device have a name in common; two devices have none.
    """
    scheme, separator, rest = port.partition("://")
    if not separator:
        return _names_of_port(port)
    if scheme in ("spy", "alt"):
        return device_names(rest.partition("?")[0])
    if scheme == "hwgrep":
        pattern = rest.partition("&")[0]
        found = next(iter(list_ports.grep(pattern)), None)
        return (port,) if found is None else device_names(str(found.device))
    return _names_of_url(port)


def mac_name(mac: str) -> str:
    """The name that a chip with this base MAC has on every wire."""
    return f"mac-{mac.lower().replace(':', '-')}"


def labgrid_name(coordinator: str, place: str) -> str:
    """The name of a place, as this machine's boards.yaml call its coordinator."""
    return f"labgrid-{coordinator}-{place}"


def _names_of_url(url: str) -> tuple[str, ...]:
    try:
        parts = urlsplit(url)
        host, number = parts.hostname, parts.port
    except ValueError:
        host = number = None
    if host is None or number is None:
        return (url,)
    return tuple(sorted({f"tcp-{place}-{number}" for place in _places(host)}))


def _places(host: str) -> set[str]:
    """Every address of `host`, those of this machine as one; its name when nothing knows it."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return {host.lower().rstrip(".")}
    return {LOCAL if _is_here(family, address[0]) else str(address[0]) for family, _, _, _, address in found}


def _is_here(family: socket.AddressFamily, address: object) -> bool:
    """Only an address of this machine can be listened on."""
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((str(address), 0))
        return True
    return False


def _names_of_port(port: str) -> tuple[str, ...]:
    if os.name == "nt":
        name = re.sub(r"^\\\\\.\\", "", port).upper()
        return (f"port-{name}", *_told_mac(port))
    path = os.path.realpath(port)
    if sys.platform == "darwin":
        # One device has two nodes with different numbers: tty.X waits for a carrier, cu.X does not.
        return (f"port-{re.sub('^/dev/tty[.]', '/dev/cu.', path)}", *_told_mac(port))
    try:
        status = Path(path).stat()
    except OSError:
        return (f"port-{path}",)
    if not stat.S_ISCHR(status.st_mode):
        return (f"port-{path}",)
    number = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return names_in_sysfs(*number) or (f"char-{number[0]}-{number[1]}",)


def _told_mac(port: str) -> tuple[str, ...]:
    mac = LastingPort(port, serial_ports()).mac
    return (mac_name(mac),) if mac is not None else ()


def names_in_sysfs(major: int, minor: int, *, sys: Path = _SYS) -> tuple[str, ...]:
    """Names of the USB serial port with this device number, from `sys`; none when it is no USB port."""
    here = Path(os.path.realpath(sys / "dev" / "char" / f"{major}:{minor}"))
    interface = next((folder for folder in here.parents if _USB_INTERFACE.fullmatch(folder.name)), None)
    if interface is None:
        return ()
    # An adapter may have several ports behind one interface.
    several = _text(interface / here.name / "port_number")
    socket_name = f"usb-{interface.name}" + (f"-{several}" if several not in (None, "0") else "")
    mac = (_text(interface.parent / "serial") or "").lower()
    vendor = _text(interface.parent / "idVendor")
    if vendor == f"{ESPRESSIF_VENDOR_ID:04x}" and _MAC.fullmatch(mac):
        return (mac_name(mac), socket_name)
    return (socket_name,)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
