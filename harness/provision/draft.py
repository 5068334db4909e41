"""From steps to a plan: what consent must reach, and what a person should read before giving it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.provision.chip_state import Download
from harness.provision.deviations import deviation_notes
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.provision.promise import state_after
from harness.provision.recognition import Recognition, lock_of
from harness.provision.request import Request
from harness.provision.secure_boot_state import missing_for_secure_boot, secure_boot_is_on, trusted_slots
from harness.provision.steps import (
    BurnDigest,
    BurnKey,
    FirmwareCommand,
    LockDownload,
    Step,
    WriteFlash,
    WriteRecord,
)
from harness.vault.key_ref import KEYLESS


def made(
    request: Request,
    steps: Sequence[Step],
    *,
    now: Recognition,
    goes_on: bool | None = None,
    remarks: Sequence[str] = (),
    mac: str | None = None,
) -> Plan:
    """The plan of `steps`; with an intent that is not done with, or any step, the record is written last.

    Args:
        goes_on: an earlier run is finished; None: if there is an intent.
        mac: of a board whose ROM does not tell it.
    """
    state, profile, key = request.state, request.profile, request.key
    goes_on = request.intent is not None if goes_on is None else goes_on
    done = (*steps, WriteRecord()) if steps or goes_on else ()
    by_itself = [each.burns_up_to for each in request.regions if each.burns_up_to is not None]
    if not any(isinstance(step, WriteFlash) for step in done):
        by_itself = []
    makes_key = request.device_key and not state.crypt_count and done
    burned = [profile] if makes_key or any(step.irreversible for step in done) else []
    furthest = Profile.together([*by_itself, *burned])
    mac = mac or state.mac
    assert mac is not None
    keyed = key is not None and profile.encrypts and not request.keyless
    return Plan(
        chip_name=state.chip_name,
        mac=mac,
        profile=profile,
        lock=request.lock,
        state=state,
        key_id=key.key_id if key is not None and keyed else None,
        steps=done,
        goes_on=goes_on,
        now=now.text(),
        burns_up_to=furthest if furthest is not Profile.OPEN else None,
        remarks=(*remarks, *_remarks(request, done)),
        digests=tuple((each.slot, each.digest.hex(), each.name) for each in request.digests)
        if profile.secure_boot
        else (),
        key_state=request.key_state.value if request.key_state is not None else None,
    )


def _remarks(request: Request, steps: Sequence[Step]) -> tuple[str, ...]:
    """Where this differs from Espressif's workflow, and what a person should know before consenting."""
    state, profile = request.state, request.profile
    found = []
    if request.record is not None and request.record.differences:
        found.append(
            "after its last burns its firmware read other eFuses than were promised, and nothing was burned since: "
            + "; ".join(request.record.differences)
        )
    if any(isinstance(step, BurnKey) for step in steps):
        found.append(
            "one step of Espressif's workflow is left out on purpose: the key is not deleted, its owner keeps it "
            "in the vault. Its state is test-only: do not ship this device"
        )
    found += deviation_notes(state.chip, steps)
    if request.key_state is not None:
        found.append(
            f"its flash key is {KEYLESS[request.key_state]} and not in the vault: the device itself enciphers its "
            "updates, and raw updates are not applicable"
        )
    lockable = profile.encryption is Profile.RELEASE or profile is Profile.OPEN_SBV2
    if lockable and request.lock is Lock.NONE and steps and lock_of(state) is Lock.NONE:
        off = state.chip.fuses.download_off
        what = "ciphertext can be written and read" if profile.encrypts else "flash can be written and read"
        found.append(f"UART download stays open ({off} is not burned): {what}")
    if profile.encryption is Profile.CIPHERTEXT_ONLY and steps:
        found.append(
            "plaintext is refused by esptool alone: forced on, it is written, and the board does not boot until "
            "ciphertext is written again"
        )
    if state.download is not Download.OPEN and steps:
        found.append(
            "nothing can be read back: what is written is not verified over UART, only by booting it"
        )
    if any(isinstance(step, WriteFlash) and step.enciphered for step in steps):
        found.append(_when_it_runs(steps))
    if any(isinstance(step, (LockDownload, FirmwareCommand)) and step.final for step in steps):
        found.append(
            "without UART download only its own firmware can help the board: on a physical one this is done only after "
            "raw updates both ways and a rollback have passed on it"
        )
    if profile.secure_boot and secure_boot_is_on(state) and state.download is Download.OPEN:
        known = {slot.block.digest for slot in trusted_slots(state) if slot.block is not None}
        known |= {step.digest[: 2 * state.chip.secure_boot.digest_size_bytes] for step in _digests(steps)}
        found += [
            f"boot key {each.name} is not one that the board trusts"
            for each in request.digests
            if each.burned_on(state.chip).hex() not in known
        ]
        found += [
            f"secure boot is not as Espressif's workflow leaves it: {each}"
            for each in missing_for_secure_boot(state_after(state, steps))
        ]
    found += [
        f"{region.name} burns eFuses up to {region.burns_up_to.value} by itself when it starts"
        for region in request.regions
        if region.burns_up_to is not None
    ]
    return tuple(found)


def _digests(steps: Sequence[Step]) -> tuple[BurnDigest, ...]:
    return tuple(step for step in steps if isinstance(step, BurnDigest))


def _when_it_runs(steps: Sequence[Step]) -> str:
    """When the firmware that is flashed is started for the first time."""
    command = next(
        (number for number, step in enumerate(steps, 1) if isinstance(step, FirmwareCommand)), None
    )
    if command is None:
        return "the firmware does not run before the last step is done"
    return f"the firmware runs for the first time in step {command}, when it burns fuses, and not before"
