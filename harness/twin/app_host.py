"""Runs the native program of a loaded app as the board's application.

The program comes out of the (deciphered) image in flash, but what is executed is the file of the same SHA-256
in the user's own build store: a state folder from elsewhere can make nothing run on this host. Its standard
input and output are the UART; the chip is reached through a socket (`harness.twin.rpc`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.errors import FormatError
from harness.formats.app_description import APP_DESCRIPTION_BYTES, AppDescription
from harness.formats.native_payload import NativeMark
from harness.twin.boot_context import RESET_SOFTWARE_CPU, BootContext, LoadedApp
from harness.twin.image_verify import HEADER_BYTES, SEGMENT_HEADER_BYTES
from harness.twin.operations import FlashFault
from harness.twin.rpc import ConnectionEnded, RpcServer, Stopped

RPC_FD_VARIABLE = "ESP_TWIN_FD"
STDERR_FILE = "app-stderr.log"
"""In the state folder: what the program (or its C library) said outside the UART, of the last start only."""
SANITIZER_FILE = "app-sanitizer-{number}.log"
"""Beside it: the first reports of a program built with sanitizers, one file for each start that had some."""
_SANITIZER_REPORT = re.compile(rb"(?:ERROR|WARNING): \w+Sanitizer: |: runtime error: ")
_REPORT_FILES = 100
_REPORT_LINES = 12
_REPORT_COLUMNS = 160

_RESTART_REASONS = {
    0: RESET_SOFTWARE_CPU,  # esp_restart()
    1: RESET_SOFTWARE_CPU,  # panic, abort()
    2: RESET_SOFTWARE_CPU,  # task watchdog: its panic handler restarts like any panic
}
_ESP_RESTART = 0
_PANIC = 1
_PANICKED_STATUS = 134
"""Exit status of a program whose panic handler has printed its text but could not ask for the restart."""
_CRASH_REBOOT_S = 0.5
"""A board that crashes at once still takes this long from reset to reset."""

_EXIT_WAIT_S = 2.0
"""Between the end of a program's connection and its exit status, on a busy machine."""
_DRAIN_S = 2.0
_INPUT_POLL_S = 0.25

_XTENSA_CAUSES = {"SIGSEGV": "LoadProhibited", "SIGBUS": "LoadStoreAlignment", "SIGILL": "IllegalInstruction"}
_RISCV_CAUSES = {
    "SIGSEGV": "Load access fault",
    "SIGBUS": "Load address misaligned",
    "SIGILL": "Illegal instruction",
}


@dataclass(frozen=True, slots=True)
class NotStartable:
    """Why a loaded app does not run; `why` is printed on the UART."""

    why: str


class AppHost:
    """One run of one app, from the bootloader's jump to the next reset."""

    def __init__(self, ctx: BootContext, app: LoadedApp) -> None:
        self._ctx = ctx
        self._app = app
        self._process: subprocess.Popen[bytes] | None = None
        # RTC memory keeps the hint over a software reset only, and it is good for one boot.
        self._hint = ctx.restart_hint if app.reset_reason == RESET_SOFTWARE_CPU else 0
        ctx.restart_hint = 0

    @property
    def pid(self) -> int | None:
        """Process id of the running program."""
        process = self._process
        return None if process is None else process.pid

    def run(self) -> int | None:
        """Run the app until it resets the chip; returns the ROM's reset reason.

        Returns None when ``ctx.stop`` was set. An app that cannot be started leaves one line on the UART, and
        this waits for ``ctx.stop``. No process of the app is left when this returns or raises.

        Raises:
            PowerLost: the supply was cut at one of the app's flash or eFuse operations.
        """
        program = self._program()
        if isinstance(program, NotStartable):
            self._say(f"twin: {program.why}")
            self._ctx.stop.wait()
            return None
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = self._start(program, theirs)
            if process is None:
                self._ctx.stop.wait()
                return None
            self._process = process
            pumps = (_Output(self._ctx, process), _Input(self._ctx, process))
            for pump in pumps:
                pump.start()
            try:
                return self._serve(process, ours, pumps[0])
            finally:
                ours.close()
                _kill(process)
                for pump in pumps:
                    pump.finish()
                self._process = None
                self._tell_sanitizer_report()

    def _serve(
        self, process: subprocess.Popen[bytes], connection: socket.socket, output: _Output
    ) -> int | None:
        try:
            asked = RpcServer(self._ctx, self._app, connection, restart_hint=self._hint).serve()
        except Stopped:
            return None
        except ConnectionEnded:
            asked = _PANIC
            self._report_death(process, output)
        else:
            _kill(process)
            output.finish()
        if asked != _ESP_RESTART:
            # The board's crash loop turns as slowly as silicon's, and spares the host's processor.
            left = _CRASH_REBOOT_S - self._ctx.since_boot()
            if self._ctx.stop.wait(max(0.0, left)):
                return None
        self._ctx.restart_hint = asked if asked in _RESTART_REASONS else _PANIC
        return _RESTART_REASONS.get(asked, RESET_SOFTWARE_CPU)

    def _report_death(self, process: subprocess.Popen[bytes], output: _Output) -> None:
        """Print what a panic prints, as far as the end of a host process can tell."""
        status: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(_EXIT_WAIT_S)
        _kill(process)
        output.finish()
        if status == _PANICKED_STATUS:
            return
        name = _signal_name(-status) if status is not None and status < 0 else ""
        if name == "SIGABRT":
            self._say("\r\nabort() was called at PC 0x00000000 on core 0")
        else:
            causes = _XTENSA_CAUSES if self._ctx.chip.xtensa else _RISCV_CAUSES
            cause = causes.get(name, "Unknown")
            self._say(f"\r\nGuru Meditation Error: Core  0 panic'ed ({cause}). Exception was unhandled.")
        how = f"was ended by {name}" if name else f"ended with status {status}"
        if status is None:
            how = "broke off its connection to the chip"
        self._say(f"twin: the native program {how}")
        self._say("\r\nRebooting...")

    def _tell_sanitizer_report(self) -> None:
        """Say on the UART what a sanitizer found, however the program ended, and keep the report: the next start
        writes a new file, and no reset may hide a finding."""
        log = self._ctx.state_dir / STDERR_FILE
        try:
            said = log.read_bytes()
        except OSError:
            return  # the state folder is gone, and the board with it
        found = _SANITIZER_REPORT.search(said)
        if found is None:
            return
        files = (self._ctx.state_dir / SANITIZER_FILE.format(number=n) for n in range(1, _REPORT_FILES + 1))
        kept = next((path for path in files if not path.exists()), log)
        if kept is not log:
            log.replace(kept)
        self._say(f"\r\ntwin: sanitizer report, whole in {kept.name}:")
        start = said.rfind(b"\n", 0, found.start()) + 1
        for line in said[start:].split(b"\n")[:_REPORT_LINES]:
            if text := line.decode("ascii", "replace").strip():
                self._say(f"twin: sanitizer: {text[:_REPORT_COLUMNS]}")

    # The program

    def _program(self) -> Path | NotStartable:
        at = self._app.offset + HEADER_BYTES + SEGMENT_HEADER_BYTES
        try:
            description = AppDescription.from_bytes(self._ctx.cipher.read(at, APP_DESCRIPTION_BYTES))
            mark = NativeMark.from_description(description)
            if mark is None:
                return NotStartable("this image holds target code, which does not run on the twin")
            if at + mark.offset + mark.size > self._app.offset + self._app.image_size:
                return NotStartable("this image's native program lies outside the image")
            payload = self._ctx.cipher.read(at + mark.offset, mark.size)
        except FormatError as error:
            return NotStartable(f"this image is no native one: {error.message}")
        except FlashFault:
            return NotStartable("this image's native program cannot be read from flash")
        if hashlib.sha256(payload).digest() != mark.sha256:
            return NotStartable("this image's native program does not have the SHA-256 that its mark gives")
        return find_program(self._ctx.build_store, mark.sha256)

    def _start(self, program: Path, connection: socket.socket) -> subprocess.Popen[bytes] | None:
        fd = connection.fileno()
        try:
            with (self._ctx.state_dir / STDERR_FILE).open("wb") as stderr:
                return subprocess.Popen(
                    [*_dies_with_parent(), str(program)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    pass_fds=(fd,),
                    cwd=self._ctx.state_dir,
                    env={RPC_FD_VARIABLE: str(fd), "PATH": os.environ.get("PATH", os.defpath)},
                    start_new_session=True,
                )
        except OSError as error:
            self._say(f"twin: the native program does not start on this host: {error.strerror}")
            return None

    def _say(self, text: str) -> None:
        self._ctx.uart.send(f"{text}\r\n".encode())


def find_program(build_store: Path, sha256: bytes) -> Path | NotStartable:
    """The file in `build_store` that has this SHA-256 and bears it as its name.

    The store and the file must be this user's and closed to changes by others.
    """
    name = sha256.hex()
    path = build_store / name
    absent = NotStartable(
        f"native program {name[:16]}… is not in this user's build store: build it here, or import it"
    )
    if sys.platform == "win32":
        return NotStartable("native programs do not run on Windows; use WSL2")
    try:
        if not _is_private(build_store.stat()):
            return NotStartable("the build store can be changed by other users, so nothing in it is run")
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return absent
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not _is_private(status):
            return NotStartable(
                f"native program {name[:16]}… can be changed by other users, so it is not run"
            )
        if hashlib.sha256(file.read()).digest() != sha256:
            return NotStartable(
                f"native program {name[:16]}… in the build store has another SHA-256: build again"
            )
    return path


def _is_private(status: os.stat_result) -> bool:
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@lru_cache(maxsize=1)
def _dies_with_parent() -> tuple[str, ...]:
    """A command prefix that sets PR_SET_PDEATHSIG, where there is one.

    `setpriv` sets it between fork and the program, so that no Python code runs in the fork of a process with
    threads. Without it the program ends when its socket and its standard input close.
    """
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None:
        return ()
    try:
        shown = subprocess.run([setpriv, "--help"], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return (setpriv, "--pdeathsig", "KILL", "--") if b"--pdeathsig" in shown.stdout else ()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started in its session: power is gone for them."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _Output:
    """Carries the program's standard output to the UART until it ends."""

    def __init__(self, ctx: BootContext, process: subprocess.Popen[bytes]) -> None:
        self._uart = ctx.uart
        assert process.stdout is not None
        self._pipe = process.stdout
        self._thread = threading.Thread(target=self._run, name="twin-app-output", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Wait until everything that the ended program wrote is on the UART."""
        self._thread.join(_DRAIN_S)

    def _run(self) -> None:
        with self._pipe:
            while data := os.read(self._pipe.fileno(), 1 << 16):
                self._uart.send(data)


class _Input:
    """Carries what the UART receives to the program's standard input."""

    def __init__(self, ctx: BootContext, process: subprocess.Popen[bytes]) -> None:
        self._uart = ctx.uart
        assert process.stdin is not None
        self._pipe = process.stdin
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="twin-app-input", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        """Stop reading the UART; the program is gone."""
        self._done.set()
        self._uart.interrupt()
        self._thread.join(_DRAIN_S)

    def _run(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while not self._done.is_set():
                data = memoryview(self._uart.recv(_INPUT_POLL_S))
                while data:
                    data = data[os.write(self._pipe.fileno(), data) :]
        with contextlib.suppress(OSError):
            self._pipe.close()
