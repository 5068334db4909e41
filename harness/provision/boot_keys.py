"""Public keys of secure boot v2, as the planner burns them: digests, never keys."""

from __future__ import annotations

from dataclasses import dataclass

from harness.chips import Chip, SigningScheme
from harness.errors import UsageError

DIGEST_BYTES = 32
"""SHA-256."""


@dataclass(frozen=True, slots=True)
class BootDigest:
    """The public key of one digest slot."""

    slot: int
    """From 0; one per key that the ROM accepts."""
    digest: bytes
    """All 32 bytes of SHA-256 over the public key as the ROM hashes it, before a chip's truncation."""
    name: str
    """What the key is called, for people."""
    scheme: SigningScheme | None = None
    """What it signs with; some schemes want a fuse of their own. None: it is not known."""

    @property
    def sha384(self) -> bool:
        """Its signatures are over SHA-384 (ECDSA P-384), which the ROM must be told by a fuse."""
        return self.scheme is SigningScheme.ECDSA_P384

    def burned_on(self, chip: Chip) -> bytes:
        """What lies in the chip's eFuses: the digest, or its first 16 bytes on ESP32-C2."""
        return self.digest[: chip.secure_boot.digest_size_bytes]


def check_digests(chip: Chip, digests: tuple[BootDigest, ...]) -> None:
    """Refuses digests that cannot be burned as they are.

    Raises:
        UsageError: a digest of another length, a slot that the chip lacks, a slot or a key given twice.
    """
    slots = max(1, len(chip.secure_boot.digest_purposes))
    if any(each.sha384 for each in digests):
        if chip.secure_boot.sha384_enable is None:
            raise UsageError(f"the ROM of {chip.title} verifies no signatures over SHA-384")
        if not all(each.sha384 for each in digests):
            raise UsageError(
                "one fuse decides for all boot keys whether signatures are over SHA-384, and these are mixed",
                todo="use P-384 for all boot keys of the board, or for none",
            )
    taken: dict[int, BootDigest] = {}
    for each in digests:
        if len(each.digest) != DIGEST_BYTES:
            raise UsageError(
                f"the digest of boot key {each.name} has {len(each.digest)} bytes, not {DIGEST_BYTES}"
            )
        if not 0 <= each.slot < slots:
            raise UsageError(
                f"boot key {each.name} is meant for digest slot {each.slot}; {chip.title} has {slots}, from 0",
                todo="give the key another slot",
            )
        if each.slot in taken:
            raise UsageError(f"boot keys {taken[each.slot].name} and {each.name} share slot {each.slot}")
        if any(each.digest == other.digest for other in taken.values()):
            raise UsageError(f"boot key {each.name} is given for two slots")
        taken[each.slot] = each
