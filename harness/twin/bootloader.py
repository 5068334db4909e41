"""ESP-IDF's second-stage bootloader: partition table, choice of slot, image check, flash encryption state.

Order, wording and stored effects are those of v5.5 at the log level that the build was given. The first start
with encryption still off is in `harness.twin.first_boot`. Left out: deep sleep, factory reset and test pins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from harness.errors import FormatError
from harness.formats.app_description import APP_DESCRIPTION_BYTES, AppDescription
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.otadata import OtaData, OtaRecord, OtaState, Verdict
from harness.twin.boot_context import (
    RESET_SOFTWARE_SYSTEM,
    BootContext,
    Halted,
    LoadedApp,
    Outcome,
    Reset,
)
from harness.twin.boot_lines import BootLog
from harness.twin.boot_table import FACTORY, TABLE_BYTES, BootState, Entry, TableRejected, verified_entries
from harness.twin.bootloader_memory import BootloaderMemory
from harness.twin.efuse_driver import EfuseDriver
from harness.twin.first_boot import FirstBoot
from harness.twin.first_secure_boot import FirstSecureBoot
from harness.twin.image_signature import BootloaderSignature, signing_scheme
from harness.twin.image_verify import (
    ERR_FAIL,
    ERR_INVALID_ARG,
    HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    ImageCheck,
    ImageHeader,
    ImageRejected,
    VerifiedImage,
    check_chip,
)
from harness.twin.operations import FlashFault
from harness.twin.secure_version import raise_secure_version
from harness.twin.security import (
    efuse_block_revision,
    flash_encryption_enabled,
    is_classic,
    plaintext_flashes_left,
    secure_boot_enabled,
    secure_version,
)

SECTOR_BYTES = 0x1000
_TAG = "boot"
_WHO = "bootloader"
_ERR_NOT_FOUND = 0x105
_SPEEDS = {0: "40MHz", 1: "26.7MHz", 2: "20MHz", 0xF: "80MHz"}
_MODES = ("QIO", "QOUT", "DIO", "DOUT", "FAST READ", "SLOW READ")


@dataclass(frozen=True, slots=True)
class _Hardware:
    """What the bootloaders of two chips print differently (``bootloader_<chip>.c``, ``print_flash_info``)."""

    start_ms: int = 24
    """What the bootloader's first stamp shows on silicon after ROM and start-up."""
    speeds: Mapping[int, str] = field(default_factory=lambda: _SPEEDS)
    slowest: str = "20MHz"
    speed_label: str = "SPI Speed      "
    mode: str | None = None
    """What is printed instead of the header's mode: the bootloader looks at the SPI controller."""
    before_flash: tuple[str, ...] = ()
    watchdog_reasons: tuple[int, ...] = (0x7, 0x8, 0x9, 0xB, 0xD, 0x11)
    watchdog_lines: tuple[str, ...] = ("PRO CPU has been reset by WDT.",)


_HARDWARE = {
    "esp32": _Hardware(
        start_ms=29,
        watchdog_reasons=(0x7, 0x8, 0x9, 0xB, 0xD),
        watchdog_lines=(
            "PRO CPU has been reset by WDT",
            "APP CPU has been reset by WDT",
            "WDT rst info: PRO CPU PC=0x40000400",
            "WDT rst info: APP CPU PC=0x40000400",
        ),
    ),
    "esp32s2": _Hardware(
        watchdog_lines=("PRO CPU has been reset by WDT.", "WDT reset info: PRO CPU PC=0x40000400")
    ),
    "esp32s3": _Hardware(
        start_ms=27,
        speed_label="Boot SPI Speed ",
        watchdog_lines=("PRO CPU has been reset by WDT.", "APP CPU has been reset by WDT."),
        watchdog_reasons=(0x7, 0x8, 0x9, 0xB, 0xD),
    ),
    "esp32c2": _Hardware(
        start_ms=21,
        speeds={0: "30MHz", 1: "20MHz", 2: "15MHz", 0xF: "60MHz"},
        slowest="15MHz",
        before_flash=("MMU Page Size  : 64K",),
        watchdog_reasons=(0x7, 0x9, 0xB, 0xD),
    ),
    # Under QEMU, whose logs are the reference here, the controller reads as slow read; silicon says DIO.
    "esp32c3": _Hardware(mode="SLOW READ"),
    "esp32c5": _Hardware(start_ms=46),
    # esptool writes the code of 40 MHz for 80, since this ROM divides by another number; logs of silicon say 80.
    "esp32c6": _Hardware(start_ms=22, speeds={**_SPEEDS, 0: "80MHz"}),
    "esp32h2": _Hardware(
        start_ms=23, speeds={0: "32MHz", 1: "21.3MHz", 2: "16MHz", 0xF: "64MHz"}, slowest="16MHz"
    ),
    "esp32p4": _Hardware(
        start_ms=27,
        watchdog_reasons=(0x7, 0x9, 0xB, 0xD, 0x10),
        watchdog_lines=("CPU has been reset by WDT.",),
    ),
}


def run(
    ctx: BootContext,
    reset_reason: int,
    header: ImageHeader,
    config: BootloaderConfig,
    memory: BootloaderMemory,
) -> Outcome:
    """Run the bootloader whose image has `header` and lies in `memory`, and whose build had `config`.

    Raises:
        PowerLost: the supply was cut at one of its flash operations.
    """
    return _Bootloader(ctx, reset_reason, header, config, memory).run()


class _Bootloader:
    def __init__(
        self,
        ctx: BootContext,
        reset_reason: int,
        header: ImageHeader,
        config: BootloaderConfig,
        memory: BootloaderMemory,
    ) -> None:
        self._ctx = ctx
        self._reason = reset_reason
        self._header = header
        self._config = config
        self._memory = memory
        self._hardware = _HARDWARE[ctx.chip.name]
        self._start_ms = self._hardware.start_ms
        self._log = BootLog(ctx.uart, start_ms=self._start_ms, level=config.log_level)
        self._state = BootState()
        self._set_actual_sequence = False

    def run(self) -> Outcome:
        self._print_banner()
        try:
            # A bootloader that does not suit the chip's revision resets.
            check_chip(
                self._ctx.chip,
                self._ctx.efuses,
                self._ctx.efuses.chip_rev_full,
                self._header,
                self._log,
                newest_too=False,
            )
        except ImageRejected:
            return self._reset()
        self._print_flash_info()
        self._print_watchdog()
        self._log.info(_TAG, "Enabling RNG early entropy source...")
        entries = self._load_table()
        if entries is None:
            self._log.error(_TAG, "load partition table error!")
            return self._reset()
        self._state = BootState.of(entries)
        index = self._selected_index()
        if index is None:
            return self._reset()
        return self._load_boot_image(index)

    # Hardware and table

    def _print_banner(self) -> None:
        log, chip = self._log, self._ctx.chip
        log.info(_TAG, f"ESP-IDF {self._config.idf_version} 2nd stage bootloader")
        if self._config.compile_time:
            log.info(_TAG, f"compile time {self._config.compile_time}")
        if chip.cores > 1:
            log.info(_TAG, "Multicore bootloader")
        revision = self._ctx.efuses.chip_rev_full
        log.info(_TAG, f"chip revision: v{revision // 100}.{revision % 100}")
        if not is_classic(chip):
            block = efuse_block_revision(self._ctx.efuses)
            log.info(_TAG, f"efuse block revision: v{block // 100}.{block % 100}")

    def _print_flash_info(self) -> None:
        header, facts = self._header, self._hardware
        mode = _MODES[header.spi_mode] if header.spi_mode < len(_MODES) else "SLOW READ"
        tag = f"boot.{self._ctx.chip.name}"
        for line in facts.before_flash:
            self._log.info(tag, line)
        self._log.info(tag, f"{facts.speed_label}: {facts.speeds.get(header.spi_speed, facts.slowest)}")
        self._log.info(tag, f"SPI Mode       : {facts.mode or mode}")
        self._log.info(tag, f"SPI Flash Size : {self._flash_size_bytes >> 20}MB")

    def _print_watchdog(self) -> None:
        if self._reason not in self._hardware.watchdog_reasons:
            return
        for line in self._hardware.watchdog_lines:
            self._log.warn(f"boot.{self._ctx.chip.name}", line)

    @property
    def _flash_size_bytes(self) -> int:
        """The size that the bootloader's own header claims; codes that it does not know count as 2 MB."""
        return (1 << 20) << self._header.spi_size if self._header.spi_size <= 7 else 2 << 20

    def _load_table(self) -> list[Entry] | None:
        try:
            raw = self._ctx.cipher.read(self._config.table_offset, TABLE_BYTES)
        except FlashFault:
            raw = b"\xff" * TABLE_BYTES
        try:
            entries = verified_entries(raw, self._flash_size_bytes)
        except TableRejected as rejected:
            self._log.error("flash_parts", str(rejected))
            self._log.error(_TAG, "Failed to verify partition table")
            return None
        self._log.info(_TAG, "Partition Table:")
        self._log.info(_TAG, "## Label            Usage          Type ST Offset   Length")
        for index, entry in enumerate(entries):
            self._log.info(
                _TAG,
                f"{index:2d} {entry.label:<16s} {entry.usage:<16s} {entry.type:02x} {entry.subtype:02x} "
                f"{entry.offset:08x} {entry.size:08x}",
            )
        self._log.info(_TAG, "End of partition table")
        return entries

    # Choice of slot

    def _selected_index(self) -> int | None:
        """The index to start with (`FACTORY` or a slot), None when the bootloader cannot go on."""
        otadata = self._state.otadata
        if otadata is None or otadata.offset == 0:
            return FACTORY
        if otadata.size < 2 * SECTOR_BYTES:
            self._log.error(
                _TAG,
                f"ota_info partition size {otadata.size} is too small (minimum {2 * SECTOR_BYTES} bytes)",
            )
            return None
        try:
            data = OtaData.from_bytes(self._ctx.cipher.read(otadata.offset, 2 * SECTOR_BYTES))
        except FlashFault:
            self._log.error(_TAG, f"bootloader_mmap(0x{otadata.offset:x}, 0x{otadata.size:x}) failed")
            return None
        for index, record in enumerate(data.records):
            self._log.debug(_TAG, f"otadata[{index}]: sequence values 0x{record.seq:08x}")
        if self._config.rollback:
            data = self._abort_unconfirmed(otadata, data)
        return self._index_with_anti_rollback(data) if self._config.anti_rollback else self._index_of(data)

    def _abort_unconfirmed(self, otadata: Entry, data: OtaData) -> OtaData:
        records = list(data.records)
        for index, record in enumerate(records):
            if record.state == OtaState.PENDING_VERIFY:
                self._log.debug(_TAG, f"otadata[{index}] is marking as ABORTED")
                records[index] = replace(record, state=OtaState.ABORTED)
                self._write_record(otadata, index, records[index])
        return OtaData((records[0], records[1]))

    def _index_of(self, data: OtaData) -> int:
        selection = data.select(self._state.app_count)
        if selection.verdict is not Verdict.INITIAL:
            return self._index_of_record(data, selection.record_index)
        if self._state.factory is not None:
            self._log.info(_TAG, "Defaulting to factory image")
            return FACTORY
        self._log.info(_TAG, "No factory image, trying OTA 0")
        self._set_actual_sequence = data.is_initial_or_damaged
        return 0

    def _index_with_anti_rollback(self, data: OtaData) -> int:
        least = self._least_secure_version
        self._log.info(_TAG, "Enabled a check secure version of app for anti rollback")
        self._log.info(_TAG, f"Secure version (from eFuse) = {least}")
        if data.is_initial_or_damaged:
            self._log.info(_TAG, "otadata[0..1] in initial state")
            self._set_actual_sequence = True
            return FACTORY
        # A record counts only if its slot's app is new enough.
        allowed = tuple(
            record if record.is_bootable and self._is_allowed(record) else OtaRecord.empty()
            for record in data.records
        )
        chosen = OtaData((allowed[0], allowed[1])).select(self._state.app_count).record_index
        return self._index_of_record(data, chosen)

    def _is_allowed(self, record: OtaRecord) -> bool:
        if self._is_new_enough(self._slot_of(record)):
            return True
        slot = (record.seq - 1 & 0xFFFFFFFF) % max(1, self._state.app_count)
        self._log.debug(
            _TAG,
            f"OTA slot {slot} has an app with secure_version, this version is smaller than in the device. "
            "This OTA slot will not be selected.",
        )
        return False

    def _slot_of(self, record: OtaRecord) -> Entry | None:
        if not self._state.app_count:
            return None
        return self._state.slots.get((record.seq - 1 & 0xFFFFFFFF) % self._state.app_count)

    def _index_of_record(self, data: OtaData, record_index: int | None) -> int:
        if record_index is None:
            where = (
                "falling back to factory"
                if self._state.factory is not None
                else "and no factory, will try all partitions"
            )
            joint = ", " if self._state.factory is not None else " "
            self._log.error(_TAG, f"ota data partition invalid{joint}{where}")
            return FACTORY
        record = data.records[record_index]
        sequence = record.seq - 1 & 0xFFFFFFFF
        index = sequence % self._state.app_count
        self._log.debug(_TAG, f"Active otadata[{record_index}]")
        self._log.debug(_TAG, f"Mapping seq {sequence} -> OTA slot {index}")
        if self._config.rollback and record.state == OtaState.NEW:
            self._log.debug(
                _TAG, f"otadata[{record_index}] is selected as new and marked PENDING_VERIFY state"
            )
            record = replace(record, state=OtaState.PENDING_VERIFY)
            if self._state.otadata is not None:
                self._write_record(self._state.otadata, record_index, record)
        if self._config.anti_rollback and record.state == OtaState.VALID:
            self._raise_secure_version(self._state.slots.get(index))
        return index

    def _write_record(self, otadata: Entry, index: int, record: OtaRecord) -> None:
        """Erase the record's sector and write its 32 bytes, enciphered when encryption is on."""
        at = otadata.offset + SECTOR_BYTES * index
        try:
            self._ctx.flash.erase(at, SECTOR_BYTES, who=_WHO)
            if flash_encryption_enabled(self._ctx.efuses):
                self._ctx.cipher.write_enciphered(at, record.to_bytes(), who=_WHO)
            else:
                self._ctx.flash.program(at, record.to_bytes(), who=_WHO)
        except FlashFault as fault:
            self._log.error(_TAG, f"Error in write_otadata operation. err = 0x{fault.code:x}")

    # Anti-rollback

    def _description_of(self, entry: Entry | None) -> AppDescription | int:
        """``bootloader_common_get_partition_description``: the description, or the error."""
        if entry is None or entry.offset == 0:
            return ERR_INVALID_ARG
        at = entry.offset + HEADER_BYTES + SEGMENT_HEADER_BYTES
        try:
            return AppDescription.from_bytes(self._ctx.cipher.read(at, APP_DESCRIPTION_BYTES))
        except FormatError:
            return _ERR_NOT_FOUND
        except FlashFault:
            return ERR_FAIL

    def _is_new_enough(self, entry: Entry | None) -> bool:
        if not self._config.anti_rollback:
            return True
        found = self._description_of(entry)
        if isinstance(found, int):
            self._log.error(_TAG, f"Failed to get partition description {found}")
            return False
        return found.secure_version >= self._least_secure_version

    @property
    def _least_secure_version(self) -> int:
        return secure_version(self._ctx.efuses, self._config.secure_version_bits)

    def _raise_secure_version(self, entry: Entry | None) -> None:
        found = self._description_of(entry)
        if isinstance(found, int):
            self._log.error(_TAG, f"Failed to get partition description {found}")
            return
        raise_secure_version(
            self._ctx.efuses,
            EfuseDriver(self._ctx.efuses, self._log, who=_WHO),
            self._log,
            found.secure_version,
            self._config.secure_version_bits,
        )

    # Loading

    def _load_boot_image(self, start: int) -> Outcome:
        """Try from `start` down to the factory app, then upwards, then the test app."""
        for index in self._indices_to_try(start):
            entry = self._state.at_index(index)
            if entry is None or entry.size == 0:
                continue
            image = self._try_load(entry)
            if image is not None:
                if index > FACTORY and self._set_actual_sequence:
                    self._write_actual_sequence(index)
                outcome = self._start(entry, image)
                if outcome is not None:
                    return outcome
            name = "Factory app partition" if index == FACTORY else f"OTA app partition slot {index}"
            self._log.error(_TAG, f"{name} is not bootable")
        test = self._state.test
        # Asked in any case: with anti-rollback a table without a test app costs one more line.
        if self._is_new_enough(test) and test is not None and (image := self._load(test)) is not None:
            self._log.warn(_TAG, "Falling back to test app as only bootable partition")
            outcome = self._start(test, image)
            if outcome is not None:
                return outcome
        self._log.error(_TAG, "No bootable app partitions in the partition table")
        return self._reset()

    def _indices_to_try(self, start: int) -> Iterator[int]:
        yield from range(start, FACTORY - 1, -1)
        yield from range(start + 1, self._state.app_count)

    def _try_load(self, entry: Entry) -> VerifiedImage | None:
        return self._load(entry) if self._is_new_enough(entry) else None

    def _load(self, entry: Entry) -> VerifiedImage | None:
        try:
            image = self._image_check(load=True).verify(entry.offset, entry.size)
        except ImageRejected:
            return None
        self._log.info(_TAG, f"Loaded app from partition at offset 0x{entry.offset:x}")
        return image

    def _image_check(self, *, load: bool) -> ImageCheck:
        return ImageCheck(
            chip=self._ctx.chip,
            cipher=self._ctx.cipher,
            efuses=self._ctx.efuses,
            chip_rev_full=self._ctx.efuses.chip_rev_full,
            flash_size_bytes=self._ctx.flash.size_bytes,
            log=self._log,
            load=load,
            least_secure_version=self._least_secure_version if self._config.anti_rollback else None,
            signature=self._signature,
            bootloader_memory=self._memory if load else None,
        )

    @property
    def _signature(self) -> BootloaderSignature | None:
        """What this build checks of an app's signature: nothing, unless it was built with secure boot."""
        if not self._config.secure_boot:
            return None
        return BootloaderSignature(
            self._ctx.efuses,
            signing_scheme(self._ctx.chip, self._config.secure_boot_scheme),
            EfuseDriver(self._ctx.efuses, self._log, who=_WHO),
        )

    def _write_actual_sequence(self, index: int) -> None:
        otadata = self._state.otadata
        if otadata is None:
            return
        self._write_record(otadata, 0, OtaRecord.make(index + 1, OtaState.VALID))
        self._log.info(_TAG, f"Set actual ota_seq={index + 1} in otadata[0]")
        if self._config.anti_rollback:
            self._raise_secure_version(self._state.slots.get(index))

    def _start(self, entry: Entry, image: VerifiedImage) -> Outcome | None:
        """Hand over to the app; None when the build refuses to start anything on this chip."""
        driver = EfuseDriver(self._ctx.efuses, self._log, who=_WHO)
        if self._burns_together and secure_boot_enabled(self._ctx.efuses) != self._was_ever_encrypted:
            self._log.error(
                _TAG,
                "Secure Boot and Flash Encryption cannot be enabled separately, only together "
                "(their keys go into one eFuse key block)",
            )
            return None
        joint = self._burns_together and not secure_boot_enabled(self._ctx.efuses)
        if joint:
            driver.begin()
        if self._config.secure_boot:
            error = FirstSecureBoot(
                self._ctx, self._config, self._log, driver, lambda: self._image_check(load=False)
            ).run(image)
            if error:
                self._log.error(_TAG, f"Secure Boot v2 failed ({error})")
                return None
        if self._config.flash_encryption != "off":
            self._log.info(_TAG, "Checking flash encryption...")
            if flash_encryption_enabled(self._ctx.efuses):
                left = plaintext_flashes_left(self._ctx.efuses)
                self._log.info(
                    "flash_encrypt", f"flash encryption is enabled ({left} plaintext flashes left)"
                )
            elif self._config.require_encrypted:
                self._log.error(
                    _TAG,
                    "flash encryption is not enabled, and SECURE_FLASH_REQUIRE_ALREADY_ENABLED is set, "
                    "refusing to boot.",
                )
                return None
            else:
                return FirstBoot(
                    self._ctx,
                    self._config,
                    self._log,
                    lambda: self._image_check(load=False),
                    self._flash_size_bytes,
                    driver if joint else None,
                ).run()
        self._log.info(_TAG, "Disabling RNG early entropy source...")
        return LoadedApp(
            offset=entry.offset,
            size=entry.size,
            label=entry.label,
            table_offset=self._config.table_offset,
            image_size=image.size_bytes,
            reset_reason=self._reason,
            started_ms=int(self._log.clock_ms),
        )

    @property
    def _burns_together(self) -> bool:
        """CONFIG_SECURE_BOOT_FLASH_ENC_KEYS_BURN_TOGETHER: one key block for both (ESP32-C2)."""
        chip, config = self._ctx.chip, self._config
        one_block = chip.fuses.key_block == chip.secure_boot.digest_block
        return one_block and config.secure_boot and config.flash_encryption != "off"

    @property
    def _was_ever_encrypted(self) -> bool:
        return bool(self._ctx.efuses.field(self._ctx.chip.fuses.counter))

    def _reset(self) -> Reset:
        return Reset(RESET_SOFTWARE_SYSTEM, (self._log.clock_ms - self._start_ms) / 1000)

    def _halt(self, why: str) -> Halted:
        self._ctx.uart.send(f"twin: {why}\r\n".encode())
        return Halted(why)
