"""Any two commands: one cuts the supply, one gives it back. For smart plugs, relay cards, lab supplies."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import ClassVar

from harness.errors import LabError
from harness.links.environment import child_environment
from harness.power.power import Power

TIMEOUT_S = 30.0


class CommandPower(Power):
    """Runs `off_command` and `on_command` as they are, without a shell; exit status 0 means done.

    They see only the few environment variables that any program needs, and those named in `variables`.
    """

    kind: ClassVar[str] = "command"

    def __init__(
        self,
        off_command: Sequence[str],
        on_command: Sequence[str],
        *,
        timeout_s: float = TIMEOUT_S,
        variables: Sequence[str] = (),
        board: str | None = None,
    ) -> None:
        self._off = tuple(off_command)
        self._on = tuple(on_command)
        self._timeout_s = timeout_s
        self._variables = tuple(variables)
        self._board = board

    @property
    def description(self) -> str:
        return f"command {self._off[0]}"

    def off(self) -> None:
        self._run(self._off, "off")

    def on(self) -> None:
        self._run(self._on, "on")

    def _run(self, command: tuple[str, ...], what: str) -> None:
        environment = child_environment(self._variables)
        run_command(
            command,
            f"switching the power {what}",
            timeout_s=self._timeout_s,
            environment=environment,
            board=self._board,
        )


def run_command(
    command: Sequence[str],
    what: str,
    *,
    timeout_s: float,
    environment: dict[str, str],
    board: str | None,
) -> str:
    """Runs `command`; gives what it printed on standard output.

    Raises:
        LabError: it cannot be started, fails, or takes more than `timeout_s` seconds.
    """
    shown = shlex.join(command)
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(
            f"{what}: '{shown}' did not end within {timeout_s:g} s", board=board, todo="run it by hand"
        ) from error
    except OSError as error:
        raise LabError(
            f"{what}: '{command[0]}' cannot be started: {error.strerror}",
            board=board,
            todo="install it, or correct 'power' in the board's entry",
        ) from error
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        said = (done.stderr.decode(errors="replace").strip() or output.strip()).splitlines()
        end = f": {'; '.join(said[-3:])}" if said else ""
        raise LabError(
            f"{what}: '{shown}' ended with status {done.returncode}{end}", board=board, todo="run it by hand"
        )
    return output
