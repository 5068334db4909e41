"""From what a board is to what a profile wants. Pure: state in, plan out, or a refusal that names the fuse.

Order, and why (each step leaves a board that the next run can go on with):

1. The key is in the vault, synced, before anything is burned.
2. Key, purpose, protections. While the counter is 0 the board still runs what it ran.
3. ESP32: FLASH_CRYPT_CONFIG, without which the chip would use the key differently.
4. Canary: the chip enciphers known bytes. It must come before the counter (a wrong key is found while the
   board is still of use) and before the release fuses (they forbid it).
5. The counter. From here on the board boots ciphertext only; its flash has none yet, but its UART is open.
6. The fuses of the profile, then the write protection: on most chips its bit freezes some of those fuses. Where it
   would freeze a fuse of secure boot (ESP32-C2, ESP32-S2), it comes after that.
7. Secure boot: digests, the fuse, JTAG, write protection of RD_DIS, revocations. Behind everything that hides a flash
   key, because a frozen RD_DIS hides no more.
8. Flash, signed, then as ciphertext, verified by the chip; then all eFuses are compared one by one.
9. The lock, last: after it no eFuse can be burned and, in most cases, nothing can be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.errors import RefusedError
from harness.provision.boot_keys import BootDigest
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord
from harness.provision.draft import made
from harness.provision.encryption_steps import (
    EncryptionSteps,
    config_steps,
    encryption_steps,
    lock_steps,
)
from harness.provision.firmware_steps import (
    before_release_by_firmware,
    check_release_by_firmware,
    check_starts_from_development,
    lock_by_firmware,
    release_by_firmware,
)
from harness.provision.flash_steps import (
    check_flash_is_given,
    check_signed,
    flash_steps,
    proof_steps,
    signers_of,
)
from harness.provision.key_blocks import flash_key_blocks, shares_one_block, sharing_protection
from harness.provision.key_steps import KeySteps, key_steps
from harness.provision.locked import plan_behind_lock
from harness.provision.obstacles import chip_problems, direction_problems, refuse
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile, default_lock
from harness.provision.promise import promised, promised_so_far, state_after
from harness.provision.recognition import Recognition, profile_of
from harness.provision.region import FlashRegion
from harness.provision.request import Request, SignersOf, check_request
from harness.provision.revocation import plan_revocation
from harness.provision.secure_boot_state import no_key_is_left, secure_boot_is_on
from harness.provision.secure_boot_steps import BootSteps, secure_boot_steps
from harness.provision.steps import BurnFuses, FirmwareBurns, FirmwareCommand, Step
from harness.vault.intent import Intent
from harness.vault.key_ref import KeyRef, KeyState


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
    spoiled: bool = False,
    firmware: FlashedFirmware | None = None,
    digests: Sequence[BootDigest] = (),
    aggressive_revoke: bool = False,
    by_firmware: bool = False,
    device_key: bool = False,
    revoke: Sequence[int] = (),
    signers: SignersOf | None = None,
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
        spoiled: what lies in flash is known to be damaged, so the device record's word is taken for the key.
        firmware: what is known of the firmware that `regions` hold.
        digests: the boot keys that a profile with secure boot is to know; one of them signed what `regions` hold.
        aggressive_revoke: burn SECURE_BOOT_AGGRESSIVE_REVOKE, which Espressif's workflow has and this one leaves out.
        by_firmware: the running firmware burns the last steps: release from development by
            ``esp_flash_encryption_set_release_mode()``, or the lock of a board that is in its profile.
        device_key: the firmware makes the flash key itself at its first start; nobody else ever knows it.
        revoke: digest slots whose boot keys the board is to trust no longer; it is in its profile already.
        signers: reads the signatures on an image; None: as the chip's ROM does.

    Raises:
        RefusedError: the state cannot reach the profile; names every fuse that is in the way. Or an image is not
            signed with a key that the board will trust.
        UsageError: the request makes no sense (regions overlap, a lock without release or that the chip lacks).
    """
    request = Request(
        state,
        profile,
        default_lock(state.chip, profile) if lock is None else lock,
        key,
        tuple(regions),
        intent,
        record,
        tuple(digests) if profile.secure_boot else (),
        signers or signers_of(state.chip),
        reflash=reflash,
        spoiled=spoiled,
        aggressive_revoke=aggressive_revoke,
        by_firmware=by_firmware,
        device_key=device_key,
        revoke=tuple(revoke),
        firmware_burns=frozenset(
            name for step in (firmware.burns if firmware else ()) for name in step.fuses
        ),
    )
    plan = _plan(request)
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
    # The firmware runs when everything else is done, or when it is told to burn; then it burns what it burns.
    at = next(
        (index for index, step in enumerate(plan.steps) if isinstance(step, FirmwareCommand)),
        len(plan.steps) - 1,
    )
    return replace(
        plan,
        steps=(*plan.steps[:at], *firmware.burns, *plan.steps[at:]),
        flash=firmware.flash,
        remarks=(*plan.remarks, *firmware.remarks),
    )


def _plan(request: Request) -> Plan:
    check_request(request)
    if request.revoke:
        return plan_revocation(request, _plan)
    state, profile, lock = request.state, request.profile, request.lock
    if state.download is not Download.OPEN:
        return plan_behind_lock(request)
    now = profile_of(state, request.record)
    if profile.secure_boot:
        _require_a_key_that_is_trusted(state)
    here = now.profile is profile and request.intent is None
    there = here and now.lock is lock
    writes = request.reflash or not profile.encrypts
    if there and not (writes and request.regions):
        return _completed(request, (), now)
    if here and request.by_firmware and not (request.reflash and request.regions):
        refuse(direction_problems(state, profile, lock), state, profile)
        return _completed(request, lock_by_firmware(request), now)
    if request.keyless:
        return _with_a_key_of_the_device(request, now)
    return _by_the_host(request, now)


def _require_a_key_that_is_trusted(state: ChipState) -> None:
    """Before anything is said of signatures: with no key left, no signature helps.

    Raises:
        RefusedError: every digest is revoked or cannot be read, and there is no place for another.
    """
    lost = no_key_is_left(state)
    if lost:
        raise RefusedError(
            f"no boot key is trusted any more: the board starts nothing, and no key can help it. {'; '.join(lost)}",
            board=state.mac,
            todo="use another board; burned fuses stay burned",
        )


def _completed(request: Request, last: tuple[Step, ...], now: Recognition) -> Plan:
    """A board that is in its profile: what is still missing of secure boot, then the lock, if it gets one."""
    state, profile = request.state, request.profile
    boot = _boot_steps(request, state, locks=bool(last))
    refuse(boot.problems, state, profile)
    check = (promised(state, boot.all, profile),) if boot.all else ()
    return made(request, (*boot.all, *check, *last), now=now, remarks=boot.remarks)


def _boot_steps(
    request: Request, state: ChipState, *, locks: bool, joint: bool = False, hides_key_later: bool = False
) -> BootSteps:
    """Of secure boot, what is missing in `state`; where it is on and no lock follows, what must be missing is said.

    Args:
        state: after the burns that come first.
        locks: behind this plan nothing can be burned any more.
        joint: the digest is burned together with the flash key.
        hides_key_later: the firmware hides a key that it makes, and freezes RD_DIS itself.
    """
    if not request.profile.secure_boot:
        return BootSteps()
    boot = secure_boot_steps(
        state,
        request.digests,
        request.intent,
        burned_with_key=joint,
        aggressive_revoke=request.aggressive_revoke,
        firmware_burns=request.firmware_burns,
        hides_key_later=hides_key_later,
    )
    return boot.problems_become_remarks() if secure_boot_is_on(state) and not locks else boot


def _by_the_host(request: Request, now: Recognition) -> Plan:
    """All burns but the firmware's own, through the ROM."""
    state, lock = request.state, request.lock
    last: tuple[Step, ...] = ()
    target = request.profile
    if request.by_firmware and target.encryption is Profile.RELEASE and now.profile is not target:
        check_release_by_firmware(request)
        check_starts_from_development(request, now.profile)
        target = Profile.of(Profile.DEVELOPMENT, secure_boot=target.secure_boot)
        last = (release_by_firmware(state.chip),)
        lock = Lock.NONE
    problems = [*chip_problems(state), *direction_problems(state, target, lock)]
    keyed, encryption = KeySteps((), True), EncryptionSteps()
    before: tuple[Step, ...] = ()
    joint = _digest_beside_the_key(request)
    if target.encrypts:
        keyed = key_steps(state, request.key, request.intent, digests=request.digests, digest=joint)
        encryption = encryption_steps(state, target)
        before = before_release_by_firmware(state) if last else ()
    locking, lock_problems = lock_steps(state, lock)
    boot = _boot_steps(
        request,
        state_after(state, (*keyed.steps, *encryption.burns, *before)),
        locks=bool(locking or last),
        joint=joint is not None,
    )
    refuse(
        [*problems, *keyed.problems, *encryption.problems, *boot.problems, *lock_problems],
        state,
        request.profile,
    )
    check_flash_is_given(request)
    check_signed(request, boot.placed)
    burns = [*keyed.steps, *(config_steps(state) if target.encrypts else ())]
    flash = flash_steps(request.regions, enciphered=target.encrypts)
    if target.encrypts and (keyed.steps or encryption.burns or encryption.guard or boot.all or flash):
        burns += proof_steps(request, keyed)
    burns += _in_order(state, encryption, before, boot)
    steps: list[Step] = [*burns, *flash]
    if any(step.irreversible for step in steps) or locking or last:
        steps.append(promised(state, burns, target))
    return made(request, (*steps, *locking, *last), now=now, remarks=(*keyed.remarks, *boot.remarks))


def _in_order(
    state: ChipState, encryption: EncryptionSteps, before: tuple[Step, ...], boot: BootSteps
) -> tuple[Step, ...]:
    """Flash encryption, then secure boot; the guard of the former behind what it would freeze of the latter."""
    guard = state.chip.fuses.release_write_protect
    frozen = {guard, *sharing_protection(state.chip, guard)} if guard is not None else set()
    needed = {state.chip.secure_boot.enable, *(name for name, _ in state.chip.secure_boot.burned_with)}
    burned = {name for step in encryption.burns if isinstance(step, BurnFuses) for name, _ in step.fuses}
    burned |= {name for name in needed if state.is_set(name)}
    if encryption.guard and boot.enable and (frozen & needed) - burned:
        return (
            *encryption.burns,
            *before,
            *boot.digests,
            *boot.enable,
            *encryption.guard,
            *boot.closing,
        )
    return (*encryption.burns, *before, *encryption.guard, *boot.all)


def _digest_beside_the_key(request: Request) -> BootDigest | None:
    """What has to go into one block together with the flash key (ESP32-C2)."""
    if not (shares_one_block(request.state.chip) and request.profile.encrypts and request.digests):
        return None
    return None if secure_boot_is_on(request.state) else request.digests[0]


def _with_a_key_of_the_device(request: Request, now: Recognition) -> Plan:
    """Plaintext and a firmware that enciphers it by itself; or a board that has done so before."""
    state, profile = request.state, request.profile
    if state.encrypted or (flash_key_blocks(state) and not _was_cut_while_it_encrypted(request)):
        return _again_with_a_key_of_the_device(request, now)
    boot = _boot_steps(request, state, locks=request.lock is not Lock.NONE, hides_key_later=True)
    problems = [*chip_problems(state), *direction_problems(state, profile, request.lock), *boot.problems]
    problems += _no_room_for_a_hidden_key(request)
    refuse(problems, state, profile)
    check_flash_is_given(request)
    check_signed(request, boot.placed)
    steps = [*boot.all, *flash_steps(request.regions, enciphered=False)]
    if boot.all:
        # The firmware has not run yet: nothing is encrypted, and the block of its key is still empty.
        steps.append(promised_so_far(promised(state, boot.all, Profile.OPEN_SBV2)))
    return made(request, steps, now=now, remarks=boot.remarks)


def _was_cut_while_it_encrypted(request: Request) -> bool:
    """The device has made its key, and lost power before encryption was on: the same plaintext begins that anew."""
    state, record = request.state, request.record
    told = record is not None and record.key_state == KeyState.DEVICE_MADE.value
    return told and not state.crypt_count and not any(block.readable for block in flash_key_blocks(state))


def _no_room_for_a_hidden_key(request: Request) -> list[str]:
    """Why a key that the firmware makes could not be burned and hidden beside secure boot."""
    state, boot = request.state, request.state.chip.secure_boot
    problems = []
    if boot.write_protect in state.write_protected and not flash_key_blocks(state):
        problems.append(
            f"{boot.write_protect} is write-protected: a key that the device makes could never be hidden"
        )
    if request.profile.secure_boot and shares_one_block(state.chip):
        problems.append(
            "digest and flash key share a block that takes one burn, and nobody knows the device's key before: only "
            "ESP-IDF's own first boot can burn both"
        )
    return problems


def _again_with_a_key_of_the_device(request: Request, now: Recognition) -> Plan:
    """Its flash can be written only while its ROM still enciphers."""
    state, profile = request.state, request.profile
    development = Profile.of(Profile.DEVELOPMENT, secure_boot=profile.secure_boot)
    if request.by_firmware and now.profile is development:
        check_release_by_firmware(request)
        before = before_release_by_firmware(state)
        boot = _boot_steps(request, state_after(state, before), locks=True)
        refuse(boot.problems, state, profile)
        burns = (*before, *boot.all)
        check = (promised(state, burns, development),) if burns else ()
        return made(request, (*burns, *check, release_by_firmware(state.chip)), now=now, remarks=boot.remarks)
    if now.profile is not profile:
        raise RefusedError(
            f"the board is {now.text()}, not {profile.value}, and its flash key is not in the vault",
            board=state.mac,
            todo="let its firmware go further: --by-firmware, or use another board",
        )
    if not state.manual_encryption:
        raise RefusedError(
            f"its flash key is not in the vault, and {state.chip.fuses.manual_encrypt_disable} is burned: nobody can "
            "encipher for it but its own firmware",
            board=state.mac,
            todo="update it through its firmware",
        )
    boot = _boot_steps(request, state, locks=False)
    check_signed(request, boot.placed)
    check = (promised(state, boot.all, profile),) if boot.all else ()
    flash = flash_steps(request.regions, enciphered=False, by_chip=True)
    return made(request, (*boot.all, *flash, *check), now=now, remarks=boot.remarks)
