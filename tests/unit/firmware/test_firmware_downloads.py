"""Downloads that break and go on, or must not; and answers that are odd, right, or no HTTP. All in C, over a socket."""

from __future__ import annotations

import gzip
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fake_board import FakeBoard
from fake_server import Answer, FakeServer, chunked, head, in_pieces, in_turn, raw, status
from firmware_builds import Builds
from sample_packages import package_for

BROKEN_AT = 30_000
TAG, OTHER_TAG = 'ETag: "one"', 'ETag: "two"'


def length(data: bytes) -> str:
    return f"Content-Length: {len(data)}"


def whole(data: bytes, *headers: str) -> Answer:
    return raw(head("200 OK", length(data), *headers) + data)


def broken(data: bytes, *headers: str, at: int = BROKEN_AT) -> Answer:
    """The first answer of a download: the connection is closed before byte `at`."""
    return raw(head("200 OK", length(data), *headers) + data[:at])


def part(data: bytes, *headers: str, first: int = BROKEN_AT, says: str | None = None) -> Answer:
    """206 with the bytes from `first` on; `says`: its Content-Range, empty for none."""
    rest = data[first:]
    if says is None:
        says = f"bytes {first}-{len(data) - 1}/{len(data)}"
    told = (f"Content-Range: {says}",) if says else ()
    return raw(head("206 Partial Content", length(rest), *told, *headers) + rest)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@dataclass(frozen=True)
class Case:
    name: str
    answers: Callable[[bytes], tuple[Answer, ...]]
    """One per request."""
    error: str | None = None
    """None: the update succeeds."""
    ranges: tuple[str | None, ...] = (None, f"bytes={BROKEN_AT}-")
    """Range header of each request."""
    resumes: int = 1


RESUMED = (
    Case("the rest", lambda p: (broken(p, TAG), part(p, TAG))),
    Case("the rest, no ETags", lambda p: (broken(p), part(p))),
    Case("the rest, whose ETag is missing now", lambda p: (broken(p, TAG), part(p))),
    Case("the rest, size unknown to the server", lambda p: (
        broken(p, TAG), part(p, TAG, says=f"bytes {BROKEN_AT}-{len(p) - 1}/*"))),
    Case("the rest in chunks", lambda p: (
        broken(p), raw(
            head("206 OK", "Transfer-Encoding: chunked", f"Content-Range: bytes 30000-{len(p) - 1}/{len(p)}")
            + f"{len(p) - BROKEN_AT:x}\r\n".encode() + p[BROKEN_AT:] + b"\r\n0\r\n\r\n"))),
    Case("the rest after an interim answer", lambda p: (
        broken(p), in_pieces(
            head("103 Early Hints"),
            head("206 OK", length(p[BROKEN_AT:]), f"Content-Range: bytes 30000-{len(p) - 1}/{len(p)}"),
            p[BROKEN_AT:]))),
    Case("the whole file", lambda p: (broken(p, TAG), whole(p, TAG))),
    Case("the whole file, no ETags", lambda p: (broken(p), whole(p))),
    Case("the whole file in chunks", lambda p: (broken(p, TAG), chunked(p))),
    Case("nothing before the break", lambda p: (broken(p, at=0), whole(p)), ranges=(None, None)),
    Case("part of the header before the break", lambda p: (broken(p, at=100), part(p, first=100)),
         ranges=(None, "bytes=100-")),
    Case("chunks that break", lambda p: (
        raw(head("200 OK", "Transfer-Encoding: chunked", TAG) + b"fffff\r\n" + p[:BROKEN_AT]), part(p, TAG))),
    Case("chunks that break in the header", lambda p: (
        raw(head("200 OK", "Transfer-Encoding: chunked") + b"fffff\r\n" + p[:100]), part(p, first=100)),
         ranges=(None, "bytes=100-")),
    Case("no length, closed too early", lambda p: (raw(head("200 OK") + p[:BROKEN_AT]), part(p))),
    Case("no length, closed too early, whole file", lambda p: (raw(head("200 OK") + p[:BROKEN_AT]), whole(p))),
    Case("206 without Content-Range, then the whole file", lambda p: (
        broken(p), part(p, says=""), whole(p)), ranges=(None, "bytes=30000-", None)),
    Case("206 from another byte on, then the whole file", lambda p: (
        broken(p), part(p, first=29_999), whole(p)), ranges=(None, "bytes=30000-", None)),
    Case("206 that ends too early, then the whole file", lambda p: (
        broken(p), part(p, says=f"bytes {BROKEN_AT}-{BROKEN_AT + 9}/{len(p)}"), whole(p)),
        ranges=(None, "bytes=30000-", None)),
    Case("206 with less than its Content-Range, then the whole file", lambda p: (
        broken(p), raw(head("206 OK", "Content-Length: 10", f"Content-Range: bytes 30000-{len(p) - 1}/{len(p)}")),
        whole(p)), ranges=(None, "bytes=30000-", None)),
    Case("206 whose Content-Range is no number", lambda p: (
        broken(p), part(p, says=f"bytes 0x7530-{len(p) - 1}/{len(p)}"), whole(p)),
        ranges=(None, "bytes=30000-", None)),
    Case("416, then the whole file", lambda p: (broken(p), status(416), whole(p)),
         ranges=(None, "bytes=30000-", None)),
    Case("416, then 416", lambda p: (broken(p), status(416)), "http-status", (None, "bytes=30000-", None)),
    Case("another size", lambda p: (broken(p), whole(p + b"more")), "changed"),
    Case("another ETag", lambda p: (broken(p, TAG), whole(p, OTHER_TAG)), "changed"),
    Case("a part with another ETag", lambda p: (broken(p, TAG), part(p, OTHER_TAG)), "changed"),
    Case("a part of another total", lambda p: (
        broken(p), part(p, says=f"bytes {BROKEN_AT}-{len(p) - 1}/{len(p) + 1}")), "changed"),
    Case("other bytes before the break", lambda p: (broken(p), whole(flipped(p, 20_000))), "changed"),
    Case("other bytes after the break", lambda p: (broken(p), whole(flipped(p, 31_000))), "body-hash"),
    Case("a part of another file under the same ETag", lambda p: (
        broken(p, TAG), part(flipped(p, 31_000), TAG)), "body-hash"),
    Case("the file is gone", lambda p: (broken(p), status(404)), "http-status"),
    Case("the server fails", lambda p: (broken(p), status(503)), "http-status"),
    Case("packed", lambda p: (
        broken(p), whole(gzip.compress(p, 1), "Content-Encoding: gzip")), "http-encoding"),
    Case("no answer", lambda p: (broken(p), raw(b"")), "http-read"),
    Case("breaks while what is known is read away", lambda p: (
        broken(p), broken(p, at=10_000)), "truncated"),
    Case("breaks again", lambda p: (
        broken(p), raw(
            head("206 OK", length(p[BROKEN_AT:]), f"Content-Range: bytes 30000-{len(p) - 1}/{len(p)}")
            + p[BROKEN_AT:40_000])), "truncated"),
)  # fmt: skip


@pytest.mark.parametrize("case", RESUMED, ids=lambda case: case.name)
def test_a_broken_download_goes_on_with_the_same_file_or_ends(
    board: FakeBoard, builds: Builds, server: FakeServer, case: Case
) -> None:
    package = package_for(board, builds("1.1.0"))
    done = board.command("ota", url=server.serve("/p", in_turn(*case.answers(package))), resumes=1)
    assert done.get("err") == case.error, done
    assert done["resumes"] == case.resumes
    assert tuple(headers.get("range") for _, headers in server.requests) == case.ranges
    if case.error is None:
        assert board.boot()["version"] == "1.1.0"
    else:
        assert board.boot()["version"] == "1.0.0"


@pytest.mark.parametrize(
    ("tag", "sent"), [('"one"', '"one"'), ('W/"one"', None), (f'"{"x" * 200}"', None), ("one", None)]
)
def test_only_a_strong_etag_is_asked_for_again(
    board: FakeBoard, builds: Builds, server: FakeServer, tag: str, sent: str | None
) -> None:
    package = package_for(board, builds("1.1.0"))
    answers = in_turn(broken(package, f"ETag: {tag}"), part(package, f"ETag: {tag}"))
    assert board.command("ota", url=server.serve("/p", answers))["ok"]
    assert [headers.get("if-range") for _, headers in server.requests] == [None, sent]


def test_nothing_packed_is_asked_for(board: FakeBoard, server: FakeServer) -> None:
    board.command("ota", url=server.serve("/p", status(404)))
    assert [headers["accept-encoding"] for _, headers in server.requests] == ["identity"]


def test_failed_reconnections_are_repeated_as_often_as_allowed(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    package = package_for(board, builds("1.1.0"))
    answers = in_turn(broken(package), raw(b""), status(503), part(package))
    started_s = time.monotonic()
    done = board.command("ota", url=server.serve("/p", answers), resumes=3)
    assert (done["ok"], done["resumes"]) == (True, 3), done
    assert time.monotonic() - started_s >= 0.2, "the third and the fourth request came without a pause"


def test_after_a_break_the_first_place_is_asked_again_under_its_own_name(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    """What a redirect names may be valid for minutes only."""
    package = package_for(board, builds("1.1.0"))
    with FakeServer() as other:
        old = other.serve("/old", in_turn(broken(package), status(403)))
        new = other.serve("/new", part(package)).replace("127.0.0.1", "localhost")
        url = server.serve(
            "/p", in_turn(status(302, old.replace("127.0.0.1", "localhost")), status(302, new))
        )
        done = board.command("ota", url=url)
        assert (done["ok"], done["resumes"]) == (True, 1), done
        assert [path for path, _ in other.requests] == ["/old", "/new"]
        assert other.requests[1][1]["range"] == f"bytes={BROKEN_AT}-"
    assert [headers["host"] for _, headers in server.requests] == [f"127.0.0.1:{server.port}"] * 2


def test_the_body_of_an_unwanted_answer_does_not_get_into_the_next_one(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    package = package_for(board, builds("1.1.0"))
    unwanted = in_pieces(
        head("206 OK", "Content-Length: 600", f"Content-Range: bytes 1-600/{len(package)}") + b"x" * 300
    )
    answers = in_turn(broken(package), unwanted, whole(package))
    assert board.command("ota", url=server.serve("/p", answers))["ok"]


ODD = (
    ("interim answers, each in a packet", lambda p: in_pieces(
        head("100 Continue"), head("103 Early Hints", "Link: </x>"), head("200 OK", length(p)), p), None),
    ("interim answer in one packet with the real one", lambda p: raw(
        head("103 Early Hints") + head("200 OK", length(p)) + p), None),
    ("interim answers without end", lambda p: in_pieces(*[head("103 Early Hints")] * 12, pause_s=0.02),
     "http-status"),
    ("HTTP/1.0", lambda p: raw(f"HTTP/1.0 200 OK\r\n{length(p)}\r\n\r\n".encode() + p), None),
    ("no reason phrase", lambda p: raw(f"HTTP/1.1 200\r\n{length(p)}\r\n\r\n".encode() + p), None),
    ("line ends without CR", lambda p: raw(f"HTTP/1.1 200 OK\n{length(p)}\n\n".encode() + p), None),
    ("a header of 5000 bytes", lambda p: whole(p, "X: " + "y" * 5000), None),
    ("headers of 81 KiB", lambda p: whole(p, *["X: " + "y" * 1000] * 82), "http-read"),
    ("one header of 81 KiB", lambda p: whole(p, "X: " + "y" * 82_000), "http-read"),
    ("header without colon", lambda p: whole(p, "nonsense"), "http-read"),
    ("header name with a space", lambda p: whole(p, "X Y: z"), "http-read"),
    ("bare CR in a header", lambda p: whole(p, "X: y\rz"), "http-read"),
    ("negative length", lambda p: raw(head("200 OK", "Content-Length: -5") + p), "http-read"),
    ("length that is a word", lambda p: raw(head("200 OK", "Content-Length: many") + p), "http-read"),
    ("length in hexadecimal", lambda p: raw(head("200 OK", "Content-Length: 0x10") + p), "http-read"),
    ("the same length twice", lambda p: whole(p, length(p)), "http-read"),
    ("empty length", lambda p: raw(head("200 OK", "Content-Length:") + p), None),
    ("length with a space in it", lambda p: raw(
        head("200 OK", f"Content-Length: {len(p) // 10} {len(p) % 10}") + p), None),
    ("length of zero", lambda p: raw(head("200 OK", "Content-Length: 0") + p), "truncated"),
    ("length of 10^12", lambda p: raw(head("200 OK", f"Content-Length: {10**12}") + p), "wrong-size"),
    ("length of 10^19, which is none", lambda p: raw(head("200 OK", f"Content-Length: {10**19}") + p), None),
    ("length of 10^20", lambda p: raw(head("200 OK", f"Content-Length: {10**20}") + p), "http-read"),
    ("length and chunks", lambda p: raw(
        head("200 OK", length(p), "Transfer-Encoding: chunked") + b"5\r\nRAWOT"), "http-read"),
    ("bytes after the body", lambda p: raw(head("200 OK", length(p)) + p + b"and more"), None),
    ("another answer after the body", lambda p: raw(
        head("200 OK", length(p)) + p + head("200 OK", "Content-Length: 4") + b"more"), None),
    ("chunk size that is no number", lambda p: raw(
        head("200 OK", "Transfer-Encoding: chunked") + b"zz\r\n" + p), "truncated"),
    ("chunk size without CR", lambda p: raw(
        head("200 OK", "Transfer-Encoding: chunked") + f"{len(p):x}\n".encode() + p), "truncated"),
    ("chunk longer than its size", lambda p: raw(
        head("200 OK", "Transfer-Encoding: chunked") + b"100\r\n" + p), "truncated"),
    ("packed", lambda p: whole(gzip.compress(p, 1), "Content-Encoding: gzip"), "http-encoding"),
    ("said to be identical", lambda p: whole(p, "Content-Encoding: Identity "), None),
    ("packed, and nobody says so", lambda p: whole(gzip.compress(p, 1)), "bad-magic"),
    ("206 that nobody asked for", lambda p: part(p, first=0), "http-status"),
    ("a protocol switched to", lambda p: raw(head("101 Switching Protocols") + p), "http-status"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "error"), ODD, ids=[row[0] for row in ODD])
def test_an_odd_answer_is_read_as_esp_idf_reads_it(
    board: FakeBoard,
    builds: Builds,
    server: FakeServer,
    name: str,
    answer: Callable[[bytes], Answer],
    error: str | None,
) -> None:
    package = package_for(board, builds("1.1.0"))
    done = board.command("ota", url=server.serve("/p", answer(package)), resumes=0)
    assert done.get("err") == error, done


def trickle(server: FakeServer, first: bytes, rest: bytes) -> Answer:
    """`first` at once, of `rest` a byte every 100 ms."""

    def answer(connection: socket.socket, headers: dict[str, str]) -> None:
        connection.sendall(first)
        for at in range(len(rest)):
            if server.release.wait(0.1):
                return
            connection.sendall(rest[at : at + 1])

    return answer


@pytest.mark.parametrize("where", ["status line", "header", "body", "what is known already"])
def test_a_server_that_sends_a_byte_now_and_then_is_left_when_the_time_is_up(
    board: FakeBoard, builds: Builds, server: FakeServer, where: str
) -> None:
    package = package_for(board, builds("1.1.0"))
    ok = head("200 OK", length(package))
    answers = {
        "status line": trickle(server, b"HTTP/1.1 200 ", b"O" * 1000),
        "header": trickle(server, ok[:-2], b"X: " + b"y" * 1000),
        "body": trickle(server, ok + package[:5000], package[5000:]),
        "what is known already": in_turn(broken(package), trickle(server, ok, package)),
    }
    started_s = time.monotonic()
    done = board.command("ota", url=server.serve("/p", answers[where]), within_s=1, resumes=9)
    assert (done.get("err"), done["msg"][:14]) == ("http-timeout", "not done after"), done
    assert time.monotonic() - started_s > 0.9
    assert len(server.requests) <= 2, "it reconnected although there was no time"


def flood(first: bytes, again: bytes) -> Answer:
    """`first`, then `again` without a pause for as long as somebody takes it."""

    def answer(connection: socket.socket, headers: dict[str, str]) -> None:
        connection.sendall(first)
        while True:
            connection.sendall(again * 64)

    return answer


@pytest.mark.parametrize(
    "what",
    [
        "headers",
        pytest.param("a header line", marks=pytest.mark.full),
        pytest.param("what is no answer", marks=pytest.mark.full),
        pytest.param("interim answers", marks=pytest.mark.full),
        "a chunk size",
        pytest.param("behind a redirect", marks=pytest.mark.full),
    ],
)
def test_a_server_that_never_pauses_is_hung_up_on_when_the_time_is_up(
    board: FakeBoard, builds: Builds, server: FakeServer, what: str
) -> None:
    """esp_http_client reads what never becomes an answer for as long as it comes: no time-out of its own ends that."""
    package = package_for(board, builds("1.1.0"))
    answers = {
        "headers": flood(b"HTTP/1.1 200 OK\r\n", b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n"),
        "a header line": flood(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 64),
        "what is no answer": flood(b"", b"\0" * 64),
        "interim answers": flood(head("100 Continue") * 7 + b"HTTP/1.1 103 Early\r\n", b"X: y\r\n" * 8),
        "a chunk size": flood(
            head("200 OK", "Transfer-Encoding: chunked") + b"1388\r\n" + package[:5000] + b"\r\n1;",
            b"x=y;" * 16,
        ),
        "behind a redirect": flood(
            head("302 Found", "Location: /p", "Transfer-Encoding: chunked") + b"1;", b"x=y;" * 16
        ),
    }
    done = board.command("ota", url=server.serve("/p", answers[what]), within_s=1, resumes=9)
    assert (done.get("err"), done["msg"][:14]) == ("http-timeout", "not done after"), done
    assert len(server.requests) == 1, "it reconnected although there was no time"
    good = board.command("ota", url=server.serve("/good", server.whole(package)))
    assert good["ok"], good


def test_a_stall_shorter_than_the_time_out_is_waited_for(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    package = package_for(board, builds("1.1.0"))
    pieces = (head("200 OK", length(package)), package[:100], package[100:9000], package[9000:])
    done = board.command("ota", url=server.serve("/p", in_pieces(*pieces, pause_s=0.4)))
    assert (done["ok"], done["resumes"]) == (True, 0), done


def test_a_server_that_has_gone_is_asked_as_often_as_allowed(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    package = package_for(board, builds("1.1.0"))

    def go(connection: socket.socket, headers: dict[str, str]) -> None:
        server.stop_listening()
        broken(package)(connection, headers)

    done = board.command("ota", url=server.serve("/p", go), resumes=2)
    assert (done.get("err"), done["resumes"]) == ("http-connect", 2), done
