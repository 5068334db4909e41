"""Asks the ROM at a serial port which chip it is. Resets the board twice: into download mode, and back."""

from __future__ import annotations

from contextlib import suppress

from harness.chips import CHIPS, Chip
from harness.chips.esp32 import ESP32
from harness.chips.esp32c3 import ESP32C3
from harness.connection import link_at
from harness.errors import BoardError, LabError
from harness.inventory.discover import Identified
from harness.links.device_names import device_names
from harness.links.link import BootMode, Link
from harness.locks import BoardLock, lock_files
from harness.provision.rom import OtherChipError, RomSession

_ASKED_AS = (ESP32C3, ESP32)
"""All newer ROMs say which chip they are, whichever they are spoken to as; ESP32 has only a magic value."""

_SILENT_ATTEMPTS = 2
"""Chips as which a silent port is spoken to. Synchronising is the same for all; the second try is for the first's
line noise."""

_ROM_TIMEOUT_S = 3.0
"""esptool's default for one answer."""


def identify_at(device: str) -> Identified:
    """The chip at `device`.

    Raises:
        LabError: the port is missing, forbidden, or held; the message says by whom, if that is known.
    """
    names = device_names(device)
    with BoardLock(lock_files(names), board=device, purpose="looking what is plugged in"):
        link = link_at(device)
        try:
            return identify_on(link)
        finally:
            link.close()


def identify_on(link: Link) -> Identified:
    """As `identify_at`, on an open link; afterwards the board runs what is in its flash."""
    silent = 0
    problem = "no chip answers"
    try:
        for chip in _ASKED_AS:
            try:
                return _asked(link, chip)
            except OtherChipError as error:
                if error.found is not None:
                    return _asked(link, error.found)
                problem = error.message
            except BoardError as error:
                if error.__cause__ is None:
                    # Something answered, and it was another chip.
                    problem = error.message
                    continue
                silent += 1
                if silent == _SILENT_ATTEMPTS:
                    return Identified(None, None, "no chip answers")
        return Identified(None, None, f"{problem}; this harness knows {', '.join(CHIPS)}")
    finally:
        # The port may be the very thing that failed, which is what is told then.
        with suppress(LabError):
            link.reset(BootMode.RUN)


def _asked(link: Link, chip: Chip) -> Identified:
    # The time-out of a console is too short for esptool where it sets none of its own.
    link.port.timeout = _ROM_TIMEOUT_S
    link.reset(BootMode.DOWNLOAD)
    with RomSession(link.port, chip) as session:
        return Identified(chip.name, session.state().mac)
