"""From what a board is to what a profile wants. Pure: state in, plan out, or a refusal that names the fuse.

Order, and why (each step leaves a board that the next run can go on with):

1. The key is in the vault, synced, before anything is burned.
2. Key, purpose, protections. While the counter is 0 the board still runs what it ran.
3. ESP32: FLASH_CRYPT_CONFIG, without which the chip would use the key differently.
4. Canary: the chip enciphers known bytes. It must come before the counter (a wrong key is found while the
   board is still of use) and before the release fuses (they forbid it).
5. The counter. From here on the board boots ciphertext only; its flash has none yet, but its UART is open.
6. The fuses of release, then the write protection: on most chips its bit freezes some of those fuses.
7. Flash, as ciphertext, verified by the chip; then all eFuses are compared with what the profile demands.
8. The lock, last: after it no eFuse can be burned and, in most cases, nothing can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import RefusedError, UsageError
from harness.provision.boot_keys import BootDigest, check_digests
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord
from harness.provision.key_steps import KeySteps, key_steps, sharing_protection, write_disable_bit
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile, default_lock
from harness.provision.recognition import (
    Recognition,
    disagreements,
    flash_key_blocks,
    lock_of,
    profile_of,
    secure_boot_fuses,
)
from harness.provision.region import SECTOR_BYTES, FlashRegion, check_regions
from harness.provision.steps import (
    BurnFuses,
    BurnKey,
    Canary,
    ConfirmFuses,
    DecipherCheck,
    FirmwareBurns,
    LockDownload,
    ReadBack,
    Step,
    WriteFlash,
    WriteProtect,
    WriteRecord,
)
from harness.vault.intent import Intent
from harness.vault.key_ref import KeyRef

PLANNED = (Profile.OPEN, Profile.DEVELOPMENT, Profile.RELEASE)
"""Profiles that this version brings boards into; a board that is in another one already is used in it."""


def plan_for(
    state: ChipState,
    *,
    profile: Profile,
    lock: Lock | None = None,
    key: KeyRef | None = None,
    regions: Sequence[FlashRegion] = (),
    intent: Intent | None = None,
    record: DeviceRecord | None = None,
    reflash: bool = False,
    firmware: FlashedFirmware | None = None,
    digests: Sequence[BootDigest] = (),
) -> Plan:
    """The plan that brings a board from `state` to `profile`.

    Args:
        state: the board as it was read.
        lock: None means `default_lock`.
        key: the vault's key for this board, None if it has none yet (then the plan makes it).
        regions: what is to lie in flash, as plaintext.
        intent: what an earlier run began and did not finish (`Vault.intent`).
        record: the board's device record; needed where the chip no longer tells.
        reflash: write `regions` even when the board is in the profile already.
        firmware: what is known of the firmware that `regions` hold.
        digests: the boot keys that a profile with secure boot is to know; one of them signed what `regions` hold.

    Raises:
        RefusedError: the state cannot reach the profile; names every fuse that is in the way.
        UsageError: the request makes no sense (regions overlap, a lock without release or that the chip lacks).
    """
    check_digests(state.chip, tuple(digests))
    plan = _plan(
        state,
        profile,
        default_lock(state.chip, profile) if lock is None else lock,
        key,
        regions,
        intent,
        record,
        reflash=reflash,
    )
    return plan if firmware is None or not plan.writes else _with_firmware(plan, firmware)


@dataclass(frozen=True, slots=True)
class FlashedFirmware:
    """What a plan that writes firmware says of it."""

    burns: tuple[FirmwareBurns, ...] = ()
    """What it burns by itself once it runs."""
    flash: tuple[str, ...] = ()
    """What becomes of every partition, a line each."""
    remarks: tuple[str, ...] = ()


def _with_firmware(plan: Plan, firmware: FlashedFirmware) -> Plan:
    # The firmware runs when everything else is done; then it burns what it burns.
    *steps, last = plan.steps
    return replace(
        plan,
        steps=(*steps, *firmware.burns, last),
        flash=firmware.flash,
        remarks=(*plan.remarks, *firmware.remarks),
    )


def _plan(
    state: ChipState,
    profile: Profile,
    lock: Lock,
    key: KeyRef | None,
    regions: Sequence[FlashRegion],
    intent: Intent | None,
    record: DeviceRecord | None,
    *,
    reflash: bool,
) -> Plan:
    _check_request(state, profile, lock, key, regions, record)
    if state.download is not Download.OPEN:
        return _plan_behind_lock(state, profile, lock, key, regions, intent, record, reflash=reflash)
    assert state.mac is not None
    now = profile_of(state, record)
    there = now.profile is profile and now.lock is lock and intent is None
    if there and not (reflash and regions) and not (profile is Profile.OPEN and regions):
        return _made(state, profile, lock, key, (), intent, now=now)
    problems = [*_chip_problems(state), *_direction_problems(state, profile, lock)]
    if profile is Profile.OPEN:
        _refuse(problems, state, profile)
        return _made(
            state, profile, lock, None, _flash_steps(regions, enciphered=False), intent, regions, now=now
        )
    keyed = key_steps(state, key, intent)
    burns, burn_problems = _burn_steps(state, profile)
    lock_steps, lock_problems = _lock_steps(state, lock)
    _refuse([*problems, *keyed.problems, *burn_problems, *lock_problems], state, profile)
    _check_flash_is_given(state, regions, intent)
    steps: list[Step] = [*keyed.steps, *_config_steps(state)]
    flash = _flash_steps(regions, enciphered=True)
    if keyed.steps or burns or flash:
        steps += _proof_steps(state, keyed, regions)
    steps += [*burns, *flash]
    if any(step.irreversible for step in steps) or lock_steps:
        steps.append(ConfirmFuses(profile))
    steps += lock_steps
    return _made(state, profile, lock, key, tuple(steps), intent, regions, keyed.remarks, now=now)


def _check_request(
    state: ChipState,
    profile: Profile,
    lock: Lock,
    key: KeyRef | None,
    regions: Sequence[FlashRegion],
    record: DeviceRecord | None,
) -> None:
    check_regions(regions)
    if profile not in PLANNED and profile_of(state, record).profile is not profile:
        raise UsageError(
            f"this version brings no board into profile {profile.value}, it uses boards that are in it",
            todo=f"use one of: {', '.join(each.value for each in PLANNED)}",
        )
    if lock is not Lock.NONE and profile is not Profile.RELEASE:
        raise UsageError(
            f"lock {lock.value} goes with profile release, not with {profile.value}",
            todo="leave the lock out, or demand release",
        )
    if lock is Lock.SECURE_DOWNLOAD and state.chip.fuses.secure_download is None:
        raise UsageError(
            f"{state.chip.title} has no Secure Download Mode",
            todo="use lock none, or download-off, which is final",
        )
    if key is not None and (key.chip_name != state.chip_name or state.mac not in (None, key.mac)):
        raise UsageError(
            f"the key is that of {key.chip_name} {key.mac}, the board is {state.chip_name} {state.mac}"
        )
    if state.download is Download.OPEN and state.mac is None:
        raise UsageError("the board's MAC was not read; nothing is planned for a board without a name")


def _plan_behind_lock(
    state: ChipState,
    profile: Profile,
    lock: Lock,
    key: KeyRef | None,
    regions: Sequence[FlashRegion],
    intent: Intent | None,
    record: DeviceRecord | None,
    *,
    reflash: bool,
) -> Plan:
    """Nothing can be burned any more: the board is there, or only its record is missing, or it is refused."""
    fuse = _lock_fuse(state, lock_of(state))
    mac = state.mac or (record.mac if record else intent.mac if intent else None)
    if mac is None:
        raise RefusedError(
            f"{fuse} is burned, and there is neither device record nor intent: nothing is known of this board",
            todo="give the board's MAC in its entry, so that its record can be found",
        )
    now = profile_of(state, record)
    here = lock_of(state) is lock and not disagreements(state, profile, mac)
    asked = intent is not None and intent.profile == profile.value and intent.lock == lock.value
    if intent is not None and asked and here and not intent.behind_lock and not reflash:
        # The lock is the last burn of a plan: whoever finds it burned finds everything before it done.
        return _made(state, profile, lock, None, (), intent, mac=mac, now=now)
    if now.profile is profile and now.lock is lock:
        if not (reflash or (intent is not None and intent.writes_flash)):
            return _made(state, profile, lock, None, (), None, mac=mac, now=now)
        writes = _writes_behind_lock(state, key, regions, record, mac)
        return _made(state, profile, lock, key, writes, intent, regions, mac=mac, now=now)
    raise RefusedError(
        f"{fuse} is burned, so no eFuse can be burned any more; the board is {now.text()}, "
        f"not {profile.value} with lock {lock.value}",
        board=mac,
        todo=f"use it as {now.profile.value}, or another board" if now.profile else "use another board",
    )


def _writes_behind_lock(
    state: ChipState,
    key: KeyRef | None,
    regions: Sequence[FlashRegion],
    record: DeviceRecord | None,
    mac: str,
) -> tuple[Step, ...]:
    """Ciphertext into a board that cannot be read: the record must vouch for the key."""
    if state.download is Download.OFF:
        raise RefusedError(
            f"{state.chip.fuses.download_off} is burned: only the firmware can write",
            board=mac,
            todo="update it over the air; a board whose firmware does not run any more is lost",
        )
    if not regions:
        raise UsageError("no images are given to write", board=mac)
    if key is None or record is None or record.key_id != key.key_id:
        told = record.key_id if record is not None else "nothing"
        raise RefusedError(
            f"the device record tells of key {told}, the vault has {key.key_id if key else 'none'}",
            board=mac,
            todo="open the vault that has this board's key, or restore it: harness vault restore DIR",
        )
    return tuple(step for step in _flash_steps(regions, enciphered=True) if isinstance(step, WriteFlash))


def _chip_problems(state: ChipState) -> list[str]:
    chip = state.chip
    problems = []
    if state.revision is not None and state.revision < chip.min_chip_rev_full:
        found, wanted = (f"v{rev // 100}.{rev % 100}" for rev in (state.revision, chip.min_chip_rev_full))
        problems.append(f"chip revision {found} is too old, {wanted} is needed")
    scheme = state.fuses.get("CODING_SCHEME", 0)
    if scheme not in (0, 3):
        name = {1: "3/4", 2: "repeat"}.get(scheme, str(scheme))
        problems.append(f"CODING_SCHEME is {name}: keys of 256 bits do not fit this chip's blocks")
    problems += [f"{fuse} is set: secure boot is on" for fuse in secure_boot_fuses(state)]
    return problems


def _direction_problems(state: ChipState, profile: Profile, lock: Lock) -> list[str]:
    """What is burned already that `profile` and `lock` do not have: no way leads back."""
    fuses = state.chip.fuses
    problems = []
    here = lock_of(state)
    if here.distance > lock.distance:
        problems.append(f"{_lock_fuse(state, here)} is burned: lock {lock.value} is out of reach")
    if profile is Profile.OPEN:
        if state.crypt_count:
            problems.append(f"{fuses.counter} is {state.crypt_count:#x}: this chip has been encrypted")
        problems += [f"{block.name} holds a flash key" for block in flash_key_blocks(state)]
    if profile is Profile.DEVELOPMENT:
        if state.permanent:
            problems.append(f"{fuses.counter} is {state.crypt_count:#x}: encryption is permanent")
        if not state.manual_encryption:
            problems.append(f"{fuses.manual_encrypt_disable} is burned: the ROM no longer enciphers")
    problems += [
        f"{fuse} is read-protected and cannot be checked"
        for fuse, _ in fuses.key_config
        if fuse in state.hidden
    ]
    return problems


def _config_steps(state: ChipState) -> list[Step]:
    wanted = tuple(
        (fuse, value) for fuse, value in state.chip.fuses.key_config if state.fuses.get(fuse, 0) != value
    )
    return [BurnFuses(wanted, "how the key is used")] if wanted else []


def _burn_steps(state: ChipState, profile: Profile) -> tuple[list[Step], list[str]]:
    """Counter, fuses of release, write protection; and what of it is frozen."""
    fuses = state.chip.fuses
    steps: list[Step] = []
    problems: list[str] = []

    def burn(values: tuple[tuple[str, int], ...], why: str) -> None:
        frozen = [name for name, _ in values if name in state.write_protected]
        problems.extend(f"{name} is write-protected ({write_disable_bit(state, name)})" for name in frozen)
        if values:
            steps.append(BurnFuses(values, why))

    config = tuple(name for name, value in fuses.key_config if state.fuses.get(name, 0) != value)
    problems.extend(
        f"{name} is write-protected ({write_disable_bit(state, name)})"
        for name in config
        if name in state.write_protected
    )
    count = state.crypt_count
    if profile is Profile.RELEASE and not state.permanent:
        burn(((fuses.counter, fuses.counter_release),), "flash encryption on, for good")
    elif profile is Profile.DEVELOPMENT and not state.encrypted:
        raised = count | (count + 1)  # the lowest bit that is still 0
        if raised == fuses.counter_release:
            problems.append(f"{fuses.counter} is {count:#x}: its next bit would make encryption permanent")
        burn(((fuses.counter, raised),), "flash encryption on")
    if profile is Profile.RELEASE:
        burn(tuple((fuse, 1) for fuse in fuses.release if not state.is_set(fuse)), "release mode")
        guard = fuses.release_write_protect
        if guard is not None and guard not in state.write_protected:
            if "WR_DIS" in state.write_protected:
                problems.append(f"WR_DIS is write-protected: {guard} cannot be frozen")
            steps.append(WriteProtect(guard, sharing_protection(state, guard)))
    return steps, problems


def _lock_steps(state: ChipState, lock: Lock) -> tuple[list[Step], list[str]]:
    if lock_of(state).distance >= lock.distance:
        return [], []
    fuse = _lock_fuse(state, lock)
    problems = []
    if fuse in state.write_protected:
        problems.append(
            f"{fuse} is write-protected ({write_disable_bit(state, fuse)}): lock {lock.value} is out of reach"
        )
    return [LockDownload(lock, fuse, final=lock is Lock.DOWNLOAD_OFF)], problems


def _lock_fuse(state: ChipState, lock: Lock) -> str:
    fuses = state.chip.fuses
    return fuses.download_off if lock is Lock.DOWNLOAD_OFF else str(fuses.secure_download)


def _flash_steps(regions: Sequence[FlashRegion], *, enciphered: bool) -> tuple[Step, ...]:
    ordered = sorted(regions, key=lambda region: region.offset)
    writes: tuple[Step, ...] = tuple(
        WriteFlash(
            region.name,
            region.offset,
            len(region.data),
            region.sha256,
            enciphered and region.stored_encrypted,
        )
        for region in ordered
    )
    return (*writes, ReadBack(tuple(region.name for region in ordered))) if writes else ()


def _check_flash_is_given(state: ChipState, regions: Sequence[FlashRegion], intent: Intent | None) -> None:
    if intent is not None and intent.writes_flash and not regions:
        raise UsageError(
            "an earlier run on this board was cut off, and its flash may be half written",
            board=state.mac,
            todo="give the images to flash again; what is there already is not written twice",
        )
    if state.encrypted or any(region.offset == state.chip.bootloader_offset for region in regions):
        return
    raise UsageError(
        "turning flash encryption on without an enciphered bootloader leaves a board that does not boot",
        todo="give the images to flash (bootloader, partition table, otadata, application)",
    )


def _proof_steps(state: ChipState, keyed: KeySteps, regions: Sequence[FlashRegion]) -> list[Step]:
    """That the chip's key is the vault's, shown by the chip while it can and nothing depends on it yet."""
    targets = [region for region in regions if region.stored_encrypted]
    if state.manual_encryption and targets:
        # A sector that is written afterwards anyway; its content until then is of no use to anybody.
        last = max(targets, key=lambda region: region.offset)
        return [Canary(last.end - SECTOR_BYTES)]
    if keyed.proven:
        return []
    if state.encrypted:
        return [DecipherCheck(state.chip.bootloader_offset)]
    burned = ", ".join(block.name for block in flash_key_blocks(state))
    raise RefusedError(
        f"nothing proves that {burned} holds the vault's key: {state.chip.fuses.manual_encrypt_disable} is "
        "burned, so the chip cannot encipher a canary, and no intent tells of this burn",
        board=state.mac,
        todo="use the vault and state folder of the run that burned it, or another board",
    )


def _refuse(problems: Sequence[str], state: ChipState, profile: Profile) -> None:
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in dict.fromkeys(problems))
        raise RefusedError(
            f"{state.chip.title} {state.mac} cannot become {profile.value}:{listed}",
            board=state.mac,
            todo="use another board for this profile; burned fuses stay burned",
        )


def _made(
    state: ChipState,
    profile: Profile,
    lock: Lock,
    key: KeyRef | None,
    steps: tuple[Step, ...],
    intent: Intent | None,
    regions: Sequence[FlashRegion] = (),
    remarks: tuple[str, ...] = (),
    mac: str | None = None,
    *,
    now: Recognition,
) -> Plan:
    if steps or intent is not None:
        steps = (*steps, WriteRecord())
    by_itself = [region.burns_up_to for region in regions if region.burns_up_to is not None]
    burned = [profile] if any(step.irreversible for step in steps) else []
    furthest = Profile.together([*by_itself, *burned])
    mac = mac or state.mac
    assert mac is not None
    return Plan(
        chip_name=state.chip_name,
        mac=mac,
        profile=profile,
        lock=lock,
        state=state,
        key_id=key.key_id if key is not None and profile is not Profile.OPEN else None,
        steps=steps,
        goes_on=intent is not None,
        now=now.text(),
        burns_up_to=furthest if furthest is not Profile.OPEN else None,
        remarks=(*remarks, *_remarks(state, profile, lock, steps, regions)),
    )


def _remarks(
    state: ChipState, profile: Profile, lock: Lock, steps: tuple[Step, ...], regions: Sequence[FlashRegion]
) -> tuple[str, ...]:
    """Where this differs from Espressif's workflow, and what a person should know before consenting."""
    found = []
    if any(isinstance(step, BurnKey) for step in steps):
        found.append(
            "one step of Espressif's workflow is left out on purpose: the key is not deleted, its owner keeps it "
            "in the vault. Its state is test-only: do not ship this device"
        )
    if profile is Profile.RELEASE and lock is Lock.NONE and steps:
        off = state.chip.fuses.download_off
        found.append(f"UART download stays open ({off} is not burned): ciphertext can be written and read")
    if state.download is not Download.OPEN and steps:
        found.append(
            "nothing can be read back: what is written is not verified over UART, only by booting it"
        )
    if any(isinstance(step, WriteFlash) and step.enciphered for step in steps):
        found.append("the firmware does not run before the last step is done")
    found += [
        f"{region.name} burns eFuses up to {region.burns_up_to.value} by itself when it starts"
        for region in regions
        if region.burns_up_to is not None
    ]
    return tuple(found)
