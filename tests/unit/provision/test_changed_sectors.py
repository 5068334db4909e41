"""Only the sectors that are not in flash yet are written, and few hashes find them."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.provision.changed_sectors import BLOCK_BYTES, as_if_before, changed_sectors
from harness.provision.flash_baud import STEPS, FlashBauds, lower_than

SECTOR = 4096
BASE = 0x20000


class Flash:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.asked = 0

    def md5(self, offset: int, size: int) -> str:
        self.asked += 1
        return hashlib.md5(self.content[offset - BASE : offset - BASE + size]).hexdigest()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def changed_at(data: bytes, *sectors: int) -> bytes:
    changed = bytearray(data)
    for sector in sectors:
        changed[sector * SECTOR + 7] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("size", "sectors", "at_most"),
    [
        (40 * SECTOR, [], 1),
        (40 * SECTOR, [17], 1 + 3 + 16),
        (40 * SECTOR + 100, [0, 17, 40], 1 + 3 + 16 + 16 + 9),
        (100, [0], 3),
    ],
)
def test_exactly_the_changed_sectors_are_found_with_few_hashes(size: int, sectors: list[int], at_most: int):
    data = noise(size)
    flash = Flash(changed_at(data, *sectors))
    assert changed_sectors(BASE, data, flash.md5) == tuple(BASE + sector * SECTOR for sector in sectors)
    assert flash.asked <= at_most


def test_a_blank_chip_is_not_looked_at_sector_by_sector_and_blank_sectors_are_not_sent():
    data = noise(SECTOR) + b"\xff" * (8 * SECTOR) + noise(BLOCK_BYTES)
    flash = Flash(b"\xff" * len(data))
    found = changed_sectors(BASE, data, flash.md5)
    assert found == (BASE, *(BASE + n * SECTOR for n in range(9, 25)))
    assert flash.asked == 3


def test_of_a_shifted_image_only_the_first_block_is_looked_at_closely():
    data, flash = noise(10 * BLOCK_BYTES, 1), Flash(noise(10 * BLOCK_BYTES, 2))
    assert len(changed_sectors(BASE, data, flash.md5)) == 160
    assert flash.asked == 1 + 10 + 16


@given(
    st.integers(1, 3 * BLOCK_BYTES), st.sets(st.integers(0, 47), max_size=6), st.booleans(), st.integers(0, 5)
)
def test_whatever_differs_is_found(size: int, sectors: set[int], blank: bool, seed: int):
    data = noise(size, seed) if not blank else b"\xff" * size
    there = {sector for sector in sectors if sector * SECTOR + 7 < size}
    found = set(changed_sectors(BASE, data, Flash(changed_at(data, *there)).md5))
    missing = {BASE + sector * SECTOR for sector in there} - found
    assert not missing
    before = as_if_before(BASE, data, tuple(sorted(found)))
    assert {BASE + n // SECTOR * SECTOR for n in range(size) if before[n] != data[n]} == found


def test_bauds_go_down_step_by_step():
    assert [lower_than(baud) for baud in (2_000_000, *STEPS)] == [921_600, 460_800, 230_400, 115_200, None]


def test_what_worked_is_remembered_per_board_until_its_entry_asks_for_something_else(tmp_path):
    bauds = FlashBauds(tmp_path / "flash-baud")
    mac = "7c:df:a1:00:00:01"
    assert bauds.start_at(mac, 921_600) == 921_600
    bauds.remember(mac, 921_600, 230_400)
    assert bauds.start_at(mac.upper(), 921_600) == 230_400
    assert bauds.start_at(mac, 460_800) == 460_800
    assert bauds.start_at("7c:df:a1:00:00:02", 921_600) == 921_600
    assert bauds.start_at(None, 921_600) == 921_600
    (file,) = bauds.folder.iterdir()
    file.write_text("{")
    assert bauds.start_at(mac, 921_600) == 921_600
