"""Another user of a labgrid site: a process of labgrid's Python that takes one JSON line per wish, and answers with one.

`labgrid-client` would do as well, at a third of a second of processor time for each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any

import grpc
from labgrid.remote.client import ClientSession
from labgrid.remote.generated import labgrid_coordinator_pb2 as messages


async def carried_out(address: str, do: str, arguments: dict[str, Any]) -> Any:
    """In a session of its own, as a call of labgrid-client is."""
    session = ClientSession(address, asyncio.get_running_loop())
    await session.start()
    try:
        if do == "who":
            return {place.name: place.acquired for place in session.places.values() if place.acquired}
        if do == "reservations":
            answer = await session.stub.GetReservations(messages.GetReservationsRequest())
            return [each.owner for each in answer.reservations]
        if do == "resources":
            return [
                f"{exporter}/{group}/{name}"
                for exporter, groups in session.resources.items()
                for group, entries in groups.items()
                for name, entry in entries.items()
                if entry.data
            ]
        if do == "acquire":
            await session.stub.AcquirePlace(messages.AcquirePlaceRequest(placename=arguments["place"]))
        if do == "release":
            # As `labgrid-client release --kick` does.
            await session.stub.ReleasePlace(messages.ReleasePlaceRequest(placename=arguments["place"]))
        return "done"
    except grpc.aio.AioRpcError as error:
        return error.details()
    finally:
        await session.stop()
        await session.close()


async def main(address: str) -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        wish = json.loads(line)
        try:
            answer = await asyncio.wait_for(carried_out(address, wish.pop("do"), wish), 10)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test sees it
            answer = repr(error)
        with contextlib.suppress(OSError):
            os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
