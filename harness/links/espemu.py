"""esp-emu, Espressif's emulator of its RISC-V chips.

It has no control channel: a reset is another process. It keeps flash and eFuses in memory and writes the files when
it is asked to end (SIGINT), so it is always asked.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.errors import LabError, UsageError
from harness.links.emulator import START_TIMEOUT_S, EmulatorLink, find_program
from harness.links.emulator_process import EmulatorProcess
from harness.links.emulator_state import BLOCKS_BYTES, DEFAULT_FLASH_BYTES, write_whole
from harness.links.link import BootMode

PROGRAM = "esp-emu"
VARIABLE = "HARNESS_ESPEMU"
INSTALL = (
    "install esp-emu with its maker's installer (https://github.com/espressif/esp-emulator), or name the program in "
    "the board's entry ('espemu:')"
)
CHIPS = ("esp32c3", "esp32c6", "esp32h2", "esp32p4")

STRAPS = {BootMode.RUN: 0x08, BootMode.DOWNLOAD: 0x02}
"""``--strap-mode``, on all its chips."""

EFUSE_COPY = "espemu-efuse.bin"
EFUSE_COPY_BYTES = BLOCKS_BYTES
"""esp-emu's eFuse file: BLOCK0 to BLOCK10 (24 + 24 + 9 · 32 bytes), the first part of QEMU's and of the twin's."""

_PORT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class EspEmu:
    """How esp-emu is to be started, as a board's entry may say."""

    program: str | None = None
    """Path of the program; default: from HARNESS_ESPEMU, else from PATH."""
    arguments: tuple[str, ...] = ()
    """More arguments, given last."""


class EspEmuLink(EmulatorLink):
    """A board in esp-emu on a state folder. The first bytes of a boot may be lost: it does not wait for us."""

    kind: ClassVar[str] = "espemu"
    host_address: ClassVar[str | None] = "192.168.4.1"

    def __init__(
        self,
        chip: str,
        state: Path,
        espemu: EspEmu | None = None,
        *,
        mac: str | None = None,
        flash_bytes: int = DEFAULT_FLASH_BYTES,
        baud: int = 921_600,
        board: str | None = None,
    ) -> None:
        """Opens the state folder; the board stays without power.

        Raises:
            UsageError: esp-emu has no such chip.
            LabError: esp-emu is not installed, or the folder is in use.
        """
        if chip not in CHIPS:
            raise UsageError(f"esp-emu has no {chip}", board=board, todo=f"use one of {', '.join(CHIPS)}")
        self._espemu = espemu or EspEmu()
        self._program = find_program(
            PROGRAM, given=self._espemu.program, variable=VARIABLE, install=INSTALL, board=board
        )
        super().__init__(chip, state, mac=mac, flash_bytes=flash_bytes, baud=baud, board=board)
        self._efuse_copy = state / EFUSE_COPY
        try:
            # A copy that is still there is what a killed run left behind.
            self._merge_efuses()
        except LabError:
            self._state.close()
            raise

    def _start(self, mode: BootMode) -> None:
        write_whole(self._efuse_copy, self._state.efuses.read_bytes()[:EFUSE_COPY_BYTES])
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            port = _free_port()
            command = command_line(
                self._program,
                self._state.chip,
                mode,
                flash=self._state.flash,
                efuses=self._efuse_copy,
                port=port,
                espemu=self._espemu,
            )
            process = self._launch(EmulatorProcess(command, end_with=signal.SIGINT))
            wire = _connected(port, process)
            if wire is not None:
                self._uart.attach(wire)
                return
            # Somebody else may have taken the port between our look and its start.
            if attempt == _PORT_ATTEMPTS or "in use" not in process.obituary():
                raise self._not_started(f"nothing listens on its UART port {port}")
            process.stop()

    def _after_stop(self) -> None:
        self._merge_efuses()

    def _merge_efuses(self) -> None:
        """Brings what was burned into the board's own file. Bits only rise, so either file may be the older one."""
        try:
            copy = self._efuse_copy.read_bytes()
        except FileNotFoundError:
            return
        own = self._state.efuses.read_bytes()
        if len(copy) != EFUSE_COPY_BYTES:
            raise LabError(
                f"esp-emu left an eFuse file of {len(copy)} bytes, {EFUSE_COPY_BYTES} were expected",
                board=self._board,
                todo=f"look at {self._efuse_copy}; the board's own file is unchanged",
            )
        merged = bytes(a | b for a, b in zip(own, copy.ljust(len(own), b"\0"), strict=True))
        if merged != own:
            write_whole(self._state.efuses, merged)
        self._efuse_copy.unlink()


def command_line(
    program: str, chip: str, mode: BootMode, *, flash: Path, efuses: Path, port: int, espemu: EspEmu
) -> list[str]:
    """The arguments that start esp-emu with its UART on TCP `port` of the loopback interface."""
    command = [program, "--chip", chip, "--firmware", str(flash), "--efuse", str(efuses)]
    command += ["--uart-tcp", f"127.0.0.1:{port}", "--strap-mode", f"{STRAPS[mode]:#04x}"]
    command += ["--net", "user", "--save-state"]
    return [*command, *espemu.arguments]


def _free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _connected(port: int, process: EmulatorProcess) -> socket.socket | None:
    """The emulator's UART; None when the process dies before it listens, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.status is None and time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError, TimeoutError):
            wire = socket.create_connection(("127.0.0.1", port), timeout=1.0)
            # While nothing listens a socket can meet itself; and if somebody else listens, the process dies at once.
            if wire.getsockname() != wire.getpeername() and process.wait(0.02) is None:
                wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return wire
            wire.close()
        process.wait(0.005)
    return None
