"""What is not published, or for somebody else, cannot be had: not by a near miss of the secret, a method, or a header."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from raw_client import exchange, get

from harness.ota.server import OtaServer

MAC, OTHER = "aa:bb:cc:00:00:01", "aa:bb:cc:00:00:02"
SECRET = b"what only one device may have" * 20


@pytest.fixture(scope="module")
def server() -> Iterator[OtaServer]:
    with OtaServer() as running:
        running.publish(MAC, "app", SECRET)
        running.publish(OTHER, "mine", b"another's")
        yield running


def token_of(server: OtaServer, mac: str, name: str) -> str:
    return server.publish(mac, name, SECRET if mac == MAC else b"another's").split("/")[2]


NEAR_MISSES: dict[str, Callable[[str, str], str]] = {
    "one letter off": lambda token, _other: f"/d/{token[:-1]}{'a' if token[-1] != 'a' else 'b'}/app",
    "one letter short": lambda token, _other: f"/d/{token[:-1]}/app",
    "one letter more": lambda token, _other: f"/d/{token}a/app",
    "other case": lambda token, _other: f"/d/{token.swapcase()}/app",
    "the first half": lambda token, _other: f"/d/{token[:16]}/app",
    "padding": lambda token, _other: f"/d/{token}=/app",
    "the MAC": lambda _token, _other: f"/d/{MAC.replace(':', '')}/app",
    "another's secret": lambda _token, other: f"/d/{other}/app",
    "another's secret before it": lambda token, other: f"/d/{other}/../{token}/app",
    "another's file": lambda token, _other: f"/d/{token}/mine",
    "percent": lambda token, _other: f"/d/%{ord(token[0]):02x}{token[1:]}/app",
    "percent slash": lambda token, _other: f"/d/{token}%2fapp",
    "dots in percent": lambda token, other: f"/d/{other}/%2e%2e/{token}/app",
    "backslash": lambda token, _other: f"/d\\{token}\\app",
    "NUL in percent": lambda token, _other: f"/d/{token}/app%00.bin",
    "a line end in percent": lambda token, _other: f"/d/{token}/app%0a",
    "very long": lambda token, _other: f"/d/{token}/{'a' * 3000}",
    "a fragment": lambda token, _other: f"/d/{token}/app#",
    "absolute, of another host": lambda token, _other: f"http://elsewhere.test/d/{token}/app",
    "absolute, with a user": lambda token, _other: f"http://{token}@127.0.0.1/d/app",
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_near_miss_is_404_and_tells_nothing(server: OtaServer, name: str, method: str) -> None:
    token, other = token_of(server, MAC, "app"), token_of(server, OTHER, "mine")
    reply = get(server, NEAR_MISSES[name](token, other), "Range: bytes=0-3", method=method)
    assert reply.status in (400, 404)
    assert SECRET[:8] not in reply.raw
    assert str(len(SECRET)) not in reply.headers.get("content-range", "")
    assert "etag" not in reply.headers
    line = server.journal[-1].to_json()
    assert token not in line
    assert other not in line


HEADERS = [
    "X-Original-URL: {path}",
    "X-Rewrite-URL: {path}",
    "X-Forwarded-Prefix: {path}",
    "X-HTTP-Method-Override: GET",
    "Referer: http://127.0.0.1{path}",
    "Authorization: Bearer {token}",
    "Cookie: token={token}",
]


@pytest.mark.parametrize("header", HEADERS)
def test_no_header_stands_for_a_path(server: OtaServer, header: str) -> None:
    token = token_of(server, MAC, "app")
    reply = get(server, "/d/x/app", header.format(token=token, path=f"/d/{token}/app"))
    assert (reply.status, reply.body) == (404, b"404\n")


@pytest.mark.parametrize("host", ["elsewhere.test", "127.0.0.1:1", "", "[::1]", "a" * 200, "x/../y"])
def test_the_host_header_changes_nothing_of_what_is_served(server: OtaServer, host: str) -> None:
    path = f"/d/{token_of(server, MAC, 'app')}/app"
    raw = exchange(server, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert raw.status == 400 or raw.body == SECRET
    nothing = exchange(server, f"GET /d/x/app HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert nothing.status in (400, 404)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_was_withdrawn_is_gone_for_every_way_of_asking(server: OtaServer, method: str) -> None:
    path = server.publish(MAC, "old", SECRET)
    etag = get(server, path).headers["etag"]
    server.withdraw(MAC, "old")
    for header in (
        "X: y",
        "Range: bytes=0-3",
        f"If-Range: {etag}",
        f"If-None-Match: {etag}",
        f"If-Match: {etag}",
    ):
        reply = get(server, path, header, method=method)
        assert reply.status == 404
        assert SECRET[:8] not in reply.raw
