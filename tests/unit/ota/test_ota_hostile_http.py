"""Requests that no decent client sends: each is answered or dropped, and the server goes on."""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw_client import connect, exchange, get

from harness.ota.faults import Fault
from harness.ota.server import _MAX_CONNECTIONS, OtaServer

MAC = "aa:bb:cc:00:00:01"
DATA = bytes(range(256)) * 20


@pytest.fixture(scope="module")
def server() -> Iterator[OtaServer]:
    with OtaServer() as running:
        yield running


@pytest.fixture(scope="module")
def path(server: OtaServer) -> str:
    return server.publish(MAC, "a", DATA)


def _request(path: str, *lines: str, method: str = "GET", version: str = "HTTP/1.1") -> bytes:
    head = [f"{method} {path} {version}", "Host: x", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1")


HOSTILE = {
    "nothing": b"",
    "only line ends": b"\r\n" * 100,
    "NUL bytes": bytes(1000),
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    "NUL in the path": _request("/d/\0/a"),
    "NUL in a header": _request("/", "X: a\0b"),
    "high bytes in the path": _request("/d/\xff\xfe/a"),
    "unknown version": _request("/", version="HTTP/9.9"),
    "no version": b"GET /\r\n\r\n",
    "huge path": _request("/" + "a" * 100_000),
    "huge header": _request("/", "X: " + "a" * 100_000),
    "huge header name": _request("/", "X" * 100_000 + ": a"),
    "many headers": _request("/", *[f"X{n}: a" for n in range(5000)]),
    "folded header": _request("/", "X: a", " b"),
    "huge method": _request("/", method="G" * 10_000),
    "negative length": _request("/", "Content-Length: -1"),
    "length no number": _request("/", "Content-Length: many"),
    "two lengths": _request("/", "Content-Length: 1", "Content-Length: 2"),
    "length and chunks": _request("/", "Content-Length: 4", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "bad chunks": _request("/", "Transfer-Encoding: chunked") + b"zz\r\n",
    "huge body promised": _request("/", "Content-Length: 99999999999999999999", method="POST") + b"a",
    "compressed body": _request("/", "Content-Encoding: gzip", "Content-Length: 3", method="POST") + b"abc",
    "websocket": _request("/", "Upgrade: websocket", "Connection: Upgrade") + b"\x81\x05hello",
    "connect": b"CONNECT evil.test:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "options star": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "bad host": b"GET / HTTP/1.1\r\nHost: [::::\r\n\r\n",
    "expectation": _request("/", "Expect: the-unexpected", "Connection: close"),
    "continue": _request("/", "Expect: 100-continue", "Content-Length: 3", method="PUT"),
    "bad url": _request("http://[bad"),
    "percent": _request("/%"),
    "fragment": _request("/#a"),
    "cookie": _request("/", "Cookie: " + "=;" * 1000),
    "bad utf-8 header": _request("/", "X: \xff\xfe"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_do_not_disturb_the_next_client(server: OtaServer, path: str, name: str) -> None:
    reply = exchange(server, HOSTILE[name], patience_s=0.05)
    assert reply.raw == b"" or 100 <= reply.status < 500
    assert get(server, path).body == DATA


@pytest.mark.parametrize("name", ["NUL in the path", "huge header", "no HTTP"])
def test_what_is_refused_before_it_is_a_request_is_journalled_too(server: OtaServer, name: str) -> None:
    before = len(server.journal)
    reply = exchange(server, HOSTILE[name])
    record = server.wait_for_request(lambda _: True, 60, since=before)
    assert (record.status, record.device) == (reply.status, None)
    assert 400 <= reply.status < 500


@pytest.mark.parametrize("expected", ["100-continue", "the-unexpected", "\xff\x80", ""])
def test_an_expectation_does_not_keep_the_file_back(server: OtaServer, path: str, expected: str) -> None:
    reply = get(server, path, f"Expect: {expected}")
    assert (reply.status, reply.body) == (200, DATA)


def test_more_headers_than_a_device_would_send_are_refused(server: OtaServer, path: str) -> None:
    assert get(server, path, *[f"X{n}: a" for n in range(80)]).status in (400, 431)


def test_a_malformed_request_leaves_no_traceback_in_the_log(
    server: OtaServer, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        exchange(server, HOSTILE["NUL in a header"])
        exchange(server, HOSTILE["huge header"])
    assert not [record for record in caplog.records if record.exc_info]


def test_a_pipeline_of_requests_is_answered_in_order(server: OtaServer, path: str) -> None:
    server.publish(MAC, "b", b"second")
    other = path[:-1] + "b"
    pipeline = _request(path) + _request(other) + _request(path, "Range: bytes=0-3", "Connection: close")
    raw = exchange(server, pipeline).raw
    assert raw.count(b"HTTP/1.1 20") == 3
    assert raw.index(DATA) < raw.index(b"second") < raw.rindex(b"\r\n\r\n\x00\x01\x02\x03")


def test_a_client_that_reads_nothing_does_not_hold_up_others(server: OtaServer, path: str) -> None:
    server.publish(MAC, "large", bytes(8_000_000))
    with connect(server) as lazy:
        lazy.sendall(_request(path[:-1] + "large"))
        assert get(server, path).body == DATA


def test_connections_that_come_and_go_leave_nothing_behind(server: OtaServer, path: str) -> None:
    for _ in range(200):
        connect(server).close()
    assert get(server, path).body == DATA


_METHODS = [b"GET ", b"HEAD ", b"POST "]
_PATHS = [b"{path}", b"/", b"..", b"%2e", b"\0", b"\xff\xfe", b"A" * 5000]
_LINES = [
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"Host: x\r\n",
    b"Connection: close\r\n",
]
_HEADERS = [
    b"Range: bytes=",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: ",
    b'If-Range: "',
]
_NUMBERS = [b"0-", b"-5", b"-", b",", b"9" * 30, b"5"]
_TOKENS = st.sampled_from([*_METHODS, *_PATHS, *_LINES, *_HEADERS, *_NUMBERS])


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from([b"", b"GET {path} HTTP/1.1\r\nHost: x\r\n"]),
    pieces=st.lists(st.one_of(_TOKENS, st.binary(max_size=20)), max_size=25),
    end=st.sampled_from([b"", b"\r\n\r\n"]),
)
def test_any_bytes_are_survived(
    server: OtaServer, path: str, start: bytes, pieces: list[bytes], end: bytes
) -> None:
    request = b"".join([start, *pieces, end]).replace(b"{path}", path.encode())
    reply = exchange(server, request, patience_s=0.02)
    assert reply.raw == b"" or 100 <= reply.status < 500


@settings(max_examples=60, deadline=None)
@given(
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
)
def test_any_range_header_gets_an_answer_that_is_consistent(server: OtaServer, path: str, value: str) -> None:
    reply = get(server, path, f"Range: {value}")
    assert reply.status in (200, 206, 400, 416)
    if reply.status in (200, 206):
        assert len(reply.body) == int(reply.headers["content-length"])
        assert reply.body in DATA


def test_stopping_while_clients_come_and_go_never_hangs_nor_leaks_nor_complains(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for _ in range(8):
        server = OtaServer().start()
        path = server.publish(MAC, "a", bytes(3_000_000))
        server.faults.add(Fault("slow", bytes_per_s=10_000, times=None))
        clients = [connect(server) for _ in range(6)]
        for number, client in enumerate(clients):
            client.sendall(_request(path)[: 20 if number % 2 else None])
        closer = threading.Thread(target=lambda: [client.close() for client in clients])  # noqa: B023
        closer.start()
        started_s = time.monotonic()
        server.stop()
        closer.join()
        assert time.monotonic() - started_s < 60
    gc.collect()  # what leaked warns now, and warnings are errors
    assert not [record for record in caplog.records if record.exc_info]


def test_more_connections_than_any_rack_makes_are_turned_away_and_the_next_client_is_served() -> None:
    with OtaServer() as server, contextlib.ExitStack() as many:
        own = server.publish(MAC, "a", DATA)
        clients = []
        # One after the other: of many at once the system drops some, on a busy machine, until they try again.
        for _ in range(_MAX_CONNECTIONS):
            clients.append(many.enter_context(connect(server)))
            clients[-1].sendall(_request(own, "Range: bytes=0-0"))
            assert clients[-1].recv(1) == b"H"
        for _ in range(20):
            clients.append(many.enter_context(connect(server)))
            with contextlib.suppress(ConnectionResetError):
                assert clients[-1].recv(1) == b""
        for client in clients:
            client.close()
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            with contextlib.suppress(ConnectionError, IndexError, TimeoutError):
                if get(server, own).body == DATA:
                    break
            time.sleep(0.05)
        else:
            raise AssertionError("nobody is served any more")
