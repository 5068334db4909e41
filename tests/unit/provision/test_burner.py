"""eFuses through espefuse, on its own virtual chips: what is burned, that nobody is asked, and no key is told."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
from esptool.util import FatalError
from fuse_bench import MAC, VirtualBoard

from harness.chips import ESP32, ESP32C3, ESP32P4, Chip
from harness.provision import Download
from harness.provision.vendor_log import redact
from harness.vault import key_id

KEY = bytes(range(0x40, 0x60))
BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@pytest.fixture(autouse=True)
def nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any) -> str:
        raise AssertionError("the tool asked a person")

    monkeypatch.setattr(builtins, "input", asked)


def burn_flash_key(board: VirtualBoard, key: bytes = KEY) -> None:
    with board.quietly():
        board.burner().burn_key(board.chip.fuses.key_block, board.chip.fuses.key_purpose, key)


def cells(board: VirtualBoard, block: int) -> bytes:
    """A block as it lies in the read registers."""
    return bytes(board.chip_memory.read_block(block).bytes)[::-1]


def test_what_espefuse_says_of_a_key_goes_to_the_log_and_nowhere_else(capsys):
    """Its module for ESP32-P4 prints without its own logger."""
    board = VirtualBoard(ESP32P4)
    burn_flash_key(board, KEY + KEY[::-1])
    assert capsys.readouterr() == ("", "")


@BOTH
def test_a_new_chip_tells_its_mac_and_revision(chip):
    state = VirtualBoard(chip).state()
    assert state.mac == MAC
    assert state.revision == chip.min_chip_rev_full
    assert state.download is Download.OPEN
    assert all(block.unused for block in state.key_blocks)
    assert state.write_protected == state.hidden == frozenset()


@BOTH
def test_a_flash_key_is_burned_reversed_and_protected_both_ways(chip, monkeypatch):
    board = VirtualBoard(chip)
    block = 1 if chip is ESP32 else 4
    seen: list[bytes] = []
    hide = board.chip_memory.check_rd_protection_area
    monkeypatch.setattr(
        board.chip_memory, "check_rd_protection_area", lambda: (seen.append(cells(board, block)), hide())
    )
    burn_flash_key(board)
    assert KEY[::-1] in seen
    state = board.state()
    key_block = state.block(chip.fuses.key_storage_block)
    assert key_block is not None
    assert (key_block.readable, key_block.writeable) == (False, False)
    assert key_block.purpose == chip.fuses.key_purpose
    assert chip is ESP32 or not key_block.purpose_writeable
    assert key_block.key_id is None
    assert cells(board, block) == bytes(32)


@BOTH
def test_the_name_of_the_block_decides_about_byte_order_so_the_chips_table_must_name_the_right_one(chip):
    board = VirtualBoard(chip)
    burn_flash_key(board)
    assert board.key(chip.fuses.key_storage_block) == KEY


def test_a_readable_key_is_known_by_its_id():
    board = VirtualBoard(ESP32C3)
    for word in range(8):
        value = int.from_bytes(KEY[::-1][word * 4 : word * 4 + 4], "little")
        board.set_cells(word, value, block=4)
    assert board.state().block("BLOCK_KEY0").key_id == key_id(KEY)


@BOTH
def test_burning_what_is_burned_changes_nothing(chip):
    board = VirtualBoard(chip)
    fuses = dict.fromkeys(chip.fuses.release, 1)
    board.set_fuses(**fuses)
    programs = len(board.programs)
    board.set_fuses(**fuses)
    assert len(board.programs) == programs


@BOTH
def test_a_protected_block_is_not_burned_again(chip):
    board = VirtualBoard(chip)
    burn_flash_key(board)
    programs = len(board.programs)
    with pytest.raises(FatalError):
        burn_flash_key(board, bytes(range(32)))
    assert len(board.programs) == programs


@BOTH
def test_no_key_reaches_the_tools_talk(chip):
    """espefuse prints old and new content of a block that is not empty."""
    board = VirtualBoard(chip)
    block = 1 if chip is ESP32 else 4
    board.set_cells(0, int.from_bytes(KEY[::-1][:4], "little"), block=block)
    if chip is ESP32:
        burn_flash_key(board)
    else:
        with pytest.raises(FatalError):
            burn_flash_key(board)
    talk = "\n".join(board.log)
    assert "(to write)" in talk
    for shape in (KEY.hex(), KEY[::-1].hex(), KEY.hex(" "), KEY[::-1].hex(" "), repr(KEY)):
        assert shape not in talk.lower()
    assert KEY.hex()[:24] not in talk.lower()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plain words", "plain words"),
        (f"(to write): 0x{KEY.hex()}", "(to write): [...]"),
        (f"-> [{KEY.hex(' ')}]", "-> [[...]]"),
        (f"key {KEY.hex(':')}!", "key [...]!"),
        ("MAC 02:00:00:aa:bb:01", "MAC 02:00:00:aa:bb:01"),
        ("address 0x3ff5a000, 0xdeadbeef", "address 0x3ff5a000, 0xdeadbeef"),
        (KEY.hex().upper(), "[...]"),
    ],
)
def test_long_runs_of_hex_are_taken_out_and_short_ones_stay(text, told):
    assert redact(text) == told


def test_one_read_protection_can_be_set_alone_even_where_espefuse_forbids_it():
    """A half-burned key has purpose USER, whose blocks espefuse's own command refuses to hide."""
    board = VirtualBoard(ESP32C3)
    board.set_cells(0, 0x1234, block=4)
    with board.quietly():
        board.burner().protect_key("BLOCK_KEY0", read=True, write=True, purpose=False)
    block = board.state().block("BLOCK_KEY0")
    assert (block.readable, block.writeable, block.purpose, block.purpose_writeable) == (
        False,
        False,
        "USER",
        True,
    )


@pytest.mark.parametrize(
    ("chip", "fuse", "shared"),
    [(ESP32C3, "DIS_ICACHE", "DIS_DOWNLOAD_MANUAL_ENCRYPT"), (ESP32, "DIS_CACHE", "DISABLE_BT")],
)
def test_write_protection_takes_its_whole_group(chip: Chip, fuse: str, shared: str):
    board = VirtualBoard(chip)
    board.protect(fuse)
    state = board.state()
    assert {fuse, shared} <= state.write_protected


def test_coding_errors_are_seen():
    board = VirtualBoard(ESP32C3)
    registers = board.chip_memory.REGS
    board.chip_memory.update_reg(registers.EFUSE_RD_RS_ERR0_REG, 0xFFFFFFFF, 3 << 12)
    assert board.state().block("BLOCK_KEY0").coding_errors == 3
    board.chip_memory.update_reg(registers.EFUSE_RD_RS_ERR0_REG, 0xFFFFFFFF, 1 << 19)
    assert board.state().block("BLOCK_KEY0").coding_errors == -1
    assert not board.state().block("BLOCK_KEY0").unused
