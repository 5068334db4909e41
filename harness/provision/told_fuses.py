"""eFuses as the running firmware tells them: what a host compares a plan with behind a locked ROM.

In Secure Download Mode, and with UART download off, the ROM shows no eFuse. The firmware still reads them: its
``boot`` and ``status`` events hold BLOCK0, in which lie all fuses of a security profile and the purposes and protections
of the key blocks, and which key blocks read as zeros (firmware/README.md). Pure: from an event's fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.chips import KEY_PURPOSE_NUMBERS, Chip
from harness.chips.efuses import EfuseField, EfuseGeometry, efuse_geometry
from harness.errors import FormatError
from harness.provision.chip_state import ChipState, Download, KeyBlock
from harness.provision.recognition import Recognition, profile_of

FUSES = "fuses"
"""Field of the events: BLOCK0 in the order of its read registers, little-endian words, hexadecimal."""
BLANK = "blank_key_halves"
"""Field: bit 2n is 1 when the lower 128 bits of the nth key block read as zeros, bit 2n+1 for the upper."""

COUNT = "fuse_secure_version"
"""Field: how many bits of the secure version are burned. They are the lowest ones."""
SECURE_VERSION = "SECURE_VERSION"

_LARGEST_NUMBER_BITS = 32
_PURPOSES = {0: "USER", **{number: name for name, number in KEY_PURPOSE_NUMBERS.items()}}


def told_state(chip: Chip, fields: Mapping[str, object]) -> ChipState | None:
    """The chip as its firmware sees it; None where an older firmware tells nothing of fuses.

    Key ids and coding errors are not in it, nor is the chip's revision. A block that cannot be read counts as empty, as
    it does where espefuse reads it.

    Raises:
        FormatError: a field is not what this chip's firmware would say.
    """
    text = fields.get(FUSES)
    if text is None:
        return None
    geometry = efuse_geometry(chip.name)
    block0 = _block0(geometry, str(text))
    wr_dis, rd_dis = (_value(geometry.field(name), block0) for name in ("WR_DIS", "RD_DIS"))
    # Numbers only, as in a state that espefuse has read: a MAC, which ESP32 has there, is none.
    rows = [row for row in geometry.fields if row.block == 0 and row.bits <= _LARGEST_NUMBER_BITS]
    fuses = {row.name: _value(row, block0) for row in rows}
    if SECURE_VERSION not in fuses:
        # ESP32 keeps it in block 3; states have it all the same.
        rows.append(geometry.field(SECURE_VERSION))
        fuses[SECURE_VERSION] = (1 << _number(fields, COUNT)) - 1
    return ChipState(
        chip_name=chip.name,
        mac=str(fields["mac"]).lower() if "mac" in fields else None,
        revision=None,
        fuses=fuses,
        write_protected=frozenset(row.name for row in rows if _is_closed(row.write_disable, wr_dis)),
        hidden=frozenset(row.name for row in rows if _is_closed(row.read_disable, rd_dis)),
        key_blocks=_key_blocks(chip, geometry, fuses, _number(fields, BLANK)),
        download=_download(chip, fuses),
    )


def told_profile(chip: Chip, fields: Mapping[str, object]) -> Recognition | None:
    """Which profile and lock the told fuses are; None as `told_state`.

    Unlike `profile_of` for a state that the ROM told, this needs no device record behind a lock: the fuses are known.

    Raises:
        FormatError: as `told_state`.
    """
    state = told_state(chip, fields)
    return None if state is None else profile_of(replace(state, download=Download.OPEN))


def _block0(geometry: EfuseGeometry, text: str) -> int:
    size = geometry.block(0).size_bytes
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != size:
        raise FormatError(
            f"the firmware tells BLOCK0 as '{text}', expected {size} bytes in hexadecimal",
            todo=f"is it built for {geometry.chip}?",
        )
    return int.from_bytes(raw, "little")


def _number(fields: Mapping[str, object], name: str) -> int:
    found = fields.get(name)
    if not isinstance(found, int) or not 0 <= found < 1 << 32:
        raise FormatError(
            f"the firmware tells {name} as {found!r}, expected a number",
            todo="update the companion firmware: it is older than this harness",
        )
    return found


def _key_blocks(
    chip: Chip, geometry: EfuseGeometry, fuses: Mapping[str, int], blank: int
) -> tuple[KeyBlock, ...]:
    """The blocks that espefuse's states name: those with purposes, else those of flash key and digest."""
    # On ESP32 every block after the first counts as a key block.
    blocks = geometry.key_blocks or geometry.blocks[1:]
    found = []
    for index, block in enumerate(blocks):
        halves = blank >> 2 * index & 0b11
        writeable = not _is_closed(block.write_disable, fuses["WR_DIS"])
        purposes = geometry.purpose_fields(block.name)
        parts = {
            block.name: (block.read_disable, halves == 0b11),
        }
        if chip.fuses.key_part is not None and chip.secure_boot.digest_part is not None:
            # Two halves of one block, each with its own read protection.
            parts = {
                block.name: (geometry.field(chip.fuses.key_part).read_disable, bool(halves & 0b01)),
                chip.secure_boot.digest_part: (
                    geometry.field(chip.secure_boot.digest_part).read_disable,
                    bool(halves & 0b10),
                ),
            }
        for name, (read_disable, empty) in parts.items():
            found.append(
                KeyBlock(
                    name=name,
                    purpose=_purpose(geometry, purposes, fuses) if purposes else None,
                    empty=empty,
                    readable=not _is_closed(read_disable, fuses["RD_DIS"]),
                    writeable=writeable,
                    purpose_writeable=not any(
                        _is_closed(geometry.field(name).write_disable, fuses["WR_DIS"]) for name in purposes
                    ),
                    key_id=None,
                    coding_errors=0,
                )
            )
    return tuple(found)


def _purpose(geometry: EfuseGeometry, names: tuple[str, ...], fuses: Mapping[str, int]) -> str:
    """espefuse's word, or the number of a purpose that has nothing to do with flash or boot."""
    number = shift = 0
    for name in names:
        number |= fuses[name] << shift
        shift += geometry.field(name).bits
    return _PURPOSES.get(number, str(number))


def _download(chip: Chip, fuses: Mapping[str, int]) -> Download:
    if fuses[chip.fuses.download_off]:
        return Download.OFF
    secure = chip.fuses.secure_download
    return Download.SECURE if secure is not None and fuses[secure] else Download.OPEN


def _value(row: EfuseField, block: int) -> int:
    return (block & row.mask) >> row.bit


def _is_closed(bit: int | None, disable: int) -> bool:
    return bit is not None and bool(disable >> bit & 1)
