"""eFuse geometry of all chips against the tables of the installed espefuse."""

from __future__ import annotations

import importlib
from pathlib import Path

import espefuse
import pytest
import yaml

from harness.chips import CHIPS
from harness.chips.efuses import EFUSE_GEOMETRY, Coding, efuse_geometry
from harness.errors import UsageError

TABLES = {"esp32p4": "esp32p4_v3.0"}
"""espefuse's file where it is not named after the chip: the rows are those of the newer silicon."""

# espefuse makes these two out of BLOCK_KEY0 in its program, not in its table.
HALVES = {"BLOCK_KEY0_LOW_128", "BLOCK_KEY0_HI_128"}

pytestmark = pytest.mark.parametrize("chip", list(CHIPS))


def table_of(chip: str) -> dict[str, dict]:
    path = Path(espefuse.__file__).parent / "efuse_defs" / f"{TABLES.get(chip, chip)}.yaml"
    return yaml.safe_load(path.read_text())["EFUSES"]


def definitions_of(chip: str):
    return importlib.import_module(f"espefuse.efuse.{chip}.mem_definition")


def test_every_field_lies_where_espefuse_has_it(chip):
    theirs = table_of(chip)
    for row in efuse_geometry(chip).fields:
        if row.name in HALVES:
            continue
        entry = theirs[row.name]
        place = (entry["blk"], entry["word"] * 32 + entry["pos"], entry["len"])
        assert (row.block, row.bit, row.bits) == place, row.name
        assert (row.write_disable, row.read_disable) == (entry["wr_dis"], entry["rd_dis"]), row.name


def test_no_field_that_a_person_can_burn_is_missing(chip):
    geometry = efuse_geometry(chip)
    shown = {name for name, entry in table_of(chip).items() if entry["show"] in ("y", True)}
    assert not {name for name in shown if not geometry.has_field(name) and not geometry.has_block(name)}


def test_halves_of_a_block_are_hidden_by_a_bit_each(chip):
    geometry = efuse_geometry(chip)
    halves = [row for row in geometry.fields if row.name in HALVES]
    if not halves:
        assert all(block.read_disable is not None for block in geometry.key_blocks)
        return
    built = {row.name: row for row in definitions_of(chip).EfuseDefineFields(None).KEYBLOCKS}
    for row in halves:
        their = built[row.name]
        assert (row.bit, row.bits) == (their.word * 32 + their.pos, their.bit_len)
        assert (row.write_disable, row.read_disable) == (their.write_disable_bit, their.read_disable_bit)


def test_blocks_are_those_of_espefuse(chip):
    geometry, definitions = efuse_geometry(chip), definitions_of(chip)
    theirs = [definitions.EfuseDefineBlocks.get(row) for row in definitions.EfuseDefineBlocks.BLOCKS]
    assert len(theirs) == len(geometry.blocks)
    for block, their in zip(geometry.blocks, theirs, strict=True):
        assert (block.index, block.name, block.words) == (their.id, their.name, their.len)
        assert geometry.base + block.read_offset == their.rd_addr
        assert geometry.base + block.write_offset == their.wr_addr
        assert block.write_disable == their.write_disable_bit
        if not isinstance(their.read_disable_bit, list):
            assert block.read_disable == their.read_disable_bit
        assert all(geometry.block(alias) is block for alias in their.alias)
        if their.key_purpose is not None:
            assert geometry.purpose_fields(block.index)[0] == their.key_purpose


def test_registers_are_those_of_espefuse(chip):
    geometry, registers = efuse_geometry(chip), definitions_of(chip).EfuseDefineRegisters
    base = registers.DR_REG_EFUSE_BASE
    assert geometry.base == base
    if geometry.coding is Coding.NONE:
        assert (base + geometry.conf_offset, base + geometry.command_offset) == (
            registers.EFUSE_REG_CONF,
            registers.EFUSE_REG_CMD,
        )
        return
    assert base + geometry.conf_offset == registers.EFUSE_CONF_REG
    assert base + geometry.command_offset == registers.EFUSE_CMD_REG
    single = [getattr(registers, "EFUSE_RD_RS_ERR_REG", None)]
    double = [getattr(registers, f"EFUSE_RD_RS_ERR{number}_REG", None) for number in (0, 1)]
    assert [base + offset for offset in geometry.error_offsets] == (single if single[0] else double)


def test_error_counters_are_read_as_espefuse_reads_them(chip):
    geometry, definitions = efuse_geometry(chip), definitions_of(chip)
    rows = getattr(definitions.EfuseDefineRegisters, "BLOCK_ERRORS", None)
    if rows is None:
        fields = importlib.import_module(f"espefuse.efuse.{chip}.fields")
        rows = getattr(fields.EspEfuses, "BLOCK_ERRORS", None)
    if geometry.coding is Coding.NONE or rows is None:
        assert chip in ("esp32", "esp32c3")
        return
    for block, (register, mask, count_at, fail_at) in zip(geometry.blocks[1:], rows[1:], strict=True):
        at = 4 * (block.index - 1)
        assert register == geometry.base + geometry.error_offsets[at // 32]
        assert (mask, count_at, fail_at) == (7, at % 32, at % 32 + 3)
        assert not geometry.fail_bit_one_nibble_up


def test_blocks_lie_one_after_the_other_in_the_file(chip):
    geometry = efuse_geometry(chip)
    at = 0
    for block in geometry.blocks:
        assert block.file_offset == at
        at += block.size_bytes
    assert at <= geometry.file_size_bytes == (124 if chip == "esp32" else 1024)


def test_fields_stay_inside_their_block_and_do_not_overlap(chip):
    geometry = efuse_geometry(chip)
    taken: dict[int, int] = {}
    for row in geometry.fields:
        assert row.bit + row.bits <= geometry.block(row.block).words * 32, row.name
        assert not taken.get(row.block, 0) & row.mask, row.name
        taken[row.block] = taken.get(row.block, 0) | row.mask


def test_a_write_protection_bit_names_all_that_it_freezes(chip):
    geometry = efuse_geometry(chip)
    guard = CHIPS[chip].fuses.release_write_protect
    if guard is None:
        return
    frozen = geometry.frozen_with(guard)
    assert guard in frozen
    bit = geometry.field(guard).write_disable
    entries = table_of(chip)
    # The whole of block 0 as espefuse has it, shown to people or not.
    assert set(frozen) <= {
        name for name, entry in entries.items() if entry["blk"] == 0 and entry["wr_dis"] == bit
    }
    expected = {"esp32": "MAC", "esp32s2": "SOFT_DIS_JTAG", "esp32c2": "SECURE_BOOT_EN"}
    assert expected.get(chip, "DIS_DOWNLOAD_MANUAL_ENCRYPT") in frozen


@pytest.mark.parametrize("name", ["NO_SUCH_FUSE", "BLOCK11"])
def test_unknown_names_are_refused(chip, name):
    with pytest.raises(UsageError, match=name):
        efuse_geometry(chip).field(name)
    with pytest.raises(UsageError, match=name):
        efuse_geometry(chip).block(name)


def test_all_chips_have_a_geometry_and_no_other(chip):
    assert chip in EFUSE_GEOMETRY
    assert len(EFUSE_GEOMETRY) == len(CHIPS)
