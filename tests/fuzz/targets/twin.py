"""The virtual board: SLIP, download mode, its control channel, modem lines, its application's requests, its flash."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from harness.chips import CHIPS
from harness.formats.otadata import OtaData, OtaState
from harness.twin import rom_boot, slip
from harness.twin.boot_context import LoadedApp
from harness.twin.cipher import FlashCipher
from harness.twin.control import Control
from harness.twin.efuses import Efuses, factory_content
from harness.twin.flash import Flash
from harness.twin.machine import Boot, Machine
from harness.twin.operations import OperationLog, PowerLost
from harness.twin.rfc2217 import Rfc2217Server
from harness.twin.rpc import ConnectionEnded, EfuseAction, Op, RpcServer, Stopped
from harness.twin.state import StateFolder
from tests.fuzz.target import TESTS, Cutter, Target, chunks_of, require, scratch_folder

# The benches of the twin's own tests, which are no package.
sys.path.append(str(TESTS / "unit/twin"))

import rom_bench
from boot_board import OTA_0, OTA_1, OTADATA, TABLE_OFFSET, Board, app_image
from rom_bench import MAC, Bench, answers_in
from rom_requests import SYNC, frame, request, words

FLASH_BYTES = 0x20000
KEY = bytes.fromhex("0123456789abcdeffedcba98765432100f1e2d3c4b5a69788796a5b4c3d2e1f0")
MARK = b"<<content of flash>>"
KINDS = ("esp32", "esp32c3", "esp32s3", "esp32s2")
STUB_TEXT = {"esp32": 0x400BE000, "esp32c3": 0x40380000, "esp32s3": 0x40378000, "esp32s2": 0x40028000}


# --- SLIP ---


def check_slip(data: bytes) -> str:
    cut = Cutter(data)
    seed, limit = cut.byte(), cut.byte() + 1
    stream = cut.rest()
    counts = []
    for strictness in slip.Strictness:
        taken = []
        for chunks in ([stream], chunks_of(stream, seed)):
            receiver = slip.SlipReceiver(limit, strictness)
            for chunk in chunks:
                receiver.feed(chunk)
            taken.append(list(iter(receiver.next, None)))
        require(taken[0] == taken[1], "frames depend on how the bytes come")
        require(all(0 < len(each) <= limit for each in taken[0]), "a frame longer than the buffer, or empty")
        require(sum(map(len, taken[0])) <= len(stream), "more bytes than came")
        counts.append(len(taken[0]))
        if 0 < len(stream) <= limit:
            receiver = slip.SlipReceiver(limit, strictness)
            receiver.feed(slip.encode(stream))
            require(receiver.next() == stream, "a frame does not survive the wire")
    return f"{counts}"


def slips() -> Iterator[bytes]:
    yield b"\3\xff" + frame(b"\xc0\xdb\xdc\xdd") + b"noise" + frame(b"abc")
    yield b"\1\4" + b"\xc0\xc0\xc0abc\xdbx\xc0\xc0abcdefgh\xc0"


# --- download mode ---


def check_download(data: bytes) -> str:
    """Chip, security state, then commands: mostly whole ones of the protocol, now and then raw bytes."""
    cut = Cutter(data)
    name, state = KINDS[cut.byte() % len(KINDS)], cut.byte() % 4
    folder = scratch_folder() / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    bench = Bench(folder, name, FLASH_BYTES)
    try:
        _secure(bench, state)
        bench.flash.program(0x1000, MARK, who="test")
        flash_before = (folder / "flash.bin").read_bytes()
        fuses_before = (folder / "efuse.bin").read_bytes()
        frames = [SYNC, *_loads_stub(name, cut.byte())] if state < 3 else []
        session = _Session(name != "esp32")
        while not cut.is_empty and len(frames) < 60:
            frames.append(session.command(cut))
        said = b""
        with contextlib.suppress(PowerLost), mock.patch.object(rom_bench, "ScriptedUart", _Wire):
            said = b"".join(bench.talk(*frames))
        _check_board(bench, folder, flash_before)
        fuses = int.from_bytes((folder / "efuse.bin").read_bytes(), "little")
        require(int.from_bytes(fuses_before, "little") & ~fuses == 0, "a bit of the eFuses went back to 0")
        plain = b"".join(answers_in(said))
        if bench.chip.fuses.secure_download is not None and state == 2:
            require(MARK[:8] not in plain, "flash is read out in secure download mode")
            require(
                int.from_bytes(fuses_before, "little") == fuses, "fuses are burned in secure download mode"
            )
        if state in (1, 2):
            for at in range(0, 32, 8):
                require(KEY[at : at + 8] not in plain, "the flash key comes out of a board that protects it")
                require(KEY[::-1][at : at + 8] not in plain, "the flash key comes out, reversed")
        return f"{name} {state} {type(bench.outcome).__name__} {len(said).bit_length()} {bench.operations.next_number}"
    finally:
        bench.close()


class _ResetAtOnce(threading.Event):
    """For a ROM that stands still until somebody resets it."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


class _Wire(rom_bench.ScriptedUart):
    def __init__(self) -> None:
        super().__init__()
        self.stop = _ResetAtOnce()


def _secure(bench: Bench, state: int) -> None:
    """0 open, 1 a protected key, 2 the same and secure download (or off, where a chip has no such mode), 3 no sync."""
    fuses = bench.chip.fuses
    if state not in (1, 2):
        return
    block = fuses.key_storage_block
    bench.efuses.burn_block(block, KEY[::-1])
    index = bench.efuses.geometry.block(block)
    if index.read_disable is not None:
        bench.efuses.burn_field("RD_DIS", 1 << index.read_disable)
    if index.write_disable is not None:
        bench.efuses.burn_field("WR_DIS", 1 << index.write_disable)
    if state == 2 and fuses.secure_download is not None:
        bench.efuses.burn_field(fuses.secure_download, 1)


def _loads_stub(name: str, choice: int) -> tuple[bytes, ...]:
    """The frames after which the stub is there, for every other session."""
    if choice & 1:
        return ()
    begin = request(0x05, words(16, 1, 0x1800, STUB_TEXT[name]))
    return (begin, request(0x06, words(0, STUB_TEXT[name])))


class _Session:
    """Makes frames as esptool would, with numbers that it would not send; and now and then something else."""

    def __init__(self, later_rom: bool) -> None:
        self._begin_words = 5 if later_rom else 4
        self._sequence = 0

    def command(self, cut: Cutter) -> bytes:
        kind, shape = cut.byte(), cut.byte()
        if kind >= 0xF8:
            return cut.bytes(shape)
        opcode, count = _COMMANDS[kind % len(_COMMANDS)]
        if shape >= 0xF0:
            return request(opcode, cut.bytes(cut.byte()), cut.byte(), length=cut.number(2))
        if opcode == 0x08:
            return SYNC
        if opcode in (0x03, 0x07, 0x11):
            return self._block(opcode, cut, shape)
        if opcode in (0x02, 0x05, 0x10):
            self._sequence = 0
        if opcode in (0x02, 0x10):
            count = self._begin_words
        if shape >= 0xE0:
            count = shape % 8
        return request(opcode, words(*(_number(cut) for _ in range(count))))

    def _block(self, opcode: int, cut: Cutter, shape: int) -> bytes:
        payload = cut.bytes(cut.byte()) * (1 + shape % 8)
        if shape & 0x10:
            payload += bytes(-len(payload) % 4)
        if opcode == 0x11 and not shape & 0x20:
            payload = zlib.compress(payload)
        sequence, self._sequence = self._sequence, self._sequence + 1
        total = 0xEF
        for byte in payload:
            total ^= byte
        head = words(len(payload), sequence if shape & 0xC0 else cut.byte(), 0, 0)
        return request(opcode, head + payload, total)


def _number(cut: Cutter) -> int:
    choice = cut.byte()
    if choice < 0x60:
        return choice * 0x400
    if choice < 0x80:
        return choice - 0x60
    if choice < 0xE0:
        return _ADDRESSES[choice % len(_ADDRESSES)]
    return cut.number(4)


_COMMANDS = (
    (0x02, 5), (0x03, 0), (0x04, 1), (0x05, 4), (0x06, 2), (0x07, 0), (0x08, 0), (0x09, 4), (0x0A, 1),
    (0x0B, 6), (0x0D, 2),
    (0x0D, 1), (0x0E, 2), (0x0F, 2), (0x10, 5), (0x11, 0), (0x12, 1), (0x13, 4), (0x14, 0), (0xD0, 0),
    (0xD1, 2), (0xD2, 4),
    (0xD3, 0), (0xD5, 0), (0x55, 0), (0x09, 8), (0x03, 0), (0x11, 0),
)  # fmt: skip
"""Opcodes, and how many words their data usually have."""
_ADDRESSES = (
    0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, 0xFFFFF000, FLASH_BYTES, FLASH_BYTES - 4, 0x1000000, 0x400A8000,
    0x40380000, 0x3FFE0000,
    0x60008800, 0x6000881C, 0x60002000, 0x60002018, 0x60002020, 0x3FF42000, 0x3FF4201C, 0x3FF5A000, 0x3FF5A0FC,
    0x3FF5A104,
    0x60007000, 0x600081D4, 0x5A5A, 0x5AA5, 0x40000, 0xD8, 0x20, 0x3FCEF688, 0x3F41A000, 0x600088FC, 0x600089D4,
)  # fmt: skip


def _check_board(board: Any, folder: Path, flash_before: bytes) -> None:
    """What holds of a board whatever was done to it."""
    flash = (folder / "flash.bin").read_bytes()
    require(flash == board.flash.read(0, board.flash.size_bytes), "flash.bin is not what the board reads")
    require(len(flash) == len(flash_before), "flash.bin has another length")
    erased = [
        (op.offset, op.offset + op.length) for op in board.flash.operations.since(0) if op.kind == "erase"
    ]
    before, after = int.from_bytes(flash_before, "little"), int.from_bytes(flash, "little")
    risen = after & ~before
    if risen:
        for start, end in erased:
            risen &= ~(((1 << 8 * (end - start)) - 1) << 8 * start)
        require(risen == 0, "a bit of flash rose without an erase")
    _check_files(folder)


def _check_files(folder: Path) -> None:
    present = {path.name for path in folder.iterdir()}
    require(
        present <= {"flash.bin", "efuse.bin", "builds"},
        f"files that the twin has no business with: {present}",
    )


def downloads() -> Iterator[bytes]:
    names = [opcode for opcode, _ in _COMMANDS]

    def plain(opcode: int, *numbers: int) -> bytes:
        # `_number` makes 0x400 times what is below 0x60, and 0 to 0x1F of what is between 0x60 and 0x7F.
        return bytes((names.index(opcode), 0, *numbers))

    parameters = plain(0x0B, 0x60, 0x80, 0x40, 4, 1, 0x60)
    write = (
        plain(0x02, 2, 0x62, 4, 4, 0x60)
        + bytes((1, 0xD0, 8))
        + b"abcdefgh"
        + bytes((1, 0xD3, 4))
        + b"1234"
        + plain(0x04, 0x61)
    )
    enciphered = plain(0x02, 2, 0x61, 4, 4, 0x61) + bytes((1, 0xD1, 8)) + b"abcdefgh"
    packed = (
        plain(0x10, 2, 0x61, 4, 8, 0x60)
        + bytes((names.index(0x11), 0xD7, 60))
        + bytes(range(60))
        + plain(0x12, 0x61)
    )
    looks = (
        plain(0x13, 4, 2, 0x60, 0x60)
        + plain(0x0E, 4, 0x70)
        + plain(0x0A, 0x84)
        + plain(0x14)
        + plain(0x0F, 1, 0x60)
    )
    stub = (
        plain(0xD1, 4, 4)
        + plain(0xD2, 4, 0x70, 0x64, 0x61)
        + bytes((0xF8, 6))
        + frame(b"\x10\0\0\0")
        + plain(0xD0)
    )
    burn = plain(0x09, 0x84, 0x60, 0x62, 0x60)
    for kind in range(len(KINDS)):
        for state in range(4):
            for with_stub in (0, 1):
                start = bytes((kind, state, with_stub)) + parameters
                yield start + write + looks + burn
                yield start + enciphered + packed + stub


# --- the whole machine ---

_CONTROL_SEEDS = (
    {"op": "status"},
    {"op": "reset", "boot": "download", "power": True},
    {"op": "power", "on": True},
    {"op": "power", "on": False},
    {"op": "fault", "kind": "erase", "error": 262, "after": 1, "count": 2, "who": "rom"},
    {"op": "fault", "kind": "read", "error": 1 << 40},
    {"op": "cut", "at_op": 3, "where": "inside", "byte": 7},
    {"op": "cut", "at_op": 0, "where": "inside", "byte": 7, "mixture": 5},
    {"op": "flash-log", "since": 1},
    {"op": "account"},
    {"op": "stop"},
)


def _machine(folder: Path, failures: list[str]) -> Machine:
    """A blank board in a folder of its own; a fault of the twin's own is noted in `failures`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "flash.bin").write_bytes(b"\xff" * (1 << 20))
    (folder / "efuse.bin").write_bytes(factory_content(CHIPS["esp32c3"], MAC))
    # Without the lock and the syncs of StateFolder.open, which are no part of this.
    state = StateFolder.__new__(StateFolder)
    state.path, state.flash_path, state.efuse_path = folder, folder / "flash.bin", folder / "efuse.bin"
    return Machine(CHIPS["esp32c3"], state, folder / "builds", lambda: failures.append("died"))


def check_control(data: bytes) -> str:
    """Lines of the control channel at a living board; what follows a ``#`` goes to its UART."""
    folder = scratch_folder() / "machine"
    failures: list[str] = []
    machine = _machine(folder, failures)
    words_said = []
    try:
        machine.start(Boot.RUN)
        with mock.patch("threading.Timer"):
            control = Control(machine, lambda: None, lambda: None)
            for each in data.split(b"\n")[:24]:
                if each.startswith(b"#"):
                    machine.uart.feed(each[1:])
                    continue
                answer = control.answer(each)
                line = json.dumps(answer)
                require(isinstance(answer.get("ok"), bool) and "\n" not in line, "no answer of the protocol")
                require(len(line) < 200_000, f"an answer of {len(line)} characters")
                words_said.append(str(answer.get("error", "ok"))[:12])
        machine.operations.clear_faults()
        machine.operations.set_cut(None)
        machine.set_power(True)
        before = machine.status.boots
        machine.reset(Boot.DOWNLOAD)
        require(not failures, "the board's thread died of a fault in the twin")
        require(machine.status.boots > before, "the board cannot be reset any more")
    finally:
        machine.stop()
    _check_files(folder)
    return " ".join(words_said)


def controls() -> Iterator[bytes]:
    lines = [json.dumps(each).encode() for each in _CONTROL_SEEDS]
    yield from lines
    yield b"\n".join(lines)
    yield b"\n".join((lines[1], b"#" + SYNC, lines[4], b"#" + request(0x0A, words(0x60008850)), lines[0]))
    yield b"[" * 3000
    yield b'{"op":' + b"[" * 900 + b"]" * 900 + b"}"


# --- RFC 2217 ---


@cache
def _lent_machine() -> tuple[Machine, Rfc2217Server, list[str]]:
    failures: list[str] = []
    machine = _machine(scratch_folder() / "lent", failures)
    machine.start(Boot.RUN)
    server = Rfc2217Server(machine)
    server.start()
    return machine, server, failures


_WILL_COM_PORT = b"\xff\xfb\x2c"


def check_rfc2217(data: bytes) -> str:
    """The first byte says whether the board has power, and how the rest is cut; then a second client is served."""
    machine, server, failures = _lent_machine()
    try:
        machine.set_power(bool(data[:1] and data[0] & 1))
        got = _said_to(server, chunks_of(data[1:], data[0] >> 1 if data else 0))
        answer = _said_to(server, [_WILL_COM_PORT])
        require(b"\xff\xfd\x2c" in answer, "the next client is not served")
        require(not failures, "the board's thread died of a fault in the twin")
    except BaseException:
        # The next input is not to suffer for this one.
        _lent_machine.cache_clear()
        server.stop()
        machine.stop()
        raise
    return f"{len(got).bit_length()} {machine.status.state.value}"


def _said_to(server: Rfc2217Server, chunks: list[bytes]) -> bytes:
    answer = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=3) as client,
        contextlib.suppress(OSError),
    ):
        for chunk in chunks:
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
        while part := client.recv(65536):
            answer += part
    return answer


def rfc2217s() -> Iterator[bytes]:
    def option(code: int, value: bytes) -> bytes:
        return b"\xff\xfa\x2c" + bytes((code,)) + value + b"\xff\xf0"

    start = b"\xff\xfb\x2c\xff\xfd\0\xff\xfb\0"
    resets = b"".join(option(5, bytes((value,))) for value in (9, 11, 8, 12, 9))
    yield b"\1" + start + option(1, struct.pack(">I", 115200)) + resets + SYNC
    yield b"\0" + start + resets
    yield (
        b"\3"
        + start
        + option(2, b"\x08")
        + option(3, b"\1")
        + option(4, b"\1")
        + option(10, b"\0")
        + option(12, b"\3")
    )
    yield b"\1" + option(1, b"\0\0") + option(5, b"")
    yield b"\1" + b"\xff\xfa\x2c" + b"a" * 2000


# --- the application's requests ---


class _Pipe:
    """A socket whose other end has said everything, and reads nothing."""

    def __init__(self, data: bytes) -> None:
        self._data = Cutter(data)
        self.sent = 0

    def settimeout(self, _seconds: float) -> None: ...

    def recv(self, size: int) -> bytes:
        return self._data.bytes(size)

    def send(self, data: memoryview) -> int:
        self.sent += len(data)
        return len(data)


@cache
def _bench_board(encrypted: bool, name: str) -> Board:
    """A board with bootloader, table, otadata and two apps."""
    folder = scratch_folder() / f"board-{encrypted}-{name}"
    folder.mkdir()
    board = Board.named(name, folder, encrypted=encrypted)
    board.provision(versions={OTA_0: "1.0.0", OTA_1: "2.0.0"}, otadata=OtaData.for_slot(1, 2, OtaState.NEW))
    return board


@cache
def _provisioned(encrypted: bool, name: str) -> tuple[bytes, bytes]:
    """What such a board's files hold."""
    folder = _bench_board(encrypted, name).folder
    return (folder / "flash.bin").read_bytes(), (folder / "efuse.bin").read_bytes()


def _fresh(encrypted: bool, name: str) -> tuple[Board, bytes]:
    """That board as it left the bench, and its flash."""
    flash, fuses = _provisioned(encrypted, name)
    board = _bench_board(encrypted, name)
    board.flash.close()
    board.efuses.close()
    (board.folder / "flash.bin").write_bytes(flash)
    (board.folder / "efuse.bin").write_bytes(fuses)
    _power_up(board)
    return board, flash


def _power_up(board: Board) -> None:
    """A board whose files were changed from outside."""
    board.flash = Flash(board.folder / "flash.bin", OperationLog())
    board.efuses = Efuses(board.chip, board.folder / "efuse.bin", board.flash.operations)
    board.printed.clear()
    board.context = replace(
        board.context,
        flash=board.flash,
        efuses=board.efuses,
        cipher=FlashCipher(board.chip, board.flash, board.efuses),
        stop=threading.Event(),
    )


def check_app_requests(data: bytes) -> str:
    """Board, then the application's bytes as they come: requests whose op is one of the known ones, and noise."""
    cut = Cutter(data)
    choice = cut.byte()
    board, before = _fresh(bool(choice & 1), "esp32c3" if choice & 2 else "esp32")
    app = LoadedApp(OTA_0, 0x180000, "ota_0", TABLE_OFFSET, 0x1000, 0xC, 321)
    stream = bytearray()
    while not cut.is_empty and len(stream) < 1 << 20:
        kind = cut.byte()
        if kind >= 0xF8:
            stream += cut.bytes(cut.byte())
            continue
        op = kind % 23
        argument, other = _flash_number(cut), _flash_number(cut)
        body = cut.bytes(cut.byte())
        if kind & 0x20:
            body = body.ljust(64, b"\x5a")
        stream += struct.pack("<IIII", op, argument, other, len(body)) + body
    pipe: Any = _Pipe(bytes(stream))
    server = RpcServer(board.context, app, pipe)
    how = "ended"
    try:
        how = f"restart {server.serve() != 0}"
    except (ConnectionEnded, Stopped, PowerLost):
        how = "ended"
    _check_board(board, board.folder, before)
    return f"{how} {pipe.sent.bit_length()} {board.flash.operations.next_number}"


_PLACES = (
    *range(9), 16, 31, 32, 33, 0x1000, OTA_0, OTA_1, OTADATA, TABLE_OFFSET, 1 << 21, (1 << 21) - 16, 0x180000,
    0xFFFFFFFF, 0xFFFFF000, 0x80000000,
)  # fmt: skip


def _flash_number(cut: Cutter) -> int:
    choice = cut.byte()
    if choice < 0xC0:
        return _PLACES[choice % len(_PLACES)]
    return cut.number(4)


def _at(place: int) -> int:
    return _PLACES.index(place)


def app_requests() -> Iterator[bytes]:
    for board in range(4):
        yield bytes(
            (
                board,
                Op.INFO,
                0,
                0,
                0,
                Op.IMAGE_VERIFY,
                _at(OTA_0),
                _at(0x180000),
                1,
                1,
                Op.FLASH_READ,
                _at(OTA_0),
                _at(0x1000),
                0,
            )
        )
        yield bytes(
            (
                board,
                Op.FLASH_ERASE,
                _at(OTA_1),
                _at(0x1000),
                0,
                Op.FLASH_WRITE_ENCRYPTED + 23 * 8,
                _at(OTA_1),
                0,
                64,
            )
        ) + bytes(64)
        yield (
            bytes((board, Op.HASH_START, 0, 0, 0, Op.HASH_UPDATE, 1, 0, 3))
            + b"abc"
            + bytes((Op.HASH_FINISH, 1, 0, 0))
        )
        for action in EfuseAction:
            yield bytes((board, Op.EFUSE, int(action), 5, 4, 16, 0, 0, 0, Op.EFUSE_READ, 4, 0, 0))
        yield bytes((board, Op.VERIFY_HASH, 0, 0, 161, 4)) + bytes(160) + bytes((Op.RESTART, 7, 0, 0))


# --- a boot from any flash ---


def check_boot(data: bytes) -> str:
    """Board, then patches of its flash: where, and what; at the places that ROM and bootloader read, or anywhere."""
    cut = Cutter(data)
    choice = cut.byte()
    board, _ = _fresh(bool(choice & 1), "esp32c3" if choice & 2 else "esp32")
    bootloader = board.chip.bootloader_offset
    places = (
        bootloader,
        bootloader + 0x20,
        TABLE_OFFSET,
        OTADATA,
        OTADATA + 0x1000,
        OTA_0,
        OTA_0 + 0x20,
        OTA_1,
    )
    content = bytearray(board.flash.read(0, board.flash.size_bytes))
    while not cut.is_empty:
        place = places[cut.byte() % len(places)] + cut.number(2) % 0x600
        patch = cut.bytes(cut.byte())
        if board.encrypted and cut.byte() & 1:
            board.put(place & ~0xFFF, patch.ljust(32, b"\0"))
            content[:] = board.flash.read(0, board.flash.size_bytes)
        content[place : place + len(patch)] = patch
    board.flash.close()
    board.efuses.close()
    (board.folder / "flash.bin").write_bytes(content)
    _power_up(board)
    outcomes = [type(rom_boot.boot(board.context, reason)).__name__ for reason in (1, 3)]
    require(len(board.printed) < 200_000, "a boot prints without end")
    _check_board(board, board.folder, bytes(content))
    return f"{outcomes} {board.flash.operations.next_number}"


def boots() -> Iterator[bytes]:
    for board in range(4):
        for place in range(8):
            yield bytes((board, place, 0, 0, 4)) + b"\xff\xff\xff\xff" + b"\0"
        yield (
            bytes((board, 2, 0, 0, 32))
            + bytes.fromhex("aa50001000000200000018006f74615f300000000000000000000000")
            + bytes(4)
        )
        yield bytes((board, 7, 0, 0, 128)) + app_image(CHIPS["esp32c3"], "1.0.0")[:128] + b"\1"


TARGETS = (
    Target(
        "slip",
        "frames on the twin's UART",
        check_slip,
        slips,
        (b"\xc0", b"\xdb", b"\xdb\xdc", b"\xdb\xdd", b"\xc0a\xc0"),
    ),
    Target(
        "download-mode",
        "commands to the twin's ROM and stub",
        check_download,
        downloads,
        max_bytes=1024,
        limit_s=5.0,
    ),
    Target(
        "twin-control",
        "the twin's control channel, with bytes on its UART",
        check_control,
        controls,
        (
            *(json.dumps(each).encode() for each in _CONTROL_SEEDS),
            b"null",
            b"[]",
            b"-1",
            b"1e400",
            b"9" * 30,
            b'"who":',
        ),
        max_bytes=2048,
        limit_s=10.0,
    ),
    Target(
        "rfc2217",
        "telnet options and modem lines at the twin",
        check_rfc2217,
        rfc2217s,
        (b"\xff\xfa\x2c", b"\xff\xf0", b"\xff\xff"),
        limit_s=5.0,
    ),
    Target(
        "app-requests",
        "what the application asks of the twin's chip",
        check_app_requests,
        app_requests,
        max_bytes=1024,
        limit_s=5.0,
    ),
    Target(
        "boot",
        "ROM and bootloader on a flash that holds anything",
        check_boot,
        boots,
        max_bytes=512,
        limit_s=5.0,
    ),
)
