"""Cuts a board off while it works, and says truthfully what kind of cut it was."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.board import UPDATE_TIMEOUT_S, Board
from harness.console.device import Answer
from harness.console.log_line import Line
from harness.cuts.cut import (
    UNKNOWN_LAYER,
    Cut,
    CutKind,
    CutResult,
    FlashOperation,
    ServedByte,
    Struck,
    Trigger,
)
from harness.cuts.guard import Work, require_cuttable
from harness.errors import BoardError, HarnessError, LabError, NotApplicableError
from harness.links.link import BootMode
from harness.ota.faults import Fault, FaultKind
from harness.power.power import OFF_S

POLL_S = 0.002
"""How often a trigger is looked for: small beside what a UART line takes."""

FILE_NAME = "cuts.jsonl"

_ENDS = {CutKind.RESTART: "esp_restart", CutKind.PANIC: "abort", CutKind.WATCHDOG: "the task watchdog"}
_HOLD = "hold"
"""``cut-at kind=``: the firmware stands still, so that somebody else cuts at a known place."""


class NotBackError(BoardError):
    """The board does not come up after a cut: the worst that can come of one."""

    def __init__(self, result: CutResult, error: BoardError) -> None:
        super().__init__(f"{result}: {error.message}", board=error.board, todo=error.todo)
        self.result = replace(result, violations=(error.message,))
        """With what is broken."""


def strongest_kind(board: Board) -> CutKind:
    """What can be done to this board from outside: its supply is switched, or it is only reset."""
    return CutKind.POWER if "power" in board.capabilities else CutKind.RESET


def strike(
    board: Board,
    cut: Cut,
    work: Callable[[], object],
    *,
    during: Work,
    or_reset: bool = False,
    timeout_s: float = UPDATE_TIMEOUT_S,
) -> CutResult:
    """Has the board do `work` and cuts it off when the trigger comes; then waits until its firmware is up again.

    Args:
        work: what is cut, e.g. ``lambda: board.update(release)``. It runs in a thread of its own; that it fails when it
            is cut off is what is wanted.
        during: what `work` is, which decides whether it may be cut at all.
        or_reset: where nothing switches the supply, a reset is made in place of a power cut, and recorded as a reset.

    Returns:
        What was done in truth; ``struck`` False when the work was over before the trigger came.

    Raises:
        RefusedError: see `harness.cuts.guard`; nothing was begun.
        NotApplicableError: no power cut is possible here; the firmware has no test hooks, or for a byte of the download
            no network.
        NotBackError: the board does not come up after the cut. BoardError: the work failed without a cut.
    """
    require_cuttable(board, during)
    kind = _possible(board, cut.kind, or_reset=or_reset)
    result = CutResult(
        board=board.name,
        work=during.value,
        asked=cut.kind,
        kind=kind,
        how=_means(board, kind),
        trigger=str(cut.trigger),
        struck=False,
    )
    board.console.note(f"armed: {kind.value} {cut.trigger}, in {during.value}", kind="cut")
    with _armed(board, cut.trigger, kind) as trigger:
        running = _in_thread(work)
        struck = trigger.wait(running, timeout_s)
        seen_s = time.monotonic()
        if struck:
            # What comes before is no boot after the cut; the hook's line is the last word before it.
            since = (
                trigger.line_n if kind.by_firmware and trigger.line_n is not None else board.console.mark()
            )
            if not kind.by_firmware:
                _cut(board, kind)
                result = replace(result, delay_ms=(time.monotonic() - seen_s) * 1000)
    if not struck:
        _require_success(board, running.result(), cut)
        board.console.note(str(result), kind="cut")
        return result
    result = replace(
        result,
        struck=True,
        operation=trigger.operation,
        layer=trigger.operation.layer(ported=board.link.runs_native) if trigger.operation else UNKNOWN_LAYER,
    )
    board.console.note(str(result), kind="cut")
    if kind is CutKind.POWER:
        time.sleep(OFF_S if board.link.physical else 0.0)
        board.power.on()
    try:
        boot = board.await_boot(since)
    except BoardError as error:
        raise NotBackError(result, error) from error
    _await_end(running, timeout_s)
    return replace(result, booted=boot.summary(), slot=boot.slot, version=boot.version)


def keep(result: CutResult, folder: Path) -> None:
    """Adds `result` to the artefacts of its board, one line of JSON per cut (`FILE_NAME`)."""
    with (folder / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(result.to_json()) + "\n")


def _possible(board: Board, asked: CutKind, *, or_reset: bool) -> CutKind:
    if asked is not CutKind.POWER or strongest_kind(board) is CutKind.POWER:
        return asked
    if not or_reset:
        raise NotApplicableError(
            f"its supply cannot be switched: {_means(board, CutKind.RESET)} is a reset, no power cut",
            board=board.name,
            todo="give 'power' in its entry, or ask for a reset",
        )
    return CutKind.RESET


def _means(board: Board, kind: CutKind) -> str:
    if kind.by_firmware:
        return f"{_ENDS[kind]} of the firmware's hook"
    if kind is CutKind.POWER:
        return board.power.description
    return f"{'DTR/RTS' if board.link.physical else 'the reset'} of {board.link.description}"


def _cut(board: Board, kind: CutKind) -> None:
    if kind is CutKind.POWER:
        board.power.off()
    else:
        board.reset(BootMode.RUN)


# --- triggers -------------------------------------------------------------------------------------------------------


class _Watch:
    """Waits for a trigger, as long as the work runs."""

    def __init__(self, has_come: Callable[[], bool] = lambda: False) -> None:
        self._has_come = has_come
        self.seen = threading.Event()
        self.line_n: int | None = None
        self.operation: Struck | None = None

    def take(self, line: Line, pattern: re.Pattern[str]) -> None:
        """Called with every line of the board, from the reading thread."""
        if not self.seen.is_set() and not line.is_mark and pattern.search(line.text):
            self.line_n, self.operation = line.n, Struck.of_line(line.text)
            self.seen.set()

    def wait(self, running: Future[object], timeout_s: float) -> bool:
        """True when it has come; False when the work was over before.

        Raises:
            BoardError: neither within `timeout_s`.
        """
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            over = running.done()
            if self.seen.wait(POLL_S) or self._has_come():
                return True
            if over:
                return False
        raise BoardError(f"neither the trigger of a cut came within {timeout_s:g} s, nor the end of the work")


@contextmanager
def _armed(board: Board, trigger: Trigger, kind: CutKind) -> Iterator[_Watch]:
    """The trigger, from now until the block ends."""
    if isinstance(trigger, ServedByte):
        with _armed_server(board, trigger) as watch:
            yield watch
        return
    if isinstance(trigger, FlashOperation):
        _arm_hook(board, trigger, kind)
        pattern = re.compile(r"\bcut: \w+ operation \d+, ")
    else:
        pattern = re.compile(trigger.pattern)
    watch = _Watch()
    stop = board.console.subscribe(lambda item: watch.take(item, pattern))
    try:
        yield watch
    finally:
        stop()
        if isinstance(trigger, FlashOperation) and not watch.seen.is_set():
            _disarm_hook(board)


@contextmanager
def _armed_server(board: Board, trigger: ServedByte) -> Iterator[_Watch]:
    """The server stops sending there, so that nothing but what was asked for is on its way when the cut comes."""
    if board.status().fields.get("net") == "none":
        raise NotApplicableError(
            "its firmware has no network: no byte of an update is served to it",
            board=board.name,
            todo="cut at a line of the log, or at a flash operation",
        )
    armed = board.server.faults.add(Fault(FaultKind.STALL, at_byte=trigger.at_byte))
    try:
        yield _Watch(lambda: armed.struck > 0)
    finally:
        armed.release()


def _arm_hook(board: Board, trigger: FlashOperation, kind: CutKind) -> None:
    end = kind.value if kind.by_firmware else _HOLD
    _demand_hooks(board, board.command("cut-at", kind=end, **trigger.arguments()))


def _disarm_hook(board: Board) -> None:
    """A cut that did not strike must not wait for the next test. After a restart there is none any more."""
    try:
        board.command("cut-at", kind="off")
    except HarnessError as error:
        board.console.note(f"the firmware's hook was not disarmed: {error.message}", kind="cut")


def flash_operations(board: Board) -> tuple[int, int]:
    """Sectors erased and writes since the running firmware began, in slots and otadata, as it counts them itself.

    Raises:
        NotApplicableError: it has no test hooks.
    """
    answer = board.command("flash-ops")
    _demand_hooks(board, answer)
    return int(answer.fields["erases"]), int(answer.fields["writes"])


def _demand_hooks(board: Board, answer: Answer) -> None:
    if answer.error == "unknown-command":
        raise NotApplicableError(
            f"its firmware does not know '{answer.command}': it was built without test hooks, or is an older one",
            board=board.name,
            todo="build it without --product, or leave --app out",
        )
    if not answer.ok:
        raise BoardError(f"refuses '{answer.command}': {answer}", board=board.name)


# --- the work ---------------------------------------------------------------------------------------------------------


def _in_thread(work: Callable[[], object]) -> Future[object]:
    """Starts `work`; a thread that hangs on a dead board does not keep this process from ending."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name="cut-off", daemon=True).start()
    return future


def _require_success(board: Board, outcome: Any, cut: Cut) -> None:
    """Without a cut the work must have succeeded, or nothing was learned."""
    if isinstance(outcome, Answer) and not outcome.ok:
        raise BoardError(f"fails by itself, and was not cut {cut.trigger}: {outcome}", board=board.name)


def _await_end(running: Future[object], timeout_s: float) -> None:
    """The work that was cut off ends, one way or the other.

    Raises:
        LabError: it does not; the board is in use by it.
    """
    try:
        running.result(timeout_s)
    except FutureTimeoutError as error:
        raise LabError("the work that was cut off does not end") from error
    except HarnessError:
        pass  # it was cut off
