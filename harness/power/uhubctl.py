"""One port of a USB hub, switched by the program ``uhubctl``."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from harness.errors import LabError
from harness.links.environment import child_environment
from harness.power.command import run_command
from harness.power.hub_guard import HubGuard
from harness.power.power import Power

TIMEOUT_S = 30.0

INSTALL = "install uhubctl (Debian, Ubuntu: 'sudo apt install uhubctl'), or name it in the board's entry"
PERMISSION = (
    "run 'uhubctl' by hand: if it lists nothing, this user lacks the udev rule that comes with it, or the hub "
    "cannot switch single ports"
)


_NOTHING = "No compatible devices"
"""What uhubctl says when it finds no hub that it would switch."""


@dataclass(frozen=True, slots=True)
class HubStatus:
    """One hub as ``uhubctl`` describes it."""

    location: str
    description: str
    powered: dict[int, bool]
    """By port number."""

    @property
    def switches_single_ports(self) -> bool:
        """Its descriptor says ``ppps`` (per-port power switching), not ``ganged`` or ``nops``."""
        return bool(re.search(r",\s*ppps\b", self.description))


def parse_status(text: str) -> tuple[HubStatus, ...]:
    """The hubs in uhubctl's output, in order; after a switch each comes twice, as it was and as it is."""
    hubs: list[HubStatus] = []
    for line in text.splitlines():
        head = re.match(r"(?:Current|New) status for hub (\S+)(?: \[(.*)\])?\s*$", line)
        if head:
            hubs.append(HubStatus(head[1], head[2] or "", {}))
            continue
        port = re.match(r"\s+Port (\d+): ([0-9a-f]{4})\b([^\[]*)", line)
        if port and hubs:
            hubs[-1].powered[int(port[1])] = "power" in port[3].split()
    return tuple(hubs)


class UhubctlPower(Power):
    """The supply of a board at port `port` of the hub at `hub` (``1-1``; ``1`` for a root hub).

    `program` is the command that runs uhubctl, e.g. ``("sudo", "-n", "uhubctl")``. A USB 3 hub is two hubs in one;
    uhubctl switches both.
    """

    kind: ClassVar[str] = "uhubctl"

    def __init__(
        self,
        hub: str,
        port: int,
        guard: HubGuard,
        *,
        program: Sequence[str] | None = None,
        board: str | None = None,
    ) -> None:
        self.hub = hub
        self.port = port
        self._guard = guard
        self._program = tuple(program) if program else None
        self._board = board
        self._checked = False

    @property
    def description(self) -> str:
        return f"uhubctl {self.hub} port {self.port}"

    def check(self) -> None:
        """Makes sure that this hub is there and switches single ports. Changes nothing.

        Raises:
            LabError: uhubctl is missing, finds no such hub, or the hub switches all its ports together.
        """
        here = self._look()
        if here is None:
            raise LabError(f"uhubctl finds no hub at {self.hub}", board=self._board, todo=PERMISSION)
        if not here.switches_single_ports:
            raise LabError(
                f"hub {self.hub} [{here.description}] cannot switch single ports: cutting one would cut all",
                board=self._board,
                todo="use a hub with per-port power switching, or another way to switch the power",
            )
        if self.port not in here.powered:
            numbers = ", ".join(map(str, sorted(here.powered)))
            raise LabError(
                f"hub {self.hub} has no port {self.port}; it has {numbers}",
                board=self._board,
                todo="correct 'port' under 'power' in the board's entry",
            )
        self._checked = True

    def _look(self) -> HubStatus | None:
        what = f"looking at USB hub {self.hub}"
        try:
            text = self._run("-l", self.hub, what=what)
        except LabError as error:
            if _NOTHING not in error.message:
                raise
            # uhubctl passes over hubs that cannot switch single ports. Only looking, it may be told to show them.
            try:
                text = self._run("-f", "-l", self.hub, what=what)
            except LabError as again:
                if _NOTHING not in again.message:
                    raise
                return None
        return next((hub for hub in parse_status(text) if hub.location == self.hub), None)

    def off(self) -> None:
        self._switch(on=False)

    def on(self) -> None:
        self._switch(on=True)

    def _switch(self, *, on: bool) -> None:
        if not self._checked:
            self.check()
        word = "on" if on else "off"
        if on:
            output = self._request(word)
        else:
            with self._guard.cutting(self.hub, self._board):
                output = self._request(word)
        # The last word on each hub: a USB 3 hub has two halves.
        after = {hub.location: hub for hub in parse_status(output)}
        wrong = [where for where, hub in after.items() if hub.powered.get(self.port, on) is not on]
        if wrong or self.hub not in after:
            raise LabError(
                f"port {self.port} of hub {', '.join(wrong) or self.hub} did not go {word}",
                board=self._board,
                todo=PERMISSION,
            )

    def _request(self, word: str) -> str:
        what = f"switching port {self.port} of hub {self.hub} {word}"
        return self._run("-l", self.hub, "-p", str(self.port), "-a", word, what=what)

    def _run(self, *arguments: str, what: str) -> str:
        command = [*(self._program or (find_uhubctl(self._board),)), *arguments]
        return run_command(
            command, what, timeout_s=TIMEOUT_S, environment=child_environment(), board=self._board
        )


def find_uhubctl(board: str | None = None) -> str:
    """The program: from HARNESS_UHUBCTL, PATH, or where Debian puts it.

    Raises:
        LabError: it is not installed; says how it is.
    """
    named = os.environ.get("HARNESS_UHUBCTL")
    # Debian's package puts it into /usr/sbin, which is not on a user's PATH.
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(named) if named else shutil.which("uhubctl", path=places)
    if found is None:
        raise LabError(f"{named or 'uhubctl'} cannot be executed", board=board, todo=INSTALL)
    return found
