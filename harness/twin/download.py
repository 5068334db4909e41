"""The ROM with download straps: its lines, the fuses that forbid download, the loop, the stub."""

from __future__ import annotations

from harness.twin.boot_context import (
    RESET_POWERON,
    RESET_RTC_WATCHDOG,
    RESET_SOFTWARE_SYSTEM,
    RESET_TIMER_GROUP_WATCHDOG,
    BootContext,
    Halted,
    Reset,
    RomLoop,
)
from harness.twin.boot_lines import RomLines
from harness.twin.registers import AddressSpace
from harness.twin.rom_protocol import Exit, is_stub
from harness.twin.rom_serial import RomLoader
from harness.twin.rom_spiflash import RomSpiFlash
from harness.twin.security import Download, download_state
from harness.twin.stub_serial import StubLoader

_ESP32_REASONS = {
    RESET_POWERON: "POWERON_RESET",
    RESET_SOFTWARE_SYSTEM: "SW_RESET",
    RESET_TIMER_GROUP_WATCHDOG: "TG0WDT_SYS_RESET",
    RESET_RTC_WATCHDOG: "RTCWDT_RTC_RESET",
}
_C3_REASONS = {
    RESET_POWERON: "POWERON",
    RESET_SOFTWARE_SYSTEM: "RTC_SW_SYS_RST",
    RESET_TIMER_GROUP_WATCHDOG: "TG0WDT_SYS_RST",
    RESET_RTC_WATCHDOG: "RTCWDT_RTC_RST",
}

#: GPIO_STRAP with the boot button down, on boards wired like Espressif's.
_ESP32_STRAP = 0x3
_C3_STRAP = 0x7

_DISABLED_RESET_S = 0.05
"""How long the ESP32-C3 takes from reset to reset when download is off: start-up and four lines at 115200."""
_ESP32_WATCHDOG_S = 0.34


def boot_mode(ctx: BootContext) -> int:
    """The strap value that this boot saw."""
    return _ESP32_STRAP if ctx.chip.name == "esp32" else _C3_STRAP


def serve(ctx: BootContext, reset_reason: int) -> Reset | RomLoop | Halted | None:
    """Run download mode; returns how it ended, None when ``ctx.stop`` was set.

    Raises:
        PowerLost: the supply was cut at an operation.
    """
    lines = RomLines(ctx.uart)
    state = download_state(ctx.efuses)
    if ctx.chip.name == "esp32":
        if state is Download.OFF:
            # This ROM says so before its banner, stands still, and is reset by the watchdog.
            lines.say("Download mode is disabled. Restart with GPIO0 high.")
            return RomLoop(None, 1, _ESP32_WATCHDOG_S, RESET_RTC_WATCHDOG)
        lines.say("ets Jul 29 2019 12:21:46")
        lines.say("")
        name = _ESP32_REASONS.get(reset_reason, "NO_MEAN")
        lines.say(f"rst:0x{reset_reason:x} ({name}),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))")
        lines.say("waiting for download")
    else:
        lines.say("ESP-ROM:esp32c3-api1-20210207")
        lines.say("Build:Feb  7 2021")
        name = _C3_REASONS.get(reset_reason, "unk")
        lines.say(f"rst:0x{reset_reason:x} ({name}),boot:0x7 (DOWNLOAD(USB/UART0/1))")
        if state is Download.OFF:
            lines.say("Download boot modes disabled")
            return Reset(RESET_SOFTWARE_SYSTEM, _DISABLED_RESET_S)
        secure = state is Download.SECURE
        lines.say("wait uart download(secure mode)" if secure else "waiting for download")
    return _load(ctx)


def _load(ctx: BootContext) -> Reset | RomLoop | Halted | None:
    space = AddressSpace(ctx.chip, ctx.efuses, ctx.flash, ctx.uart, boot_mode(ctx))
    flash = RomSpiFlash(ctx.flash, ctx.cipher, ctx.efuses, who="rom")
    rom = RomLoader(ctx.chip, ctx.efuses, space, flash, ctx.uart, ctx.stop)
    how = rom.serve()
    entry = rom.entry
    if how is Exit.RUN and is_stub(ctx.chip, rom.loaded, entry):
        in_stub = RomSpiFlash(ctx.flash, ctx.cipher, ctx.efuses, who="stub")
        stub = StubLoader(ctx.chip, ctx.efuses, space, in_stub, ctx.uart, ctx.stop)
        how, entry = stub.serve(), stub.entry
    if how is Exit.STOPPED:
        return None
    if how is Exit.SOFTWARE_RESET:
        return Reset(RESET_SOFTWARE_SYSTEM, 0.0)
    if entry == 0:
        return _nothing_to_start(ctx)
    RomLines(ctx.uart).say("twin: target code does not run on the twin")
    return Halted("the host started target code, which does not run here")


def _nothing_to_start(ctx: BootContext) -> RomLoop | Halted:
    """What the ROM does when a download ends without code in RAM: ESP32 tries a flash that is not set up."""
    lines = RomLines(ctx.uart)
    why = "the download ended and there was no code to start"
    if ctx.chip.name != "esp32":
        lines.say("user code done")
        return Halted(why)
    lines.say("flash read err, 631")
    if ctx.efuses.field("CONSOLE_DEBUG_DISABLE"):
        lines.say("ets_main.c 384 ")
        return RomLoop(None, 1, _ESP32_WATCHDOG_S, RESET_RTC_WATCHDOG)
    lines.say("Falling back to built-in command interpreter.")
    lines.say("OK")
    ctx.uart.send(b">")
    return Halted(why)
