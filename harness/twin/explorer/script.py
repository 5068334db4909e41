"""Carries steps out on a board that is being played, and compares what comes with what must."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.twin.explorer.job import Step
from harness.twin.explorer.player import BoardDead, Player


class Unexpected(Exception):  # noqa: N818 - a finding, not an error of the explorer
    """A step came out otherwise than it must."""


@dataclass(slots=True)
class Script:
    """Runs steps one after another; `last` is the event that ended the last one."""

    player: Player
    packages: Mapping[str, str]
    on_step: Callable[[int], None] = lambda _: None
    last: Mapping[str, Any] = field(default_factory=dict)

    def run(self, steps: Sequence[Step]) -> None:
        """Runs all of `steps`.

        Raises:
            Unexpected, BoardDead, SupplyGone
        """
        for number, step in enumerate(steps):
            self.on_step(number)
            try:
                self._run(step)
            except BoardDead as dead:
                raise BoardDead(f"'{step.name}': {dead}") from dead
            self._compare(step)

    def _run(self, step: Step) -> None:
        if step.do == "boot":
            self.player.on()
            self.last = self.player.await_boot()
        elif step.do == "cycle":
            self.player.cycle()
            self.last = self.player.await_boot()
        elif step.do == "reset":
            self.player.reset()
            self.last = self.player.await_boot()
        elif step.do == "reboot":
            self._command(step, "reboot")
            self.last = self.player.await_boot()
        elif step.do == "pause":
            time.sleep(step.seconds)
        elif step.do == "settle":
            self._settle(step)
        elif step.do == "update":
            slot = str(self.player.command("status").get("next"))
            if slot not in self.packages:
                raise Unexpected(
                    f"'{step.name}': the firmware would update {slot}, for which there is no package"
                )
            self._command(step, step.command or "ota", url=self.packages[slot])
        elif step.do == "command":
            self._command(step, step.command, **step.arguments)
            if step.restarts:
                self.last = self.player.await_boot()
        else:
            raise ValueError(f"no step is called '{step.do}'")

    def _settle(self, step: Step) -> None:
        """As a device does that finds itself healthy."""
        self.last = self.player.command("status")
        if self.last.get("state") == "pending":
            self._command(step, "confirm")

    def _command(self, step: Step, name: str, **arguments: object) -> None:
        self.last = self.player.command(name, **arguments)
        error = None if self.last.get("ok") else str(self.last.get("err", "unknown"))
        if error != step.refused:
            wanted = f"'{step.refused}'" if step.refused else "success"
            message = self.last.get("msg", "")
            raise Unexpected(
                f"'{step.name}': {name} ended with {error or 'success'}, not {wanted} {message}".rstrip()
            )

    def _compare(self, step: Step) -> None:
        for name, wanted in step.expect.items():
            found = self.last.get(name)
            if found != wanted:
                raise Unexpected(f"'{step.name}': {name} is {found!r}, not {wanted!r}")
