"""Why a chip started, from the code and the word that its ROM prints."""

from __future__ import annotations

from enum import Enum


class ResetKind(str, Enum):
    """What a reset means to a test, whatever the chip calls it."""

    POWER_ON = "power-on"
    """Supply or EN pin: the ROM cannot tell them apart."""
    SOFTWARE = "software"
    """``esp_restart()``, the bootloader's own reset, and the end of a panic."""
    WATCHDOG = "watchdog"
    BROWNOUT = "brownout"
    DEEP_SLEEP = "deep-sleep"
    EXTERNAL = "external"
    USB = "usb"
    GLITCH = "glitch"
    OTHER = "other"


ESP32_RESETS = {
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
"""ESP32, as its ROM prints them (rev 3 prints ``TG0WDT_SYS_RST`` and so on in places)."""

RISCV_RESETS = {
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
    0x18: "JTAG_RESET",
    0x19: "POWER_GLITCH_RESET",
}
"""ESP32-C3, and (with gaps) S2, S3 and C2; 0x18 and 0x19 from ESP-IDF's ``rom/rtc.h``, not from a ROM."""

HPSYS_RESETS = {
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
"""ESP32-C5, C6 and H2: some from logs of silicon, the others of the same form, after ESP-IDF's ``rom/rtc.h``."""

ESP32P4_RESETS = {
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
"""ESP32-P4, from ESP-IDF's ``rom/rtc.h``, not from a ROM."""

# First word that fits decides, so BROWN stands before WDT: RTCWDT_BROWN_OUT_RESET.
_WORDS = (
    ("BROWN", ResetKind.BROWNOUT),
    ("POWERON", ResetKind.POWER_ON),
    ("GLITCH", ResetKind.GLITCH),
    ("WDT", ResetKind.WATCHDOG),
    ("SLEEP", ResetKind.DEEP_SLEEP),
    ("PWR_DOWN", ResetKind.DEEP_SLEEP),
    ("USB", ResetKind.USB),
    ("EXT_", ResetKind.EXTERNAL),
    ("SW_", ResetKind.SOFTWARE),
)

_TABLES = {
    "esp32": ESP32_RESETS,
    "esp32p4": ESP32P4_RESETS,
    **{f"esp32{kind}": RISCV_RESETS for kind in ("s2", "s3", "c2", "c3")},
    **{f"esp32{kind}": HPSYS_RESETS for kind in ("c5", "c6", "h2")},
}


def reset_name(chip: str | None, code: int) -> str | None:
    """The ROM's word for reset `code` on `chip` (esptool's name, None if unknown), or None for an unlisted
    code.

    Chips without a row here may number differently: for them only the printed word counts.
    """
    table = _TABLES.get(chip or "esp32c3")
    return table.get(code) if table is not None else None


def reset_kind(name: str | None) -> ResetKind:
    """What the printed word `name` means; `ResetKind.OTHER` for a word that says nothing."""
    if name:
        upper = name.upper()
        for word, kind in _WORDS:
            if word in upper:
                return kind
    return ResetKind.OTHER
