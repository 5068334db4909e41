"""One place of a labgrid coordinator, held as long as this process lives and gives it back when it ends, however.

The place is held by a process of its own (`harness.labgrid_agent`), which sees the end of this one at the end of
its standard input. It is also what talks to the coordinator while tests run: that the coordinator is away, is back, or
has given the place to somebody else.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, InUseError, LabError
from harness.links.environment import child_environment

DEFAULT_COORDINATOR = "127.0.0.1:20408"
"""labgrid's own."""

GRACE_S = 300.0
"""How long a lease outlives the connection to its coordinator, unless the entry says another time."""

_PACKAGE = Path(__file__).parents[1]
"""`harness.labgrid_agent` lies in it. It is found last, so that nothing in it hides what labgrid imports."""

_AGENT = "import sys; sys.path.append(sys.argv[1]); from labgrid_agent.{} import run; run()"

_START_S = 60.0
"""Until the agent says anything: Python, gRPC and labgrid are imported in under a second on an idle machine."""

_CLOSE_S = 15.0
"""How long the end of a run waits for the coordinator; after that the agent goes on alone."""

_POWER_S = 90.0
"""One switch of the supply, from the wish to labgrid's answer."""

_RESTARTS = 3
"""Times that the agent of one lease may die before the lease is given up."""

_VARIABLES = ("LG_HOSTNAME", "LG_USERNAME", "LG_PROXY", "SSH_AUTH_SOCK", "USER", "LOGNAME")
"""What labgrid and its ssh read."""

_LEFT: list[subprocess.Popen[bytes]] = []
"""Agents that still wait for a coordinator to give a place back to."""


def agent_command(python: Path, module: str, *arguments: str) -> list[str]:
    """Runs `module` of `harness.labgrid_agent` with labgrid's `python`."""
    return [str(python), "-I", "-c", _AGENT.format(module), str(_PACKAGE), *arguments]


def agent_environment() -> dict[str, str]:
    """What labgrid may see of ours."""
    return child_environment(_VARIABLES)


@dataclass(frozen=True, slots=True)
class PlaceWish:
    """What a board's entry says of its place."""

    coordinator: str
    place: str | None
    filter: dict[str, str]
    reserve_timeout_s: float = 0.0
    grace_s: float = GRACE_S
    serial_port: str | None = None
    power_port: str | None = None

    @property
    def text(self) -> str:
        """For a person."""
        what = self.place or ",".join(f"{key}={value}" for key, value in sorted(self.filter.items()))
        return f"{what} at {self.coordinator}"


@dataclass(frozen=True, slots=True)
class NetworkPort:
    """Where a place's serial port is."""

    host: str
    port: int
    protocol: str
    """``rfc2217`` or ``raw``."""
    speed: int
    """Bits/s as the exporter has opened it."""

    @property
    def url(self) -> str:
        """For pyserial."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rfc2217' if self.protocol == 'rfc2217' else 'socket'}://{host}:{self.port}"

    @classmethod
    def told(cls, fields: dict[str, Any] | None) -> NetworkPort | None:
        """From the agent's words."""
        if fields is None:
            return None
        return cls(str(fields["host"]), int(fields["port"]), str(fields["protocol"]), int(fields["speed"]))


class PlaceLease:
    """The lease on one place."""

    def __init__(
        self,
        wish: PlaceWish,
        python: Path,
        folder: Path,
        *,
        board: str | None = None,
        waiting: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Nothing is asked for yet.

        Args:
            python: labgrid's; see `harness.links.labgrid_program.labgrid_python`.
            folder: where leases are noted (of this state folder), for the run after one that was killed with its agent.
            waiting: told once that somebody else holds the place, and waited for.
        """
        self.wish = wish
        self._waiting = waiting
        self._listener: Callable[[str, str], None] | None = None
        self._untold: list[str] = []
        self.place = ""
        self.port: NetworkPort | None = None
        """As it was last told; None: the exporter is away."""
        self.power: str | None = None
        """The resource that switches the supply; None: the place has none."""
        self.identity = ""
        """``HOST/USER`` by which labgrid knows this lease; another for each."""
        self._python = python
        self._folder = folder
        self._board = board
        self._changed = threading.Condition()
        self._held = False
        self._changed_at = 0.0
        self._ending: str | None = None
        self._refused: LabError | None = None
        self._closing = False
        self._restarts = 0
        self._requests = 0
        self._answers: dict[int, str | None] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._said: deque[str] = deque(maxlen=20)

    # --- taking and giving back ---

    def acquire(self) -> PlaceLease:
        """Reserves, waits as long as the entry allows, acquires.

        Raises:
            LabError: it is held by somebody else (says by whom, since when), or there is no such place, no coordinator,
                no exporter.
        """
        try:
            self._start({})
            deadline = time.monotonic() + _START_S + self.wish.reserve_timeout_s + 60.0
            with self._changed:
                self._changed.wait_for(
                    lambda: self._held or self._refused or self._ending, deadline - time.monotonic()
                )
            if self._refused is not None:
                raise self._refused
            if self._ending is not None:
                raise self.error()
            if not self._held:
                raise LabError(
                    f"labgrid has not answered for {self.wish.text}: {'; '.join(self._said) or 'it said nothing'}",
                    board=self._board,
                    todo="try it by hand: labgrid-client places",
                )
        except BaseException:
            self.release()
            raise
        return self

    def release(self) -> None:
        """Gives the place back, if it is still ours; may be called twice.

        While the coordinator is away the agent goes on trying without this process.
        """
        with self._changed:
            self._closing = True
        process = self._process
        if process is None:
            return
        if process.stdin is not None and not process.stdin.closed:
            with suppress(OSError):  # it has died already
                process.stdin.close()
        try:
            process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            _LEFT.append(process)
            self._waiting(
                f"the labgrid coordinator {self.wish.coordinator} does not answer; process {process.pid} gives "
                f"{self.place or self.wish.text} back once it does"
            )

    def __enter__(self) -> PlaceLease:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    # --- while it is held ---

    def tell_to(self, listener: Callable[[str, str], None]) -> None:
        """From now on `listener` is told what happens to the lease, kind and text, for the board's log."""
        with self._changed:
            untold, self._untold, self._listener = self._untold, [], listener
        for text in untold:
            listener("note", text)

    def _tell(self, text: str) -> None:
        with self._changed:
            listener = self._listener
            if listener is None:
                self._untold.append(text)
        if listener is not None and not self._closing:
            # The log of a board that has been closed meanwhile takes nothing any more.
            with suppress(HarnessError):
                listener("note", text)

    @property
    def ending(self) -> str | None:
        """Why the place is not ours any more, in one sentence; None: it is."""
        return self._ending

    def error(self) -> LabError:
        """The end of a run whose place was lost."""
        return LabError(
            self._ending or f"the labgrid place {self.wish.text} is not held",
            board=self._board,
            todo="nothing more was sent to the board; run it again when the place is free: labgrid-client who",
        )

    def require(self) -> None:
        """Raises:
        LabError: the place is somebody else's now.
        """
        if self._ending is not None:
            raise self.error()

    def switch(self, action: str) -> None:
        """The supply ``on`` or ``off``; waits while the coordinator is away, as long as the lease survives that.

        Raises:
            LabError: it did not work, or the place was lost.
        """
        self.require()
        with self._changed:
            self._requests += 1
            number = self._requests
            self._send({"action": action, "id": number})
            self._changed.wait_for(
                lambda: number in self._answers or self._ending, _POWER_S + self.wish.grace_s
            )
            if number not in self._answers:
                self.require()
                raise LabError(
                    f"labgrid did not switch the power {action}: no answer",
                    board=self._board,
                    todo=f"try it by hand: labgrid-client -p {self.place} power get",
                )
            problem = self._answers.pop(number)
        if problem is not None:
            raise LabError(
                f"labgrid did not switch the power {action}: {problem}",
                board=self._board,
                todo=f"try it by hand: labgrid-client -p {self.place} power get",
            )

    # --- the agent ---

    def _start(self, more: dict[str, Any]) -> None:
        try:
            process = subprocess.Popen(
                agent_command(self._python, "__main__"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=agent_environment(),
                # Ctrl-C at the terminal, and a kill of our group, are for the harness. The agent outlives it a moment.
                start_new_session=True,
            )
        except OSError as error:
            raise LabError(
                f"{self._python} cannot be started: {error.strerror}",
                board=self._board,
                todo="name labgrid's environment with HARNESS_LABGRID or 'client'",
            ) from error
        self._process = process
        task = {**asdict(self.wish), "pid": os.getpid(), "folder": str(self._folder), **more}
        threading.Thread(target=self._listen, args=(process,), name="labgrid", daemon=True).start()
        threading.Thread(target=self._keep, args=(process,), name="labgrid-stderr", daemon=True).start()
        self._send(task)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # it has died: its listener sees that, and starts another or gives up

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as stream:
            for raw in stream:
                self._said.append(raw.decode(errors="replace").rstrip())

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                self._hear(json.loads(line))
        status = process.wait()
        with self._changed:
            if self._closing or self._ending is not None or self._refused is not None:
                return
            self._restarts += 1
            restarted = self._held and self._restarts <= _RESTARTS
            if not restarted:
                self._end(
                    f"the process that holds labgrid place {self.place or self.wish.text} ended with status {status}: "
                    + ("; ".join(self._said) or "it said nothing")
                )
        if restarted:
            self._tell(f"the process that holds labgrid place {self.place} was killed; another takes over")
            self._start({"identity": self.identity, "held": self.place, "changed": self._changed_at})

    def _hear(self, message: dict[str, Any]) -> None:
        event = message["event"]
        note: str | None = None
        with self._changed:
            if event == "held":
                self.place, self.identity = str(message["place"]), str(message["identity"])
                self.port, self.power = NetworkPort.told(message["port"]), message["power"]
                self._changed_at = float(message["changed"])
                self._held = True
                note = (
                    f"labgrid place {self.place} is ours, as {self.identity} (labgrid {message['labgrid']})"
                )
            elif event == "refused":
                kind = InUseError if message.get("in_use") else LabError
                self._refused = kind(str(message["why"]), board=self._board, todo=str(message["todo"]))
                if self._held:
                    self._end(str(message["why"]))
            elif event == "lost":
                self._end(str(message["why"]))
            elif event == "waiting":
                note = f"waiting up to {message['for_s']:g} s: {message['why']}"
            elif event == "away":
                note = (
                    f"the labgrid coordinator {self.wish.coordinator} is away; the lease on {self.place} is kept "
                    f"for {message['grace_s']:g} s"
                )
            elif event == "back":
                self._changed_at = float(message["changed"])
                note = f"the labgrid coordinator is back after {message['after_s']:g} s; {self.place} is still ours"
            elif event == "port":
                self.port = NetworkPort.told(message["port"])
                where = self.port.url if self.port is not None else "away: its exporter is gone"
                note = f"the serial port of labgrid place {self.place} is {where}"
            elif event == "done":
                self._answers[int(message["id"])] = message["problem"]
            elif event == "note":
                note = f"labgrid: {message['text']}"
            self._changed.notify_all()
        if event == "waiting":
            self._waiting(str(note))
        elif note is not None:
            self._tell(note)

    def _end(self, why: str) -> None:
        self._ending = why
        self._changed.notify_all()
