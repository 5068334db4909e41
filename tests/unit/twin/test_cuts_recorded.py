"""The twin boots what ESP-IDF's bootloader booted under the mask ROM, from the states that a cut supply leaves.

What was printed, boot by boot, and what the bootloader made of otadata and of the secure version, were recorded in an
emulator; see ``tests/data/cuts/README.md``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_board import OTA_0, OTA_1, Board, app_image, bootloader_image
from cut_recordings import MOST_FAILED_BOOTS, RecordedBoard, RecordedState, as_recorded, recorded_states

from harness.explore.sampled import SAMPLED, Sampled
from harness.formats import flash_encryption
from harness.formats.partition_table import PartitionTable
from harness.twin.boot_context import Reset
from harness.twin.half_done import SECTOR_BYTES

CSV = """
nvs,      data, nvs,     0x11000, 0x6000
otadata,  data, ota,     0x17000, 0x2000
phy_init, data, phy,     0x19000, 0x1000
ota_0,    app,  ota_0,   0x20000, 0x180000
ota_1,    app,  ota_1,   0x1a0000,0x180000
"""
OTADATA = 0x17000
SLOTS = (OTA_0, OTA_1)
PROGRAM = bytes(range(256)) * 4
FLIPPED = 0x200
"""Offset in the image, somewhere in `PROGRAM`."""
BOARDS = {
    chip: tuple(dict.fromkeys(state.board.name for state in recorded_states(chip)))
    for chip in ("esp32", "esp32c3")
}


class Bench:
    """A board with small images, into which states are put one after another."""

    def __init__(self, chip: str, recorded: RecordedBoard, folder: Path) -> None:
        self._board = Board.named(chip, folder, encrypted=recorded.encrypted)
        config = recorded.config
        self._put(
            self._board.chip.bootloader_offset,
            bootloader_image(
                self._board.chip, config, flash_size_bytes=4 << 20, spi_speed=recorded.spi_speed
            ),
        )
        table = PartitionTable.from_csv(CSV, table_offset=config.table_offset)
        self._put(config.table_offset, table.to_binary())
        for at, version in zip(SLOTS, recorded.secure_versions, strict=True):
            self._put(at, app_image(self._board.chip, "1.0.0", program=PROGRAM, secure_version=version))
        self._fuses = self._board.efuses.snapshot()
        self._good = [self._board.flash.read(at, SECTOR_BYTES) for at in SLOTS]

    def _put(self, at: int, data: bytes) -> None:
        self._board.put(at, data)

    def restore(self, state: RecordedState) -> None:
        board = self._board
        board.efuses.restore(self._fuses)
        if state.secure_version:
            board.efuses.burn_field("SECURE_VERSION", (1 << state.secure_version) - 1)
        for index, record in enumerate(state.records):
            at = OTADATA + index * SECTOR_BYTES
            if board.encrypted:
                record = flash_encryption.encrypt(board.chip.cipher, board.key, at, record)
            board.flash.replace(at, record.ljust(SECTOR_BYTES, b"\xff"))
        for at, good, how in zip(SLOTS, self._good, state.slots, strict=True):
            board.flash.replace(at, spoiled(good, how))

    def boot(self) -> list[list[str]]:
        """Until an app is loaded, or the bootloader has given up often enough."""
        lines: list[str] = []
        reason = 1
        for _ in range(MOST_FAILED_BOOTS):
            outcome = self._board.boot(reason)
            lines += self._board.lines
            if not isinstance(outcome, Reset):
                break
            reason = outcome.reset_reason
        return as_recorded(lines)

    @property
    def records(self) -> tuple[bytes, bytes]:
        return self._board.plain(OTADATA, 32), self._board.plain(OTADATA + SECTOR_BYTES, 32)

    @property
    def secure_version(self) -> int:
        return self._board.efuses.field("SECURE_VERSION").bit_count()


def spoiled(sector: bytes, how: str) -> bytes:
    """The first sector of a slot as the recorded one was spoiled."""
    if how == "flipped":
        return sector[:FLIPPED] + bytes([sector[FLIPPED] ^ 0x10]) + sector[FLIPPED + 1 :]
    return {"good": sector, "erased": b"\xff" * SECTOR_BYTES, "zeros": bytes(SECTOR_BYTES)}[how]


@pytest.mark.parametrize(("chip", "name"), [(chip, name) for chip, names in BOARDS.items() for name in names])
def test_what_boots_after_a_cut_is_what_esp_idf_booted(chip: str, name: str, tmp_path: Path) -> None:
    states = [state for state in recorded_states(chip) if state.board.name == name]
    bench = Bench(chip, states[0].board, tmp_path)
    for state in states:
        bench.restore(state)
        found = bench.boot()
        assert found == [list(boot) for boot in state.boots], state.origin
        assert bench.records == state.records_after, state.origin
        if state.board.config.anti_rollback:
            assert bench.secure_version == state.secure_version_after, state.origin


@pytest.mark.parametrize("row", SAMPLED, ids=lambda row: f"{row.chip}-{row.sequence}")
def test_what_reports_call_sampled_was_recorded(row: Sampled) -> None:
    states = recorded_states(row.chip)
    mine = [
        state
        for state in states
        if state.origin.startswith(f"{row.sequence} ")
        or (row.sequence == "anti-rollback" and state.board.config.anti_rollback)
    ]
    assert 0 < len(mine) <= row.states
    assert {state.board.config.idf_version for state in mine} == {row.idf}
