"""Whatever a client sends to the server that boards fetch their updates from."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from functools import cache

from harness.ota.byte_range import RangeUnsatisfiable, parse_range
from harness.ota.server import OtaServer
from tests.fuzz.target import Cutter, Target, chunks_of, require

MAC = "aa:bb:cc:00:00:01"
MARK = b"<<published>>"
DATA = MARK * 60
_LONGEST_JOURNAL = 1000
"""Requests after which another server is begun: a journal is looked at as a whole."""


class _Complaints(logging.Handler):
    """Collects tracebacks that the server's libraries log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@cache
def _server() -> tuple[OtaServer, str, _Complaints]:
    complaints = _Complaints()
    logging.getLogger().addHandler(complaints)
    server = OtaServer().start()
    return server, server.publish(MAC, "a.bin", DATA), complaints


def check_http(data: bytes) -> str:
    """The first byte says how the request is cut; ``{P}`` stands for the path that only its device knows."""
    server, path, complaints = _server()
    before = len(server.journal)
    if before > _LONGEST_JOURNAL:
        server.stop()
        _server.cache_clear()
        server, path, complaints = _server()
        before = 0
    complaints.texts.clear()
    cut = Cutter(data)
    seed, stream = cut.byte(), cut.rest()
    # Single bytes of a long request would only measure the network.
    seed = seed if len(stream) < 600 else 0
    request = stream.replace(b"{P}", path.encode())
    answer = _exchange(server, chunks_of(request, seed))
    token = path.split("/")[2].encode()
    require(token in request or MARK[:6] not in answer, "the file comes without its secret path")
    require(token in request or token not in answer, "a secret path comes back that was not asked for")
    for line in server.journal[before:]:
        require(token.decode() not in line.to_json(), "the journal names the secret path")
    require(not complaints.texts, f"the server complains: {''.join(complaints.texts)[-3000:]}")
    require(all(100 <= status < 500 for status in _statuses(answer)), "the server blames itself")
    good = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    require(_exchange(server, [good]).endswith(DATA), "the next client is not served")
    with contextlib.suppress(RangeUnsatisfiable):
        found = parse_range(stream.decode("latin-1"), len(DATA))
        require(found is None or 0 <= found.start < found.stop <= len(DATA), "a range outside the file")
    return f"{_statuses(answer)[:6]} {len(answer).bit_length()}"


def _exchange(server: OtaServer, chunks: list[bytes]) -> bytes:
    """What comes back; a client that is silent for a moment has nothing more to say."""
    answer = b""
    with socket.create_connection(server.address, timeout=5) as client, contextlib.suppress(ConnectionError):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for chunk in chunks:
            client.sendall(chunk)
        client.settimeout(0.05)
        while True:
            try:
                part = client.recv(65536)
            except TimeoutError:
                if client.gettimeout() == 5:
                    raise
                client.settimeout(5)
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_WR)
                continue
            if not part:
                break
            answer += part
    return answer


def _statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def requests() -> Iterator[bytes]:
    get = b"GET {P} HTTP/1.1\r\nHost: x\r\n"
    yield b"\0" + get + b"\r\n"
    yield b"\5" + get + b'Range: bytes=5-9\r\nIf-Range: "x"\r\n\r\n' + get + b"Range: bytes=-5\r\n\r\n"
    yield (
        b"\0POST {P} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + get + b"Connection: close\r\n\r\n"
    )
    yield (
        b"\0GET {P} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        + get
        + b"\r\n"
    )
    yield b"\0HEAD /d/x/a.bin HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /../{P}?q#f HTTP/1.1\r\nHost: [::1]:8\r\n\r\n"
    yield b"\0" + get + b"X: a\r\n" * 70 + b"\r\n"
    yield b"\0GET http://x{P} HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x05hello"


TARGETS = (
    Target(
        "http-request",
        "requests at the OTA server",
        check_http,
        requests,
        (
            b"GET ", b"HEAD ", b"POST ", b"OPTIONS * ", b"CONNECT ", b"{P}", b"/d/", b"/../", b"%2e%2e",
            b"%00", b"?", b"#", b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n", b"\r\n", b"\n", b"\r\n\r\n", b"Range: bytes=", b"0-", b"-1", b"9" * 30, b",",
            b"Content-Length: ",
            b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n",
            b"Connection: keep-alive\r\n",
            b"Upgrade: h2c\r\n", b"Host: ", b"\0", b"\xff\xfe", b"0\r\n\r\n", b"X: a\r\n",
            b"Content-Encoding: gzip\r\n", b"Cookie: ", b"\t", b" ",
        ),
        max_bytes=2048,
        limit_s=5.0,
    ),
)  # fmt: skip
