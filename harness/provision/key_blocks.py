"""Which eFuse block holds what, and where a key may go. Pure: from a chip's row and its state."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.chips import Chip
from harness.chips.efuses import efuse_geometry
from harness.provision.boot_keys import BootDigest
from harness.provision.chip_state import ChipState, KeyBlock
from harness.vault.key_ref import KeyRef, key_id

FLASH_PURPOSES = frozenset({"XTS_AES_128_KEY", "XTS_AES_256_KEY_1", "XTS_AES_256_KEY_2"})
"""Of blocks that hold a flash key or half of one, whoever burned it."""


@dataclass(frozen=True, slots=True)
class KeyPart:
    """What of a flash key one block takes: all of it, or 32 bytes of an XTS-AES-256 key."""

    purpose: str | None
    """As espefuse is told and as the purpose field says afterwards; None on ESP32."""
    half: int | None
    """0 or 1; None: the whole key."""

    def of(self, key: bytes) -> bytes:
        """The bytes of `key` that go into this block."""
        return key if self.half is None else key[32 * self.half : 32 * (self.half + 1)]

    def id_in(self, ref: KeyRef) -> str | None:
        """Key id of this part of the key that `ref` stands for; None where the vault does not say."""
        if self.half is None:
            return ref.key_id
        return ref.part_ids[self.half] if len(ref.part_ids) > self.half else None


def key_parts(chip: Chip) -> tuple[KeyPart, ...]:
    """One per block that a flash key of this chip takes."""
    purposes = chip.fuses.key_purposes
    if len(purposes) > 1:
        return tuple(KeyPart(purpose, half) for half, purpose in enumerate(purposes))
    return (KeyPart(chip.fuses.key_purpose, None),)


def has_purposes(chip: Chip) -> bool:
    """The chip's blocks have purpose fields; ESP32's and ESP32-C2's are fixed."""
    return chip.fuses.key_purpose_field is not None


def shares_one_block(chip: Chip) -> bool:
    """Flash key and digest are parts of one block, which is burned in one go or not at all (ESP32-C2)."""
    return chip.fuses.key_part is not None


def digest_block_name(chip: Chip) -> str | None:
    """The one block (or part of it) that a digest lies in; None where any free block will do."""
    boot = chip.secure_boot
    if boot.digest_block is None:
        return None
    return boot.digest_part or efuse_geometry(chip.name).block(boot.digest_block).name


def flash_key_blocks(state: ChipState) -> tuple[KeyBlock, ...]:
    """The blocks that hold a flash key, or part of one, as far as the chip shows."""
    fuses = state.chip.fuses
    if not has_purposes(state.chip):
        return tuple(
            block
            for block in state.key_blocks
            if block.name == fuses.key_storage_block and not (block.empty and block.readable)
        )
    return tuple(block for block in state.key_blocks if block.purpose in FLASH_PURPOSES)


def purpose_sets(chip: Chip) -> tuple[frozenset[str], ...]:
    """Which purposes together make one flash key, on a chip with purpose fields."""
    return (
        (frozenset({"XTS_AES_128_KEY"}), frozenset({"XTS_AES_256_KEY_1", "XTS_AES_256_KEY_2"}))
        if has_purposes(chip)
        else ()
    )


def holds(block: KeyBlock, digest: BootDigest, chip: Chip) -> bool:
    """Whether a readable block has exactly this digest in it, with or without its purpose."""
    burned = digest.burned_on(chip)
    if block.digest is not None:
        return block.digest == burned.hex()
    # Blocks are named as if they held a flash key, which is burned reversed; a digest is not.
    return block.key_id is not None and block.key_id == key_id(burned[::-1])


@dataclass(frozen=True, slots=True)
class DigestSlot:
    """One place for a boot key's digest, as the chip shows it."""

    number: int
    block: KeyBlock | None
    """The block that has this slot's purpose (on ESP32 and ESP32-C2 the one block that there is); None: none has."""
    revoked: bool

    @property
    def used(self) -> bool:
        """Something is in it, or can no longer be seen."""
        return self.block is not None and not (self.block.empty and self.block.readable)

    @property
    def trusted(self) -> bool:
        """The ROM accepts signatures by the key whose digest it holds."""
        return self.block is not None and self.block.readable and not self.block.empty and not self.revoked


def digest_slots(state: ChipState) -> tuple[DigestSlot, ...]:
    """The slots of the chip, from 0."""
    chip = state.chip
    boot = chip.secure_boot
    fixed = digest_block_name(chip)
    if fixed is not None:
        return (DigestSlot(0, state.block(fixed), revoked=False),)
    found = []
    for number, purpose in enumerate(boot.digest_purposes):
        block = next((each for each in state.key_blocks if each.purpose == purpose), None)
        revoked = number < len(boot.revoke) and state.is_set(boot.revoke[number])
        found.append(DigestSlot(number, block, revoked))
    return tuple(found)


def free_blocks(
    state: ChipState, *, for_flash_key: bool, taken: Collection[str] = ()
) -> tuple[KeyBlock, ...]:
    """The blocks that a key may go to, in the order in which they are tried; not all of them are unused."""
    chip = state.chip
    if not has_purposes(chip):
        name = chip.fuses.key_storage_block if for_flash_key else digest_block_name(chip)
        return tuple(block for block in state.key_blocks if block.name == name)
    excluded = chip.key_blocks_without_flash_keys if for_flash_key else frozenset()
    return tuple(
        block for block in state.key_blocks if block.name not in excluded and block.name not in taken
    )


def occupant(block: KeyBlock) -> str:
    """Why a block is not free, in a word or two."""
    if block.coding_errors:
        return "damaged"
    if not block.readable:
        return "read-protected"
    if block.purpose not in (None, "USER"):
        return str(block.purpose)
    if not block.empty:
        return "not empty"
    return "write-protected"


def occupants(blocks: Sequence[KeyBlock]) -> str:
    """All of them in one line."""
    return ", ".join(f"{block.name} ({occupant(block)})" for block in blocks)


def write_disable_bit(state: ChipState, fuse: str) -> str:
    """Which bit of WR_DIS freezes `fuse`, in words."""
    bit = _write_disable(state.chip, fuse)
    return "WR_DIS" if bit is None else f"WR_DIS bit {bit}"


def sharing_protection(chip: Chip, fuse: str) -> tuple[str, ...]:
    """The other fields of BLOCK0 that the write-protection bit of `fuse` freezes."""
    return tuple(name for name in efuse_geometry(chip.name).frozen_with(fuse) if name != fuse)


def release_fuses_frozen_with(chip: Chip, fuse: str) -> tuple[str, ...]:
    """Fuses of release that the write-protection bit of `fuse` freezes: until they are burned it must stay open."""
    return tuple(name for name in sharing_protection(chip, fuse) if name in chip.fuses.release)


def _write_disable(chip: Chip, fuse: str) -> int | None:
    geometry = efuse_geometry(chip.name)
    return geometry.field(fuse).write_disable if geometry.has_field(fuse) else None
