"""Prints what places a coordinator has, and who holds them: one line of JSON, and the end."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from .coordinator import Coordinator


async def look(address: str) -> dict[str, object]:
    """The places by name; or why not."""
    coordinator = Coordinator(address)
    try:
        session = await coordinator.connect()
    except OSError as error:
        return {"problem": str(error)}
    places = {
        place.name: {"tags": dict(place.tags), "holder": place.acquired, "changed": place.changed}
        for place in session.places.values()
    }
    await coordinator.disconnect()
    return {"places": places}


def run() -> None:
    """The program; its argument is the coordinator."""
    sys.stdout = sys.stderr
    os.write(1, json.dumps(asyncio.run(look(sys.argv[2]))).encode() + b"\n")
