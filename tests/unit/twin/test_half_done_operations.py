"""What an operation leaves that the supply did not outlast: nothing that a NOR flash or an eFuse could not hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.chips import CHIPS
from harness.twin.efuses import Efuses, factory_content
from harness.twin.flash import Flash
from harness.twin.half_done import (
    ERASE_MIXTURES,
    PAGE_BYTES,
    SECTOR_BYTES,
    Extent,
    burned,
    erased,
    half_erased,
    programmed,
)
from harness.twin.operations import Change, CutPoint, PowerCut, PowerLost

seeds = st.integers(0, 1 << 30)


@given(
    old=st.binary(min_size=700, max_size=700),
    data=st.binary(min_size=700, max_size=700),
    done=st.integers(0, 700),
    mixture=st.none() | seeds,
    addr=st.integers(0, 1000),
)
def test_a_broken_write_sets_no_bit_and_clears_none_that_was_not_to_be(
    old: bytes, data: bytes, done: int, mixture: int | None, addr: int
) -> None:
    new = programmed(old, data, addr, Extent(done, mixture))
    page_end = done + PAGE_BYTES - (addr + done) % PAGE_BYTES
    for at, (was, want, is_) in enumerate(zip(old, data, new, strict=True)):
        if at < done:
            assert is_ == was & want
        elif at >= page_end or mixture is None:
            assert is_ == was
        else:
            assert was & want & ~is_ == 0, "a bit was cleared that was to stay"
            assert is_ & ~was == 0, "a bit was set"


@given(sectors=st.integers(1, 4), done=st.integers(0, 4 * SECTOR_BYTES), mixture=st.none() | seeds)
def test_a_broken_erase_touches_what_it_came_to_and_one_sector_more(
    sectors: int, done: int, mixture: int | None
) -> None:
    old = bytes(range(256)) * 16 * sectors
    new = erased(old, Extent(done, mixture))
    assert len(new) == len(old)
    assert new[:done] == b"\xff" * min(done, len(old))
    began = 0 if mixture is None else SECTOR_BYTES - done % SECTOR_BYTES
    assert new[done + began :] == old[done + began :]


def test_the_mixtures_of_an_erase_differ_and_a_seed_repeats_them() -> None:
    old = bytes(range(256)) * 16
    made = [half_erased(old, seed) for seed in range(len(ERASE_MIXTURES))]
    assert len(set(made)) == len(ERASE_MIXTURES)
    assert made == [half_erased(old, seed) for seed in range(len(ERASE_MIXTURES))]
    assert half_erased(old, 2) != half_erased(old, 2 + len(ERASE_MIXTURES))


@given(value=st.integers(0, (1 << 352) - 1), done=st.integers(0, 44), mixture=st.none() | seeds)
def test_a_broken_burn_blows_only_bits_that_were_to_be_blown(
    value: int, done: int, mixture: int | None
) -> None:
    blown = burned(value, Extent(done, mixture), 44)
    assert blown & ~value == 0
    assert value & ((1 << done * 8) - 1) & ~blown == 0


def test_what_a_journal_holds_makes_the_same_flash_again(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    content = bytes(range(256)) * (4 * SECTOR_BYTES // 256)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content)
    flashes = Flash(tmp_path / "a"), Flash(tmp_path / "b")
    request.addfinalizer(lambda: [flash.close() for flash in flashes])
    first, second = flashes
    journal: list[Change] = []
    first.operations.journal = journal
    first.erase(SECTOR_BYTES, 2 * SECTOR_BYTES, who="app")
    first.program(SECTOR_BYTES + 16, b"\x0f" * 300, who="app", kind="write-encrypted")
    first.operations.set_cut(PowerCut(2, CutPoint.INSIDE, byte=40, mixture=7))
    with pytest.raises(PowerLost):
        first.program(2 * SECTOR_BYTES, bytes(500), who="app")
    assert [change.operation.kind for change in journal] == ["erase", "write-encrypted", "write"]
    for change, extent in zip(journal, (Extent(1 << 20), Extent(1 << 20), Extent(40, 7)), strict=True):
        at, length = change.operation.offset, change.operation.length
        old = second.read(at, length)
        erases = change.operation.kind == "erase"
        second.replace(at, erased(old, extent) if erases else programmed(old, change.data, at, extent))
    assert second.read(0, second.size_bytes) == first.path.read_bytes()


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_efuses_take_back_a_snapshot_and_a_burn_that_was_broken_off(
    chip: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    paths = [tmp_path / name / "efuse.bin" for name in "ab"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(factory_content(CHIPS[chip], bytes.fromhex("7cdfa1000001")))
    first, second = (Efuses(CHIPS[chip], path) for path in paths)
    request.addfinalizer(lambda: [efuses.close() for efuses in (first, second)])
    fresh = first.snapshot()
    journal: list[Change] = []
    first.operations.journal = journal
    block = first.geometry.key_blocks[0].index if first.geometry.key_blocks else 1
    first.operations.set_cut(PowerCut(0, CutPoint.INSIDE, byte=9, mixture=3))
    with pytest.raises(PowerLost):
        first.program(block, int.from_bytes(bytes(range(32)), "little"), who="app")
    second.blow(block, journal[0].data, Extent(9, 3))
    assert second.snapshot() == first.snapshot() != fresh
    assert paths[0].read_bytes() == paths[1].read_bytes()
    first.restore(fresh)
    assert first.snapshot() == fresh
    assert not any(first.block_for_hardware(block))
