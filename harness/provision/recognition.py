"""Which profile a chip is in. Pure: from its eFuses, or where those are out of reach from its record."""

from __future__ import annotations

from dataclasses import dataclass

from harness.chips import KEY_PURPOSE_NUMBERS, Chip
from harness.provision.chip_state import ChipState, Download, KeyBlock
from harness.provision.device_record import DeviceRecord
from harness.provision.profile import Lock, Profile


@dataclass(frozen=True, slots=True)
class Recognition:
    """A verdict with its reasons. `profile` None means: none of the profiles, or it cannot be told."""

    profile: Profile | None
    lock: Lock
    reasons: tuple[str, ...]
    """Why it is what it is, or why it is none; for a person."""
    missing: tuple[str, ...] = ()
    """What is still missing for release, fuse by fuse; empty when it is release."""

    def text(self) -> str:
        """One line."""
        name = self.profile.value if self.profile else "none of the known profiles"
        return f"{name}, UART download {LOCK_WORDS[self.lock]}: {'; '.join(self.reasons)}"


LOCK_WORDS = {Lock.NONE: "open", Lock.SECURE_DOWNLOAD: "in secure mode", Lock.DOWNLOAD_OFF: "off"}


def flash_key_blocks(state: ChipState) -> tuple[KeyBlock, ...]:
    """The blocks that hold a flash key, or part of one, as far as the chip shows."""
    fuses = state.chip.fuses
    if fuses.key_purpose is None:
        return tuple(
            block
            for block in state.key_blocks
            if block.name == fuses.key_storage_block and not (block.empty and block.readable)
        )
    return tuple(block for block in state.key_blocks if block.purpose == fuses.key_purpose)


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
    for block in blocks:
        if block.readable:
            missing.append(f"{block.name} is not read-protected")
        if block.writeable:
            missing.append(f"{block.name} is not write-protected")
        if fuses.key_purpose is not None and block.purpose_writeable:
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
    secure_boot = secure_boot_fuses(state)
    if secure_boot:
        return Recognition(
            None, lock, (f"secure boot is on ({', '.join(secure_boot)}): a profile with +sbv2",)
        )
    if not state.encrypted:
        return _unencrypted(state, lock)
    loose = missing_for_encryption(state)
    missing = missing_for_release(state)
    if not missing:
        return Recognition(Profile.RELEASE, lock, ("all eFuses of release are burned",))
    if loose:
        return Recognition(None, lock, ("flash encryption is on, but", *loose), missing)
    if not state.manual_encryption:
        return Recognition(
            Profile.CIPHERTEXT_ONLY, lock, ("encryption is on, the ROM does not encipher",), missing
        )
    if state.permanent:
        return Recognition(
            None,
            lock,
            ("encryption is permanent, yet the ROM still enciphers: half-done release",),
            missing,
        )
    return Recognition(Profile.DEVELOPMENT, lock, ("encryption is on and can be turned off again",), missing)


def secure_boot_fuses(state: ChipState) -> tuple[str, ...]:
    """The fuses by which secure boot is on."""
    return tuple(fuse for fuse in ("ABS_DONE_0", "ABS_DONE_1", "SECURE_BOOT_EN") if state.is_set(fuse))


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
    spoiled = [block.name for block in state.key_blocks if block.coding_errors]
    if spoiled:
        return Recognition(None, lock, (f"{', '.join(spoiled)} is half burned",))
    return Recognition(Profile.OPEN, lock, ("no flash key, no encryption",))


def _behind_lock(state: ChipState, record: DeviceRecord | None) -> Recognition:
    lock = lock_of(state)
    where = f"UART download is {LOCK_WORDS[lock]}"
    if record is None:
        return Recognition(None, lock, (f"{where} and there is no device record: it cannot be told",))
    objections = disagreements(state, record.profile, record.mac)
    if objections:
        return Recognition(None, lock, ("the chip and its device record disagree", *objections))
    return Recognition(record.profile, lock, (f"{where}; its device record says {record.profile.value}",))


def disagreements(state: ChipState, profile: Profile, mac: str) -> tuple[str, ...]:
    """What a locked chip still shows that does not go with `profile` and `mac`; empty when nothing does."""
    found = []
    if state.mac is not None and state.mac != mac:
        found.append(f"the chip is {state.mac}, the record that of {mac}")
    info = state.security_info
    if info is None:
        return tuple(found)
    if profile.encryption is Profile.RELEASE and info.crypt_count != state.chip.fuses.counter_release:
        found.append(f"the flash encryption counter is {info.crypt_count:#x}")
    if profile.encrypts and not _xts_purpose_numbers(state.chip).issubset(info.key_purposes):
        found.append("no key block has the purpose of a flash key")
    return tuple(found)


def _xts_purpose_numbers(chip: Chip) -> frozenset[int]:
    """KEY_PURPOSE values of a flash key as GET_SECURITY_INFO shows them; none where blocks carry no purpose."""
    return frozenset(KEY_PURPOSE_NUMBERS[purpose] for purpose in chip.fuses.key_purposes)
