"""What the console tests are made of: lines, events and boots as a board prints them."""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable
from pathlib import Path

from harness.console.boot_record import BootRecord
from harness.console.boot_tracker import BootTracker
from harness.console.log_line import Line, LineKind, printable_text

RECORDED_LOGS = Path(__file__).parents[2] / "data" / "logs"


def lines_from(texts: Iterable[str | bytes]) -> list[Line]:
    """One line per text; a text that starts with ``>>> `` is a mark."""
    lines = []
    for n, text in enumerate(texts):
        raw = text.encode() if isinstance(text, str) else text
        if raw.startswith(b">>> "):
            lines.append(Line(n, float(n), raw[4:].decode(), kind=LineKind.MARK))
        else:
            lines.append(Line(n, float(n), printable_text(raw), raw))
    return lines


def tracked(texts: Iterable[str | bytes]) -> BootTracker:
    tracker = BootTracker()
    for line in lines_from(texts):
        tracker.feed(line)
    return tracker


def boots_of(texts: Iterable[str | bytes]) -> tuple[BootRecord, ...]:
    return tracked(texts).records


def event_text(n: int, ev: str, **data: object) -> str:
    """An event line as the firmware prints it."""
    body = json.dumps({"n": n, "ev": ev, **data}, separators=(",", ":"))[:-1]
    return f'@evt {body},"crc":"{binascii.crc32(body.encode()):08x}"}}'


def esp32_rom(reset: str = "0x1 (POWERON_RESET)") -> list[str]:
    return [
        "ets Jul 29 2019 12:21:46",
        "",
        f"rst:{reset},boot:0x13 (SPI_FAST_FLASH_BOOT)",
        "configsip: 0, SPIWP:0xee",
        "mode:DIO, clock div:2",
        "load:0x3fff0030,len:7104",
        "entry 0x40080574",
    ]


def c3_rom(reset: str = "0x1 (POWERON)") -> list[str]:
    return [
        "ESP-ROM:esp32c3-api1-20210207",
        "Build:Feb  7 2021",
        f"rst:{reset},boot:0xf (SPI_FAST_FLASH_BOOT)",
        "SPIWP:0xee",
        "mode:DIO, clock div:1",
        "entry 0x403cc710",
    ]


PARTITIONS = [
    "I (35) boot: ## Label            Usage          Type ST Offset   Length",
    "I (39) boot:  0 nvs              WiFi data        01 02 00011000 00004000",
    "I (40) boot:  1 otadata          OTA data         01 00 00015000 00002000",
    "I (41) boot:  2 ota_0            OTA app          00 10 00020000 00180000",
    "I (41) boot:  3 ota_1            OTA app          00 11 001a0000 00180000",
    "I (42) boot: End of partition table",
]
OFFSETS = {"ota_0": 0x20000, "ota_1": 0x1A0000}


def booted(
    slot: str,
    version: str,
    *,
    rom: list[str] | None = None,
    extra: Iterable[str] = (),
    state: str | None = None,
) -> list[str]:
    """A whole boot of `version` in `slot` on an encrypted C3, `extra` lines in the bootloader."""
    lines = [
        *(rom if rom is not None else c3_rom("0xc (RTC_SW_CPU_RST)")),
        "I (1) boot: ESP-IDF v5.5.5 2nd stage bootloader",
    ]
    lines += [*PARTITIONS, *extra]
    lines += [
        f"I (240) boot: Loaded app from partition at offset 0x{OFFSETS[slot]:x}",
        "I (252) boot: Checking flash encryption...",
        "I (253) flash_encrypt: flash encryption is enabled (0 plaintext flashes left)",
        "I (255) boot: Disabling RNG early entropy source...",
        "I (288) cpu_start: Unicore app",
        "I (306) app_init: Application information:",
        "I (306) app_init: Project name:     companion",
        f"I (306) app_init: App version:      {version}",
        "I (323) flash_encrypt: Flash encryption mode is RELEASE",
        "I (333) main_task: Calling app_main()",
    ]
    if state is not None:
        lines.append(
            event_text(
                0,
                "boot",
                slot=slot,
                offset=OFFSETS[slot],
                version=version,
                state=state,
                fe="release",
                agree=True,
            )
        )
    return lines
