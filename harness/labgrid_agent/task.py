"""What the harness wants, and how it is answered."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """One place of one coordinator."""

    coordinator: str
    place: str | None
    filter: dict[str, str]
    reserve_timeout_s: float
    grace_s: float
    serial_port: str | None
    power_port: str | None
    pid: int
    """Of the harness."""
    folder: str
    """Where leases are noted, so that the next run on this host can give back what a killed agent could not."""
    identity: str | None = None
    """Of an agent that died: its lease is taken over."""
    held: str | None = None
    """The place that it held."""
    changed: float = 0.0
    """As the coordinator knew it when it was last known to be held; Unix seconds."""

    @property
    def wish(self) -> dict[str, str]:
        """The filter of the reservation: labgrid knows a place's name as a tag, too."""
        return {"name": self.place} if self.place is not None else self.filter


class RefusedError(Exception):
    """The place is not to be had."""

    def __init__(self, why: str, todo: str, *, in_use: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo
        self.in_use = in_use
        """Somebody else has it: nothing is wrong."""


class LostError(Exception):
    """The place is not ours any more."""


def say(event: str, **fields: Any) -> None:
    """One line for the harness, which may be dead."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")
