"""Whether the key in the chip is the vault's, shown by the chip itself."""

from __future__ import annotations

import hashlib

from harness.chips import Chip
from harness.errors import BoardError, FormatError
from harness.formats.flash_encryption import decrypt, encrypt
from harness.provision.session import Session

CANARY_BYTES = 64
"""Two rows of ESP32's cipher, four AES blocks, one read of the ROM: enough that chance has no chance."""

_IMAGE_MAGIC = 0xE9
_CHIP_ID_OFFSET = 12
_HEADER_BYTES = 32


def canary_text(mac: str) -> bytes:
    """The known bytes for one board. Not an image: esptool must not take them for one."""
    return b"canary of " + hashlib.sha512(mac.encode("ascii")).digest()[: CANARY_BYTES - 10]


def sing(session: Session, chip: Chip, mac: str, key: bytes, address: int) -> None:
    """Lets the chip encipher the canary at `address` and compares the raw bytes with our own ciphertext.

    Raises:
        BoardError: they differ: the chip has another key, or uses it in another way.
    """
    text = canary_text(mac)
    session.write_flash([(address, text)], encrypt=True)
    found = session.read_flash(address, CANARY_BYTES)
    if found == encrypt(chip.cipher, key, address, text):
        return
    what = "it did not encipher at all" if found == text else "its key is not the vault's"
    raise BoardError(
        f"the chip enciphers the canary at {address:#x} to something else: {what}. Stopped before the counter and "
        "everything after it",
        board=mac,
        todo="this board cannot be used with the vault's key; look whether another vault has it",
    )


def check_deciphers(session: Session, chip: Chip, mac: str, key: bytes, address: int) -> None:
    """The bootloader's head in flash must decipher to an image header of this chip.

    Raises:
        BoardError: it does not: flash was enciphered with another key, or is damaged.
    """
    raw = session.read_flash(address, _HEADER_BYTES)
    try:
        header = decrypt(chip.cipher, key, address, raw)
    except FormatError as error:
        raise BoardError(f"the bootloader's head cannot be read: {error.message}", board=mac) from error
    chip_id = int.from_bytes(header[_CHIP_ID_OFFSET : _CHIP_ID_OFFSET + 2], "little")
    if header[0] != _IMAGE_MAGIC or chip_id != chip.chip_id:
        raise BoardError(
            f"the bootloader at {address:#x} does not decipher with the vault's key: it was enciphered with "
            "another one, or is damaged. Nothing was changed",
            board=mac,
            todo="look whether another vault has this board's key; if its flash was spoiled: harness provision --reflash",
        )
