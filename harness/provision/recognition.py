"""Which profile a chip is in. Pure: from its eFuses, or where those are out of reach from its record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.chips import KEY_PURPOSE_NUMBERS
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord
from harness.provision.key_blocks import flash_key_blocks, has_purposes, purpose_sets
from harness.provision.profile import Lock, Profile
from harness.provision.secure_boot_state import (
    locked_disagreements,
    missing_for_secure_boot,
    secure_boot_faults,
    secure_boot_fuses,
    trusted_slots,
)


@dataclass(frozen=True, slots=True)
class Recognition:
    """A verdict with its reasons. `profile` None means: none of the profiles, or it cannot be told."""

    profile: Profile | None
    lock: Lock
    reasons: tuple[str, ...]
    """Why it is what it is, or why it is none; for a person."""
    missing: tuple[str, ...] = ()
    """What is still missing for release, fuse by fuse; empty when it is release."""
    missing_boot: tuple[str, ...] = ()
    """What of secure boot is still missing although it is on; empty when nothing is, or it is off."""

    def text(self) -> str:
        """One line."""
        name = self.profile.value if self.profile else "none of the known profiles"
        return f"{name}, UART download {LOCK_WORDS[self.lock]}: {'; '.join(self.reasons)}"


LOCK_WORDS = {Lock.NONE: "open", Lock.SECURE_DOWNLOAD: "in secure mode", Lock.DOWNLOAD_OFF: "off"}


def missing_for_release(state: ChipState) -> tuple[str, ...]:
    """What `esp_flash_encryption_cfg_verify_release_mode()` of ESP-IDF would still miss, fuse by fuse."""
    fuses = state.chip.fuses
    missing = []
    if not state.permanent:
        missing.append(f"{fuses.counter} is {state.crypt_count:#x}, not {fuses.counter_release:#x}")
    missing += [f"{fuse} is not set" for fuse in fuses.release if not state.is_set(fuse)]
    if fuses.release_write_protect is not None and fuses.release_write_protect not in state.write_protected:
        missing.append(f"{fuses.release_write_protect} is not write-protected")
    return (*missing, *missing_for_encryption(state))


def missing_for_encryption(state: ChipState) -> tuple[str, ...]:
    """What a flash key needs to be used right and kept secret: protections, purpose, configuration."""
    fuses = state.chip.fuses
    blocks = flash_key_blocks(state)
    missing = [] if blocks else ["no flash key is burned"]
    if blocks and has_purposes(state.chip):
        found = {str(block.purpose) for block in blocks}
        if not any(whole <= found for whole in purpose_sets(state.chip)):
            missing.append(f"half of the flash key is missing: {', '.join(sorted(found))} alone is none")
    for block in blocks:
        if block.readable:
            missing.append(f"{block.name} is not read-protected")
        if block.writeable:
            missing.append(f"{block.name} is not write-protected")
        if has_purposes(state.chip) and block.purpose_writeable:
            missing.append(f"the purpose of {block.name} is not write-protected")
    missing += [
        f"{fuse} is {state.fuses.get(fuse, 0):#x}, not {value:#x}"
        for fuse, value in fuses.key_config
        if state.fuses.get(fuse, 0) != value
    ]
    return tuple(missing)


def lock_of(state: ChipState) -> Lock:
    """What is left of UART download; a burned lock fuse counts although it acts from the next reset on."""
    fuses = state.chip.fuses
    if state.download is Download.OFF or state.is_set(fuses.download_off):
        return Lock.DOWNLOAD_OFF
    if state.download is Download.SECURE or (fuses.secure_download and state.is_set(fuses.secure_download)):
        return Lock.SECURE_DOWNLOAD
    return Lock.NONE


def profile_of(state: ChipState, record: DeviceRecord | None = None) -> Recognition:
    """Which profile `state` is; behind a locked download mode, what `record` says unless the chip objects."""
    if state.download is not Download.OPEN:
        return _behind_lock(state, record)
    lock = lock_of(state)
    half = _encryption_of(state, lock)
    if not secure_boot_fuses(state):
        return half
    faults = secure_boot_faults(state)
    if faults or half.profile is None:
        return replace(half, profile=None, reasons=(*faults, *half.reasons))
    keys = ", ".join(
        f"slot {slot.number} in {slot.block.name}" for slot in trusted_slots(state) if slot.block is not None
    )
    missing = missing_for_secure_boot(state)
    loose = (f"of secure boot is missing: {', '.join(missing)}",) if missing else ()
    return replace(
        half,
        profile=Profile.of(half.profile, secure_boot=True),
        reasons=(*half.reasons, f"secure boot is on with {keys}", *loose),
        missing_boot=missing,
    )


def _encryption_of(state: ChipState, lock: Lock) -> Recognition:
    """The half that speaks of encryption."""
    if not state.encrypted:
        return _unencrypted(state, lock)
    loose = missing_for_encryption(state)
    missing = missing_for_release(state)
    if not missing:
        return Recognition(Profile.RELEASE, lock, ("all eFuses of release are burned",))
    if loose:
        return Recognition(None, lock, ("flash encryption is on, but", *loose), missing)
    if state.manual_encryption and not state.permanent:
        return Recognition(
            Profile.DEVELOPMENT, lock, ("encryption is on and can be turned off again",), missing
        )
    if state.permanent and not state.manual_encryption:
        said = "encryption is on for good, the ROM does not encipher"
        return Recognition(Profile.CIPHERTEXT_ONLY, lock, (said,), missing)
    said = (
        "encryption is permanent, yet the ROM still enciphers: half-done release"
        if state.permanent
        else "the ROM does not encipher, yet encryption can be turned off again: half-done"
    )
    return Recognition(None, lock, (said,), missing)


def _unencrypted(state: ChipState, lock: Lock) -> Recognition:
    keys = flash_key_blocks(state)
    if keys:
        names = ", ".join(block.name for block in keys)
        return Recognition(None, lock, (f"{names} holds a flash key, but encryption is not on",))
    if state.crypt_count:
        fuse = state.chip.fuses.counter
        return Recognition(
            None, lock, (f"{fuse} is {state.crypt_count:#x}: encryption was turned off again",)
        )
    spoiled = [block.name for block in state.key_blocks if block.coding_errors and block.writeable]
    if spoiled:
        return Recognition(None, lock, (f"{', '.join(spoiled)} is half burned",))
    return Recognition(Profile.OPEN, lock, ("no flash key, no encryption",))


def _behind_lock(state: ChipState, record: DeviceRecord | None) -> Recognition:
    lock = lock_of(state)
    where = f"UART download is {LOCK_WORDS[lock]}"
    if record is None:
        return Recognition(None, lock, (f"{where} and there is no device record: it cannot be told",))
    objections = disagreements(state, record.profile, record.mac, record.digests, record.fuses)
    if objections:
        return Recognition(None, lock, ("the chip and its device record disagree", *objections))
    return Recognition(record.profile, lock, (f"{where}; its device record says {record.profile.value}",))


def disagreements(
    state: ChipState,
    profile: Profile,
    mac: str,
    digests: Mapping[str, str] | None = None,
    fuses: Mapping[str, int] | None = None,
) -> tuple[str, ...]:
    """What a locked chip still shows that does not go with `profile`, `mac`, boot keys and recorded fuses."""
    found = []
    if state.mac is not None and state.mac != mac:
        found.append(f"the chip is {state.mac}, the record that of {mac}")
    info = state.security_info
    if info is None:
        return tuple(found)
    names = state.chip.fuses
    # A counter that is write-protected is final with any odd value, and the ROM does not show that it is.
    final = {names.counter_release, (fuses or {}).get(names.counter, names.counter_release)}
    if profile.encryption is Profile.RELEASE and info.crypt_count not in final:
        found.append(f"the flash encryption counter is {info.crypt_count:#x}")
    if state.encrypted != profile.encrypts:
        found.append(f"flash encryption is {'on' if state.encrypted else 'off'} in the chip")
    if profile.encrypts and has_purposes(state.chip):
        wholes = ({KEY_PURPOSE_NUMBERS[name] for name in whole} for whole in purpose_sets(state.chip))
        if not any(whole <= set(info.key_purposes) for whole in wholes):
            found.append("no key block has the purpose of a flash key")
    found += locked_disagreements(state, digests or {}, on=profile.secure_boot)
    return tuple(found)
