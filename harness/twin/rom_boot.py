"""The mask ROM from reset to the jump into the second-stage bootloader: its lines, checks and failures.

Texts and order of the checks were taken from the mask ROMs of ESP32 (revision 3) and ESP32-C3 running under
Espressif's QEMU; the watchdog's rhythm from logs of silicon. All newer chips are taken to do as ESP32-C3 but for what
`harness.twin.rom_facts` says.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

from harness.chips import Chip
from harness.errors import FormatError
from harness.formats.bootloader_config import SDKCONFIG_FILE, BootloaderConfig, BootloaderDescription
from harness.twin import bootloader
from harness.twin.boot_context import (
    RESET_SOFTWARE_SYSTEM,
    BootContext,
    Halted,
    LoadedApp,
    Outcome,
    Reset,
    RomLoop,
)
from harness.twin.boot_lines import RomLines
from harness.twin.bootloader_memory import BootloaderMemory
from harness.twin.image_verify import (
    CHECKSUM_SEED,
    HEADER_BYTES,
    MAGIC,
    MAX_SEGMENTS,
    SEGMENT_HEADER_BYTES,
    SHA256_BYTES,
    ImageHeader,
    xor_fold,
)
from harness.twin.operations import FlashFault
from harness.twin.rom_facts import ROMS
from harness.twin.rom_secure_boot import RomSecureBoot, SignatureRefused
from harness.twin.security import secure_boot_enabled

__all__ = ["BootContext", "Halted", "LoadedApp", "Outcome", "Reset", "RomLoop", "boot", "wait_for_reset"]


_BURST_S = 0.02
_SPI_MODES = (
    "QIO",
    "QOUT",
    "DIO",
    "DOUT",
    "FAST_RD",
    "SLOW_RD",
    "OPI_STR",
    "OPI_DTR",
    "OOUT_STR",
    "OIO_STR",
    "OIO_DTR",
)
_PINS = ("clk", "q", "d", "cs0", "hd", "wp")
_PLAUSIBLE_SEGMENTS = 32
"""A header with more is none; up to here the count is only too large."""
_CLOCK_DIVIDERS = {0: 2, 1: 3, 2: 4, 0xF: 1}

_LONGEST_SEGMENT_BYTES = 1 << 20
"""Of the newer chips' ROM, whose addresses and lengths are also multiples of 4."""

_PRINT_NEVER = 3
"""UART_PRINT_CONTROL of the newer chips; 1 and 2 ask a pin, whose level here lets the ROM print."""


class _StopBoot(Exception):  # noqa: N818 - carries the outcome, like a return over two levels
    def __init__(self, outcome: Outcome) -> None:
        super().__init__(type(outcome).__name__)
        self.outcome = outcome


def boot(ctx: BootContext, reset_reason: int) -> Outcome:
    """Print what ROM and second-stage bootloader print after `reset_reason`, and say how it ended.

    Does not wait and does not start the app. Run `wait_for_reset` on a `RomLoop` or `Reset`.

    Raises:
        PowerLost: the supply was cut at one of the bootloader's flash operations.
    """
    rom = _Rom(ctx, reset_reason)
    try:
        return rom.run()
    except _StopBoot as stop:
        return stop.outcome


def wait_for_reset(ctx: BootContext, outcome: RomLoop | Reset) -> int | None:
    """Let the time pass until the chip resets itself, printing what the ROM repeats meanwhile.

    Returns the reset reason for the next `boot`, or None when ``ctx.stop`` was set first.
    """
    if isinstance(outcome, Reset):
        return None if ctx.stop.wait(outcome.after_s) else outcome.reset_reason
    lines = RomLines(ctx.uart)
    left = outcome.repeats
    per_burst = max(1, int(_BURST_S / outcome.interval_s))
    while left > 0:
        count = min(left, per_burst)
        for _ in range(count if outcome.line is not None else 0):
            lines.say(outcome.line or "")
        left -= count
        if ctx.stop.wait(outcome.interval_s * count):
            return None
    return outcome.reset_reason


class _Rom:
    """One pass through the ROM."""

    def __init__(self, ctx: BootContext, reset_reason: int) -> None:
        self._ctx = ctx
        self._reason = reset_reason
        self._facts = ROMS[ctx.chip.name]
        self._is_esp32 = self._facts.classic
        silent = not self._is_esp32 and ctx.efuses.field("UART_PRINT_CONTROL") == _PRINT_NEVER
        self._lines = RomLines(ctx.uart, silent=silent)
        self._secure_boot: RomSecureBoot | None = None
        if secure_boot_enabled(ctx.efuses):
            self._secure_boot = RomSecureBoot(ctx.chip, ctx.efuses, self._read, self._lines)

    def run(self) -> Outcome:
        self._print_banner()
        header = self._read_header()
        self._print_header(header)
        if self._secure_boot is not None:
            self._verify_signature(self._secure_boot, header)
        first_segment, segments = self._load_segments(header)
        self._lines.say(f"entry 0x{header.entry_point:08x}")
        config = self._bootloader_config(first_segment)
        memory = BootloaderMemory.of(self._ctx.chip, segments)
        return bootloader.run(self._ctx, self._reason, header, config, memory)

    def _print_banner(self) -> None:
        for line in self._facts.banner:
            self._lines.say(line)
        name = self._facts.reasons.get(self._reason, "UNKNOWN")
        self._lines.say(f"rst:0x{self._reason:x} ({name}),boot:{self._facts.flash_boot}")
        if self._reason in self._facts.saved_pc:
            self._lines.say(f"Saved PC:{self._facts.saved_pc[self._reason]}")

    def _read(self, at: int, size: int) -> bytes:
        try:
            return self._ctx.cipher.read(at, size)
        except FlashFault:
            # A flash that does not answer leaves the data lines high.
            return b"\xff" * size

    def _read_header(self) -> ImageHeader:
        raw = self._read(self._ctx.chip.bootloader_offset, HEADER_BYTES)
        header = ImageHeader.from_bytes(raw)
        plausible = header.magic == MAGIC and header.segment_count <= _PLAUSIBLE_SEGMENTS
        if self._is_esp32:
            plausible = plausible and header.spi_mode < 6
        else:
            plausible = (
                plausible and header.spi_mode < len(_SPI_MODES) and header.spi_speed in _CLOCK_DIVIDERS
            )
        if not plausible:
            word = int.from_bytes(raw[:4], "little")
            raise _StopBoot(self._repeat(f"invalid header: 0x{word:08x}"))
        if not self._is_esp32 and header.segment_count > MAX_SEGMENTS:
            self._lines.say(f"Invalid image block count: {header.segment_count} (max {MAX_SEGMENTS})")
            raise _StopBoot(self._give_up())
        if header.chip_id != self._ctx.chip.chip_id:
            raise _StopBoot(self._wrong_chip(self._ctx.chip, header.chip_id))
        return header

    def _wrong_chip(self, chip: Chip, found: int) -> Outcome:
        if self._is_esp32:
            return self._repeat(f"wrong chip id 0x{found:04x}")
        self._lines.say(
            f"Invalid chip id. Expected {chip.chip_id} read {found}. Bootloader for wrong chip?",
        )
        return self._give_up()

    def _verify_signature(self, secure_boot: RomSecureBoot, header: ImageHeader) -> None:
        try:
            secure_boot.verify(header)
        except SignatureRefused as refused:
            if refused.resets:
                raise _StopBoot(Reset(RESET_SOFTWARE_SYSTEM, 0.0)) from refused
            raise _StopBoot(self._watchdog() if self._is_esp32 else self._give_up()) from refused

    def _print_header(self, header: ImageHeader) -> None:
        mode = _SPI_MODES[header.spi_mode] if header.spi_mode < len(_SPI_MODES) else "DIO"
        if self._is_esp32:
            if self._secure_boot is not None:
                # Another print-out than without secure boot: the number.
                mode = str(header.spi_mode)
            self._lines.say(f"configsip: 0, SPIWP:0x{header.wp_pin:02x}")
        elif self._facts.shows_write_protect:
            self._lines.say(f"SPIWP:0x{header.wp_pin:02x}")
        if self._is_esp32 or any(header.pin_drive):
            halves = [half for byte in header.pin_drive for half in (byte & 0xF, byte >> 4)]
            drives = zip(_PINS, halves, strict=True)
            self._lines.say(",".join(f"{pin}_drv:0x{value:02x}" for pin, value in drives))
        label = "mode" if self._facts.shows_write_protect else "SPI mode"
        self._lines.say(f"{label}:{mode}, clock div:{_CLOCK_DIVIDERS.get(header.spi_speed, 1)}")

    def _load_segments(self, header: ImageHeader) -> tuple[bytes, list[tuple[int, int]]]:
        """Load all segments, check checksum and hash.

        Returns the data of segment 0, and (load address, size) of all.
        """
        base = self._ctx.chip.bootloader_offset
        at = base + HEADER_BYTES
        checksum = CHECKSUM_SEED
        first = b""
        segments = []
        for index in range(header.segment_count):
            room = 16 - (at - base) % 16
            if self._is_esp32 and self._secure_boot is None and room < SEGMENT_HEADER_BYTES:
                # This ROM reads 16 bytes at a time and says so when a segment header straddles two reads.
                self._lines.say(f"ho 0 tail {16 - room} room {room}")
            address, size = struct.unpack("<II", self._read(at, SEGMENT_HEADER_BYTES))
            at += SEGMENT_HEADER_BYTES
            if not self._is_esp32 and address >> 31:
                raise _StopBoot(self._refuse_command(size))
            self._announce_segment(address, size)
            self._check_segment(at, address, size)
            data = self._read(at, size)
            first = first if index else data
            checksum ^= xor_fold(data)
            segments.append((address, size))
            at += size
        at += 16 - (at - base) % 16
        if self._is_esp32 and self._secure_boot is not None:
            # What is signed is not summed up again.
            return first, segments
        self._check_staged(at + SHA256_BYTES)
        stored = self._read(at - 1, 1)[0]
        if stored != checksum:
            raise _StopBoot(self._bad_checksum(checksum, stored))
        if not self._is_esp32:
            self._check_hash(base, at)
        return first, segments

    def _check_staged(self, end: int) -> None:
        """What was verified lies in RAM, and is loaded from there: the ROM stops where it ends."""
        if self._secure_boot is not None and not self._secure_boot.staged(end):
            self._lines.say("ets_loader.c 83 ")
            raise _StopBoot(self._watchdog())

    def _refuse_command(self, size: int) -> Outcome:
        """What lies above 2 GiB is no memory but a command to this ROM: what erased flash and noise read as.

        It knows one command, of 8 bytes, which changes how flash is read; no image has it, and here it ends the boot.
        """
        if size % 4:
            self._lines.say("ets_loader.c 78 ")
        elif size > _LONGEST_SEGMENT_BYTES:
            self._lines.say("ets_loader.c 79 ")
        elif size != 8:
            self._lines.say(f"cmd len {size}")
            self._lines.say("ets_loader.c 212 ")
        return self._watchdog()

    def _announce_segment(self, address: int, size: int) -> None:
        if self._is_esp32 and self._secure_boot is not None:
            self._lines.say(f"load:0x{address:08x} len:0x{size:x}")
        elif self._is_esp32:
            signed = size - (1 << 32) if size >> 31 else size
            self._lines.say(f"load:0x{address:08x},len:{signed}")
        else:
            self._lines.say(f"load:0x{address:08x},len:0x{size:x}")

    def _check_segment(self, at: int, address: int, size: int) -> None:
        if self._is_esp32 and at + size > self._ctx.flash.size_bytes:
            raise _StopBoot(self._watchdog())
        if not self._is_esp32 and (address % 4 or size % 4 or size > _LONGEST_SEGMENT_BYTES):
            self._lines.say("Invalid image block, can't boot.")
            raise _StopBoot(self._give_up())
        own = self._facts.own_data
        if own is not None and size and address < own[1] and address + size > own[0]:
            self._lines.say(
                f"region 0x{address:08x}-0x{address + size:08x} "
                f"overlaps 0x{own[0]:08x}-0x{own[1]:08x}, can't load"
            )
            raise _StopBoot(self._give_up())
        fits = any(low <= address and address + size <= high for low, high in self._facts.memory)
        if size and not fits:
            if not self._is_esp32:
                self._lines.say("Guru Meditation Error: Core 0 panic'ed (Store/AMO access fault)")
            raise _StopBoot(self._watchdog())

    def _bad_checksum(self, calculated: int, stored: int) -> Outcome:
        if not self._is_esp32:
            self._lines.say(f"Checksum failure. Calculated 0x{calculated:02x} stored 0x{stored:02x}")
            return self._give_up()
        self._lines.say(f"csum err:0x{calculated:02x}!=0x{stored:02x}")
        if self._ctx.efuses.field("CONSOLE_DEBUG_DISABLE"):
            return self._give_up()
        self._lines.say("Falling back to built-in command interpreter.")
        self._lines.say("OK")
        self._ctx.uart.send(b">")
        return Halted("the ROM fell back to its command interpreter")

    def _check_hash(self, base: int, end: int) -> None:
        # This ROM compares whether or not the header says that a hash is appended, and goes on all the same.
        calculated = hashlib.sha256(self._read(base, end - base)).hexdigest()
        stored = self._read(end, SHA256_BYTES).hex()
        if calculated != stored:
            self._lines.say("SHA-256 comparison failed:")
            self._lines.say(f"Calculated: {calculated}")
            self._lines.say(f"Expected: {stored}")
            self._lines.say("Attempting to boot anyway...")

    def _bootloader_config(self, first_segment: bytes) -> BootloaderConfig:
        try:
            config = BootloaderConfig.from_segment_data(first_segment)
            if config is not None:
                return config
            path = self._ctx.state_dir / SDKCONFIG_FILE
            if not path.is_file():
                raise _StopBoot(
                    self._halt(
                        "this bootloader's options are unknown: put the sdkconfig of its build "
                        f"into the state folder as {SDKCONFIG_FILE}"
                    )
                )
            return self._config_of_real_bootloader(path.read_text("utf-8", "replace"), first_segment)
        except (FormatError, OSError) as error:
            reason = error.message if isinstance(error, FormatError) else error.strerror
            raise _StopBoot(self._halt(f"this bootloader's options cannot be read: {reason}")) from error

    def _config_of_real_bootloader(self, sdkconfig: str, first_segment: bytes) -> BootloaderConfig:
        if "\nCONFIG_SECURE_BOOT_V1_ENABLED=y" in f"\n{sdkconfig}":
            raise _StopBoot(
                self._halt("this bootloader was built with secure boot v1, which the twin does not model")
            )
        config = BootloaderConfig.from_sdkconfig(sdkconfig)
        description = BootloaderDescription.from_bytes(first_segment)
        prints_time = "\nCONFIG_BOOTLOADER_COMPILE_TIME_DATE=y" in f"\n{sdkconfig}"
        return replace(
            config,
            idf_version=description.idf_ver,
            compile_time=description.date_time if prints_time else "",
        )

    def _repeat(self, line: str) -> RomLoop:
        facts = self._facts
        shown = None if self._lines.silent else line
        return RomLoop(
            shown, facts.header_lines, facts.watchdog_s / facts.header_lines, facts.watchdog_reason
        )

    def _give_up(self) -> RomLoop:
        self._lines.say(self._facts.give_up)
        return self._watchdog()

    def _watchdog(self) -> RomLoop:
        return RomLoop(None, 1, self._facts.watchdog_s, self._facts.watchdog_reason)

    def _halt(self, why: str) -> Halted:
        self._ctx.uart.send(f"twin: {why}\r\n".encode())
        return Halted(why)
