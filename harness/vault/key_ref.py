"""Names for keys: what can be said, printed and stored of a key without telling it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import Enum

from harness.chips import Chip, chip_named
from harness.errors import UsageError


class KeyState(str, Enum):
    """Where a flash key is in its life. A key only goes on by a command that names its device."""

    TEST_ONLY = "test-only"
    """Its owner keeps it here alone: the device may be used for tests and must not be shipped."""
    HANDED_OVER = "handed-over"
    """A receiver has shown, by enciphering a block, that their copy is this key."""
    FORGOTTEN = "forgotten"
    """The key was destroyed here; a record without it stays, so that nobody makes another one for that device."""
    UNPROVEN = "unproven"
    """It was brought from elsewhere, and nothing shows yet that it is the one in the chip."""
    DEVICE_MADE = "device-made"
    """The device made its key itself: there is none here, and never can be."""

    ELSEWHERE = "elsewhere"
    """There is a key in the chip that never was here. Of a device only; the vault has no record of such a key."""

    @property
    def has_key(self) -> bool:
        """There is a key in the record."""
        return self not in (KeyState.FORGOTTEN, KeyState.DEVICE_MADE, KeyState.ELSEWHERE)

    @property
    def shippable(self) -> bool:
        """Nothing about the key speaks against shipping the device."""
        return self not in (KeyState.TEST_ONLY, KeyState.UNPROVEN)


KEYLESS = {
    KeyState.DEVICE_MADE: "made by the device itself",
    KeyState.FORGOTTEN: "forgotten here",
    KeyState.ELSEWHERE: "made elsewhere",
}
"""What a key is that is not in the vault, as the end of a sentence."""

DO_NOT_SHIP = "do not ship"
"""The mark of a device whose key is not where it belongs for the rest of the device's life."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class KeyRef:
    """One device's flash key, without the key."""

    mac: str
    chip_name: str
    key_id: str
    state: KeyState = KeyState.TEST_ONLY
    part_ids: tuple[str, ...] = ()
    """Key ids of the halves of a key that takes two eFuse blocks, to compare one block with."""

    @property
    def chip(self) -> Chip:
        return chip_named(self.chip_name)


def key_id(key: bytes) -> str:
    """16 hexadecimal digits: the first 8 bytes of SHA-256 over a label and the key file's bytes.

    The label keeps it from being a hash of the key that somebody else might use for something.
    """
    return hashlib.sha256(b"esp32-secure-ota key id\0" + key).digest()[:8].hex()


def part_ids(key: bytes) -> tuple[str, ...]:
    """Key ids of the two halves of a 64-byte key; of a shorter one, which lies in one block, there are none."""
    return (key_id(key[:32]), key_id(key[32:])) if len(key) == 64 else ()


def plain_mac(mac: str) -> str:
    """`mac` as the vault writes it: lower case, colons.

    Raises:
        UsageError: it is not a MAC address. Such a name must never become a path.
    """
    plain = mac.strip().lower().replace("-", ":")
    if not _MAC.fullmatch(plain):
        raise UsageError(f"'{mac}' is not a MAC address", todo="write it as aa:bb:cc:dd:ee:ff")
    return plain
