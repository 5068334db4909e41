"""The port of a board whose device node vanishes and comes back: one port object over all its returns.

A chip with USB-Serial-JTAG is its own USB device. When it is reset, browns out or sleeps, the device may leave the bus;
it returns a moment later, often under another name (``ttyACM0``, then ``ttyACM1``). Whoever holds this port, the console
or esptool, goes on: while the device is away the wire is quiet, and afterwards the log says what may be missing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import serial
from serial.serialutil import PortNotOpenError

from harness.links.device_port import OPENING_ERRORS, POLL_S, PORT_ERRORS, USING_ERRORS, open_device

if TYPE_CHECKING:
    from typing_extensions import Buffer

RETURN_TIMEOUT_S = 15.0
"""A device is back within two seconds; a busy hub, or a system that loads a driver, takes longer."""

_LOOK_S = 0.1
"""How often the system is asked whether the device is back; its nodes' permissions come a moment after the node."""

Opener = Callable[[str, int], Any]


@dataclass(frozen=True, slots=True)
class Absence:
    """One time that the device was away."""

    vanished_wall_s: float
    """Unix seconds at which it was noticed."""
    lasted_s: float
    device: str
    """Where it is now."""

    def text(self) -> str:
        """For the board's log."""
        milliseconds = int(self.vanished_wall_s * 1000) % 1000
        at = f"{time.strftime('%H:%M:%S', time.localtime(self.vanished_wall_s))}.{milliseconds:03d}"
        return f"port vanished at {at}, back after {self.lasted_s:.3f} s as {self.device}; lines may be lost"


class ReturningPort(serial.SerialBase):
    """pyserial's interface on whatever device node the board has at the moment.

    It offers no descriptor, since that changes from node to node. `find` names the device node now, or None while
    there is none; ``on_return`` is told of every absence, from the thread that noticed the return.
    """

    def __init__(
        self,
        find: Callable[[], str | None],
        *,
        baudrate: int = 115_200,
        opener: Opener = open_device,
        on_return: Callable[[Absence], None] | None = None,
        return_timeout_s: float = RETURN_TIMEOUT_S,
    ) -> None:
        self.on_return = on_return
        self._find = find
        self._opener = opener
        self._return_timeout_s = return_timeout_s
        self._device: Any = None
        self._device_name = ""
        self._vanished_s: float | None = None
        self._vanished_wall_s = 0.0
        self._why = ""
        self._why_not = "there is no such device"
        self._looked_s = 0.0
        self._given_up = False
        self._parked = False
        self._waited_from_s = 0.0
        self._changing = threading.RLock()
        super().__init__(None, baudrate=baudrate, timeout=POLL_S)
        self._dtr_state = self._rts_state = False

    # --- for the link ---

    @property
    def is_away(self) -> bool:
        """The device has vanished and is not back yet."""
        return self._vanished_s is not None

    def park(self) -> None:
        """From now on the device may be away for as long as it likes: its supply is cut."""
        with self._changing:
            self._parked = True

    def unpark(self) -> None:
        """From now on it has `return_timeout_s` to come back."""
        with self._changing:
            self._parked, self._waited_from_s = False, time.monotonic()

    def look(self) -> None:
        """Notices that the device has vanished, or is back, although nobody reads.

        Raises:
            SerialException: it has not come back in time.
        """
        self._require_open()
        _ = self.in_waiting

    def await_return(self) -> None:
        """Returns when the device is there.

        Raises:
            SerialException: it has not come back within its time.
        """
        while self._there() is None:
            time.sleep(POLL_S)

    # --- pyserial's ---

    def open(self) -> None:
        """Opens the device where it is now; nothing happens when it is open.

        Raises:
            SerialException, OSError: it cannot be opened.
        """
        with self._changing:
            if self.is_open:
                return
            name = self._find()
            if name is None:
                raise serial.SerialException("No such file or directory: it is not plugged in")
            self._take(name)
            self._vanished_s, self._given_up = None, False
            self.is_open = True

    def close(self) -> None:
        """Lets go of the device; may be called twice."""
        with self._changing:
            self.is_open = False
            self._drop()

    def read(self, size: int = 1) -> bytes:
        """Up to `size` bytes, fewer when the time-out strikes; nothing while the device is away.

        Raises:
            SerialException: the device has not come back in time.
        """
        end_s = None if self.timeout is None else time.monotonic() + self.timeout
        data = bytearray()
        while len(data) < size:
            device = self._there()
            left_s = POLL_S if end_s is None else min(POLL_S, max(0.0, end_s - time.monotonic()))
            if device is None:
                time.sleep(left_s)
            else:
                try:
                    if device.timeout != left_s:
                        device.timeout = left_s
                    data += device.read(size - len(data))
                except USING_ERRORS as error:
                    self._lost(device, error)
            if end_s is not None and time.monotonic() >= end_s:
                break
        return bytes(data)

    def write(self, data: Buffer) -> int:
        """All of `data`, once the device is there; lost when it vanishes meanwhile, as on a wire that is cut.

        Raises:
            SerialTimeoutException: the device did not take it within ``write_timeout``.
            SerialException: the device has not come back in time.
        """
        whole = bytes(data)
        self.await_return()
        device = self._device
        try:
            device.write_timeout = self.write_timeout
            device.write(whole)
        except serial.SerialTimeoutException:
            raise
        except USING_ERRORS as error:
            self._lost(device, error)
        return len(whole)

    @property
    def in_waiting(self) -> int:
        device = self._there()
        if device is None:
            return 0
        try:
            return int(device.in_waiting)
        except USING_ERRORS as error:
            self._lost(device, error)
            return 0

    def reset_input_buffer(self) -> None:
        self._on_device("reset_input_buffer")

    def reset_output_buffer(self) -> None:
        self._on_device("reset_output_buffer")

    def flush(self) -> None:
        self._on_device("flush")

    def send_break(self, duration: float = 0.25) -> None:
        self._on_device("send_break", duration)

    @property
    def cts(self) -> bool:
        return True

    @property
    def dsr(self) -> bool:
        return True

    @property
    def ri(self) -> bool:
        return False

    @property
    def cd(self) -> bool:
        return True

    def _reconfigure_port(self, *_: object, **__: object) -> None:
        """Called by pyserial for every setting; time-outs are ours, the baud rate is the device's."""
        device = self._device
        if device is None or device.baudrate == self.baudrate:
            return
        try:
            device.baudrate = self.baudrate
        except PORT_ERRORS as error:
            self._lost(device, error)

    def _update_dtr_state(self) -> None:
        self._set_line("dtr", bool(self._dtr_state))

    def _update_rts_state(self) -> None:
        self._set_line("rts", bool(self._rts_state))

    def _update_break_state(self) -> None:
        """USB-Serial-JTAG has no break."""

    # --- inside ---

    def _set_line(self, name: str, state: bool) -> None:
        """Sets a line; one that is changed while the device is away is as wanted when it is back."""
        device = self._there()
        if device is None:
            return
        try:
            setattr(device, name, state)
        except PORT_ERRORS as error:
            self._lost(device, error)

    def _on_device(self, method: str, *arguments: object) -> None:
        device = self._there()
        if device is None:
            return
        try:
            getattr(device, method)(*arguments)
        except USING_ERRORS as error:
            self._lost(device, error)

    def _there(self) -> Any:
        """The device, or None while it is away. Looks for it now and then.

        Raises:
            SerialException: it is away for too long.
        """
        returned = None
        with self._changing:
            self._require_open()
            if self._vanished_s is None:
                return self._device
            now_s = time.monotonic()
            if self._given_up:
                raise self._gone()
            if now_s - self._looked_s < _LOOK_S:
                return None
            self._looked_s = now_s
            name = self._find()
            if name is not None:
                try:
                    self._take(name)
                    returned = Absence(self._vanished_wall_s, time.monotonic() - self._vanished_s, name)
                except OPENING_ERRORS as error:
                    # Still being set up by the system, or taken by another program: tried until the time is up.
                    self._why_not = f"as {name} it cannot be opened: {error}"
            waited_s = now_s - max(self._vanished_s, self._waited_from_s)
            if returned is None and not self._parked and waited_s >= self._return_timeout_s:
                self._given_up = True
                raise self._gone()
            if returned is None:
                return None
            self._vanished_s = None
        if self.on_return is not None:
            self.on_return(returned)
        return self._device

    def _gone(self) -> serial.SerialException:
        return serial.SerialException(
            f"{self._device_name} vanished ({self._why}) and did not come back within {self._return_timeout_s:g} s: "
            f"{self._why_not}"
        )

    def _take(self, name: str) -> None:
        device = self._opener(name, self.baudrate)
        # Opening leaves both lines released. Set ones are set RTS last, so that the chip is not reset by the way.
        if self._dtr_state or self._rts_state:
            device.dtr = self._dtr_state
            device.rts = self._rts_state
        self._device, self._device_name = device, name
        # esptool looks up the USB product by this name, and treats USB-Serial-JTAG in its own way.
        self._port = self.portstr = self.name = name

    def _lost(self, device: Any, error: Exception) -> None:
        """A use of `device` has failed. It has vanished, or another thread has closed or replaced it."""
        with self._changing:
            if not self.is_open:
                raise PortNotOpenError()
            if device is not self._device or self._vanished_s is not None:
                return
            self._why = str(error) or type(error).__name__
            self._why_not = "there is no such device"
            self._vanished_s, self._vanished_wall_s = time.monotonic(), time.time()
            self._looked_s = self._vanished_s
            self._drop()

    def _drop(self) -> None:
        device, self._device = self._device, None
        if device is not None:
            with contextlib.suppress(*USING_ERRORS):
                device.close()

    def _require_open(self) -> None:
        if not self.is_open:
            raise PortNotOpenError()
