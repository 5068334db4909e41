"""The flash is NOR, numbers its operations, fails when told and loses power where told."""

from __future__ import annotations

import pytest

from harness.twin.flash import Flash, FlashFault, PowerLost
from harness.twin.operations import CutPoint, OperationLog, PowerCut

SIZE = 0x10000


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "flash.bin"
    path.write_bytes(b"\xff" * SIZE)
    return path


@pytest.fixture
def flash(path):
    flash = Flash(path, OperationLog())
    yield flash
    flash.close()


def test_programming_clears_bits_and_sets_none(flash):
    flash.program(0x10, b"\xf0\x0f", who="app")
    flash.program(0x10, b"\xcc\xff", who="app")
    assert flash.read(0x0F, 4) == b"\xff\xc0\x0f\xff"


def test_erasing_sets_whole_sectors(flash):
    flash.program(0x0FFF, b"\0" * 0x1002, who="app")
    flash.erase(0x1000, 0x1000, who="app")
    assert flash.read(0x0FFE, 4) == b"\xff\x00\xff\xff"
    assert flash.read(0x1FFF, 3) == b"\xff\x00\xff"


def test_every_change_is_in_the_file_at_once(flash, path):
    flash.program(0x100, b"abc", who="app")
    assert path.read_bytes()[0x100:0x103] == b"abc"


@pytest.mark.parametrize(("addr", "size"), [(SIZE, 1), (SIZE - 1, 2), (-1, 1), (1 << 40, 1)])
def test_a_range_outside_the_chip_is_an_invalid_argument(flash, addr, size):
    for operation in (
        lambda: flash.read(addr, size),
        lambda: flash.program(addr, b"\0" * size, who="app"),
        lambda: flash.erase(addr, size, who="app"),
    ):
        with pytest.raises(FlashFault) as fault:
            operation()
        assert fault.value.code == 0x102
    assert not flash.ops


@pytest.mark.parametrize(("addr", "size"), [(1, 0x1000), (0x1000, 1), (0x800, 0x1000)])
def test_an_erase_off_sector_bounds_is_an_invalid_argument(flash, addr, size):
    with pytest.raises(FlashFault):
        flash.erase(addr, size, who="app")


def test_the_generation_grows_with_every_change_and_with_nothing_else(flash):
    before = flash.generation
    flash.read(0, 16)
    assert flash.generation == before
    flash.program(0, b"\0", who="app")
    flash.erase(0, 0x1000, who="app")
    assert flash.generation == before + 2


def test_the_log_numbers_operations_and_says_who(flash):
    flash.erase(0, 0x2000, who="rom")
    flash.program(4, b"ab", who="app")
    flash.program(16, b"c" * 16, who="app", kind="write-encrypted")
    rows = [(op.number, op.kind, op.offset, op.length, op.who) for op in flash.operations.since(1)]
    assert rows == [(1, "write", 4, 2, "app"), (2, "write-encrypted", 16, 16, "app")]
    assert flash.operations.next_number == 3


class TestFaults:
    @pytest.mark.parametrize(
        ("kind", "strikes"), [("write-raw", "write"), ("write-encrypted", "write-encrypted")]
    )
    def test_a_write_fault_strikes_its_kind_only(self, flash, kind, strikes):
        flash.operations.add_fault(kind, 0x6001)
        other = "write" if strikes == "write-encrypted" else "write-encrypted"
        flash.program(0, b"\0", who="app", kind=other)
        with pytest.raises(FlashFault) as fault:
            flash.program(1, b"\0", who="app", kind=strikes)
        assert fault.value.code == 0x6001
        assert flash.read(0, 2) == b"\x00\xff"
        flash.program(1, b"\0", who="app", kind=strikes)

    def test_after_and_count(self, flash):
        flash.operations.add_fault("erase", 7, after=1, count=2)
        struck = []
        for _ in range(5):
            try:
                flash.erase(0, 0x1000, who="app")
                struck.append(False)
            except FlashFault:
                struck.append(True)
        assert struck == [False, True, True, False, False]

    def test_only_the_one_named_is_struck(self, flash):
        flash.operations.add_fault("erase", 7, who="app")
        flash.erase(0, 0x1000, who="bootloader")
        with pytest.raises(FlashFault):
            flash.erase(0, 0x1000, who="app")

    def test_reads_can_fail_and_faults_can_be_cleared(self, flash):
        flash.operations.add_fault("read", 7, count=99)
        with pytest.raises(FlashFault):
            flash.read(0, 1)
        flash.operations.clear_faults()
        assert flash.read(0, 1) == b"\xff"


class TestPowerCuts:
    @pytest.mark.parametrize(
        ("where", "byte", "expected"),
        [
            (CutPoint.BEFORE, 0, b"\xff\xff\xff\xff"),
            (CutPoint.INSIDE, 3, b"\x00\x00\x00\xff"),
            (CutPoint.INSIDE, 99, b"\x00\x00\x00\x00"),
            (CutPoint.AFTER, 0, b"\x00\x00\x00\x00"),
        ],
    )
    def test_a_write_is_cut_where_it_says(self, flash, where, byte, expected):
        lost = []
        flash.operations.on_power_lost = lambda _: lost.append(True)
        flash.operations.set_cut(PowerCut(1, where, byte))
        flash.program(0x100, b"\0", who="app")
        with pytest.raises(PowerLost):
            flash.program(0, bytes(4), who="app")
        flash.operations.restore_power()
        assert flash.read(0, 4) == expected
        assert lost == [True]

    def test_an_erase_is_cut_at_a_byte(self, flash):
        flash.program(0, bytes(0x2000), who="app")
        flash.operations.set_cut(PowerCut(1, CutPoint.INSIDE, 0x1234))
        with pytest.raises(PowerLost):
            flash.erase(0, 0x2000, who="app")
        flash.operations.restore_power()
        assert flash.read(0, 0x2000) == b"\xff" * 0x1234 + bytes(0x2000 - 0x1234)

    def test_nothing_changes_until_power_is_back(self, flash):
        flash.operations.set_cut(PowerCut(0, CutPoint.BEFORE))
        for _ in range(2):
            with pytest.raises(PowerLost):
                flash.program(0, bytes(4), who="app")
        with pytest.raises(PowerLost):
            flash.read(0, 1)
        flash.operations.restore_power()
        flash.program(0, bytes(4), who="app")
        assert flash.read(0, 4) == bytes(4)
