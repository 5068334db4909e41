"""The real thing: a twin process, and sessions with its ROM through esptool and espefuse over a socket."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import serial

from harness.chips import Chip
from harness.provision.rom import RomSession


class TwinBench:
    """One twin, started on `state`; ends with `close` (or with this process: it is tied to our pipe)."""

    def __init__(self, chip: Chip, state: Path) -> None:
        self.chip = chip
        state.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "harness.twin", "--chip", chip.name, "--state", str(state)]
        command += ["--build-store", str(state / "store"), "--boot", "off", "--tie-to-stdin"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        hello = json.loads(self._process.stdout.readline())
        self.mac = hello["mac"].lower()
        host, port = hello["control"].rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._control = self._socket.makefile("rwb")
        self.port = serial.serial_for_url(hello["uart"], baudrate=115200, timeout=0.05)
        self.log: list[str] = []

    def control(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One request on the twin's control channel."""
        self._control.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        self._control.flush()
        reply: dict[str, Any] = json.loads(self._control.readline())
        assert reply["ok"], reply
        return reply

    @contextmanager
    def session(self) -> Iterator[RomSession]:
        """Resets into download mode and lends the port."""
        self.control("reset", boot="download", power=True)
        self.port.reset_input_buffer()
        with RomSession(self.port, self.chip, board="bench", log=self.log.append) as session:
            yield session

    def stop(self) -> None:
        """Ends the process, as a crash would: the wire is cut."""
        self.control("stop")
        self._process.wait(60)

    def close(self) -> None:
        """Ends the twin."""
        self._control.close()
        self._socket.close()
        wire = self.port._socket
        self.port.close()
        wire.close()  # pyserial leaves it open when the other end was faster
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()
