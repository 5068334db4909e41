"""The UART protocol: lines in, events out, and what a damaged or repeated line does."""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Callable

import pytest
from fake_board import FakeBoard
from fake_chip import EFUSE
from fake_server import FakeServer, status
from firmware_builds import Builds
from sample_packages import image_of

from harness.chips import chip_named

STARTUP = (
    "cpu_start: Unicore app",
    "cpu_start: GPIO 20 and 21 are used as console UART I/O pins",
    "cpu_start: Pro cpu start user code",
    "cpu_start: cpu freq: 160000000 Hz",
    "app_init: Application information:",
    "app_init: Project name:     companion",
    "app_init: App version:      1.0.0",
    "app_init: Compile time:     ",
    "app_init: ELF file SHA256:  ",
    "app_init: ESP-IDF:          v5.5.5",
    "efuse_init: Min chip rev:     v0.3",
    "efuse_init: Max chip rev:     v1.99 ",
    "efuse_init: Chip rev:         v0.3",
    "heap_init: Initializing. RAM available for dynamic allocation:",
    "spi_flash: detected chip: gd",
    "spi_flash: flash io: dio",
    "flash_encrypt: Flash encryption mode is RELEASE",
    "main_task: Started on CPU0",
    "main_task: Calling app_main()",
)


def test_the_start_up_lines_are_those_of_esp_idf_in_their_order(board: FakeBoard) -> None:
    at = 0
    for wanted in STARTUP:
        at = next((i for i, line in enumerate(board.lines) if i >= at and f") {wanted}" in line), -1)
        assert at >= 0, f"no line '{wanted}' after the one before it"


def test_the_elf_hash_of_the_log_is_that_of_the_program_in_the_image(
    board: FakeBoard, builds: Builds
) -> None:
    image = image_of(builds("1.0.0"))
    assert board.logged(f"ELF file SHA256:  {image[0x20 + 144 : 0x20 + 149].hex()[:9]}...")


def test_the_boot_event_says_who_and_what(make_board: Callable[..., FakeBoard], builds: Builds) -> None:
    boot = make_board(builds("1.0.0", chip=chip_named("esp32"))).boot()
    expected = {
        "n": 0, "proto": 1, "project": "companion", "version": "1.0.0", "idf": "v5.5.5", "chip": "esp32",
        "mac": "7c:df:a1:00:00:01", "slot": "ota_0", "offset": 0x20000, "state": "valid", "otadata_slot": "ota_0",
        "agree": True, "next": "ota_1", "next_offset": 0x1A0000, "fe": "release", "sb": False, "release_ok": False,
        "secure_version": 0, "reset": "poweron",
    }  # fmt: skip
    assert {key: boot[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("reason", "hint", "name"),
    [
        (0x1, 0, "poweron"),
        (0xC, 0, "sw"),
        (0xC, 1, "panic"),
        (0xC, 2, "wdt"),
        (0x7, 0, "wdt"),
        (0xF, 0, "other"),
    ],
)
def test_the_boot_event_tells_the_reset(board: FakeBoard, reason: int, hint: int, name: str) -> None:
    assert board.boot(reason, hint)["reset"] == name


def test_events_are_numbered_without_gaps(board: FakeBoard) -> None:
    for _ in range(3):
        board.command("status")
    assert [event["n"] for event in board.events] == list(range(len(board.events)))


def test_a_repeated_id_gets_the_same_answer_and_is_not_carried_out_again(
    board: FakeBoard, server: FakeServer
) -> None:
    url = server.serve("/x", status(404))
    first = board.command("ota", identifier=7, url=url)
    board.send("ota", identifier=7, url=url)
    again = board.wait_event("done", id=7)
    assert {k: v for k, v in again.items() if k not in ("n", "crc")} == {
        k: v for k, v in first.items() if k not in ("n", "crc")
    }
    assert len(server.requests) == 1


def test_a_repeated_id_while_the_command_runs_gets_only_the_acknowledgement(
    board: FakeBoard, server: FakeServer
) -> None:
    url = server.serve("/x", lambda connection, headers: server.release.wait(60))
    board.send("probe", identifier=8, url=url)
    board.wait_event("ack", id=8)
    board.send("probe", identifier=8, url=url)
    board.wait_event("ack", id=8)
    assert len(server.requests) <= 1
    server.release.set()
    assert board.wait_event("done", id=8)["err"] == "http-read"


def test_a_line_with_a_wrong_crc_is_refused_and_can_be_sent_again(board: FakeBoard) -> None:
    board.write(b"status id=9 crc=00000000\n")
    ack = board.wait_event("ack", id=9)
    assert (ack["ok"], ack["err"]) == (False, "bad-crc")
    assert board.command("status", identifier=9)["ok"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"dance id=20", "unknown-command"),
        (b"status id=abc", "bad-argument"),
        (b"status id=99999999999", "bad-argument"),
        (b"status id=21 word", "bad-argument"),
        (b"status id=22 =x", "bad-argument"),
        (b"status id=23 a=%zz", "bad-argument"),
        (b"status id=24 a=%00", "bad-argument"),
        (b"status id=25 a=1 a=2", "bad-argument"),
        (b"status id=26 " + b" ".join(b"k%d=1" % i for i in range(13)), "bad-argument"),
        (b"status id=27 crc=1234", "bad-crc"),
        (b"status id=28 crc=zzzzzzzz", "bad-crc"),
    ],
)
def test_a_line_that_cannot_be_carried_out_is_refused_by_name(
    board: FakeBoard, line: bytes, error: str
) -> None:
    board.write(line + b"\n")
    assert board.wait_event("ack")["err"] == error


@pytest.mark.parametrize(
    "noise",
    [
        b"\n\r\n\n",
        b"\xff\xfe\x00garbage\n",
        b"@evt {}\n",
        b"x" * 5000 + b"\n",
        b"I (12) boot: text\n",
        b"%n%s%n\n",
    ],
    ids=["empty lines", "binary", "an event", "far too long", "a log line", "format characters"],
)
def test_noise_is_not_answered_and_does_not_hurt(board: FakeBoard, noise: bytes) -> None:
    before = len(board.events)
    board.write(noise)
    assert board.command("status")["ok"]
    assert len(board.events) == before + 2


def test_several_lines_in_one_write_are_all_answered(board: FakeBoard) -> None:
    board.write(b"status id=41\nnet id=42\r\notadata id=43\n")
    assert board.wait_event("done", id=43)["active"] == 0
    assert [e["id"] for e in board.events if e["ev"] == "done"] == [41, 42, 43]


def test_values_are_percent_decoded(board: FakeBoard, server: FakeServer) -> None:
    server.serve("/a%20b?c=d", status(404))
    url = f"http://127.0.0.1:{server.port}/a%2520b?c%3Dd"
    assert board.command("probe", url=url)["http_status"] == 404


def test_texts_in_events_are_escaped(board: FakeBoard) -> None:
    board.write(b"status id=51 crc=00000000\n")
    board.wait_event("ack", id=51)
    text = "hash id=52 slot=%22%5c%c3%a9"
    board.write(f"{text} crc={binascii.crc32(text.encode()):08x}\n".encode())
    assert board.wait_event("done", id=52)["err"] == "bad-argument"


def test_otadata_is_shown_as_the_bootloader_sees_it(board: FakeBoard) -> None:
    done = board.command("otadata")
    assert done["record0"] == board.otadata.records[0].to_bytes().hex()
    assert done["record1"] == board.otadata.records[1].to_bytes().hex()
    assert (done["active"], done["otadata_slot"]) == (0, "ota_0")


@pytest.mark.parametrize("length", [None, 0, 5000])
def test_hash_is_over_the_raw_bytes_of_the_slot(board: FakeBoard, length: int | None) -> None:
    done = board.command("hash", slot="ota_0", **({} if length is None else {"len": length}))
    size = 0x180000 if length is None else length
    raw = bytes(board.chip.flash[0x20000 : 0x20000 + size])
    assert (done["len"], done["sha256"]) == (size, hashlib.sha256(raw).hexdigest())


@pytest.mark.parametrize(
    "arguments", [{}, {"slot": "ota_7"}, {"slot": "ota_0", "len": "x"}, {"slot": "ota_0", "len": 1 << 30}]
)
def test_hash_of_what_is_not_there_is_refused(board: FakeBoard, arguments: dict[str, object]) -> None:
    assert board.command("hash", **arguments)["err"] == "bad-argument"


def test_reboot_answers_and_then_restarts(board: FakeBoard) -> None:
    assert board.command("reboot")["ok"]
    assert board.wait_restart() == 0


@pytest.mark.parametrize(
    ("kind", "reason", "text"),
    [
        ("abort", 1, "abort() was called at PC 0x"),
        ("null", 1, "Guru Meditation Error: Core  0 panic'ed (Store access fault)"),
        ("wdt", 2, "Task watchdog got triggered."),
    ],
)
def test_a_crash_looks_and_ends_like_one_on_the_chip(
    make_board: Callable[..., FakeBoard], builds: Builds, tmp_path: object, kind: str, reason: int, text: str
) -> None:
    board = make_board()
    board.boot()
    assert board.command("crash", kind=kind)["ok"]
    assert board.wait_restart() == reason
    assert board.logged(text)
    assert board.logged("Rebooting...")


@pytest.mark.parametrize(
    ("mode", "ok"), [("download-off", True), ("secure-download", True), ("everything", False)]
)
def test_the_lock_command_burns_what_it_is_told(board: FakeBoard, mode: str, ok: bool) -> None:
    asked: list[int] = []
    board.chip.on_request = asked.append
    assert board.command("lock", mode=mode)["ok"] is ok
    assert (EFUSE in asked) is ok


def test_credentials_are_never_printed(board: FakeBoard) -> None:
    done = board.command("wifi", ssid="lab", password="hunter2hunter2")
    assert (done["err"], done["code"]) == ("no-network", 0x106)
    board.write(b"wifi id=77 ssid=lab password=hunter2hunter2 crc=00000000\n")
    board.wait_event("ack", id=77)
    assert not board.logged("hunter2")


def test_an_app_that_finds_encryption_off_against_its_build_aborts_as_esp_idf_does(
    make_board: Callable[..., FakeBoard], builds: Builds
) -> None:
    board = make_board(builds("1.0.0"), encrypted=False)
    board.reset()
    assert board.wait_restart() == 1
    assert board.logged("Flash encryption eFuse bit was not enabled in bootloader")
    assert not board.events
