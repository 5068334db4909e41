"""A unit on a serial port whose log was recorded before: each reset plays the next boot. Nothing may be sent to it."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from harness.chips import CHIPS
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image

PORT = "/dev/ttyQUALIFY0"
_BANNER = re.compile(rb"(?=ESP-ROM:esp32c3)")


def boots_of(path: Path) -> list[bytes]:
    """The boots in the log in `path`, each from its banner on."""
    return [boot for boot in _BANNER.split(path.read_bytes()) if boot]


class RecordedPort:
    """pyserial's interface, as far as a link and a reader use it."""

    def __init__(self, boots: list[bytes]) -> None:
        self._boots = list(boots)
        self._unread = b""
        self._lock = threading.Lock()
        self.written = b""
        self.lines: list[tuple[str, bool]] = []
        self.asked_for_download = False
        self.timeout: float | None = 0.05
        self.baudrate = 115_200
        self.is_open = True
        self._dtr = self._rts = False

    @classmethod
    def of_log(cls, path: Path) -> RecordedPort:
        """One that plays the log in `path`, boot by boot."""
        return cls(boots_of(path))

    def queue(self, boots: list[bytes]) -> None:
        """Plays these from now on."""
        with self._lock:
            self._boots = list(boots)

    def play(self, *, until: bytes | None = None) -> None:
        """The next boot, or the beginning of it (the rest stays)."""
        with self._lock:
            if not self._boots:
                return
            boot = self._boots.pop(0)
            if until is not None and until in boot:
                at = boot.index(until) + len(until)
                at = boot.index(b"\n", at) + 1
                self._boots.insert(0, boot[at:])
                boot = boot[:at]
            self._unread += boot

    def say(self, line: str) -> None:
        """The unit prints a line now."""
        with self._lock:
            self._unread += line.encode() + b"\r\n"

    @property
    def in_waiting(self) -> int:
        return len(self._unread)

    def read(self, size: int = 1) -> bytes:
        deadline = time.monotonic() + (self.timeout or 0)
        while True:
            with self._lock:
                data, self._unread = self._unread[:size], self._unread[size:]
            if data or time.monotonic() >= deadline:
                return data
            time.sleep(0.002)

    def write(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def close(self) -> None:
        self.is_open = False

    @property
    def dtr(self) -> bool:
        return self._dtr

    @dtr.setter
    def dtr(self, value: bool) -> None:
        self.lines.append(("dtr", value))
        self._dtr = value
        # GPIO0 held low while EN goes up is how a chip gets into download mode.
        self.asked_for_download |= value

    @property
    def rts(self) -> bool:
        return self._rts

    @rts.setter
    def rts(self, value: bool) -> None:
        self.lines.append(("rts", value))
        if self._rts and not value:
            self.play(until=self.stop_at)
        self._rts = value

    stop_at: bytes | None = None
    """A reset plays only up to this line of the next boot."""


def app_of(version: str, elf_sha256: str, *, project: str) -> bytes:
    """An image that says of itself what the one of a recorded log says; its code is none."""
    chip = CHIPS["esp32c3"]
    elf = bytes.fromhex(elf_sha256 + "00" * (32 - len(elf_sha256) // 2))
    description = AppDescription(version=version, project_name=project, elf_sha256=elf, idf_ver="v5.5.5")
    segment = Segment(chip.drom_base + 0x20, description.to_bytes() + bytes(1024))
    return build_app_image(chip, [segment], entry_point=chip.drom_base)
