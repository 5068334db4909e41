"""The faults: what the client sees on the wire, and what the journal says of it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from raw_client import connect, get

from harness.errors import BoardError, UsageError
from harness.ota.faults import Fault, FaultKind
from harness.ota.journal import RequestEnd
from harness.ota.server import OtaServer

MAC = "aa:bb:cc:00:00:01"
OTHER_MAC = "aa:bb:cc:00:00:02"
DATA = bytes(range(256)) * 300


@pytest.fixture
def server() -> Iterator[OtaServer]:
    with OtaServer() as running:
        running.publish(MAC, "app.pkg", DATA)
        running.publish(MAC, "other.bin", b"other")
        yield running


@pytest.fixture
def path(server: OtaServer) -> str:
    return server.publish(MAC, "app.pkg", DATA)


# ---- each kind ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 204, 304, 400, 404, 418, 500, 503])
def test_status_replaces_the_file(server: OtaServer, path: str, code: int) -> None:
    server.faults.add(Fault("status", code=code))
    reply = get(server, path)
    assert reply.status == code
    assert reply.body == (b"" if code in (204, 304) else b"fault\n")
    assert server.journal[-1].fault == f"status code={code}"
    assert get(server, path).body == DATA


@pytest.mark.parametrize("at_byte", [0, 1, 5000, 16384, len(DATA) - 1, -1, -len(DATA)])
def test_truncate_keeps_the_declared_length_and_ends_at_the_byte(
    server: OtaServer, path: str, at_byte: int
) -> None:
    server.faults.add(Fault("truncate", at_byte=at_byte))
    reply = get(server, path)
    assert reply.headers["content-length"] == str(len(DATA))
    assert reply.body == DATA[:at_byte]
    assert not reply.was_reset
    record = server.journal[-1]
    assert (record.end, record.bytes_sent) == (RequestEnd.CUT_BY_FAULT, at_byte % len(DATA))


def test_truncate_closes_a_connection_that_was_to_stay_open(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("truncate", at_byte=100))
    client = http.client.HTTPConnection(*server.address, timeout=60)
    client.request("GET", path)
    reply = client.getresponse()
    assert reply.headers.get("Connection") != "close"
    with pytest.raises(http.client.IncompleteRead) as caught:
        reply.read()
    assert caught.value.partial == DATA[:100]
    client.close()


@pytest.mark.parametrize("at_byte", [0, 5000, -1])
def test_reset_delivers_the_bytes_before_and_then_resets(server: OtaServer, path: str, at_byte: int) -> None:
    server.faults.add(Fault("reset", at_byte=at_byte))
    reply = get(server, path)
    assert reply.was_reset
    assert (reply.status, reply.body) == (200, DATA[:at_byte])
    assert server.journal[-1].end is RequestEnd.CUT_BY_FAULT


def test_reset_waits_until_a_slow_reader_has_the_bytes_before_it(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("reset", at_byte=-1))
    received = b""
    with socket.socket() as client:
        # Far less than the file, so that most of it waits at the server's end when the reset is due.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.settimeout(60)
        client.connect(server.address)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.2)
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(65536):
                received += piece
    assert received.partition(b"\r\n\r\n")[2] == DATA[:-1]
    assert server.wait_for_request(lambda _: True, 60).end is RequestEnd.CUT_BY_FAULT


def test_reset_without_a_byte_strikes_before_the_status_line(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("reset"))
    reply = get(server, path)
    assert (reply.was_reset, reply.raw) == (True, b"")
    assert server.journal[-1].status is None


def test_stall_goes_on_after_its_seconds(server: OtaServer, path: str) -> None:
    armed = server.faults.add(Fault("stall", at_byte=5000, seconds=0.3))
    started_s = time.monotonic()
    assert get(server, path).body == DATA
    assert time.monotonic() - started_s >= 0.3
    assert armed.struck == 1
    assert server.journal[-1].duration_ms >= 300


@pytest.mark.parametrize("at_byte", [None, 0, 5000])
def test_stall_sends_what_is_before_its_byte_and_nothing_until_released(
    server: OtaServer, path: str, at_byte: int | None
) -> None:
    armed = server.faults.add(Fault("stall", at_byte=at_byte))
    with connect(server) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        armed.wait_struck(60)
        client.settimeout(60)
        received = b""
        while at_byte is not None and len(received.partition(b"\r\n\r\n")[2]) < at_byte:
            received += client.recv(65536)
        client.settimeout(0.15)
        received += _read_until_silent(client)
        if at_byte is None:
            assert received == b""
        else:
            assert received.partition(b"\r\n\r\n")[2] == DATA[:at_byte]
        assert server.journal == ()
        armed.release()
        client.settimeout(60)
        received += _read_until_silent(client)
    assert received.partition(b"\r\n\r\n")[2] == DATA
    assert server.journal[-1].end is RequestEnd.COMPLETE


def test_a_client_that_gives_up_a_stall_is_noted(server: OtaServer, path: str) -> None:
    armed = server.faults.add(Fault("stall", at_byte=10))
    with connect(server) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        armed.wait_struck(60)
    record = server.wait_for_request(lambda r: r.left_early, 60)
    assert (record.bytes_sent, record.fault) == (10, "stall at byte 10")


def test_slow_keeps_to_its_rate(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("slow", bytes_per_s=len(DATA) * 4))
    started_s = time.monotonic()
    assert get(server, path).body == DATA
    assert 0.24 <= time.monotonic() - started_s < 60


def test_clearing_ends_slowness_in_progress(server: OtaServer, path: str) -> None:
    armed = server.faults.add(Fault("slow", bytes_per_s=1))
    bodies: list[bytes] = []
    client = threading.Thread(target=lambda: bodies.append(get(server, path).body))
    client.start()
    armed.wait_struck(60)
    server.faults.clear()
    client.join(60)
    assert bodies == [DATA]


def test_slow_below_a_byte_per_tick_sends_single_bytes(server: OtaServer) -> None:
    path = server.publish(MAC, "tiny", b"abcd")
    server.faults.add(Fault("slow", bytes_per_s=10))
    started_s = time.monotonic()
    assert get(server, path).body == b"abcd"
    assert 0.3 <= time.monotonic() - started_s < 60


@pytest.mark.parametrize(("at_byte", "bit"), [(0, None), (5000, 7), (-1, 3)])
def test_flip_inverts_one_bit(server: OtaServer, path: str, at_byte: int, bit: int | None) -> None:
    server.faults.add(Fault("flip", at_byte=at_byte, bit=bit))
    expected = bytearray(DATA)
    expected[at_byte] ^= 1 << (bit or 0)
    reply = get(server, path)
    assert (reply.status, reply.body) == (200, bytes(expected))
    assert get(server, path).body == DATA


@pytest.mark.parametrize(
    ("delta", "declared"), [(7, len(DATA) + 7), (-7, len(DATA) - 7), (-len(DATA) * 2, 0), (2**31, None)]
)
def test_wrong_length_declares_another_length_than_it_sends(
    server: OtaServer, path: str, delta: int, declared: int | None
) -> None:
    server.faults.add(Fault("wrong-length", delta=delta))
    reply = get(server, path)
    assert reply.headers["content-length"] == str(len(DATA) + delta if declared is None else declared)
    assert reply.body == DATA


def test_missing_length_ends_with_the_connection(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("missing-length"))
    reply = get(server, path)
    assert "content-length" not in reply.headers
    assert "transfer-encoding" not in reply.headers
    assert reply.body == DATA


def test_chunked_sends_chunks_instead_of_a_length(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("chunked", times=2))
    client = http.client.HTTPConnection(*server.address, timeout=60)
    client.request("GET", path)
    reply = client.getresponse()
    assert (reply.headers["Transfer-Encoding"], reply.headers["Content-Length"]) == ("chunked", None)
    assert reply.read() == DATA
    client.close()
    old = get(server, path, version="1.0")
    assert "transfer-encoding" not in old.headers
    assert old.body == DATA


def test_redirect_leads_to_another_published_name(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("redirect", match="app.pkg", target="other.bin"))
    reply = get(server, path)
    assert (reply.status, reply.body) == (302, b"")
    assert reply.headers["location"] == server.url_for(MAC, "other.bin")
    assert get(server, reply.headers["location"].partition(str(server.address[1]))[2]).body == b"other"


def test_redirect_leads_to_the_address_under_which_the_device_knows_the_server(
    server: OtaServer, path: str
) -> None:
    server.faults.add(Fault("redirect", match="app.pkg", target="other.bin"))
    with socket.create_connection(server.address, timeout=60) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 10.0.2.2\r\nConnection: close\r\n\r\n".encode())
        head = client.makefile("rb").read().decode()
    assert f"Location: http://10.0.2.2:{server.address[1]}/d/" in head


def test_no_fault_strikes_what_is_published_without_faults(server: OtaServer) -> None:
    server.publish(MAC, "proof", DATA, faultless=True)
    armed = server.faults.add(Fault("status", code=500))
    assert get(server, server.url_for(MAC, "proof").partition(str(server.address[1]))[2]).status == 200
    assert armed.struck == 0


def test_redirect_leads_anywhere_with_the_status_wanted(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("redirect", target="https://elsewhere.test/x", code=308))
    reply = get(server, path)
    assert (reply.status, reply.headers["location"]) == (308, "https://elsewhere.test/x")


def test_the_journal_keeps_the_secret_part_of_a_redirects_target(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("redirect", target=server.url_for(MAC, "other.bin")))
    get(server, path)
    assert path.split("/")[2] not in server.journal[-1].to_json()


def test_changed_on_resume_serves_the_first_part_right_and_the_rest_of_something_else(
    server: OtaServer, path: str
) -> None:
    server.faults.add(Fault("changed-on-resume"))
    whole = get(server, path, "Range: bytes=0-99")
    assert whole.body == DATA[:100]
    resumed = get(server, path, "Range: bytes=100-199")
    assert (resumed.status, resumed.body) == (206, bytes(255 - value for value in DATA[100:200]))
    assert resumed.headers["etag"] != whole.headers["etag"]
    assert get(server, path, "Range: bytes=100-199").body == DATA[100:200]


def test_changed_on_resume_can_serve_given_content_even_a_shorter_one(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("changed-on-resume", content=b"x" * 150, times=2))
    assert get(server, path, "Range: bytes=100-").body == b"x" * 50
    assert get(server, path, "Range: bytes=200-").status == 416


@pytest.mark.parametrize("kind", ["reset", "truncate"])
def test_a_fault_behind_the_last_byte_ends_the_connection_after_the_whole_file(
    server: OtaServer, path: str, kind: str
) -> None:
    armed = server.faults.add(Fault(kind, at_byte=len(DATA)))
    reply = get(server, path)
    assert (reply.body, reply.was_reset, armed.struck) == (DATA, kind == "reset", 1)


def test_slow_from_a_byte_on_sends_what_is_before_at_once(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("slow", bytes_per_s=10, at_byte=-4))
    started_s = time.monotonic()
    assert get(server, path).body == DATA
    assert 0.3 <= time.monotonic() - started_s < 60


def test_a_slow_header_is_sent_byte_by_byte(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("slow-header", bytes_per_s=1000))
    started_s = time.monotonic()
    reply = get(server, path)
    assert (reply.status, reply.body) == (200, DATA)
    assert time.monotonic() - started_s >= len(reply.raw.partition(b"\r\n\r\n")[0]) / 1000


def test_a_duplicated_byte_pushes_the_last_one_out(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("duplicate-byte", at_byte=5000))
    reply = get(server, path)
    assert reply.headers["content-length"] == str(len(DATA))
    assert reply.body == DATA[:5001] + DATA[5000:-1]


def test_extra_bytes_follow_what_was_declared(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("extra-bytes", count=3))
    reply = get(server, path)
    assert (reply.headers["content-length"], reply.body) == (str(len(DATA)), DATA + b"UUU")
    assert server.journal[-1].bytes_sent == len(DATA)


@pytest.mark.parametrize("text", ["-1", "many", "99999999999999999999", ""])
def test_a_bad_length_is_sent_as_it_is(server: OtaServer, path: str, text: str) -> None:
    server.faults.add(Fault("bad-length", text=text))
    reply = get(server, path)
    assert (reply.headers["content-length"], reply.body) == (text, DATA)


@pytest.mark.parametrize("kind", ["chunked", "missing-length"])
def test_a_body_without_length_can_end_too_early(server: OtaServer, path: str, kind: str) -> None:
    server.faults.add(Fault(kind, at_byte=5000))
    reply = get(server, path)
    if kind == "chunked":
        assert reply.body == b"%x\r\n" % 5000 + DATA[:5000] + b"\r\n"
    else:
        assert reply.body == DATA[:5000]
    assert server.journal[-1].end is RequestEnd.CUT_BY_FAULT


def test_chunk_extras_are_chunks_that_http_allows(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("chunk-extras"))
    client = http.client.HTTPConnection(*server.address, timeout=60)
    client.request("GET", path)
    assert client.getresponse().read() == DATA
    client.close()
    server.faults.add(Fault("chunk-extras"))
    body = get(server, path).body
    assert b';name=value;"quoted"\r\n' in body
    assert body.endswith(b"0;last\r\nX-Trailer: one\r\nX-Other: two\r\n\r\n")


def test_a_packed_body_says_so(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("gzip"))
    reply = get(server, path)
    assert reply.headers["content-encoding"] == "gzip"
    assert gzip.decompress(reply.body) == DATA
    assert reply.headers["content-length"] == str(len(reply.body))


def test_http10_closes_the_connection(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("http10"))
    reply = get(server, path)
    assert reply.raw.startswith(b"HTTP/1.0 200 OK\r\n")
    assert (reply.headers["content-length"], reply.body) == (str(len(DATA)), DATA)


def test_interim_answers_come_before_the_one_that_counts(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("interim", count=2))
    interim, _, rest = get(server, path).raw.partition(b"HTTP/1.1 200 OK\r\n")
    assert interim.count(b"HTTP/1.1 103 ") == 2
    assert rest.partition(b"\r\n\r\n")[2] == DATA


def test_a_long_header_is_as_long_as_wanted(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("long-header", count=100_000))
    assert len(get(server, path).headers["x-long"]) == 100_000


def test_a_server_without_ranges_sends_the_whole_file_to_who_resumes(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("no-ranges"))
    reply = get(server, path, "Range: bytes=100-")
    assert (reply.status, reply.body, "accept-ranges" in reply.headers) == (200, DATA, False)


@pytest.mark.parametrize(("delta", "first"), [(7, 107), (-7, 93), (-500, 0), (10**9, len(DATA) - 1)])
def test_a_wrong_range_is_told_as_it_is(server: OtaServer, path: str, delta: int, first: int) -> None:
    server.faults.add(Fault("wrong-range", delta=delta))
    reply = get(server, path, "Range: bytes=100-")
    assert (reply.status, reply.body) == (206, DATA[first:])
    assert reply.headers["content-range"] == f"bytes {first}-{len(DATA) - 1}/{len(DATA)}"


@pytest.mark.parametrize(("text", "sent"), [("bytes 0-1/2", "bytes 0-1/2"), ("", None)])
def test_another_content_range_is_told_of_the_right_bytes(
    server: OtaServer, path: str, text: str, sent: str | None
) -> None:
    server.faults.add(Fault("content-range", text=text))
    reply = get(server, path, "Range: bytes=100-")
    assert (reply.status, reply.body, reply.headers.get("content-range")) == (206, DATA[100:], sent)


def test_a_range_that_nobody_asked_for(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("unasked-range"))
    reply = get(server, path)
    assert (reply.status, reply.body) == (206, DATA)
    assert reply.headers["content-range"] == f"bytes 0-{len(DATA) - 1}/{len(DATA)}"


def test_the_etag_can_be_left_out_weak_or_that_of_other_bytes(server: OtaServer, path: str) -> None:
    etag = get(server, path).headers["etag"]
    assert etag.startswith('"'), "the right one is strong"
    server.faults.add(Fault("truncate", at_byte=5, etag="none"))
    server.faults.add(Fault("truncate", at_byte=5, etag="weak"))
    assert [get(server, path).headers.get("etag") for _ in range(2)] == [None, f"W/{etag}"]
    server.faults.add(Fault("changed-on-resume", etag="kept"))
    resumed = get(server, path, "Range: bytes=100-", f"If-Range: {etag}")
    assert (resumed.status, resumed.headers["etag"]) == (206, etag)
    assert resumed.body != DATA[100:]


@pytest.mark.parametrize("validator", ['"other"', "W/{etag}", "Wed, 21 Oct 2015 07:28:00 GMT", ""])
def test_a_range_of_another_version_gets_the_whole_file(server: OtaServer, path: str, validator: str) -> None:
    """RFC 9110, 13.1.5: compared strongly."""
    etag = get(server, path).headers["etag"]
    asked = f"If-Range: {validator.format(etag=etag)}"
    assert get(server, path, "Range: bytes=100-", asked).status == 200
    assert get(server, path, "Range: bytes=100-", f"If-Range: {etag}").status == 206


# ---- which request is struck -------------------------------------------------------------------------------


def test_a_fault_strikes_as_often_as_it_says_and_is_told(server: OtaServer, path: str) -> None:
    armed = server.faults.add(Fault("status", code=500, times=2))
    assert [get(server, path).status for _ in range(3)] == [500, 500, 200]
    assert armed.struck == 2


def test_a_fault_without_number_strikes_until_cleared(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("status", code=500, times=None))
    assert {get(server, path).status for _ in range(5)} == {500}
    server.faults.clear()
    assert get(server, path).status == 200


def test_faults_are_used_up_in_the_order_they_were_added(server: OtaServer, path: str) -> None:
    for code in (500, 404, 503):
        server.faults.add(Fault("status", code=code))
    assert [get(server, path).status for _ in range(4)] == [500, 404, 503, 200]


@pytest.mark.parametrize(
    ("fault", "is_struck"),
    [
        (Fault("status", match="app.pkg"), True),
        (Fault("status", match="*.pkg"), True),
        (Fault("status", match="*.bin"), False),
        (Fault("status", device="AA-BB-CC-00-00-01"), True),
        (Fault("status", device=OTHER_MAC), False),
        (Fault("truncate", at_byte=len(DATA)), True),
        (Fault("truncate", at_byte=len(DATA) + 1), False),
        (Fault("flip", at_byte=len(DATA)), False),
        (Fault("truncate", at_byte=-len(DATA) - 1), False),
    ],
)
def test_a_fault_strikes_only_what_it_matches(
    server: OtaServer, path: str, fault: Fault, is_struck: bool
) -> None:
    armed = server.faults.add(fault)
    get(server, path)
    assert (armed.struck == 1) is is_struck
    assert (server.journal[-1].fault is not None) is is_struck


def test_a_byte_counts_in_the_file_also_when_a_range_is_asked_for(server: OtaServer, path: str) -> None:
    server.faults.add(Fault("truncate", at_byte=5000))
    assert get(server, path, "Range: bytes=6000-6999").body == DATA[6000:7000]
    assert get(server, path, "Range: bytes=0-4999").body == DATA[:5000]
    assert get(server, path, method="HEAD").status == 200
    assert get(server, path, "Range: bytes=4000-").body == DATA[4000:5000]
    assert get(server, path, "Range: bytes=4000-").body == DATA[4000:]


def test_waiting_for_a_strike_that_does_not_come_is_a_board_error(server: OtaServer) -> None:
    armed = server.faults.add(Fault("stall", at_byte=1))
    with pytest.raises(BoardError, match="struck 0 time"):
        armed.wait_struck(0.05)


def test_clearing_ends_a_stall_in_progress(server: OtaServer, path: str) -> None:
    armed = server.faults.add(Fault("stall", at_byte=1))
    bodies: list[bytes] = []
    client = threading.Thread(target=lambda: bodies.append(get(server, path).body))
    client.start()
    armed.wait_struck(60)
    server.faults.clear()
    client.join(60)
    assert bodies == [DATA]


# ---- what can be asked for ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "explode"}, "no fault is called 'explode'"),
        ({"kind": "truncate"}, "needs at_byte"),
        ({"kind": "flip"}, "needs at_byte"),
        ({"kind": "slow"}, "needs bytes_per_s"),
        ({"kind": "wrong-length"}, "needs delta"),
        ({"kind": "redirect"}, "needs target"),
        ({"kind": "status", "at_byte": 1}, "does not take at_byte"),
        ({"kind": "chunked", "code": 200}, "does not take code"),
        ({"kind": "bad-length", "text": "1\r\nX: y"}, "out of range"),
        ({"kind": "content-range"}, "needs text"),
        ({"kind": "extra-bytes", "count": 0}, "out of range"),
        ({"kind": "extra-bytes", "count": 1 << 30}, "out of range"),
        ({"kind": "gzip", "etag": "mine"}, "out of range"),
        ({"kind": "status", "code": 100}, "out of range"),
        ({"kind": "status", "code": 600}, "out of range"),
        ({"kind": "redirect", "target": "x", "code": 200}, "out of range"),
        ({"kind": "redirect", "target": "a\r\nSet-Cookie: b"}, "out of range"),
        ({"kind": "redirect", "target": ""}, "out of range"),
        ({"kind": "slow", "bytes_per_s": 0}, "out of range"),
        ({"kind": "slow", "bytes_per_s": float("nan")}, "out of range"),
        ({"kind": "stall", "seconds": -1}, "out of range"),
        ({"kind": "flip", "at_byte": 0, "bit": 8}, "out of range"),
        ({"kind": "wrong-length", "delta": 0}, "out of range"),
        ({"kind": "status", "times": 0}, "out of range"),
        ({"kind": "status", "device": "me"}, "not a MAC address"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Fault(**options)


def test_every_kind_can_be_asked_for_by_word_or_member_and_is_served(server: OtaServer, path: str) -> None:
    needed = {"at_byte": 1, "bytes_per_s": 1e9, "delta": 1, "target": "other.bin", "text": "7"}
    needs = {"truncate": "at_byte", "flip": "at_byte", "slow": "bytes_per_s", "slow-header": "bytes_per_s"}
    needs |= {
        "wrong-length": "delta",
        "redirect": "target",
        "duplicate-byte": "at_byte",
        "bad-length": "text",
    }
    needs |= {"wrong-range": "delta", "content-range": "text"}
    for kind in FaultKind:
        options: dict[str, Any] = (
            {needs[kind.value]: needed[needs[kind.value]]} if kind.value in needs else {}
        )
        if kind is FaultKind.STALL:
            options["seconds"] = 0
        assert Fault(kind, **options) == Fault(kind.value, **options)
        armed = server.faults.add(Fault(kind, **options))
        get(server, path, "Range: bytes=1-")
        assert armed.struck == 1, kind


def test_content_never_shows_in_text() -> None:
    fault = Fault("changed-on-resume", content=b"secret bytes")
    assert "secret" not in repr(fault) + str(fault)


def _read_until_silent(client: Any) -> bytes:
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except TimeoutError:
        pass
    return received
