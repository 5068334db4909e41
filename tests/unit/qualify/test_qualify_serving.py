"""What qualifying somebody's app needs of the OTA server: HTTPS with a given certificate, and a path that is fixed."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.ota.faults import Fault, FaultKind
from harness.ota.journal import Request, RequestEnd
from harness.ota.server import OtaServer
from harness.qualify.harm import write_other_certificate
from harness.qualify.offer import fetched_whole

MAC = "aa:bb:cc:00:00:01"
DATA = bytes(range(256)) * 2500


def served_over_tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server and a client with the same self-signed certificate use."""
    certificate, key = write_other_certificate(folder, "127.0.0.1")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    client.check_hostname = False
    return server, client


def test_a_large_image_goes_out_over_https_without_a_pause(tmp_path: Path) -> None:
    ours, theirs = served_over_tls(tmp_path)
    with OtaServer().start(tls=ours) as server:
        server.publish(MAC, "app.bin", DATA)
        url = server.url_for(MAC, "app.bin")
        assert url.startswith("https://")
        with urllib.request.urlopen(url, context=theirs, timeout=60) as answer:
            assert answer.read() == DATA
        assert [request.bytes_sent for request in server.journal] == [len(DATA)]


def request(
    first: int, sent: int, end: RequestEnd = RequestEnd.COMPLETE, fault: str | None = None
) -> Request:
    """One request for a body of 1000 bytes."""
    return Request(
        number=1,
        at_ms=0,
        peer="10.0.0.2:1",
        device=MAC,
        method="GET",
        path="/d/****/update.bin",
        name="update.bin",
        range=None,
        status=200,
        first_byte=first,
        body_bytes=1000 - first,
        bytes_sent=sent,
        fault=fault,
        duration_ms=1,
        end=end,
    )


LEFT = RequestEnd.PEER_LEFT


@pytest.mark.parametrize(
    ("requests", "whole"),
    [
        ([request(0, 1000)], True),
        ([request(0, 500), request(500, 500)], True),
        ([request(0, 600, LEFT), request(400, 600)], True),
        ([request(0, 1000, LEFT)], False),
        ([request(0, 1000, fault="flip bit")], False),
        ([request(0, 500), request(500, 500, LEFT)], False),
        ([request(0, 500), request(600, 400)], False),
        ([request(0, 500, fault="flip bit"), request(500, 500)], False),
        ([request(0, 0)], False),
        ([], False),
    ],
)
def test_an_update_was_fetched_when_all_of_it_went_out_and_its_end_was_taken(
    requests: list[Request], whole: bool
) -> None:
    assert fetched_whole(tuple(requests), 1000) is whole


def test_a_download_over_https_can_be_cut(tmp_path: Path) -> None:
    ours, theirs = served_over_tls(tmp_path)
    with OtaServer().start(tls=ours) as server:
        server.publish(MAC, "app.bin", DATA)
        server.faults.add(Fault(FaultKind.TRUNCATE, at_byte=100_000))
        with (
            urllib.request.urlopen(server.url_for(MAC, "app.bin"), context=theirs, timeout=60) as answer,
            pytest.raises(http.client.IncompleteRead),
        ):
            answer.read()
        assert server.journal[0].bytes_sent == 100_000


def test_a_url_that_is_compiled_in_is_served_too_and_nothing_else(tmp_path: Path) -> None:
    with OtaServer() as server:
        server.publish(MAC, "app.bin", DATA)
        server.open_path("/firmware/app.bin", MAC, "app.bin")
        base = server.url_for(MAC, "app.bin").partition("/d/")[0]
        with urllib.request.urlopen(f"{base}/firmware/app.bin", timeout=60) as answer:
            assert answer.read() == DATA
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/firmware/other.bin", timeout=60)
        server.withdraw(MAC)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/firmware/app.bin", timeout=60)
        assert server.journal[0].name == "app.bin"


@pytest.mark.parametrize("path", ["app.bin", "/", "/a//b", "/d/abc/app.bin", "/a?b", "/../x y"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be served"):
        OtaServer().open_path(path, MAC, "app.bin")
