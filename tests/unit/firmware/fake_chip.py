"""The chip under the native firmware, in a test's hands: flash, a toy cipher, eFuse facts, the RPC of the twin.

Not the twin: as little as the firmware needs, so that its tests depend on nothing but the protocol. The "cipher"
XORs each sector with bytes made of key and address, which is enough to tell right from wrong.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from harness.chips import Chip
from harness.errors import FormatError
from harness.formats.app_image import parse_app_image

SECTOR = 4096
FLASH_SIZE = 4 << 20
LARGEST_IMAGE = 1 << 20
"""Of the images in these tests: spares deciphering whole slots."""
READ_RAW, READ, WRITE_RAW, WRITE_ENCRYPTED, ERASE, INFO, VERIFY = range(1, 8)
HASH_START, HASH_UPDATE, HASH_FINISH, HASH_ABORT, VERIFY_HASH, RESTART, EFUSE = range(8, 15)
EFUSE_READ = 20
DOWNLOAD_OFF, SECURE_DOWNLOAD, RELEASE_MODE, SECURE_VERSION, VERIFY_ENCRYPTION, VERIFY_SECURE_BOOT = range(
    1, 7
)
SET_BIT = 9
"""What EFUSE is asked for."""


@lru_cache(maxsize=4096)
def _pad(key: bytes, sector: int) -> bytes:
    return hashlib.shake_256(key + struct.pack("<I", sector)).digest(SECTOR)


def encipher(key: bytes, address: int, data: bytes) -> bytes:
    """The toy cipher, which is its own inverse; address and length in multiples of 16."""
    first, last = address // SECTOR, (address + len(data) - 1) // SECTOR
    pads = b"".join(_pad(key, sector) for sector in range(first, last + 1))
    pad = pads[address % SECTOR :][: len(data)]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(len(data), "little")


@dataclass
class FakeChip:
    """Flash contents, what was done to them, and the facts of INFO."""

    chip: Chip
    mac: bytes = bytes.fromhex("7cdfa1000001")
    key: bytes = b"the key of this device"
    encrypted: bool = True
    mode: int = 2
    mode_after_release: int = 2
    secure_boot: int = 0
    secure_version_fuse: int = 0
    reset_reason: int = 1
    restart_hint: int = 0
    table_offset: int = 0x10000
    boot_offset: int = 0x20000
    flash: bytearray = field(default_factory=lambda: bytearray(b"\xff" * FLASH_SIZE))
    operations: list[tuple[str, int, int]] = field(default_factory=list)
    failures: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By request number: how many to let pass, and the code with which all later ones fail."""
    restarts: list[int] = field(default_factory=list)
    efuse_requests: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Action, argument and data of each."""
    efuse_answers: dict[int, tuple[int, str]] = field(default_factory=dict)
    """Value and log lines by action."""
    efuse_status: dict[int, int] = field(default_factory=dict)
    """``esp_err_t`` by action; 0 where there is none."""
    on_request: Callable[[int], None] = lambda _: None
    checks: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    """Image checks and eFuse actions that were asked for: request, its two arguments, its data."""
    _hashes: dict[int, hashlib._Hash] = field(default_factory=dict)
    _next_hash: int = 0

    # Flash as the cipher engine and the harness see it

    def read_plain(self, address: int, size: int) -> bytes:
        if not self.encrypted:
            return bytes(self.flash[address : address + size])
        start, end = address - address % 16, -(-(address + size) // 16) * 16
        plain = encipher(self.key, start, bytes(self.flash[start:end]))
        return plain[address - start : address - start + size]

    def program(self, address: int, data: bytes) -> None:
        old = int.from_bytes(self.flash[address : address + len(data)], "little")
        new = old & int.from_bytes(data, "little")
        self.flash[address : address + len(data)] = new.to_bytes(len(data), "little")

    def put(self, address: int, plain: bytes) -> None:
        """Flashes `plain` as a provisioned board has it: enciphered where encryption is on."""
        end = -(-len(plain) // SECTOR) * SECTOR
        self.flash[address : address + end] = b"\xff" * end
        data = plain + b"\xff" * (-len(plain) % 16)
        self.program(address, encipher(self.key, address, data) if self.encrypted else data)

    # RPC

    def serve(self, connection: socket.socket) -> int | None:
        """Answers requests until the program asks for a restart; its reason, or None when it ended."""
        while True:
            head = _receive(connection, 16)
            if head is None:
                return None
            op, arg0, arg1, size = struct.unpack("<IIII", head)
            data = _receive(connection, size) if size else b""
            if data is None:
                return None
            self.on_request(op)
            if op == RESTART:
                self.restarts.append(arg0)
                return int(arg0)
            status, value, reply = self._answer(op, arg0, arg1, data)
            connection.sendall(struct.pack("<iII", status, value, len(reply)) + reply)

    def _answer(self, op: int, arg0: int, arg1: int, data: bytes) -> tuple[int, int, bytes]:
        if op in self.failures:
            passes, code = self.failures[op]
            self.failures[op] = (passes - 1, code)
            if passes <= 0:
                return code, 0, b""
        if op == READ_RAW:
            return 0, 0, bytes(self.flash[arg0 : arg0 + arg1])
        if op == READ:
            return 0, 0, self.read_plain(arg0, arg1)
        if op == WRITE_RAW:
            self.operations.append(("write", arg0, len(data)))
            self.program(arg0, data)
            return 0, 0, b""
        if op == WRITE_ENCRYPTED:
            self.operations.append(("write-encrypted", arg0, len(data)))
            self.program(arg0, encipher(self.key, arg0, data))
            return 0, 0, b""
        if op == ERASE:
            assert arg0 % SECTOR == 0
            assert arg1 % SECTOR == 0
            self.operations.append(("erase", arg0, arg1))
            self.flash[arg0 : arg0 + arg1] = b"\xff" * arg1
            return 0, 0, b""
        if op == INFO:
            return 0, 0, self._info()
        if op in (VERIFY, EFUSE):
            self.checks.append((op, arg0, arg1, data))
        if op == VERIFY:
            return self._verify(arg0, arg1)
        if op == VERIFY_HASH:
            return _verify_signature(data), 0, b""
        if op == EFUSE:
            self.efuse_requests.append((arg0, arg1, data))
            if arg0 == RELEASE_MODE:
                self.mode = self.mode_after_release
            value, lines = self.efuse_answers.get(arg0, (0, ""))
            return self.efuse_status.get(arg0, 0), value, lines.encode()
        if op == EFUSE_READ:
            return 0, 0, self._fuse_block(arg0)
        return self._hash(op, arg0, data)

    def _fuse_block(self, block: int) -> bytes:
        """Nothing but the secure version, where the chip keeps it."""
        home, bit = (3, 128) if self.chip.name == "esp32" else (0, 142)
        value = ((1 << self.secure_version_fuse) - 1) << bit if block == home else 0
        return value.to_bytes(32, "little")

    def _info(self) -> bytes:
        return struct.pack(
            "<9I6s6B",
            *(1, self.chip.chip_id, FLASH_SIZE, self.boot_offset, self.table_offset, self.reset_reason),
            *(self.chip.min_chip_rev_full, self.secure_version_fuse, 500, self.mac),
            *(self.encrypted, self.mode if self.encrypted else 0, self.secure_boot, 0, 0, self.restart_hint),
        )

    def _verify(self, offset: int, size: int) -> tuple[int, int, bytes]:
        try:
            image = parse_app_image(self.read_plain(offset, min(size, LARGEST_IMAGE)))
        except FormatError:
            text = f"E esp_image: image at 0x{offset:x} has invalid magic byte (nothing flashed here?)\n"
            return 0x2002, 0, text.encode()
        if not (image.checksum_ok and image.hash_ok):
            return 0x2002, 0, b"E esp_image: Checksum failed. Calculated 0xa1 read 0x3b\n"
        return 0, image.size_bytes, f"I esp_image: segment 0: paddr={offset + 32:08x}\n".encode()

    def _hash(self, op: int, handle: int, data: bytes) -> tuple[int, int, bytes]:
        if op == HASH_START:
            self._next_hash += 1
            self._hashes[self._next_hash] = hashlib.sha256()
            return 0, self._next_hash, b""
        if op == HASH_UPDATE:
            self._hashes[handle].update(data)
            return 0, 0, b""
        digest = self._hashes.pop(handle)
        return 0, 0, digest.digest() if op == HASH_FINISH else b""

    @property
    def open_hashes(self) -> int:
        """Hash operations that were begun and neither finished nor aborted."""
        return len(self._hashes)


def _verify_signature(data: bytes) -> int:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data[:65])
    r, s = int.from_bytes(data[97:129], "big"), int.from_bytes(data[129:], "big")
    try:
        key.verify(encode_dss_signature(r, s), data[65:97], ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return -149
    return 0


def _receive(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        try:
            part = connection.recv(size - len(data))
        except OSError:
            return None
        if not part:
            return None
        data += part
    return data


def in_thread(work: Callable[[], None]) -> threading.Thread:
    """Starts `work` in a daemon thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
