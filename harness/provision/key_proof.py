"""Whether an imported key is the one in the chip, shown by the chip in download mode: no claim of a person counts."""

from __future__ import annotations

from harness.chips import Chip
from harness.errors import FormatError
from harness.formats.app_image import IMAGE_MAGIC, parse_app_image
from harness.formats.flash_encryption import decrypt
from harness.provision.chip_state import ChipState, Download
from harness.provision.key_blocks import flash_key_blocks, key_parts, shares_one_block
from harness.provision.session import Session
from harness.vault.key_proof import KeyProof, ProofResult
from harness.vault.key_ref import key_id

BOOTLOADER_READ_BYTES = 0x10000
"""More than any bootloader has, one with a signature behind it, too."""


def can_read_flash(state: ChipState) -> bool:
    """Whether raw flash can be read, and is ciphertext."""
    return state.download is Download.OPEN and state.encrypted


def proof_by_key_block(state: ChipState, key: bytes) -> KeyProof | None:
    """By the key's own blocks, where they can still be read. None: they cannot, or hold more than a key."""
    chip, blocks = state.chip, flash_key_blocks(state)
    purposes = {part.purpose: part for part in key_parts(chip)}
    if shares_one_block(chip) or {block.purpose for block in blocks} != set(purposes):
        return None
    if not all(block.readable and block.key_id is not None for block in blocks):
        return None
    for block in blocks:
        if block.key_id != key_id(purposes[block.purpose].of(key)):
            return KeyProof(ProofResult.WRONG, f"{block.name} can be read, and holds another key")
    names = ", ".join(block.name for block in blocks)
    return KeyProof(ProofResult.PROVEN, f"{names} can be read, and holds it")


def proof_by_bootloader(session: Session, chip: Chip, key: bytes) -> KeyProof:
    """By a raw read of the bootloader, which must decipher to an image that is whole and for this chip.

    Raises:
        BoardError: flash cannot be read.
    """
    address = chip.bootloader_offset
    plain = decrypt(chip.cipher, key, address, session.read_flash(address, BOOTLOADER_READ_BYTES))
    where = f"the bootloader at {address:#x}"
    try:
        image = parse_app_image(plain)
    except FormatError:
        image = None
    if image is not None and image.chip_id == chip.chip_id and image.is_intact:
        return KeyProof(ProofResult.PROVEN, f"{where} deciphers to a whole image")
    if plain[0] == IMAGE_MAGIC and int.from_bytes(plain[12:14], "little") == chip.chip_id:
        return KeyProof(ProofResult.OPEN, f"{where} deciphers to the beginning of an image that is not whole")
    return KeyProof(ProofResult.WRONG, f"{where} does not decipher with it")
