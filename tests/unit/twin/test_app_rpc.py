"""What the application can ask of the chip, request by request, and what it cannot break by asking."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import threading
from pathlib import Path

import boot_board
import pytest
from boot_board import OTA_0, OTA_1, Board, app_image
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.twin import rpc
from harness.twin.boot_context import LoadedApp
from harness.twin.operations import CutPoint, PowerCut, PowerLost
from harness.twin.rpc import EfuseAction, Op, Reply, Request, RpcServer


def server_of(board: Board, *, reset_reason: int = 0xC) -> RpcServer:
    """A server that is asked directly: its socket is closed."""
    app = LoadedApp(OTA_0, 0x180000, "ota_0", boot_board.TABLE_OFFSET, 0x1000, reset_reason, 321)
    with socket.socket() as unused:
        return RpcServer(board.context, app, unused)


def ask(board: Board, op: int, arg0: int = 0, arg1: int = 0, data: bytes = b"") -> Reply:
    return server_of(board).answer(Request(op, arg0, arg1, data))


@pytest.fixture(params=[(name, enc) for name in boot_board.KINDS for enc in (False, True)], ids=str)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Board:
    name, encrypted = request.param
    return Board.named(name, tmp_path, encrypted=encrypted)


# Flash


def test_encrypted_writes_read_back_through_the_deciphering_read_only(board: Board) -> None:
    text = bytes(range(48))
    assert ask(board, Op.FLASH_WRITE_ENCRYPTED, OTA_1 + 16, data=text) == Reply()
    raw = ask(board, Op.FLASH_READ_RAW, OTA_1 + 16, 48).data
    assert raw != text
    seen = ask(board, Op.FLASH_READ, OTA_1 + 16, 48).data
    assert seen == (text if board.encrypted else raw)
    assert board.flash.ops[-1].kind == "write-encrypted"
    assert board.flash.ops[-1].who == "app"


def test_raw_writes_only_clear_bits_until_an_erase(board: Board) -> None:
    assert ask(board, Op.FLASH_WRITE_RAW, OTA_1, data=b"\xf0\x0f") == Reply()
    assert ask(board, Op.FLASH_WRITE_RAW, OTA_1, data=b"\x3c\x3c") == Reply()
    assert ask(board, Op.FLASH_READ_RAW, OTA_1, 2).data == b"\x30\x0c"
    assert ask(board, Op.FLASH_ERASE, OTA_1, 0x1000) == Reply()
    assert ask(board, Op.FLASH_READ_RAW, OTA_1, 2).data == b"\xff\xff"


FLASH_END = boot_board.FLASH_BYTES
REFUSED = [
    (Op.FLASH_READ_RAW, FLASH_END, 1, b"", 0x102),
    (Op.FLASH_READ_RAW, 0, FLASH_END + 1, b"", 0x102),
    (Op.FLASH_READ, FLASH_END - 1, 2, b"", 0x102),
    (Op.FLASH_READ, 0xFFFFFFFF, 0xFFFFFFFF, b"", 0x102),
    (Op.FLASH_WRITE_RAW, FLASH_END - 1, 0, b"ab", 0x102),
    (Op.FLASH_WRITE_ENCRYPTED, OTA_1 + 8, 0, bytes(16), 0x102),
    (Op.FLASH_WRITE_ENCRYPTED, OTA_1, 0, bytes(17), 0x104),
    (Op.FLASH_WRITE_ENCRYPTED, FLASH_END, 0, bytes(16), 0x102),
    (Op.FLASH_ERASE, OTA_1 + 1, 0x1000, b"", 0x102),
    (Op.FLASH_ERASE, OTA_1, 0x800, b"", 0x102),
    (Op.FLASH_ERASE, FLASH_END, 0x1000, b"", 0x102),
    (Op.IMAGE_VERIFY, 0xFFFFF000, 0x1000, b"", 0x102),
    (Op.HASH_UPDATE, 7, 0, b"x", -137),
    (Op.HASH_FINISH, 7, 0, b"", -137),
    (Op.VERIFY_HASH, 0, 0, b"short", -135),
    (Op.VERIFY_HASH, 0, 0, bytes(161), -135),
    (Op.EFUSE, 99, 0, b"", 0x102),
    (Op.EFUSE, EfuseAction.SET_BIT, 99 << 16, b"", rpc.ERR_INVALID_ARG),
    (0, 0, 0, b"", 0x106),
    (99, 0, 0, b"", 0x106),
]


@pytest.mark.parametrize(("op", "arg0", "arg1", "data", "status"), REFUSED)
def test_wrong_arguments_get_the_drivers_error_and_change_nothing(
    op: int, arg0: int, arg1: int, data: bytes, status: int, tmp_path: Path
) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    before = board.flash.generation
    assert ask(board, op, arg0, arg1, data) == Reply(status)
    assert board.flash.generation == before


def test_an_injected_fault_reaches_the_app_as_its_code(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    board.flash.operations.add_fault("write-encrypted", 0x6001, after=1)
    server = server_of(board)
    request = Request(Op.FLASH_WRITE_ENCRYPTED, OTA_1, 0, bytes(16))
    assert [server.answer(request).status for _ in range(3)] == [0, 0x6001, 0]


# Board and images


def test_info_describes_the_board(board: Board) -> None:
    reply = ask(board, Op.INFO)
    fields = rpc.INFO.unpack(reply.data)
    assert fields[:8] == (
        1,
        board.chip.chip_id,
        boot_board.FLASH_BYTES,
        OTA_0,
        boot_board.TABLE_OFFSET,
        0xC,
        {"esp32": 300, "esp32c2": 100, "esp32c6": 2}.get(board.chip.name, 3),
        0,
    )
    assert fields[8] >= 321
    assert fields[9] == boot_board.MAC
    assert fields[10:] == ((1, 2, 0, 0, 1, 0) if board.encrypted else (0, 0, 0, 0, 0, 0))
    assert len(reply.data) == 48


def test_image_verify_returns_the_length_and_the_lines(board: Board) -> None:
    image = app_image(board.chip, "1.1.0")
    board.put(OTA_1, image)
    reply = ask(board, Op.IMAGE_VERIFY, OTA_1, 0x40000)
    assert (reply.status, reply.value) == (0, len(image))
    assert reply.data.startswith(b"I esp_image: segment 0: paddr=001a0020 vaddr=")
    assert reply.data.endswith(b" map\n")


def test_image_verify_refuses_with_the_reason(board: Board) -> None:
    assert ask(board, Op.IMAGE_VERIFY, OTA_1, 0x40000) == Reply(
        0x2002,
        0,
        b"E esp_image: image at 0x1a0000 has invalid magic byte (nothing flashed here?)\n",
    )


# Cryptography


def test_hashes_are_sha256_and_independent(tmp_path: Path) -> None:
    server = server_of(Board.named("esp32c3", tmp_path))
    first, second = (server.answer(Request(Op.HASH_START, 0, 0, b"")).value for _ in range(2))
    server.answer(Request(Op.HASH_UPDATE, first, 0, b"one"))
    server.answer(Request(Op.HASH_UPDATE, second, 0, b"two"))
    server.answer(Request(Op.HASH_UPDATE, first, 0, b" more"))
    assert server.answer(Request(Op.HASH_FINISH, first, 0, b"")).data == hashlib.sha256(b"one more").digest()
    assert server.answer(Request(Op.HASH_FINISH, first, 0, b"")).status == -137
    assert server.answer(Request(Op.HASH_ABORT, second, 0, b"")).status == 0
    assert server.answer(Request(Op.HASH_UPDATE, second, 0, b"")).status == -137


def test_open_hashes_are_limited(tmp_path: Path) -> None:
    server = server_of(Board.named("esp32c3", tmp_path))
    statuses = [server.answer(Request(Op.HASH_START, 0, 0, b"")).status for _ in range(17)]
    assert statuses == [0] * 16 + [-141]


def test_verify_hash_takes_the_right_signature_only(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    digest = hashlib.sha256(b"header").digest()
    r, s = decode_dss_signature(key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert ask(board, Op.VERIFY_HASH, data=point + digest + signature).status == 0
    flipped = bytes([digest[0] ^ 1]) + digest[1:]
    assert ask(board, Op.VERIFY_HASH, data=point + flipped + signature).status == -149
    assert ask(board, Op.VERIFY_HASH, data=point + digest + bytes(64)).status == -149
    assert ask(board, Op.VERIFY_HASH, data=point + digest + b"\xff" * 64).status == -149


# eFuses


@pytest.mark.parametrize(
    ("chip_name", "action", "fuse", "status"),
    [
        ("esp32", EfuseAction.DISABLE_DOWNLOAD, "UART_DOWNLOAD_DIS", 0),
        ("esp32c3", EfuseAction.DISABLE_DOWNLOAD, "DIS_DOWNLOAD_MODE", 0),
        ("esp32c3", EfuseAction.SECURE_DOWNLOAD, "ENABLE_SECURITY_DOWNLOAD", 0),
        ("esp32", EfuseAction.SECURE_DOWNLOAD, None, 0x106),
        ("esp32", EfuseAction.RELEASE_MODE, None, 0x103),
    ],
)
def test_locking_download_from_the_app(
    chip_name: str, action: EfuseAction, fuse: str | None, status: int, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path)
    assert ask(board, Op.EFUSE, action).status == status
    if fuse is not None:
        assert board.efuses.field(fuse) == 1


def test_a_write_protected_download_fuse_cannot_be_burned(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path)
    board.efuses.burn_field("WR_DIS", 1 << 2)
    assert ask(board, Op.EFUSE, EfuseAction.DISABLE_DOWNLOAD).status == 0x103


@pytest.mark.parametrize(
    ("chip_name", "locked"), [("esp32", "UART_DOWNLOAD_DIS"), ("esp32c3", "ENABLE_SECURITY_DOWNLOAD")]
)
def test_release_mode_from_development_locks_the_download_too(
    chip_name: str, locked: str, tmp_path: Path
) -> None:
    board = Board.named(chip_name, tmp_path)
    board.burn_key(board.key)
    board.efuses.burn_field(board.chip.fuses.counter, 1)
    assert rpc.INFO.unpack(ask(board, Op.INFO).data)[11] == 1
    assert ask(board, Op.EFUSE, EfuseAction.RELEASE_MODE).status == 0
    assert board.efuses.field(board.chip.fuses.counter) == board.chip.fuses.counter_release
    assert board.efuses.field(locked) == 1
    assert board.efuses.write_protected(board.chip.fuses.release_write_protect)
    assert rpc.INFO.unpack(ask(board, Op.INFO).data)[11] == 2


# The wire


class Client:
    """The application's end of a socket whose other end `serve` answers in a thread."""

    def __init__(self, board: Board) -> None:
        self.ours, self.socket = socket.socketpair()
        app = LoadedApp(OTA_0, 0x180000, "ota_0", boot_board.TABLE_OFFSET, 0x1000, 1, 0)
        self.server = RpcServer(board.context, app, self.ours)
        self.result: object = None
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.result = self.server.serve()
        except Exception as error:  # noqa: BLE001 - kept for the test to look at
            self.result = error

    def ended(self) -> object:
        self.thread.join(5)
        self.ours.close()
        self.socket.close()
        assert not self.thread.is_alive()
        return self.result

    def call(self, op: int, arg0: int = 0, arg1: int = 0, data: bytes = b"") -> Reply:
        self.socket.sendall(struct.pack("<IIII", op, arg0, arg1, len(data)) + data)
        status, value, size = struct.unpack("<iII", self._exactly(12))
        return Reply(status, value, self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            assert part
            data += part
        return data


def test_requests_in_pieces_and_large_replies_pass(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path, encrypted=True)
    client = Client(board)
    request = struct.pack("<IIII", Op.FLASH_WRITE_RAW, OTA_1, 0, 4) + b"abcd"
    for at in range(len(request)):
        client.socket.sendall(request[at : at + 1])
    assert client._exactly(12) == bytes(12)
    assert len(client.call(Op.FLASH_READ, 0, 1 << 20).data) == 1 << 20
    client.socket.sendall(struct.pack("<IIII", Op.RESTART, 2, 0, 0))
    assert client.ended() == 2


@pytest.mark.parametrize("size", [rpc.MAX_DATA_BYTES + 1, 0xFFFFFFFF])
def test_a_request_of_absurd_size_ends_the_connection(size: int, tmp_path: Path) -> None:
    client = Client(Board.named("esp32c3", tmp_path))
    client.socket.sendall(struct.pack("<IIII", Op.FLASH_WRITE_RAW, 0, 0, size))
    assert isinstance(client.ended(), rpc.ConnectionEnded)


def test_a_closed_socket_and_a_stopped_board_end_it_too(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    client = Client(board)
    client.socket.sendall(b"\1\0\0")
    client.socket.close()
    assert isinstance(client.ended(), rpc.ConnectionEnded)
    client = Client(board)
    board.context.stop.set()
    assert isinstance(client.ended(), rpc.Stopped)


def test_random_requests_never_break_the_server(tmp_path: Path) -> None:
    board = Board.named("esp32", tmp_path, encrypted=True)
    server = server_of(board)
    chance = random.Random(5)
    for _ in range(400):
        op = chance.randrange(16)
        args = [chance.choice([0, 1, 16, 0x1000, OTA_1, 0x1FFFFF, 0xFFFFFFFF]) for _ in range(2)]
        reply = server.answer(Request(op, *args, chance.randbytes(chance.choice([0, 1, 16, 161]))))
        assert -(1 << 31) <= reply.status < 1 << 31


def test_a_power_cut_travels_through(tmp_path: Path) -> None:
    board = Board.named("esp32c3", tmp_path)
    operations = board.flash.operations
    operations.set_cut(PowerCut(operations.next_number, CutPoint.INSIDE, 2))
    client = Client(board)
    client.socket.sendall(struct.pack("<IIII", Op.FLASH_WRITE_RAW, OTA_1, 0, 4) + bytes(4))
    assert isinstance(client.ended(), PowerLost)
    operations.restore_power()
    assert board.flash.read(OTA_1, 4) == b"\0\0\xff\xff"
