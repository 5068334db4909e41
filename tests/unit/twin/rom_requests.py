"""Requests to the download loop in mask ROM, right and wrong; the ROM's answers are in tests/data/twin.

``rom-answers-<chip>.json`` was recorded from the mask ROMs (ESP32 of Jul 29 2019, ESP32-C3 api1-20210207)
under Espressif's QEMU, with blank flash, a reset and one synchronisation before every conversation.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

NOISE = b"".join(hashlib.sha256(bytes((n,))).digest() for n in range(64))
PACKED = zlib.compress(bytes(range(256)) * 8, 9)


def frame(packet: bytes) -> bytes:
    return b"\xc0" + packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"


def request(
    opcode: int, data: bytes = b"", checksum: int = 0, length: int | None = None, way: int = 0
) -> bytes:
    size = len(data) if length is None else length
    return frame(struct.pack("<BBHI", way, opcode, size, checksum) + data)


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def xor(data: bytes) -> int:
    total = 0xEF
    for byte in data:
        total ^= byte
    return total


def block(opcode: int, data: bytes, sequence: int, checksum: int | None = None) -> bytes:
    head = words(len(data), sequence, 0, 0)
    return request(opcode, head + data, xor(data) if checksum is None else checksum)


SYNC = request(0x08, b"\x07\x07\x12\x20" + b"\x55" * 32)
PARAMETERS = request(0x0B, words(0, 0x400000, 0x10000, 0x1000, 0x100, 0xFFFF))
READ_MAGIC = request(0x0A, words(0x40001000))


@dataclass(frozen=True, slots=True)
class Conversation:
    """Frames sent one after the other, each after the answer to the one before."""

    name: str
    frames: tuple[bytes, ...]


def conversations(chip: str) -> tuple[Conversation, ...]:
    """The table for one chip."""
    is_c3 = chip == "esp32c3"
    tail = words(0) if is_c3 else b""
    spi_w0 = 0x60002058 if is_c3 else 0x3FF42080
    ram = 0x3FC90000 if is_c3 else 0x3FFD0000

    def begin(*values: int) -> bytes:
        return request(0x02, words(*values) + tail)

    def packed_begin(*values: int) -> bytes:
        return request(0x10, words(*values) + tail)

    def md5(address: int, size: int) -> bytes:
        return request(0x13, words(address, size, 0, 0))

    def read(address: int, size: int) -> bytes:
        return request(0x0E, words(address, size))

    table: list[tuple[str, tuple[bytes, ...]]] = [
        ("unknown first", (request(0x50), request(0x50))),
        ("wrong direction", (request(0x0A, words(0x40001000), way=1), READ_MAGIC)),
        (
            "unknown after a known one",
            (READ_MAGIC, request(0x0C), request(0x01), request(0x15), request(0xFF, b"abc"), READ_MAGIC),
        ),
        ("synchronised again", (SYNC, request(0x77))),
        ("security info", (request(0x14), READ_MAGIC, request(0x14, b"abcd"))),
        (
            "flash parameters",
            (
                request(0x0B, words(0, 1)),
                PARAMETERS,
                request(0x0B, words(0, 0x400000, 0x10000, 0x1000, 0x100, 0xFFFF), length=3),
            ),
        ),
        (
            "flash begin",
            (
                request(0x02, words(0x1000, 4, 0x400)),
                request(0x02, words(0x1000, 4, 0x400, 0x10000)),
                request(0x02, words(0x1000, 4, 0x400, 0x10000, 0)),
                begin(0x1000, 4, 0x4000, 0x10000),
                begin(0x1000, 4, 0x400, 0x10004),
                begin(0x1000, 4, 0x400, 0x1FF000),
                begin(0x1000, 4, 0x400, 0x200000),
                PARAMETERS,
                begin(0x1000, 4, 0x400, 0x200000),
                begin(0x1000, 4, 0x400, 0x400000),
                begin(0, 0, 0x400, 0x3FF000),
                begin(0x1001, 0, 0x400, 0x3FE000),
                begin(0x1001, 0, 0x400, 0x3FF000),
            ),
        ),
        (
            "write",
            (
                PARAMETERS,
                begin(0x800, 2, 0x400, 0x10000),
                block(0x03, NOISE[:0x400], 0),
                block(0x03, NOISE[:0x400], 0),
                block(0x03, NOISE[0x400:0x800], 1, checksum=1),
                block(0x03, NOISE[0x400:0x800], 1),
                block(0x03, NOISE[0x400:0x800], 2),
                block(0x03, NOISE[0x400:0x7FF], 3),
                block(0x03, NOISE[:0x404], 3),
                md5(0x10000, 0x800),
                read(0x10000, 64),
                read(0x10400, 16),
                read(0x10000, 65),
                READ_MAGIC,
            ),
        ),
        (
            "overwrite",
            (
                PARAMETERS,
                begin(0x1000, 4, 0x400, 0x20000),
                block(0x03, NOISE[:0x400], 0),
                begin(0, 4, 0x400, 0x20000),
                block(0x03, NOISE[0x400:0x800], 0),
                md5(0x20000, 0x400),
            ),
        ),
        (
            "begin off a sector",
            (
                PARAMETERS,
                begin(0x1000, 4, 0x400, 0x30000),
                begin(0, 4, 0x400, 0x30002),
                begin(0, 4, 0x400, 0x30000),
                block(0x03, NOISE[:0x104], 0),
                block(0x03, NOISE[:0x10], 1),
                block(0x03, NOISE[:0x200], 2),
                md5(0x30000, 0x400),
            ),
        ),
        (
            "compressed",
            (
                PARAMETERS,
                packed_begin(0x800, 1, 0x400, 0x40000),
                block(0x11, PACKED, 0),
                request(0x12, words(1)),
                md5(0x40000, 0x800),
                READ_MAGIC,
            ),
        ),
        (
            "compressed, cut off",
            (
                PARAMETERS,
                packed_begin(0x800, 2, 0x20, 0x50000),
                block(0x11, PACKED[:0x20], 0),
                block(0x11, PACKED[0x20:0x40], 1),
                md5(0x50000, 0x800),
                request(0x12, words(1)),
            ),
        ),
        (
            "compressed, noise",
            (
                PARAMETERS,
                packed_begin(0x800, 2, 0x400, 0x50000),
                block(0x11, b"\x11\x22\x33" * 10, 0),
                request(0x12, words(1)),
                READ_MAGIC,
            ),
        ),
        (
            "compressed, wrong sum",
            (
                PARAMETERS,
                packed_begin(0x800, 1, 0x400, 0x50000),
                block(0x11, PACKED[:-1] + bytes((PACKED[-1] ^ 1,)), 0),
                request(0x12, words(1)),
            ),
        ),
        (
            "digest",
            (
                PARAMETERS,
                md5(0x3FF000, 0x1000),
                md5(0x3FF001, 0x1000),
                md5(0x3FF001, 0xFFF),
                md5(0, 0),
                md5(0x400000, 4),
                md5(0x1001, 7),
                md5(0, 0x80000000),
                request(0x13, words(0x1000, 16)),
                request(0x13, b""),
            ),
        ),
        (
            "slow read",
            (
                PARAMETERS,
                read(0x3FFFFF, 1),
                read(0x3FFFFF, 2),
                read(0x400000, 1),
                read(0x400000, 0),
                read(1, 3),
            ),
        ),
        (
            "memory",
            (
                request(0x05, words(16, 1, 0x1800, ram)),
                block(0x07, b"0123456789abcdef", 0),
                request(0x0A, words(ram + 4)),
                block(0x07, b"xy", 1),
                block(0x07, b"xy", 2, checksum=0),
                request(0x05, words(16, 1, 0x1801, ram)),
                request(0x05, words(16, 1)),
                request(0x06, words(1, 0)),
                request(0x06, words(1, 0, 0)),
                request(0x0A, words(ram + 4)),
            ),
        ),
        (
            "too long a frame",
            (
                frame(struct.pack("<BBHI", 0, 0x0A, 4, 0) + words(0x40001000) + b"A" * 9000),
                READ_MAGIC,
                request(0x0A, b""),
            ),
        ),
        (
            "too short a frame",
            (
                frame(b"\x00"),
                frame(b"\x00\x0a"),
                frame(b"\x00\x0a\x04\x00\0\0\0\0"),
                READ_MAGIC,
                frame(b"\x00\x0a"),
            ),
        ),
        (
            "wrong escapes and noise between frames",
            (
                b"\xc0\x00\x0a\x04\x00\0\0\0\0\x00\x10\xdb\x00\x40\xc0",
                b"\xc0\xc0\xc0" + READ_MAGIC,
                b"noise" + READ_MAGIC,
            ),
        ),
        (
            "write registers",
            (
                request(0x09, words(spi_w0, 0x12345678, 0xFFFFFFFF, 0)),
                request(0x0A, words(spi_w0)),
                request(0x09, words(spi_w0, 0xFFFFFFFF, 0xFF00, 0)),
                request(0x0A, words(spi_w0)),
                request(0x09, words(1, 2, 3)),
                request(0x09, b""),
                request(0x09, words(spi_w0, 1, 0xFFFFFFFF, 0, spi_w0 + 4, 2, 0xFFFFFFFF, 0)),
                request(0x0A, words(spi_w0 + 4)),
            ),
        ),
        (
            "attach and baud rate",
            (
                request(0x0D, words(0, 0)),
                request(0x0F, words(115200, 0)),
                READ_MAGIC,
                request(0x0F, words(115200)),
                READ_MAGIC,
            ),
        ),
        ("error after a digest", (md5(0x1000, 16), request(0x99), READ_MAGIC)),
        ("flash end too early", (PARAMETERS, begin(0x1000, 4, 0x400, 0x10000), request(0x04, words(1)))),
        (
            "flash end, stay",
            (
                PARAMETERS,
                begin(0x400, 1, 0x400, 0x10000),
                block(0x03, NOISE[:0x400], 0),
                request(0x04, words(1)),
            ),
        ),
        ("memory end without code", (request(0x06, words(0, 0)),)),
    ]
    return tuple(Conversation(name, frames) for name, frames in table)
