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
from harness.ota.server import OtaServer
from harness.qualify.harm import write_other_certificate

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
        with urllib.request.urlopen(url, context=theirs, timeout=10) as answer:
            assert answer.read() == DATA
        assert [request.bytes_sent for request in server.journal] == [len(DATA)]


def test_a_download_over_https_can_be_cut(tmp_path: Path) -> None:
    ours, theirs = served_over_tls(tmp_path)
    with OtaServer().start(tls=ours) as server:
        server.publish(MAC, "app.bin", DATA)
        server.faults.add(Fault(FaultKind.TRUNCATE, at_byte=100_000))
        with (
            urllib.request.urlopen(server.url_for(MAC, "app.bin"), context=theirs, timeout=10) as answer,
            pytest.raises(http.client.IncompleteRead),
        ):
            answer.read()
        assert server.journal[0].bytes_sent == 100_000


def test_a_url_that_is_compiled_in_is_served_too_and_nothing_else(tmp_path: Path) -> None:
    with OtaServer() as server:
        server.publish(MAC, "app.bin", DATA)
        server.open_path("/firmware/app.bin", MAC, "app.bin")
        base = server.url_for(MAC, "app.bin").partition("/d/")[0]
        with urllib.request.urlopen(f"{base}/firmware/app.bin", timeout=10) as answer:
            assert answer.read() == DATA
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/firmware/other.bin", timeout=10)
        server.withdraw(MAC)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{base}/firmware/app.bin", timeout=10)
        assert server.journal[0].name == "app.bin"


@pytest.mark.parametrize("path", ["app.bin", "/", "/a//b", "/d/abc/app.bin", "/a?b", "/../x y"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be served"):
        OtaServer().open_path(path, MAC, "app.bin")
