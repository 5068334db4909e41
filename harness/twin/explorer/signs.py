"""What eFuses show that were burned half: why a board is stuck, and whether anything can still be added. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from harness.chips import KEY_PURPOSE_NUMBERS
from harness.chips.efuses import Coding
from harness.chips.idf_burns import idf_burns
from harness.twin.efuses import Efuses
from harness.twin.security import has_key_purposes, key_purpose, secure_boot_enabled

_FLASH_KEYS = frozenset(
    KEY_PURPOSE_NUMBERS[name] for name in KEY_PURPOSE_NUMBERS if name.startswith("XTS_AES")
)


def _key_readable_for_good(efuses: Efuses) -> bool:
    """A flash key that software can read, and no key can be hidden any more."""
    return efuses.write_protected("RD_DIS") and any(
        not efuses.read_protected(block) for block in (*_flash_key_blocks(efuses), *_unnamed_blocks(efuses))
    )


def _unnamed_blocks(efuses: Efuses) -> Iterable[str]:
    """Blocks that are not blank, and whose purpose is neither a flash key's nor a digest's, or half of one."""
    if not has_key_purposes(efuses.chip):
        return ()
    named = _FLASH_KEYS | _digests(efuses)
    blocks = (block.name for block in efuses.geometry.key_blocks)
    return (
        name
        for name in blocks
        if any(efuses.block_for_hardware(name)) and key_purpose(efuses, name) not in named
    )


def _digests(efuses: Efuses) -> frozenset[int]:
    return frozenset(KEY_PURPOSE_NUMBERS[name] for name in efuses.chip.secure_boot.digest_purposes)


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


def _unnamed_for_good(efuses: Efuses) -> bool:
    """A block that is not blank has no purpose that goes with what is in it, and takes none any more."""
    return any(
        efuses.write_protected(field)
        for block in _unnamed_blocks(efuses)
        for field in efuses.geometry.purpose_fields(block)
    )


def _secure_boot_without_encryption(efuses: Efuses) -> bool:
    """Where both keys are in one block, ESP-IDF enables both together or none."""
    return efuses.chip.fuses.key_part is not None and secure_boot_enabled(efuses)


def _key_beyond_repair(efuses: Efuses) -> bool:
    """The one block that a flash key can be in was burned half, and its check bytes tell."""
    if has_key_purposes(efuses.chip):
        return False
    return efuses.coding_errors(efuses.chip.fuses.key_storage_block)[1]


def _key_may_be_half(efuses: Efuses) -> bool:
    """A key in a block without purpose and check bytes, and none of its protections: it may be a part of one."""
    block = efuses.chip.fuses.key_storage_block
    return _has_plain_blocks(efuses) and not (efuses.read_protected(block) or efuses.write_protected(block))


def _has_plain_blocks(efuses: Efuses) -> bool:
    return not has_key_purposes(efuses.chip) and efuses.geometry.coding is not Coding.REED_SOLOMON


SIGNS: Mapping[str, Callable[[Efuses], bool]] = {
    "key readable for good": _key_readable_for_good,
    "release out of reach": _release_out_of_reach,
    "unnamed for good": _unnamed_for_good,
    "secure boot without encryption": _secure_boot_without_encryption,
    "key beyond repair": _key_beyond_repair,
    "key may be half": _key_may_be_half,
    "no key can be hidden": lambda efuses: efuses.write_protected("RD_DIS"),
    "no check bytes": _has_plain_blocks,
}
