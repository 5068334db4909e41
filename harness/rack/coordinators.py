"""Who holds the boards that labgrid lends: their coordinators know, for all hosts."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from typing import Any

from harness.attachment import labgrid_wish
from harness.errors import LabError
from harness.inventory.entry import LabgridEntry
from harness.links.labgrid_lease import agent_command, agent_environment
from harness.links.labgrid_program import labgrid_python
from harness.rack.lease import Lease

LOOK_S = 20.0
"""One look at a coordinator: labgrid is imported, the coordinator asked."""

_OURS = re.compile(r"(?P<user>.+)\.harness-(?P<pid>\d+)-[0-9a-f]+")
"""What a lease of the harness calls itself; see `harness.labgrid_agent.agent`."""


@dataclass(slots=True)
class Coordinators:
    """Asks each coordinator once."""

    _told: dict[str, dict[str, Any]] = field(default_factory=dict)

    def holder_of(self, name: str, entry: LabgridEntry) -> Lease | None:
        """Who holds the place that the entry names; None: nobody, or any of several places would do.

        Raises:
            LabError: labgrid is not installed, or its coordinator does not answer.
        """
        wish = labgrid_wish(entry)
        place = self._places(name, entry, wish.coordinator).get(wish.place or "")
        if place is None or not place["holder"]:
            return None
        host, _, user = str(place["holder"]).partition("/")
        ours = _OURS.fullmatch(user)
        return Lease(
            name,
            ours["user"] if ours else user,
            host,
            int(ours["pid"]) if ours else None,
            "harness" if ours else "labgrid",
            float(place["changed"]),
            None,
        )

    def _places(self, name: str, entry: LabgridEntry, address: str) -> dict[str, Any]:
        if address not in self._told:
            python = labgrid_python(entry.client, board=name)
            try:
                done = subprocess.run(
                    agent_command(python, "look", address),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    env=agent_environment(),
                    timeout=LOOK_S,
                    check=False,
                )
                self._told[address] = json.loads(done.stdout)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                self._told[address] = {"problem": f"the labgrid coordinator {address} cannot be asked"}
        told = self._told[address]
        if "problem" in told:
            raise LabError(
                str(told["problem"]), board=name, todo="start it, or correct 'coordinator' or LG_COORDINATOR"
            )
        places: dict[str, Any] = told["places"]
        return places
