"""The flasher stub that esptool loads into RAM, as a dialect: the stub's code itself does not run here.

Behaves like Espressif's esp-flasher-stub 1.x ("stub 2"): data are written after the answer, so an error shows
in the answer to the next command; sectors are erased while writing, and blank ones at the start are skipped.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.chips import Chip
from harness.twin import slip
from harness.twin.efuses import Efuses
from harness.twin.flash import SECTOR_BYTES
from harness.twin.image_verify import xor_fold
from harness.twin.registers import AddressSpace
from harness.twin.rom_protocol import (
    CHECKSUM_SEED,
    SYNC_ANSWERS,
    WINDOW_BYTES,
    Exit,
    Opcode,
    StubError,
    StubOpcode,
    security_info,
)
from harness.twin.rom_spiflash import BLOCK_BYTES, RomSpiFlash
from harness.twin.uart import Uart

FRAME_BYTES = 8 + 0x4000 + 0xFF
MAX_READ_PACKET_BYTES = 4096
_NAND_OPCODES = range(0xD5, 0xDF)


class _HungUp(Exception):  # noqa: N818 - the stub spins for ever
    """The stub is in an endless loop; only a reset ends it."""


@dataclass(slots=True)
class _Writing:
    """State of a flash download; `remaining` is what is still to be programmed."""

    remaining: int = 0
    address: int = 0
    encrypted: bool = False
    active: bool = False
    next_erase: int = 0
    erase_remaining: int = 0
    skips_blank: bool = True
    window: bytearray = field(default_factory=bytearray)
    stream: zlib._Decompress = field(default_factory=zlib.decompressobj)


@dataclass(slots=True)
class _Loading:
    """State of a memory download."""

    remaining: int = 0
    address: int = 0
    active: bool = False


class StubLoader:
    """One run of the stub, from its greeting on."""

    def __init__(
        self,
        chip: Chip,
        efuses: Efuses,
        space: AddressSpace,
        flash: RomSpiFlash,
        uart: Uart,
        stop: threading.Event,
    ) -> None:
        self._chip = chip
        self._efuses = efuses
        self._space = space
        self._flash = flash
        self._uart = uart
        self._stop = stop
        self._frames = slip.SlipReceiver(FRAME_BYTES, slip.Strictness.STUB)
        self._writing = _Writing()
        self._loading = _Loading()
        self._data = b""
        self._checksum = 0
        self._value = 0
        self._payload = b""
        self._carried = StubError.NONE
        self._afterwards: Callable[[], StubError] | None = None
        self._leave: Exit | None = None
        self.entry = 0
        self._handlers: dict[int, Callable[[], StubError]] = {
            Opcode.SYNC: self._sync,
            Opcode.FLASH_BEGIN: self._flash_begin,
            Opcode.FLASH_DATA: self._flash_data,
            Opcode.FLASH_END: self._flash_end,
            Opcode.MEM_BEGIN: self._mem_begin,
            Opcode.MEM_DATA: self._mem_data,
            Opcode.MEM_END: self._mem_end,
            Opcode.WRITE_REG: self._write_reg,
            Opcode.READ_REG: self._read_reg,
            Opcode.SPI_ATTACH: lambda: self._sized(4),
            Opcode.SPI_SET_PARAMS: self._spi_set_params,
            Opcode.CHANGE_BAUDRATE: self._change_baudrate,
            Opcode.DEFL_BEGIN: self._flash_begin,
            Opcode.DEFL_DATA: self._defl_data,
            Opcode.DEFL_END: self._flash_end,
            Opcode.SPI_FLASH_MD5: self._md5,
            Opcode.GET_SECURITY_INFO: self._security_info,
            StubOpcode.READ_FLASH: self._read_flash,
            StubOpcode.ERASE_FLASH: self._erase_flash,
            StubOpcode.ERASE_REGION: self._erase_region,
        }

    def serve(self) -> Exit:
        """Greet, then answer until the board is stopped or the host starts a program in RAM.

        Raises:
            PowerLost: the supply was cut at an operation.
        """
        # The stub asks the flash chip for its size.
        self._flash.parameters.chip_size = self._flash.flash.size_bytes
        self._space.enter_stub()
        self._uart.send(slip.encode(b"OHAI"))
        try:
            while self._leave is None:
                frame = self._next_frame()
                if frame is None:
                    return Exit.STOPPED
                self._handle(frame)
        except _HungUp:
            self._stop.wait()
            return Exit.STOPPED
        return self._leave

    def _next_frame(self) -> bytes | None:
        while not self._stop.is_set():
            frame = self._frames.next()
            if frame is not None:
                return frame
            self._frames.feed(self._uart.recv(0.5))
        return None

    def _handle(self, frame: bytes) -> None:
        direction, opcode, length, checksum = struct.unpack("<BBHI", frame[:8].ljust(8, b"\0"))
        if direction != 0:
            self._answer(opcode, StubError.INVALID_COMMAND)
            return
        if len(frame) != length + 8:
            self._answer(opcode, StubError.BAD_DATA_LENGTH)
            return
        if self._carried is not StubError.NONE:
            self._answer(opcode, self._carried)
            self._carried = StubError.NONE
            return
        if opcode == StubOpcode.RUN_USER_CODE:
            return
        self._data, self._checksum = frame[8:], checksum
        self._value, self._payload, self._afterwards = 0, b"", None
        handler = self._handlers.get(opcode)
        if handler is not None:
            result = handler()
        else:
            result = StubError.NOT_IMPLEMENTED if opcode in _NAND_OPCODES else StubError.INVALID_COMMAND
        self._answer(opcode, result)
        if result is StubError.NONE and self._afterwards is not None:
            self._carried = self._afterwards()

    def _answer(self, opcode: int, result: StubError) -> None:
        good = result is StubError.NONE
        payload, value = (self._payload, self._value) if good else (b"", 0)
        head = struct.pack("<BBHI", 1, opcode, len(payload) + 2, value)
        self._uart.send(slip.encode(head + payload + struct.pack(">H", result)))

    def _words(self, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}I", self._data)

    def _sized(self, size: int) -> StubError:
        return StubError.NONE if len(self._data) == size else StubError.BAD_DATA_LENGTH

    # Commands

    def _sync(self) -> StubError:
        if len(self._data) != 36:
            return StubError.BAD_DATA_LENGTH
        for _ in range(SYNC_ANSWERS - 1):
            self._answer(Opcode.SYNC, StubError.NONE)
        return StubError.NONE

    def _write_reg(self) -> StubError:
        if not self._data or len(self._data) % 16:
            return StubError.NOT_ENOUGH_DATA
        for address, value, mask, _delay_us in struct.iter_unpack("<IIII", self._data):
            kept = 0 if mask == 0xFFFFFFFF else self._space.read(address) & ~mask & 0xFFFFFFFF
            self._space.write(address, value & mask | kept)
        return StubError.NONE

    def _read_reg(self) -> StubError:
        if len(self._data) != 4:
            return StubError.BAD_DATA_LENGTH
        self._value = self._space.read(*self._words(1))
        return StubError.NONE

    def _spi_set_params(self) -> StubError:
        if len(self._data) != 24:
            return StubError.BAD_DATA_LENGTH
        p = self._flash.parameters
        p.device_id, p.chip_size, p.block_size, p.sector_size, p.page_size, p.status_mask = self._words(6)
        return StubError.NONE

    def _change_baudrate(self) -> StubError:
        if len(self._data) != 8:
            return StubError.BAD_DATA_LENGTH
        baud = self._words(1)[0]

        def switch() -> StubError:
            self._uart.baud = baud
            return StubError.NONE

        self._afterwards = switch
        return StubError.NONE

    def _security_info(self) -> StubError:
        if self._data:
            return StubError.BAD_DATA_LENGTH
        if not self._chip.has_security_info:
            return StubError.NOT_IMPLEMENTED
        self._payload = security_info(self._chip, self._efuses)
        return StubError.NONE

    def _mem_begin(self) -> StubError:
        if len(self._data) != 16:
            return StubError.BAD_DATA_LENGTH
        total, _blocks, _block_size, address = self._words(4)
        self._loading = _Loading(total, address, active=True)
        return StubError.NONE

    def _mem_data(self) -> StubError:
        if len(self._data) < 16:
            return StubError.NOT_ENOUGH_DATA
        if not self._loading.active:
            return StubError.NOT_IN_FLASH_MODE
        size = self._words(1)[0]
        if size > self._loading.remaining or size != len(self._data) - 16:
            return StubError.TOO_MUCH_DATA
        self._space.load(self._loading.address, self._data[16:])
        self._loading.address += size
        self._loading.remaining -= size
        return StubError.NONE

    def _mem_end(self) -> StubError:
        if len(self._data) != 8:
            return StubError.BAD_DATA_LENGTH
        if not self._loading.active:
            return StubError.NOT_IN_FLASH_MODE
        self._loading = _Loading()
        stay, self.entry = self._words(2)
        self._leave = None if stay else Exit.RUN
        return StubError.NONE

    # Reading

    def _md5(self) -> StubError:
        if len(self._data) != 16:
            return StubError.BAD_DATA_LENGTH
        address, size = self._words(2)
        digest = hashlib.md5(usedforsecurity=False)
        end = address + size
        at = address & ~3
        while at < end and not self._stop.is_set():
            count = min(0x10000, (end - at + 3) & ~3)
            data = self._flash.read(at, count)
            if data is None:
                return StubError.FAILED_SPI_OPERATION
            digest.update(data[max(0, address - at) : end - at])
            at += count
        self._payload = digest.digest()
        return StubError.NONE

    def _read_flash(self) -> StubError:
        if len(self._data) != 16:
            return StubError.BAD_DATA_LENGTH
        address, size, packet_bytes, _in_flight = self._words(4)
        self._afterwards = lambda: self._send_flash(address, size, packet_bytes)
        return StubError.NONE

    def _send_flash(self, address: int, size: int, packet_bytes: int) -> StubError:
        """Raw frames; after each the host sends a frame of 4 bytes, the number of bytes received so far."""
        if packet_bytes > MAX_READ_PACKET_BYTES:
            return StubError.BAD_DATA_LENGTH
        digest = hashlib.md5(usedforsecurity=False)
        left, acknowledged = size, 0
        while left > 0 or acknowledged < size:
            if left > 0:
                count = min(left, packet_bytes)
                start = address & ~3
                data = self._flash.read(start, (address - start + count + 3) & ~3)
                if data is None:
                    return StubError.FAILED_SPI_OPERATION
                part = data[address - start :][:count]
                digest.update(part)
                self._uart.send(slip.encode(part))
                address, left = address + count, left - count
            answer = self._next_frame()
            if answer is None:
                return StubError.NONE
            if len(answer) != 4:
                break
            acknowledged = int.from_bytes(answer, "little")
        self._uart.send(slip.encode(digest.digest()))
        return StubError.NONE

    # Erasing and writing

    def _erase_flash(self) -> StubError:
        return StubError.NONE if self._flash.erase_chip() else StubError.FAILED_SPI_OPERATION

    def _erase_region(self) -> StubError:
        if len(self._data) != 8:
            return StubError.BAD_DATA_LENGTH
        address, size = self._words(2)
        if address % SECTOR_BYTES or size % SECTOR_BYTES:
            return StubError.BAD_DATA_LENGTH
        size = min(size, self._flash.flash.size_bytes)
        while size > 0:
            step = _erase_step(address, size)
            self._flash.erase_raw(address, step)
            address, size = address + step, size - step
        return StubError.NONE

    def _flash_begin(self) -> StubError:
        if len(self._data) not in (16, 20):
            return StubError.BAD_DATA_LENGTH
        total, _blocks, _block_size, address = self._words(4)
        encrypted = len(self._data) == 20 and self._words(5)[4] != 0
        first = address & ~(SECTOR_BYTES - 1)
        erase_bytes = -(-(address + total) // SECTOR_BYTES) * SECTOR_BYTES - first
        self._writing = _Writing(total, address, encrypted, True, first, erase_bytes)
        return self._erase_next()

    def _erase_next(self) -> StubError:
        """Erase the next sector or 64 KiB block; blank sectors are skipped up to the first that is not."""
        w = self._writing
        if w.erase_remaining <= 0:
            return StubError.NONE
        if w.skips_blank:
            content = self._flash.read(w.next_erase, SECTOR_BYTES)
            if content is None:
                return StubError.FAILED_SPI_OPERATION
            if content.count(0xFF) == len(content):
                w.next_erase += SECTOR_BYTES
                w.erase_remaining -= SECTOR_BYTES
                return StubError.NONE
            w.skips_blank = False
        step = _erase_step(w.next_erase, w.erase_remaining)
        self._flash.erase_raw(w.next_erase, step)
        w.next_erase += step
        w.erase_remaining -= step
        return StubError.NONE

    def _flash_data(self) -> StubError:
        if len(self._data) < 16:
            return StubError.NOT_ENOUGH_DATA
        if not self._writing.active:
            return StubError.NOT_IN_FLASH_MODE
        block = self._data[16:]
        if self._words(1)[0] != len(block):
            return StubError.TOO_MUCH_DATA
        if CHECKSUM_SEED ^ xor_fold(block) != self._checksum:
            return StubError.BAD_DATA_CHECKSUM
        self._afterwards = lambda: self._write(block[: self._writing.remaining])
        return StubError.NONE

    def _write(self, data: bytes) -> StubError:
        w = self._writing
        while w.next_erase < w.address + len(data):
            if w.erase_remaining <= 0:
                # More data than announced: the stub waits for an erase that nothing starts.
                raise _HungUp
            result = self._erase_next()
            if result is not StubError.NONE:
                return result
        if data and not self._program(w.address, data, encrypted=w.encrypted):
            return StubError.FAILED_SPI_OPERATION
        w.remaining -= len(data)
        w.address += len(data)
        return StubError.NONE

    def _program(self, address: int, data: bytes, *, encrypted: bool) -> bool:
        if encrypted:
            return self._flash.write_encrypted(address, data)
        # Head and tail that do not fill a word are padded with 0xFF, which programs nothing.
        before, behind = address % 4, -(address + len(data)) % 4
        return self._flash.write(address - before, b"\xff" * before + data + b"\xff" * behind)

    def _defl_data(self) -> StubError:
        if len(self._data) < 16:
            return StubError.BAD_DATA_LENGTH
        if not self._writing.active:
            return StubError.NOT_IN_FLASH_MODE
        size, sequence = self._words(2)
        block = self._data[16 : 16 + size]
        if CHECKSUM_SEED ^ xor_fold(block) != self._checksum:
            return StubError.BAD_DATA_CHECKSUM
        self._afterwards = lambda: self._write_packed(block, sequence)
        return StubError.NONE

    def _write_packed(self, block: bytes, sequence: int) -> StubError:
        w = self._writing
        if sequence == 0:
            w.window.clear()
        try:
            w.window += w.stream.decompress(block)
        except zlib.error:
            return StubError.INFLATE
        while len(w.window) >= WINDOW_BYTES or (w.stream.eof and w.window):
            part = bytes(w.window[:WINDOW_BYTES])
            result = self._write(part)
            if result is not StubError.NONE:
                return result
            del w.window[: len(part)]
        return StubError.NONE

    def _flash_end(self) -> StubError:
        if len(self._data) != 4:
            return StubError.BAD_DATA_LENGTH
        if not self._writing.active:
            return StubError.NOT_IN_FLASH_MODE
        if self._writing.remaining != 0:
            return StubError.BAD_DATA_LENGTH
        # The argument asks for a reboot; this stub does not do it.
        self._writing = _Writing()
        return StubError.NONE


def _erase_step(address: int, size: int) -> int:
    """A 64 KiB block where one fits, else a sector."""
    return BLOCK_BYTES if size >= BLOCK_BYTES and address % BLOCK_BYTES == 0 else SECTOR_BYTES
