"""The built-in virtual board: a process of its own, its UART on a loopback TCP port."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import Any, ClassVar

import serial
from filelock import FileLock, Timeout

import harness
from harness.errors import InUseError, LabError, LinkError
from harness.links.counting import CountingPort
from harness.links.emulator_state import keep_sdkconfig
from harness.links.flash_log import FLASH_KINDS, FlashChange
from harness.links.link import BootMode, Link

START_TIMEOUT_S = 60.0
"""A twin is up in under a second; sixty cover a machine that swaps."""

STOP_TIMEOUT_S = 20.0

EARLIER_TIMEOUT_S = 10.0
"""The twin of a harness that was killed a moment ago may still be ending; one that somebody else serves stays, and who
named its state by mistake is not to wait for long."""

_SAID_NOTHING = "it said nothing"


class TwinLink(Link):
    """Starts ``python -m harness.twin`` on a state folder and ends it with itself.

    The twin is tied to our standard input pipe: when this process dies, however it dies, the twin ends too.
    """

    physical: ClassVar[bool] = False
    kind: ClassVar[str] = "twin"
    runs_native: ClassVar[bool] = True
    capabilities: ClassVar[frozenset[str]] = frozenset(
        {"fault-injection", "flash-log", "power", "uart-download"}
    )

    def __init__(
        self, chip: str, state: Path, build_store: Path, *, mac: str | None = None, board: str | None = None
    ) -> None:
        self._board = board
        self.state = state
        """The folder that holds its flash and eFuses."""
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        _await_earlier(state)
        command = [sys.executable, "-m", "harness.twin", "--chip", chip, "--state", str(state)]
        command += ["--build-store", str(build_store), "--boot", "off", "--tie-to-stdin"]
        command += ["--mac", mac] if mac else []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=twin_environment(),
            # A Ctrl-C at the terminal is for the harness, which then ends the twin in order.
            start_new_session=True,
        )
        self._stderr: deque[str] = deque(maxlen=40)
        self._stderr_reader = threading.Thread(target=self._keep_stderr, name="twin-stderr", daemon=True)
        self._stderr_reader.start()
        self.hello = self._await_hello()
        self.mac = str(self.hello["mac"])
        self.pid = self._process.pid
        self._port: CountingPort | None = None
        self._control: _Control | None = None

    def _keep_stderr(self) -> None:
        assert self._process.stderr is not None
        for raw in self._process.stderr:
            self._stderr.append(raw.decode(errors="replace").rstrip())

    def _await_hello(self) -> dict[str, Any]:
        """The one line of JSON that the twin prints when it is ready."""
        assert self._process.stdout is not None
        line: list[bytes] = []
        stdout = self._process.stdout
        reader = threading.Thread(target=lambda: line.append(stdout.readline()), daemon=True)
        reader.start()
        reader.join(START_TIMEOUT_S)
        if not line or not line[0].strip():
            status = self._process.poll()
            self._process.kill()
            self._process.wait()
            self._stderr_reader.join(1.0)
            self._close_streams()
            said = (
                "\n".join(self._stderr).removeprefix("error: ") or f"{_SAID_NOTHING} (exit status {status})"
            )
            raise _kind_of(said)(f"the twin did not start: {said}", board=self._board)
        hello: dict[str, Any] = json.loads(line[0])
        return hello

    @property
    def ended(self) -> str | None:
        """How the twin's process ended although nobody asked it to; None while it lives."""
        try:
            # Its sockets close a moment before its process has ended.
            status = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            return None
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the twin's process ended with {how}" + "".join(f"; {line}" for line in self._stderr)

    @property
    def description(self) -> str:
        return f"twin ({self.hello['uart']})"

    @property
    def port(self) -> Any:
        if self._port is None:
            try:
                port = serial.serial_for_url(
                    str(self.hello["uart"]), baudrate=self.console_baud, timeout=0.05
                )
                self._port = CountingPort(port)
            except (serial.SerialException, OSError) as error:
                raise LinkError(f"the twin's UART cannot be opened: {error}", board=self._board) from error
        return self._port

    def control(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One request on the twin's control channel; see ``harness/twin/`` for the operations.

        Raises:
            LabError: the twin is gone, or refuses.
        """
        if self._control is None:
            self._control = _Control(str(self.hello["control"]))
        try:
            reply = self._control.request({"op": op, **arguments})
        except (OSError, ValueError) as error:
            status = self._process.poll()
            said = "; ".join(self._stderr) or "it said nothing"
            how = f"it ended with status {status}: {said}" if status is not None else str(error)
            raise LinkError(f"the twin does not answer '{op}': {how}", board=self._board) from error
        if not reply.get("ok"):
            raise LabError(f"the twin refuses '{op}': {reply.get('error')}", board=self._board)
        return reply

    def reset(self, mode: BootMode) -> None:
        self.control("reset", boot=mode.value, power=True)

    def keep_sdkconfig(self, text: str | None) -> None:
        keep_sdkconfig(self.state, text)

    def inject(self, kind: str, **arguments: int) -> None:
        self.control("fault", kind=kind, **arguments)

    def flash_log(self, since: int) -> tuple[tuple[FlashChange, ...], int]:
        reply = self.control("flash-log", since=since)
        changes = (
            FlashChange(int(boot), str(who), str(kind), int(offset), int(length), float(at_s))
            for (_number, kind, offset, length, who, boot), at_s in zip(
                reply["ops"], reply["at"], strict=True
            )
            if kind in FLASH_KINDS
        )
        return tuple(changes), int(reply["next"])

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._port is not None:
            self._port.close()
            self._port = None
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr_reader.join(STOP_TIMEOUT_S)
        self._close_streams()

    def _close_streams(self) -> None:
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


def _kind_of(said: str) -> type[LabError]:
    """Whether what a twin said when it did not start is a matter of the board, of another user, or of this machine."""
    if "in use by" in said:
        return InUseError
    # Killed before it could say anything, no room for its files, or an entry that means another board's state.
    elsewhere = (_SAID_NOTHING, os.strerror(errno.ENOSPC), "belongs to a board of chip")
    return LabError if any(words in said for words in elsewhere) else LinkError


def _await_earlier(state: Path) -> None:
    """Waits until no twin holds `state` (its file ``lock``); if one stays, ours will say which."""
    try:
        with FileLock(state / "lock", timeout=EARLIER_TIMEOUT_S):
            pass
    except (Timeout, OSError):
        pass


class _Control:
    """JSON lines over TCP, one request at a time."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60.0)
        self._file = self._socket.makefile("rb")
        self._lock = threading.Lock()

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            line = self._file.readline()
        if not line:
            raise ConnectionResetError("the control connection was closed")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def twin_environment() -> dict[str, str]:
    """Only what Python and a C program need: no secret of the harness's own environment travels."""
    kept = (
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "TEMP",
        "TMP",
        "SYSTEMROOT",
        "VIRTUAL_ENV",
        "LD_LIBRARY_PATH",
    )
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    package_parent = str(Path(harness.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [package_parent, os.environ.get("PYTHONPATH", "")])
    )
    environment["PYTHONUNBUFFERED"] = "1"
    return environment
