"""What a boot works on, and how it can end: the words between the machine, ROM, bootloader and app host."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.chips import Chip

if TYPE_CHECKING:
    from harness.twin.cipher import FlashCipher
    from harness.twin.efuses import Efuses
    from harness.twin.flash import Flash
    from harness.twin.uart import Uart

RESET_POWERON = 0x1
RESET_SOFTWARE_SYSTEM = 0x3
"""``bootloader_reset()``: SW_RESET on ESP32, RTC_SW_SYS_RST on ESP32-C3."""
RESET_TIMER_GROUP_WATCHDOG = 0x7
RESET_SOFTWARE_CPU = 0xC
"""``esp_restart()`` and the end of a panic: SW_CPU_RESET on ESP32, RTC_SW_CPU_RST on ESP32-C3."""
RESET_RTC_WATCHDOG = 0x10


@dataclass(slots=True)
class BootContext:
    """The board as ROM, bootloader and app host see it.

    `since_boot` gives seconds since the last reset; `stop` is set by the machine to end whatever runs.
    """

    chip: Chip
    flash: Flash
    efuses: Efuses
    cipher: FlashCipher
    uart: Uart
    stop: threading.Event
    state_dir: Path
    build_store: Path
    since_boot: Callable[[], float]
    random_bytes: Callable[[int], bytes] = secrets.token_bytes
    """What a key of the device is made of; an explorer, which does the same again, has it repeat itself."""
    restart_hint: int = 0
    """arg0 of the last app's RESTART request, which the next app may ask for: on a chip it survives a
    software reset in RTC memory (``esp_reset_reason_set_hint``)."""


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """The bootloader accepted an app and would jump into it."""

    offset: int
    """Flash address of the partition (and of the image in it)."""
    size: int
    """Size of the partition in bytes."""
    label: str
    table_offset: int
    image_size: int
    """Length of the image in bytes, its SHA-256 included."""
    reset_reason: int
    started_ms: int
    """The bootloader's clock when it handed over; the app's clock goes on from here."""


@dataclass(frozen=True, slots=True)
class RomLoop:
    """The ROM found nothing to start; a watchdog resets the chip.

    The ROM prints `line` (None: nothing) `repeats` times, `interval_s` apart, then the watchdog strikes with
    `reset_reason`. The rhythm is that of silicon at 115200 baud; `harness.twin.rom_boot.wait_for_reset`
    keeps it.
    """

    line: str | None
    repeats: int
    interval_s: float
    reset_reason: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The bootloader resets the chip with `reset_reason`, `after_s` modelled seconds after it began."""

    reset_reason: int
    after_s: float


@dataclass(frozen=True, slots=True)
class Halted:
    """Nothing more happens until somebody resets the board; `why` is for the control channel."""

    why: str


Outcome = LoadedApp | RomLoop | Reset | Halted
