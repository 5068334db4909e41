"""A device's base MAC, as text and as the six bytes of an OTA package header."""

from __future__ import annotations

import re

from harness.errors import UsageError

MAC_BYTES = 6
_TEXT = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}|[0-9a-fA-F]{12}")


def parse_mac(mac: str | bytes) -> bytes:
    """Six bytes, the first one printed first, from ``aa:bb:cc:dd:ee:ff``; any case, also with dashes or bare.

    Raises:
        UsageError: this is no MAC address.
    """
    if isinstance(mac, bytes):
        if len(mac) != MAC_BYTES:
            raise UsageError(f"a MAC address has {MAC_BYTES} bytes, not {len(mac)}")
        return mac
    if not _TEXT.fullmatch(mac):
        raise UsageError(f"'{mac}' is not a MAC address", todo="write it as aa:bb:cc:dd:ee:ff")
    return bytes.fromhex(re.sub("[:-]", "", mac))


def normal_mac(mac: str | bytes) -> str:
    """``aa:bb:cc:dd:ee:ff``, lower case: the form that names a device everywhere in the harness.

    Raises:
        UsageError: this is no MAC address.
    """
    return parse_mac(mac).hex(":")
