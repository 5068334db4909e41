"""The eFuse controller's registers: which codes program, which load, and what the read registers show."""

from __future__ import annotations

from harness.chips.efuses import Coding
from harness.twin.efuses import CHECK_BYTES, CODED_BYTES, Efuses

CODE_PROGRAM = 0x5A5A
CODE_READ = 0x5AA5
COMMAND_MASK = 0x3
COMMAND_PROGRAM = 0x2
COMMAND_READ = 0x1
WINDOW_BYTES = 0x200

WHO = "rom"
"""Registers are only reached in download mode; the operation log says rom."""

# All chips but ESP32: PGM_DATA0..7 from 0, then PGM_CHECK_VALUE0..2.
_CHECK = 0x20


class EfuseController:
    """Register window of the controller, offsets from its base address.

    Programming is done at once, so the command register always reads 0. Read-only registers ignore writes;
    unknown ones keep what is written where the chip has a read-write register (timing), else read 0.
    """

    def __init__(self, efuses: Efuses) -> None:
        self._efuses = efuses
        self._geometry = efuses.geometry
        self._registers: dict[int, int] = {}
        self._readable = range(0)
        self._blocks = {
            offset: (block.index, offset - block.read_offset)
            for block in self._geometry.blocks
            for offset in range(block.read_offset, block.read_offset + block.size_bytes, 4)
        }
        self._snapshot: dict[int, bytes] = {}
        self._refresh()

    def read(self, offset: int) -> int:
        """The value of the register at `offset`."""
        if offset in self._blocks:
            index, at = self._blocks[offset]
            return int.from_bytes(self._snapshot[index][at : at + 4], "little")
        if offset == self._geometry.command_offset:
            return 0
        if offset in self._geometry.error_offsets:
            return self._errors() >> 32 * self._geometry.error_offsets.index(offset) & 0xFFFFFFFF
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        """Set the register at `offset`; the command register acts when CONF holds the command's code.

        Raises:
            PowerLost: the supply was cut while programming.
        """
        if offset in self._blocks or offset in self._read_only():
            return
        if offset != self._geometry.command_offset:
            self._registers[offset] = value
            return
        code = self._registers.get(self._geometry.conf_offset, 0) & 0xFFFF
        command = value & COMMAND_MASK
        if command == COMMAND_PROGRAM and code == CODE_PROGRAM:
            if self._geometry.coding is Coding.REED_SOLOMON:
                self._program_coded(value >> 2 & 0xF)
            else:
                self._program_all()
        elif command == COMMAND_READ and code == CODE_READ:
            self._efuses.reload()
            self._refresh()

    def _refresh(self) -> None:
        self._snapshot = {
            block.index: self._efuses.block_for_software(block.index) for block in self._geometry.blocks
        }

    def _read_only(self) -> tuple[int, ...]:
        return self._geometry.error_offsets or (0x11C,)

    def _program_coded(self, index: int) -> None:
        """One block from the shared window; the check bytes are blown as given, right or wrong."""
        if index >= len(self._geometry.blocks):
            return
        data = self._window(0, CODED_BYTES)
        check = self._window(_CHECK, CHECK_BYTES)
        block = self._geometry.block(index)
        value = int.from_bytes(data[: block.size_bytes], "little")
        self._efuses.program(index, value, who=WHO, check=check if index else None)

    def _program_all(self) -> None:
        """ESP32: every block whose own write registers are not zero, which are then cleared."""
        for block in self._geometry.blocks:
            value = int.from_bytes(self._window(block.write_offset, block.size_bytes), "little")
            for offset in range(block.write_offset, block.write_offset + block.size_bytes, 4):
                self._registers.pop(offset, None)
            if value:
                self._efuses.program(block.index, value, who=WHO)

    def _window(self, start: int, size: int) -> bytes:
        return b"".join(
            self._registers.get(offset, 0).to_bytes(4, "little") for offset in range(start, start + size, 4)
        )

    def _errors(self) -> int:
        """The error registers as one number: per block from 1 on 3 bits of corrected bytes, and a fail bit.

        On ESP32-C3 the fail bit of a block lies one nibble above its count's: count of block n at bit 4(n-1), fail
        of block n at bit 4n+3; block 10 has none.
        """
        found = 0
        up = 4 * self._geometry.fail_bit_one_nibble_up
        for block in self._geometry.blocks[1:]:
            wrong, failed = self._efuses.coding_errors(block.index)
            found |= min(wrong, 7) << 4 * (block.index - 1)
            if failed and not (up and block is self._geometry.blocks[-1]):
                found |= 1 << 4 * (block.index - 1) + up + 3
        return found
