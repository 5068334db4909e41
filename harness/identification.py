"""Who a board is: its MAC, by its ROM, and where that does not tell, by its link or its firmware."""

from __future__ import annotations

from harness.board import Board
from harness.errors import BoardError
from harness.provision.chip_state import ChipState, unreachable_state
from harness.provision.profile import Lock


def identify(board: Board) -> ChipState:
    """eFuses from the ROM, and who the board is; one whose ROM does not tell is identified by link or firmware.

    Raises:
        BoardError: nothing answers, or nothing tells its MAC.
    """
    off = _was_off(board) and board.says_download_is_off()
    state = unreachable_state(board.chip, None) if off else ask_rom(board)
    board.mac = state.mac or _told_otherwise(board)
    return state


def _was_off(board: Board) -> bool:
    """Whether the board that is meant to be here had no UART download when it was left: it is asked for that first."""
    meant = board.identity.declared or getattr(board.link, "mac", None)
    record = board.records.read(str(meant)) if meant else None
    return record is not None and record.lock is Lock.DOWNLOAD_OFF


def ask_rom(board: Board) -> ChipState:
    """What the ROM tells of the chip; of a board without UART download only that it has none.

    Raises:
        BoardError: nothing answers.
    """
    try:
        return board.read_state()
    except BoardError:
        if not board.says_download_is_off():
            raise
    return unreachable_state(board.chip, None)


def _told_otherwise(board: Board) -> str:
    """The MAC of a board whose ROM does not tell it: by its link, else by its firmware.

    Raises:
        BoardError: neither tells, and the board was not identified earlier in this run.
    """
    told = getattr(board.link, "mac", None)
    if told is not None:
        board.identity.told(str(told))
    else:
        try:
            board.restart()
            board.status()
        except BoardError:
            # A firmware that died in this run cannot say again what it, or the ROM, has said on this very wire.
            if board.identity.found is None:
                raise
    assert board.identity.found is not None
    return board.identity.found
