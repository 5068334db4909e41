"""The SPI controller's registers, through which a host tool sends the flash chip single commands."""

from __future__ import annotations

from dataclasses import dataclass

from harness.twin.flash import SECTOR_BYTES, Flash, FlashFault

WHO = "host"
"""Who changes the flash in the operation log when a tool drives the registers itself."""

_COMMAND_USER = 1 << 18
_USE_ADDRESS = 1 << 30
_USE_MISO = 1 << 28
_USE_MOSI = 1 << 27
_DATA_WORDS = 16

_MANUFACTURER_GIGADEVICE = 0xC8
_MEMORY_TYPE = 0x40

#: JEDEC SFDP (JESD216): header, two parameter headers, and at 0x30 the first dwords of the basic table. Byte
#: 0x10 is the manufacturer of the second table.
_SFDP_HEADER = bytes.fromhex("53464450 060101ff 00060110 300000ff c8000103 600000ff".replace(" ", ""))


@dataclass(frozen=True, slots=True)
class SpiLayout:
    """Where a chip has the registers of SPI1, from the controller's base."""

    base: int
    user: int
    user2: int
    mosi_length: int
    miso_length: int
    data: int
    address_left_aligned: bool
    user1: int
    user_at_reset: int
    """What the ROM leaves in the user register when it waits for a download."""
    size: int = 0x400


_LATER = (0x18, 0x20, 0x24, 0x28, 0x58, False, 0x1C, 0x800000C0)
SPI_LAYOUTS = {
    "esp32": SpiLayout(0x3FF42000, 0x1C, 0x24, 0x28, 0x2C, 0x80, True, 0x20, 0x80000040),
    "esp32s2": SpiLayout(0x3F402000, *_LATER),
    "esp32p4": SpiLayout(0x5008D000, *_LATER),
    **{f"esp32{kind}": SpiLayout(0x60002000, *_LATER) for kind in ("s3", "c2", "c3")},
    **{f"esp32{kind}": SpiLayout(0x60003000, *_LATER) for kind in ("c5", "c6", "h2")},
}


class SpiFlashController:
    """Registers that keep what is written, and a command register that carries it out at once."""

    def __init__(self, layout: SpiLayout, flash: Flash) -> None:
        self._layout = layout
        self._flash = flash
        self._registers = {layout.user: layout.user_at_reset, layout.user2: 0x70000000}
        self._write_enabled = False
        self._status = 0
        size_code = flash.size_bytes.bit_length() - 1
        self.jedec_id = bytes((_MANUFACTURER_GIGADEVICE, _MEMORY_TYPE, size_code))
        density = (flash.size_bytes * 8 - 1).to_bytes(4, "little")
        self._sfdp = (_SFDP_HEADER.ljust(0x30, b"\xff") + b"\xe5\x20\xf1\xff" + density).ljust(0x100, b"\xff")

    def read(self, offset: int) -> int:
        """The value of a register; the command register is always idle."""
        return 0 if offset == 0 else self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Set a register; the user bit of the command register runs a command."""
        if offset != 0:
            self._registers[offset] = value
        elif value & _COMMAND_USER:
            self._run()

    def _run(self) -> None:
        layout, get = self._layout, self._registers.get
        flags = get(layout.user, 0)
        opcode = get(layout.user2, 0) & 0xFF
        address = 0
        if flags & _USE_ADDRESS:
            bits = (get(layout.user1, 0) >> 26 & 0x3F) + 1
            raw = get(4, 0)
            address = raw >> (32 - bits) if layout.address_left_aligned and bits < 32 else raw
        sent = b""
        if flags & _USE_MOSI:
            sent = self._data()[: ((get(layout.mosi_length, 0) & 0x3FF) + 8) // 8]
        answer = self._execute(opcode, address, sent)
        if flags & _USE_MISO:
            length = min(((get(layout.miso_length, 0) & 0x3FF) + 8) // 8, _DATA_WORDS * 4)
            # The data line is pulled up where the chip does not answer.
            self._store(answer[:length].ljust(length, b"\xff"))

    def _execute(self, opcode: int, address: int, sent: bytes) -> bytes:
        if opcode == 0x9F:
            return self.jedec_id
        if opcode == 0x5A:
            return self._sfdp[address : address + 64]
        if opcode in (0x05, 0x35, 0x15):
            byte = {0x05: 0, 0x35: 1, 0x15: 2}[opcode]
            value = self._status >> 8 * byte & 0xFF
            return bytes((value | (2 if byte == 0 and self._write_enabled else 0),)) * 4
        if opcode == 0x4B:
            return bytes(64)
        if opcode in (0x06, 0x04, 0x50, 0x66, 0x99):
            self._write_enabled = opcode in (0x06, 0x50)
            return b""
        if opcode in (0x03, 0x0B):
            return self._read_flash(address)
        if opcode in (0x01, 0x31, 0x11, 0x02, 0x20, 0x52, 0xD8, 0xC7, 0x60) and self._write_enabled:
            self._write_enabled = False
            self._change(opcode, address, sent)
        return b""

    def _read_flash(self, address: int) -> bytes:
        at = address % self._flash.size_bytes
        try:
            return self._flash.read(at, min(64, self._flash.size_bytes - at), who=WHO)
        except FlashFault:
            return b""

    def _change(self, opcode: int, address: int, sent: bytes) -> None:
        at = address % self._flash.size_bytes
        try:
            if opcode in (0x01, 0x31, 0x11):
                shift = {0x01: 0, 0x31: 8, 0x11: 16}[opcode]
                mask = (1 << 8 * len(sent)) - 1
                # Busy and write-enable are not storage.
                kept = self._status & ~(mask << shift)
                self._status = (kept | int.from_bytes(sent, "little") << shift) & 0xFFFFFC
            elif opcode == 0x02:
                self._program_page(at, sent)
            elif opcode in (0xC7, 0x60):
                self._flash.erase(0, self._flash.size_bytes, who=WHO)
            else:
                size = {0x20: SECTOR_BYTES, 0x52: 0x8000, 0xD8: 0x10000}[opcode]
                self._flash.erase(at - at % size, size, who=WHO)
        except FlashFault:
            return

    def _program_page(self, at: int, sent: bytes) -> None:
        """A page program wraps inside its 256-byte page."""
        room = 0x100 - at % 0x100
        self._flash.program(at, sent[:room], who=WHO)
        if len(sent) > room:
            self._flash.program(at - at % 0x100, sent[room:], who=WHO)

    def _data(self) -> bytes:
        base = self._layout.data
        return b"".join(
            self._registers.get(base + 4 * i, 0).to_bytes(4, "little") for i in range(_DATA_WORDS)
        )

    def _store(self, answer: bytes) -> None:
        for i in range(0, len(answer), 4):
            # Bits beyond the answer read as 0, which is what esptool's 24-bit id relies on.
            word = int.from_bytes(answer[i : i + 4], "little")
            self._registers[self._layout.data + i] = word
