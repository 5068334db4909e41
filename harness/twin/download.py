"""The ROM with download straps: its lines, the fuses that forbid download, the loop, the stub."""

from __future__ import annotations

from harness.twin.boot_context import (
    RESET_SOFTWARE_SYSTEM,
    BootContext,
    Halted,
    Reset,
    RomLoop,
)
from harness.twin.boot_lines import RomLines
from harness.twin.registers import AddressSpace
from harness.twin.rom_facts import ROMS
from harness.twin.rom_protocol import Exit, is_stub
from harness.twin.rom_serial import RomLoader
from harness.twin.rom_spiflash import RomSpiFlash
from harness.twin.security import Download, download_state
from harness.twin.stub_serial import StubLoader

_DISABLED_RESET_S = 0.05
"""How long the newer chips take from reset to reset when download is off: start-up and four lines at 115200."""


def boot_mode(ctx: BootContext) -> int:
    """The strap value that this boot saw."""
    return ROMS[ctx.chip.name].download_strap


def serve(ctx: BootContext, reset_reason: int) -> Reset | RomLoop | Halted | None:
    """Run download mode; returns how it ended, None when ``ctx.stop`` was set.

    Raises:
        PowerLost: the supply was cut at an operation.
    """
    lines, facts = RomLines(ctx.uart), ROMS[ctx.chip.name]
    state = download_state(ctx.efuses)
    if facts.classic and state is Download.OFF:
        # This ROM says so before its banner, stands still, and is reset by the watchdog.
        lines.say("Download mode is disabled. Restart with GPIO0 high.")
        return RomLoop(None, 1, facts.watchdog_s, facts.watchdog_reason)
    for line in facts.banner:
        lines.say(line)
    name = facts.reasons.get(reset_reason, facts.unknown_reason)
    lines.say(f"rst:0x{reset_reason:x} ({name}),boot:0x{facts.download_strap:x} ({facts.download_boot})")
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
    lines, facts = RomLines(ctx.uart), ROMS[ctx.chip.name]
    why = "the download ended and there was no code to start"
    if not facts.classic:
        lines.say("user code done")
        return Halted(why)
    lines.say("flash read err, 631")
    if ctx.efuses.field("CONSOLE_DEBUG_DISABLE"):
        lines.say(facts.give_up)
        return RomLoop(None, 1, facts.watchdog_s, facts.watchdog_reason)
    lines.say("Falling back to built-in command interpreter.")
    lines.say("OK")
    ctx.uart.send(b">")
    return Halted(why)
