"""What differs from mask ROM to mask ROM: banners, reset words, straps, memory, and how a failed start ends.

ESP32 (revision 3) and ESP32-C3 were read in their ROMs and tried in QEMU. Of the others no ROM was at hand: their
banners, words, straps and the PC that a reset saves are from logs of silicon and ESP-IDF's documentation, their
memory from ESP-IDF's ``soc.h``, and where neither says anything they are taken to do as ESP32-C3. So are the words of
resets that no log shows, which have the form of those that logs show; and the line before a ROM gives up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.twin.boot_context import (
    RESET_RTC_WATCHDOG,
    RESET_SOFTWARE_CPU,
    RESET_TIMER_GROUP_WATCHDOG,
)

_ESP32_REASONS = {
    0x1: "POWERON_RESET",
    0x2: "EXT_SYS_RESET",
    0x3: "SW_RESET",
    0x4: "OWDT_RESET",
    0x5: "DEEPSLEEP_RESET",
    0x6: "SDIO_RESET",
    0x7: "TG0WDT_SYS_RESET",
    0x8: "TG1WDT_SYS_RESET",
    0x9: "RTCWDT_SYS_RESET",
    0xA: "INTRUSION_RESET",
    0xB: "TGWDT_CPU_RESET",
    0xC: "SW_CPU_RESET",
    0xD: "RTCWDT_CPU_RESET",
    0xE: "EXT_CPU_RESET",
    0xF: "RTCWDT_BROWN_OUT_RESET",
    0x10: "RTCWDT_RTC_RESET",
}
_C3_REASONS = {
    0x1: "POWERON",
    0x3: "RTC_SW_SYS_RST",
    0x5: "DSLEEP",
    0x7: "TG0WDT_SYS_RST",
    0x8: "TG1WDT_SYS_RST",
    0x9: "RTCWDT_SYS_RST",
    0xA: "INTRUSION_RST",
    0xB: "TG0WDT_CPU_RST",
    0xC: "RTC_SW_CPU_RST",
    0xD: "RTCWDT_CPU_RST",
    0xF: "BROWNOUT_RST",
    0x10: "RTCWDT_RTC_RST",
    0x11: "TG1WDT_CPU_RST",
    0x12: "SUPER_WDT_RST",
    0x13: "GLITCH_RTC_RST",
    0x14: "EFUSE_RST",
    0x15: "USB_UART_CHIP_RESET",
    0x16: "USB_JTAG_CHIP_RESET",
    0x17: "POWER_GLITCH_RESET",
}
_C6_REASONS = {
    0x1: "POWERON",
    0x3: "LP_SW_HPSYS",
    0x5: "SLEEP_WAKEUP",
    0x6: "SDIO_HPSYS",
    0x7: "TG0_WDT_HPSYS",
    0x8: "TG1_WDT_HPSYS",
    0x9: "LP_WDT_HPSYS",
    0xB: "TG0_WDT_CPU",
    0xC: "SW_CPU",
    0xD: "LP_WDT_CPU",
    0xF: "BROWN_OUT",
    0x10: "LP_WDT_SYS",
    0x11: "TG1_WDT_CPU",
    0x12: "SUPER_WDT",
    0x14: "EFUSE_CRC",
    0x15: "USB_UART_HPSYS",
    0x16: "USB_JTAG_HPSYS",
    0x18: "JTAG_CPU",
}
_P4_REASONS = {
    0x1: "POWERON",
    0x3: "SW_SYS_RESET",
    0x5: "PMU_SYS_PWR_DOWN_RESET",
    0x7: "HP_SYS_HP_WDT_RESET",
    0x9: "HP_SYS_LP_WDT_RESET",
    0xB: "HP_CORE_HP_WDT_RESET",
    0xC: "SW_CPU_RESET",
    0xD: "HP_CORE_LP_WDT_RESET",
    0xF: "BROWN_OUT_RESET",
    0x10: "CHIP_LP_WDT_RESET",
    0x12: "SUPER_WDT_RESET",
    0x13: "GLITCH_RTC_RESET",
    0x14: "EFUSE_CRC_ERR_RESET",
    0x16: "CHIP_USB_JTAG_RESET",
    0x17: "CHIP_USB_UART_RESET",
    0x18: "JTAG_RESET",
    0x1A: "CPU_LOCKUP_RESET",
}


@dataclass(frozen=True, slots=True)
class RomFacts:
    """One mask ROM."""

    banner: tuple[str, ...]
    reasons: Mapping[int, str]
    flash_boot: str
    """Strap value and name of a start from flash."""
    download_strap: int
    """GPIO_STRAP with the boot button down, on boards wired like Espressif's."""
    download_boot: str
    """Name of that strap value."""
    memory: tuple[tuple[int, int], ...]
    """RAM (first, first behind) that the ROM can load to; a store elsewhere faults."""
    unknown_reason: str = "unk"
    classic: bool = False
    """ESP32, whose ROM has lines and an order of its own."""
    give_up: str = "ets_main.c 333 "
    """Source line that the ROM prints before it waits for its watchdog."""
    watchdog_reason: int = RESET_TIMER_GROUP_WATCHDOG
    watchdog_s: float = 0.32
    header_lines: int = 128
    """How many ``invalid header`` lines come before the watchdog strikes: as many as fit on a wire at 115200 baud."""
    own_data: tuple[int, int] | None = None
    """The ROM's own data and stack, which it does not load over; None where that is not known."""
    saved_pc: Mapping[int, str] = field(default_factory=dict)
    """Where the ROM was, by the reason of the reset that ended it there."""
    shows_write_protect: bool = True
    """Prints ``SPIWP:`` before the mode, which newer ROMs call ``SPI mode``."""


ROMS: Mapping[str, RomFacts] = {
    "esp32": RomFacts(
        banner=("ets Jul 29 2019 12:21:46", ""),
        reasons=_ESP32_REASONS,
        unknown_reason="NO_MEAN",
        classic=True,
        flash_boot="0x12 (SPI_FAST_FLASH_BOOT)",
        download_strap=0x3,
        download_boot="DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2)",
        give_up="ets_main.c 384 ",
        watchdog_reason=RESET_RTC_WATCHDOG,
        watchdog_s=0.34,
        header_lines=8,
        memory=(
            (0x3FF80000, 0x3FF82000),
            (0x3FFAE000, 0x40000000),
            (0x40070000, 0x400C2000),
            (0x50000000, 0x50002000),
        ),
    ),
    "esp32s2": RomFacts(
        banner=("ESP-ROM:esp32s2-rc4-20191025", "Build:Oct 25 2019"),
        reasons=_C3_REASONS,
        flash_boot="0x8 (SPI_FAST_FLASH_BOOT)",
        download_strap=0x0,
        download_boot="DOWNLOAD(USB/UART0)",
        memory=(
            (0x3FF9E000, 0x3FFA0000),
            (0x3FFB0000, 0x40000000),
            (0x40020000, 0x40072000),
            (0x50000000, 0x50002000),
        ),
    ),
    "esp32s3": RomFacts(
        banner=("ESP-ROM:esp32s3-20210327", "Build:Mar 27 2021"),
        reasons=_C3_REASONS,
        flash_boot="0x8 (SPI_FAST_FLASH_BOOT)",
        download_strap=0x0,
        download_boot="DOWNLOAD(USB/UART0)",
        memory=(
            (0x3FC88000, 0x3FD00000),
            (0x40370000, 0x403E0000),
            (0x600FE000, 0x60100000),
            (0x50000000, 0x50002000),
        ),
        saved_pc={RESET_TIMER_GROUP_WATCHDOG: "0x40048839"},
    ),
    "esp32c2": RomFacts(
        banner=("ESP-ROM:esp8684-api2-20220127", "Build:Jan 27 2022"),
        reasons=_C3_REASONS,
        flash_boot="0xc (SPI_FAST_FLASH_BOOT)",
        download_strap=0x4,
        download_boot="DOWNLOAD(UART0)",
        memory=((0x3FCA0000, 0x3FCE0000), (0x4037C000, 0x403C0000)),
    ),
    "esp32c3": RomFacts(
        banner=("ESP-ROM:esp32c3-api1-20210207", "Build:Feb  7 2021"),
        reasons=_C3_REASONS,
        flash_boot="0x8 (SPI_FAST_FLASH_BOOT)",
        download_strap=0x7,
        download_boot="DOWNLOAD(USB/UART0/1)",
        memory=((0x3FC80000, 0x3FCE0000), (0x4037C000, 0x403E0000), (0x50000000, 0x50002000)),
        own_data=(0x3FCDE160, 0x3FCDF664),
        # In its loop of ``invalid header`` lines.
        saved_pc={RESET_TIMER_GROUP_WATCHDOG: "0x4004d1f8"},
    ),
    "esp32c5": RomFacts(
        banner=("ESP-ROM:esp32c5-eco2-20250121", "Build:Jan 21 2025"),
        reasons=_C6_REASONS,
        flash_boot="0x18 (SPI_FAST_FLASH_BOOT)",
        download_strap=0x10,
        download_boot="DOWNLOAD(USB/UART0/SDIO_FEI_FEO)",
        memory=((0x40800000, 0x40860000), (0x50000000, 0x50004000)),
        shows_write_protect=False,
    ),
    "esp32c6": RomFacts(
        banner=("ESP-ROM:esp32c6-20220919", "Build:Sep 19 2022"),
        reasons=_C6_REASONS,
        flash_boot="0xc (SPI_FAST_FLASH_BOOT)",
        download_strap=0x4,
        download_boot="DOWNLOAD(USB/UART0/SDIO_FEI_FEO)",
        memory=((0x40800000, 0x40880000), (0x50000000, 0x50004000)),
        saved_pc={RESET_SOFTWARE_CPU: "0x4001975a"},
    ),
    "esp32h2": RomFacts(
        banner=("ESP-ROM:esp32h2-20221101", "Build:Nov  1 2022"),
        reasons=_C6_REASONS,
        flash_boot="0xc (SPI_FAST_FLASH_BOOT)",
        download_strap=0x4,
        download_boot="DOWNLOAD(USB/UART0)",
        memory=((0x40800000, 0x40850000), (0x50000000, 0x50001000)),
        saved_pc={RESET_SOFTWARE_CPU: "0x400031b6"},
    ),
    "esp32p4": RomFacts(
        banner=("ESP-ROM:esp32p4-eco5-20250430", "Build:Apr 30 2025"),
        reasons=_P4_REASONS,
        flash_boot="0x30f (SPI_FAST_FLASH_BOOT)",
        download_strap=0x307,
        download_boot="DOWNLOAD(USB/UART0/SPI)",
        memory=((0x4FF00000, 0x4FFC0000), (0x50108000, 0x50110000)),
        shows_write_protect=False,
    ),
}
