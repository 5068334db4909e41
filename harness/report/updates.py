"""Updates as the firmware's own events tell them: what was asked, every phase, how it ended. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.console.events import MARKER, DeviceEvent, parse_events
from harness.console.log_line import Line

_SENT = re.compile(r"sent: [\w-]+ id=(\d{1,18})\b")

UPDATING = frozenset({"ota", "ota-uart", "ota-stock"})
"""Commands of the firmware that write a slot."""


@dataclass(frozen=True, slots=True)
class Told:
    """One good event of the firmware, and when and where it stands in the log."""

    ev: str
    data: Mapping[str, Any]
    at_s: float
    line: int

    @property
    def id(self) -> object:
        return self.data.get("id")


@dataclass(slots=True)
class Command:
    """One command that the firmware has acknowledged."""

    name: str
    ack: Told
    sent_s: float
    """When the host sent it, by its own clock; where that is not in the log, when it was acknowledged."""
    phases: list[Told] = field(default_factory=list)
    """Its ``ota`` events."""
    done: Told | None = None
    """None: a restart, a kill, or the end of the log came first."""

    @property
    def updates(self) -> bool:
        return self.name in UPDATING

    @property
    def ok(self) -> bool | None:
        """None: it was not seen to end."""
        if self.ack.data.get("ok") is not True:
            return False
        return None if self.done is None else self.done.data.get("ok") is True

    @property
    def error(self) -> str | None:
        """The firmware's word for why it failed."""
        last = self.done or self.ack
        return None if self.ok is not False else str(last.data.get("err", "unknown"))

    @property
    def end_s(self) -> float:
        """When it was last heard of."""
        return (self.done or (self.phases[-1] if self.phases else self.ack)).at_s

    @property
    def bytes(self) -> int:
        """Written to the slot so far."""
        return max((_int(each.data.get("bytes")) for each in self.phases), default=0)

    @property
    def deciphered(self) -> bool:
        """The firmware has written the first sector, and read an image back through the cipher."""
        return self.phase("first-sector") is not None

    def phase(self, name: str) -> Told | None:
        """The event that announces the phase `name`."""
        return next((each for each in self.phases if each.data.get("phase") == name), None)

    def result(self, name: str) -> Any:
        """A field of its result, None without one."""
        return self.done.data.get(name) if self.done is not None else None


def told_in(lines: Iterable[Line]) -> list[Told]:
    """Every good event in `lines`."""
    return [
        Told(event.ev, event.data, line.wall_s, line.n)
        for line in lines
        if not line.is_mark and MARKER in line.text
        for event in parse_events(line.text, line.n)[0]
        if isinstance(event, DeviceEvent)
    ]


def commands_in(lines: Iterable[Line], events: Iterable[Told]) -> list[Command]:
    """The commands of `events`, which are those in `lines`, in order; a boot ends what was under way."""
    sent: dict[int, float] = {}
    for line in lines:
        if line.is_mark and (match := _SENT.match(line.text)) is not None:
            # The first time that it was sent.
            sent.setdefault(int(match[1]), line.wall_s)
    found: list[Command] = []
    under_way: dict[object, Command] = {}
    for event in events:
        if event.ev == "boot":
            under_way.clear()
        elif event.ev == "ack":
            sent_s = sent.get(_int(event.id), event.at_s)
            command = Command(str(event.data.get("cmd")), event, sent_s)
            found.append(command)
            if event.data.get("ok") is True:
                under_way[event.id] = command
        elif event.ev == "ota" and event.id in under_way:
            under_way[event.id].phases.append(event)
        elif event.ev == "done" and event.id in under_way:
            under_way.pop(event.id).done = event
    return found


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
