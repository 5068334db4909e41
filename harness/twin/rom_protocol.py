"""The words of the UART download protocol: opcodes, error codes, and where the two mask ROMs differ."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from harness.chips import Chip
from harness.twin.efuses import Efuses

BUFFER_BYTES = 0x2000
MAX_BLOCK_BYTES = 0x1800
MAX_DATA_PACKET_BYTES = 0x1810
"""Length field of a data packet: 16 bytes of header and one block."""
WINDOW_BYTES = 0x8000
"""Output window of the ROM's inflate; flash is written when it is full."""
CHECKSUM_SEED = 0xEF
SYNC_ANSWERS = 8


class Opcode(IntEnum):
    """Commands of the mask ROMs."""

    FLASH_BEGIN = 0x02
    FLASH_DATA = 0x03
    FLASH_END = 0x04
    MEM_BEGIN = 0x05
    MEM_END = 0x06
    MEM_DATA = 0x07
    SYNC = 0x08
    WRITE_REG = 0x09
    READ_REG = 0x0A
    SPI_SET_PARAMS = 0x0B
    SPI_ATTACH = 0x0D
    READ_FLASH_SLOW = 0x0E
    CHANGE_BAUDRATE = 0x0F
    DEFL_BEGIN = 0x10
    DEFL_DATA = 0x11
    DEFL_END = 0x12
    SPI_FLASH_MD5 = 0x13
    GET_SECURITY_INFO = 0x14


class RomError(IntEnum):
    """The error byte of an answer whose status byte is 1."""

    NONE = 0
    MESSAGE = 5
    FAILED = 6
    CHECKSUM = 7
    WRITE = 8
    READ = 9
    READ_LENGTH = 0xA
    INFLATE_FAILED = 0xB
    INFLATE_CHECK = 0xC
    FORBIDDEN = 0x64
    """Encrypted write that the eFuses or the alignment forbid (ESP32-C3)."""
    WISH_RESET = 0xC7
    """Inside the ROM: reset after the answer. Never on the wire."""


class StubOpcode(IntEnum):
    """Commands that only the stub has."""

    ERASE_FLASH = 0xD0
    ERASE_REGION = 0xD1
    READ_FLASH = 0xD2
    RUN_USER_CODE = 0xD3


class StubError(IntEnum):
    """Two status bytes, big endian on the wire."""

    NONE = 0
    BAD_DATA_LENGTH = 0xC000
    BAD_DATA_CHECKSUM = 0xC100
    INVALID_COMMAND = 0xC300
    FAILED_SPI_OPERATION = 0xC400
    NOT_IN_FLASH_MODE = 0xC600
    INFLATE = 0xC700
    NOT_ENOUGH_DATA = 0xC800
    TOO_MUCH_DATA = 0xC900
    NOT_IMPLEMENTED = 0xFF00


IN_SECURE_DOWNLOAD = frozenset(
    (
        Opcode.FLASH_BEGIN,
        Opcode.FLASH_DATA,
        Opcode.FLASH_END,
        Opcode.SYNC,
        Opcode.SPI_SET_PARAMS,
        Opcode.SPI_ATTACH,
        Opcode.CHANGE_BAUDRATE,
        Opcode.GET_SECURITY_INFO,
    )
)


class Exit(Enum):
    """How a download loop ends."""

    STOPPED = "stopped"
    """Somebody reset the board or took its power."""
    SOFTWARE_RESET = "software-reset"
    RUN = "run"
    """Code in RAM is started at `Loader.entry` (0: nothing to start)."""


@dataclass(slots=True)
class Transfer:
    """State of a flash or memory download, as the ROM keeps it."""

    total: int = 0
    blocks: int = 0
    block_size: int = 0
    sequence: int = 0
    done: int = 0
    address: int = 0
    encrypted: bool = False


@dataclass(slots=True)
class Inflate:
    """State of a compressed download; the window survives from one download to the next."""

    window: bytearray = field(default_factory=lambda: bytearray(WINDOW_BYTES))
    filled: int = 0
    stream: zlib._Decompress = field(default_factory=zlib.decompressobj)

    def put(self, plain: bytes) -> Iterator[bytes]:
        """Take inflated bytes; yields the window each time it is full."""
        while plain:
            part, plain = plain[: WINDOW_BYTES - self.filled], plain[WINDOW_BYTES - self.filled :]
            self.window[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            if self.filled == WINDOW_BYTES:
                self.filled = 0
                yield bytes(self.window)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where the two ROMs differ."""

    begin_bytes: int
    """Length field that FLASH_BEGIN and DEFL_BEGIN must have."""
    last_opcode: int
    guarded: bool
    """Re-reads the download fuses at every step and resets the chip when they have changed."""
    flushes_whole_window: bool
    """Ends a compressed download with all 32 KiB of its window, whatever lies behind the image."""
    sync_fills_answer: bool
    """The first synchronisation leaves its opcode and value in the answer's buffer."""
    needs_open_secure_boot: bool
    """Code in RAM is not started when secure boot is on; the chip resets instead."""


DIALECTS = {
    "esp32": Dialect(
        begin_bytes=16,
        last_opcode=Opcode.SPI_FLASH_MD5,
        guarded=False,
        flushes_whole_window=True,
        sync_fills_answer=True,
        needs_open_secure_boot=False,
    ),
    "esp32c3": Dialect(
        begin_bytes=20,
        last_opcode=Opcode.GET_SECURITY_INFO,
        guarded=True,
        flushes_whole_window=False,
        sync_fills_answer=False,
        needs_open_secure_boot=True,
    ),
}


_NO_PURPOSE = 12


def security_flags(efuses: Efuses) -> int:
    """The flags of GET_SECURITY_INFO on ESP32-C3."""
    soft_jtag_bits = bin(efuses.field("SOFT_DIS_JTAG")).count("1")
    names = (
        "SECURE_BOOT_EN",
        "SECURE_BOOT_AGGRESSIVE_REVOKE",
        "ENABLE_SECURITY_DOWNLOAD",
        "SECURE_BOOT_KEY_REVOKE0",
        "SECURE_BOOT_KEY_REVOKE1",
        "SECURE_BOOT_KEY_REVOKE2",
    )
    flags = sum(efuses.field(name) << bit for bit, name in enumerate(names))
    flags |= (soft_jtag_bits & 1) << 6
    flags |= efuses.field("DIS_PAD_JTAG") << 7
    return flags | efuses.field("DIS_DOWNLOAD_ICACHE") << 10


def security_info(chip: Chip, efuses: Efuses, rom_version: int = 3) -> bytes:
    """The 20 bytes of GET_SECURITY_INFO: flags, counter, seven key purposes, chip id, ROM version.

    The seventh purpose is that of block 10, which has none: the ROM says 12 for it.
    """
    purposes = [efuses.field(f"KEY_PURPOSE_{n}") for n in range(6)] + [_NO_PURPOSE]
    counter = efuses.field(chip.fuses.counter)
    return struct.pack("<IB7BII", security_flags(efuses), counter, *purposes, chip.chip_id, rom_version)


#: First address of the text that esptool's stubs (both sets) load, by chip.
STUB_TEXT_ADDRESSES = {"esp32": (0x400A8000, 0x400BE000), "esp32c3": (0x40380000,)}


def is_stub(chip: Chip, loaded: list[tuple[int, int]], entry: int) -> bool:
    """Whether what was loaded into RAM lies where esptool's stub lies and is entered inside its text."""
    starts = STUB_TEXT_ADDRESSES[chip.name]
    return any(first in starts and first <= entry < first + size for first, size in loaded)
