"""An HTTP client that hides nothing: what was sent goes out as it is, what came back is kept as it came."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from harness.ota.server import OtaServer

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Reply:
    raw: bytes
    was_reset: bool

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def headers(self) -> dict[str, str]:
        head = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")
        return {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
        }

    @property
    def body(self) -> bytes:
        """Whatever follows the head, the declared length notwithstanding."""
        return self.raw.partition(b"\r\n\r\n")[2]


def connect(server: OtaServer) -> socket.socket:
    return socket.create_connection(server.address, timeout=TIMEOUT_S)


def exchange(server: OtaServer, request: bytes, *, patience_s: float | None = None) -> Reply:
    """Send `request`, read until the server closes or resets; if it does neither, the test fails.

    With `patience_s` the client says after that silence that it has nothing more to send.
    """
    received = b""
    with connect(server) as client:
        # A server may refuse a huge request before it has all of it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(request)
        client.settimeout(patience_s or TIMEOUT_S)
        while True:
            try:
                piece = client.recv(65536)
            except ConnectionResetError:
                return Reply(received, was_reset=True)
            except TimeoutError:
                if patience_s is None:
                    raise
                patience_s = None
                client.settimeout(TIMEOUT_S)
                client.shutdown(socket.SHUT_WR)
                continue
            if not piece:
                return Reply(received, was_reset=False)
            received += piece


def get(server: OtaServer, path: str, *headers: str, method: str = "GET", version: str = "1.1") -> Reply:
    """One request on a connection of its own."""
    lines = [f"{method} {path} HTTP/{version}", "Host: board.test", "Connection: close", *headers, "", ""]
    return exchange(server, "\r\n".join(lines).encode("latin-1"))
