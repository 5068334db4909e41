"""What is plugged in, and the boards.yaml that says so.

Looking opens no port. Only an identification that the caller passes in (`Identify`) does, since it resets the board;
a port that somebody holds is never offered to it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.chips import CHIPS
from harness.errors import HarnessError
from harness.inventory.entry import FORMAT_VERSION, MAC_PATTERN, normalised_mac
from harness.links.find_port import ESPRESSIF_VENDOR_ID, SerialPort

BRIDGES = {
    0x0403: "FTDI",
    0x067B: "Prolific",
    0x10C4: "Silicon Labs CP210x",
    0x1A86: "WCH CH34x",
    ESPRESSIF_VENDOR_ID: "the chip's own USB",
}
"""USB vendors whose ports lead to ESP32 boards; a port of another vendor is named, but never reset."""

_BY_ID = Path("/dev/serial/by-id")
"""Where udev keeps names of ports that stay the same when a board is plugged into another socket."""


@dataclass(frozen=True, slots=True)
class Identified:
    """What a chip's ROM said: it was reset for it."""

    chip: str | None
    """Name in `CHIPS`; None: a chip that is not supported, or none that answers."""
    mac: str | None
    problem: str | None = None
    """Why it is not known."""


Identify = Callable[[str], Identified]
"""Resets what is at a port into download mode and back, and says which chip it is."""


@dataclass(frozen=True, slots=True)
class Attached:
    """One serial port, and what is known of the board behind it."""

    port: SerialPort
    name: str
    """Path for boards.yaml: the one that lasts, where the system has one."""
    holder: str | None = None
    """Who has it open, in words; None: nobody that can be seen."""
    chip: str | None = None
    mac: str | None = None
    problem: str | None = None
    """Why it could not be identified; None: it was, or nobody tried."""

    @property
    def on_usb(self) -> bool:
        return self.port.vendor_id is not None

    @property
    def may_be_a_board(self) -> bool:
        """Whether it is a port by which boards are attached."""
        return self.port.vendor_id in BRIDGES

    @property
    def says_its_mac(self) -> bool:
        """The chip's own USB: its USB serial number is the MAC, nothing has to be opened."""
        return self.port.vendor_id == ESPRESSIF_VENDOR_ID and bool(
            MAC_PATTERN.fullmatch(self.port.usb_serial or "")
        )


def look_around(
    ports: Iterable[SerialPort],
    *,
    holder: Callable[[str], str | None],
    lasting_name: Callable[[str], str] | None = None,
    identify: Identify | None = None,
) -> tuple[Attached, ...]:
    """What is plugged in. Without `identify` nothing is opened.

    A port that is held, not on USB, or of a vendor that makes no such bridges, is not identified.
    """
    found = []
    for port in ports:
        name = (lasting_name or lasting_name_of)(port.device)
        one = Attached(port, name, holder(port.device))
        if one.says_its_mac:
            one = replace(one, mac=normalised_mac(port.usb_serial or ""))
        if identify is not None and one.may_be_a_board and one.holder is None:
            one = _identified(one, identify)
        found.append(one)
    return tuple(found)


def _identified(one: Attached, identify: Identify) -> Attached:
    try:
        told = identify(one.port.device)
    except HarnessError as error:
        return replace(one, problem=error.message)
    return replace(one, chip=told.chip, mac=told.mac or one.mac, problem=told.problem)


def lasting_name_of(device: str, *, folder: Path = _BY_ID) -> str:
    """The name under `folder` that leads to `device`, else `device` itself."""
    try:
        names = sorted(folder.iterdir())
    except OSError:
        return device
    return next((str(name) for name in names if os.path.realpath(name) == os.path.realpath(device)), device)


# --- boards.yaml ---

_HEAD = f"""\
# The boards of this bench. Written by `harness init`; it is yours to change.
# `harness boards` lists them, `harness doctor` looks at each, docs/real-board.md explains every field.
version: {FORMAT_VERSION}
boards:
"""

_TWINS = """\
  # Two virtual boards: nothing has to be attached. Their state persists when they are named (`--board twin-c3`);
  # tests that name no board get throwaway copies of them.
  twin-c3:
    chip: esp32c3
    link: twin
    tags: [twins]
  twin-esp32:
    chip: esp32
    link: twin
    tags: [twins]
"""

EXAMPLES = """\
  # --- Examples: take away the '# ' in front of the lines, and change what differs. ---
  #
  # A board on the desk. `mac` must match the chip before anything is written. Without `burn_up_to` no eFuse of it
  # is ever burned; with it only in a run that also says `--burn desk-c3`. BURNING CANNOT BE UNDONE.
  #
  # desk-c3:
  #   chip: esp32c3
  #   link: serial
  #   port: /dev/serial/by-id/usb-Silicon_Labs_CP2102N_0001-if00-port0
  #   mac: "7c:df:a1:00:00:01"
  #   burn_up_to: release
  #   network: {ssid: lab, password_file: ~/keys/lab-wifi.txt}
  #
  # A board at a USB hub that can switch single ports: the supply can be cut. By its place at the hub, since boards
  # with cheap bridges have no serial number of their own.
  #
  # rack-c3-4:
  #   chip: esp32c3
  #   link: serial
  #   usb_location: "1-1.4"
  #   mac: "7c:df:a1:00:00:04"
  #   power: {by: uhubctl, hub: "1-1", port: 4}
  #   tags: [rack-1]
  #
  # A board at another machine, served there with `esp_rfc2217_server -p 4000 /dev/ttyUSB0`.
  #
  # far-esp32:
  #   chip: esp32
  #   link: rfc2217
  #   url: rfc2217://192.168.1.30:4000
  #   mac: "24:6f:28:00:00:07"
  #
  # The chip's own ROM and ESP-IDF's own bootloader, in an emulator.
  #
  # qemu-c3:
  #   chip: esp32c3
  #   link: qemu
"""
"""Commented entries for a desk, a hub, another machine and an emulator; valid once the comment signs are gone."""


def boards_yaml(attached: Sequence[Attached]) -> str:
    """The text of a boards.yaml for what is plugged in: twins, boards, examples.

    A board whose chip is known is an entry; one that is not is a commented entry, since a guessed chip would be
    wrong half of the time.
    """
    parts = [_HEAD, _TWINS]
    taken = {"twin-c3", "twin-esp32"}
    for one in attached:
        if one.may_be_a_board:
            parts.append("\n" + _board_text(one, taken))
    others = [one for one in attached if one.on_usb and not one.may_be_a_board]
    if others:
        parts.append("\n" + _comment(["Also plugged in, and probably no boards:", *map(_described, others)]))
    if not any(one.may_be_a_board for one in attached):
        parts.append("\n" + _comment(["No board is plugged in by USB."]))
    parts.append("\n" + EXAMPLES)
    return "".join(parts)


def _board_text(one: Attached, taken: set[str]) -> str:
    name = _name_for(one, taken)
    lines = [f"chip: {one.chip or 'CHIP'}", "link: serial", f"port: {_quoted(one.name)}"]
    if one.says_its_mac:
        lines.append("console: usb-serial-jtag     # this port is the chip's own USB")
    if one.mac is not None:
        lines.append(f'mac: "{one.mac}"')
    lines.append("# burn_up_to: release     # consent to burn eFuses for good; not needed for profile open")
    lines.append(
        "# network: {ssid: NAME, password_file: FILE}   # the Wi-Fi over which it fetches its updates"
    )
    if one.chip is not None:
        entry = "".join(f"    {line}\n" for line in lines)
        return f"{_comment([_described(one)])}  {name}:\n{entry}"
    why = one.problem or (
        f"it is held by {one.holder}, so it was not opened"
        if one.holder
        else "to be asked it must be reset: harness init --probe"
    )
    head = [
        _described(one),
        f"Its chip is not known: {why}.",
        f"Put one of {', '.join(CHIPS)} for CHIP and take away the '# '.",
        "",
        f"{name}:",
    ]
    return _comment([*head, *(f"  {line}" for line in lines if not line.startswith("#"))])


def _name_for(one: Attached, taken: set[str]) -> str:
    """`esp32c3-a1b2` by chip and the end of the MAC, else `board-1`."""
    if one.chip is not None and one.mac is not None:
        stem = f"{one.chip}-{one.mac[-5:].replace(':', '')}"
        names = iter([stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))])
    else:
        names = iter(f"{one.chip or 'board'}-{number}" for number in range(1, len(taken) + 2))
    name = next(each for each in names if each not in taken)
    taken.add(name)
    return name


def _described(one: Attached) -> str:
    """One line on a port; nothing that a USB device says of itself may end the comment it stands in."""
    known = [
        _printable(one.port.device),
        BRIDGES.get(one.port.vendor_id or 0, ""),
        _printable(one.port.description),
    ]
    if one.port.usb_serial:
        known.append(f"USB serial number {_printable(one.port.usb_serial)}")
    if one.port.usb_location:
        known.append(f"USB location {_printable(one.port.usb_location)}")
    return ", ".join(filter(None, known))


def _printable(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]+", "?", text)[:200]


def _quoted(text: str) -> str:
    """A plain path as it is, anything else in double quotes; JSON's are YAML's."""
    return text if re.fullmatch(r"/[A-Za-z0-9/_.+-]*", text) else json.dumps(_printable(text))


def _comment(lines: Iterable[str]) -> str:
    return "".join(f"  # {line}".rstrip() + "\n" for line in lines)
