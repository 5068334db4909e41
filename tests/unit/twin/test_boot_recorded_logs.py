"""The twin prints, line for line, what ROM and bootloader printed in logs of real ESP-IDF firmware.

Each recorded boot is rebuilt: images with the segments that the log names, a partition table as printed, an
otadata that leads to the same choice. Time stamps are left out of the comparison.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import boot_board
import pytest
from boot_board import Board, otadata, record, without_stamps

from harness.formats.app_image import Segment, build_app_image
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.otadata import OtaData, OtaState
from harness.formats.partition import Partition
from harness.formats.partition_table import PartitionTable
from harness.twin import image_verify
from harness.twin.boot_context import LoadedApp
from harness.twin.rpc import CollectedLog

LOGS = Path(__file__).parents[2] / "data" / "twin"
_SEGMENT = re.compile(r"esp_image: segment \d+: paddr=(\w{8}) vaddr=(\w{8}) size=(\w+)h")
_LOAD = re.compile(r"load:0x(\w{8}),len:(\w+)")
_ENTRY = re.compile(r"boot: [ \d]\d (\S+) .*? (\w\w) (\w\w) (\w{8}) (\w{8})$")


@dataclass(frozen=True)
class RecordedBoot:
    chip: str
    lines: tuple[str, ...]
    verified_after: tuple[str, ...]
    """What the application's own image check printed after this boot, if it did one."""

    def find(self, pattern: str) -> re.Match[str] | None:
        return next((m for line in self.lines if (m := re.search(pattern, line))), None)

    @property
    def reason(self) -> int:
        found = self.find(r"^rst:0x(\w+)")
        assert found
        return int(found[1], 16)

    @property
    def loaded_offset(self) -> int:
        found = self.find(r"Loaded app from partition at offset 0x(\w+)")
        assert found
        return int(found[1], 16)

    @property
    def table(self) -> PartitionTable:
        matches = [m for line in self.lines if (m := _ENTRY.search(line))]
        return PartitionTable(
            tuple(
                Partition(m[1], int(m[2], 16), int(m[3], 16), int(m[4], 16), int(m[5], 16)) for m in matches
            )
        )

    @property
    def flash_size_bytes(self) -> int:
        found = self.find(r"SPI Flash Size : (\d+)MB")
        assert found
        return int(found[1]) << 20


@lru_cache
def recorded_boots(name: str) -> tuple[RecordedBoot, ...]:
    chip = name.split("-")[0]
    text = (LOGS / f"{name}.boots.log").read_text()
    boots = []
    for part in re.split(r"(?m)^(?=ets Jul|ESP-ROM)", text)[1:]:
        lines = without_stamps(part)
        end = next(i for i, line in enumerate(lines) if "Disabling RNG" in line) + 1
        boots.append(RecordedBoot(chip, tuple(lines[:end]), tuple(lines[end:])))
    return tuple(boots)


def image_of(board: Board, lines: tuple[str, ...]) -> bytes:
    """An image with the segments that these log lines name; its content is zeros."""
    segments = []
    for match in (m for line in lines if (m := _SEGMENT.search(line))):
        size = int(match[3], 16)
        head = boot_board.description("1.0.0").to_bytes() if not segments else b""
        segments.append(Segment(int(match[2], 16), head.ljust(size, b"\0")))
    return build_app_image(board.chip, segments, entry_point=segments[0].load_address)


def bootloader_of(board: Board, boot: RecordedBoot, config: BootloaderConfig) -> bytes:
    segments = []
    for match in (m for line in boot.lines if (m := _LOAD.match(line))):
        size = int(match[2], 0)
        head = config.to_segment_data() if not segments else b""
        segments.append(Segment(int(match[1], 16), head.ljust(size, b"\0")))
    entry = boot.find(r"^entry 0x(\w+)")
    assert entry
    return build_app_image(
        board.chip,
        segments,
        entry_point=int(entry[1], 16),
        flash_size_bytes=boot.flash_size_bytes,
        spi_speed=0xF if boot.chip == "esp32c3" else 0,
    )


def config_of(boot: RecordedBoot, table_offset: int) -> BootloaderConfig:
    compiled = boot.find(r"compile time (.*)$")
    assert compiled
    config = replace(boot_board.CONFIG, table_offset=table_offset, compile_time=compiled[1])
    if boot.find("Checking flash encryption"):
        return config
    return replace(config, flash_encryption="off", require_encrypted=False)


def put_otadata(board: Board, boot: RecordedBoot) -> None:
    """Make the otadata that leads to this boot's choice of slot."""
    place = boot.table.otadata
    if place is None:
        return
    if boot.find("ota data partition invalid"):
        board.put(place.offset, b"\xff" * 0x2000, raw=True)
    elif boot.find("No factory image"):
        board.put(place.offset, OtaData.blank().to_bytes())
    else:
        slots = [slot.offset for slot in boot.table.ota_slots]
        sequence = slots.index(boot.loaded_offset) + 3
        records = otadata(record(sequence, OtaState.NEW), record(sequence - 1, OtaState.VALID))
        board.put(place.offset, records.to_bytes())


CASES = [
    ("esp32-hello-idf5.5", 1),
    ("esp32-plain-ota-idf5.5", 2),
    ("esp32-fe-positive-idf5.5", 4),
    ("esp32c3-fe-positive-idf5.5", 4),
    ("esp32c3-fe-neg-otadata-erased-idf5.5", 5),
]


@pytest.mark.parametrize(("name", "count"), CASES)
def test_every_recorded_boot_is_printed_line_for_line(name: str, count: int, tmp_path: Path) -> None:
    boots = recorded_boots(name)
    assert len(boots) == count
    encrypted = boots[0].find("Checking flash encryption") is not None
    board = Board.named(boots[0].chip, tmp_path, encrypted=encrypted, flash_bytes=4 << 20)
    in_flash: dict[int, tuple[str, ...]] = {}
    for boot in boots:
        offset = boot.loaded_offset
        segments = tuple(line for line in boot.lines if _SEGMENT.search(line))
        if in_flash.get(offset) != segments:
            board.put(offset, image_of(board, boot.lines))
            in_flash[offset] = segments
        table_offset = boot.table.partitions[0].offset - 0x1000
        board.put(board.chip.bootloader_offset, bootloader_of(board, boot, config_of(boot, table_offset)))
        board.put(table_offset, boot.table.to_binary())
        put_otadata(board, boot)
        outcome = board.boot(boot.reason)
        assert board.lines == list(boot.lines)
        assert isinstance(outcome, LoadedApp)
        assert outcome.offset == offset


@pytest.mark.parametrize("name", ["esp32-fe-positive-idf5.5", "esp32c3-fe-positive-idf5.5"])
def test_the_apps_own_image_check_logs_as_recorded(name: str, tmp_path: Path) -> None:
    boot = next(boot for boot in recorded_boots(name) if boot.verified_after)
    board = Board.named(boot.chip, tmp_path, encrypted=True, flash_bytes=4 << 20)
    board.put(boot_board.OTA_1, image_of(board, boot.verified_after))
    log = CollectedLog()
    check = image_verify.ImageCheck(
        board.chip, board.context.cipher, board.efuses, 300, board.flash.size_bytes, log, load=False
    )
    check.verify(boot_board.OTA_1, 0x180000)
    assert log.lines == [f"{line}\n" for line in boot.verified_after]


def test_stamps_grow_and_look_like_milliseconds_since_reset(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision()
    outcome = board.boot()
    stamps = [int(n) for n in re.findall(r"(?m)^I \((\d+)\) ", board.printed.decode())]
    assert stamps == sorted(stamps)
    assert 0 < stamps[0] < 100
    assert isinstance(outcome, LoadedApp)
    assert stamps[-1] <= outcome.started_ms < 2000
