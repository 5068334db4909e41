"""A lab of files alone: boards.yaml, runs under way and past, and the page's server on top of it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from harness.home import Home
from harness.serve.app import make_app
from harness.serve.server import access_of, bind, runner_of

BOARDS = """\
version: 1
boards:
  desk-c3: {chip: esp32c3, link: serial, port: /dev/ttyUSB7, mac: "7c:df:a1:00:00:01", tags: [desk]}
  twin-c3: {chip: esp32c3, link: twin}
"""


@dataclass
class Answer:
    """One answer of the server."""

    status: int
    headers: dict[str, str]
    text: str


class ServedPage:
    """The server in a thread of this process."""

    def __init__(self, home: Home, boards: Path | None = None, *, token: str | None = None) -> None:
        self._sock: socket.socket = bind("127.0.0.1", 0)
        self.port: int = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._app = lambda: make_app(home, access_of(self.port, (), token), boards)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        runner = runner_of(self._app())
        await runner.setup()
        await web.SockSite(runner, self._sock).start()
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        # A browser may connect at this very moment. What was just accepted must become asyncio's own before its
        # server is closed: in between, nobody would close it.
        self._loop.remove_reader(self._sock)
        await _turns()
        await runner.cleanup()
        await _turns()

    def __enter__(self) -> ServedPage:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        """What is at `path`, which is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in ({"Host": f"127.0.0.1:{self.port}"} | (headers or {})).items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
        finally:
            connection.close()


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class PaperRun:
    """A run that writes its parts as the recorder does, and a serial log as a console does."""

    def __init__(
        self,
        home: Home,
        name: str = "20251126-120000-aaaa",
        *,
        board: str = "twin-c3",
        process: str = "main",
        **head: Any,
    ) -> None:
        self.process = process
        self.folder = home.root / "artefacts" / name
        self.board = board
        self.log = self.folder / board / "serial.log"
        (self.folder / "parts").mkdir(parents=True)
        self.log.parent.mkdir()
        known = {
            "id": name,
            "kind": "pytest",
            "subject": "tests/ota",
            "command": "pytest tests/ota --board twin-c3",
        }
        about = {"began_s": time.time() - 60, "user": "ada", "host": socket.gethostname(), "pid": os.getpid()}
        self.says("run", run=known | about | head)
        self.says("board", board={"name": board, "chip": "esp32c3", "link": "twin", "virtual": True})

    def says(self, what: str, **fields: Any) -> None:
        with (self.folder / "parts" / f"{self.process}.jsonl").open("a") as file:
            file.write(
                json.dumps({"what": what, "at_s": time.time(), **fields}, separators=(",", ":")) + "\n"
            )

    def begins(self, test: str) -> None:
        self.says("began", id=f"tests/ota/test_x.py::{test}", name=test, board=self.board)

    def ends(self, test: str, outcome: str = "passed") -> None:
        self.says("test", test={"id": f"tests/ota/test_x.py::{test}", "name": test, "outcome": outcome})

    def logs(self, *lines: str, sign: str = "|") -> None:
        with self.log.open("a") as file:
            file.writelines(f"2025-11-26 12:00:00.123 {sign} {line}\n" for line in lines)
