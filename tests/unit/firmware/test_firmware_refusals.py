"""Updates that are refused: each by its own error, and before anything is erased where that can be known."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_board import FakeBoard
from fake_chip import ERASE, READ_RAW, SECTOR, WRITE_ENCRYPTED, WRITE_RAW
from fake_server import FakeServer, chunked, raw, status
from firmware_builds import OTHER_KEY, SIGNING_KEY, TEST_FRAGMENTS, Builds, public_point
from sample_packages import body_for, image_of, other_slot, package_for, patched

from harness.build.artefacts import Artefacts
from harness.formats.otadata import OtaState

Make = Callable[[FakeBoard, Artefacts], bytes]


def flipped(data: bytes, at: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@dataclass(frozen=True)
class Case:
    """What is served, the error it earns, and whether the slot may have been erased by then."""

    name: str
    make: Make
    error: str
    erases: bool = False
    arguments: dict[str, Any] = field(default_factory=dict)


def first_slot_package(board: FakeBoard, new: Artefacts) -> bytes:
    slot = board.table.ota_slots[0]
    return package_for(board, new, body=body_for(board, image_of(new), slot), slot_offset=slot.offset)


def for_first_slot(board: FakeBoard, new: Artefacts) -> bytes:
    return body_for(board, image_of(new), board.table.ota_slots[0])


def first_slot_body(board: FakeBoard, new: Artefacts) -> bytes:
    return package_for(board, new, body=for_first_slot(board, new))


def for_another_key(board: FakeBoard, new: Artefacts) -> bytes:
    return package_for(board, new, body=body_for(board, image_of(new), key=b"other"))


def good_body(board: FakeBoard, new: Artefacts) -> bytes:
    return body_for(board, image_of(new))


def chip_inside(board: FakeBoard, new: Artefacts) -> bytes:
    image = image_of(new)
    image = image[:12] + b"\x09\x00" + image[14:]
    return package_for(board, new, body=body_for(board, image))


def damaged_but_signed(board: FakeBoard, new: Artefacts) -> bytes:
    body = body_for(board, image_of(new))
    return package_for(board, new, body=flipped(body, len(body) // 2))


BARE = {"bare": 1}

PACKAGES = (
    Case("no package", good_body, "bad-magic"),
    Case("a web page", lambda b, n: b"<html>" + bytes(400), "bad-magic"),
    Case("header version 2", lambda b, n: patched(package_for(b, n), 8, b"\x02\0"), "bad-header-version"),
    Case("unknown flag", lambda b, n: patched(package_for(b, n), 15, b"\x01"), "bad-header-version"),
    Case("reserved field used", lambda b, n: patched(package_for(b, n), 185, b"\x01"), "bad-header-version"),
    Case("header size 512", lambda b, n: patched(package_for(b, n), 10, b"\0\x02"), "bad-header-size"),
    Case("signed by a stranger", lambda b, n: package_for(b, n, key=OTHER_KEY), "bad-signature"),
    Case("not signed", lambda b, n: package_for(b, n)[:192] + bytes(64) + package_for(b, n)[256:], "bad-signature"),
    Case("changed after signing", lambda b, n: patched(package_for(b, n), 40, b"\x01", resign=False), "bad-signature"),
    Case("another chip", lambda b, n: package_for(b, n, chip_id=9), "wrong-chip"),
    Case("another device", lambda b, n: package_for(b, n, mac=bytes(6)), "wrong-device"),
    Case("the running slot", first_slot_package, "wrong-slot"),
    Case("another slot size", lambda b, n: package_for(b, n, slot_size=0x100000), "wrong-slot"),
    Case("no cipher", lambda b, n: package_for(b, n, cipher_number=0), "wrong-cipher"),
    Case("another cipher", lambda b, n: package_for(b, n, cipher_number=3), "wrong-cipher"),
    Case("image larger than body", lambda b, n: package_for(b, n, image_size=1 << 20), "wrong-size"),
    Case("image size near 2^32", lambda b, n: package_for(b, n, image_size=0xFFFFFFFF, body_size=0), "wrong-size"),
    Case("empty image", lambda b, n: package_for(b, n, image_size=0, body_size=0), "wrong-size"),
    Case("larger than the slot", lambda b, n: package_for(b, n, image_size=0x180010, body_size=0x180010), "wrong-size"),
    Case("more bytes than announced", lambda b, n: package_for(b, n) + bytes(16), "wrong-size"),
    Case("another project", lambda b, n: package_for(b, n, project_name="other"), "wrong-version"),
    Case("no version", lambda b, n: package_for(b, n, version=""), "wrong-version"),
    Case("truncated", lambda b, n: package_for(b, n)[:40_000], "truncated"),
    Case("truncated in the header", lambda b, n: package_for(b, n)[:100], "truncated"),
    Case("nothing at all", lambda b, n: b"", "truncated"),
    Case("another key under a right label", for_another_key, "not-deciphered", True),
    Case("enciphered for the other slot", first_slot_body, "not-deciphered", True),
    Case("plaintext under a right label", lambda b, n: package_for(b, n, body=image_of(n)), "plaintext-image", True),
    Case("another version inside", lambda b, n: package_for(b, n, version="9.9.9"), "wrong-description", True),
    Case("another secure version inside", lambda b, n: package_for(b, n, secure_version=7), "wrong-description", True),
    Case("another chip's image inside", chip_inside, "wrong-description", True),
    Case("one bit flipped", lambda b, n: flipped(package_for(b, n), 50_000), "body-hash", True),
    Case("last bit flipped", lambda b, n: flipped(package_for(b, n), -1), "body-hash", True),
    Case("damaged before it was signed", damaged_but_signed, "image-hash", True),
    Case("bare, enciphered for the other slot", for_first_slot, "not-deciphered", True, BARE),
    Case("bare plaintext", lambda b, n: image_of(n), "plaintext-image", True, BARE),
    Case("bare, one bit flipped", lambda b, n: flipped(good_body(b, n), 50_000), "image-invalid", True, BARE),
    Case("bare, truncated", lambda b, n: good_body(b, n)[:40_000], "image-invalid", True, BARE),
    Case("bare, no multiple of 16", lambda b, n: good_body(b, n)[:40_001], "wrong-size", False, BARE),
    Case("bare, another size than asked for", good_body, "wrong-size", False, {**BARE, "size": 4096}),
    Case("bare, too large", lambda b, n: bytes(0x180010), "too-large", False, BARE),
    Case("bare, tiny", lambda b, n: bytes(16), "wrong-size", False, BARE),
)  # fmt: skip


@pytest.mark.parametrize("case", PACKAGES, ids=lambda case: case.name)
def test_each_fault_has_its_own_error(
    board: FakeBoard, builds: Builds, server: FakeServer, case: Case
) -> None:
    running = bytes(board.chip.flash[0x20000:0x1A0000])
    otadata = board.otadata
    board.chip.operations.clear()
    url = server.serve("/p", server.whole(case.make(board, builds("1.1.0"))))
    done = board.command("ota", url=url, **case.arguments)
    assert (done["ok"], done.get("err")) == (False, case.error), done
    assert done["msg"]
    if not case.erases:
        assert board.chip.operations == [], "refused, and yet flash was touched"
    assert bytes(board.chip.flash[0x20000:0x1A0000]) == running
    assert board.otadata.records[0] == otadata.records[0]
    assert board.chip.open_hashes == 0


def test_after_a_refusal_the_next_good_update_works(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    new = builds("1.1.0")
    board.command("ota", url=server.serve("/bad", server.whole(package_for(board, new, version="9.9.9"))))
    assert board.command("ota", url=server.serve("/good", server.whole(package_for(board, new))))["ok"]
    assert board.boot()["version"] == "1.1.0"


def test_a_slot_that_was_not_erased_is_noticed_after_one_sector(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    slot, new = other_slot(board), builds("1.1.0")
    board.chip.put(slot.offset, bytes(SECTOR))
    board.chip.operations.clear()
    done = board.command("ota", url=server.serve("/p", server.whole(package_for(board, new))), noerase=1)
    assert done["err"] == "not-erased"
    assert board.chip.operations == [("write", slot.offset, SECTOR)]


def test_no_update_before_the_running_version_is_confirmed(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    assert board.command("ota", url=server.serve("/p", server.whole(package_for(board, builds("1.1.0")))))[
        "ok"
    ]
    board.boot()
    board.chip.operations.clear()
    older = builds("1.0.0")
    raw_done = board.command("ota", url=server.serve("/q", server.whole(package_for(board, older))))
    stock = board.command("ota-stock", url=server.serve("/s", server.whole(image_of(older))))
    assert (raw_done["err"], stock["err"], stock["code"]) == ("pending-verify", "pending-verify", 0x1506)
    assert board.logged("Running app has not confirmed state (ESP_OTA_IMG_PENDING_VERIFY)")
    assert board.chip.operations == []


def test_ciphertext_through_the_stock_handler_is_refused_by_esp_idf_s_own_message(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    body = body_for(board, image_of(builds("1.1.0")))
    done = board.command("ota-stock", url=server.serve("/s", server.whole(body)))
    assert (done["err"], done["code"]) == ("image-invalid", 0x1503)
    assert board.logged(f"OTA image has invalid magic byte (expected 0xE9, saw 0x{body[0]:02x})")


def test_a_second_update_is_refused_while_one_is_under_way(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    package = package_for(board, builds("1.1.0"))
    url = server.serve("/p", server.dripping(package, 30_000))
    first = board.send("ota", url=url, resumes=0)
    board.wait_event("ota", phase="first-sector")
    assert board.command("ota", url=url)["err"] == "busy"
    assert board.command("ota-stock", url=url)["err"] == "busy"
    assert board.command("repair")["err"] == "busy"
    assert board.command("status")["version"] == "1.0.0"
    server.release.set()
    assert board.wait_event("done", id=first)["err"] == "truncated"


@pytest.mark.parametrize(
    ("keys", "fragments", "arguments", "error"),
    [
        ((), TEST_FRAGMENTS, {}, "no-signature-key"),
        (None, ("profile.release",), {"bare": 1}, "bare-not-allowed"),
        (None, ("profile.release",), {"noerase": 1}, "bad-argument"),
    ],
    ids=["no key compiled in", "bare not allowed", "no test hooks"],
)
def test_what_a_build_does_not_allow_it_refuses(
    make_board: Callable[..., FakeBoard],
    builds: Builds,
    server: FakeServer,
    keys: tuple[bytes, ...] | None,
    fragments: tuple[str, ...],
    arguments: dict[str, Any],
    error: str,
) -> None:
    used = keys if keys is not None else (public_point(SIGNING_KEY),)
    board = make_board(builds("1.0.0", keys=used, fragments=fragments))
    board.boot()
    url = server.serve("/p", server.whole(package_for(board, builds("1.1.0"))))
    board.chip.operations.clear()
    assert board.command("ota", url=url, **arguments)["err"] == error
    assert board.chip.operations == []


def test_a_secure_version_below_the_running_one_is_refused(
    make_board: Callable[..., FakeBoard], builds: Builds, server: FakeServer
) -> None:
    board = make_board(builds("1.0.0", secure_version=3))
    board.boot()
    old = builds("1.1.0", secure_version=2)
    done = board.command("ota", url=server.serve("/p", server.whole(package_for(board, old))))
    assert done["err"] == "secure-version-too-old"
    body = body_for(board, image_of(old))
    assert (
        board.command("ota", url=server.serve("/b", server.whole(body)), bare=1)["err"]
        == "secure-version-too-old"
    )


FLASH_FAULTS = (
    ("the erase", ERASE, 0),
    ("the first raw write", WRITE_RAW, 0),
    ("a later raw write", WRITE_RAW, 5),
    ("reading back", READ_RAW, 10),
    ("the encrypted write of otadata", WRITE_ENCRYPTED, 0),
)


@pytest.mark.parametrize(("what", "operation", "passes"), FLASH_FAULTS, ids=[row[0] for row in FLASH_FAULTS])
def test_a_flash_fault_ends_the_update_with_its_code_and_the_old_slot_boots(
    board: FakeBoard, builds: Builds, server: FakeServer, what: str, operation: int, passes: int
) -> None:
    board.chip.failures[operation] = (passes, 0x6001)
    url = server.serve("/p", server.whole(package_for(board, builds("1.1.0"))))
    done = board.command("ota", url=url)
    assert (done["err"], done["code"]) == ("flash", 0x6001), done
    board.chip.failures.clear()
    boot = board.boot()
    assert (boot["slot"], boot["state"]) == ("ota_0", "valid")
    assert board.command("ota", url=url)["ok"], "an OTA handle or the lock was left behind"


def test_no_ota_handle_is_left_behind_however_often_an_update_fails(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    """ESP-IDF's port has room for eight."""
    bad = server.serve("/bad", server.whole(package_for(board, builds("1.1.0"), version="9.9.9")))
    assert [board.command("ota", url=bad)["err"] for _ in range(12)] == ["wrong-description"] * 12


def test_an_image_that_esp_idf_refuses_is_not_selected(
    make_board: Callable[..., FakeBoard], board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    image = image_of(builds("1.1.0"))
    broken = image[:-33] + bytes([image[-33] ^ 0xFF]) + image[-32:]
    body = body_for(board, broken)
    package = package_for(board, builds("1.1.0"), body=body, image_sha256=hashlib.sha256(broken).digest())
    done = board.command("ota", url=server.serve("/p", server.whole(package)))
    assert (done["err"], done["code"]) == ("image-invalid", 0x1503)
    assert any(line.startswith("E (") and "esp_image: Checksum failed" in line for line in board.lines)
    assert board.otadata.records[0].state == OtaState.VALID


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

TRANSPORT: tuple[tuple[str, Callable[[FakeServer, bytes], Any], str], ...] = (
    ("status 404", lambda s, p: status(404), "http-status"),
    ("status 500", lambda s, p: status(500), "http-status"),
    ("206 that nobody asked for", lambda s, p: status(206), "http-status"),
    ("redirect without a place", lambda s, p: status(302), "http-status"),
    ("redirect in a circle", lambda s, p: status(302, "/p"), "http-status"),
    ("redirect to another scheme", lambda s, p: status(302, "https://127.0.0.1/p"), "http-connect"),
    ("closed before an answer", lambda s, p: raw(b""), "http-read"),
    ("not HTTP", lambda s, p: raw(b"SSH-2.0-OpenSSH\r\n"), "http-read"),
    ("closed in the middle", lambda s, p: s.breaking(p, 30_000, times=9), "truncated"),
    ("closed in the middle, no ranges", lambda s, p: s.breaking(p, 30_000, times=9, ranges=False), "truncated"),
    ("reset in the middle", lambda s, p: s.breaking(p, 30_000, times=9, reset=True), "http-read"),
    ("stalled in the middle", lambda s, p: s.breaking(p, 30_000, times=9, stall=True), "http-timeout"),
    ("stalled before the answer", lambda s, p: lambda c, h: s.release.wait(60), "http-timeout"),
    ("chunks end in the middle", lambda s, p: raw(CHUNKED + b"ffff\r\n" + p[:30_000]), "truncated"),
    ("fewer chunks than the package has", lambda s, p: chunked(p[:30_000]), "truncated"),
    ("Content-Length too small", lambda s, p: s.whole(p, delta=-4096), "truncated"),
    ("Content-Length too large", lambda s, p: s.whole(p, delta=4096), "wrong-size"),
    ("two Content-Lengths", lambda s, p: raw(OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n"), "http-read"),
)  # fmt: skip


@pytest.mark.parametrize(("name", "answer", "error"), TRANSPORT, ids=[row[0] for row in TRANSPORT])
def test_each_transport_fault_has_its_own_error(
    board: FakeBoard,
    builds: Builds,
    server: FakeServer,
    name: str,
    answer: Callable[[FakeServer, bytes], Any],
    error: str,
) -> None:
    package = package_for(board, builds("1.1.0"))
    done = board.command("ota", url=server.serve("/p", answer(server, package)))
    assert done["err"] == error, done
    assert len(server.requests) <= 6, "retries are bounded"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/x",
        "https://127.0.0.1/x",
        "ftp://x/y",
        "nonsense",
        "http://:80/",
        "http://h:0/",
        "http:///x",
    ],
)
def test_a_url_that_leads_nowhere_is_a_failed_connection(board: FakeBoard, url: str) -> None:
    assert board.command("ota", url=url)["err"] == "http-connect"
