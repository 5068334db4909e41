"""No app is loaded over the bootloader that loads it: where a segment may go, as ESP-IDF's bootloader answers.

``segments-over-bootloader-idf5.5.5.json`` was recorded under the mask ROMs of ESP32 and ESP32-C3 in QEMU: an app with one
more segment, at addresses all over RAM. Per answer: address, length, and the addresses and reason of the refusal as the
log has them, null where the app was loaded. The bootloader's own segments stand beside it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from boot_board import KINDS, OTA_0, OTA_1, Board, description, otadata, record

from harness.chips import CHIPS, Chip
from harness.formats.app_image import Segment, build_app_image
from harness.formats.otadata import OtaState
from harness.twin.boot_context import LoadedApp
from harness.twin.bootloader_memory import BAD_ADDRESSES, BootloaderMemory

DATA = Path(__file__).parents[2] / "data" / "twin" / "segments-over-bootloader-idf5.5.5.json"
RECORDED = {board["chip"]: board for board in json.loads(DATA.read_text())["boards"]}
OVER_THE_STACK = {
    "esp32": 0x3FFE0000,
    "esp32s3": 0x3FCE9000,
    "esp32c2": 0x3FCDC000,
    "esp32c3": 0x3FCDC700,
    "esp32c6": 0x4087D000,
}


@pytest.mark.parametrize("name", RECORDED)
def test_segments_are_refused_where_the_recorded_bootloader_refuses_them(name: str) -> None:
    recorded = RECORDED[name]
    memory = BootloaderMemory.of(CHIPS[name], [(int(at, 16), size) for at, size in recorded["bootloader"]])
    for at, size, answer in recorded["answers"]:
        first = int(at, 16)
        clash = memory.clash(first, first + size)
        found = clash and [f"0x{clash.first:08x}-0x{clash.end & 0xFFFFFFFF:08x}", clash.reason]
        # Addresses where there is no RAM at all are the image check's.
        if answer is not None and answer[1] == BAD_ADDRESSES and found is None:
            continue
        assert found == answer, f"{size} bytes at {at}"


def app_with_segment(chip: Chip, address: int) -> bytes:
    data = description("1.1.0").to_bytes() + b"\x55" * 64
    segments = [Segment(chip.drom_base + 0x20, data), Segment(address, b"\x66" * 16)]
    return build_app_image(chip, segments, entry_point=chip.drom_base + 0x1000)


@pytest.mark.parametrize("name", KINDS)
def test_an_app_that_would_overwrite_the_bootloader_is_not_started_and_the_other_slot_is(
    name: str, tmp_path: Path
) -> None:
    board = Board.named(name, tmp_path)
    board.provision(otadata=otadata(record(1, OtaState.VALID), record(2, OtaState.NEW)))
    first = OVER_THE_STACK[name]
    board.put(OTA_1, app_with_segment(board.chip, first))
    outcome = board.boot()
    assert isinstance(outcome, LoadedApp)
    assert outcome.offset == OTA_0
    clash = f"Segment 1 0x{first:08x}-0x{first + 16:08x} invalid: overlaps bootloader stack"
    assert f"E esp_image: {clash}" in board.lines
    assert "E OTA app partition slot 1 is not bootable" in board.boot_lines


def test_where_the_bootloader_leaves_its_region_free_an_app_may_be_loaded() -> None:
    chip = CHIPS["esp32c3"]
    small = BootloaderMemory.of(chip, [(0x403CE710, 0x3000)])
    assert small.clash(0x403D2000, 0x403D2010) is None
    # Of a bootloader that does not say where its code is, the whole region counts.
    assert BootloaderMemory.of(chip, []).clash(0x403D2000, 0x403D2010) is not None
