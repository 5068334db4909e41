"""A walk over the flash operations of an update and its confirmation, on a board that is no twin: a seeded sample.

Weaker than `harness explore` on a twin, and said so in each result: between operations, not inside of them but for
writes made in two; of the application alone, not of ROM and bootloader; by what this board's bench can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from random import Random

from harness.board import Board
from harness.console.device import Answer
from harness.cuts.cut import Counted, Cut, CutKind, CutResult, FlashOperation, ServedByte, Side, Trigger
from harness.cuts.guard import Work, require_cuttable
from harness.cuts.invariant import Expected, violations
from harness.cuts.strike import NotBackError, flash_operations, keep, strike, strongest_kind
from harness.errors import BoardError, HarnessError, RefusedError
from harness.formats.ota_package import HEADER_BYTES
from harness.ota.release import Release

Point = tuple[Work, Cut]
"""One cut, and what is under way when it strikes."""


def walk(
    board: Board,
    make_release: Callable[[], Release],
    *,
    count: int | None = None,
    seed: int = 0,
    kinds: Sequence[CutKind] | None = None,
    tell: Callable[[int, int, CutResult], None] = lambda _i, _n, _result: None,
) -> list[CutResult]:
    """Cuts a board off during updates and confirmations, and looks at it after each cut.

    First one update is done without a cut, to count its operations. The board must be settled, and is when it ends
    well; each cut costs two updates (on a real board of 1 MB about a minute).

    Args:
        make_release: makes a version that this board has never seen.
        count: how many cuts, drawn with `seed`, in turn from the beginning of an update, its body, its switch, the
            bytes of its download, and the confirmation; None: before and after every operation that was counted, inside
            every write, and some bytes of the download. That is not exhaustive either.
        kinds: the kinds to draw from; default: the strongest that is possible from outside, `esp_restart` and panic.
        tell: called after each cut with its number, how many there are, and what came of it.

    Returns:
        One result per cut, in order, also added to the artefacts; those with ``violations`` broke something. It ends
        early with a board that cannot be brought back.

    Raises:
        NotApplicableError: the firmware has no test hooks. RefusedError: see `harness.cuts.guard`.
        BoardError: an update without a cut fails; what came before is in the artefacts.
    """
    require_cuttable(board, Work.UPDATE)
    possible = tuple(kinds or (strongest_kind(board), CutKind.RESTART, CutKind.PANIC))
    random = Random(seed)
    works, left_out = _works(board)
    results = [_left_out(board, work, why) for work, why in left_out.items()]
    groups = [group for work in works for group in _points(board, work, make_release, possible, random)]
    points = (
        [point for group in groups for point in group] if count is None else _drawn(groups, count, random)
    )
    for number, (work, cut) in enumerate(points, start=1):
        result, usable = _one(board, make_release, work, cut)
        keep(result, board.folder)
        results.append(result)
        tell(number, len(points), result)
        if not usable:
            break
    return results


def _works(board: Board) -> tuple[list[Work], dict[Work, str]]:
    """What is walked over; and what is not, with the reason."""
    works, left_out = [Work.UPDATE], {}
    try:
        require_cuttable(board, Work.CONFIRM)
        works.append(Work.CONFIRM)
    except RefusedError as error:
        left_out[Work.CONFIRM] = error.message
    return works, left_out


def _left_out(board: Board, work: Work, why: str) -> CutResult:
    kind = strongest_kind(board)
    return CutResult(board.name, work.value, kind, kind, "nothing", "none", struck=False, left_out=why)


def _points(
    board: Board, work: Work, make_release: Callable[[], Release], kinds: Sequence[CutKind], random: Random
) -> list[list[Point]]:
    """Every place where `work` could be cut, in groups of alike; one run without a cut tells how many there are."""
    release = make_release()
    package_bytes = len(board.package(release))
    if work is Work.CONFIRM:
        _bring(board, release)
    start = flash_operations(board)
    _demand(board, board.update(release) if work is Work.UPDATE else board.confirm())
    erases, writes = (now - then for now, then in zip(flash_operations(board), start, strict=True))
    total = erases + writes
    if work is Work.CONFIRM:
        triggers = _around(range(1, total + 1), range(1, writes + 1), last=total)
        return [[(work, Cut(random.choice(kinds), trigger)) for trigger in triggers]]
    board.reboot()
    _demand(board, board.confirm())
    # The slot's erases, the body's writes, then one erase and one write of otadata.
    begin, switch = {1, 2, erases, erases + 1}, {total - 1, total}
    body = [n for n in range(1, total + 1) if n not in begin | switch]
    groups = [
        _around(sorted(begin), (1,)),
        _around(body, range(2, writes)),
        _around(sorted(switch), (writes,), last=total),
    ]
    found: list[list[Point]] = [
        [(work, Cut(random.choice(kinds), trigger)) for trigger in group] for group in groups
    ]
    outside = [kind for kind in kinds if not kind.by_firmware]
    if outside and board.status().fields.get("net") != "none":
        middle, end = package_bytes // 2, package_bytes - 1
        places = (HEADER_BYTES // 2, HEADER_BYTES + 1, HEADER_BYTES + 4096, middle, end)
        found.append([(work, Cut(random.choice(outside), ServedByte(at_byte))) for at_byte in places])
    return found


def _around(operations: Iterable[int], writes: Iterable[int], *, last: int | None = None) -> list[Trigger]:
    """Before these operations and inside these writes; after one is before the next, but for the last."""
    found: list[Trigger] = [FlashOperation(n) for n in operations]
    found += [FlashOperation(n, Counted.WRITE, Side.INSIDE) for n in writes]
    return found if last is None else [*found, FlashOperation(last, side=Side.AFTER)]


def _drawn(groups: Sequence[Sequence[Point]], count: int, random: Random) -> list[Point]:
    """One of each group in turn: the switch has few operations among hundreds of writes, and matters most."""
    shuffled = [random.sample(group, len(group)) for group in groups]
    turns = [point for turn in zip_longest(*shuffled) for point in turn if point is not None]
    return turns[:count]


def _one(board: Board, make_release: Callable[[], Release], work: Work, cut: Cut) -> tuple[CutResult, bool]:
    """One cut, what it broke, and whether the board can go on."""
    old, release = board.snapshot(), make_release()
    expected = Expected.of(old, release, board.body(release))
    if work is Work.CONFIRM:
        _bring(board, release)
    did = (lambda: board.update(release)) if work is Work.UPDATE else board.confirm
    try:
        result = strike(board, cut, did, during=work)
    except NotBackError as error:
        result = error.result
    else:
        if not result.struck and work is Work.UPDATE:
            # The count differs by one or two: a second erase of otadata is not always needed.
            board.reboot()
        result = replace(result, violations=violations(board, expected, make_release))
    if not result.violations:
        return result, True
    try:
        board.settle()
    except HarnessError as error:
        return replace(result, violations=(*result.violations, f"does not settle: {error.message}")), False
    return result, True


def _bring(board: Board, release: Release) -> None:
    """Updates without a cut, and boots the new version, which waits for its confirmation."""
    _demand(board, board.update(release))
    board.reboot()


def _demand(board: Board, answer: Answer) -> None:
    if not answer.ok:
        raise BoardError(f"'{answer.command}' fails without any cut: {answer}", board=board.name)
