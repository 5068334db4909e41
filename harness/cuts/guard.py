"""What of a physical board is not cut: a fuse burn, a first-boot encryption, a write of bootloader or partition table.

The device itself is at stake there, not the update: what is half done cannot be repeated. Only a board whose entry
says ``sacrificial: true`` may be lost. Virtual boards are cut anywhere.
"""

from __future__ import annotations

from enum import Enum

from harness.board import Board
from harness.console.mark import FLASHING, parse_mark
from harness.errors import RefusedError


class Work(str, Enum):
    """What is under way while a cut is armed, and so what the cut may hit."""

    UPDATE = "update"
    """Download, erase, write, verify, switch: slots and otadata."""
    CONFIRM = "confirm"
    """The running version is marked valid: otadata; with anti-rollback an eFuse burn, too."""
    BOOT = "boot"
    """ROM, bootloader, start of the app: otadata; what a build burns at its start, as long as it has not done so."""
    FLASHING = "flashing"
    """Bootloader, partition table and app are written by cable."""
    FIRST_BOOT = "first-boot encryption"
    BURN = "fuse burn"


def danger_in(board: Board, work: Work) -> str | None:
    """What a cut during `work` may hit that cannot be repeated; None: nothing."""
    if work is Work.UPDATE:
        return None
    if work is Work.FLASHING:
        return "a write of bootloader or partition table"
    if work in (Work.FIRST_BOOT, Work.BURN):
        return f"a {work.value}"
    if board.app is None or board.app.sdkconfig is None:
        return "a fuse burn: without its sdkconfig nobody knows what the firmware burns"
    if "anti-rollback" in board.capabilities:
        return "the fuse burn of a secure version"
    if work is Work.BOOT and not _has_started(board):
        return "a first-boot encryption or a fuse burn: this firmware was not seen to start before"
    return None


def _has_started(board: Board) -> bool:
    """Whether an app has started since flash was last written by cable: what it burns at its start is burned."""
    marks = [line.n for line in board.console.marks if parse_mark(line.text).kind == FLASHING]
    flashed = max(marks, default=-1)
    return any(boot.app_started and boot.first_line > flashed for boot in board.console.boot_records)


def require_cuttable(board: Board, work: Work) -> None:
    """That a cut may be placed in `work` on this board.

    Raises:
        RefusedError: it is physical, the cut may hit what cannot be repeated, and its entry does not give it up.
    """
    if not board.link.physical or board.sacrificial:
        return
    danger = danger_in(board, work)
    if danger is not None:
        raise RefusedError(
            f"no cut is placed in {work.value}: it may hit {danger}, and the device would be lost",
            board=board.name,
            todo="use a twin; or say 'sacrificial: true' in the entry of a board that you can do without",
        )
