"""The twin prints, line for line, what ROM and bootloader printed in logs of real ESP-IDF firmware.

Each recorded boot is rebuilt: images with the segments that the log names, a partition table as printed, an
otadata that leads to the same choice. Time stamps are left out of the comparison.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import boot_board
import pytest
from boot_board import Board, otadata, record, without_stamps
from signing_bench import burn_digest, enable_secure_boot, signed

from harness.formats.app_image import Segment, build_app_image
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.otadata import OtaData, OtaState
from harness.formats.partition import Partition
from harness.formats.partition_table import PartitionTable
from harness.twin.boot_context import LoadedApp
from harness.twin.rpc import Op, Request, RpcServer

LOGS = Path(__file__).parents[2] / "data" / "twin"
_SEGMENT = re.compile(r"esp_image: segment \d+: paddr=(\w{8}) vaddr=(\w{8}) size=(\w+)h")
_LOAD = re.compile(r"load:0x(\w{8})[, ]len:(\w+)")
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
    def is_signed(self) -> bool:
        return self.find("secure boot verification succeeded") is not None

    @property
    def is_release(self) -> bool:
        return self.find(r"\(0 plaintext flashes left\)") is not None

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
    config = replace(
        boot_board.CONFIG,
        table_offset=table_offset,
        compile_time=compiled[1],
        secure_boot=boot.is_signed,
    )
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
    ("esp32c3-sb-positive-idf5.5", 4),
    ("esp32-preencrypted-secure-raw-ota-idf5.5", 2),
]


def board_of(boot: RecordedBoot, folder: Path) -> Board:
    """A board in the state that this boot's log tells of."""
    encrypted = boot.find("Checking flash encryption") is not None
    released = encrypted and boot.is_release
    board = Board.named(boot.chip, folder, encrypted=released, flash_bytes=4 << 20)
    if encrypted and not released:
        board.burn_key(board.key)
        board.efuses.burn_field(board.chip.fuses.counter, 1)
        board.encrypted = True
    if boot.is_signed:
        burn_digest(board)
        enable_secure_boot(board)
    return board


def signed_as(boot: RecordedBoot, image: bytes) -> bytes:
    return signed(image) if boot.is_signed else image


@pytest.mark.parametrize(("name", "count"), CASES)
def test_every_recorded_boot_is_printed_line_for_line(name: str, count: int, tmp_path: Path) -> None:
    boots = recorded_boots(name)
    assert len(boots) == count
    board = board_of(boots[0], tmp_path)
    in_flash: dict[int, tuple[str, ...]] = {}
    for boot in boots:
        offset = boot.loaded_offset
        segments = tuple(line for line in boot.lines if _SEGMENT.search(line))
        if in_flash.get(offset) != segments:
            board.put(offset, signed_as(boot, image_of(board, boot.lines)))
            in_flash[offset] = segments
        table_offset = boot.table.partitions[0].offset - 0x1000
        bootloader = bootloader_of(board, boot, config_of(boot, table_offset))
        board.put(board.chip.bootloader_offset, signed_as(boot, bootloader))
        board.put(table_offset, boot.table.to_binary())
        put_otadata(board, boot)
        outcome = board.boot(boot.reason)
        assert board.lines == list(boot.lines)
        assert isinstance(outcome, LoadedApp)
        assert outcome.offset == offset


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("esp32-fe-positive-idf5.5", 0),
        ("esp32c3-fe-positive-idf5.5", 0),
        ("esp32-preencrypted-secure-raw-ota-idf5.5", 0),
        ("esp32c3-sb-positive-idf5.5", 0),
        ("esp32c3-sb-neg-unsigned-idf5.5", 0x2002),
    ],
)
def test_the_apps_own_image_check_logs_as_recorded(name: str, status: int, tmp_path: Path) -> None:
    boot = next(boot for boot in recorded_boots(name) if boot.verified_after)
    board = board_of(boot, tmp_path)
    image = image_of(board, boot.verified_after)
    board.put(boot_board.OTA_1, image if status else signed_as(boot, image))
    app = LoadedApp(boot_board.OTA_0, 0x180000, "ota_0", boot_board.TABLE_OFFSET, 0x1000, 1, 0)
    with socket.socket() as unused:
        server = RpcServer(board.context, app, unused)
    wanted = bytes([1 if boot.is_signed else 0])
    reply = server.answer(Request(Op.IMAGE_VERIFY, boot_board.OTA_1, 0x180000, wanted))
    assert reply.status == status
    assert reply.data.decode().splitlines() == list(boot.verified_after)


def test_stamps_grow_and_look_like_milliseconds_since_reset(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    board.provision()
    outcome = board.boot()
    stamps = [int(n) for n in re.findall(r"(?m)^I \((\d+)\) ", board.printed.decode())]
    assert stamps == sorted(stamps)
    assert 0 < stamps[0] < 100
    assert isinstance(outcome, LoadedApp)
    assert stamps[-1] <= outcome.started_ms < 2000
