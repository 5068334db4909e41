"""The eFuses of the board: bits only rise, protection holds, Reed-Solomon blocks check.

No register knowledge here (that is `efuse_controller`). Cells lie in ``efuse.bin``; check bytes of a
Reed-Solomon block that do not belong to its data (burned twice, or cut off half way) lie in
``efuse-coding.json`` beside it. Without that file all blocks are consistent.

What the chip works with are not the cells but the registers that were loaded from them at reset or by a read
command: a burned bit has no effect before `reload`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.chips import Chip
from harness.chips.efuses import Coding, EfuseBlock, EfuseGeometry, efuse_geometry
from harness.twin.half_done import Extent, burned
from harness.twin.operations import OperationLog

#: Check bytes of one Reed-Solomon block; the code corrects half as many wrong bytes.
CHECK_BYTES = 12
#: Data bytes that the code covers, also where the block has fewer readable words.
CODED_BYTES = 32

CODING_FILE = "efuse-coding.json"

CLK8M_FREQ = 52
"""ESP32's 8 MHz oscillator as the factory measures it (about 51 to 53); esptool needs it for the crystal."""


_FACTORY_FUSES: Mapping[str, Mapping[str, int]] = {
    "esp32": {"CHIP_VER_REV1": 1, "CHIP_VER_REV2": 1, "CLK8M_FREQ": CLK8M_FREQ},
    "esp32s2": {"WAFER_VERSION_MAJOR": 1},
    "esp32s3": {"WAFER_VERSION_MINOR_LO": 3},
    "esp32c2": {"WAFER_VERSION_MAJOR": 1},
    "esp32c3": {"WAFER_VERSION_MINOR_LO": 3},
    "esp32c5": {"WAFER_VERSION_MAJOR": 1, "MAC_EXT": 0xFFFE},
    "esp32c6": {"WAFER_VERSION_MINOR": 2, "MAC_EXT": 0xFFFE},
    "esp32h2": {"WAFER_VERSION_MAJOR": 1, "WAFER_VERSION_MINOR": 2, "MAC_EXT": 0xFFFE},
    "esp32p4": {"WAFER_VERSION_MAJOR_LO": 3},
}
"""What the factory burns besides the MAC: the revision, and what makes an EUI-64 of the MAC.

ESP32 is v3.0, ESP32-C3 and ESP32-S3 v0.3, those of Espressif's QEMU; the others are what their
rows in `harness.chips` ask for, or what is sold.
"""


@dataclass(frozen=True, slots=True)
class EfuseCells:
    """Everything that eFuses keep: the blocks' cells as little-endian numbers, and check bytes that do not fit."""

    values: tuple[int, ...]
    odd_checks: tuple[tuple[int, bytes], ...] = ()


class Efuses:
    """The cells in `path` (which exists with the size of the geometry) and what is loaded from them."""

    def __init__(self, chip: Chip, path: Path, operations: OperationLog | None = None) -> None:
        self.chip = chip
        self.geometry: EfuseGeometry = efuse_geometry(chip.name)
        self.operations = operations if operations is not None else OperationLog()
        self._path = path
        self._file = path.open("r+b", buffering=0)
        content = self._file.read()
        self._cells = [
            int.from_bytes(content[block.file_offset : block.file_offset + block.size_bytes], "little")
            for block in self.geometry.blocks
        ]
        self._odd_checks: dict[int, bytes] = self._read_odd_checks()
        self._loaded: list[int] = []
        self._errors: list[tuple[int, bool]] = []
        self.reload()

    # What the chip sees

    def field(self, name: str) -> int:
        """The loaded value of an espefuse field name, read-protected or not (as the hardware sees it).

        Raises:
            UsageError: the chip has no such field.
        """
        row = self.geometry.field(name)
        return (self._loaded[row.block] & row.mask) >> row.bit

    def has_field(self, name: str) -> bool:
        return self.geometry.has_field(name)

    def block_for_hardware(self, name: str | int) -> bytes:
        """The loaded content in register order (a flash key lies byte-reversed), even if read-protected."""
        block = self.geometry.block(name)
        return self._loaded[block.index].to_bytes(block.size_bytes, "little")

    def block_for_software(self, name: str | int) -> bytes:
        """The content that the read registers show: read-protected parts are 0."""
        block = self.geometry.block(name)
        return (self._loaded[block.index] & ~self._hidden(block)).to_bytes(block.size_bytes, "little")

    def coding_errors(self, name: str | int) -> tuple[int, bool]:
        """(corrected bytes 0..6, beyond correction) of a Reed-Solomon block, as of the last `reload`."""
        return self._errors[self.geometry.block(name).index]

    def read_protected(self, name: str | int) -> bool:
        """Whether software reads 0 from this block (or field)."""
        if isinstance(name, str) and not self.geometry.has_block(name):
            bit = self.geometry.field(name).read_disable
        else:
            block = self.geometry.block(name)
            bit = block.read_disable
            if bit is None:
                # ESP32-C2: the block counts as hidden when its lower half is, which is what the flash key needs.
                halves = [row for row in self.geometry.fields if row.block == block.index]
                bit = next((row.read_disable for row in halves if row.read_disable is not None), None)
        return bit is not None and bool(self.field("RD_DIS") >> bit & 1)

    def write_protected(self, name: str | int) -> bool:
        """Whether this block or field takes no more bits."""
        if isinstance(name, str) and not self.geometry.has_block(name):
            bit = self.geometry.field(name).write_disable
        else:
            bit = self.geometry.block(name).write_disable
        return bit is not None and bool(self.field("WR_DIS") >> bit & 1)

    @property
    def mac(self) -> bytes:
        """The base MAC, 6 bytes in the order in which it is printed."""
        return self.field("MAC").to_bytes(6, "big")

    @property
    def chip_rev_full(self) -> int:
        """major * 100 + minor."""
        if self.has_field("CHIP_VER_REV1"):
            # ESP32: two eFuse bits and APB_CTL_DATE bit 31, which the modelled chip has set.
            known = {0b100: 0, 0b101: 1, 0b111: 3}
            bits = 0b100 | self.field("CHIP_VER_REV2") << 1 | self.field("CHIP_VER_REV1")
            return known.get(bits, 0) * 100 + self.field("WAFER_VERSION_MINOR")
        return self._joined("WAFER_VERSION_MAJOR") * 100 + self._joined("WAFER_VERSION_MINOR")

    def _joined(self, name: str) -> int:
        """A number that some chips keep in two fields, `name`_LO and `name`_HI."""
        if self.has_field(name):
            return self.field(name)
        low = f"{name}_LO"
        return self.field(f"{name}_HI") << self.geometry.field(low).bits | self.field(low)

    # What changes

    def reload(self) -> None:
        """Load the registers from the cells, as reset and the controller's read command do."""
        loaded, errors = [], []
        for block in self.geometry.blocks:
            value, wrong, failed = self._decoded(block)
            loaded.append(value)
            errors.append((wrong, failed))
        self._loaded, self._errors = loaded, errors

    def burn_field(self, name: str, value: int, *, who: str = "app") -> None:
        """Raise the bits of `value` in a field and load the result, as ESP-IDF's eFuse driver does.

        Write-protected bits stay as they are, without a word. A field of a Reed-Solomon block can be burned
        once, while the block is blank: the check bytes belong to the whole block.

        Raises:
            UsageError: no such field.
            PowerLost: the supply was cut here.
        """
        row = self.geometry.field(name)
        self.program(row.block, value << row.bit & row.mask, who=who)
        self.reload()

    def burn_block(self, name: str | int, data: bytes, *, who: str = "app") -> None:
        """Raise the bits of `data` (register order) in a block, with its check bytes, and load the result."""
        self.program(self.geometry.block(name).index, int.from_bytes(data, "little"), who=who)
        self.reload()

    def program(self, index: int, value: int, *, who: str, check: bytes | None = None) -> None:
        """Blow the bits of `value` (the block as a little-endian number) that are not write-protected.

        Protection is taken from the loaded registers. `check` are the 12 check bytes of a Reed-Solomon block,
        blown as they are, right or wrong; None means the right ones for `value`. Does not `reload`.

        Raises:
            PowerLost: the supply was cut here.
        """
        block = self.geometry.block(index)
        value &= ~self._frozen(block) & ((1 << block.size_bytes * 8) - 1)
        coded = self._is_coded(block)
        if coded and self.write_protected(index):
            check = b""
        elif coded and check is None:
            check = _check_bytes(value.to_bytes(CODED_BYTES, "little"))
        data = value.to_bytes(CODED_BYTES if coded else block.size_bytes, "little") + (check or b"")

        def apply(extent: Extent) -> None:
            self._blow_part(block, data, extent)

        self.operations.carry_out("burn", index, len(data), who, apply, data=data)

    # Stored states

    def snapshot(self) -> EfuseCells:
        """All cells as they are now."""
        return EfuseCells(tuple(self._cells), tuple(sorted(self._odd_checks.items())))

    def restore(self, cells: EfuseCells) -> None:
        """Put back what `snapshot` gave, as no chip can, and load it: for whoever restores a stored state."""
        self._odd_checks = dict(cells.odd_checks)
        for block, value in zip(self.geometry.blocks, cells.values, strict=True):
            if self._cells[block.index] != value:
                self._cells[block.index] = value
                self._write_cells(block)
        if self._path.with_name(CODING_FILE).exists() or self._odd_checks:
            self._write_odd_checks()
        self.reload()

    def blow(self, index: int, data: bytes, extent: Extent) -> None:
        """Do a burn again that a journal holds, as far as `extent`; the registers stay as they are."""
        self._blow_part(self.geometry.block(index), data, extent)

    def close(self) -> None:
        self._file.close()

    # Cells

    def _blow_part(self, block: EfuseBlock, data: bytes, extent: Extent) -> None:
        blown = burned(int.from_bytes(data, "little"), extent, len(data)).to_bytes(len(data), "little")
        coded = self._is_coded(block)
        size = CODED_BYTES if coded else block.size_bytes
        self._blow(block, blown[:size], blown[size:], coded=coded)

    def _blow(self, block: EfuseBlock, data: bytes, check: bytes, *, coded: bool) -> None:
        old_check = self._check_cells(block) if coded else b""
        self._cells[block.index] |= int.from_bytes(data[: block.size_bytes], "little")
        self._write_cells(block)
        if not coded:
            return
        padded = check.ljust(CHECK_BYTES, b"\0")
        new_check = bytes(a | b for a, b in zip(old_check, padded, strict=True))
        if new_check == _check_bytes(self._coded_data(block)):
            changed = self._odd_checks.pop(block.index, None) is not None
        else:
            changed = self._odd_checks.get(block.index) != new_check
            self._odd_checks[block.index] = new_check
        if changed or block.index in self._odd_checks:
            self._write_odd_checks()

    def _decoded(self, block: EfuseBlock) -> tuple[int, int, bool]:
        value = self._cells[block.index]
        odd = self._odd_checks.get(block.index)
        if odd is None:
            return value, 0, False
        data, wrong, failed = _corrected(self._coded_data(block), odd)
        return int.from_bytes(data[: block.size_bytes], "little"), wrong, failed

    def _hidden(self, block: EfuseBlock) -> int:
        if block.read_disable is not None and self.read_protected(block.index):
            return (1 << block.size_bytes * 8) - 1
        rd_dis = self.field("RD_DIS")
        return sum(
            row.mask
            for row in self.geometry.fields
            if row.block == block.index and row.read_disable is not None and rd_dis >> row.read_disable & 1
        )

    def _frozen(self, block: EfuseBlock) -> int:
        if block.write_disable is not None:
            return (1 << block.size_bytes * 8) - 1 if self.write_protected(block.index) else 0
        wr_dis = self.field("WR_DIS")
        return sum(
            row.mask
            for row in self.geometry.fields
            if row.block == block.index and row.write_disable is not None and wr_dis >> row.write_disable & 1
        )

    def _is_coded(self, block: EfuseBlock) -> bool:
        return self.geometry.coding is Coding.REED_SOLOMON and block.index > 0

    def _coded_data(self, block: EfuseBlock) -> bytes:
        return self._cells[block.index].to_bytes(CODED_BYTES, "little")

    def _check_cells(self, block: EfuseBlock) -> bytes:
        odd = self._odd_checks.get(block.index)
        return odd if odd is not None else _check_bytes(self._coded_data(block))

    def _write_cells(self, block: EfuseBlock) -> None:
        data = self._cells[block.index].to_bytes(block.size_bytes, "little")
        if hasattr(os, "pwrite"):
            os.pwrite(self._file.fileno(), data, block.file_offset)
        else:
            self._file.seek(block.file_offset)
            self._file.write(data)

    def _read_odd_checks(self) -> dict[int, bytes]:
        path = self._path.with_name(CODING_FILE)
        if self.geometry.coding is not Coding.REED_SOLOMON or not path.exists():
            return {}
        try:
            rows = json.loads(path.read_text())["blocks"]
            found = {
                int(index): (bytes.fromhex(row["check"]), str(row["data_sha256"]))
                for index, row in rows.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError):
            # A damaged note is no note: the file is the twin's own and optional.
            return {}
        return {
            index: check
            for index, (check, digest) in found.items()
            # Cells changed by another program (QEMU on the same folder) make the note void.
            if 0 < index < len(self._cells)
            and len(check) == CHECK_BYTES
            and digest == hashlib.sha256(self._coded_data(self.geometry.block(index))).hexdigest()
        }

    def _write_odd_checks(self) -> None:
        path = self._path.with_name(CODING_FILE)
        rows = {
            str(index): {
                "check": check.hex(),
                "data_sha256": hashlib.sha256(self._coded_data(self.geometry.block(index))).hexdigest(),
            }
            for index, check in sorted(self._odd_checks.items())
        }
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"format": 1, "blocks": rows}) + "\n")
        new.replace(path)


@lru_cache(maxsize=64)
def _check_bytes(data: bytes) -> bytes:
    """RS(44, 32) over GF(256), the code that the chips' reference manuals name and espefuse computes."""
    if not any(data):
        return bytes(CHECK_BYTES)
    import reedsolo

    return bytes(reedsolo.RSCodec(CHECK_BYTES).encode(bytearray(data))[CODED_BYTES:])


@lru_cache(maxsize=64)
def _corrected(data: bytes, check: bytes) -> tuple[bytes, int, bool]:
    """(data, corrected bytes, beyond correction); data that cannot be corrected come as they are."""
    import reedsolo

    try:
        message, _, positions = reedsolo.RSCodec(CHECK_BYTES).decode(bytearray(data + check))
    except reedsolo.ReedSolomonError:
        return data, CHECK_BYTES // 2 + 1, True
    return bytes(message), len(positions), False


def mac_crc(mac: bytes) -> int:
    """CRC-8 of a MAC (polynomial 0x8C reflected, start 0), as ESP32 keeps it in MAC_CRC."""
    crc = 0
    for byte in mac:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc


def factory_content(chip: Chip, mac: bytes) -> bytes:
    """The eFuse file of a chip as it leaves the factory: MAC and revision; ESP32 also MAC_CRC and CLK8M_FREQ."""
    geometry = efuse_geometry(chip.name)
    values = {"MAC": int.from_bytes(mac, "big"), **_FACTORY_FUSES[chip.name]}
    if geometry.has_field("MAC_CRC"):
        values["MAC_CRC"] = mac_crc(mac)
    content = bytearray(geometry.file_size_bytes)
    for name, value in values.items():
        row = geometry.field(name)
        block = geometry.block(row.block)
        place = slice(block.file_offset, block.file_offset + block.size_bytes)
        content[place] = (int.from_bytes(content[place], "little") | value << row.bit).to_bytes(
            block.size_bytes, "little"
        )
    return bytes(content)
