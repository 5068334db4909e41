"""The supply of a labgrid place, switched by labgrid's own driver for whatever power port the place has."""

from __future__ import annotations

from typing import ClassVar

from harness.links.labgrid_lease import PlaceLease
from harness.power.power import Power


class LabgridPower(Power):
    """``labgrid-client power``, which refuses when the place is not ours.

    One switch takes about a second, and waits while the coordinator is away.
    """

    kind: ClassVar[str] = "labgrid"

    def __init__(self, lease: PlaceLease) -> None:
        self._lease = lease

    @property
    def description(self) -> str:
        return f"{self._lease.power} of labgrid place {self._lease.place}"

    def off(self) -> None:
        self._lease.switch("off")

    def on(self) -> None:
        self._lease.switch("on")
