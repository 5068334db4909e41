"""A board in download mode without process and port: frames in, answers out, in one thread."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

from harness.chips import CHIPS
from harness.twin import download
from harness.twin.boot_context import BootContext
from harness.twin.cipher import FlashCipher
from harness.twin.efuses import Efuses, factory_content
from harness.twin.flash import Flash
from harness.twin.operations import OperationLog
from harness.twin.uart import Uart

MAC = bytes.fromhex("7cdfa1010203")


class ScriptedUart(Uart):
    """Hands out one part of its input at a time, and stops the board when there is no more."""

    def __init__(self) -> None:
        super().__init__()
        self.script: deque[bytes] = deque()
        self.stop = threading.Event()
        self.answers: list[bytes] = []
        self.attach(self._take)

    def recv(self, timeout_s: float) -> bytes:
        if not self.script:
            self.stop.set()
            return b""
        self.answers.append(b"")
        return self.script.popleft()

    def _take(self, data: bytes) -> None:
        if self.answers:
            self.answers[-1] += data


class Bench:
    """Flash, eFuses and UART of one board in `folder`."""

    def __init__(self, folder: Path, chip: str = "esp32c3", flash_bytes: int = 4 << 20) -> None:
        self.chip = CHIPS[chip]
        self.operations = OperationLog()
        flash_file, efuse_file = folder / "flash.bin", folder / "efuse.bin"
        if not flash_file.exists():
            flash_file.write_bytes(b"\xff" * flash_bytes)
        if not efuse_file.exists():
            efuse_file.write_bytes(factory_content(self.chip, MAC))
        self.flash = Flash(flash_file, self.operations)
        self.efuses = Efuses(self.chip, efuse_file, self.operations)
        self.uart = ScriptedUart()
        self.outcome: object = None

    def close(self) -> None:
        self.flash.close()
        self.efuses.close()

    def talk(self, *frames: bytes) -> list[bytes]:
        """Boot into download mode and send `frames`; returns what came back after each."""
        self.uart = ScriptedUart()
        self.uart.script.extend(frames)
        context = BootContext(
            chip=self.chip,
            flash=self.flash,
            efuses=self.efuses,
            cipher=FlashCipher(self.chip, self.flash, self.efuses),
            uart=self.uart,
            stop=self.uart.stop,
            state_dir=Path(),
            build_store=Path(),
            since_boot=lambda: 0.0,
        )
        self.outcome = download.serve(context, 1)
        answers = self.uart.answers
        return answers + [b""] * (len(frames) - len(answers))


def answers_in(data: bytes) -> list[bytes]:
    """The packets in a stretch of the wire."""
    parts = (part for part in data.split(b"\xc0") if part)
    return [part.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb") for part in parts]


def status_of(data: bytes) -> tuple[int, int]:
    """(status, error) of the one ROM answer in `data`."""
    (answer,) = answers_in(data)
    return answer[-4], answer[-3]
