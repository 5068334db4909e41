"""A supply whose switching is in the board's log: the boot that comes of it has its cause beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from harness.links.link import Link
from harness.power.power import Power


class NotedPower(Power):
    """Another `Power`; `note` is told what is done with it, before it is done, and `link` that its port may be away."""

    kind: ClassVar[str] = "noted"

    def __init__(self, power: Power, link: Link, note: Callable[[str], None]) -> None:
        self._power = power
        self._link = link
        self._note = note

    @property
    def description(self) -> str:
        return self._power.description

    def off(self) -> None:
        self._note(f"off ({self.description})")
        self._link.supply_changes(on=False)
        self._power.off()

    def on(self) -> None:
        self._note(f"on ({self.description})")
        self._power.on()
        self._link.supply_changes(on=True)
