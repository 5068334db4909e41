"""The lines of ROM and bootloader on the wire, with a modelled clock.

Line ends are CR LF. The clock counts what silicon spends: the UART at 115200 baud (the bootloader waits for
its FIFO) and the reading of images. Nothing is waited for.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

_UART_MS_PER_BYTE = 10 * 1000 / 115200
_READ_MS_PER_BYTE = 0.18 / 1024
"""About 5.5 MiB/s, what both chips reach when the bootloader checks a mapped image at 80 MHz DIO."""


class Sender(Protocol):
    """The part of `harness.twin.uart.Uart` that prints."""

    def send(self, data: bytes) -> None: ...


class Level(IntEnum):
    """``esp_log_level_t``."""

    NONE = 0
    ERROR = 1
    WARN = 2
    INFO = 3
    DEBUG = 4
    VERBOSE = 5


_LETTERS = {
    Level.ERROR: "E",
    Level.WARN: "W",
    Level.INFO: "I",
    Level.DEBUG: "D",
    Level.VERBOSE: "V",
}


class RomLines:
    """The ROM's console: lines without stamp or level; nothing when an eFuse has made it `silent`."""

    def __init__(self, uart: Sender, *, silent: bool = False) -> None:
        self._uart = uart
        self.silent = silent

    def say(self, text: str) -> None:
        if not self.silent:
            self._uart.send(text.encode("utf-8", "replace") + b"\r\n")


class BootLog:
    """The bootloader's log: ``I (123) tag: text``, lines above `level` left out.

    `clock_ms` is modelled time since reset in milliseconds; it only grows.
    """

    def __init__(self, uart: Sender, *, start_ms: float, level: int = Level.INFO) -> None:
        self._uart = uart
        self.clock_ms = start_ms
        self.level = level

    def error(self, tag: str, text: str) -> None:
        self.log(Level.ERROR, tag, text)

    def warn(self, tag: str, text: str) -> None:
        self.log(Level.WARN, tag, text)

    def info(self, tag: str, text: str) -> None:
        self.log(Level.INFO, tag, text)

    def debug(self, tag: str, text: str) -> None:
        self.log(Level.DEBUG, tag, text)

    def log(self, level: Level, tag: str, text: str) -> None:
        """Print one line and let the clock run by its time on the wire."""
        if level > self.level:
            return
        line = f"{_LETTERS[level]} ({int(self.clock_ms)}) {tag}: {text}\r\n".encode("utf-8", "replace")
        self._uart.send(line)
        self.clock_ms += len(line) * _UART_MS_PER_BYTE

    def say(self, text: str) -> None:
        """Print a line of the ROM's, whose routines the bootloader calls: no stamp, whatever the level."""
        line = text.encode("utf-8", "replace") + b"\r\n"
        self._uart.send(line)
        self.clock_ms += len(line) * _UART_MS_PER_BYTE

    def spent(self, milliseconds: float) -> None:
        """Let the clock run by what the chip was busy with, without a line."""
        self.clock_ms += milliseconds

    def spent_reading(self, size_bytes: int) -> None:
        """Let the clock run by the time it takes to read and check `size_bytes` of flash."""
        self.clock_ms += size_bytes * _READ_MS_PER_BYTE
