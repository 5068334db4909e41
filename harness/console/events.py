"""The firmware's event lines: ``@evt {"n":12,"ev":"ack",…,"crc":"1a2b3c4d"}`` among its normal log.

A UART loses bytes and two tasks may print at once, so an event is found anywhere in a line, believed only
when its CRC-32 fits, and a gap in the numbers says how many were lost.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.console.log_line import STAMPED

MARKER = "@evt"
_CRC_KEY = ',"crc":'
_LARGEST_COUNT = 0xFFFFFFFF
"""The firmware counts in 32 bits."""
_KEPT_CHARS = 160
"""How much of a damaged event a `BadEvent` shows."""


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """An event whose CRC was right."""

    n: int
    """The device's count, from 0 at each boot."""
    ev: str
    data: Mapping[str, Any]
    """All fields, ``n``, ``ev`` and ``crc`` among them."""
    line_n: int = -1
    missed: int = 0
    """How many events were lost between the previous good one of this boot and this one."""


@dataclass(frozen=True, slots=True)
class BadEvent:
    """Something that was an event before the wire or another task got at it."""

    reason: str
    text: str
    line_n: int = -1


def parse_events(text: str, line_n: int = -1) -> tuple[tuple[DeviceEvent | BadEvent, ...], str]:
    """All events in `text`, good and bad, and what is left of the line without them. Never raises."""
    found: list[DeviceEvent | BadEvent] = []
    rest: list[str] = []
    position = 0
    while (start := text.find(MARKER, position)) >= 0:
        rest.append(text[position:start])
        event, position = _event_at(text, start, line_n)
        found.append(event)
    rest.append(text[position:])
    return tuple(found), "".join(rest)


def _event_at(text: str, start: int, line_n: int) -> tuple[DeviceEvent | BadEvent, int]:
    """The event at `start`, and where it ends."""
    following = text.find(MARKER, start + len(MARKER))
    limit = following if following >= 0 else len(text)

    def bad(reason: str, end: int) -> tuple[BadEvent, int]:
        return BadEvent(reason, text[start : min(end, start + _KEPT_CHARS)], line_n), end

    brace = start + len(MARKER)
    while brace < limit and text[brace] == " ":
        brace += 1
    if brace >= limit or text[brace] != "{":
        return bad("nothing follows the marker" if brace >= limit else "no '{' follows the marker", brace)
    try:
        data, end = _DECODER.raw_decode(text, brace)
    except (ValueError, RecursionError):
        # Cut by the end of the line, by a lost byte, or by another task's log line.
        return bad("not whole JSON: cut, or another line printed into it", _end_of_damage(text, brace, limit))
    body = text[brace:end]
    crc_at = body.rfind(_CRC_KEY)
    stated = data.get("crc") if isinstance(data, dict) else None
    if crc_at < 0 or not isinstance(stated, str):
        return bad("no crc", end)
    actual = f"{binascii.crc32(body[:crc_at].encode('utf-8', errors='surrogatepass')):08x}"
    if stated.lower() != actual:
        return bad(f"crc is {stated[:16]}, the text gives {actual}", _end_of_damage(text, brace, end))
    number, name = data.get("n"), data.get("ev")
    counts = isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _LARGEST_COUNT
    if not counts or not isinstance(name, str):
        return bad("no number 'n' or no name 'ev'", end)
    return DeviceEvent(number, name, data, line_n), end


def _end_of_damage(text: str, brace: int, limit: int) -> int:
    """Where the rest of a line may be read again: at a log message printed into the event."""
    message = STAMPED.search(text, brace, limit)
    return message.start() if message else limit


def _no_constants(name: str) -> Any:
    raise ValueError(name)


_DECODER = json.JSONDecoder(parse_constant=_no_constants)


class EventStream:
    """Follows the numbers over lines and boots."""

    def __init__(self) -> None:
        self._expected: int | None = None

    def restart(self) -> None:
        """The chip has been reset: its next event has number 0."""
        self._expected = 0

    def feed(self, text: str, line_n: int = -1) -> tuple[tuple[DeviceEvent | BadEvent, ...], str]:
        """`parse_events`, with `DeviceEvent.missed` filled in.

        A number lower than expected is a restart that was not seen (or a device that repeats itself): the
        count goes on from there, and nothing counts as missed that could not have been.
        """
        if MARKER not in text:
            return (), text
        events, rest = parse_events(text, line_n)
        return tuple(self._numbered(event) for event in events), rest

    def _numbered(self, event: DeviceEvent | BadEvent) -> DeviceEvent | BadEvent:
        if isinstance(event, BadEvent):
            return event
        expected, self._expected = self._expected, event.n + 1
        if expected is None or event.n == expected:
            return event
        repeated = event.n == expected - 1
        missed = event.n - expected if event.n > expected else 0 if repeated else event.n
        return DeviceEvent(event.n, event.ev, event.data, event.line_n, missed)
