"""The connection to a labgrid coordinator: its session, and the calls that take a place and give it back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
from labgrid.remote.client import ClientSession
from labgrid.remote.common import Reservation
from labgrid.remote.generated import labgrid_coordinator_pb2 as messages
from labgrid.util.proxy import proxymanager

CONNECT_S = 10.0
"""A coordinator answers in milliseconds; ten seconds cover a slow network."""

CALL_S = 40.0
"""One call. Acquiring waits up to 10 s for each of a place's resources."""

_CLOSE_S = 2.0

_T = TypeVar("_T")

CallError = grpc.aio.AioRpcError
"""A call that the coordinator refused, or that did not reach it."""


class Session(ClientSession):  # type: ignore[misc]
    """labgrid's session, which also tells when anything changes."""

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

    async def await_change(self, timeout_s: float | None = None) -> None:
        """Returns when a place or a resource has changed since `changed` was cleared, or the session has ended."""
        tasks = [asyncio.ensure_future(event.wait()) for event in (self.changed, self.stopping)]
        try:
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    def paths(self) -> list[tuple[str, str, str, str]]:
        """Exporter, group, class and name of all resources that exporters offer now."""
        return [
            (exporter, group, entry.cls, name)
            for exporter, groups in self.resources.items()
            for group, entries in groups.items()
            for name, entry in entries.items()
            if entry.data
        ]


class Coordinator:
    """The coordinator at `address`, whose session is made anew when it has been away."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._session: Session | None = None
        self._calls: set[asyncio.Future[Any]] = set()

    @property
    def away_text(self) -> str:
        """For a person."""
        return f"the labgrid coordinator {self.address} does not answer"

    @property
    def session(self) -> Session:
        """Raises:
        OSError: it does not answer, or no more.
        """
        if self._session is None or self._session.stopping.is_set():
            raise OSError(self.away_text)
        return self._session

    async def connect(self) -> Session:
        """A new session; the old one is closed.

        Raises:
            OSError: it does not answer.
        """
        await self.disconnect()
        address = proxymanager.get_grpc_address(self.address, default_port=20408)
        session = Session(address, asyncio.get_running_loop())
        try:
            await asyncio.wait_for(session.start(), CONNECT_S)
        except Exception as error:
            # labgrid raises its own error here, grpc its own, and a time-out a third.
            await _closed(session)
            raise OSError(self.away_text) from error
        self._session = session
        return session

    async def connected(self) -> Session:
        """The session, made if need be. Raises as `connect`."""
        try:
            return self.session
        except OSError:
            return await self.connect()

    async def disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await _closed(session)

    async def whole(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Awaits `work`, which goes on when the one who waits is cancelled.

        A call that is broken off half way leaves the coordinator with half a place.
        """
        running = asyncio.ensure_future(work)
        self._calls.add(running)
        running.add_done_callback(self._calls.discard)
        return await asyncio.shield(running)

    async def settle(self) -> None:
        """Returns when no call is under way any more."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=CALL_S)

    # --- calls; all raise CallError and OSError ---

    async def reserve(self, wish: dict[str, str]) -> str:
        """The token of a new reservation."""
        group = messages.Reservation.Filter(filter=wish)
        request = messages.CreateReservationRequest(filters={"main": group}, prio=0.0)
        answer = await self.session.stub.CreateReservation(request, timeout=CALL_S)
        return str(answer.reservation.token)

    async def poll(self, token: str) -> Any:
        """The reservation as it is now; it expires a minute after the last look."""
        request = messages.PollReservationRequest(token=token)
        answer = await self.session.stub.PollReservation(request, timeout=CALL_S)
        return Reservation.from_pb2(answer.reservation)

    async def cancel(self, token: str) -> None:
        """Nothing happens when there is no such reservation."""
        request = messages.CancelReservationRequest(token=token)
        try:
            await self.session.stub.CancelReservation(request, timeout=CALL_S)
        except CallError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise

    async def acquire(self, place: str) -> None:
        await self.session.stub.AcquirePlace(messages.AcquirePlaceRequest(placename=place), timeout=CALL_S)

    async def release(self, identity: str, place: str | None, token: str | None) -> None:
        """What `identity` holds, and only that: the coordinator releases from it, or not at all. And what it reserved."""
        session = self.session
        held = {each.name for each in session.places.values() if each.acquired == identity}
        for name in held | ({place} & session.places.keys()):
            request = messages.ReleasePlaceRequest(placename=name, fromuser=identity)
            await session.stub.ReleasePlace(request, timeout=CALL_S)
        answer = await session.stub.GetReservations(messages.GetReservationsRequest(), timeout=CALL_S)
        for each in answer.reservations:
            if each.token == token or each.owner == identity:
                await self.cancel(each.token)


async def _closed(session: Session) -> None:
    with contextlib.suppress(Exception):
        session.stopping.set()
        await asyncio.wait_for(session.stop(), _CLOSE_S)
    with contextlib.suppress(Exception):
        await asyncio.wait_for(session.close(), _CLOSE_S)
