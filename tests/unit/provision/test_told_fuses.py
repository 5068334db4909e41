"""Fuses as the firmware tells them, held against what espefuse reads of the same (emulated) chip."""

from __future__ import annotations

from typing import Any

import pytest
from fuse_bench import VirtualBoard

from harness.chips import CHIPS, Chip
from harness.chips.efuses import efuse_geometry
from harness.errors import FormatError
from harness.provision.burner import FuseBurner
from harness.provision.chip_state import ChipState, Download, KeyBlock
from harness.provision.profile import Lock, Profile
from harness.provision.told_fuses import BLANK, COUNT, FUSES, told_profile, told_state

SIX_KEY_BLOCKS = sorted(set(CHIPS) - {"esp32", "esp32c2"})


def told_by(board: VirtualBoard) -> dict[str, Any]:
    """What the firmware of this chip would say."""
    geometry = efuse_geometry(board.chip.name)

    def raw(index: int) -> bytes:
        return bytes(board.chip_memory.read_block(index).bytes[::-1])

    blank = 0
    for number, block in enumerate(geometry.key_blocks or geometry.blocks[1:]):
        for half in range(2):
            if not any(raw(block.index)[16 * half : 16 * half + 16]):
                blank |= 1 << 2 * number + half
    version = geometry.field("SECURE_VERSION")
    count = bin(int.from_bytes(raw(version.block), "little") & version.mask).count("1")
    return {FUSES: raw(0).hex(), BLANK: blank, COUNT: count, "mac": board.mac}


def compared(block: KeyBlock) -> tuple[Any, ...]:
    return (
        block.name,
        block.purpose,
        block.empty,
        block.readable,
        block.writeable,
        block.purpose_writeable,
    )


def require_same(told: ChipState | None, read: ChipState) -> None:
    assert told is not None
    # espefuse has one more name for an ESP32-H2 of an early revision.
    names = set(read.fuses) - {"ECDSA_FORCE_USE_HARDWARE_K"}
    assert {name: told.fuses[name] for name in names} == {name: read.fuses[name] for name in names}
    assert "MAC" not in told.fuses
    assert told.write_protected & set(read.fuses) == read.write_protected
    assert told.hidden & set(read.fuses) == read.hidden
    by_name = {block.name: compared(block) for block in told.key_blocks}
    assert [by_name[block.name] for block in read.key_blocks] == [compared(b) for b in read.key_blocks]


def burner_of(board: VirtualBoard) -> FuseBurner:
    return FuseBurner(board.chip_memory, board.chip)


def burn_release(burner: FuseBurner, chip: Chip) -> None:
    fuses = chip.fuses
    burner.burn_key(fuses.key_block, fuses.key_purpose, bytes(range(chip.cipher.key_size_bytes)))
    burner.burn_fuses({**dict(fuses.key_config), **dict.fromkeys(fuses.release, 1)})
    burner.burn_fuses({fuses.counter: fuses.counter_release})
    if fuses.release_write_protect is not None:
        burner.write_protect(fuses.release_write_protect)


@pytest.mark.parametrize("name", ["esp32", *SIX_KEY_BLOCKS])
def test_a_new_chip_is_told_as_espefuse_reads_it(name: str) -> None:
    board = VirtualBoard(CHIPS[name])
    require_same(told_state(board.chip, told_by(board)), burner_of(board).state())


@pytest.mark.parametrize("name", ["esp32", "esp32c3", "esp32c6"])
def test_a_released_chip_is_told_as_espefuse_reads_it_and_recognised(name: str) -> None:
    board = VirtualBoard(CHIPS[name])
    burner = burner_of(board)
    burn_release(burner, board.chip)
    require_same(told_state(board.chip, told_by(board)), burner.state())
    found = told_profile(board.chip, told_by(board))
    assert found is not None
    assert (found.profile, found.lock) == (Profile.RELEASE, Lock.NONE)


def test_behind_a_lock_the_told_fuses_still_decide() -> None:
    board = VirtualBoard(CHIPS["esp32c3"])
    burn_release(burner_of(board), board.chip)
    fields = told_by(board)
    row = efuse_geometry("esp32c3").field("ENABLE_SECURITY_DOWNLOAD")
    block0 = int.from_bytes(bytes.fromhex(fields[FUSES]), "little") | row.mask
    fields[FUSES] = block0.to_bytes(24, "little").hex()
    state, found = told_state(board.chip, fields), told_profile(board.chip, fields)
    assert state is not None
    assert found is not None
    assert state.download is Download.SECURE
    assert (found.profile, found.lock) == (Profile.RELEASE, Lock.SECURE_DOWNLOAD)


def test_the_halves_of_an_esp32c2_are_told_apart() -> None:
    chip = CHIPS["esp32c2"]
    fuses = (1 << 32 | 1 << 7).to_bytes(8, "little").hex()  # lower half hidden, block write-protected
    state = told_state(chip, {FUSES: fuses, BLANK: 0b01})
    assert state is not None
    assert [compared(block) for block in state.key_blocks] == [
        ("BLOCK_KEY0", None, True, False, False, True),
        ("BLOCK_KEY0_HI_128", None, False, True, False, True),
    ]


def test_a_firmware_that_tells_nothing_is_an_older_one() -> None:
    assert told_state(CHIPS["esp32c3"], {"version": "1.0.0"}) is None
    assert told_profile(CHIPS["esp32c3"], {"version": "1.0.0"}) is None


@pytest.mark.parametrize("text", ["", "zz", "00" * 23, "00" * 28])
def test_a_text_that_cannot_be_block0_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match="24 bytes"):
        told_state(CHIPS["esp32c3"], {FUSES: text, BLANK: 0})
