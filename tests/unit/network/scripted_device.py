"""A device for tests of the network: it speaks the UART protocol, knows one Wi-Fi network, and makes real GETs."""

from __future__ import annotations

import binascii
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

ESP_ERR_TIMEOUT = 0x107


@dataclass
class ScriptedDevice:
    """Reads `wire` in a thread of its own until it is closed."""

    wire: socket.socket
    kind: str = "wifi"
    ssid: str = "lab"
    password: str = field(default="", repr=False)
    ip: str = "127.0.0.1"
    joins_at: int = 1
    """Number of the `wifi` command that succeeds at the earliest: a busy access point."""
    up: bool = False
    fetches: Callable[[str], tuple[int, int]] | None = None
    """Stands in for the network: URL to status and length; OSError: no connection."""
    echoes: bool = False
    """Sends every line back, as a console with echo does."""
    commands: list[str] = field(default_factory=list)
    joins: int = 0
    _n: int = 0

    def start(self) -> ScriptedDevice:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def boot(self) -> None:
        """Restarts: what was in its RAM is gone."""
        self._n, self.up = 0, self.kind not in ("wifi", "none")
        self._say("ets Jul 29 2019 12:21:46")
        self._say("rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)")
        self.event("boot", **self._network())

    def event(self, name: str, **fields: Any) -> None:
        text = json.dumps({"n": self._n, "ev": name, **fields}, separators=(",", ":"))[:-1]
        self._n += 1
        self._say(f'@evt {text},"crc":"{binascii.crc32(text.encode()):08x}"}}')

    def _say(self, text: str) -> None:
        self.wire.sendall(text.encode() + b"\r\n")

    def _serve(self) -> None:
        with suppress(OSError), self.wire.makefile("rb") as lines:
            for line in lines:
                self._carry_out(line.decode().strip())

    def _carry_out(self, line: str) -> None:
        text, _, crc = line.rpartition(" crc=")
        assert f"{binascii.crc32(text.encode()):08x}" == crc, line
        if self.echoes:
            self._say(line)
        command, *pairs = text.split(" ")
        arguments = {key: unquote(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        self.commands.append(command)
        number = int(arguments["id"])
        handler = getattr(self, f"_{command}", None)
        if handler is None:
            self.event("ack", id=number, cmd=command, ok=False, err="unknown-command", msg="no such command")
            return
        self.event("ack", id=number, cmd=command, ok=True)
        result = handler(arguments)
        self.event("done", id=number, cmd=command, **{"ok": "err" not in result, **result})

    def _network(self) -> dict[str, Any]:
        return {"net": self.kind, "up": self.up, **({"ip": self.ip} if self.up else {})}

    def _net(self, _arguments: dict[str, str]) -> dict[str, Any]:
        return self._network()

    def _wifi(self, arguments: dict[str, str]) -> dict[str, Any]:
        self.joins += 1
        known = (arguments["ssid"], arguments.get("password", "")) == (self.ssid, self.password)
        self.up = known and self.joins >= self.joins_at
        failed = {"err": "flash", "code": ESP_ERR_TIMEOUT, "msg": "joining the network = ESP_ERR_TIMEOUT"}
        return {**({} if self.up else failed), **self._network()}

    def _get(self, url: str) -> dict[str, Any]:
        try:
            status, length = (self.fetches or fetch)(url)
        except OSError:
            return {"err": "http-connect", "code": 0x7002, "msg": "esp_http_client_open"}
        return {"http_status": status, "length": length}

    def _probe(self, arguments: dict[str, str]) -> dict[str, Any]:
        return self._get(arguments["url"])

    def _ota(self, arguments: dict[str, str]) -> dict[str, Any]:
        return self._get(arguments["url"])


def fetch(url: str) -> tuple[int, int]:
    """A GET over the real network stack."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=60) as answer:
            return answer.status, len(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, 0
