"""eFuse geometry: where blocks and fields lie, in the controller's registers and in a state file.

Names are espefuse's. Positions are facts of the chips' reference manuals (chapter "eFuse Controller"); a unit
test compares every row with the installed espefuse. Fields lie in ``efuse_tables/<chip>.csv`` and are read when
a chip is first asked for. The state file is the one that Espressif's QEMU keeps for the same chip: the read
registers of all blocks in order, little endian. For chips that QEMU does not have, the same rule is applied.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from importlib import resources

from harness.errors import UsageError


class Coding(str, Enum):
    """How the cells of a block other than 0 are protected against single failures."""

    NONE = "none"
    REED_SOLOMON = "reed-solomon"
    """44 bytes of cells per block: 32 of data and 12 check bytes that the host computes."""


@dataclass(frozen=True, slots=True)
class EfuseField:
    """One named field: `bits` bits from bit `bit` of block `block`.

    `write_disable` is the bit of WR_DIS, `read_disable` the bit of RD_DIS that closes it; None: nothing does.
    """

    name: str
    block: int
    bit: int
    bits: int
    write_disable: int | None
    read_disable: int | None

    @property
    def mask(self) -> int:
        """The field's bits within its block, the block taken as one little-endian number."""
        return ((1 << self.bits) - 1) << self.bit


@dataclass(frozen=True, slots=True)
class EfuseBlock:
    """One block: `words` 32-bit words, read at `read_offset` from the controller's base address.

    `read_disable` is None where nothing hides the whole block; on ESP32-C2 two fields of BLOCK_KEY0 have a bit of
    RD_DIS each (BLOCK_KEY0_LOW_128 and BLOCK_KEY0_HI_128).
    """

    index: int
    name: str
    aliases: tuple[str, ...]
    words: int
    read_offset: int
    write_offset: int
    write_disable: int | None
    read_disable: int | None
    file_offset: int

    @property
    def size_bytes(self) -> int:
        return self.words * 4


@dataclass(frozen=True, slots=True)
class EfuseGeometry:
    """Everything about one chip's eFuses that is not their content."""

    chip: str
    base: int
    """Address of the controller's first register."""
    conf_offset: int
    command_offset: int
    coding: Coding
    file_size_bytes: int
    blocks: tuple[EfuseBlock, ...]
    fields: tuple[EfuseField, ...]
    error_offsets: tuple[int, ...] = ()
    """Registers that count errors of the Reed-Solomon blocks, 4 bits a block from block 1 on; none on ESP32."""
    fail_bit_one_nibble_up: bool = False
    """ESP32-C3: a block's fail bit lies in the next block's nibble (espefuse names it a design error)."""
    _blocks_by_name: dict[str, EfuseBlock] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _fields_by_name: dict[str, EfuseField] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        for block in self.blocks:
            for name in (block.name, f"BLOCK{block.index}", *block.aliases):
                self._blocks_by_name[name] = block
        for row in self.fields:
            self._fields_by_name[row.name] = row

    def block(self, name: str | int) -> EfuseBlock:
        """The block of that index or name, aliases included (``BLOCK4``, ``flash_encryption``).

        Raises:
            UsageError: the chip has no such block.
        """
        if isinstance(name, int):
            if 0 <= name < len(self.blocks):
                return self.blocks[name]
        elif name in self._blocks_by_name:
            return self._blocks_by_name[name]
        raise UsageError(f"{self.chip} has no eFuse block '{name}'")

    def field(self, name: str) -> EfuseField:
        """The row of a field.

        Raises:
            UsageError: the chip has no such field.
        """
        row = self._fields_by_name.get(name)
        if row is None:
            raise UsageError(f"{self.chip} has no eFuse field '{name}'")
        return row

    def has_field(self, name: str) -> bool:
        return name in self._fields_by_name

    def has_block(self, name: str) -> bool:
        return name in self._blocks_by_name

    @property
    def key_blocks(self) -> tuple[EfuseBlock, ...]:
        """The blocks that take keys of any purpose; on ESP32 every block has its one purpose, so none."""
        return tuple(block for block in self.blocks if block.name.startswith("BLOCK_KEY"))

    def purpose_fields(self, block: str | int) -> tuple[str, ...]:
        """The fields that hold the purpose of a key block, low bits first; empty where a chip has none.

        ESP32-P4 has a fifth bit elsewhere (``KEY_PURPOSE_0_H``), to be shifted left by the bits of the first.

        Raises:
            UsageError: the chip has no such block.
        """
        row = self.block(block)
        if row not in self.key_blocks:
            return ()
        name = f"KEY_PURPOSE_{self.key_blocks.index(row)}"
        return tuple(each for each in (name, f"{name}_H") if self.has_field(each))

    def frozen_with(self, name: str) -> tuple[str, ...]:
        """All fields that take no more bits once `name` is write-protected, `name` among them.

        What a plan must have burned before it write-protects `name`. Empty when nothing protects it.

        Raises:
            UsageError: the chip has no such field.
        """
        bit = self.field(name).write_disable
        if bit is None:
            return ()
        return tuple(row.name for row in self.fields if row.write_disable == bit and row.block == 0)


_FILE_BYTES = 1024
"""Of all chips but ESP32. QEMU keeps this much for ESP32-C3 and ESP32-S3, of which the blocks take the start."""


@dataclass(frozen=True, slots=True)
class _Controller:
    """A chip's eFuse controller, without the fields."""

    base: int
    blocks: tuple[EfuseBlock, ...]
    conf_offset: int = 0x1CC
    command_offset: int = 0x1D4
    coding: Coding = Coding.REED_SOLOMON
    error_offsets: tuple[int, ...] = (0x1C0, 0x1C4)
    fail_bit_one_nibble_up: bool = False
    file_size_bytes: int = _FILE_BYTES


def _one_after_the_other(
    *rows: tuple[str, tuple[str, ...], int, int | None, int | None],
) -> tuple[EfuseBlock, ...]:
    """Blocks of (name, aliases, words, bit of WR_DIS, bit of RD_DIS) with read registers in a row from 0x2C.

    PGM_DATA0 at 0 is the write window of all of them.
    """
    blocks: list[EfuseBlock] = []
    at = 0
    for index, (name, aliases, words, write_disable, read_disable) in enumerate(rows):
        blocks.append(EfuseBlock(index, name, aliases, words, 0x2C + at, 0, write_disable, read_disable, at))
        at += words * 4
    return tuple(blocks)


_SIX_KEY_BLOCKS = _one_after_the_other(
    ("BLOCK0", (), 6, None, None),
    ("MAC_SPI_8M_0", (), 6, 20, None),
    ("BLOCK_SYS_DATA", (), 8, 21, None),
    ("BLOCK_USR_DATA", (), 8, 22, None),
    ("BLOCK_KEY0", (), 8, 23, 0),
    ("BLOCK_KEY1", (), 8, 24, 1),
    ("BLOCK_KEY2", (), 8, 25, 2),
    ("BLOCK_KEY3", (), 8, 26, 3),
    ("BLOCK_KEY4", (), 8, 27, 4),
    ("BLOCK_KEY5", (), 8, 28, 5),
    ("BLOCK_SYS_DATA2", (), 8, 29, 6),
)

_CONTROLLERS = {
    "esp32": _Controller(
        0x3FF5A000,
        (
            EfuseBlock(0, "BLOCK0", (), 7, 0x00, 0x1C, None, None, 0x00),
            EfuseBlock(1, "BLOCK1", ("flash_encryption",), 8, 0x38, 0x98, 7, 0, 0x1C),
            EfuseBlock(2, "BLOCK2", ("secure_boot_v1", "secure_boot_v2"), 8, 0x58, 0xB8, 8, 1, 0x3C),
            EfuseBlock(3, "BLOCK3", (), 8, 0x78, 0xD8, 9, 2, 0x5C),
        ),
        conf_offset=0xFC,
        command_offset=0x104,
        coding=Coding.NONE,
        error_offsets=(),
        file_size_bytes=124,
    ),
    "esp32s2": _Controller(0x3F41A000, _SIX_KEY_BLOCKS),
    "esp32s3": _Controller(0x60007000, _SIX_KEY_BLOCKS),
    "esp32c2": _Controller(
        0x60008800,
        _one_after_the_other(
            ("BLOCK0", (), 2, None, None),
            ("BLOCK1", (), 3, 5, None),
            ("BLOCK2", (), 8, 6, None),
            ("BLOCK_KEY0", (), 8, 7, None),
        ),
        conf_offset=0x8C,
        command_offset=0x94,
        error_offsets=(0x84,),
    ),
    "esp32c3": _Controller(0x60008800, _SIX_KEY_BLOCKS, fail_bit_one_nibble_up=True),
    "esp32c5": _Controller(0x600B4800, _SIX_KEY_BLOCKS, command_offset=0x1D8, error_offsets=(0x190, 0x194)),
    "esp32c6": _Controller(0x600B0800, _SIX_KEY_BLOCKS),
    "esp32h2": _Controller(0x600B0800, _SIX_KEY_BLOCKS),
    "esp32p4": _Controller(0x5012D000, _SIX_KEY_BLOCKS),
}


def _fields_of(chip: str) -> tuple[EfuseField, ...]:
    text = (resources.files(__package__) / "efuse_tables" / f"{chip}.csv").read_text("utf-8")
    return tuple(
        EfuseField(
            row["name"],
            int(row["block"]),
            int(row["bit"]),
            int(row["bits"]),
            int(row["write_disable"]) if row["write_disable"] else None,
            int(row["read_disable"]) if row["read_disable"] else None,
        )
        for row in csv.DictReader(text.splitlines())
    )


@cache
def _geometry(chip: str) -> EfuseGeometry:
    row = _CONTROLLERS[chip]
    return EfuseGeometry(
        chip,
        row.base,
        row.conf_offset,
        row.command_offset,
        row.coding,
        row.file_size_bytes,
        row.blocks,
        _fields_of(chip),
        row.error_offsets,
        row.fail_bit_one_nibble_up,
    )


class _Geometries(Mapping[str, EfuseGeometry]):
    """By chip name; a chip's fields are read at its first use."""

    def __getitem__(self, chip: str) -> EfuseGeometry:
        return _geometry(chip)

    def __iter__(self) -> Iterator[str]:
        return iter(_CONTROLLERS)

    def __len__(self) -> int:
        return len(_CONTROLLERS)


EFUSE_GEOMETRY: Mapping[str, EfuseGeometry] = _Geometries()


def efuse_geometry(chip_name: str) -> EfuseGeometry:
    """The geometry of `chip_name`.

    Raises:
        UsageError: there is no such row.
    """
    if chip_name not in _CONTROLLERS:
        raise UsageError(
            f"no eFuse table for chip '{chip_name}'", todo=f"use one of: {', '.join(_CONTROLLERS)}"
        )
    return _geometry(chip_name)
