"""Which serial port a board is at: by USB serial number, by USB location, or by the MAC of its chip.

A path such as ``/dev/ttyUSB0`` goes to whichever board was plugged in first; these ways do not. The first two only
read what the operating system knows. A MAC has to be asked of the chip, which resets it: such a search opens
only ports that nobody holds and that no other board's entry names.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from serial.tools import list_ports

from harness.errors import LabError, LinkError

ESPRESSIF_VENDOR_ID = 0x303A
"""USB vendor of chips with USB-Serial-JTAG; their USB serial number is the base MAC."""

_UUCP_LOCKS = (Path("/var/lock"), Path("/run/lock"))

Probe = Callable[[str], str | None]
"""Resets the chip at a port into download mode and back; gives its MAC, or None when no chip answers."""

Guard = Callable[[str], AbstractContextManager[object]]
"""Holds the harness's own lock of a port; raises LabError when another run has it."""


@dataclass(frozen=True, slots=True)
class SerialPort:
    """What the operating system knows of one serial port."""

    device: str
    """Path, or name as ``COM5``."""
    usb_serial: str | None = None
    usb_location: str | None = None
    """``BUS-PORT.PORT…``, with ``:CONFIGURATION.INTERFACE`` on Linux."""
    vendor_id: int | None = None
    """USB vendor; None: not a USB port."""
    description: str = ""

    def __str__(self) -> str:
        known = [
            f"serial {self.usb_serial}" if self.usb_serial else "",
            f"location {self.usb_location}" if self.usb_location else "",
        ]
        return f"{self.device} ({', '.join(filter(None, known)) or 'not on USB'})"


def serial_ports() -> tuple[SerialPort, ...]:
    """The serial ports of this machine, by name. Nothing is opened."""
    return tuple(
        SerialPort(
            device=str(port.device),
            usb_serial=port.serial_number or None,
            usb_location=port.location or None,
            vendor_id=port.vid,
            description=str(port.description or ""),
        )
        for port in sorted(list_ports.comports(), key=lambda port: str(port.device))
    )


def port_by_usb_serial(number: str, ports: Sequence[SerialPort], *, board: str | None = None) -> SerialPort:
    """The port whose USB serial number is `number`, capital letters or not.

    Raises:
        LabError: there is none, or more than one (an adapter with several ports); lists what there is.
    """
    found = [port for port in ports if (port.usb_serial or "").lower() == number.lower()]
    return _only(found, ports, f"USB serial number {number}", board)


def port_by_usb_location(
    location: str, ports: Sequence[SerialPort], *, board: str | None = None
) -> SerialPort:
    """The port at `location`: ``1-1.4``, or ``1-1.4:1.0`` where an adapter has several ports.

    Raises:
        LabError: as `port_by_usb_serial`.
    """
    found = [port for port in ports if _is_at(port.usb_location, location)]
    return _only(found, ports, f"USB location {location}", board)


class LastingPort:
    """A serial port that is found again when its device node comes back under another name.

    It is known by USB serial number and location, else (no USB port) by its path, which may be a link that udev keeps.
    """

    def __init__(self, name: str, ports: Sequence[SerialPort]) -> None:
        self._name = name
        port = next((port for port in ports if _real(port.device) == _real(name)), None)
        self.usb_serial = port.usb_serial if port is not None else None
        self.usb_location = port.usb_location if port is not None else None
        self.mac = _mac_in_usb(port) if port is not None else None
        """The chip's base MAC, which its own USB has as serial number; None behind a bridge."""

    def device(self, ports: Callable[[], Sequence[SerialPort]] = serial_ports) -> str | None:
        """Its device node now; None while there is none."""
        if self.usb_serial is None and self.usb_location is None:
            return self._name if Path(self._name).exists() else None
        found = [port for port in ports() if self.usb_serial is None or port.usb_serial == self.usb_serial]
        if self.usb_serial is None or len(found) > 1:
            # Cheap adapters all have the same number: then the socket decides.
            found = [port for port in found if port.usb_location == self.usb_location]
        return found[0].device if found else None


def port_by_mac(
    mac: str,
    ports: Sequence[SerialPort],
    *,
    probe: Probe,
    guard: Guard | None = None,
    claimed: Collection[str] = (),
    holder: Callable[[str], str | None] | None = None,
    board: str | None = None,
) -> SerialPort:
    """The port whose chip has the base MAC `mac` (``aa:bb:cc:dd:ee:ff``).

    Chips with USB-Serial-JTAG say it without being opened. Of the others only USB ports are asked, by `probe`,
    and none that is held (`holder`, `guard`) or `claimed` by another board's entry.

    Raises:
        LabError: no port has it; says of each port why not.
    """
    wanted = mac.lower().replace("-", ":")
    for port in ports:
        if _mac_in_usb(port) == wanted:
            return port
    who = holder or port_holder
    reasons = []
    for port in ports:
        reason = _reason_to_pass(port, claimed, who)
        if reason is None:
            found = _asked(port, probe, guard or nullcontext)
            if found.mac == wanted:
                return port
            reason = found.why_not
        reasons.append(f"{port.device}: {reason}")
    seen = "; ".join(reasons) or "there is no serial port at all"
    raise LinkError(
        f"no port has a chip with MAC {wanted} ({seen})",
        board=board,
        todo="plug the board in, free its port, or name the port in its entry ('port:')",
    )


@dataclass(frozen=True, slots=True)
class _Found:
    mac: str | None
    why_not: str


def _asked(port: SerialPort, probe: Probe, guard: Guard) -> _Found:
    try:
        with guard(port.device):
            mac = probe(port.device)
    except LabError as error:
        return _Found(None, error.message)
    if mac is None:
        return _Found(None, "no chip answers")
    return _Found(mac.lower(), f"its chip is {mac.lower()}")


def _reason_to_pass(
    port: SerialPort, claimed: Collection[str], holder: Callable[[str], str | None]
) -> str | None:
    """Why `port` must not be opened in a search; None: it may be."""
    if port.vendor_id is None:
        return "not a USB port, not opened"
    other = _mac_in_usb(port)
    if other is not None:
        return f"its chip is {other}"
    if _real(port.device) in {_real(name) for name in claimed}:
        return "belongs to another board's entry, not opened"
    held_by = holder(port.device)
    return f"held by {held_by}, not opened" if held_by else None


def _mac_in_usb(port: SerialPort) -> str | None:
    """The MAC that a chip with USB-Serial-JTAG gives as its USB serial number."""
    number = (port.usb_serial or "").lower()
    if port.vendor_id == ESPRESSIF_VENDOR_ID and re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", number):
        return number
    return None


def _is_at(found: str | None, wanted: str) -> bool:
    return found is not None and (found == wanted or found.split(":")[0] == wanted)


def _only(
    found: Sequence[SerialPort], ports: Sequence[SerialPort], what: str, board: str | None
) -> SerialPort:
    if len(found) == 1:
        return found[0]
    if found:
        raise LabError(
            f"{len(found)} ports have {what}: {', '.join(map(str, found))}",
            board=board,
            todo="name the one by 'usb_location' with its interface, such as 1-1.4:1.0",
        )
    there = ", ".join(map(str, ports)) or "no serial port"
    raise LinkError(f"no port has {what}; there is {there}", board=board, todo="plug the board in")


# --- who holds a port ---


def port_holder(device: str, *, but: int | None = None) -> str | None:
    """Who has `device` open, in words; None: nobody that can be seen. The process `but` does not count.

    Looks at lock files of other programs and, on Linux, at the open files of all processes that this user may
    see. A program of another user may stay unseen; opening the port exclusively is the last word.
    """
    return _uucp_holder(device, but) or _open_holder(device, but)


def _uucp_holder(device: str, but: int | None) -> str | None:
    """The owner of ``LCK..NAME``, as minicom and others write it."""
    for folder in _UUCP_LOCKS:
        path = folder / f"LCK..{Path(device).name}"
        with contextlib.suppress(OSError, ValueError):
            pid = int(path.read_text(errors="replace").strip().partition(" ")[0])
            if pid != but and _alive(pid):
                return f"process {pid} ({path})"
    return None


def _open_holder(device: str, but: int | None) -> str | None:
    try:
        status = Path(device).stat()
    except OSError:
        return None
    if not stat.S_ISCHR(status.st_mode):
        return None
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(but):
            continue
        with contextlib.suppress(OSError):
            for entry in (process / "fd").iterdir():
                if _is_device(entry, status.st_rdev):
                    name = (process / "comm").read_text(errors="replace").strip()
                    return f"process {process.name} ({name})"
    return None


def _is_device(entry: Path, number: int) -> bool:
    try:
        status = entry.stat()
    except OSError:
        # Closed since, or not ours to look at.
        return False
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == number


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _real(device: str) -> str:
    return os.path.realpath(device) if device.startswith("/") else device.upper()
