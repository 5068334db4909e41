"""The timeline of a test: what the harness did, what the board said, what was served, each with its line. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.console.boot_patterns import BOOTLOADER_BANNER
from harness.console.boot_record import BootRecord
from harness.console.log_line import Line
from harness.console.mark import STEP, STEP_DONE, Mark, parse_mark
from harness.ota.journal import Request
from harness.report.flash_map import SECTOR_BYTES
from harness.report.run_record import Event
from harness.report.updates import Command, Told, commands_in, told_in

MOST_EVENTS = 400
"""Of one test; what comes after is counted."""

_QUIET = frozenset({"status", "otadata", "hash", "probe", "net", "flash-ops"})
"""Commands that only ask; they are on the timeline when they fail."""

TEST_NOTE = "test "
"""With what the mark begins that says which test begins."""

_ON_THE_LINE = frozenset({"reset", "power", "cut", "vanished", "gap"})
_LENDING = frozenset({"lent", "flash", "otadata"})

PHASES = {
    "header": "header received",
    "begin": "checked before anything is erased",
    "erase": "erased, first sector written",
    "erased": "first sector written and read back",
    "first-sector": "downloaded and written",
    "write": "downloaded and written",
    "verify": "verified",
    "switch": "boot partition set",
}
"""What is going on from each phase that the firmware announces to the next."""

ERASE_ALONE = "erased"
"""What ``erase`` is where ``erased`` follows it; older firmware does not announce that."""


def events_of(
    lines: Sequence[Line], boots: Iterable[BootRecord] = (), requests: Iterable[Request] = ()
) -> tuple[Event, ...]:
    """What happened in `lines`, in order; `boots` are those that begin in them, `requests` those answered meanwhile."""
    if not lines:
        return ()
    at = _Clock(lines)
    told = told_in(lines)
    commands = commands_in(lines, told)
    found = [
        *_of_marks(lines),
        *(event for boot in boots for event in _of_boot(boot, at, told)),
        *(event for command in commands for event in _of_command(command)),
        *_restarts(commands, told),
        *(_of_request(request, at) for request in requests),
    ]
    found.sort(key=lambda event: (event.at_s, -1 if event.line is None else event.line))
    if len(found) > MOST_EVENTS:
        left = len(found) - MOST_EVENTS
        last = found[MOST_EVENTS]
        found = [
            *found[:MOST_EVENTS],
            Event(
                at_s=last.at_s, kind="mark", text=f"{left} more events are only in the log", line=last.line
            ),
        ]
    return tuple(found)


class _Clock:
    """From line numbers to moments, and back."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        self._first = lines[0].n
        self._moments = [line.wall_s for line in lines]

    def of(self, n: int) -> float | None:
        """The moment of line `n`; None: it is not among them."""
        index = n - self._first
        return self._moments[index] if 0 <= index < len(self._moments) else None

    def line_at(self, at_s: float) -> int | None:
        """The last line that had come by then."""
        index = bisect_right(self._moments, at_s) - 1
        return self._lines[index].n if index >= 0 else None

    def find(self, first: int, last: int, words: str) -> Line | None:
        """The first of the board's lines `first` to `last` that holds `words`."""
        between = self._lines[max(0, first - self._first) : last - self._first + 1]
        return next((line for line in between if not line.is_mark and words in line.text), None)


def _of_marks(lines: Iterable[Line]) -> Iterator[Event]:
    lending: tuple[Line, Mark] | None = None
    lines = tuple(lines)
    done_s = {
        done[1]: line.wall_s
        for line in lines
        if line.is_mark
        and (mark := parse_mark(line.text)).kind == STEP
        and (done := STEP_DONE.fullmatch(mark.text))
    }
    for line in lines:
        if not line.is_mark:
            continue
        mark = parse_mark(line.text)
        if mark.kind in _ON_THE_LINE:
            kind = mark.kind if mark.kind in ("reset", "power", "cut") else "error"
            yield Event(at_s=line.wall_s, kind=kind, text=mark.text, line=line.n)
        elif mark.kind in _LENDING:
            lending = line, mark
        elif mark.kind == "returned" and lending is not None:
            began, what = lending
            lending = None
            words = {"flash": " to write", "otadata": " to write otadata", "lent": " to read"}[what.kind]
            yield Event(
                at_s=began.wall_s,
                kind="tool",
                text=f"{what.text}{words}",
                duration_s=_seconds(line.wall_s - began.wall_s),
                line=began.n,
            )
        elif mark.kind == STEP and not STEP_DONE.fullmatch(mark.text):
            end_s = done_s.get(mark.text.partition(" ")[0])
            took_s = _seconds(end_s - line.wall_s) if end_s is not None else None
            yield Event(at_s=line.wall_s, kind="step", text=mark.text, duration_s=took_s, line=line.n)
        elif mark.kind == "note" and not mark.text.startswith(TEST_NOTE):
            yield Event(at_s=line.wall_s, kind="mark", text=mark.text, line=line.n)
    if lending is not None:
        yield Event(at_s=lending[0].wall_s, kind="tool", text=lending[1].text, line=lending[0].n)


def _of_boot(boot: BootRecord, at: _Clock, told: Sequence[Told]) -> Iterator[Event]:
    began_s = at.of(boot.first_line)
    if began_s is None:
        return
    banner = at.find(boot.first_line, boot.last_line, "2nd stage bootloader")
    starts = at.find(boot.first_line, boot.last_line, "cpu_start:")
    if boot.reset_reason is not None or boot.rom_banner is not None:
        reason = boot.reset_reason or "reset"
        why = f", caused by {boot.caused_by}" if boot.caused_by else ", by itself"
        yield Event(
            at_s=began_s,
            kind="rom",
            text=f"boot {boot.number}: {reason}{why}",
            duration_s=_seconds(banner.wall_s - began_s) if banner is not None else None,
            line=boot.first_line,
        )
    if banner is not None:
        version = BOOTLOADER_BANNER.search(banner.text)
        where = f", loads {boot.slot or 'app'} at 0x{boot.offset:x}" if boot.offset is not None else ""
        yield Event(
            at_s=banner.wall_s,
            kind="bootloader",
            text=f"bootloader of ESP-IDF {version[1] if version else '?'}{where}",
            duration_s=_seconds(starts.wall_s - banner.wall_s) if starts is not None else None,
            line=banner.n,
        )
    for error in boot.errors:
        moment = at.of(error.line)
        if moment is not None:
            yield Event(at_s=moment, kind="error", text=f"{error.phase}: {error}", line=error.line)
    if boot.panic is not None and (moment := at.of(boot.panic.line)) is not None:
        yield Event(at_s=moment, kind="panic", text=str(boot.panic), line=boot.panic.line)
    yield from _of_app(boot, began_s, at, told)


def _of_app(boot: BootRecord, began_s: float, at: _Clock, told: Sequence[Told]) -> Iterator[Event]:
    """The application is up, by its own word or by what ESP-IDF prints; or the boot ended otherwise."""
    if not boot.app_started:
        if not boot.download:
            last_s = at.of(boot.last_line) or began_s
            yield Event(at_s=last_s, kind="error", text=boot.summary(), line=boot.last_line)
        return
    up = next((t for t in told if t.ev == "boot" and boot.first_line <= t.line <= boot.last_line), None)
    if up is None:
        started = at.find(boot.first_line, boot.last_line, "app_main()")
        line, up_s = (started.n, started.wall_s) if started is not None else (boot.last_line, began_s)
    else:
        line, up_s = up.line, up.at_s
    where = f"{boot.slot or 'app'} at 0x{boot.offset:x}" if boot.offset is not None else boot.slot or "app"
    state = f", {boot.ota_state}" if boot.ota_state else ""
    yield Event(
        at_s=up_s,
        kind="app",
        text=f"{boot.project or 'app'} {boot.version or '(version not said)'} is up in {where}{state}",
        duration_s=_seconds(up_s - began_s),
        line=line,
    )
    for update in boot.updates:
        if not update.startswith("command "):
            yield Event(at_s=up_s, kind="update", text=update, line=line)


def _of_command(command: Command) -> Iterator[Event]:
    if command.name in _QUIET and command.ok is not False:
        return
    ended = {True: "ok", False: str(command.error), None: "not seen to end"}[command.ok]
    took_s = _seconds(command.end_s - command.ack.at_s)
    if not command.updates:
        yield Event(
            at_s=command.ack.at_s,
            kind="command",
            text=f"{command.name}: {ended}",
            duration_s=took_s,
            line=command.ack.line,
        )
        return
    version, slot = command.result("version"), command.result("slot")
    what = f"update ({command.name})"
    what += f" to {version}" if version else ""
    what += f" in {slot}" if slot else ""
    yield Event(
        at_s=command.ack.at_s,
        kind="update",
        text=f"{what}: {ended}",
        duration_s=took_s,
        size=command.bytes or None,
        line=command.ack.line,
    )
    yield from _phases(command)


def _phases(command: Command) -> Iterator[Event]:
    """One event per phase; several of writing are one."""
    begun: list[Told] = []
    for told in command.phases:
        if (
            told.data.get("phase") == "write"
            and begun
            and begun[-1].data.get("phase") in ("first-sector", "write")
        ):
            continue
        begun.append(told)
    for index, told in enumerate(begun):
        phase = str(told.data.get("phase"))
        following = begun[index + 1] if index + 1 < len(begun) else None
        end_s = following.at_s if following is not None else command.end_s
        alone = phase == "erase" and following is not None and following.data.get("phase") == "erased"
        writes = phase in ("first-sector", "write")
        total = told.data.get("total")
        yield Event(
            at_s=told.at_s,
            kind="phase",
            text=ERASE_ALONE if alone else PHASES.get(phase, phase),
            duration_s=_seconds(end_s - told.at_s),
            size=command.bytes if writes else _erased(total) if phase == "erase" else None,
            line=told.line,
        )


def _erased(total: Any) -> int | None:
    """Whole sectors: of them `esp_ota_begin` erases as many as the image has bytes in."""
    return -(-total // SECTOR_BYTES) * SECTOR_BYTES if isinstance(total, int) else None


def _restarts(commands: Sequence[Command], told: Sequence[Told]) -> Iterator[Event]:
    """The last phase of an update: until what it wrote is up."""
    ups = [each for each in told if each.ev == "boot"]
    for index, command in enumerate(commands):
        if not command.updates or not command.ok or command.done is None:
            continue
        up = next((each for each in ups if each.line > command.done.line), None)
        if up is None:
            continue
        later = commands[index + 1 :]
        if any(each.updates and each.ack.line < up.line for each in later):
            continue
        asked = next((each for each in later if each.name == "reboot" and each.ack.line < up.line), None)
        began_s, line = (asked.ack.at_s, asked.ack.line) if asked else (command.done.at_s, command.done.line)
        yield Event(
            at_s=began_s, kind="phase", text="restarted", duration_s=_seconds(up.at_s - began_s), line=line
        )


def _of_request(request: Request, at: _Clock) -> Event:
    what = request.name or request.path
    status = request.status if request.status is not None else "no answer"
    begins = f" from byte {request.first_byte}" if request.first_byte else ""
    how = "" if request.end.value == "complete" else f", {request.end.value}"
    fault = f", fault: {request.fault}" if request.fault else ""
    return Event(
        at_s=request.at_ms / 1000,
        kind="served",
        text=f"{request.method} {what}{begins} → {status}{how}{fault}",
        duration_s=request.duration_ms / 1000,
        size=request.bytes_sent,
        line=at.line_at(request.at_ms / 1000),
    )


def _seconds(duration_s: float) -> float:
    return round(max(0.0, duration_s), 3)
