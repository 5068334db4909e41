"""Espressif's QEMU: ESP32, ESP32-C3 and ESP32-S3 with their own mask ROM.

UART and QMP are sockets that *we* listen on and QEMU connects to: no port number has to be guessed, and nobody else
gets at the monitor of a QEMU that runs as this user. QEMU starts halted (``-S``) and runs only when both are
connected, so that no line of the ROM is lost. The UART goes over TCP although a unix socket would be more private:
QEMU writes it byte by byte, a unix socket takes only some 280 such writes at a time, and QEMU drops what is not
taken.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import LinkError, UsageError
from harness.links.emulator import EmulatorLink, accept, find_program
from harness.links.emulator_process import EmulatorProcess
from harness.links.emulator_state import DEFAULT_FLASH_BYTES
from harness.links.link import BootMode
from harness.links.qmp import Qmp, QmpError

INSTALL = (
    "install Espressif's QEMU with 'python $IDF_PATH/tools/idf_tools.py install qemu-xtensa qemu-riscv32' and put it "
    "on PATH with ESP-IDF's export script, or name the program in the board's entry ('qemu:')"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """One chip in QEMU. Source: the command lines of ESP-IDF's ``idf.py qemu``."""

    program: str
    variable: str
    """Environment variable that may name the program."""
    options: tuple[str, ...]
    download_strap: int
    """``strap_mode`` of the GPIO device for UART download; the machine's default boots from flash."""


_XTENSA = ("qemu-system-xtensa", "HARNESS_QEMU_XTENSA")
_RISCV32 = ("qemu-system-riscv32", "HARNESS_QEMU_RISCV32")

MACHINES = {
    "esp32": Machine(*_XTENSA, ("-M", "esp32", "-m", "4M"), 0x0F),
    "esp32s3": Machine(*_XTENSA, ("-M", "esp32s3", "-m", "32M"), 0x07),
    "esp32c3": Machine(*_RISCV32, ("-M", "esp32c3"), 0x02),
}


@dataclass(frozen=True, slots=True)
class Qemu:
    """How QEMU is to be started, as a board's entry may say."""

    program: str | None = None
    """Path of the program; default: from HARNESS_QEMU_XTENSA or HARNESS_QEMU_RISCV32, else from PATH."""
    watchdog: bool = False
    """Leave the timer group watchdogs on. A machine that is busy lets them strike where silicon would not."""
    network: bool = True
    """User-mode network on the OpenCores Ethernet MAC (``CONFIG_ETH_USE_OPENETH``)."""
    arguments: tuple[str, ...] = ()
    """More arguments, given last."""


class QemuLink(EmulatorLink):
    """A board in QEMU on a state folder."""

    kind: ClassVar[str] = "qemu"
    host_address: ClassVar[str | None] = "10.0.2.2"

    def __init__(
        self,
        chip: str,
        state: Path,
        qemu: Qemu | None = None,
        *,
        mac: str | None = None,
        flash_bytes: int = DEFAULT_FLASH_BYTES,
        baud: int = 2_000_000,
        board: str | None = None,
    ) -> None:
        """Opens the state folder; the board stays without power.

        Raises:
            UsageError: QEMU has no such chip.
            LabError: QEMU is not installed, or the folder is in use.
        """
        if chip not in MACHINES:
            raise UsageError(
                f"QEMU has no {chip}", board=board, todo=f"use one of {', '.join(MACHINES)}, or a twin"
            )
        self._machine = MACHINES[chip]
        self._qemu = qemu or Qemu()
        self._program = find_program(
            self._machine.program,
            given=self._qemu.program,
            variable=self._machine.variable,
            install=INSTALL,
            board=board,
        )
        self._qmp: Qmp | None = None
        super().__init__(chip, state, mac=mac, flash_bytes=flash_bytes, baud=baud, board=board)

    def _start(self, mode: BootMode) -> None:
        with _tcp_listener() as uart, _private_listener() as control:
            command = command_line(
                self._program,
                self._state.chip,
                mode,
                flash=self._state.flash,
                efuses=self._state.efuses,
                uart=uart.argument,
                qmp=control.argument,
                qemu=self._qemu,
            )
            process = self._launch(EmulatorProcess(command))
            wire = accept(uart.socket, process)
            monitor = accept(control.socket, process)
        if wire is None or monitor is None:
            for connection in (wire, monitor):
                if connection is not None:
                    connection.close()
            raise self._not_started("it did not connect to the harness")
        try:
            self._qmp = Qmp(monitor)
            _require_own(wire, self._qmp)
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._uart.attach(wire)
            self._qmp.execute("cont")
        except QmpError as error:
            self._uart.park()
            wire.close()
            self._close_qmp()
            raise self._not_started(str(error)) from error

    def _reset_warm(self) -> bool:
        if self._qmp is None:
            return False
        try:
            self._qmp.execute("system_reset")
            self._qmp.await_event("RESET")
        except QmpError as error:
            raise LinkError(
                f"QEMU cannot be reset: {error}; {self._obituary()}",
                board=self._board,
                todo="reset the board again: that starts another process",
            ) from error
        return True

    def _before_stop(self) -> None:
        if self._qmp is not None:
            # It may be dead already, which is what was wanted.
            with contextlib.suppress(QmpError):
                self._qmp.execute("stop")
            self._close_qmp()

    def _close_qmp(self) -> None:
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None

    def _advice(self, obituary: str) -> str | None:
        if "machine type" in obituary or "not a valid device" in obituary:
            return f"this QEMU is not Espressif's: {INSTALL}"
        if "network backend" in obituary:
            return "this QEMU was built without user-mode networking; use Espressif's, or 'network: false'"
        return None


def command_line(
    program: str,
    chip: str,
    mode: BootMode,
    *,
    flash: Path,
    efuses: Path,
    uart: str,
    qmp: str,
    qemu: Qemu,
) -> list[str]:
    """The arguments that start QEMU halted; `uart` and `qmp` are character devices in QEMU's syntax."""
    machine = MACHINES[chip]
    command = [program, *machine.options]
    command += ["-drive", f"file={_value(flash)},if=mtd,format=raw"]
    command += ["-drive", f"file={_value(efuses)},if=none,format=raw,id=efuse"]
    command += ["-global", f"driver=nvram.{chip}.efuse,property=drive,value=efuse"]
    if not qemu.watchdog:
        command += ["-global", f"driver=timer.{chip}.timg,property=wdt_disable,value=true"]
    if mode is BootMode.DOWNLOAD:
        strap = f"{machine.download_strap:#04x}"
        command += ["-global", f"driver={chip}.gpio,property=strap_mode,value={strap}"]
    command += ["-serial", uart, "-qmp", qmp, "-nographic", "-monitor", "none", "-S"]
    command += ["-nic", "user,model=open_eth" if qemu.network else "none"]
    return [*command, *qemu.arguments]


@dataclass(frozen=True, slots=True)
class _Listener:
    socket: socket.socket
    argument: str
    """The other end, as a character device in QEMU's syntax."""


@contextmanager
def _tcp_listener() -> Iterator[_Listener]:
    """A port of the loopback interface, while the block lasts."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield _Listener(listener, f"tcp:127.0.0.1:{listener.getsockname()[1]},nodelay=on")


@contextmanager
def _private_listener() -> Iterator[_Listener]:
    """A unix socket in a folder of this user alone; where there are none (Windows), a loopback port."""
    if not hasattr(socket, "AF_UNIX"):
        with _tcp_listener() as listener:
            yield listener
        return
    folder = _short_folder()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
            path = folder / "qmp"
            unix.bind(str(path))
            unix.listen(1)
            yield _Listener(unix, f"unix:{_value(path)}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short_folder() -> Path:
    """A private folder whose path leaves room for a name within a unix socket's 104 bytes (macOS; Linux: 108)."""
    folder = Path(tempfile.mkdtemp(prefix="hq-"))
    if len(str(folder)) > 90:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="hq-", dir="/tmp"))
    return folder


def _require_own(wire: socket.socket, qmp: Qmp) -> None:
    """Makes sure that it is QEMU which has connected to the UART's port, not somebody who was quicker.

    Raises:
        QmpError: QEMU knows of no such connection.
    """
    ours = f"{wire.getpeername()[0]}:{wire.getpeername()[1]}"
    devices = [str(device.get("filename", "")) for device in qmp.execute("query-chardev")]
    if not any(ours in filename for filename in devices):
        raise QmpError(f"another program has connected to its UART from {ours}")


def _value(path: Path) -> str:
    """A path as value of one of QEMU's comma-separated options."""
    return str(path).replace(",", ",,")
