"""The OTA server without faults: who gets what, ranges, journal, life and death."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_client import connect, exchange, get

from harness.errors import BoardError, LabError, UsageError
from harness.ota.faults import Fault
from harness.ota.journal import RequestEnd
from harness.ota.listening import address_towards
from harness.ota.server import OtaServer

MAC = "aa:bb:cc:00:00:01"
OTHER_MAC = "aa:bb:cc:00:00:02"
DATA = bytes(range(256)) * 300


@pytest.fixture
def server() -> Iterator[OtaServer]:
    with OtaServer() as running:
        yield running


# ---- who gets what -----------------------------------------------------------------------------------------


def test_a_device_gets_what_was_published_for_it_under_its_url(server: OtaServer) -> None:
    server.publish(MAC, "app.pkg", DATA)
    url = server.url_for(MAC, "app.pkg")
    host, _, path = url.removeprefix("http://").partition("/")
    client = http.client.HTTPConnection(host, timeout=60)
    client.request("GET", "/" + path)
    reply = client.getresponse()
    assert (reply.status, reply.read()) == (200, DATA)
    assert reply.headers["Content-Type"] == "application/octet-stream"
    client.close()


def test_the_path_is_secret_per_device_and_stays_with_it(server: OtaServer) -> None:
    path = server.publish(MAC, "a", b"1")
    token = path.split("/")[2]
    assert len(token) >= 32
    assert server.publish(MAC.upper().replace(":", "-"), "b", b"2").split("/")[2] == token
    assert server.publish(OTHER_MAC, "a", b"3").split("/")[2] != token
    assert token not in repr(server)


def test_a_device_does_not_get_what_is_anothers(server: OtaServer) -> None:
    mine, other = server.publish(MAC, "mine", b"1"), server.publish(OTHER_MAC, "other", b"2")
    crossed = mine.rpartition("/")[0] + "/other"
    assert (get(server, mine).body, get(server, other).body) == (b"1", b"2")
    assert get(server, crossed).status == 404


PATHS_TO_NOTHING = [
    "/",
    "//",
    "/d",
    "/d/",
    "/d/{token}",
    "/d/{token}/",
    "/d/{token}/b",
    "/d/{token}/a/",
    "/d/{token}/a/..",
    "/d/{token}/./a",
    "/d/{token}/../{token}/a",
    "/d/{token}/%61",
    "/d/{token}/a%00",
    "/d/{token}/..%2f..%2fetc%2fpasswd",
    "/d/{token}/../../../../etc/passwd",
    "/d//a",
    "/d/x/a",
    "/D/{token}/a",
    "//d/{token}/a",
    "/d/{token}/A",
    "/etc/passwd",
    "/d/{token}/a;x",
    "http://elsewhere.test/d/x/a",
]


@pytest.mark.parametrize("pattern", PATHS_TO_NOTHING)
def test_any_path_but_the_exact_one_is_404_without_detail(server: OtaServer, pattern: str) -> None:
    token = server.publish(MAC, "a", b"secret").split("/")[2]
    reply = get(server, pattern.replace("{token}", token))
    assert (reply.status, reply.body) == (404, b"404\n")
    assert token not in server.journal[-1].to_json()


def test_a_query_changes_nothing(server: OtaServer) -> None:
    path = server.publish(MAC, "a", b"1")
    assert get(server, path + "?a=/../b").body == b"1"
    assert server.journal[-1].path == "/d/****/a"


def test_publishing_again_replaces_and_withdrawing_ends_it(server: OtaServer) -> None:
    path = server.publish(MAC, "a", b"1")
    server.publish(MAC, "b", b"1")
    server.publish(MAC, "a", b"two")
    assert get(server, path).body == b"two"
    server.withdraw(MAC, "a")
    assert get(server, path).status == 404
    server.withdraw(MAC)
    server.withdraw(OTHER_MAC)
    with pytest.raises(UsageError, match="published are: none"):
        server.url_for(MAC, "b")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", "a b", "a\n", "ä", ".hidden", "a" * 101, "a?b"]
)
def test_a_name_that_could_mean_something_in_a_path_is_refused(server: OtaServer, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be published"):
        server.publish(MAC, name, b"")


@pytest.mark.parametrize(
    "mac", ["", "aa:bb", "aa:bb:cc:dd:ee:gg", "aa:bb:cc:dd:ee:ff:00", "aa bb cc dd ee ff"]
)
def test_what_is_no_mac_is_refused(server: OtaServer, mac: str) -> None:
    with pytest.raises(UsageError, match="not a MAC address"):
        server.publish(mac, "a", b"")


# ---- HTTP --------------------------------------------------------------------------------------------------


def test_head_tells_the_length_and_sends_nothing(server: OtaServer) -> None:
    path = server.publish(MAC, "a", DATA)
    reply = get(server, path, method="HEAD")
    assert (reply.status, reply.headers["content-length"], reply.body) == (200, str(len(DATA)), b"")


@pytest.mark.parametrize("size_bytes", [0, 1, 16383, 16384, 16385, 1_000_003])
def test_every_size_arrives_whole_with_its_right_length(server: OtaServer, size_bytes: int) -> None:
    data = hashlib.sha256(b"seed").digest() * (size_bytes // 32 + 1)
    path = server.publish(MAC, "a", data[:size_bytes])
    reply = get(server, path)
    assert reply.headers["content-length"] == str(size_bytes)
    assert reply.body == data[:size_bytes]
    assert server.journal[-1].bytes_sent == size_bytes


@pytest.mark.parametrize(
    ("asked", "first", "stop"),
    [("bytes=0-15", 0, 16), ("bytes=70000-", 70000, 76800), ("bytes=-5", 76795, 76800), ("bytes=5-5", 5, 6)],
)
def test_a_range_is_answered_with_206_and_these_bytes(
    server: OtaServer, asked: str, first: int, stop: int
) -> None:
    path = server.publish(MAC, "a", DATA)
    reply = get(server, path, f"Range: {asked}")
    assert (reply.status, reply.body) == (206, DATA[first:stop])
    assert reply.headers["content-range"] == f"bytes {first}-{stop - 1}/{len(DATA)}"
    assert reply.headers["content-length"] == str(stop - first)
    record = server.journal[-1]
    assert (record.range, record.first_byte, record.bytes_sent) == (asked, first, stop - first)


def test_a_range_behind_the_end_is_416_and_tells_the_size(server: OtaServer) -> None:
    path = server.publish(MAC, "a", DATA)
    reply = get(server, path, f"Range: bytes={len(DATA)}-")
    assert (reply.status, reply.headers["content-range"]) == (416, f"bytes */{len(DATA)}")


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=5-2", "lines=1-2", "bytes=" + "1" * 4000 + ",2-3"])
def test_a_range_that_is_none_gets_the_whole_file(server: OtaServer, asked: str) -> None:
    path = server.publish(MAC, "a", DATA)
    reply = get(server, path, f"Range: {asked}")
    assert (reply.status, len(reply.body)) == (200, len(DATA))


def test_a_resume_of_a_file_that_was_replaced_gets_the_whole_new_file(server: OtaServer) -> None:
    path = server.publish(MAC, "a", b"old" * 10)
    tag = get(server, path).headers["etag"]
    assert get(server, path, "Range: bytes=3-", f"If-Range: {tag}").status == 206
    server.publish(MAC, "a", b"new" * 10)
    reply = get(server, path, "Range: bytes=3-", f"If-Range: {tag}")
    assert (reply.status, reply.body) == (200, b"new" * 10)


def test_one_connection_carries_several_requests(server: OtaServer) -> None:
    server.publish(MAC, "a", b"1")
    path = server.publish(MAC, "b", DATA)
    client = http.client.HTTPConnection(*server.address, timeout=60)
    for headers, status in (({}, 200), ({"Range": "bytes=0-9"}, 206), ({"Range": "bytes=99999999-"}, 416)):
        client.request("GET", path, headers=headers)
        reply = client.getresponse()
        assert (reply.status, len(reply.read())) == (status, int(reply.headers["Content-Length"]))
    client.request("GET", path + "x")
    assert client.getresponse().read() == b"404\n"
    client.close()
    assert len({record.peer for record in server.journal}) == 1


def test_http_1_0_gets_its_file(server: OtaServer) -> None:
    path = server.publish(MAC, "a", DATA)
    assert get(server, path, version="1.0").body == DATA


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_get_and_head_are_allowed(server: OtaServer, method: str) -> None:
    path = server.publish(MAC, "a", DATA)
    reply = get(server, path, "Content-Length: 0", method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


def test_a_body_nobody_asked_for_is_not_taken_for_a_request(server: OtaServer) -> None:
    path = server.publish(MAC, "a", b"1")
    smuggled = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(smuggled)}\r\n\r\n".encode()
    assert exchange(server, request + smuggled).body == b"1"
    assert len(server.journal) == 1


# ---- journal -----------------------------------------------------------------------------------------------


def test_the_journal_tells_what_was_asked_and_answered(server: OtaServer) -> None:
    before_ms = time.time_ns() // 1_000_000
    path = server.publish(MAC, "a", DATA)
    get(server, path)
    (record,) = server.journal
    assert (record.number, record.method, record.status, record.fault) == (1, "GET", 200, None)
    assert (record.device, record.name, record.path) == (MAC, "a", "/d/****/a")
    assert record.peer.startswith("127.0.0.1:")
    assert before_ms <= record.at_ms <= before_ms + 60_000
    assert record.end is RequestEnd.COMPLETE
    assert not record.left_early


def test_the_journal_file_has_a_line_per_request_at_once(tmp_path: Path) -> None:
    file = tmp_path / "journal.jsonl"
    with OtaServer(journal_path=file) as server:
        token_path = server.publish(MAC, "a", DATA)
        for expected in range(1, 4):
            get(server, token_path)
            assert server.journal[-1].number == expected
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert [line["number"] for line in lines] == list(range(1, expected + 1))
    assert lines[0]["end"] == "complete"
    assert lines[0]["at"].endswith("Z")
    assert token_path.split("/")[2] not in file.read_text()


def test_a_journal_that_cannot_be_opened_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="journal"):
        OtaServer(journal_path=tmp_path / "missing" / "journal.jsonl")


def test_a_journal_that_breaks_later_does_not_stop_the_update_but_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    server = OtaServer(journal_path=folder / "journal.jsonl").start()
    path = server.publish(MAC, "a", DATA)
    (folder / "journal.jsonl").unlink()
    folder.rmdir()
    assert get(server, path).body == DATA
    with pytest.raises(LabError, match="cannot be written"):
        server.stop()
    assert not server.is_running


def test_waiting_for_a_request_returns_it_or_says_what_came_instead(server: OtaServer) -> None:
    path = server.publish(MAC, "a", DATA)
    threading.Timer(0.05, get, (server, path)).start()
    assert server.wait_for_request(lambda r: r.name == "a", 60).status == 200
    get(server, "/nothing")
    with pytest.raises(BoardError, match=r"a second download.*GET /nothing -> 404"):
        server.wait_for_request(lambda r: r.name == "a", 0.05, since=1, what="a second download")


def test_a_client_that_leaves_in_the_middle_is_noted(server: OtaServer) -> None:
    path = server.publish(MAC, "a", bytes(8_000_000))
    with connect(server) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.recv(1000)
    record = server.wait_for_request(lambda r: r.left_early, 60)
    assert record.bytes_sent < record.body_bytes == 8_000_000


# ---- life --------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_one_error_with_address_port_and_remedy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LabError) as caught:
            OtaServer().start("127.0.0.1", port)
    text = str(caught.value)
    assert "127.0.0.1" in text
    assert str(port) in text
    assert "port 0" in text


@pytest.mark.parametrize("bind", ["192.0.2.77", "no.such.host.invalid", "not an address", "x" * 300])
def test_an_address_that_is_not_ours_is_one_error(bind: str) -> None:
    with pytest.raises(LabError, match="cannot listen"):
        OtaServer().start(bind)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_does_not_exist_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        OtaServer().start(port=port)


def test_of_several_ports_the_first_free_one_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with OtaServer().start("127.0.0.1", range(port, port + 20)) as server:
            assert server.address[1] in range(port + 1, port + 20)


def test_ports_that_are_all_taken_are_one_error_with_address_and_range() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
        try:
            two = socket.create_server(("127.0.0.1", port + 1))
        except OSError:
            pytest.skip("the next port is somebody else's")
        with two, pytest.raises(LabError, match=f"127.0.0.1, ports {port} to {port + 1}: all of them"):
            OtaServer().start("127.0.0.1", range(port, port + 2))


def test_a_range_on_an_address_that_is_not_ours_is_the_error_of_the_address() -> None:
    with pytest.raises(LabError, match="port 8070: Cannot assign requested address"):
        OtaServer().start("198.51.100.7", range(8070, 8080))


def test_the_address_towards_a_device_is_that_of_the_interface_which_routes_to_it() -> None:
    assert address_towards("127.0.0.1") == "127.0.0.1"


def test_it_comes_back_on_the_same_port_with_the_same_urls() -> None:
    server = OtaServer().start()
    server.publish(MAC, "a", DATA)
    url, port = server.url_for(MAC, "a"), server.address[1]
    assert get(server, url.partition(str(port))[2]).status == 200
    server.stop()
    with pytest.raises(LabError, match="not running"):
        server.url_for(MAC, "a")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
    with server.start(port=port):
        assert server.url_for(MAC, "a") == url
        assert get(server, url.partition(str(port))[2]).status == 200
        with pytest.raises(UsageError, match="runs already"):
            server.start()


def test_the_url_names_the_address_that_the_board_can_use() -> None:
    with OtaServer().start("0.0.0.0") as server:
        server.publish(MAC, "a", DATA)
        assert server.url_for(MAC, "a", host="10.0.2.2").startswith(f"http://10.0.2.2:{server.address[1]}/d/")
        assert server.url_for(MAC, "a", host="fe80::1").startswith("http://[fe80::1]:")


def test_stopping_cuts_everything_at_once_and_twice_is_harmless() -> None:
    server = OtaServer().start()
    path = server.publish(MAC, "a", bytes(8_000_000))
    server.publish(MAC, "slow", DATA)
    stalled = server.faults.add(Fault("stall", match="slow", at_byte=0))
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    idle, unread, waiting, half = (connect(server) for _ in range(4))
    unread.sendall(request)
    waiting.sendall(request.replace(b"/a ", b"/slow "))
    half.sendall(b"GET / HT")
    stalled.wait_struck(60)
    thread_name = f"ota-server-{server.address[1]}"
    assert any(thread.name == thread_name for thread in threading.enumerate())
    started_s = time.monotonic()
    server.stop()
    server.stop()
    assert time.monotonic() - started_s < 60
    for client in (idle, waiting, half):
        try:
            while client.recv(65536):
                pass
        except ConnectionResetError:
            pass
    for client in (idle, unread, waiting, half):
        client.close()
    ends = {record.name: record.end for record in server.journal}
    assert ends == {"a": RequestEnd.SERVER_STOPPED, "slow": RequestEnd.SERVER_STOPPED}
    assert not [thread for thread in threading.enumerate() if thread.name == thread_name]


def test_several_servers_and_many_clients_run_at_once() -> None:
    servers = [OtaServer().start() for _ in range(3)]
    results: list[bool] = []

    def fetch(server: OtaServer, path: str, data: bytes) -> None:
        results.append(get(server, path).body == data)

    jobs = []
    for number, server in enumerate(servers):
        for client in range(8):
            data = bytes([number, client]) * 50_000
            path = server.publish(f"aa:bb:cc:00:00:{client:02x}", "a", data)
            jobs.append(threading.Thread(target=fetch, args=(server, path, data)))
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert results == [True] * 24
    assert [len(server.journal) for server in servers] == [8, 8, 8]
    for server in servers:
        server.stop()
