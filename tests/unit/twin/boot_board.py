"""A board on the bench for tests of ROM, bootloader and app host: real flash, eFuses and UART in a folder.

Content is enciphered with the host's `harness.formats.flash_encryption`; the twin deciphers with espsecure.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.chips import CHIPS, KEY_PURPOSE_NUMBERS, Chip
from harness.formats import flash_encryption
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.formats.bootloader_config import BootloaderConfig
from harness.formats.native_payload import native_segment
from harness.formats.otadata import OtaData, OtaRecord, OtaState
from harness.formats.partition_table import PartitionTable
from harness.twin import rom_boot
from harness.twin.boot_context import BootContext, Outcome
from harness.twin.cipher import FlashCipher
from harness.twin.efuses import Efuses, factory_content
from harness.twin.flash import Flash
from harness.twin.uart import Uart

KINDS = ("esp32", "esp32s3", "esp32c2", "esp32c3", "esp32c6")
"""One chip of each kind: cipher, architecture, memory, form of the ROM's lines. What differs from chip to chip in a
table only is tested on all of them where that table is."""

KEY = bytes(range(0x40, 0x80))
OTHER_KEY = bytes(range(0x80, 0xC0))
"""Of each a chip takes as much as its cipher needs."""
MAC = bytes.fromhex("020203040506")
FLASH_BYTES = 2 << 20
"""Less than the table claims: what the tests put there is small, and files are written quickly."""
TABLE_OFFSET = 0x10000
OTADATA = 0x15000
OTA_0 = 0x20000
OTA_1 = 0x1A0000
CONFIG = BootloaderConfig(
    table_offset=TABLE_OFFSET,
    rollback=True,
    flash_encryption="release",
    require_encrypted=True,
    compile_time="Nov 21 2026 01:19:46",
)
PLAIN_CONFIG = replace(CONFIG, flash_encryption="off", require_encrypted=False)

CSV = """
nvs,      data, nvs,     0x11000, 0x4000
otadata,  data, ota,     0x15000, 0x2000
phy_init, data, phy,     0x17000, 0x1000
ota_0,    app,  ota_0,   0x20000, 0x180000
ota_1,    app,  ota_1,   0x1a0000,0x180000
"""
CSV_FACTORY = """
otadata,  data, ota,     0x15000, 0x2000
factory,  app,  factory, 0x20000, 0x80000
ota_0,    app,  ota_0,   0xa0000, 0x80000
ota_1,    app,  ota_1,   0x1a0000,0x80000
"""


@dataclass
class Board:
    """One chip with `key` burned (encrypted) or none (plain)."""

    chip: Chip
    folder: Path
    encrypted: bool = False
    flash_bytes: int = FLASH_BYTES
    printed: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.key = KEY[: self.chip.cipher.key_size_bytes]
        self.other_key = OTHER_KEY[: self.chip.cipher.key_size_bytes]
        (self.folder / "flash.bin").write_bytes(b"\xff" * self.flash_bytes)
        (self.folder / "efuse.bin").write_bytes(factory_content(self.chip, MAC))
        self.store = self.folder / "builds"
        self.store.mkdir(mode=0o700)
        self.flash = Flash(self.folder / "flash.bin")
        self.efuses = Efuses(self.chip, self.folder / "efuse.bin")
        if self.encrypted:
            self.burn_key(self.key)
            self.burn_release()
        self.uart = Uart()
        self.uart.attach(self.printed.extend)
        self.context = BootContext(
            self.chip,
            self.flash,
            self.efuses,
            FlashCipher(self.chip, self.flash, self.efuses),
            self.uart,
            threading.Event(),
            self.folder,
            self.store,
            # Long ago: a crash is not held back to the rhythm of silicon.
            lambda: 60.0,
        )

    def __del__(self) -> None:
        self.flash.close()
        self.efuses.close()

    @classmethod
    def named(
        cls, name: str, folder: Path, *, encrypted: bool = False, flash_bytes: int = FLASH_BYTES
    ) -> Board:
        return cls(CHIPS[name], folder, encrypted, flash_bytes=flash_bytes)

    def burn_key(self, key: bytes) -> None:
        fuses = self.chip.fuses
        for name, value in fuses.key_config:
            self.efuses.burn_field(name, value)
        if not fuses.key_purposes:
            self.efuses.burn_block(fuses.key_storage_block, key[::-1].ljust(32, b"\0"))
        for index, purpose in enumerate(fuses.key_purposes):
            self.efuses.burn_block(f"BLOCK_KEY{index}", key[32 * index : 32 * index + 32][::-1])
            self.efuses.burn_field(f"KEY_PURPOSE_{index}", KEY_PURPOSE_NUMBERS[purpose])

    def burn_release(self) -> None:
        fuses = self.chip.fuses
        for name in fuses.release:
            self.efuses.burn_field(name, 1)
        self.efuses.burn_field(fuses.counter, fuses.counter_release)
        geometry, count = self.efuses.geometry, max(1, len(fuses.key_purposes))
        first = geometry.block(fuses.key_storage_block).index
        blocks = [geometry.block(first + index) for index in range(count)]
        guards = [name for block in blocks for name in geometry.purpose_fields(block.index)]
        guards += [fuses.release_write_protect] if fuses.release_write_protect else []
        bits = {geometry.field(name).write_disable for name in guards}
        bits |= {block.write_disable for block in blocks}
        self.efuses.burn_field("WR_DIS", sum(1 << bit for bit in bits if bit is not None))
        self.efuses.burn_field("RD_DIS", (1 << count) - 1)

    def put(self, offset: int, data: bytes, *, key: bytes | None = None, raw: bool = False) -> None:
        """Write `data` as provisioning does: erased first, enciphered on an encrypted board unless `raw`."""
        data = flash_encryption.pad_to_block(data)
        if self.encrypted and not raw:
            data = flash_encryption.encrypt(self.chip.cipher, key or self.key, offset, data)
        self.flash.erase(offset, -(-len(data) // 0x1000) * 0x1000, who="stub")
        self.flash.program(offset, data, who="stub")

    def plain(self, offset: int, size: int) -> bytes:
        """What lies in flash at `offset`, deciphered by the host's code on an encrypted board."""
        data = self.flash.read(offset, size)
        if not self.encrypted:
            return data
        return flash_encryption.decrypt(self.chip.cipher, self.key, offset, data)

    def provision(
        self,
        *,
        config: BootloaderConfig | None = None,
        csv: str = CSV,
        otadata: OtaData | None = None,
        versions: dict[int, str] | None = None,
    ) -> None:
        """Bootloader, table, otadata (blank) and one tiny app per offset in `versions`."""
        chosen = config if config is not None else (CONFIG if self.encrypted else PLAIN_CONFIG)
        self.put(self.chip.bootloader_offset, bootloader_image(self.chip, chosen))
        table = PartitionTable.from_csv(csv, table_offset=chosen.table_offset)
        self.put(chosen.table_offset, table.to_binary())
        self.put(OTADATA, (otadata or OtaData.blank()).to_bytes())
        for offset, version in (versions or {OTA_0: "1.0.0", OTA_1: "1.1.0"}).items():
            self.put(offset, app_image(self.chip, version))

    def records(self) -> tuple[OtaRecord, OtaRecord]:
        first, second = self.plain(OTADATA, 0x20), self.plain(OTADATA + 0x1000, 0x20)
        return OtaRecord.from_bytes(first), OtaRecord.from_bytes(second)

    def boot(self, reason: int = 1) -> Outcome:
        self.printed.clear()
        return rom_boot.boot(self.context, reason)

    @property
    def lines(self) -> list[str]:
        """The lines printed since the last boot began, without time stamps."""
        return without_stamps(self.printed.decode())

    @property
    def boot_lines(self) -> list[str]:
        """The lines of tag ``boot``, level and text only."""
        return [line.replace(" boot: ", " ", 1) for line in self.lines if line[1:8] == " boot: "]


def without_stamps(text: str) -> list[str]:
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        head, bracket, rest = line.partition(") ")
        stamped = line[1:3] == " (" and line[:1] in "EWIDV" and bool(bracket)
        lines.append(f"{head[0]} {rest}" if stamped else line)
    return lines[:-1] if lines and not lines[-1] else lines


def bootloader_image(chip: Chip, config: BootloaderConfig, **header: int) -> bytes:
    ram = {"esp32": 0x40080400, "esp32c3": 0x403CE710}.get(chip.name, chip.bootloader_load_address + 0x800)
    segments = [
        Segment(chip.bootloader_load_address, config.to_segment_data()),
        Segment(ram, b"\x13\0\0\0" * 64),
    ]
    return build_app_image(chip, segments, entry_point=ram, **header)


def description(version: str, **fields: object) -> AppDescription:
    made = AppDescription(version=version, project_name="companion", idf_ver="v5.5.5")
    return replace(made, **fields)  # type: ignore[arg-type]


def app_image(chip: Chip, version: str, *, program: bytes = b"program", **fields: object) -> bytes:
    segment = native_segment(chip, description(version, **fields), program)
    return build_app_image(chip, [segment], entry_point=chip.drom_base + 0x1000)


def otadata(*records: OtaRecord | None) -> OtaData:
    first, second = (record or OtaRecord.empty() for record in records)
    return OtaData((first, second))


def record(seq: int, state: OtaState) -> OtaRecord:
    return OtaRecord.make(seq, state)
