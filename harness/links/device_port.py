"""Opens a serial device of the operating system so that the chip behind it is not reset, as far as that is possible."""

from __future__ import annotations

import contextlib
import errno
import os

import serial

from harness.errors import InUseError, LabError, LinkError
from harness.links.find_port import port_holder

try:
    import fcntl
    import termios

    _TERMIOS_ERRORS: tuple[type[Exception], ...] = (termios.error,)
except ImportError:  # Windows
    _TERMIOS_ERRORS = ()

PORT_ERRORS: tuple[type[Exception], ...] = (OSError, *_TERMIOS_ERRORS)
"""How a port fails that pyserial has opened: its own errors are OSErrors, those of a flush are not."""

OPENING_ERRORS: tuple[type[Exception], ...] = (*PORT_ERRORS, ValueError)
"""How a port fails to open; ValueError: it is no name of a port."""

USING_ERRORS: tuple[type[Exception], ...] = (*OPENING_ERRORS, TypeError, AttributeError)
"""How a port fails that another thread may just have closed."""

POLL_S = 0.05
"""Time-out of one look at the port."""

OPENING_RESETS = "opening {} (some adapters reset the chip then)"
"""What a log says of an opened port: a system that raises DTR and RTS one after the other pulls EN."""


def open_device(name: str, baudrate: int) -> serial.SerialBase:
    """The device path, COM port or pyserial URL `name`, opened for us alone, DTR and RTS released.

    A system raises both lines when it opens a port, which leaves EN alone. Then RTS goes first: DTR released while
    RTS is set pulls EN low, and on USB-Serial-JTAG resets the chip.

    Raises:
        SerialException, OSError, ValueError: as pyserial; see `complaint_about`. A port that another program has open,
            with a lock or without, counts as busy.
    """
    if name.startswith("/") and (holder := port_holder(name, but=os.getpid())) is not None:
        raise serial.SerialException(errno.EBUSY, f"{name} is busy: {holder} has it open")
    port = serial.serial_for_url(name, baudrate=baudrate, timeout=POLL_S, do_not_open=True)
    port.dtr, port.rts = True, False
    if isinstance(port, serial.Serial) and "://" not in name:
        port.exclusive = True
    port.open()
    try:
        port.dtr = False
    except OSError as error:
        # A pseudo-terminal has no modem lines, and its board no reset: whoever asks for one is told.
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            with contextlib.suppress(OSError):
                port.close()
            raise
    _keep_others_out(port)
    return port


def _keep_others_out(port: serial.SerialBase) -> None:
    """Programs that ask for no lock are refused by the system from now on (POSIX; not those of root)."""
    with contextlib.suppress(NameError, AttributeError, *PORT_ERRORS):
        fcntl.ioctl(port.fileno(), termios.TIOCEXCL)


def complaint_about(name: str, error: Exception, *, board: str | None) -> LabError:
    """The error for a port that does not open: missing, forbidden, or taken, and then by whom."""
    number = getattr(error, "errno", None)
    text = str(error)
    if (
        number in (errno.ENOENT, errno.ENXIO, errno.ENODEV)
        or "No such file" in text
        or "FileNotFoundError" in text
    ):
        return LinkError(
            f"port {name} does not exist",
            board=board,
            todo="plug the board in, or correct 'port' in boards.yaml",
        )
    if number in (errno.EACCES, errno.EPERM) or "Permission denied" in text or "PermissionError" in text:
        return LabError(
            f"port {name} may not be opened by this user",
            board=board,
            todo="join the group 'dialout' (Linux) and log in again; `harness doctor` says which group",
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text or "busy" in text:
        holder = port_holder(name)
        return InUseError(
            f"port {name} is held by {holder or 'another program'}",
            board=board,
            todo="close its monitor or wait for the other job",
        )
    return LinkError(f"port {name} cannot be opened: {text}", board=board, todo="check the cable and 'port'")
