"""The words of the UART download protocol: opcodes, error codes, and where the mask ROMs differ."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

from harness.chips import Chip
from harness.twin.efuses import Efuses
from harness.twin.security import has_key_purposes, key_purpose

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
    """Encrypted write that the eFuses or the alignment forbid."""
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
    """Where the ROMs differ."""

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
    read_function: int | None = None
    """Address of a pointer in RAM through which READ_FLASH_SLOW reads, and which esptool turns to its stub."""
    says_chip_id: bool = True
    """GET_SECURITY_INFO ends with chip id and ROM version (all but ESP32-S2's)."""


_LATER = Dialect(
    begin_bytes=20,
    last_opcode=Opcode.GET_SECURITY_INFO,
    guarded=True,
    flushes_whole_window=False,
    sync_fills_answer=False,
    needs_open_secure_boot=True,
)
"""As the ROM of ESP32-C3 was seen to do; the other newer chips are taken to do the same."""

DIALECTS = {
    "esp32": Dialect(
        begin_bytes=16,
        last_opcode=Opcode.SPI_FLASH_MD5,
        guarded=False,
        flushes_whole_window=True,
        sync_fills_answer=True,
        needs_open_secure_boot=False,
    ),
    # ESP-IDF leaves esptool's stub on with secure boot, so this ROM starts it.
    "esp32s2": replace(_LATER, needs_open_secure_boot=False, says_chip_id=False),
    "esp32s3": replace(_LATER, read_function=0x3FCEF688),
    **{f"esp32{kind}": _LATER for kind in ("c2", "c3", "c5", "c6", "h2", "p4")},
}


_NO_PURPOSE = 12
_FLAG_BITS = {
    "SECURE_BOOT_EN": 0,
    "SECURE_BOOT_AGGRESSIVE_REVOKE": 1,
    "ENABLE_SECURITY_DOWNLOAD": 2,
    "SECURE_BOOT_KEY_REVOKE0": 3,
    "SECURE_BOOT_KEY_REVOKE1": 4,
    "SECURE_BOOT_KEY_REVOKE2": 5,
    "DIS_PAD_JTAG": 7,
    "HARD_DIS_JTAG": 7,
    "DIS_DOWNLOAD_DCACHE": 9,
    "DIS_DOWNLOAD_ICACHE": 10,
}
"""Fuses that GET_SECURITY_INFO shows, as esptool reads its flags; a chip has some of them."""


def security_flags(efuses: Efuses) -> int:
    """The flags of GET_SECURITY_INFO."""
    flags = sum(efuses.field(name) << bit for name, bit in _FLAG_BITS.items() if efuses.has_field(name))
    if efuses.has_field("SOFT_DIS_JTAG"):
        flags |= (bin(efuses.field("SOFT_DIS_JTAG")).count("1") & 1) << 6
    return flags


def security_info(chip: Chip, efuses: Efuses, rom_version: int = 3) -> bytes:
    """The 20 bytes of GET_SECURITY_INFO: flags, counter, seven key purposes, chip id, ROM version.

    The seventh purpose is that of block 10, which has none: the ROM says 12 for it. Chips without purposes show
    zeros. ESP32-S2's ROM ends before the chip id.
    """
    purposes = [0] * 7
    if has_key_purposes(chip):
        blocks = efuses.geometry.key_blocks
        purposes = [*(key_purpose(efuses, block.name) for block in blocks), _NO_PURPOSE]
    head = struct.pack("<IB7B", security_flags(efuses), efuses.field(chip.fuses.counter), *purposes)
    if not DIALECTS[chip.name].says_chip_id:
        return head
    return head + struct.pack("<II", chip.chip_id, rom_version)


#: First address of the text that esptool's stubs (both sets) load, by chip.
STUB_TEXT_ADDRESSES = {
    "esp32": (0x400A8000, 0x400BE000),
    "esp32s2": (0x40028000,),
    "esp32s3": (0x40378000,),
    "esp32c2": (0x40380000,),
    "esp32c3": (0x40380000,),
    "esp32c5": (0x40800000,),
    "esp32c6": (0x40800000,),
    "esp32h2": (0x40800000,),
    "esp32p4": (0x4FF50000,),
}


def is_stub(chip: Chip, loaded: list[tuple[int, int]], entry: int) -> bool:
    """Whether what was loaded into RAM lies where esptool's stub lies and is entered inside its text."""
    starts = STUB_TEXT_ADDRESSES[chip.name]
    return any(first in starts and first <= entry < first + size for first, size in loaded)
