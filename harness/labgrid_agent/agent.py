"""One place, from the wish for it until it is given back."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import secrets
import time
from typing import Any

from labgrid.remote.common import ReservationState
from labgrid.util import labgrid_version

from .coordinator import CALL_S, CallError, Coordinator, Session
from .lease_note import LeaseNote, left_behind
from .resources import power_port, serial_port, switch
from .task import LostError, RefusedError, Task, say

RETRY_S = 0.5
"""Between two tries to reach the coordinator, and two looks at a reservation."""

PORT_S = 15.0
"""How long an exporter may take to offer the serial port of a place that has been acquired."""


class Agent:
    """Holds the place."""

    def __init__(self, task: Task) -> None:
        self.task = task
        host = os.environ.get("LG_HOSTNAME") or os.uname().nodename
        user = os.environ.get("LG_USERNAME") or getpass.getuser()
        # One identity for each lease: labgrid knows only host and user, and would let two runs of one user release
        # each other's places.
        self.identity = task.identity or f"{host}/{user}.harness-{task.pid}-{secrets.token_hex(2)}"
        # What labgrid's session and labgrid-client call themselves.
        os.environ["LG_HOSTNAME"], os.environ["LG_USERNAME"] = self.identity.split("/", 1)
        self.coordinator = Coordinator(task.coordinator)
        self.place = task.held
        self.changed = task.changed
        self._token: str | None = None
        self._note: LeaseNote | None = None
        self._port: dict[str, Any] | None = None
        """As the harness was told."""
        self._supply_cut = False
        self._live = asyncio.Event()
        """The coordinator answers, and the place is ours."""

    # --- taking ---

    async def take(self) -> None:
        """Reserves, waits, acquires, and says what it got.

        Raises:
            RefusedError: it is not to be had.
        """
        try:
            await self.coordinator.connect()
        except OSError as error:
            raise RefusedError(
                str(error), "start it, or correct 'coordinator' in boards.yaml or LG_COORDINATOR"
            ) from error
        self._note = LeaseNote(self.task, self.identity)
        await self._sweep()
        if self.task.held is None:
            await self._await_place()
        else:
            await self._recover(time.monotonic() + self.task.grace_s)
        self._live.set()
        await self._say_held()

    async def _sweep(self) -> None:
        """Gives back what dead runs of this state folder held, if it is still theirs."""
        for path, fields in left_behind(self.task):
            with contextlib.suppress(CallError, OSError):
                await self.coordinator.release(fields["identity"], fields["place"], fields["token"])
                path.unlink(missing_ok=True)
                say("note", text=f"gave back what {fields['identity']} left behind ({fields['place']})")

    async def _await_place(self) -> None:
        """As long as it may take. A coordinator that is restarted meanwhile forgets who waits for what."""
        deadline = time.monotonic() + self.task.reserve_timeout_s
        while True:
            try:
                return await self._reserve(await self.coordinator.connected(), deadline)
            except (OSError, CallError):
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(RETRY_S)

    async def _reserve(self, session: Session, deadline: float) -> None:
        assert self._note is not None
        self._require_known(session)
        await self.coordinator.whole(self._take_token())
        told = False
        while True:
            assert self._token is not None
            reservation = await self.coordinator.whole(self.coordinator.poll(self._token))
            problem, in_use = self._held_by(session), True
            if reservation.state is ReservationState.allocated:
                [name] = reservation.allocations["main"]
                refusal = await self._try_to_acquire(session, name)
                if refusal is None:
                    # A reservation that stayed would keep the place from others for a minute after its release.
                    await self.coordinator.whole(self.coordinator.cancel(self._token))
                    return
                problem, in_use = refusal, False
            elif reservation.state is not ReservationState.waiting:
                raise OSError(f"the reservation is {reservation.state.name}")
            if time.monotonic() >= deadline:
                todo = "wait for that job, or let the harness wait: 'reserve_timeout_s' in the entry"
                if not in_use:
                    todo = "start the exporter, or correct the matches of the place: labgrid-client show"
                raise RefusedError(problem, todo, in_use=in_use)
            if not told:
                told = True
                say("waiting", why=problem, for_s=self.task.reserve_timeout_s)
            await asyncio.sleep(RETRY_S)

    async def _take_token(self) -> None:
        """Whole, with its note: a reservation whose token nobody knows could not be cancelled."""
        assert self._note is not None
        self._token = await self.coordinator.reserve(self.task.wish)
        self._note.add(token=self._token)

    def _require_known(self, session: Session) -> None:
        """Raises:
        RefusedError: no place could ever fit.
        """
        if any(self._fits(place) for place in session.places.values()):
            return
        names = ", ".join(
            place.name + "".join(f" {key}={value}" for key, value in sorted(place.tags.items()))
            for place in session.places.values()
        )
        tags = ", ".join(f"{key}={value}" for key, value in sorted(self.task.filter.items()))
        wish = f"called {self.task.place}" if self.task.place else f"with {tags}"
        raise RefusedError(
            f"the labgrid coordinator {self.task.coordinator} has no place {wish}; it has: {names or 'none'}",
            "correct 'place' or 'filter' in boards.yaml, or make one: labgrid-client -p NAME create",
        )

    def _fits(self, place: Any) -> bool:
        tags = {**place.tags, "name": place.name}
        return all(tags.get(key) == value for key, value in self.task.wish.items())

    async def _try_to_acquire(self, session: Session, name: str) -> str | None:
        """Why it did not succeed, or None."""
        assert self._note is not None
        place = session.places.get(name)
        if place is None:
            return f"place {name} is gone"
        # labgrid acquires a place without its resources, too, and never adds them later.
        missing = place.unmatched(session.paths())
        if missing is not None:
            return f"place {name}: no exporter offers {missing!r}"
        self.place = name
        self._note.add(place=name)
        try:
            await self.coordinator.whole(self.coordinator.acquire(name))
        except CallError as error:
            return f"place {name}: {error.details()}"
        await session.sync_with_coordinator()
        place = session.places.get(name)
        if place is None or place.acquired != self.identity:
            return f"place {name} was not acquired"
        self.changed = place.changed
        return None

    def _held_by(self, session: Session) -> str:
        """Who has what fits, and since when."""
        return "; ".join(
            f"place {place.name} is held by {place.acquired} since {_clock(place.changed)}"
            if place.acquired
            else f"place {place.name} is reserved for somebody else"
            for place in session.places.values()
            if self._fits(place)
        )

    async def _say_held(self) -> None:
        assert self.place is not None
        deadline = time.monotonic() + PORT_S
        while True:
            session = self.coordinator.session
            session.changed.clear()
            self._port = await serial_port(session, self.place, self.task)
            if self._port is not None:
                break
            if time.monotonic() >= deadline:
                raise RefusedError(
                    f"place {self.place}: its exporter offers no serial port that can be opened",
                    "labgrid-client show lists its resources; is the board plugged in at the exporter?",
                )
            await session.await_change(RETRY_S)
        say(
            "held",
            place=self.place,
            identity=self.identity,
            changed=self.changed,
            labgrid=labgrid_version(),
            port=self._port,
            power=power_port(session, self.place, self.task),
        )

    # --- keeping ---

    async def keep(self) -> None:
        """Watches over the place.

        Raises:
            LostError: it is not ours any more, or the coordinator has been away for too long.
        """
        assert self.place is not None
        while True:
            try:
                session = self.coordinator.session
            except OSError:
                self._live.clear()
                since = time.monotonic()
                say("away", grace_s=self.task.grace_s)
                await self._recover(since + self.task.grace_s)
                self._live.set()
                say("back", after_s=round(time.monotonic() - since, 1), changed=self.changed)
                continue
            session.changed.clear()
            place = session.places.get(self.place)
            if place is None:
                raise LostError(f"place {self.place} was deleted at the coordinator")
            if place.acquired != self.identity:
                who = f"{place.acquired} has it now" if place.acquired else "nobody has it now"
                raise LostError(f"place {self.place} was taken away (labgrid-client release --kick); {who}")
            self.changed = place.changed
            await self._say_port(session)
            await session.await_change()

    async def _say_port(self, session: Session) -> None:
        assert self.place is not None
        try:
            port = await serial_port(session, self.place, self.task)
        except RefusedError:
            # Its exporter is starting: other resources come first.
            port = None
        if port != self._port:
            self._port = port
            say("port", port=port)

    async def _recover(self, deadline: float) -> None:
        """The place is ours again, in a new session.

        Raises:
            LostError: it cannot be.
        """
        problem = self.coordinator.away_text
        while time.monotonic() < deadline:
            try:
                refusal = await self._reclaim(await self.coordinator.connected())
                if refusal is None:
                    return
                problem = refusal
            except (OSError, CallError):
                problem = self.coordinator.away_text
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
        while_away = "while the coordinator was away"
        if place.acquired:
            raise LostError(
                f"place {self.place} went to {place.acquired} at {_clock(place.changed)} {while_away}"
            )
        # A coordinator that was restarted has forgotten who held what, and knows the place as it last saved it.
        if place.changed > self.changed:
            raise LostError(f"place {self.place} was released by somebody {while_away}")
        if place.reservation:
            raise LostError(f"place {self.place} was reserved by somebody {while_away}")
        return await self._try_to_acquire(session, self.place)

    # --- switching, and giving back ---

    async def power(self, action: str) -> None:
        """Waits while the coordinator is away.

        Raises:
            OSError: it did not work; says what labgrid said.
        """
        await self._live.wait()
        await self.coordinator.whole(self._switch(action))

    async def _switch(self, action: str) -> None:
        assert self.place is not None
        self._supply_cut = self._supply_cut or action == "off"
        await switch(self.task, self.place, action)
        self._supply_cut = action == "off"

    def let_go(self) -> None:
        """It is somebody else's: nothing is switched any more."""
        self._live.clear()

    async def give_back(self) -> bool:
        """Gives the supply back, then the place, if it is still ours; whether the coordinator was told."""
        await self.coordinator.settle()
        if self._note is None:
            return True
        if self._supply_cut and self._live.is_set():
            with contextlib.suppress(OSError):
                await self._switch("on")
        deadline = time.monotonic() + max(self.task.grace_s, CALL_S)
        while time.monotonic() < deadline:
            try:
                await self.coordinator.connected()
                await self.coordinator.release(self.identity, self.place, self._token)
            except (OSError, CallError):
                await asyncio.sleep(RETRY_S)
            else:
                self._note.remove()
                await self.coordinator.disconnect()
                return True
        return False


def _clock(unix_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_s))
