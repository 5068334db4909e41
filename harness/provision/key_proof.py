"""Whether an imported key is the one in the chip, shown by the chip in download mode: no claim of a person counts."""

from __future__ import annotations

from harness.chips import Chip
from harness.errors import FormatError
from harness.formats.app_image import IMAGE_MAGIC, parse_app_image
from harness.formats.flash_encryption import decrypt
from harness.provision.chip_state import ChipState, Download
from harness.provision.key_blocks import flash_key_blocks, key_parts
from harness.provision.session import Session
from harness.vault.key_proof import KeyProof, ProofResult
from harness.vault.key_ref import key_id

BOOTLOADER_READ_BYTES = 0x10000
"""More than any bootloader has, one with a signature behind it, too."""

KEY_BLOCK_BYTES = 32
"""Of one key block; a key of another size shares one, or takes two."""


def can_read_flash(state: ChipState) -> bool:
    """Whether raw flash can be read, and is ciphertext."""
    return state.download is Download.OPEN and state.encrypted


def proof_by_key_block(state: ChipState, key: bytes) -> KeyProof | None:
    """By the key block itself, where it can still be read. None: it cannot, or holds nothing, or not a key alone."""
    blocks = [block for block in flash_key_blocks(state) if block.readable and block.key_id is not None]
    if len(blocks) != 1 or state.chip.cipher.key_size_bytes != KEY_BLOCK_BYTES:
        return None
    for block in blocks:
        part = next((part for part in key_parts(state.chip) if part.purpose == block.purpose), None)
        wanted = key if part is None else part.of(key)
        if block.key_id != key_id(wanted):
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
