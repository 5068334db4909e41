"""The chip as the native application reaches it: one socket, one request at a time.

Request (little endian): u32 op, u32 arg0, u32 arg1, u32 data_len, data. Reply: i32 status (``esp_err_t``
or ``psa_status_t``), u32 value, u32 data_len, data. The application is not trusted: every number is checked.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from harness.chips import SigningScheme
from harness.twin.app_efuses import AppEfuses
from harness.twin.boot_context import BootContext, LoadedApp
from harness.twin.boot_lines import Level
from harness.twin.efuse_driver import EfuseDriver
from harness.twin.image_signature import AppSignature
from harness.twin.image_verify import ERR_INVALID_ARG, ImageCheck, ImageRejected, signature_sector_at
from harness.twin.operations import FlashFault
from harness.twin.security import (
    download_state,
    encryption_mode,
    flash_encryption_enabled,
    release_verified,
    secure_boot_enabled,
    secure_version,
)
from harness.twin.signature import SECTOR_BYTES

REQUEST = struct.Struct("<IIII")
REPLY = struct.Struct("<iII")
INFO = struct.Struct("<9I6s6B")
INFO_VERSION = 1

MAX_DATA_BYTES = 16 << 20
"""More than any flash; a request that announces more is not answered but ends the application."""

ERR_INVALID_SIZE = 0x104
ERR_NOT_SUPPORTED = 0x106

PSA_INVALID_ARGUMENT = -135
PSA_BAD_STATE = -137
PSA_INSUFFICIENT_MEMORY = -141
PSA_INVALID_SIGNATURE = -149

_SIGNATURES = (None, None, *SigningScheme)
"""The byte of IMAGE_VERIFY: 0 images are not signed, 1 as the chip verifies first, then the schemes by name."""

_HASHES_MAX = 16
_LARGEST_FIELD_BITS = 32
_POLL_S = 0.02
_WHO = "app"
_LETTERS = {Level.ERROR: "E", Level.WARN: "W", Level.INFO: "I", Level.DEBUG: "D", Level.VERBOSE: "V"}


class Op(IntEnum):
    """Requests, numbered as on the wire."""

    FLASH_READ_RAW = 1
    FLASH_READ = 2
    FLASH_WRITE_RAW = 3
    FLASH_WRITE_ENCRYPTED = 4
    FLASH_ERASE = 5
    INFO = 6
    IMAGE_VERIFY = 7
    HASH_START = 8
    HASH_UPDATE = 9
    HASH_FINISH = 10
    HASH_ABORT = 11
    VERIFY_HASH = 12
    RESTART = 13
    EFUSE = 14
    EFUSE_READ = 20


class EfuseAction(IntEnum):
    """arg0 of `Op.EFUSE`."""

    DISABLE_DOWNLOAD = 1
    SECURE_DOWNLOAD = 2
    RELEASE_MODE = 3
    SECURE_VERSION = 4
    VERIFY_ENCRYPTION = 5
    VERIFY_SECURE_BOOT = 6
    CHECK_SECURE_BOOT = 7
    START_UP_WRITE_PROTECT = 8
    SET_BIT = 9


@dataclass(frozen=True, slots=True)
class Request:
    op: int
    arg0: int
    arg1: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    status: int = 0
    value: int = 0
    data: bytes = b""


class ConnectionEnded(Exception):  # noqa: N818 - the ordinary end of an application
    """The application closed its socket, or sent something that is no request."""


class Stopped(Exception):  # noqa: N818 - the machine resets the board
    """The machine asked for the end while the application was being waited for."""


class CollectedLog:
    """Log lines of an image check, to be printed by the application: level letter, tag, text."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, level: Level, tag: str, text: str) -> None:
        self.lines.append(f"{_LETTERS[level]} {tag}: {text}\n")

    def say(self, text: str) -> None:
        """An application calls no routine of the ROM's that prints."""

    def spent_reading(self, size_bytes: int) -> None:
        """The application stamps its lines by its own clock."""


class RpcServer:
    """Answers the requests of one application on `connection`, which it switches to short time-outs."""

    def __init__(
        self, ctx: BootContext, app: LoadedApp, connection: socket.socket, *, restart_hint: int = 0
    ) -> None:
        self._ctx = ctx
        self._app = app
        self._restart_hint = restart_hint
        self._connection = connection
        connection.settimeout(_POLL_S)
        self._started = time.monotonic()
        self._hashes: dict[int, hashlib._Hash] = {}
        self._next_hash = 1
        self._operations: dict[int, Callable[[Request], Reply]] = {
            Op.FLASH_READ_RAW: self._read_raw,
            Op.FLASH_READ: self._read,
            Op.FLASH_WRITE_RAW: self._write_raw,
            Op.FLASH_WRITE_ENCRYPTED: self._write_encrypted,
            Op.FLASH_ERASE: self._erase,
            Op.INFO: self._info,
            Op.IMAGE_VERIFY: self._verify_image,
            Op.HASH_START: self._hash_start,
            Op.HASH_UPDATE: self._hash_update,
            Op.HASH_FINISH: self._hash_finish,
            Op.HASH_ABORT: self._hash_abort,
            Op.VERIFY_HASH: self._verify_hash,
            Op.EFUSE: self._efuse,
            Op.EFUSE_READ: self._read_efuse_block,
        }

    def serve(self) -> int:
        """Answer requests until the application asks for a restart; returns the reason it gives.

        Raises:
            ConnectionEnded: the application is gone or talks nonsense.
            Stopped: ``ctx.stop`` was set.
            PowerLost: the supply was cut at an operation.
        """
        while True:
            header: tuple[int, int, int, int] = REQUEST.unpack(self._receive(REQUEST.size))
            op, arg0, arg1, size = header
            if size > MAX_DATA_BYTES:
                raise ConnectionEnded(f"request {op} announces {size} bytes")
            request = Request(op, arg0, arg1, self._receive(size))
            if op == Op.RESTART:
                return arg0
            reply = self.answer(request)
            self._send(REPLY.pack(reply.status, reply.value, len(reply.data)) + reply.data)

    def answer(self, request: Request) -> Reply:
        """Carry out one request other than RESTART."""
        operation = self._operations.get(request.op)
        if operation is None:
            return Reply(ERR_NOT_SUPPORTED)
        try:
            return operation(request)
        except FlashFault as fault:
            return Reply(fault.code)

    @property
    def uptime_ms(self) -> int:
        """The application's clock: it goes on from where the bootloader's stood."""
        return self._app.started_ms + int((time.monotonic() - self._started) * 1000)

    # Flash

    def _read_raw(self, request: Request) -> Reply:
        return Reply(data=self._ctx.flash.read(request.arg0, request.arg1, who=_WHO))

    def _read(self, request: Request) -> Reply:
        if not self._is_inside(request.arg0, request.arg1):
            return Reply(ERR_INVALID_ARG)
        return Reply(data=self._ctx.cipher.read(request.arg0, request.arg1, who=_WHO))

    def _write_raw(self, request: Request) -> Reply:
        self._ctx.flash.program(request.arg0, request.data, who=_WHO)
        return Reply()

    def _write_encrypted(self, request: Request) -> Reply:
        # In the order of esp_flash_write_encrypted(), which enciphers whether or not encryption is on.
        if not self._is_inside(request.arg0, len(request.data)) or request.arg0 % 16:
            return Reply(ERR_INVALID_ARG)
        if len(request.data) % 16:
            return Reply(ERR_INVALID_SIZE)
        self._ctx.cipher.write_enciphered(request.arg0, request.data, who=_WHO)
        return Reply()

    def _erase(self, request: Request) -> Reply:
        self._ctx.flash.erase(request.arg0, request.arg1, who=_WHO)
        return Reply()

    def _is_inside(self, addr: int, size: int) -> bool:
        return addr + size <= self._ctx.flash.size_bytes

    # Board and image

    def _info(self, _: Request) -> Reply:
        efuses, app = self._ctx.efuses, self._app
        data = INFO.pack(
            INFO_VERSION,
            self._ctx.chip.chip_id,
            self._ctx.flash.size_bytes,
            app.offset,
            app.table_offset,
            app.reset_reason,
            efuses.chip_rev_full,
            secure_version(efuses),
            self.uptime_ms & 0xFFFFFFFF,
            efuses.mac,
            flash_encryption_enabled(efuses),
            encryption_mode(efuses),
            secure_boot_enabled(efuses),
            download_state(efuses),
            release_verified(efuses),
            self._restart_hint,
        )
        return Reply(data=data)

    def _verify_image(self, request: Request) -> Reply:
        if not self._is_inside(request.arg0, request.arg1):
            return Reply(ERR_INVALID_ARG)
        log = CollectedLog()
        check = ImageCheck(
            chip=self._ctx.chip,
            cipher=self._ctx.cipher,
            efuses=self._ctx.efuses,
            chip_rev_full=self._ctx.efuses.chip_rev_full,
            flash_size_bytes=self._ctx.flash.size_bytes,
            log=log,
            load=False,
            signature=self._signature(request.data, log),
        )
        status, size = 0, 0
        try:
            size = check.verify(request.arg0, request.arg1).size_bytes
        except ImageRejected as rejected:
            status = rejected.status
        return Reply(status, size, "".join(log.lines).encode())

    def _signature(self, wanted: bytes, log: CollectedLog) -> AppSignature | None:
        """What an application of this build checks: one byte, an index of `_SIGNATURES`; nothing asks for none."""
        if not wanted or not 0 < wanted[0] < len(_SIGNATURES):
            return None
        scheme = _SIGNATURES[wanted[0]] or self._ctx.chip.secure_boot.schemes[0]
        driver = EfuseDriver(self._ctx.efuses, log, who=_WHO)
        return AppSignature(self._ctx.efuses, scheme, self._own_signature, driver)

    def _own_signature(self) -> bytes:
        read = self._ctx.cipher.read
        at = signature_sector_at(read, self._app.offset)
        return read(at, SECTOR_BYTES) if self._is_inside(at, SECTOR_BYTES) else b""

    # Cryptography

    def _hash_start(self, _: Request) -> Reply:
        if len(self._hashes) >= _HASHES_MAX:
            return Reply(PSA_INSUFFICIENT_MEMORY)
        handle = self._next_hash
        self._next_hash += 1
        self._hashes[handle] = hashlib.sha256()
        return Reply(value=handle)

    def _hash_update(self, request: Request) -> Reply:
        digest = self._hashes.get(request.arg0)
        if digest is None:
            return Reply(PSA_BAD_STATE)
        digest.update(request.data)
        return Reply()

    def _hash_finish(self, request: Request) -> Reply:
        digest = self._hashes.pop(request.arg0, None)
        return Reply(PSA_BAD_STATE) if digest is None else Reply(data=digest.digest())

    def _hash_abort(self, request: Request) -> Reply:
        self._hashes.pop(request.arg0, None)
        return Reply()

    def _verify_hash(self, request: Request) -> Reply:
        """ECDSA P-256 over a SHA-256: 65 bytes of public key, 32 of hash, 64 of r and s, big endian."""
        if len(request.data) != 65 + 32 + 64:
            return Reply(PSA_INVALID_ARGUMENT)
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

        point, digest, signature = request.data[:65], request.data[65:97], request.data[97:]
        try:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError:
            return Reply(PSA_INVALID_ARGUMENT)
        der = encode_dss_signature(
            int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        )
        try:
            key.verify(der, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        except InvalidSignature:
            return Reply(PSA_INVALID_SIGNATURE)
        return Reply()

    # eFuses

    def _read_efuse_block(self, request: Request) -> Reply:
        if request.arg0 >= len(self._ctx.efuses.geometry.blocks):
            return Reply(ERR_INVALID_ARG)
        return Reply(data=self._ctx.efuses.block_for_software(request.arg0))

    def _efuse(self, request: Request) -> Reply:
        """One of the things that the application's ESP-IDF does with fuses; the data are its lines."""
        log = CollectedLog()
        efuses = AppEfuses(self._ctx.efuses, log)
        action, status, value = request.arg0, 0, 0
        if action == EfuseAction.DISABLE_DOWNLOAD:
            status = efuses.disable_download()
        elif action == EfuseAction.SECURE_DOWNLOAD:
            status = efuses.enable_secure_download()
        elif action == EfuseAction.RELEASE_MODE:
            status = efuses.set_release_mode()
        elif action == EfuseAction.SECURE_VERSION and len(request.data) == 4:
            bits = min(int.from_bytes(request.data, "little"), _LARGEST_FIELD_BITS)
            status = efuses.raise_secure_version(request.arg1, bits)
        elif action == EfuseAction.VERIFY_ENCRYPTION:
            value = int(efuses.verify_encryption())
        elif action == EfuseAction.CHECK_SECURE_BOOT:
            status = efuses.check_secure_boot(allow_unused_slots=request.arg1 != 0)
        elif action == EfuseAction.START_UP_WRITE_PROTECT:
            status = efuses.write_protect_at_start()
        elif action == EfuseAction.SET_BIT and request.arg1 >> 16 < len(self._ctx.efuses.geometry.blocks):
            status = efuses.set_bit(request.arg1 >> 16, request.arg1 & 0xFFFF)
        elif action == EfuseAction.VERIFY_SECURE_BOOT:
            value = int(efuses.verify_secure_boot(aggressive=bool(request.arg1)))
        else:
            status = ERR_INVALID_ARG
        return Reply(status, value, "".join(log.lines).encode())

    # Wire

    def _receive(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            if self._ctx.stop.is_set():
                raise Stopped
            try:
                part = self._connection.recv(min(size - len(received), 1 << 16))
            except TimeoutError:
                continue
            except OSError as error:
                raise ConnectionEnded("socket broke") from error
            if not part:
                raise ConnectionEnded("socket closed")
            received += part
        return bytes(received)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            if self._ctx.stop.is_set():
                raise Stopped
            try:
                view = view[self._connection.send(view) :]
            except TimeoutError:
                continue
            except OSError as error:
                raise ConnectionEnded("socket broke") from error
