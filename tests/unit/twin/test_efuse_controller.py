"""The eFuse controller's registers: what programs, what loads, what reads as 0."""

from __future__ import annotations

import pytest
import reedsolo

from harness.chips import CHIPS
from harness.twin.efuse_controller import EfuseController
from harness.twin.efuses import Efuses, factory_content

MAC = bytes.fromhex("7cdfa1010203")
KEY = bytes(range(1, 33))
OFFSETS = {
    "esp32": (0xFC, 0x104),
    "esp32c2": (0x8C, 0x94),
    "esp32c3": (0x1CC, 0x1D4),
    "esp32c5": (0x1CC, 0x1D8),
    "esp32s3": (0x1CC, 0x1D4),
}


class Board:
    def __init__(self, folder, chip):
        path = folder / "efuse.bin"
        path.write_bytes(factory_content(CHIPS[chip], MAC))
        self.efuses = Efuses(CHIPS[chip], path)
        self.registers = EfuseController(self.efuses)
        self.conf, self.command = OFFSETS[chip]

    def write(self, offset, data):
        for at in range(0, len(data), 4):
            self.registers.write(offset + at, int.from_bytes(data[at : at + 4], "little"))

    def program(self, command=2, code=0x5A5A):
        self.registers.write(self.conf, code)
        self.registers.write(self.command, command)

    def load(self, command=1, code=0x5AA5):
        self.registers.write(self.conf, code)
        self.registers.write(self.command, command)

    def read(self, offset, size):
        return b"".join(self.registers.read(offset + at).to_bytes(4, "little") for at in range(0, size, 4))


@pytest.fixture
def make(tmp_path):
    boards = []

    def one(chip):
        boards.append(Board(tmp_path, chip))
        return boards[-1]

    yield one
    for board in boards:
        board.efuses.close()


def check_bytes(data):
    return bytes(reedsolo.RSCodec(12).encode(bytearray(data))[32:])


def test_c3_programs_the_block_in_the_command_and_shows_it_after_a_read_command(make):
    board = make("esp32c3")
    board.write(0x00, KEY + check_bytes(KEY))
    board.program(command=2 | 4 << 2)
    assert board.registers.read(board.command) == 0
    assert board.read(0x9C, 32) == bytes(32)
    board.load()
    assert board.read(0x9C, 32) == KEY
    assert board.read(0x1C0, 8) == bytes(8)


@pytest.mark.parametrize(
    ("command", "code"), [(2, 0x5AA5), (2, 0), (2, 0x5A5B), (1, 0x5A5A), (0, 0x5A5A), (3, 0x5A5A)]
)
@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_nothing_is_programmed_without_the_right_code_and_command(make, chip, command, code):
    board = make(chip)
    board.write(0x1C if chip == "esp32" else 0x00, b"\xff" * 24)
    before = board.efuses.block_for_hardware(0)
    board.program(command, code)
    board.load()
    assert board.efuses.block_for_hardware(0) == before


@pytest.mark.parametrize("code", [0, 0x5A5A])
def test_nothing_is_loaded_without_the_right_code(make, code):
    board = make("esp32c3")
    board.write(0x08, (1 << 18).to_bytes(4, "little"))
    board.program()
    board.load(code=code)
    assert board.read(0x34, 4) == bytes(4)
    board.load()
    assert board.read(0x34, 4) == (1 << 18).to_bytes(4, "little")


def test_esp32_programs_every_block_whose_registers_are_set_and_clears_them(make):
    board = make("esp32")
    board.write(0x98, KEY)
    board.write(0xD8, KEY[::-1])
    board.write(0x1C, (1 << 20).to_bytes(4, "little"))
    board.program()
    board.load()
    assert board.read(0x38, 32) == KEY
    assert board.read(0x78, 32) == KEY[::-1]
    assert board.registers.read(0x00) == 1 << 20
    assert board.read(0x98, 32) + board.read(0x1C, 4) == bytes(36)
    assert [(op.kind, op.offset, op.who) for op in board.efuses.operations.since(0)] == [
        ("burn", 0, "rom"),
        ("burn", 1, "rom"),
        ("burn", 3, "rom"),
    ]


@pytest.mark.parametrize("index", range(1, 11))
def test_c3_tells_the_block_that_does_not_check(make, index):
    board = make("esp32c3")
    block = board.efuses.geometry.block(index)
    board.write(0x00, KEY[: block.size_bytes].ljust(32, b"\0") + b"\xa5" * 12)
    board.program(command=2 | index << 2)
    board.load()
    both = int.from_bytes(board.read(0x1C0, 8), "little")
    # espefuse: count of block n at bit 4(n-1), fail bit of block n one nibble above; block 10 has no fail bit.
    assert both >> 4 * (index - 1) & 7 == 7
    fails = {n for n in range(1, 10) if both >> 4 * n + 3 & 1}
    assert fails == ({index} if index < 10 else set())


@pytest.mark.parametrize(
    ("chip", "errors", "index"),
    [
        ("esp32c2", 0x84, 3),
        ("esp32c2", 0x84, 1),
        ("esp32s3", 0x1C0, 8),
        ("esp32s3", 0x1C0, 10),
        ("esp32c5", 0x190, 9),
    ],
)
def test_elsewhere_count_and_fail_bit_share_a_nibble(make, chip, errors, index):
    board = make(chip)
    block = board.efuses.geometry.block(index)
    board.write(0x00, KEY[: block.size_bytes].ljust(32, b"\0") + b"\xa5" * 12)
    board.program(command=2 | index << 2)
    board.load()
    assert int.from_bytes(board.read(errors, 8), "little") == 0xF << 4 * (index - 1)
    board.write(errors, bytes(4))
    assert int.from_bytes(board.read(errors, 8), "little") == 0xF << 4 * (index - 1)


def test_halves_of_the_only_key_block_of_esp32c2_are_hidden_apart(make):
    board = make("esp32c2")
    board.write(0x00, KEY + check_bytes(KEY))
    board.program(command=2 | 3 << 2)
    for rd_dis, shown in ((1, bytes(16) + KEY[16:]), (2, bytes(32))):
        board.write(0x00, bytes(32))
        board.write(0x04, rd_dis.to_bytes(4, "little"))
        board.program(command=2)
        board.load()
        assert board.read(0x60, 32) == shown
    assert board.efuses.block_for_hardware("BLOCK_KEY0") == KEY


def test_blocks_that_do_not_exist_are_not_programmed(make):
    board = make("esp32c3")
    board.write(0x00, b"\xff" * 44)
    board.program(command=2 | 11 << 2)
    assert not board.efuses.operations.since(0)


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_read_registers_cannot_be_written_and_unknown_ones_read_zero(make, chip):
    board = make(chip)
    block = board.efuses.geometry.block(1)
    before = board.read(block.read_offset, block.size_bytes)
    board.write(block.read_offset, b"\xff" * block.size_bytes)
    assert board.read(block.read_offset, block.size_bytes) == before
    assert board.registers.read(0x1FC) == 0


def test_timing_registers_keep_what_is_written(make):
    board = make("esp32c3")
    board.registers.write(0x1E8, 0x1FE28)
    assert board.registers.read(0x1E8) == 0x1FE28
