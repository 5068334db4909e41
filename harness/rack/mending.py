"""The health check that clears a board which is latched broken: does it answer, is it the one, does it boot.

Nothing is written to the board. It is reset, into download mode as far as its lock still has one, and into what is in
its flash.
"""

from __future__ import annotations

from harness.board import Board
from harness.console.boot_record import BootRecord, Outcome
from harness.doctor.board_facts import area_of, revision_text
from harness.doctor.finding import Finding, good, note, wrong
from harness.errors import BoardError, HarnessError, InUseError
from harness.identification import identify
from harness.lab import Lab
from harness.linked_board import is_stuck
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord

BOOT_TIMEOUT_S = 20.0
"""From a reset to the end of a boot; a first boot that enciphers flash takes longer, and is no health check's matter."""

EVENT_TIMEOUT_S = 6.0
"""From an app's start to the boot event of the harness's own firmware."""


def check_health(lab: Lab, name: str) -> list[Finding]:
    """What is found when the board `name` is asked; it is healthy when nothing of it is wrong."""
    area = area_of(name)
    found: list[Finding] = []
    try:
        board = lab.open(name)
        found.append(good(area, f"it is free, and reached by {board.link.description}"))
        state = _identified(board, found)
        found += [_who(board, state), _is_the_one(board)]
        found.append(_boots(board, board.records.read(board.mac) if board.mac else None, state))
    except InUseError as error:
        found.append(wrong(area, error.message, error.todo or "wait for that job to end"))
    except HarnessError as error:
        found.append(wrong(area, error.message, error.todo or "check cable, supply, and its entry"))
    return found


def _identified(board: Board, found: list[Finding]) -> ChipState:
    """Asks twice, as a person would: who is called broken for one lost byte costs somebody a walk to the rack."""
    try:
        return identify(board)
    except BoardError as error:
        found.append(note(area_of(board.name), f"it did not answer at the first attempt: {error.message}"))
        return identify(board)


def _who(board: Board, state: ChipState) -> Finding:
    who = f"{board.chip.title}, {board.mac}"
    if state.download is Download.OFF:
        return good(area_of(board.name), f"its ROM says that UART download is off; it is an {who}")
    return good(
        area_of(board.name),
        f"its ROM answers: {state.chip.title} {revision_text(state.revision)}, {board.mac}",
    )


def _is_the_one(board: Board) -> Finding:
    area, declared, found = area_of(board.name), board.identity.declared, board.identity.found
    if declared is None:
        if not board.link.physical:
            return good(area, "it is what its state folder holds")
        return note(area, "its entry has no 'mac:': that it is the right board cannot be told")
    if found is not None and found != declared:
        return wrong(
            area,
            f"boards.yaml says {declared}, the chip says {found}",
            "connect the right board (two cables may be swapped), or correct 'mac:' in its entry",
        )
    return good(area, "the MAC is as declared")


def _boots(board: Board, record: DeviceRecord | None, state: ChipState) -> Finding:
    """Resets it into its flash, and tells how far it comes."""
    area = area_of(board.name)
    mark = board.console.mark()
    try:
        boot = board.watch_boot(timeout_s=BOOT_TIMEOUT_S)
        if boot.outcome is Outcome.APP:
            boot = _with_event(board, mark) or boot
    except BoardError as error:
        last = board.boots[-1] if board.boots else None
        if last is not None and last.outcome is Outcome.LOADED and board.link.runs_native:
            return good(area, f"its bootloader loads an app that was built for the chip: {last.summary()}")
        return wrong(
            area,
            f"no boot comes to an end after a reset: {error.message}",
            "check its supply, and 'console' and 'console_baud' in its entry; hold nothing on GPIO0",
        )
    if boot.outcome is Outcome.APP and not is_stuck(boot):
        if boot.evt_boot is None:
            return good(area, f"an app starts, not one of the harness: {boot.summary()}")
        running = board.status()
        return good(area, f"its firmware answers: {running.version} in {running.slot}")
    return _not_up(board, boot, record, state)


def _with_event(board: Board, mark: int) -> BootRecord | None:
    """The boot with the firmware's own word in it, or that of an app that resets again and again; None: it says none."""
    try:
        found = board.console.wait_for_boot(
            lambda record: record.evt_boot is not None or is_stuck(record),
            EVENT_TIMEOUT_S,
            since=mark,
            what="the firmware's boot event",
        )
    except BoardError:
        return None
    return next(record for record in board.boots if record.number == found.number)


def _not_up(board: Board, boot: BootRecord, record: DeviceRecord | None, state: ChipState) -> Finding:
    area, download = area_of(board.name), state.download
    if record is None and download is Download.OPEN and not is_looping(boot):
        # As it comes from the factory: the next run writes its flash.
        text = (
            f"it resets; nothing that boots is in its flash, and it was never provisioned: {boot.summary()}"
        )
        return note(area, text)
    todo = {
        Download.OPEN: f"write its flash again: harness provision --board {board.name} --reflash",
        Download.SECURE: f"write its flash again: harness provision --board {board.name} --reflash, or harness rescue",
    }.get(download, "its flash can be written by nobody any more: use another board")
    return wrong(area, f"it does not boot: {boot.summary()}", todo)


def is_looping(boot: BootRecord) -> bool:
    """An app starts and resets, again and again."""
    return is_stuck(boot) and boot.outcome is Outcome.APP
