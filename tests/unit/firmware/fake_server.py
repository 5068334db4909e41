"""An HTTP server that answers as badly as a test wants: each path has a function that writes to the socket."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

Answer = Callable[[socket.socket, dict[str, str]], None]
"""Takes the connection and the request's headers (lower-case names)."""


@dataclass
class FakeServer:
    """Serves on a free port of 127.0.0.1; one thread per connection."""

    paths: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    """Set at the end of the test: answers that stall wait for it."""

    def __enter__(self) -> FakeServer:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        self.stop_listening()
        self._acceptor.join(60)

    def stop_listening(self) -> None:
        """Later connections are refused; those that there are go on."""
        # Wakes the thread that accepts; closing alone would leave it to the next listener of that number.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def serve(self, path: str, answer: Answer) -> str:
        """The URL at which `answer` is given."""
        self.paths[path] = answer
        return f"http://127.0.0.1:{self.port}{path}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while b"\r\n\r\n" not in data:
                part = connection.recv(4096)
                if not part:
                    return
                data += part
            first, *rest = data.decode().split("\r\n\r\n")[0].split("\r\n")
            headers = {line.split(": ", 1)[0].lower(): line.split(": ", 1)[1] for line in rest}
            path = first.split()[1]
            self.requests.append((path, headers))
            try:
                self.paths[path](connection, headers)
            except (BrokenPipeError, ConnectionResetError):
                return

    # Answers

    def whole(self, data: bytes, *, delta: int = 0) -> Answer:
        """200 with a Content-Length that is off by `delta`."""
        return raw(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data) + delta}\r\n\r\n".encode() + data)

    def breaking(
        self,
        data: bytes,
        at: int,
        *,
        times: int,
        reset: bool = False,
        stall: bool = False,
        ranges: bool = True,
    ) -> Answer:
        """The first `times` answers end at byte `at` of the file; ranges are honoured, or not."""
        left = [times]

        def answer(connection: socket.socket, headers: dict[str, str]) -> None:
            start = 0
            if "range" in headers and ranges:
                start = int(headers["range"].removeprefix("bytes=").rstrip("-"))
                head = f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{len(data) - 1}/{len(data)}\r\n"
            else:
                head = "HTTP/1.1 200 OK\r\n"
            connection.sendall(f"{head}Content-Length: {len(data) - start}\r\n\r\n".encode())
            if left[0] <= 0 or start > at:
                connection.sendall(data[start:])
                return
            left[0] -= 1
            connection.sendall(data[start:at])
            if stall:
                self.release.wait(60)
            if reset:
                # Let what was sent arrive first: a reset throws away what is still on its way.
                threading.Event().wait(0.1)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        return answer

    def dripping(self, data: bytes, at: int) -> Answer:
        """From byte `at` on one byte every 50 ms, and the end of the connection when the test says so."""

        def answer(connection: socket.socket, headers: dict[str, str]) -> None:
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[:at])
            for position in range(at, len(data)):
                if self.release.wait(0.05):
                    return
                connection.sendall(data[position : position + 1])

        return answer


def raw(data: bytes) -> Answer:
    """Exactly these bytes, then the end of the connection."""

    def answer(connection: socket.socket, headers: dict[str, str]) -> None:
        connection.sendall(data)

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One answer per request; the last one for all that follow."""
    left = list(answers)

    def answer(connection: socket.socket, headers: dict[str, str]) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(connection, headers)

    return answer


def head(status: str, *headers: str) -> bytes:
    """Status line and headers of an answer, up to its body."""
    return "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", *headers, "")).encode()


def in_pieces(*pieces: bytes, pause_s: float = 0.05) -> Answer:
    """These bytes, each piece in a packet of its own."""

    def answer(connection: socket.socket, headers: dict[str, str]) -> None:
        for piece in pieces:
            connection.sendall(piece)
            threading.Event().wait(pause_s)

    return answer


def chunked(data: bytes, size: int = 5000) -> Answer:
    """200 in chunks, without Content-Length."""
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    body = b"".join(f"{len(part):x};x=y\r\n".encode() + part + b"\r\n" for part in parts)
    return raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nT: 1\r\n\r\n")


def status(code: int, location: str | None = None, body: bytes = b"no") -> Answer:
    """A status with a small body, and perhaps a Location."""
    where = f"Location: {location}\r\n" if location else ""
    return raw(f"HTTP/1.1 {code} Some\r\n{where}Content-Length: {len(body)}\r\n\r\n".encode() + body)
