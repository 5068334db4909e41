"""Cuts off at a byte of the download, at a line of the log, at a flash operation: a valid version boots, always.

By whatever the board has: its supply is switched, else it is reset, and the report says which. Exhaustive is none of it;
that is `harness explore` on a twin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from row import Row, rows

from harness.board import Board, Snapshot
from harness.console.boot_record import BootRecord
from harness.cuts.cut import (
    Counted,
    Cut,
    CutKind,
    CutResult,
    FlashOperation,
    LogLine,
    ServedByte,
    Side,
    Trigger,
    summary_of,
)
from harness.cuts.guard import Work
from harness.cuts.invariant import Expected, violations
from harness.cuts.strike import flash_operations, keep, strike, strongest_kind
from harness.cuts.walk import walk
from harness.ota.release import Release

pytestmark = pytest.mark.profiles("release", full=("open", "development", "ciphertext-only"))

MCUBOOT = "mcuboot run_perm_with_fails"
ESP_IDF = "esp-idf test_switch_ota.c"

OUTSIDE = None
"""In a table: by the strongest that can be done to the board from outside."""


@pytest.fixture
def cut_off(
    board: Board, record_property: Callable[[str, object], None]
) -> Callable[[CutKind | None, Trigger, Callable[[], object], Work], CutResult]:
    """Cuts the board off; what it was goes into the report and the artefacts."""

    def cut(kind: CutKind | None, trigger: Trigger, work: Callable[[], object], during: Work) -> CutResult:
        asked = strongest_kind(board) if kind is OUTSIDE else kind
        result = strike(board, Cut(asked, trigger), work, during=during)
        record_property("cut", str(result))
        keep(result, board.folder)
        return result

    return cut


@dataclass(frozen=True)
class Place(Row):
    """Where in the transfer, as a part of the package and bytes from there."""

    name: str
    part: float
    plus: int = 0


PLACES = (
    Place("in the header", 0, 128, source=(ESP_IDF,)),
    Place("behind the header", 0, 256, full=True),
    Place("in the first sector", 0, 256 + 2048, full=True),
    Place("behind the first sector", 0, 256 + 4096, full=True),
    Place("in the middle", 0.5),
    Place("before the last byte", 1, -1, full=True),
)


@pytest.mark.parametrize("place", rows(PLACES))
def test_a_cut_at_a_byte_of_the_download_loses_nothing(
    board: Board,
    place: Place,
    fresh: Callable[[], Release],
    cut_off: Callable[..., CutResult],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    release = fresh()
    at_byte = int(len(board.package(release)) * place.part) + place.plus
    result = cut_off(OUTSIDE, ServedByte(at_byte), lambda: board.update(release), Work.UPDATE)
    assert result.struck, result
    assert (result.slot, result.version) == (before.running.slot, before.running.version), result
    still_runs()


@dataclass(frozen=True)
class Moment(Row):
    """A line of the log."""

    name: str
    pattern: str


MOMENTS = (
    Moment("about to erase", r'"phase":"erase"', full=True),
    Moment("the first sector deciphers", r"raw_ota: first sector deciphers to version", full=True),
    Moment("about to verify", r'"phase":"verify"', full=True),
    Moment("about to switch", r'"phase":"switch"'),
    Moment("ESP-IDF verifies the image", r"esp_image: segment 0", full=True),
    Moment("switched", r"raw_ota: .* is selected for the next boot", full=True),
)


@pytest.mark.parametrize("moment", rows(MOMENTS))
def test_a_cut_at_a_line_of_the_log_leaves_a_version_that_is_valid(
    board: Board,
    moment: Moment,
    fresh: Callable[[], Release],
    cut_off: Callable[..., CutResult],
    before: Snapshot,
) -> None:
    release = fresh()
    expected = Expected.of(before, release, board.body(release))
    mark = board.console.mark()
    result = cut_off(OUTSIDE, LogLine(moment.pattern), lambda: board.update(release), Work.UPDATE)
    assert result.struck, result
    # A busy host may cut later than at the line.
    switched = any('"phase":"switch"' in line.text for line in board.console.lines_since(mark))
    assert switched or result.version == before.running.version, result
    assert violations(board, expected, fresh) == ()


STARTS = (
    Moment("the bootloader begins", r"boot: ESP-IDF .* bootloader", full=True),
    Moment("the bootloader has chosen", r"boot: Loaded app from partition", full=True),
    Moment("the app starts", r"app_init: App version"),
    Moment("the app is up", r'"ev":"boot"', full=True),
)


@pytest.mark.parametrize("moment", rows(STARTS))
def test_a_cut_in_the_first_boot_of_a_new_version_leaves_a_version_that_is_valid(
    board: Board,
    moment: Moment,
    fresh: Callable[[], Release],
    cut_off: Callable[..., CutResult],
    before: Snapshot,
) -> None:
    release = fresh()
    expected = Expected.of(before, release, board.body(release))
    assert board.update(release).ok
    result = cut_off(OUTSIDE, LogLine(moment.pattern), board.reboot, Work.BOOT)
    assert result.struck, result
    assert violations(board, expected, fresh) == ()


@dataclass(frozen=True)
class Operation(Row):
    """A cut at one operation of an update, counted from its last when negative."""

    name: str
    kind: CutKind | None
    n: int
    counted: Counted
    side: Side
    new_runs: bool = False


ERASE, WRITE = Counted.ERASE, Counted.WRITE
OPERATIONS = (
    Operation("restart after the first erase", CutKind.RESTART, 1, ERASE, Side.AFTER, full=True),
    Operation("panic inside the first write", CutKind.PANIC, 1, WRITE, Side.INSIDE, source=(MCUBOOT,)),
    Operation("watchdog before a write", CutKind.WATCHDOG, 2, WRITE, Side.BEFORE, full=True),
    Operation("cut after the first write", OUTSIDE, 1, WRITE, Side.AFTER, full=True),
    Operation("cut before otadata is erased", OUTSIDE, -1, ERASE, Side.BEFORE, full=True),
    Operation("panic between erase and write of otadata", CutKind.PANIC, -1, WRITE, Side.BEFORE, full=True),
    Operation("cut inside the otadata record", OUTSIDE, -1, WRITE, Side.INSIDE),
    Operation(
        "restart after the otadata record", CutKind.RESTART, -1, WRITE, Side.AFTER, new_runs=True, full=True
    ),
)


@pytest.mark.parametrize("operation", rows(OPERATIONS))
def test_a_cut_at_a_flash_operation_of_an_update_loses_nothing(
    board: Board,
    operation: Operation,
    fresh: Callable[[], Release],
    cut_off: Callable[..., CutResult],
) -> None:
    trigger = FlashOperation(_nth(board, fresh, operation), operation.counted, operation.side)
    # The counting may have used up one version: what runs now is what must survive.
    before, release = board.snapshot(), fresh()
    expected = Expected.of(before, release, board.body(release))
    result = cut_off(operation.kind, trigger, lambda: board.update(release), Work.UPDATE)
    assert result.struck, result
    assert result.operation is not None
    assert (result.layer == "shipping C") is (result.operation.function == "esp_partition_write_raw")
    assert result.version == (release.version if operation.new_runs else before.running.version), result
    assert violations(board, expected, fresh) == ()


def _nth(board: Board, fresh: Callable[[], Release], operation: Operation) -> int:
    """Its number, from the first or the last operation of an update."""
    if operation.n > 0:
        return operation.n
    start = flash_operations(board)
    assert board.update(fresh()).ok
    end = flash_operations(board)
    board.reboot()
    assert board.confirm().ok
    index = 0 if operation.counted is ERASE else 1
    return end[index] - start[index] + 1 + operation.n


@pytest.mark.parametrize(
    ("side", "counted"),
    [
        pytest.param(Side.BEFORE, Counted.ERASE, marks=pytest.mark.full),
        (Side.AFTER, Counted.ERASE),
        pytest.param(Side.INSIDE, Counted.WRITE, marks=pytest.mark.full),
        pytest.param(Side.AFTER, Counted.WRITE, marks=pytest.mark.full),
    ],
)
def test_a_cut_while_a_version_is_confirmed_leaves_a_version_that_is_valid(
    board: Board,
    side: Side,
    counted: Counted,
    fresh: Callable[[], Release],
    cut_off: Callable[..., CutResult],
    before: Snapshot,
) -> None:
    release = fresh()
    expected = Expected.of(before, release, board.body(release))
    assert board.update(release).ok
    board.reboot()
    result = cut_off(CutKind.RESTART, FlashOperation(1, counted, side), board.confirm, Work.CONFIRM)
    assert result.struck, result
    assert violations(board, expected, fresh) == ()


def test_no_cut_of_a_sample_breaks_anything(
    board: Board, fresh: Callable[[], Release], record_property: Callable[[str, object], None]
) -> None:
    results = walk(board, fresh, count=5, seed=1)
    record_property("cuts", summary_of(results))
    assert not [str(result) for result in results if result.violations]
    assert sum(result.struck for result in results) == 5, [str(result) for result in results]


@pytest.mark.profiles("release")
@pytest.mark.full
def test_no_cut_at_any_operation_of_an_update_and_its_confirmation_breaks_anything(
    board: Board, fresh: Callable[[], Release], record_property: Callable[[str, object], None]
) -> None:
    results = walk(board, fresh, seed=1)
    record_property("cuts", summary_of(results))
    assert not [str(result) for result in results if result.violations]
    assert all(result.struck or result.left_out for result in results), [str(result) for result in results]


@pytest.mark.needs("flash-log")
def test_the_firmware_counts_what_its_flash_saw(board: Board, fresh: Callable[[], Release]) -> None:
    release = fresh()
    start = flash_operations(board)
    with board.watching_flash() as seen:
        assert board.update(release).ok
    erases, writes = (now - then for now, then in zip(flash_operations(board), start, strict=True))
    sectors = sum(change.length for change in seen if change.kind == "erase") // 4096
    assert erases == sectors
    body_sectors = -(-len(board.body(release)) // 4096)
    assert writes == body_sectors + 1, "a write per sector, and the otadata record"
