"""A twin as its users see it: a process with a UART port and a control port."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def command(chip: str, folder: Path, *more: str) -> list[str]:
    store = folder.parent / "store"
    base = [sys.executable, "-m", "harness.twin", "--chip", chip, "--state", str(folder)]
    return [*base, "--build-store", str(store), *more]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}


class TwinProcess:
    """Started at once; `close` ends it."""

    def __init__(self, chip: str, folder: Path, *more: str, boot: str = "download") -> None:
        self.chip = chip
        self.folder = folder
        self.process = subprocess.Popen(
            command(chip, folder, "--boot", boot, *more),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read().decode())
        self.started: dict[str, Any] = json.loads(line)
        host, port = self.started["control"].split(":")
        self._control = socket.create_connection((host, int(port)), timeout=60)
        self._answers = self._control.makefile("rb")

    @property
    def url(self) -> str:
        return str(self.started["uart"])

    def uart(self) -> socket.socket:
        host, port = self.url.removeprefix("socket://").split(":")
        return socket.create_connection((host, int(port)), timeout=60)

    def tell(self, op: str, **values: Any) -> dict[str, Any]:
        return self.send(json.dumps({"op": op, **values}).encode() + b"\n")

    def send(self, line: bytes) -> dict[str, Any]:
        self._control.sendall(line)
        answer: dict[str, Any] = json.loads(self._answers.readline())
        return answer

    def flash(self, address: int, size: int) -> bytes:
        return (self.folder / "flash.bin").read_bytes()[address : address + size]

    def close(self) -> None:
        self._answers.close()
        self._control.close()
        self.process.terminate()
        self.process.wait(timeout=60)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def read_until(connection: socket.socket, needle: bytes, limit: int = 1 << 16) -> bytes:
    """What arrives up to and including `needle`; a time-out is an error."""
    data = b""
    while needle not in data and len(data) < limit:
        part = connection.recv(4096)
        assert part, f"the board closed the line after {data!r}"
        data += part
    return data
