"""Plans for a board whose download mode is locked: it is there, its flash is written, or it is refused. Pure."""

from __future__ import annotations

from harness.errors import RefusedError, UsageError
from harness.provision.chip_state import Download
from harness.provision.draft import made
from harness.provision.firmware_steps import lock_by_firmware, release_by_firmware
from harness.provision.flash_steps import check_signed, flash_steps
from harness.provision.obstacles import lock_fuse
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.provision.recognition import disagreements, lock_of, profile_of
from harness.provision.request import Request
from harness.provision.steps import Step


def plan_behind_lock(request: Request) -> Plan:
    """Nothing can be burned through the ROM any more.

    Raises:
        RefusedError: the board is something else than is asked for, or nothing is known of it.
    """
    state, profile, lock = request.state, request.profile, request.lock
    intent, record = request.intent, request.record
    fuse = lock_fuse(state, lock_of(state))
    mac = state.mac or (record.mac if record else intent.mac if intent else None)
    if mac is None:
        raise RefusedError(
            f"{fuse} is burned, and there is neither device record nor intent: nothing is known of this board",
            todo="give the board's MAC in its entry, so that its record can be found",
        )
    now = profile_of(state, record)
    digests = intent.digests if intent is not None else {}
    # The counter is final here with any odd value: the lock came after its write protection, which nobody can see now.
    counter = {state.chip.fuses.counter: state.crypt_count} if state.encrypted else None
    here = lock_of(state) is lock and not disagreements(state, profile, mac, digests, counter)
    asked = intent is not None and intent.profile == profile.value and intent.lock == lock.value
    if intent is not None and asked and here and not intent.behind_lock and not request.reflash:
        # The lock is the last burn of a plan: whoever finds it burned finds everything before it done. Only a firmware
        # on ESP32 has one more to do; asked again it burns what it has not.
        by_firmware = request.by_firmware and profile.encryption is Profile.RELEASE
        return made(request, (release_by_firmware(state.chip),) if by_firmware else (), now=now, mac=mac)
    if now.profile is profile and now.lock is lock:
        if not (request.reflash or (intent is not None and intent.writes_flash)):
            return made(request, (), now=now, goes_on=False, mac=mac)
        return made(request, _writes(request, mac), now=now, mac=mac)
    further = now.profile is profile and lock is Lock.DOWNLOAD_OFF and now.lock is Lock.SECURE_DOWNLOAD
    if further and request.by_firmware:
        # A build that locks at its start has no command for it: one that has it is written first.
        writes = _writes(request, mac) if request.regions else ()
        return made(request, (*writes, *lock_by_firmware(request)), now=now, mac=mac)
    if further:
        raise RefusedError(
            f"{fuse} is burned: espefuse does not reach {state.chip.fuses.download_off} any more, only the board's own "
            "firmware could burn it",
            board=mac,
            todo="demand it of the firmware: --by-firmware, with an app that has the command 'lock'",
        )
    raise RefusedError(
        f"{fuse} is burned, so no eFuse can be burned any more; the board is {now.text()}, "
        f"not {profile.value} with lock {lock.value}",
        board=mac,
        todo=f"use it as it is (--profile {now.profile.value}), or another board"
        if now.profile
        else "use another board",
    )


def _writes(request: Request, mac: str) -> tuple[Step, ...]:
    """Ciphertext into a board that cannot be read: the record must vouch for the key."""
    state, key, record = request.state, request.key, request.record
    if state.download is Download.OFF:
        raise RefusedError(
            f"{state.chip.fuses.download_off} is burned: only the firmware can write",
            board=mac,
            todo="update it over the air; a board whose firmware does not run any more is lost",
        )
    if not request.regions:
        raise UsageError("no images are given to write", board=mac)
    if request.profile.encrypts and (key is None or record is None or record.key_id != key.key_id):
        told = record.key_id if record is not None else "nothing"
        raise RefusedError(
            f"the device record tells of key {told}, the vault has {key.key_id if key else 'none'}",
            board=mac,
            todo="open the vault that has this board's key, or restore it: harness vault restore DIR",
        )
    check_signed(request)
    return flash_steps(request.regions, enciphered=request.profile.encrypts, read_back=False)
