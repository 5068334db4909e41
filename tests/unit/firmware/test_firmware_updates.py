"""Updates that succeed, and what they do to flash and otadata on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from fake_board import FakeBoard
from fake_chip import SECTOR
from fake_server import FakeServer, chunked, raw, status
from firmware_builds import OTHER_KEY, SIGNING_KEY, TEST_FRAGMENTS, Builds, public_point
from sample_packages import body_for, image_of, other_slot, package_for

from harness.chips import chip_named
from harness.formats.otadata import OtaData, OtaRecord, OtaState


def phases(board: FakeBoard) -> list[str]:
    return [event["phase"] for event in board.events if event["ev"] == "ota"]


@pytest.mark.parametrize(
    ("chip", "encrypted"),
    [("esp32", True), ("esp32c3", True), ("esp32c3", False)],
    ids=["esp32", "esp32c3", "esp32c3 without encryption"],
)
def test_a_package_is_written_verified_and_booted(
    make_board: Callable[..., FakeBoard], builds: Builds, server: FakeServer, chip: str, encrypted: bool
) -> None:
    fragments = ("profile.release" if encrypted else "profile.open", *TEST_FRAGMENTS[1:])
    old = builds("1.0.0", chip=chip_named(chip), fragments=fragments)
    new = builds("1.1.0", chip=chip_named(chip), fragments=fragments)
    board = make_board(old, encrypted=encrypted)
    boot = board.boot()
    assert (boot["slot"], boot["version"], boot["state"], boot["next"]) == (
        "ota_0",
        "1.0.0",
        "valid",
        "ota_1",
    )
    package = package_for(board, new)
    done = board.command("ota", url=server.serve("/p", server.whole(package)))
    assert done["ok"], done
    assert (done["slot"], done["version"], done["bytes"]) == ("ota_1", "1.1.0", len(package) - 256)
    assert done["sha256"] == hashlib.sha256(package[256:]).hexdigest()
    assert board.chip.open_hashes == 0

    boot = board.boot()
    assert (boot["slot"], boot["offset"], boot["version"]) == ("ota_1", 0x1A0000, "1.1.0")
    assert (boot["state"], boot["agree"]) == ("pending", True)
    assert board.command("confirm")["state"] == "valid"
    again = board.command("ota", url=server.serve("/q", server.whole(package_for(board, old))))
    assert again["ok"], again
    assert (board.boot()["slot"], board.otadata.records[0].seq) == ("ota_0", 3)


def test_flash_operations_come_in_the_order_of_esp_idf(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    image = image_of(builds("1.1.0"))
    board.chip.operations.clear()
    assert board.command("ota", url=server.serve("/p", server.whole(package_for(board, builds("1.1.0")))))[
        "ok"
    ]
    slot, size = other_slot(board), len(image)
    whole = -(-size // SECTOR) * SECTOR
    writes = [("write", slot.offset + at, min(SECTOR, size - at)) for at in range(0, size, SECTOR)]
    otadata = board.table.otadata
    assert otadata is not None
    assert board.chip.operations == [
        ("erase", slot.offset, whole),
        *writes,
        ("erase", otadata.offset + SECTOR, SECTOR),
        ("write-encrypted", otadata.offset + SECTOR, 32),
    ]
    assert [p for p in phases(board) if p != "write"] == [
        "header",
        "begin",
        "erase",
        "erased",
        "first-sector",
        "verify",
        "switch",
    ]


def test_progress_is_told_at_most_every_64_kib(board: FakeBoard, builds: Builds, server: FakeServer) -> None:
    board.command("ota", url=server.serve("/p", server.whole(package_for(board, builds("1.1.0")))))
    told = [event["bytes"] for event in board.events if event.get("phase") == "write"]
    total = len(image_of(builds("1.1.0")))
    assert told[-1] == total
    assert all(b - a >= 65536 for a, b in zip([0, *told], told[:-1], strict=False))


def test_an_unconfirmed_version_is_gone_after_the_next_reset(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    assert board.command("ota", url=server.serve("/p", server.whole(package_for(board, builds("1.1.0")))))[
        "ok"
    ]
    assert board.boot()["state"] == "pending"
    assert board.boot()["version"] == "1.0.0"


def test_a_version_that_rejects_itself_is_left_at_once(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    board.command("ota", url=server.serve("/p", server.whole(package_for(board, builds("1.1.0")))))
    board.boot()
    assert board.command("rollback")["ok"]
    assert board.wait_restart() == 0
    assert board.otadata.records[1].state == OtaState.INVALID
    assert board.boot(0xC)["slot"] == "ota_0"


def test_ota_with_reboot_restarts_after_its_answer(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    url = server.serve("/p", server.whole(package_for(board, builds("1.1.0"))))
    assert board.command("ota", url=url, reboot=1)["ok"]
    assert board.wait_restart() == 0


def test_no_restart_after_a_refused_update(board: FakeBoard, server: FakeServer) -> None:
    assert board.command("ota", url=server.serve("/p", status(404)), reboot=1)["err"] == "http-status"
    assert board.command("status")["version"] == "1.0.0"


@pytest.mark.parametrize("with_size", [False, True], ids=["length of the transfer", "size="])
def test_a_bare_ciphertext_is_taken_when_the_build_allows_it(
    board: FakeBoard, builds: Builds, server: FakeServer, with_size: bool
) -> None:
    body = body_for(board, image_of(builds("1.1.0")))
    url = server.serve("/b", chunked(body) if with_size else server.whole(body))
    done = board.command("ota", url=url, bare=1, **({"size": len(body)} if with_size else {}))
    assert done["ok"], done
    assert board.boot()["version"] == "1.1.0"


def test_plaintext_through_the_stock_handler_works(
    board: FakeBoard, builds: Builds, server: FakeServer
) -> None:
    done = board.command("ota-stock", url=server.serve("/s", server.whole(image_of(builds("1.1.0")))))
    assert done["ok"], done
    assert board.boot()["version"] == "1.1.0"
    assert board.command("confirm")["ok"]


@pytest.mark.parametrize("active", [0, 1], ids=["active record 0", "active record 1"])
def test_an_update_after_a_fall_back_boot_mends_otadata_first_and_keeps_rollback(
    make_board: Callable[..., FakeBoard], builds: Builds, server: FakeServer, active: int
) -> None:
    """otadata names ota_1, whose image is damaged; ota_0 runs."""
    board = make_board()
    records = [OtaRecord.make(1, OtaState.VALID), OtaRecord.make(2, OtaState.VALID)]
    board.write_otadata(
        OtaData((records[1 - active], records[active]) if active else (records[1], records[0]))
    )
    assert board.otadata.select(2).record_index == active
    boot = board.boot()
    assert (boot["slot"], boot["otadata_slot"], boot["agree"]) == ("ota_0", "ota_1", False)
    assert board.logged("otadata names ota_1, but ota_0 runs")

    done = board.command("ota", url=server.serve("/p", server.whole(package_for(board, builds("1.1.0")))))
    assert (done["ok"], done["repaired"]) == (True, True), done
    seqs = {record.seq for record in board.otadata.records if record.crc_ok}
    assert len(seqs) == 2
    boot = board.boot()
    assert (boot["slot"], boot["state"]) == ("ota_1", "pending")
    assert board.boot()["slot"] == "ota_0"


@pytest.mark.parametrize("kind", ["erase", "plaintext"])
def test_damaged_otadata_is_reported_at_boot_and_mended_on_command(board: FakeBoard, kind: str) -> None:
    assert board.command("otadata-raw", kind=kind)["ok"]
    boot = board.boot()
    assert (boot["otadata_slot"], boot["agree"], boot["state"]) == ("none", False, "undefined")
    done = board.command("repair")
    assert (done["ok"], done["repaired"], done["agree"], done["state"]) == (True, True, True, "valid")
    assert board.command("repair")["repaired"] is False
    assert board.boot()["agree"] is True


def test_confirm_refuses_when_otadata_names_another_slot(board: FakeBoard) -> None:
    board.write_otadata(OtaData.for_slot(1, 2, OtaState.VALID))
    before = board.otadata
    assert board.command("confirm")["err"] == "wrong-slot"
    assert board.otadata == before


@pytest.mark.parametrize(
    ("first", "resumed"),
    [("reset", 1), ("close", 1), ("stall", 1)],
)
def test_a_transfer_that_breaks_once_is_resumed(
    board: FakeBoard, builds: Builds, server: FakeServer, first: str, resumed: int
) -> None:
    package = package_for(board, builds("1.1.0"))
    answer = server.breaking(package, 30_000, times=1, reset=first == "reset", stall=first == "stall")
    done = board.command("ota", url=server.serve("/p", answer))
    assert (done["ok"], done["resumes"]) == (True, resumed), done
    assert [headers.get("range") for _, headers in server.requests] == [None, "bytes=30000-"]
    assert board.boot()["version"] == "1.1.0"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_relative_and_absolute_places(
    board: FakeBoard, builds: Builds, server: FakeServer, code: int
) -> None:
    package = package_for(board, builds("1.1.0"))
    final = server.serve("/final", server.whole(package))
    server.serve("/second", status(code, final, b"x" * 1500))
    first = server.serve("/first", status(code, "/second", b"<html>moved</html>"))
    done = board.command("ota", url=first)
    assert done["ok"], done
    assert [path for path, _ in server.requests] == ["/first", "/second", "/final"]


@pytest.mark.parametrize("form", ["chunked", "no length", "one byte at a time"])
def test_how_the_bytes_arrive_does_not_matter(
    board: FakeBoard, builds: Builds, server: FakeServer, form: str
) -> None:
    package = package_for(board, builds("1.1.0"))
    answers = {
        "chunked": chunked(package),
        "no length": raw(b"HTTP/1.0 200 OK\r\n\r\n" + package),
        "one byte at a time": chunked(package[:3000], 1),
    }
    done = board.command("ota", url=server.serve("/p", answers[form]))
    assert done["ok"] if form != "one byte at a time" else done["err"] == "truncated", done


def test_two_public_keys_allow_rotation(
    make_board: Callable[..., FakeBoard], builds: Builds, server: FakeServer
) -> None:
    keys = (public_point(OTHER_KEY), public_point(SIGNING_KEY))
    board = make_board(builds("1.0.0", keys=keys))
    board.boot()
    new = builds("1.1.0")
    for key, number in ((OTHER_KEY, 1), (SIGNING_KEY, 2)):
        url = server.serve(f"/{number}", server.whole(package_for(board, new, key=key)))
        assert board.command("ota", url=url)["ok"]
        assert board.logged(f"package signature is valid (key {number})")
