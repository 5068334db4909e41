"""A labgrid site on loopback: the real coordinator and exporter, whose places are twins, powered over REST."""

from __future__ import annotations

import http.server
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from wired_twin import WiredTwin

from harness.errors import LabError
from harness.inventory.entry import LabgridEntry
from harness.links.labgrid_program import labgrid_python

CHECKOUT = Path(__file__).parents[3]
USER = Path(__file__).with_name("labgrid_user.py")
STAND_IN = Path(__file__).with_name("ser2net_stand_in.py")
WAIT_S = 300.0
EXPORTER_WANTS_RESTART = 100
"""Exit code; main() in labgrid/remote/exporter.py."""


def environment_of_labgrid() -> Path:
    """The Python of labgrid's environment; the test is left out where there is none, and fails in CI."""
    beside = CHECKOUT / ".venv-labgrid"
    named = os.environ.get("HARNESS_LABGRID") or (str(beside) if beside.is_dir() else None)
    if named is None and os.environ.get("CI") == "true":
        pytest.fail("labgrid is not installed; .ci/run makes .venv-labgrid", pytrace=False)
    if named is None:
        pytest.skip(
            "labgrid is not installed: python3 -m venv .venv-labgrid && pip install 'labgrid>=26,<27' there"
        )
    try:
        return labgrid_python(named)
    except LabError as error:
        pytest.fail(str(error), pytrace=False)


def until(what: str, there: Callable[[], object], timeout_s: float = WAIT_S, log: Path | None = None) -> None:
    """Waits until `there` gives something true; `log`: what the failure shows the end of."""
    deadline = time.monotonic() + timeout_s
    while not there():
        if time.monotonic() > deadline:
            said = log.read_text(errors="replace")[-3000:] if log is not None else ""
            raise AssertionError(f"{what} did not come within {timeout_s:g} s\n{said}".rstrip())
        time.sleep(0.05)


class PowerSwitch:
    """What labgrid's `simplerest` talks to: ``/board/{index}/{value}`` powers a twin."""

    def __init__(self) -> None:
        self.twins: list[WiredTwin] = []
        self.switched: list[tuple[int, bool]] = []
        switch = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, index, value = self.path.split("/")
                switch.switched.append((int(index), value == "1"))
                switch.twins[int(index)].control("power", on=value == "1")
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/board/{{index}}/{{value}}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Site:
    """One coordinator, one exporter, a place for each twin: ``desk-0``, ``desk-1``, … with tags board and rig.

    `protocol`: ``rfc2217`` or ``raw``, served by the twin itself; ``ser2net``: the exporter starts its server, and ends
    it with itself, as it does for what is plugged in.
    """

    def __init__(
        self,
        folder: Path,
        python: Path,
        twins: list[WiredTwin],
        *,
        protocol: str = "rfc2217",
        power: bool = True,
    ) -> None:
        self.folder = folder
        self.python = python
        self.twins = twins
        self.switch = PowerSwitch()
        self.switch.twins = twins
        folder.mkdir()
        # The system picks the port; a coordinator that is started again gets the same one.
        self.address = "127.0.0.1:0"
        self._coordinator: subprocess.Popen[bytes] | None = None
        self._exporter: subprocess.Popen[bytes] | None = None
        self._user: subprocess.Popen[bytes] | None = None
        self._starts = 0
        groups = {}
        for number, twin in enumerate(twins):
            port = int((twin.uart if protocol == "raw" else twin.url).rsplit(":", 1)[1])
            group: dict[str, Any] = {}
            if protocol == "ser2net":
                group["RawSerialPort"] = {"port": f"/dev/twin-{port}", "speed": 115200}
            else:
                group["NetworkSerialPort"] = {
                    "host": "127.0.0.1",
                    "port": port,
                    "speed": 115200,
                    "protocol": protocol,
                }
            if power:
                group["NetworkPowerPort"] = {"model": "simplerest", "host": self.switch.url, "index": number}
            groups[f"rig-{number}"] = group
        # JSON is YAML. The braces are the power driver's, not the exporter's template language's.
        (folder / "exporter.yaml").write_text(json.dumps(groups))
        (folder / "bin").mkdir()
        ser2net = folder / "bin" / "ser2net"
        ser2net.write_text(f'#!/bin/sh\nexec {python} {STAND_IN} "$@"\n')
        ser2net.chmod(0o755)
        self._write_places()

    def _write_places(self) -> None:
        """As the coordinator itself stores them; seven calls of labgrid-client for each would say the same."""
        places = {
            f"desk-{number}": {
                "aliases": [],
                "comment": "",
                "tags": {"board": twin.chip, "rig": str(number)},
                "matches": [
                    {"exporter": "bench", "group": f"rig-{number}", "cls": "*", "name": None, "rename": None}
                ],
                "acquired": None,
                "acquired_resources": [],
                "allowed": [],
                "created": time.time(),
                "changed": time.time(),
                "reservation": None,
            }
            for number, twin in enumerate(self.twins)
        }
        (self.folder / "places.yaml").write_text(json.dumps(places))

    # --- starting and killing ---

    def start(self) -> Site:
        self.start_coordinator()
        self.start_exporter()
        return self

    def start_coordinator(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            self._coordinator, log = self._run("coordinator", "-l", self.address)
            until(
                "the coordinator",
                lambda log=log: b"listening on" in log.read_bytes() or _has_ended(self._coordinator),
                log=log,
            )
            if not _has_ended(self._coordinator):
                break
            # Somebody's connection has its port for a moment.
            assert time.monotonic() < deadline, log.read_text()
        said = re.search(rb"listening on 127\.0\.0\.1:(\d+)", log.read_bytes())
        assert said is not None, log.read_text()
        self.address = f"127.0.0.1:{int(said[1])}"

    def start_exporter(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            self._exporter, log = self._run(
                "exporter", "-c", self.address, "-n", "bench", "--hostname", "127.0.0.1", "exporter.yaml"
            )
            # It says so once the coordinator has all its resources.
            until(
                "the exporter",
                lambda log=log: b"creating poll task" in log.read_bytes() or _has_ended(self._exporter),
                log=log,
            )
            if not _has_ended(self._exporter):
                return
            # With this code it asks to be started again, and labgrid's service does so: the coordinator was not there.
            assert self._exporter.wait() == EXPORTER_WANTS_RESTART, log.read_text()
            assert time.monotonic() < deadline, log.read_text()

    @property
    def pid_of_coordinator(self) -> int:
        """Of its process."""
        assert self._coordinator is not None
        return self._coordinator.pid

    @property
    def pid_of_exporter(self) -> int:
        """Of its process."""
        assert self._exporter is not None
        return self._exporter.pid

    def kill_coordinator(self) -> None:
        _kill(self._coordinator)

    def kill_exporter(self) -> None:
        _kill(self._exporter)

    def _run(self, program: str, *arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        """The process and its own log, both streams."""
        self._starts += 1
        path = self.folder / f"{program}-{self._starts}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [self.python.parent / f"labgrid-{program}", *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"},
                start_new_session=True,
            )
        return process, path

    def close(self) -> None:
        self.kill_exporter()
        self.kill_coordinator()
        if self._user is not None:
            self._user.communicate()
        self.switch.close()

    # --- as another user, elsewhere/bob ---

    def acquire(self, place: str = "desk-0") -> str:
        """``done``, or why not."""
        return str(self._ask("acquire", place=place))

    def kick(self, place: str = "desk-0") -> None:
        """Releases it, whoever holds it."""
        assert self._ask("release", place=place) == "done"

    def who(self) -> dict[str, str]:
        """Who holds which place."""
        found = self._ask("who")
        assert isinstance(found, dict), found
        return found

    def reservations(self) -> list[str]:
        """Whose there are."""
        found = self._ask("reservations")
        assert isinstance(found, list), found
        return found

    def resources(self) -> list[str]:
        """What exporters offer."""
        found = self._ask("resources")
        assert isinstance(found, list), found
        return found

    @property
    def is_free(self) -> bool:
        """Nobody holds or has reserved anything."""
        return not self.who() and not self.reservations()

    def _ask(self, do: str, **arguments: str) -> object:
        if self._user is None:
            with (self.folder / "user.log").open("wb") as log:
                self._user = subprocess.Popen(
                    [self.python, "-I", USER, self.address],
                    env=os.environ | {"LG_USERNAME": "bob", "LG_HOSTNAME": "elsewhere"},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
        assert self._user.stdin is not None
        assert self._user.stdout is not None
        self._user.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        self._user.stdin.flush()
        return json.loads(self._user.stdout.readline())

    # --- for boards.yaml ---

    def entry(self, number: int | None = 0, **fields: Any) -> LabgridEntry:
        """Of the place of twin `number`; None: of any place."""
        twin = self.twins[number or 0]
        base: dict[str, Any] = {"chip": twin.chip, "link": "labgrid", "coordinator": self.address}
        base["client"] = str(self.python.parent.parent)
        base |= (
            {"filter": {"board": twin.chip}}
            if number is None
            else {"place": f"desk-{number}", "mac": twin.mac}
        )
        return LabgridEntry.model_validate(base | fields)


def _has_ended(process: subprocess.Popen[bytes] | None) -> bool:
    return process is None or process.poll() is not None


def _kill(process: subprocess.Popen[bytes] | None) -> None:
    """With what it has started, as systemd does."""
    if process is not None and process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


Lend = Callable[..., Site]
