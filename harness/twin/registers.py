"""The address space that a host tool can look into: eFuse and SPI controllers, some fixed values, RAM.

Every other address reads 0 and forgets what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.chips import Chip
from harness.twin.efuse_controller import WINDOW_BYTES, EfuseController
from harness.twin.efuses import Efuses
from harness.twin.flash import Flash
from harness.twin.spi_flash import SPI_LAYOUTS, SpiFlashController
from harness.twin.uart import Uart

CRYSTAL_HZ = 40_000_000
"""Of all modelled boards but those whose row in `CHIP_MAPS` has another."""


class Device(Protocol):
    """A block of registers; offsets are multiples of 4."""

    def read(self, offset: int) -> int: ...

    def write(self, offset: int, value: int) -> None: ...


@dataclass(frozen=True, slots=True)
class ChipMap:
    """Addresses of one chip that a tool looks at, besides the controllers."""

    fixed: tuple[tuple[int, int], ...]
    """(address, value) of registers that never change on the modelled chip."""
    uart_divider: int
    """UART0 CLKDIV: the tool works out the crystal from it and its own baud rate."""
    stub_uart_clock_hz: int
    """What UART0 runs on under esptool's stub: on ESP32 it starts the PLL, which doubles the bus clock."""
    strap: int
    """GPIO_STRAP, which holds the boot mode sampled at reset."""
    ram: tuple[tuple[int, int], ...]
    """(first, first behind) of memory that keeps what is written."""
    calibration: int | None = None
    """RTCCALICFG1 of timer group 0: the 8 MHz oscillator measured against the crystal."""
    crystal_hz: int = CRYSTAL_HZ


CHIP_MAPS = {
    "esp32": ChipMap(
        fixed=(
            # The word in mask ROM by which esptool knows the chip; APB_CTL_DATE with bit 31: revision 3.
            (0x40001000, 0x00F01D83),
            (0x3FF6607C, 0x96042000),
        ),
        uart_divider=0x3FF40014,
        stub_uart_clock_hz=2 * CRYSTAL_HZ,
        strap=0x3FF44038,
        ram=((0x3FF80000, 0x3FF82000), (0x3FFAE000, 0x40000000), (0x40070000, 0x400C2000)),
        calibration=0x3FF5F06C,
    ),
    "esp32c3": ChipMap(
        # The word that older tools knew the chip by (ROM of revision 3).
        fixed=((0x40001000, 0x1B31506F),),
        uart_divider=0x60000014,
        stub_uart_clock_hz=CRYSTAL_HZ,
        strap=0x60004038,
        ram=((0x3FC80000, 0x3FCE0000), (0x4037C000, 0x403E0000), (0x50000000, 0x50002000)),
    ),
    "esp32s2": ChipMap(
        # The word by which esptool knows the chip, whose ROM does not say its number.
        fixed=((0x40001000, 0x000007C6),),
        uart_divider=0x3F400014,
        stub_uart_clock_hz=CRYSTAL_HZ,
        strap=0x3F404038,
        ram=(
            (0x3FF9E000, 0x3FFA0000),
            (0x3FFB0000, 0x40000000),
            (0x40020000, 0x40072000),
            (0x50000000, 0x50002000),
        ),
    ),
    "esp32s3": ChipMap(
        fixed=(),
        uart_divider=0x60000014,
        stub_uart_clock_hz=CRYSTAL_HZ,
        strap=0x60004038,
        ram=(
            (0x3FC88000, 0x3FD00000),
            (0x40370000, 0x403E0000),
            (0x600FE000, 0x60100000),
            (0x50000000, 0x50002000),
        ),
    ),
    # Most boards of this chip have 26 MHz, at which its ROM speaks at 74880 baud; this one has 40 MHz.
    "esp32c2": ChipMap(
        fixed=(),
        uart_divider=0x60000014,
        stub_uart_clock_hz=CRYSTAL_HZ,
        strap=0x60004038,
        ram=((0x3FCA0000, 0x3FCE0000), (0x4037C000, 0x403C0000)),
    ),
    "esp32c5": ChipMap(
        # PCR_SYSCLK_CONF: the crystal that the ROM expects, in MHz from bit 24 on.
        fixed=((0x60096110, 48 << 24),),
        uart_divider=0x60000014,
        stub_uart_clock_hz=48_000_000,
        strap=0x60091038,
        ram=((0x40800000, 0x40860000), (0x50000000, 0x50004000)),
        crystal_hz=48_000_000,
    ),
    "esp32c6": ChipMap(
        fixed=(),
        uart_divider=0x60000014,
        stub_uart_clock_hz=CRYSTAL_HZ,
        strap=0x60091038,
        ram=((0x40800000, 0x40880000), (0x50000000, 0x50004000)),
    ),
    "esp32h2": ChipMap(
        fixed=(),
        uart_divider=0x60000014,
        stub_uart_clock_hz=32_000_000,
        strap=0x60091038,
        ram=((0x40800000, 0x40850000), (0x50000000, 0x50001000)),
        crystal_hz=32_000_000,
    ),
    "esp32p4": ChipMap(
        fixed=(),
        uart_divider=0x500CA014,
        stub_uart_clock_hz=CRYSTAL_HZ,
        strap=0x500E0038,
        ram=((0x4FF00000, 0x4FFC0000), (0x50108000, 0x50110000)),
    ),
}


class AddressSpace:
    """What READ_REG, WRITE_REG and the memory download reach. `boot_mode` is the strap value."""

    def __init__(self, chip: Chip, efuses: Efuses, flash: Flash, uart: Uart, boot_mode: int) -> None:
        layout = SPI_LAYOUTS[chip.name]
        self._map = CHIP_MAPS[chip.name]
        self._uart_clock_hz = self._map.crystal_hz
        devices: tuple[tuple[int, int, Device], ...] = (
            (efuses.geometry.base, WINDOW_BYTES, EfuseController(efuses)),
            (layout.base, layout.size, SpiFlashController(layout, flash)),
        )
        self._devices = devices
        self._special: dict[int, Callable[[], int]] = {
            self._map.uart_divider: lambda: _clock_divider(self._uart_clock_hz, uart.baud),
            self._map.strap: lambda: boot_mode,
        }
        if self._map.calibration is not None:
            self._special[self._map.calibration] = lambda: _calibration(efuses)
        self._fixed = dict(self._map.fixed)
        self._ram: dict[int, int] = {}

    def enter_stub(self) -> None:
        """From here on the clocks are set as the flasher stub sets them, until the next reset."""
        self._uart_clock_hz = self._map.stub_uart_clock_hz

    def read(self, address: int) -> int:
        """The 32-bit word at `address` (rounded down to a word)."""
        address &= 0xFFFFFFFC
        for base, size, device in self._devices:
            if base <= address < base + size:
                return device.read(address - base)
        if address in self._special:
            return self._special[address]()
        return self._fixed.get(address, self._ram.get(address, 0))

    def write(self, address: int, value: int) -> None:
        """Store a 32-bit word."""
        address &= 0xFFFFFFFC
        for base, size, device in self._devices:
            if base <= address < base + size:
                device.write(address - base, value & 0xFFFFFFFF)
                return
        if self._is_ram(address):
            self._ram[address] = value & 0xFFFFFFFF

    def load(self, address: int, data: bytes) -> None:
        """Copy `data` into memory, as the memory download does."""
        for at in range(address & ~3, address + len(data), 4):
            if not self._is_ram(at):
                continue
            word = bytearray(self._ram.get(at, 0).to_bytes(4, "little"))
            for i in range(4):
                if 0 <= at + i - address < len(data):
                    word[i] = data[at + i - address]
            self._ram[at] = int.from_bytes(word, "little")

    def _is_ram(self, address: int) -> bool:
        return any(first <= address < behind for first, behind in self._map.ram)


def _clock_divider(clock_hz: int, baud: int) -> int:
    """CLKDIV: whole part in bits 0 to 19, sixteenths in bits 20 to 23."""
    sixteenths = clock_hz * 16 // baud
    return (sixteenths >> 4 & 0xFFFFF) | (sixteenths & 0xF) << 20


def _calibration(efuses: Efuses) -> int:
    """The value with which the ROM, and esptool after it, arrive at a crystal of 40 MHz (bits 7 and up)."""
    frequency = efuses.field("CLK8M_FREQ")
    return (CRYSTAL_HZ * 40 // 15625 // frequency) << 7 if frequency else 0
