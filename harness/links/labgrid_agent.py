"""Takes one place from a labgrid coordinator, watches over it, and gives it back however its harness ends.

A script of its own, run by the Python that labgrid is installed in: nothing of the harness is imported here, and the
harness never imports this. JSON lines both ways. The first line on standard input is the task (`Task`); after it come
``{"do": "power", "action": "on" | "off", "id": N}``. When standard input ends, the harness has released the place or is
dead, and the place is given back: this process is the guard, so it ignores the signals of a terminal.

What it says, each with the key ``event``: ``waiting`` (for a place that is held), ``held``, ``refused``, ``away`` (the
coordinator does not answer), ``back``, ``port`` (the serial port moved, or its exporter is gone), ``lost`` (the place is
somebody else's now), ``done`` (answer to a request), ``released``.

labgrid is used where it is meant to be used from outside: `labgrid.remote.client.ClientSession`, the calls of its gRPC
interface (both versioned with the protocol that every client and coordinator of a site must share), and the program
``labgrid-client power``. The text that ``labgrid-client`` prints is for people and changes from release to release.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
from labgrid.remote.client import ClientSession
from labgrid.remote.common import Reservation, ReservationState
from labgrid.remote.generated import labgrid_coordinator_pb2 as messages
from labgrid.util import labgrid_version
from labgrid.util.proxy import proxymanager

CONNECT_S = 10.0
"""A coordinator answers in milliseconds; ten seconds cover a slow network."""

CALL_S = 40.0
"""One call. Acquiring waits up to 10 s for each of a place's resources."""

RETRY_S = 0.5
"""Between two tries to reach the coordinator, and two looks at a reservation."""

PORT_S = 15.0
"""How long an exporter may take to offer the serial port of a place that has been acquired."""

POWER_S = 60.0
"""One ``labgrid-client power``; some power switches take seconds."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Task:
    """What the harness wants."""

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
    """As the coordinator knew it when it was last known to be held."""


class RefusedError(Exception):
    """The place is not to be had."""

    def __init__(self, why: str, todo: str) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo


class LostError(Exception):
    """The place is not ours any more."""


class Session(ClientSession):  # type: ignore[misc]
    """labgrid's session, which tells when anything changes."""

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self.changed = asyncio.Event()

    async def on_resource_changed(self, *arguments: Any) -> None:
        await super().on_resource_changed(*arguments)
        self.changed.set()

    async def on_place_changed(self, place: Any) -> None:
        await super().on_place_changed(place)
        self.changed.set()

    async def on_place_deleted(self, name: str) -> None:
        await super().on_place_deleted(name)
        self.changed.set()


class LeaseNote:
    """A locked file that names an identity of ours; locked as long as its agent lives."""

    def __init__(self, folder: Path, identity: str, coordinator: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = folder / f"{identity.replace('/', '@')}.lease"
        self._file = self._path.open("a+")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fields = {"coordinator": coordinator, "identity": identity, "place": None, "token": None}
        self._write()

    def note(self, **fields: str | None) -> None:
        """Before it is asked for: what may have to be given back."""
        self._fields.update(fields)
        self._write()

    def _write(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(self._fields))
        self._file.flush()

    def remove(self) -> None:
        """Nothing is left to be given back."""
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._file.close()

    @staticmethod
    def left_behind(folder: Path, coordinator: str) -> list[tuple[Path, dict[str, Any]]]:
        """Leases at `coordinator` whose agents are dead: their files are there, and nobody holds them."""
        found = []
        for path in sorted(folder.glob("*.lease")):
            with contextlib.suppress(OSError, ValueError), path.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fields = json.load(file)
                if fields.get("coordinator") == coordinator and isinstance(fields.get("identity"), str):
                    found.append((path, fields))
        return found


class Agent:
    """One place, from the wish for it until it is given back."""

    def __init__(self, task: Task) -> None:
        self.task = task
        host = os.environ.get("LG_HOSTNAME") or os.uname().nodename
        user = os.environ.get("LG_USERNAME") or _user()
        # One identity for each lease: labgrid knows only host and user, and would let two runs of one user release
        # each other's places.
        self.identity = task.identity or f"{host}/{user}.harness-{task.pid}-{secrets.token_hex(2)}"
        os.environ["LG_HOSTNAME"], os.environ["LG_USERNAME"] = self.identity.split("/", 1)
        self.session: Session | None = None
        self.place = task.held
        self.changed = task.changed
        self.token: str | None = None
        self.note: LeaseNote | None = None
        self._calls: set[asyncio.Task[Any]] = set()
        self._told_port: dict[str, Any] | None = None
        self._supply_cut = False
        self._live = asyncio.Event()
        """The coordinator answers, and the place is ours."""

    # --- the coordinator ---

    async def connect(self) -> Session:
        """A new session; the old one is closed.

        Raises:
            OSError: nobody answers.
        """
        await self.disconnect()
        address = proxymanager.get_grpc_address(self.task.coordinator, default_port=20408)
        session = Session(address, asyncio.get_running_loop())
        try:
            await asyncio.wait_for(session.start(), CONNECT_S)
        except Exception as error:
            # labgrid raises its own error here, grpc its own, and a time-out a third.
            await _closed(session)
            raise OSError(f"the labgrid coordinator {self.task.coordinator} does not answer") from error
        self.session = session
        return session

    async def disconnect(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            await _closed(session)

    @property
    def live_session(self) -> Session:
        """Raises:
        OSError: there is none.
        """
        if self.session is None or self.session.stopping.is_set():
            raise OSError(f"the labgrid coordinator {self.task.coordinator} does not answer")
        return self.session

    async def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Awaits a call of the coordinator, which goes on when the one who waits is cancelled.

        A call that is broken off half way leaves the coordinator with half a place.
        """
        running = asyncio.ensure_future(work)
        self._calls.add(running)
        running.add_done_callback(self._calls.discard)
        return await asyncio.shield(running)

    # --- taking ---

    async def take(self) -> None:
        """Reserves, waits, acquires, and says what it got.

        Raises:
            RefusedError: it is not to be had.
        """
        try:
            session = await self.connect()
        except OSError as error:
            raise RefusedError(
                str(error), "start it, or correct 'coordinator' in boards.yaml or LG_COORDINATOR"
            ) from error
        self.note = LeaseNote(Path(self.task.folder), self.identity, self.task.coordinator)
        await self._sweep()
        if self.task.held is None:
            self._require_known(session)
            await self._reserve(session)
        else:
            await self._recover(time.monotonic() + self.task.grace_s)
        self._live.set()
        await self._say_held()

    async def _sweep(self) -> None:
        """Gives back what agents of this state folder held that are dead. Only if it is still theirs."""
        for path, fields in LeaseNote.left_behind(Path(self.task.folder), self.task.coordinator):
            with contextlib.suppress(grpc.aio.AioRpcError, OSError):
                await self._give_back(fields["identity"], fields.get("place"), fields.get("token"))
                path.unlink(missing_ok=True)
                _say("note", text=f"gave back {fields.get('place')}, which {fields['identity']} left behind")

    def _require_known(self, session: Session) -> None:
        """Raises:
        RefusedError: no place could ever fit.
        """
        fitting = [place for place in session.places.values() if self._fits(place)]
        if not fitting:
            names = ", ".join(
                place.name + "".join(f" {key}={value}" for key, value in sorted(place.tags.items()))
                for place in session.places.values()
            )
            wish = f"called {self.task.place}" if self.task.place else f"with {_words(self.task.filter)}"
            raise RefusedError(
                f"the labgrid coordinator {self.task.coordinator} has no place {wish}; it has: {names or 'none'}",
                "correct 'place' or 'filter' in boards.yaml, or make one: labgrid-client -p NAME create",
            )

    def _fits(self, place: Any) -> bool:
        if self.task.place is not None:
            return bool(place.name == self.task.place)
        tags = {"name": place.name, **place.tags}
        return all(tags.get(key) == value for key, value in self.task.filter.items())

    async def _reserve(self, session: Session) -> None:
        deadline = time.monotonic() + self.task.reserve_timeout_s
        wish = {"name": self.task.place} if self.task.place is not None else self.task.filter
        await self.call(self._create_reservation(session, wish))
        told = False
        while True:
            reservation = await self.call(self._poll_reservation(session))
            problem = None
            if reservation.state is ReservationState.allocated:
                [name] = reservation.allocations["main"]
                problem = await self._try_to_acquire(session, name)
                if problem is None:
                    await self.call(self._cancel_reservation(session))
                    return
            elif reservation.state is not ReservationState.waiting:
                problem = f"the reservation is {reservation.state.name}"
            if time.monotonic() >= deadline:
                raise RefusedError(
                    problem or self._held_by(session),
                    "wait for that job, or let the harness wait: 'reserve_timeout_s' in the board's entry",
                )
            if not told:
                told = True
                _say("waiting", why=problem or self._held_by(session), for_s=self.task.reserve_timeout_s)
            await asyncio.sleep(RETRY_S)

    async def _create_reservation(self, session: Session, wish: dict[str, str]) -> None:
        assert self.note is not None
        request = messages.CreateReservationRequest(
            filters={"main": messages.Reservation.Filter(filter=wish)}, prio=0.0
        )
        try:
            answer = await session.stub.CreateReservation(request, timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            raise RefusedError(
                f"the coordinator refuses the reservation: {error.details()}", "correct 'filter'"
            ) from error
        self.token = answer.reservation.token
        self.note.note(token=self.token)

    async def _poll_reservation(self, session: Session) -> Any:
        request = messages.PollReservationRequest(token=self.token)
        answer = await session.stub.PollReservation(request, timeout=CALL_S)
        return Reservation.from_pb2(answer.reservation)

    async def _cancel_reservation(self, session: Session) -> None:
        """The place is acquired. A reservation that stayed would keep it from others for a minute after its release."""
        assert self.note is not None
        request = messages.CancelReservationRequest(token=self.token)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await session.stub.CancelReservation(request, timeout=CALL_S)
        self.token = None
        self.note.note(token=None)

    async def _try_to_acquire(self, session: Session, name: str) -> str | None:
        """Why it did not succeed, or None."""
        place = session.places.get(name)
        if place is None:
            return f"place {name} is gone"
        # labgrid acquires a place without resources, too, and never adds them.
        missing = place.unmatched(_paths(session))
        if missing is not None:
            return f"place {name}: no exporter offers {missing!r}"
        await self.call(self._acquire(session, name))
        await session.sync_with_coordinator()
        place = session.places.get(name)
        if place is None or place.acquired != self.identity:
            return self._why_not or f"place {name} was not acquired"
        self.place, self.changed = name, place.changed
        return None

    _why_not = ""

    async def _acquire(self, session: Session, name: str) -> None:
        assert self.note is not None
        self._why_not = ""
        self.place = name
        self.note.note(place=name)
        try:
            await session.stub.AcquirePlace(messages.AcquirePlaceRequest(placename=name), timeout=CALL_S)
        except grpc.aio.AioRpcError as error:
            self._why_not = f"place {name}: {error.details()}"

    def _held_by(self, session: Session) -> str:
        """Who has what fits, and since when."""
        holders = [
            f"place {place.name} is held by {place.acquired} since {_clock(place.changed)}"
            if place.acquired
            else f"place {place.name} is reserved for somebody else"
            for place in session.places.values()
            if self._fits(place)
        ]
        return "; ".join(holders)

    # --- keeping ---

    async def keep(self) -> None:
        """Watches over the place.

        Raises:
            LostError: it is not ours any more, or the coordinator has been away for too long.
        """
        while True:
            session = self.session
            if session is None or session.stopping.is_set():
                self._live.clear()
                since = time.monotonic()
                _say("away", grace_s=self.task.grace_s)
                await self._recover(since + self.task.grace_s)
                self._live.set()
                _say("back", after_s=round(time.monotonic() - since, 1), changed=self.changed)
                continue
            session.changed.clear()
            place = session.places.get(self.place)
            if place is None:
                raise LostError(f"place {self.place} was deleted at the coordinator")
            if place.acquired != self.identity:
                who = f"{place.acquired} has it now" if place.acquired else "nobody has it now"
                raise LostError(f"place {self.place} was taken away (labgrid-client release --kick); {who}")
            self.changed = place.changed
            await self._say_port()
            await _first(session.changed.wait(), session.stopping.wait())

    async def _recover(self, deadline: float) -> None:
        """The place is ours again, in a new session.

        Raises:
            LostError: it cannot be.
        """
        problem = f"the labgrid coordinator {self.task.coordinator} does not answer"
        while time.monotonic() < deadline:
            try:
                session = self.live_session
            except OSError:
                try:
                    session = await self.connect()
                except OSError as error:
                    problem = str(error)
                    await asyncio.sleep(RETRY_S)
                    continue
            with contextlib.suppress(OSError, grpc.aio.AioRpcError):
                still = await self._reclaim(session)
                if still is None:
                    return
                problem = still
            await asyncio.sleep(RETRY_S)
        raise LostError(
            f"place {self.place} could not be kept for longer than {self.task.grace_s:g} s: {problem}"
        )

    async def _reclaim(self, session: Session) -> str | None:
        """None: it is ours. Else why not yet.

        Raises:
            LostError: somebody was there in between.
        """
        assert self.place is not None
        place = session.places.get(self.place)
        if place is None:
            raise LostError(f"the coordinator has come back without place {self.place}")
        if place.acquired == self.identity:
            self.changed = place.changed
            return None
        if place.acquired:
            raise LostError(
                f"place {self.place} went to {place.acquired} at {_clock(place.changed)} while the coordinator was away"
            )
        # A coordinator that was restarted has forgotten who held what, and knows the place as it last saved it.
        if place.changed > self.changed:
            raise LostError(f"place {self.place} was released by somebody while the coordinator was away")
        if place.reservation:
            raise LostError(f"place {self.place} was reserved by somebody while the coordinator was away")
        return await self._try_to_acquire(session, self.place)

    # --- what the place has ---

    async def _say_held(self) -> None:
        deadline = time.monotonic() + PORT_S
        while (port := await self._serial_port()) is None:
            if time.monotonic() >= deadline:
                raise RefusedError(
                    f"place {self.place}: its exporter offers no serial port that can be opened",
                    "labgrid-client show lists its resources; is the board plugged in at the exporter?",
                )
            session = self.live_session
            session.changed.clear()
            await _first(session.changed.wait(), session.stopping.wait(), timeout_s=RETRY_S)
        self._told_port = port
        _say(
            "held",
            place=self.place,
            identity=self.identity,
            changed=self.changed,
            labgrid=labgrid_version(),
            port=port,
            power=self._power(),
        )

    async def _say_port(self) -> None:
        try:
            port = await self._serial_port()
        except (OSError, RefusedError):
            return
        if port != self._told_port:
            self._told_port = port
            _say("port", port=port)

    def _resources(self) -> list[tuple[str, Any]]:
        """Name (as the place renames it) and entry of each resource of the place that an exporter offers now."""
        session = self.live_session
        place = session.places.get(self.place)
        found = []
        for path in place.acquired_resources if place is not None else ():
            exporter, group, _, name = path
            entry = session.resources.get(exporter, {}).get(group, {}).get(name)
            match = place.getmatch(path)
            if entry is not None and entry.data:
                found.append(((match.rename if match is not None else None) or name, entry))
        return found

    async def _serial_port(self) -> dict[str, Any] | None:
        """Where the serial port is now; None: nobody offers it at the moment.

        Raises:
            RefusedError: the place has no serial port, or several.
        """
        everything = self._resources()
        ports = [(name, entry) for name, entry in everything if entry.cls == "NetworkSerialPort"]
        wanted = self.task.serial_port
        chosen = [each for each in ports if wanted is None or each[0] == wanted]
        if len(chosen) > 1:
            names = ", ".join(name for name, _ in chosen)
            raise RefusedError(
                f"place {self.place} has several serial ports: {names}", "name one with 'serial_port'"
            )
        if not chosen:
            if everything and self._told_port is None:
                what = ", ".join(f"{entry.cls} {name}" for name, entry in everything)
                called = f" called {wanted}" if wanted else ""
                raise RefusedError(
                    f"place {self.place} has no serial port{called}; it has: {what}",
                    "export a NetworkSerialPort, USBSerialPort or RawSerialPort there, and add a match for it",
                )
            return None
        [(name, entry)] = chosen
        arguments = entry.args
        if not entry.avail or not arguments.get("port"):
            return None
        host, port = await asyncio.get_running_loop().run_in_executor(None, _reachable, entry)
        return {
            "name": name,
            "host": host,
            "port": port,
            "protocol": arguments.get("protocol", "rfc2217"),
            "speed": arguments.get("speed", 115200),
        }

    def _power(self) -> str | None:
        """The resource that switches the supply; None: there is none."""
        for name, entry in self._resources():
            if ("Power" in entry.cls or entry.cls == "PDUDaemonPort") and self.task.power_port in (
                None,
                name,
            ):
                return f"{entry.cls} {name}" if name != entry.cls else str(entry.cls)
        return None

    async def power(self, action: str) -> None:
        """Through labgrid's own client, which refuses when the place is not ours. Waits while the coordinator is away.

        Raises:
            OSError: it did not work; says what the client said.
        """
        await self._live.wait()
        self._supply_cut = self._supply_cut or action == "off"
        command = [
            sys.executable,
            "-m",
            "labgrid.remote.client",
            "-x",
            self.task.coordinator,
            "-p",
            str(self.place),
        ]
        command += ["power", action]
        command += ["--name", self.task.power_port] if self.task.power_port else []
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await asyncio.wait_for(process.communicate(), POWER_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
            raise OSError(f"labgrid-client power {action} did not end within {POWER_S:g} s") from None
        if process.returncode != 0:
            last = [line for line in said.decode(errors="replace").splitlines() if line.strip()][-1:]
            raise OSError(f"labgrid-client power {action} ended with {process.returncode}: {' '.join(last)}")
        self._supply_cut = action == "off"

    # --- giving back ---

    async def give_back(self) -> bool:
        """Gives the supply back, then the place, if it is still ours; whether the coordinator was told."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=CALL_S)
        if self.note is None or (self.place is None and self.token is None):
            if self.note is not None:
                self.note.remove()
            await self.disconnect()
            return True
        if self._supply_cut and self._live.is_set():
            with contextlib.suppress(OSError):
                await self.power("on")
        deadline = time.monotonic() + max(self.task.grace_s, CALL_S)
        done = False
        while not done and time.monotonic() < deadline:
            try:
                if self.session is None or self.session.stopping.is_set():
                    await self.connect()
                await self._give_back(self.identity, self.place, self.token)
                done = True
            except (OSError, grpc.aio.AioRpcError):
                await asyncio.sleep(RETRY_S)
        if done:
            self.note.remove()
        await self.disconnect()
        return done

    async def _give_back(self, identity: str, place: str | None, token: str | None) -> None:
        """Both calls do nothing when there is nothing to do: a place is released from `identity`, or not at all."""
        session = self.live_session
        if place is not None and place in session.places:
            request = messages.ReleasePlaceRequest(placename=place, fromuser=identity)
            await session.stub.ReleasePlace(request, timeout=CALL_S)
        reservations = await session.stub.GetReservations(messages.GetReservationsRequest(), timeout=CALL_S)
        for each in reservations.reservations:
            if each.token == token or each.owner == identity:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    request = messages.CancelReservationRequest(token=each.token)
                    await session.stub.CancelReservation(request, timeout=CALL_S)


async def work(agent: Agent, requests: asyncio.Queue[dict[str, Any] | None]) -> None:
    """Until the place is lost, or the harness has ended."""
    answering = asyncio.ensure_future(_answer(agent, requests))
    holding = asyncio.ensure_future(_hold(agent))
    await asyncio.wait({answering, holding}, return_when=asyncio.FIRST_COMPLETED)
    if not answering.done():
        # RefusedError or lost. The harness reads it, and ends this stream.
        _say("ending", why="the place is not held")
    for each in (holding, answering):
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each
    _say("released", done=await agent.give_back())


async def _hold(agent: Agent) -> None:
    try:
        await agent.take()
        await agent.keep()
    except RefusedError as refused:
        _say("refused", why=refused.why, todo=refused.todo)
    except LostError as lost:
        agent._live.clear()
        _say("lost", why=str(lost))
    except (OSError, grpc.aio.AioRpcError) as error:
        details = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
        _say("refused", why=f"the labgrid coordinator: {details}", todo="look at its log, and run it again")


async def _answer(agent: Agent, requests: asyncio.Queue[dict[str, Any] | None]) -> None:
    while (request := await requests.get()) is not None:
        problem = None
        try:
            await agent.power(str(request["action"]))
        except OSError as error:
            problem = str(error)
        _say("done", id=request["id"], problem=problem)


async def _closed(session: Session) -> None:
    with contextlib.suppress(Exception):
        session.stopping.set()
        await asyncio.wait_for(session.stop(), 2.0)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(session.close(), 2.0)


async def _first(*things: Coroutine[Any, Any, Any], timeout_s: float | None = None) -> None:
    """Returns when one of `things` is done; the others are cancelled."""
    tasks = [asyncio.ensure_future(thing) for thing in things]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _reachable(entry: Any) -> tuple[str, int]:
    """Host and TCP port, through SSH where labgrid is told to go that way."""
    from labgrid import Target, target_factory

    resource = target_factory.make_resource(Target("port"), entry.cls, None, entry.args)
    resource.extra = entry.extra
    host, port = proxymanager.get_host_and_port(resource)
    return str(host), int(port)


def _paths(session: Session) -> list[tuple[str, str, str, str]]:
    """Of all resources that exporters offer now."""
    return [
        (exporter, group, entry.cls, name)
        for exporter, groups in session.resources.items()
        for group, entries in groups.items()
        for name, entry in entries.items()
        if entry.data
    ]


def _words(tags: dict[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))


def _user() -> str:
    import getpass

    return getpass.getuser()


def _say(event: str, **fields: Any) -> None:
    """One line for the harness, which may be dead."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps({"event": event, **fields}).encode() + b"\n")


def _read_requests(loop: asyncio.AbstractEventLoop, tell: Callable[[dict[str, Any] | None], None]) -> None:
    """Standard input, line by line, from a thread of its own."""
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            loop.call_soon_threadsafe(tell, json.loads(line))
    loop.call_soon_threadsafe(tell, None)


async def main() -> None:
    loop = asyncio.get_running_loop()
    requests: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    reading: Awaitable[Any] = loop.run_in_executor(None, partial(_read_requests, loop, requests.put_nowait))
    first = await requests.get()
    if first is not None:
        await work(Agent(Task(**first)), requests)
    del reading


if __name__ == "__main__":
    # labgrid prints now and then; standard output is for the harness alone.
    sys.stdout = sys.stderr
    for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(_number, signal.SIG_IGN)
    asyncio.run(main())
