"""What ESP-IDF's bootloader made of stored states under the mask ROM in an emulator, as data: ``tests/data/cuts``.

A state is what lies in otadata (deciphered), what became of the two slots, and the secure version in the eFuses. All
of a file's boards have the same partition table.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.formats.bootloader_config import BootloaderConfig

RECORDINGS = Path(__file__).parents[2] / "data" / "cuts"

MOST_FAILED_BOOTS = 2
"""A board whose bootloader gives up is in a loop; so many rounds of it were recorded."""

_STAMP = re.compile(r"^([EWIDV]) \(\d+\) ")
_BUILD_DEPENDENT = (
    # Segments differ between a target's build and the images of a test; so does what they hold where it is spoiled.
    (re.compile(r"^(load:0x)\w+,len:\w+$"), "load:…"),
    (re.compile(r"^ho 0 tail \d+ room \d+$"), "load:…"),
    (re.compile(r"^entry 0x\w+$"), "entry …"),
    (re.compile(r"^Saved PC:0x\w+$"), "Saved PC:…"),
    (re.compile(r"(compile time) .*$"), r"\1 …"),
    (re.compile(r"(esp_image: segment) \d+: paddr=.*$"), r"\1 …"),
    (re.compile(r"(esp_image: Checksum failed\.) .*$"), r"\1 …"),
)


def as_recorded(lines: Iterable[str]) -> list[list[str]]:
    """Lines of ROM and bootloader, one list per boot, without time stamps; what depends on the build is left open."""
    boots: list[list[str]] = []
    for text in lines:
        line = _STAMP.sub(r"\1 ", text)
        for pattern, blank in _BUILD_DEPENDENT:
            line = pattern.sub(blank, line)
        if not boots or line.startswith(("ets Jul", "ESP-ROM:")):
            boots.append([])
        if not boots[-1] or not (line.endswith("…") and line == boots[-1][-1]):
            boots[-1].append(line)
    return boots


@dataclass(frozen=True)
class RecordedBoard:
    """The board that a state was booted on."""

    name: str
    config: BootloaderConfig
    spi_speed: int
    """Code in the header of its bootloader."""
    encrypted: bool
    secure_versions: tuple[int, int]
    """Of the apps in both slots."""


@dataclass(frozen=True)
class RecordedState:
    """A stored state, what was printed at its boots, and what was left of it."""

    origin: str
    """The sequence and the cut that leave it, or the kinds of its records."""
    board: RecordedBoard
    records: tuple[bytes, bytes]
    slots: tuple[str, str]
    """``good``, or how the image was spoiled: ``erased``, ``zeros`` (its first sector), ``flipped`` (a bit)."""
    secure_version: int
    boots: tuple[tuple[str, ...], ...]
    records_after: tuple[bytes, bytes]
    secure_version_after: int


@lru_cache
def recorded_states(chip: str) -> tuple[RecordedState, ...]:
    """All of them, in the file's order."""
    text = gzip.decompress((RECORDINGS / f"{chip}-idf5.5.json.gz").read_bytes())
    data: dict[str, Any] = json.loads(text)
    boards = [
        RecordedBoard(
            row["name"],
            BootloaderConfig(**row["config"]),
            row["spi_speed"],
            row["encrypted"],
            tuple(row["secure_versions"]),
        )
        for row in data["boards"]
    ]
    boots = [tuple(lines) for lines in data["boots"]]
    states = []
    for origin, board, records, slots, version, numbers, after, version_after in data["states"]:
        before = (bytes.fromhex(records[0]), bytes.fromhex(records[1]))
        states.append(
            RecordedState(
                origin,
                boards[board],
                before,
                tuple(slots),
                version,
                tuple(boots[number] for number in numbers),
                tuple(bytes.fromhex(x) if x else y for x, y in zip(after, before, strict=True)),  # type: ignore[arg-type]
                version_after,
            )
        )
    return tuple(states)
