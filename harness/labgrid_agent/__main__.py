"""Reads the task, holds the place, answers; gives the place back at the end of standard input."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from .agent import Agent
from .coordinator import CallError
from .task import LostError, RefusedError, Task, say

Requests = asyncio.Queue[dict[str, Any] | None]
"""None: standard input has ended."""


async def work(agent: Agent, requests: Requests) -> None:
    """Until the place is lost, or the harness has ended."""
    answering = asyncio.ensure_future(_answer(agent, requests))
    holding = asyncio.ensure_future(_hold(agent))
    await asyncio.wait({answering, holding}, return_when=asyncio.FIRST_COMPLETED)
    for each in (holding, answering):
        each.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await each
    say("released", done=await agent.give_back())


async def _hold(agent: Agent) -> None:
    try:
        await agent.take()
        await agent.keep()
    except RefusedError as refused:
        say("refused", why=refused.why, todo=refused.todo, in_use=refused.in_use)
    except LostError as lost:
        agent.let_go()
        say("lost", why=str(lost))
    except (OSError, CallError) as error:
        details = error.details() if isinstance(error, CallError) else error
        say("refused", why=f"the labgrid coordinator: {details}", todo="look at its log, and run it again")


async def _answer(agent: Agent, requests: Requests) -> None:
    while (request := await requests.get()) is not None:
        problem = None
        try:
            await agent.power(str(request["action"]))
        except OSError as error:
            problem = str(error)
        say("done", id=request["id"], problem=problem)


def _read(loop: asyncio.AbstractEventLoop, tell: Callable[[dict[str, Any] | None], None]) -> None:
    """Standard input, line by line, in a thread of its own."""
    rest = b""
    while data := os.read(0, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            loop.call_soon_threadsafe(tell, json.loads(line))
    loop.call_soon_threadsafe(tell, None)


async def main() -> None:
    """One task."""
    loop = asyncio.get_running_loop()
    requests: Requests = asyncio.Queue()
    # The thread ends with standard input, and this program not before it.
    reading = loop.run_in_executor(None, _read, loop, requests.put_nowait)
    first = await requests.get()
    if first is not None:
        await work(Agent(Task(**first)), requests)
    await reading


def run() -> None:
    """The program."""
    # labgrid prints now and then; standard output is for the harness alone.
    sys.stdout = sys.stderr
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    asyncio.run(main())


if __name__ == "__main__":
    run()
