"""Where the fuzzers begin: real packages, answers and command lines, made by the harness' own formats.

The board that they are for is the memory chip of ``firmware/fuzz/memory_chip.h``; its toy cipher and toy signature are
written down again here, so that header and image are made by other code than what takes them apart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace

from harness.chips import chip_named
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.formats.ota_package import PackageHeader
from tests.fuzz_c.targets import CHIP, PROJECT

TABLE = 0x10000
SLOT_BYTES = 0x4000
OTA_0 = TABLE + 0x1000 + 0x2000
OTA_1 = OTA_0 + SLOT_BYTES
MAC = bytes.fromhex("7cdfa1000001")
KEYS = (b"\x04\x01".ljust(65, b"\0"), b"\x04\x02".ljust(65, b"\0"))
PIECE_BYTES = 528
"""Of an update over the UART: what one line of the default length takes."""

ALL_REPAIRS = 0xFF
UNKNOWN_SIZE = 1 << 2
BARE = 1 << 0
NO_CUT = 0xFFFFFFFF


def _pad(at: int, key: int = 0) -> int:
    word = ((key ^ 0x5EED5EED) + at // 4) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        word ^= word >> shift
        word = word * factor & 0xFFFFFFFF
    return word >> 8 * (at % 4) & 0xFF


def enciphered(data: bytes, address: int = OTA_1) -> bytes:
    """What flash holds for `data`."""
    return bytes(byte ^ _pad(address + at) for at, byte in enumerate(data))


def image(version: str = "2.0.0", payload: bytes = b"code" * 8, project: str = PROJECT) -> bytes:
    """A small application image."""
    chip = chip_named(CHIP)
    description = AppDescription(version=version, project_name=project, time="", date="", idf_ver="v5.5.5")
    segment = Segment(chip.drom_base + 0x20, description.to_bytes() + payload)
    return build_app_image(chip, [segment], entry_point=0x403CBF1A)


def header_of(plain: bytes, version: str = "2.0.0") -> PackageHeader:
    """The right header of an image for the other slot."""
    body = enciphered(plain + b"\xff" * (-len(plain) % 16))
    chip = chip_named(CHIP)
    return PackageHeader(
        chip_id=chip.chip_id,
        cipher_number=chip.cipher.number,
        mac=MAC,
        key_id=b"12345678",
        slot_offset=OTA_1,
        slot_size=SLOT_BYTES,
        image_size=len(plain),
        body_size=len(body),
        body_sha256=hashlib.sha256(body).digest(),
        image_sha256=hashlib.sha256(plain).digest(),
        version=version,
        secure_version=0,
        project_name=PROJECT,
    )


def signed(header: PackageHeader, key: bytes = KEYS[0]) -> bytes:
    """The 256 bytes with a toy signature."""
    half = hashlib.sha256(key + hashlib.sha256(header.signed_part()).digest()).digest()
    return header.to_bytes(half + half)


def package(plain: bytes) -> bytes:
    """A whole package, as a server serves it."""
    return signed(header_of(plain)) + enciphered(plain + b"\xff" * (-len(plain) % 16))


# One input each


def package_input(header: bytes, *, transfer: int = NO_CUT, answer: int = 0, repairs: int = 0) -> bytes:
    """An input of the target `package`."""
    return struct.pack("<IBB", transfer, answer, repairs) + header


def handler_input(
    content: bytes,
    *,
    flags: int = 0,
    repairs: int = 0,
    body: int = 0,
    records: tuple[int, int, int] = (0x01, 0x01, 0x00),
    old_slot: int = 0,
    answers: tuple[int, int] = (0, 0),
    failing: tuple[int, int, int] = (0, 0, 0),
    pieces: int = 0,
    ends: int = 0,
    cut_at: int = NO_CUT,
    number: int = 0,
) -> bytes:
    """An input of the target `handler`; the default is an update that succeeds."""
    head = bytes([flags, repairs, body, *records, old_slot, *answers, *failing])
    return head + struct.pack("<HBBII", pieces, ends, 0, cut_at, number) + content


def http_input(*steps: bytes, control: bytes = b"\x00\x01\x01\x00\x00\x00\x00\x00") -> bytes:
    """An input of the target `http`."""
    return control + b"".join(steps)


def said(data: bytes) -> bytes:
    """A step: so much of an answer."""
    pieces = [data[at : at + 4000] for at in range(0, len(data), 4000)]
    return b"".join(struct.pack("<BH", 4, len(piece)) + piece for piece in pieces)


CLOSED, BROKEN, SILENT, REFUSED = b"\x00", b"\x01", b"\x02", b"\x03"


def answer(status: str, body: bytes = b"", **headers: object) -> bytes:
    """An HTTP answer; underscores in names of headers are hyphens."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def line(text: str) -> bytes:
    """A command line with its CRC."""
    return f"{text} crc={binascii.crc32(text.encode()):08x}\n".encode()


def uart_update(content: bytes, identifier: int = 7) -> bytes:
    """An update over the UART, question after question as the device would ask."""
    lines = [line(f"ota-uart id={identifier} size={len(content)}")]
    for at in _piece_starts(len(content)):
        piece = content[at : min(at + PIECE_BYTES, _window_end(at, len(content)))]
        text = base64.b64encode(piece).decode()
        lines.append(line(f"data id={identifier} at={at} b64={text}"))
    return b"".join(lines)


def _window_end(at: int, size: int) -> int:
    """The header is asked for alone, then the first sector, then sector by sector."""
    start = 0 if at < 256 else 256 + (at - 256) // 4096 * 4096
    return min(256 if at < 256 else start + 4096, size)


def _piece_starts(size: int) -> list[int]:
    starts, at = [], 0
    while at < size:
        starts.append(at)
        at = min(at + PIECE_BYTES, _window_end(at, size))
    return starts


def _package_seeds() -> dict[str, bytes]:
    plain = image()
    right = signed(header_of(plain))
    other = replace(header_of(plain), image_size=0xFFFFFFF0, body_size=0xFFFFFFF0)
    return {
        "right": package_input(right, transfer=256 + len(plain)),
        "right-of-second-key": package_input(signed(header_of(plain), KEYS[1])),
        "huge": package_input(signed(other)),
        "repaired": package_input(bytes(256) + plain, repairs=ALL_REPAIRS),
        "no-memory": package_input(right, answer=3),
        "answered-good": package_input(right[:192] + bytes(64), answer=1),
    }


def _handler_seeds() -> dict[str, bytes]:
    plain = image()
    right = signed(header_of(plain)) + plain
    large = image(payload=bytes(range(256)) * 44)
    seeds = {
        "right": handler_input(right),
        "right-in-pieces": handler_input(signed(header_of(large)) + large, pieces=77),
        "repaired": handler_input(bytes(256) + plain, repairs=ALL_REPAIRS),
        "repaired-large": handler_input(bytes(256) + large, repairs=ALL_REPAIRS, flags=UNKNOWN_SIZE),
        "bare": handler_input(plain, flags=BARE, repairs=ALL_REPAIRS & ~0x0D),
        "other-key": handler_input(right, body=1, repairs=0xC0),
        "other-slot": handler_input(right, body=2, repairs=0xC0),
        "plaintext": handler_input(right, body=3, repairs=0xC0),
        "not-erased": handler_input(right, flags=1 << 1, old_slot=1),
        "pending": handler_input(right, records=(0x01, 0x01, 0x02)),
        "fallen-back": handler_input(right, records=(0x11, 0x21, 0x00), old_slot=1),
        "damaged-otadata": handler_input(right, records=(0x23, 0x21, 0x00)),
        "last-sequences": handler_input(right, records=(0x11, 0xDE, 0x00)),
        "last-sequence": handler_input(right, records=(0x01, 0x0F, 0x00)),
        "cut": handler_input(right, cut_at=300),
        "breaks": handler_input(right, cut_at=300, ends=2),
    }
    for number in range(1, 15):
        seeds[f"fails-{number}"] = handler_input(right, failing=(number, 0, 0), records=(0x11, 0x21, 0x00))
    return seeds


def _http_seeds() -> dict[str, bytes]:
    whole = package(image())
    half = len(whole) // 2
    ok = answer("200 OK", whole, Content_Length=len(whole))
    first = answer("200 OK", whole[:half], Content_Length=len(whole))
    rest = answer(
        "206 Partial Content",
        whole[half:],
        Content_Length=len(whole) - half,
        Content_Range=f"bytes {half}-{len(whole) - 1}/{len(whole)}",
    )
    chunks = (
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (whole[:100], whole[100:])) + b"0\r\n\r\n"
    )
    moved = answer("302 Found", b"moved", Location="http://elsewhere:8080/x?y=1", Content_Length=5)
    return {
        "right": http_input(said(ok), CLOSED),
        "in-pieces": http_input(said(ok[:20]), SILENT, said(ok[20:300]), said(ok[300:]), CLOSED),
        "resumed": http_input(said(first), BROKEN, said(rest), CLOSED),
        "resumed-with-other": http_input(said(first), BROKEN, said(ok), CLOSED),
        "redirected": http_input(said(moved), CLOSED, said(ok), CLOSED),
        "chunked": http_input(said(answer("200 OK", chunks, Transfer_Encoding="chunked")), CLOSED),
        "to-the-end": http_input(said(answer("200 OK", whole)), CLOSED),
        "not-found": http_input(said(answer("404 Not Found", Content_Length=0)), CLOSED),
        "refused": http_input(REFUSED),
        "stock": http_input(
            said(answer("200 OK", image(), Content_Length=len(image()))), CLOSED, control=b"\x01" * 8
        ),
    }


def _command_line_seeds() -> dict[str, bytes]:
    head = bytes([0x01, 0x01, 0x00, 0, 0, 0, 0, 0])
    commands = (
        "status id=1",
        "otadata id=2",
        "hash id=3 slot=ota_0 len=100",
        "confirm id=4",
        "repair id=5",
        "rollback id=6",
        "reboot id=7",
        "net id=8",
        "wifi id=9 ssid=a%20b password=c",
        "probe id=10 url=http://h/",
        "ota id=11 url=http://h:1/p resumes=2 size=0x10",
        "ota-stock id=12 url=http://h/",
        "otadata-raw id=13 kind=erase",
        "otadata-raw id=14 kind=plaintext slot=ota_1",
        "lock id=15 mode=release",
        "ota-uart id=16 size=300 bare=1 noerase=1 reboot=1",
    )
    plain = image()
    update = uart_update(package(plain))
    return {
        "commands": head + b"".join(map(line, commands)),
        "without-crc": head + "\n".join(commands).encode() + b"\n",
        "update": head + update,
        "update-disordered": head + b"".join(sorted(update.splitlines(keepends=True), reverse=True)),
        "update-given-up": head + update[:400] + b"\n" + line("data id=7 end=1"),
        "noise": head + b"\x00\xff\r\n\r\n%zz\n" + b"x" * 800 + b"\nstatus id=1 crc=00000000\nstatus id=-1\n",
        "repeated": head + line("status id=5") * 2,
        "at-once": head + line("ota id=1 url=http://h/") + line("hash id=2 slot=ota_1") + line("repair id=3"),
        **{f"command-{number}": head + line(text) for number, text in enumerate(commands, start=1)},
    }


SEEDS: Mapping[str, Callable[[], dict[str, bytes]]] = {
    "package": _package_seeds,
    "handler": _handler_seeds,
    "http": _http_seeds,
    "command_line": _command_line_seeds,
}
"""Inputs by target and name."""
