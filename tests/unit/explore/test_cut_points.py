"""Where the power is cut: every operation, and inside each as densely as was asked for."""

from __future__ import annotations

import pytest

from harness.errors import UsageError
from harness.twin.explorer.cut_points import Cut, cuts_of, parse_cut, sampled
from harness.twin.half_done import ERASE_MIXTURES
from harness.twin.operations import Change, CutPoint, Operation


def change(kind: str, length: int) -> Change:
    return Change(Operation(0, kind, 0x10000, length, "app"), b"" if kind == "erase" else bytes(length))


UPDATE = [change("erase", 0x3000), change("write", 0x1000), change("write-encrypted", 32)]


def test_the_first_operation_is_cut_before_and_each_inside_and_after() -> None:
    cuts = list(cuts_of(UPDATE, seed=1))
    assert cuts[0] == Cut(0, CutPoint.BEFORE)
    assert [cut.op for cut in cuts if cut.where is CutPoint.AFTER] == [0, 1, 2]
    assert {cut.op for cut in cuts if cut.where is CutPoint.INSIDE} == {0, 1, 2}


def test_an_erase_is_broken_off_in_each_sector_with_each_mixture_and_between_sectors() -> None:
    inside = [cut for cut in cuts_of(UPDATE, seed=1) if cut.op == 0 and cut.where is CutPoint.INSIDE]
    assert sorted(cut.byte for cut in inside if cut.mixture is None) == [0x1000, 0x2000]
    for sector in (0, 0x1000, 0x2000):
        kinds = {cut.mixture % len(ERASE_MIXTURES) for cut in inside if cut.byte == sector and cut.mixture}
        assert kinds == set(range(len(ERASE_MIXTURES)))


def test_a_record_is_broken_off_at_every_byte_and_a_sector_at_every_page_or_byte() -> None:
    record = [cut for cut in cuts_of(UPDATE, seed=1) if cut.op == 2 and cut.mixture is None]
    assert [cut.byte for cut in record if cut.where is CutPoint.INSIDE] == list(range(1, 32))
    pages = [cut.byte for cut in cuts_of(UPDATE, seed=1) if cut.op == 1 and cut.mixture is None]
    assert set(range(0x100, 0x1000, 0x100)) <= set(pages)
    every = [cut.byte for cut in cuts_of(UPDATE, seed=1, every_byte=True) if cut.op == 1]
    assert set(range(1, 0x1000)) <= set(every)


def test_a_seed_repeats_its_cuts_and_another_gives_others() -> None:
    assert list(cuts_of(UPDATE, seed=1)) == list(cuts_of(UPDATE, seed=1)) != list(cuts_of(UPDATE, seed=2))


RECORD = frozenset({2})
"""The operation on which it depends what boots."""


@pytest.mark.parametrize("count", range(5, 40, 7))
def test_a_sample_keeps_the_order_and_takes_first_what_decides(count: int) -> None:
    every = list(cuts_of(UPDATE, seed=1))
    some = sampled(every, count, seed=3, decisive=RECORD)
    assert len(some) == count
    assert [every.index(cut) for cut in some] == sorted(every.index(cut) for cut in some)
    assert {cut.op for cut in some if cut.where is CutPoint.AFTER} == {0, 1, 2}
    inside = [cut.op for cut in some if cut.where is CutPoint.INSIDE]
    assert inside.count(2) >= max(inside.count(0), inside.count(1))
    assert inside.count(2) >= 1


def test_a_sample_of_more_than_there_is_is_all() -> None:
    every = list(cuts_of(UPDATE, seed=1))
    assert sampled(every, None, 3, RECORD) == sampled(every, len(every) + 1, 3, RECORD) == every


def test_a_burn_is_cut_inside_only_where_that_leaves_something_else() -> None:
    one, many = (
        Change(Operation(0, "burn", 0, 24, "app"), bits.to_bytes(24, "little"))
        for bits in (1 << 90, (1 << 192) - 1)
    )
    assert [cut for cut in cuts_of([one], seed=1) if cut.where is CutPoint.INSIDE] == []
    inside = [cut for cut in cuts_of([many], seed=1) if cut.where is CutPoint.INSIDE]
    assert len(inside) > 24


@pytest.mark.parametrize("cut", [*cuts_of(UPDATE, seed=7)][::11], ids=str)
def test_a_cut_reads_back_as_it_is_printed(cut: Cut) -> None:
    assert parse_cut(str(cut)) == cut


@pytest.mark.parametrize(
    "text", ["", "x", "1", "0:before", "1:inside", "1:before:3", "1:inside:-4", "1:inside:1:2:3", "1:around"]
)
def test_what_is_no_cut_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="is no cut"):
        parse_cut(text)
