"""Who holds the boards that labgrid lends: their coordinators know, for all hosts."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from harness.attachment import labgrid_wish
from harness.errors import LabError
from harness.inventory.entry import LabgridEntry
from harness.links.labgrid_lease import PlaceWish, agent_command, agent_environment
from harness.links.labgrid_program import INSTALL, labgrid_python
from harness.rack.lease import Lease

LOOK_AGAIN_S = 15.0
"""How old an answer may be on a page."""
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
            LabError: labgrid is not installed, or its coordinator does not answer, or not in words that are understood.
        """
        wish = labgrid_wish(entry)
        try:
            return self._holder(name, entry, wish)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LabError(
                f"what was told of the labgrid coordinator {wish.coordinator} is not understood ({error!r})",
                board=name,
                todo=INSTALL,
            ) from error

    def _holder(self, name: str, entry: LabgridEntry, wish: PlaceWish) -> Lease | None:
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
            try:
                python = labgrid_python(entry.client, board=name)
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


class WatchedCoordinators:
    """Asks coordinators in the background, and says at once what they said last: for a page that must not wait.

    A coordinator is asked only when somebody wants to know, and at most every `LOOK_AGAIN_S`.
    """

    def __init__(self, make: Callable[[], Coordinators] = Coordinators) -> None:
        """`make`: what asks each coordinator once."""
        self._make = make
        self._known: dict[str, tuple[float, Coordinators]] = {}
        self._asking: dict[str, threading.Thread] = {}

    def holder_of(self, name: str, entry: LabgridEntry) -> Lease | None:
        """As `Coordinators.holder_of`, by the last answer; None also before there is one.

        Raises:
            LabError: as there.
        """
        address = labgrid_wish(entry).coordinator
        asked_s, known = self._known.get(address, (float("-inf"), None))
        asking = self._asking.get(address)
        idle = asking is None or not asking.is_alive()
        if idle and time.monotonic() - asked_s > LOOK_AGAIN_S:
            # A daemon: nobody waits for a coordinator that does not answer.
            thread = threading.Thread(target=self._ask, args=(address, name, entry), daemon=True)
            self._asking[address] = thread
            thread.start()
        return known.holder_of(name, entry) if known is not None else None

    def settle(self, timeout_s: float) -> None:
        """Waits for what is being asked."""
        for thread in self._asking.values():
            thread.join(timeout_s)

    def _ask(self, address: str, name: str, entry: LabgridEntry) -> None:
        asker = self._make()
        try:
            with suppress(LabError):
                # What is wrong is said to whoever wants to know, by the same question.
                asker.holder_of(name, entry)
        finally:
            # Whatever came of it: the next page must not ask again at once.
            self._known[address] = (time.monotonic(), asker)
