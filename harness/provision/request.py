"""What a plan is asked for, and what of it makes no sense. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.errors import UsageError
from harness.provision.boot_keys import BootDigest, check_digests
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord
from harness.provision.key_blocks import flash_key_blocks
from harness.provision.profile import Lock, Profile
from harness.provision.region import FlashRegion, check_regions
from harness.vault.intent import Intent
from harness.vault.key_ref import KeyRef, KeyState

SignersOf = Callable[[bytes], tuple[bytes, ...]]
"""Digests (32 bytes) of the keys whose signatures on an image are right, in the order of their blocks."""


@dataclass(frozen=True, slots=True)
class Request:
    """Everything a plan is made from: a chip, what it is to become, and what is known beside it."""

    state: ChipState
    profile: Profile
    lock: Lock
    key: KeyRef | None
    regions: tuple[FlashRegion, ...]
    intent: Intent | None
    record: DeviceRecord | None
    digests: tuple[BootDigest, ...]
    signers: SignersOf
    reflash: bool = False
    spoiled: bool = False
    """A person says that what lies in flash was spoiled: it proves nothing of the key, the device record does."""
    aggressive_revoke: bool = False
    by_firmware: bool = False
    """The last burns are left to the running firmware."""
    device_key: bool = False
    """The device makes its flash key itself, at its first start."""
    revoke: tuple[int, ...] = ()
    """Digest slots whose boot keys are no longer to be accepted."""
    firmware_burns: frozenset[str] = frozenset()
    """Fuses that the firmware burns by itself, and does not start without: none may be frozen before."""

    @property
    def vouched(self) -> bool:
        """The device record, which is found by the MAC that the chip told, says that the key in it is the vault's."""
        if not self.spoiled or self.key is None or self.record is None:
            return False
        return self.record.key_id == self.key.key_id

    @property
    def key_state(self) -> KeyState | None:
        """What is known of a flash key that is not in the vault; None: it is there, or shall be made."""
        if self.device_key:
            return KeyState.DEVICE_MADE
        if not self.profile.encrypts or self.key is not None:
            return None
        told = self.record.key_state if self.record is not None else None
        if told is not None and not KeyState(told).has_key:
            return KeyState(told)
        shown = (
            self.intent is None
            and self.state.encrypted
            and any(not block.readable for block in flash_key_blocks(self.state))
        )
        return KeyState.ELSEWHERE if shown else None

    @property
    def keyless(self) -> bool:
        """The flash key is one that is not in the vault."""
        return self.key_state is not None


def check_request(request: Request) -> None:
    """Refuses what no board could become.

    Raises:
        UsageError: says what does not go together.
    """
    state, profile, lock, key = request.state, request.profile, request.lock, request.key
    check_regions(request.regions)
    check_digests(state.chip, request.digests)
    lockable = profile.encryption is Profile.RELEASE or profile is Profile.OPEN_SBV2
    if lock is not Lock.NONE and not lockable:
        raise UsageError(
            f"lock {lock.value} goes with release and with open+sbv2, not with {profile.value}",
            todo="leave the lock out, or demand release",
        )
    if lock is Lock.SECURE_DOWNLOAD and state.chip.fuses.secure_download is None:
        raise UsageError(
            f"{state.chip.title} has no Secure Download Mode",
            todo="use lock none, or download-off, which is final",
        )
    if request.aggressive_revoke and not profile.secure_boot:
        raise UsageError(
            f"aggressive revocation goes with secure boot, not with {profile.value}",
            todo="leave it out, or demand a profile with +sbv2",
        )
    if request.revoke and not profile.secure_boot:
        raise UsageError(
            f"a boot key is revoked with secure boot, not with {profile.value}",
            todo="demand the profile with +sbv2 that the board is in",
        )
    if request.revoke and request.by_firmware:
        raise UsageError(
            "a boot key is revoked through the ROM: --revoke and --by-firmware do not go together",
            todo="revoke first, then let the firmware burn the rest",
        )
    if request.device_key and key is not None:
        raise UsageError(
            f"the vault has a key for {key.mac}: a key of the device's own would shut it out",
            todo="let the host's key be burned, or use another board",
        )
    if request.by_firmware and profile.encryption is not Profile.RELEASE:
        raise UsageError(
            f"what the firmware burns leads to release, not to {profile.value}",
            todo="leave --by-firmware out, or demand release",
        )
    if request.device_key and profile.encryption not in (Profile.DEVELOPMENT, Profile.RELEASE):
        raise UsageError(
            f"a device makes a key of its own for development or release, not for {profile.value}",
            todo="demand one of these, or let the key be made on the host",
        )
    if key is not None and (key.chip_name != state.chip_name or state.mac not in (None, key.mac)):
        raise UsageError(
            f"the key is that of {key.chip_name} {key.mac}, the board is {state.chip_name} {state.mac}"
        )
    if state.download is Download.OPEN and state.mac is None:
        raise UsageError("the board's MAC was not read; nothing is planned for a board without a name")
