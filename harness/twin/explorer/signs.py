"""What eFuses show that were burned half: why a board is stuck, and whether anything can still be added. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.chips import KEY_PURPOSE_NUMBERS
from harness.chips.efuses import Coding
from harness.chips.idf_burns import idf_burns
from harness.twin.efuses import Efuses
from harness.twin.security import has_key_purposes, key_purpose

_FLASH_KEYS = frozenset(
    KEY_PURPOSE_NUMBERS[name] for name in KEY_PURPOSE_NUMBERS if name.startswith("XTS_AES")
)


def _key_readable_for_good(efuses: Efuses) -> bool:
    """A flash key that software can read, and no key can be hidden any more."""
    return efuses.write_protected("RD_DIS") and any(
        not efuses.read_protected(block) for block in _flash_key_blocks(efuses)
    )


def _flash_key_blocks(efuses: Efuses) -> Iterable[str]:
    if not has_key_purposes(efuses.chip):
        return (efuses.chip.fuses.key_storage_block,)
    blocks = (block.name for block in efuses.geometry.key_blocks)
    return (name for name in blocks if key_purpose(efuses, name) in _FLASH_KEYS)


def _release_out_of_reach(efuses: Efuses) -> bool:
    """A fuse that the first boot burns is write-protected, and not burned."""
    burns = idf_burns(efuses.chip.name)
    names = {*burns.always, *burns.release_mode, *(fuse for door in burns.doors for fuse in door.fuses)}
    return any(efuses.write_protected(name) and not efuses.field(name) for name in names)


def _digest_unnamed_for_good(efuses: Efuses) -> bool:
    """A block that is not blank has not the purpose of a digest, and takes none any more."""
    if not has_key_purposes(efuses.chip):
        return False
    digests = {KEY_PURPOSE_NUMBERS[name] for name in efuses.chip.secure_boot.digest_purposes}
    return any(
        any(efuses.block_for_software(block.name))
        and key_purpose(efuses, block.name) not in digests
        and any(efuses.write_protected(field) for field in efuses.geometry.purpose_fields(block.name))
        for block in efuses.geometry.key_blocks
    )


def _key_beyond_repair(efuses: Efuses) -> bool:
    """The one block that a flash key can be in was burned half, and its check bytes tell."""
    if has_key_purposes(efuses.chip):
        return False
    return efuses.coding_errors(efuses.chip.fuses.key_storage_block)[1]


def _key_may_be_half(efuses: Efuses) -> bool:
    """A key in a block without purpose and check bytes, and none of its protections: it may be a part of one."""
    block = efuses.chip.fuses.key_storage_block
    plain = not has_key_purposes(efuses.chip) and efuses.geometry.coding is not Coding.REED_SOLOMON
    return plain and not (efuses.read_protected(block) or efuses.write_protected(block))


SIGNS: Mapping[str, Callable[[Efuses], bool]] = {
    "key readable for good": _key_readable_for_good,
    "release out of reach": _release_out_of_reach,
    "digest unnamed for good": _digest_unnamed_for_good,
    "key beyond repair": _key_beyond_repair,
    "key may be half": _key_may_be_half,
}
