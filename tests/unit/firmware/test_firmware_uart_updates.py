"""Updates over the console: the device asks for bytes, the host answers, and lines are lost or damaged on the way."""

from __future__ import annotations

import base64
import binascii
import hashlib
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_board import DEADLINE_S, FakeBoard
from fake_chip import SECTOR
from fake_server import FakeServer
from firmware_builds import TEST_FRAGMENTS, Builds
from sample_packages import body_for, image_of, other_slot, package_for

Wire = Callable[[int, bytes], bytes]
"""What becomes of the line with this number, the newline not included; empty: it is lost."""


def data_line(identifier: int, at: int, data: bytes) -> bytes:
    text = f"data id={identifier} at={at} b64={base64.b64encode(data).decode()}"
    return f"{text} crc={binascii.crc32(text.encode()):08x}".encode()


def intact(_: int, line: bytes) -> bytes:
    return line


@dataclass
class UartHost:
    """Answers a board's ``want`` events with `data`, over a wire that may spoil lines."""

    board: FakeBoard
    data: bytes
    wire: Wire = intact
    wants: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0

    def update(self, **arguments: object) -> dict[str, Any]:
        """Sends `ota-uart` and serves until its `done`."""
        arguments = {"size": len(self.data), **arguments}
        identifier = self.board.send("ota-uart", **arguments)
        ack = self.board.wait_event("ack", id=identifier)
        assert ack["ok"], ack
        for event in self.events(identifier):
            if event["ev"] == "done":
                return event
            if event["ev"] == "want":
                self.serve(event)
        raise AssertionError("no end")

    def events(self, identifier: int) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            try:
                event = self.board._queue.get(timeout=1.0)
            except queue.Empty:
                continue
            if event.get("id") == identifier:
                yield event

    def serve(self, want: dict[str, Any]) -> None:
        self.wants.append(want)
        end = want["at"] + want["len"]
        for at in range(want["at"], end, want["piece"]):
            piece = self.data[at : min(at + want["piece"], end)]
            line = self.wire(self.sent, data_line(want["id"], at, piece))
            self.sent += 1
            if line:
                assert max(map(len, line.split(b"\n"))) < 768
                self.board.write(line + b"\n")


def at_of(line: bytes) -> int:
    return int(line.split()[2].removeprefix(b"at="))


def once(number: int, change: Callable[[bytes], bytes]) -> Wire:
    """Spoils one line only."""
    return lambda n, line: change(line) if n == number else line


def lost(_: bytes) -> bytes:
    return b""


def flipped(line: bytes) -> bytes:
    middle = len(line) // 2
    return line[:middle] + bytes([line[middle] ^ 1]) + line[middle + 1 :]


def other_name(line: bytes) -> bytes:
    return b"dbta" + line[4:]


def torn(line: bytes) -> bytes:
    return line[:300]


def twice(line: bytes) -> bytes:
    return line + b"\n" + line


def wrong_base64(line: bytes) -> bytes:
    """A host that makes mistakes: the CRC is right."""
    text = line.rsplit(b" crc=", 1)[0].replace(b"b64=", b"b64=*")
    return text + f" crc={binascii.crc32(text):08x}".encode()


@pytest.mark.parametrize("encrypted", [True, False], ids=["enciphered", "plaintext"])
def test_a_package_over_the_uart_is_written_verified_and_booted(
    make_board: Callable[..., FakeBoard], builds: Builds, encrypted: bool
) -> None:
    fragments = ("profile.release" if encrypted else "profile.open", *TEST_FRAGMENTS[1:])
    board = make_board(builds("1.0.0", fragments=fragments), encrypted=encrypted)
    board.boot()
    package = package_for(board, builds("1.1.0", fragments=fragments))
    host = UartHost(board, package)
    done = host.update()
    assert done["ok"], done
    assert (done["slot"], done["version"], done["bytes"], done["repeats"]) == (
        "ota_1", "1.1.0", len(package) - 256, 0,
    )  # fmt: skip
    assert done["sha256"] == hashlib.sha256(package[256:]).hexdigest()
    assert [(want["at"], want["len"]) for want in host.wants[:3]] == [(0, 256), (256, 4096), (4352, 4096)]
    assert sum(want["len"] for want in host.wants) == len(package)
    assert board.boot()["version"] == "1.1.0"


def test_flash_is_written_only_between_an_answer_and_the_next_question(
    board: FakeBoard, builds: Builds
) -> None:
    """A chip loses what comes while it writes."""
    operations: dict[int, set[int]] = {}

    def note(_: int, line: bytes) -> bytes:
        operations.setdefault(host.wants[-1]["at"], set()).add(len(board.chip.operations))
        time.sleep(0.001)
        return line

    host = UartHost(board, package_for(board, builds("1.1.0")), note)
    assert host.update()["ok"]
    assert all(len(counts) == 1 for counts in operations.values())
    assert len(set.union(*operations.values())) == len(operations)


def test_a_bare_ciphertext_and_a_restart(board: FakeBoard, builds: Builds) -> None:
    body = body_for(board, image_of(builds("1.1.0")))
    assert UartHost(board, body).update(bare=1, reboot=1)["ok"]
    assert board.wait_restart() == 0
    assert board.boot(0xC)["version"] == "1.1.0"


@pytest.mark.parametrize("number", [0, 1, 4, 8, 20], ids=lambda n: f"line {n}")
@pytest.mark.parametrize(
    "change", [lost, flipped, other_name, torn, wrong_base64], ids=lambda change: change.__name__
)
def test_a_line_that_does_not_arrive_is_asked_for_again(
    board: FakeBoard, builds: Builds, change: Callable[[bytes], bytes], number: int
) -> None:
    package = package_for(board, builds("1.1.0"))
    host = UartHost(board, package, once(number, change))
    done = host.update()
    assert (done["ok"], done["repeats"]) == (True, 1), done
    assert done["sha256"] == hashlib.sha256(package[256:]).hexdigest()


def test_lines_that_come_twice_change_nothing(board: FakeBoard, builds: Builds) -> None:
    package = package_for(board, builds("1.1.0"))
    done = UartHost(board, package, lambda _, line: twice(line)).update()
    assert done["ok"], done
    assert done["sha256"] == hashlib.sha256(package[256:]).hexdigest()


def test_every_eighth_line_may_be_lost(board: FakeBoard, builds: Builds) -> None:
    package = package_for(board, builds("1.1.0"))
    host = UartHost(board, package, lambda n, line: b"" if n % 8 == 3 else line)
    done = host.update()
    assert done["ok"], done
    assert done["repeats"] == sum(n % 8 == 3 for n in range(host.sent))


@pytest.mark.parametrize("answered", [0, 1, 30], ids=["never", "after the header", "after some sectors"])
def test_a_host_that_falls_silent_ends_the_update(
    board: FakeBoard, builds: Builds, server: FakeServer, answered: int
) -> None:
    old, package = bytes(board.chip.flash), package_for(board, builds("1.1.0"))
    host = UartHost(board, package, lambda n, line: line if n < answered else b"")
    done = host.update(reboot=1)
    assert (done["ok"], done["err"]) == (False, "uart-timeout"), done
    assert done["msg"] == f"asked 5 times for byte {host.wants[-1]['at']} in vain"
    repeated = [want for want in host.wants if want["at"] == host.wants[-1]["at"]]
    assert len(repeated) == 5
    assert board.chip.open_hashes == 0
    if answered == 0:
        assert bytes(board.chip.flash) == old
    # Whatever became of the slot: the old version runs, and the next update works.
    assert board.boot()["version"] == "1.0.0"
    url = server.serve("/p", server.whole(package))
    assert board.command("ota", url=url)["ok"]


def test_damage_without_end_ends_the_update(board: FakeBoard, builds: Builds) -> None:
    host = UartHost(board, package_for(board, builds("1.1.0")), lambda _, line: flipped(line))
    assert host.update()["err"] == "uart-timeout"
    assert len(host.wants) == 5


@pytest.mark.parametrize("lines", [0, 20], ids=["before the header", "in the body"])
def test_a_host_that_gives_up_ends_the_update_at_once(board: FakeBoard, builds: Builds, lines: int) -> None:
    def give_up(number: int, line: bytes) -> bytes:
        if number < lines:
            return line
        text = b" ".join([*line.split()[:2], b"end=1"])
        return text + f" crc={binascii.crc32(text):08x}".encode() if number == lines else b""

    host = UartHost(board, package_for(board, builds("1.1.0")), give_up)
    done = host.update()
    assert done["err"] == "truncated", done
    asked = [want["at"] for want in host.wants]
    assert asked == sorted(set(asked)), "it asked again"


def test_a_second_update_is_refused_while_one_runs(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    package = package_for(board, builds("1.1.0"))
    url = server.serve("/p", server.whole(package))
    refused: list[dict[str, Any]] = []

    def meanwhile(number: int, line: bytes) -> bytes:
        if number == 5:
            for command, arguments in (("ota", {"url": url}), ("ota-uart", {"size": 4096})):
                identifier = board.send(command, **arguments)
                board.wait_event("ack", id=identifier)
                refused.append(board.wait_event("done", id=identifier))
        return line

    done = UartHost(board, package, meanwhile).update()
    assert done["ok"], done
    assert [answer["err"] for answer in refused] == ["busy", "busy"]
    assert server.requests == []


@pytest.mark.parametrize("arguments", [{}, {"size": 0}, {"size": "x"}, {"size": 1 << 32}])
def test_a_size_that_is_none_is_refused(board: FakeBoard, arguments: dict[str, object]) -> None:
    assert board.command("ota-uart", **arguments)["err"] == "bad-argument"


@pytest.mark.parametrize(("delta", "error"), [(-16, "truncated"), (16, "wrong-size")])
def test_a_size_that_contradicts_the_header_is_refused_before_anything_is_erased(
    board: FakeBoard, builds: Builds, delta: int, error: str
) -> None:
    package, before = package_for(board, builds("1.1.0")), bytes(board.chip.flash)
    host = UartHost(board, package + b"\0" * 16)
    assert host.update(size=len(package) + delta)["err"] == error
    assert [want["len"] for want in host.wants] == [256]
    assert bytes(board.chip.flash) == before


def test_the_wrong_bytes_are_found_out_after_one_sector(board: FakeBoard, builds: Builds) -> None:
    body = body_for(board, image_of(builds("1.1.0")), key=bytes(range(32)))
    host = UartHost(board, package_for(board, builds("1.1.0"), body=body))
    assert host.update()["err"] == "not-deciphered"
    assert sum(want["len"] for want in host.wants) == 256 + SECTOR


def test_what_nobody_asked_for_is_ignored(board: FakeBoard, builds: Builds) -> None:
    before = bytes(board.chip.flash)
    board.write(data_line(3, 0, b"x" * 300) + b"\n")
    assert board.command("status")["ok"]
    assert bytes(board.chip.flash) == before
    assert board.logged("ignored data that nobody waits for")

    # Nor does another transfer's line get into this one.
    package = package_for(board, builds("1.1.0"))

    def with_foreign(number: int, line: bytes) -> bytes:
        return data_line(3, at_of(line), b"y" * 528) + b"\n" + line if number < 20 else line

    done = UartHost(board, package, with_foreign).update()
    assert done["ok"], done
    assert other_slot(board).label == done["slot"]
