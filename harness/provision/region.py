"""What is to lie in flash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.provision.profile import Profile

SECTOR_BYTES = 0x1000


@dataclass(frozen=True, slots=True)
class FlashRegion:
    """Plaintext for one place in flash."""

    name: str
    """E.g. ``bootloader``; unique among the regions of a plan."""
    offset: int
    """Byte address, a multiple of 4096."""
    data: bytes = field(repr=False)
    """As the chip is to see it; enciphered on the way where the profile encrypts and `stored_encrypted` is set."""
    stored_encrypted: bool = True
    """An encrypted chip reads it through the decrypting path (bootloader, table, app, otadata, flagged data)."""
    burns_up_to: Profile | None = None
    """The profile that this firmware burns by itself when it starts, if any; needs consent as our burns do."""

    @property
    def end(self) -> int:
        """First byte address after the last sector that is erased for it."""
        return self.offset + -(-len(self.data) // SECTOR_BYTES) * SECTOR_BYTES

    @property
    def sha256(self) -> str:
        """Of the plaintext, hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def check_regions(regions: Sequence[FlashRegion]) -> None:
    """Refuses regions that cannot be written as they are.

    Raises:
        UsageError: alignment, emptiness, overlap or a name given twice.
    """
    seen: list[FlashRegion] = []
    for region in sorted(regions, key=lambda each: each.offset):
        if region.offset % SECTOR_BYTES or region.offset < 0:
            raise UsageError(f"{region.name} at {region.offset:#x} does not start on a 4096-byte sector")
        if not region.data:
            raise UsageError(f"{region.name} is empty")
        for other in seen:
            if other.name == region.name:
                raise UsageError(f"two regions are called {region.name}")
            if region.offset < other.end:
                raise UsageError(
                    f"{region.name} at {region.offset:#x} overlaps {other.name}, which ends at {other.end:#x}"
                )
        seen.append(region)
