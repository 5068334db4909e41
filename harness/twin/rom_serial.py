"""The download loop of the mask ROM: what it answers to each command, to wrong ones, and to noise.

Read out of the mask ROMs of ESP32 (revision 3) and ESP32-C3, whose loops are the same program with a few
differences. Much of what looks odd here is how they behave: the buffer of the last packet is never cleared,
lengths are taken from the packet and not from the frame, a block's number counts as used before its checksum
is looked at, and error and value bytes of an answer keep what an earlier command left there.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from collections.abc import Callable

from harness.chips import Chip
from harness.twin import slip
from harness.twin.efuses import Efuses
from harness.twin.image_verify import xor_fold
from harness.twin.registers import CRYSTAL_HZ, AddressSpace
from harness.twin.rom_protocol import (
    BUFFER_BYTES,
    CHECKSUM_SEED,
    DIALECTS,
    IN_SECURE_DOWNLOAD,
    MAX_BLOCK_BYTES,
    MAX_DATA_PACKET_BYTES,
    SYNC_ANSWERS,
    WINDOW_BYTES,
    Exit,
    Inflate,
    Opcode,
    RomError,
    Transfer,
    security_info,
)
from harness.twin.rom_spiflash import RomSpiFlash
from harness.twin.security import Download, download_state, secure_boot_enabled
from harness.twin.uart import Uart


class _ResetNow(Exception):  # noqa: N818 - leaves the loop from any depth, like the reset it stands for
    """The ROM found that the fuses no longer allow this loop."""


class _JumpedAway(Exception):  # noqa: N818 - not an error, the loop's end
    """The ROM called a function that is no longer its own; it answers nothing."""


class _HungUp(Exception):  # noqa: N818 - the ROM spins for ever
    """The ROM is in an endless loop; only a reset ends it."""


class RomLoader:
    """One stay in UART download mode, from the first synchronisation on."""

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
        self._dialect = DIALECTS[chip.name]
        self._secure = download_state(efuses) is Download.SECURE
        self._frames = slip.SlipReceiver(BUFFER_BYTES, slip.Strictness.ROM)
        self._packet = bytearray(BUFFER_BYTES)
        # Direction, opcode, length, value, payload of up to 64 bytes, status.
        self._answer = bytearray(8 + 64 + 4)
        self._answer[0] = 1
        self._error = RomError.NONE
        self._transfer = Transfer()
        self._packed = Transfer()
        self._inflate = Inflate()
        self._leave: Exit | None = None
        self._new_baud = 0
        self.loaded: list[tuple[int, int]] = []
        """(address, size) of every memory download begun."""
        self.entry = 0
        self._handlers: dict[int, tuple[Callable[[], int], int]] = {
            Opcode.FLASH_BEGIN: (self._flash_begin, 0),
            Opcode.FLASH_DATA: (self._flash_data, 0),
            Opcode.FLASH_END: (self._flash_end, 0),
            Opcode.MEM_BEGIN: (self._mem_begin, 0),
            Opcode.MEM_END: (self._mem_end, 0),
            Opcode.MEM_DATA: (self._mem_data, 0),
            Opcode.SYNC: (self._sync, 0),
            Opcode.WRITE_REG: (self._write_reg, 0),
            Opcode.READ_REG: (self._read_reg, 0),
            Opcode.SPI_SET_PARAMS: (self._spi_set_params, 0),
            Opcode.SPI_ATTACH: (self._spi_attach, 0),
            Opcode.READ_FLASH_SLOW: (self._read_flash, 64),
            Opcode.CHANGE_BAUDRATE: (self._change_baudrate, 0),
            Opcode.DEFL_BEGIN: (self._defl_begin, 0),
            Opcode.DEFL_DATA: (self._defl_data, 0),
            Opcode.DEFL_END: (self._defl_end, 0),
            Opcode.SPI_FLASH_MD5: (self._md5, 32),
            Opcode.GET_SECURITY_INFO: (self._security_info, len(security_info(chip, efuses))),
        }

    def serve(self) -> Exit:
        """Answer until the loop ends.

        Raises:
            PowerLost: the supply was cut at an operation.
        """
        try:
            if not self._await_sync():
                return Exit.STOPPED
            while self._leave is None:
                if not self._receive():
                    return Exit.STOPPED
                self._handle()
        except _ResetNow:
            return Exit.SOFTWARE_RESET
        except _HungUp:
            self._stop.wait()
            return Exit.STOPPED
        except _JumpedAway:
            return Exit.RUN
        if self._leave is Exit.RUN and self._secure:
            return Exit.SOFTWARE_RESET
        if (
            self._leave is Exit.RUN
            and self._dialect.needs_open_secure_boot
            and secure_boot_enabled(self._efuses)
        ):
            return Exit.SOFTWARE_RESET
        return self._leave

    # Packets

    def _await_sync(self) -> bool:
        """Nothing but a synchronisation is answered before the first one."""
        while self._receive():
            if self._packet[0] == 0 and self._packet[1] == Opcode.SYNC:
                answer = bytearray(struct.pack("<BBHI", 1, Opcode.SYNC, 4, self._word(0)) + bytes(4))
                for _ in range(SYNC_ANSWERS):
                    self._uart.send(slip.encode(bytes(answer)))
                if self._dialect.sync_fills_answer:
                    self._answer[:8] = answer[:8]
                return True
        return False

    def _receive(self) -> bool:
        """Put the next frame at the start of the packet buffer; False when the board is stopped."""
        while not self._stop.is_set():
            frame = self._frames.next()
            if frame is not None:
                self._packet[: len(frame)] = frame
                return True
            self._frames.feed(self._uart.recv(0.5))
        return False

    def _handle(self) -> None:
        self._guard()
        opcode = self._packet[1]
        known = self._packet[0] == 0 and opcode in self._handlers and opcode <= self._dialect.last_opcode
        if not known or (self._secure and opcode not in IN_SECURE_DOWNLOAD):
            # The answer goes out under the opcode of the last known command.
            self._send_answer(self._fail(RomError.MESSAGE), 0)
            return
        handler, payload_bytes = self._handlers[opcode]
        status = handler()
        self._answer[1] = opcode
        self._send_answer(status, payload_bytes)

    def _send_answer(self, status: int, payload_bytes: int) -> None:
        wants_reset = self._error == RomError.WISH_RESET
        if wants_reset:
            self._error = RomError.NONE
        at = 8 + payload_bytes
        self._answer[at : at + 2] = bytes((status, self._error & 0xFF))
        struct.pack_into("<H", self._answer, 2, payload_bytes + 4)
        frame = slip.encode(bytes(self._answer[: at + 4]))
        for _ in range(SYNC_ANSWERS if self._answer[1] == Opcode.SYNC else 1):
            self._guard()
            self._uart.send(frame)
        if wants_reset:
            self._uart.send(b"\xc0\xc0")
            raise _ResetNow
        if self._new_baud:
            self._uart.send(b"\xc0\xc0")
            self._uart.baud, self._new_baud = self._new_baud, 0

    def _guard(self) -> None:
        if not self._dialect.guarded:
            return
        state = download_state(self._efuses)
        if state is Download.OFF and self._secure:
            # This loop prints where it gave up and stands still.
            self._uart.send(b"msg_proc.c 178 \r\n")
            raise _HungUp
        if not self._secure and state is not Download.OPEN:
            raise _ResetNow

    def _word(self, index: int) -> int:
        """Little-endian word `index` of the packet's data."""
        return int(struct.unpack_from("<I", self._packet, 8 + 4 * index)[0])

    def _set_word(self, index: int, value: int) -> None:
        struct.pack_into("<I", self._packet, 8 + 4 * index, value)

    @property
    def _length(self) -> int:
        return int(struct.unpack_from("<H", self._packet, 2)[0])

    def _fail(self, error: RomError) -> int:
        self._error = error
        return 1

    def _set_value(self, value: int) -> None:
        struct.pack_into("<I", self._answer, 4, value & 0xFFFFFFFF)

    def _set_payload(self, data: bytes) -> None:
        self._answer[8 : 8 + len(data)] = data

    # Commands. Each returns the status byte and may set the error byte.

    def _sync(self) -> int:
        self._set_value(self._word(0))
        self._error = RomError.NONE
        return 0

    def _write_reg(self) -> int:
        # The ROM would go on into whatever lies behind its buffer.
        for entry in range(min(self._length, BUFFER_BYTES - 8) >> 4):
            address, value, mask, delay_us = struct.unpack_from("<IIII", self._packet, 8 + 16 * entry)
            # A delay is accounted as nothing: what it waits for is done at once here.
            del delay_us
            old = self._space.read(address)
            self._guard()
            self._space.write(address, (old & ~mask & 0xFFFFFFFF) | (value & mask))
        self._error = RomError.NONE
        return 0

    def _read_reg(self) -> int:
        self._guard()
        self._set_value(self._space.read(self._word(0)))
        self._error = RomError.NONE
        return 0

    def _spi_set_params(self) -> int:
        if self._length != 0x18:
            return self._fail(RomError.MESSAGE)
        p = self._flash.parameters
        p.device_id, p.chip_size, p.block_size, p.sector_size, p.page_size, p.status_mask = (
            self._word(index) for index in range(6)
        )
        return 0

    def _spi_attach(self) -> int:
        self._error = RomError.NONE
        return 0

    def _security_info(self) -> int:
        self._set_payload(security_info(self._chip, self._efuses))
        return 0

    def _change_baudrate(self) -> int:
        wanted = self._word(0)
        sixteenths = CRYSTAL_HZ * 16
        if self._packet[12]:
            # With a second argument the ROM takes the first one for the UART's divider.
            self._new_baud = sixteenths // wanted if wanted else 0
        elif wanted <= sixteenths:
            self._new_baud = wanted or 1
        self._error = RomError.NONE
        return 0

    def _read_flash(self) -> int:
        pointer = self._dialect.read_function
        if pointer is not None and self._space.read(pointer):
            # Somebody has written another address over that of the ROM's own function.
            self.entry = self._space.read(pointer)
            raise _JumpedAway
        address, size = self._word(0), self._word(1)
        if size > 64:
            return self._fail(RomError.READ_LENGTH)
        data = self._flash.read(address, size, whole_words=True)
        if data is None:
            return self._fail(RomError.READ)
        self._set_payload(data)
        self._error = RomError.NONE
        return 0

    def _md5(self) -> int:
        if self._length > MAX_DATA_PACKET_BYTES:
            return self._fail(RomError.MESSAGE)
        address, size = self._word(0), self._word(1)
        digest = hashlib.md5(usedforsecurity=False)
        left = 0 if size >> 31 else size
        while left > 0 and not self._stop.is_set():
            count = min(left, 0x10000)
            # The ROM reads whole words, so the last of them counts for the range.
            data = self._flash.read(address, (count + 3) & ~3)
            if data is None:
                return self._fail(RomError.READ)
            digest.update(data[:count])
            address, left = address + count, left - count
        self._set_payload(digest.hexdigest().encode())
        self._error = RomError.NONE
        return 0

    def _begin(self, transfer: Transfer) -> None:
        transfer.total, transfer.blocks, transfer.block_size, transfer.address = (
            self._word(index) for index in range(4)
        )
        transfer.sequence = transfer.done = 0
        transfer.encrypted = False

    def _flash_begin(self) -> int:
        if self._length != self._dialect.begin_bytes or self._word(2) > MAX_BLOCK_BYTES:
            return self._fail(RomError.MESSAGE)
        encrypted = self._dialect.begin_bytes == 20 and self._word(4) != 0
        if encrypted and self._efuses.field(self._chip.fuses.manual_encrypt_disable):
            return self._fail(RomError.FORBIDDEN)
        self._begin(self._transfer)
        self._transfer.encrypted = encrypted
        if not self._flash.erase_area(self._transfer.address, self._transfer.total):
            return self._fail(RomError.FAILED)
        return 0

    def _take_block(self, transfer: Transfer, *, whole_words: bool) -> bytes | None:
        """The block in the packet, checked; its number counts as used even when the checksum is wrong."""
        size = self._word(0)
        if self._length > MAX_DATA_PACKET_BYTES or self._word(1) != transfer.sequence:
            self._error = RomError.MESSAGE
            return None
        if size > transfer.block_size or (whole_words and size % 4):
            self._error = RomError.MESSAGE
            return None
        transfer.sequence += 1
        data = bytes(self._packet[24 : 24 + size])
        if _checksum(data) != self._packet[4]:
            self._error = RomError.CHECKSUM
            return None
        return data

    def _flash_data(self) -> int:
        transfer = self._transfer
        data = self._take_block(transfer, whole_words=True)
        if data is None:
            return 1
        if transfer.encrypted:
            if (transfer.address | len(data)) & 0xF:
                return self._fail(RomError.FORBIDDEN)
            self._flash.write_encrypted(transfer.address, data)
        else:
            self._flash.write(transfer.address, data)
            back = self._flash.read(transfer.address, len(data))
            if back is not None:
                # The ROM reads back over the packet; only the XOR of all bytes is compared.
                self._packet[24 : 24 + len(back)] = back
            if _checksum(bytes(self._packet[24 : 24 + len(data)])) != self._packet[4]:
                return self._fail(RomError.WRITE)
        transfer.done += len(data)
        transfer.address += len(data)
        return 0

    def _flash_end(self) -> int:
        # Whatever the answer, the loop ends here.
        self._leave = Exit.RUN
        self.entry = 0
        transfer = self._transfer
        if transfer.sequence != transfer.blocks or transfer.total != transfer.done:
            return self._fail(RomError.FAILED)
        if not self._packet[8]:
            self._error = RomError.WISH_RESET
        return 0

    def _mem_begin(self) -> int:
        if self._length != 16 or self._word(2) > MAX_BLOCK_BYTES:
            return self._fail(RomError.MESSAGE)
        self._begin(self._transfer)
        self.loaded.append((self._transfer.address, self._transfer.total))
        return 0

    def _mem_data(self) -> int:
        data = self._take_block(self._transfer, whole_words=False)
        if data is None:
            return 1
        self._space.load(self._transfer.address, data)
        self._transfer.done += len(data)
        self._transfer.address += len(data)
        return 0

    def _mem_end(self) -> int:
        if self._length > 8:
            return self._fail(RomError.MESSAGE)
        self._leave = None if self._packet[8] else Exit.RUN
        self.entry = self._word(1)
        return 0

    def _defl_begin(self) -> int:
        if self._length != self._dialect.begin_bytes or self._word(2) > MAX_BLOCK_BYTES:
            return self._fail(RomError.MESSAGE)
        if self._dialect.begin_bytes == 20 and self._word(4) != 0:
            # This ROM has no compressed encrypted write.
            return self._fail(RomError.FORBIDDEN)
        self._begin(self._packed)
        self._inflate.filled = 0
        self._inflate.stream = zlib.decompressobj()
        if not self._flash.erase_area(self._packed.address, self._packed.total):
            return self._fail(RomError.FAILED)
        return 0

    def _defl_data(self) -> int:
        packed, inflate = self._packed, self._inflate
        data = self._take_block(packed, whole_words=False)
        if data is None:
            return 1
        is_last = packed.sequence == packed.blocks
        try:
            self._unpack(inflate.stream.decompress(data))
            # In the last block the ROM's inflate takes zeros for what is missing, up to the end of its window.
            left = WINDOW_BYTES - inflate.filled
            while is_last and not inflate.stream.eof and left > 0:
                made = inflate.stream.decompress(bytes(64), left)
                left -= len(made)
                self._unpack(made)
        except zlib.error as error:
            wrong_sum = "incorrect data check" in str(error)
            return self._fail(RomError.INFLATE_CHECK if wrong_sum else RomError.INFLATE_FAILED)
        if inflate.stream.unused_data.strip(b"\0"):
            # Input behind the end of the stream is never used up, and the ROM goes round for ever.
            raise _HungUp
        if is_last:
            rest = WINDOW_BYTES if self._dialect.flushes_whole_window else (inflate.filled + 3) & ~3
            self._flash.write(packed.address, bytes(inflate.window[:rest]))
        self._set_word(0, 0)
        return 0

    def _unpack(self, plain: bytes) -> None:
        """Put inflated bytes into the window, and the window into flash whenever it is full."""
        for window in self._inflate.put(plain):
            self._flash.write(self._packed.address, window)
            self._packed.address += WINDOW_BYTES

    def _defl_end(self) -> int:
        if self._packed.sequence != self._packed.blocks:
            return self._fail(RomError.FAILED)
        if not self._packet[8]:
            self._error = RomError.WISH_RESET
        return 0


def _checksum(data: bytes) -> int:
    return CHECKSUM_SEED ^ xor_fold(data)
