"""Names for keys: what can be said, printed and stored of a key without telling it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from harness.chips import Chip, chip_named
from harness.errors import UsageError

KEY_STATE_TEST_ONLY = "test-only"
"""A key that its owner keeps: the device may be used for tests and must not be shipped."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class KeyRef:
    """One device's flash key, without the key."""

    mac: str
    chip_name: str
    key_id: str
    state: str = KEY_STATE_TEST_ONLY
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
