"""How far a chip is with secure boot v2. Pure: from its eFuses, or from what a locked ROM still tells."""

from __future__ import annotations

from collections.abc import Mapping

from harness.chips import KEY_PURPOSE_NUMBERS
from harness.provision.chip_state import ChipState, Download
from harness.provision.key_blocks import DigestSlot, digest_slots, has_purposes, sharing_protection

SPARED = ("SOFT_DIS_JTAG",)
"""Not missed where it is frozen by now: the hard switch of JTAG is burned with it, and goes further."""

_FIRST_REVOCATION_FLAG = 3
"""Bits 3 to 5 of the security flags: SECURE_BOOT_KEY_REVOKE0 to 2."""


def secure_boot_fuses(state: ChipState) -> tuple[str, ...]:
    """The fuses by which secure boot is on, version 1 of ESP32 among them."""
    names = dict.fromkeys(("ABS_DONE_0", "ABS_DONE_1", "SECURE_BOOT_EN", state.chip.secure_boot.enable))
    return tuple(fuse for fuse in names if state.is_set(fuse))


def secure_boot_is_on(state: ChipState) -> bool:
    """The ROM verifies the bootloader with secure boot v2."""
    return state.is_set(state.chip.secure_boot.enable)


def trusted_slots(state: ChipState) -> tuple[DigestSlot, ...]:
    """The slots whose keys the ROM accepts."""
    return tuple(slot for slot in digest_slots(state) if slot.trusted)


def secure_boot_faults(state: ChipState) -> tuple[str, ...]:
    """Why a chip with secure boot on can never boot anything, or does not have version 2; empty: it can."""
    if state.is_set("ABS_DONE_0") and not state.is_set("ABS_DONE_1"):
        return ("ABS_DONE_0 is set: secure boot v1, which this project does not handle",)
    if trusted_slots(state):
        return ()
    reasons = [
        f"{slot.block.name} (slot {slot.number}) "
        + ("is revoked" if slot.revoked else "is read-protected" if not slot.block.readable else "is empty")
        for slot in digest_slots(state)
        if slot.block is not None
    ]
    listed = f": {', '.join(reasons)}" if reasons else ""
    return (f"{state.chip.secure_boot.enable} is set: secure boot is on, and no digest can be read{listed}",)


def no_key_is_left(state: ChipState) -> tuple[str, ...]:
    """Why a chip that verifies will never start anything again; empty: it trusts a key, or can still be given one."""
    if not secure_boot_is_on(state):
        return ()
    slots = digest_slots(state)
    if any(slot.trusted or not (slot.revoked or slot.used) for slot in slots):
        return ()
    return secure_boot_faults(state)


def missing_for_secure_boot(state: ChipState) -> tuple[str, ...]:
    """What Espressif's workflow burns for secure boot v2 and this chip does not have, fuse by fuse.

    A board that lacks some of it still verifies what it boots; SECURE_BOOT_AGGRESSIVE_REVOKE is not counted.
    """
    boot = state.chip.secure_boot
    missing = [] if secure_boot_is_on(state) else [f"{boot.enable} is not set"]
    slots = digest_slots(state)
    if not any(slot.trusted for slot in slots):
        missing.append("no digest of a boot key is readable and not revoked")
    for slot in slots:
        if slot.trusted and slot.block is not None:
            if slot.block.writeable:
                missing.append(f"{slot.block.name} is not write-protected")
            if has_purposes(state.chip) and slot.block.purpose_writeable:
                missing.append(f"the purpose of {slot.block.name} is not write-protected")
    missing += [
        f"{fuse} is {state.fuses.get(fuse, 0):#x}, not {value:#x}"
        for fuse, value in boot.burned_with
        if state.fuses.get(fuse, 0) != value and not (fuse in SPARED and fuse in state.write_protected)
    ]
    needed = {fuse for fuse in state.chip.fuses.release if not state.is_set(fuse)}
    missing += [
        f"{fuse} is not write-protected"
        for fuse in (*boot.also_write_protect, boot.write_protect)
        if fuse not in state.write_protected and not needed & set(sharing_protection(state.chip, fuse))
    ]
    missing += [
        f"{fuse} is not set: digest slot {slot.number} is unused and open"
        for slot, fuse in zip(slots, boot.revoke, strict=False)
        if slot.block is None and not slot.revoked
    ]
    return tuple(missing)


def open_behind_lock(state: ChipState) -> tuple[str, ...]:
    """The revocations that a locked chip lacks although nothing is in their slots: no plan can burn them any more.

    IDF's app does, at its next start; see ``secure_boot_v2_check()`` of ESP-IDF v5.5.5.
    """
    info, boot = state.security_info, state.chip.secure_boot
    if info is None or state.download is not Download.SECURE:
        return ()
    return tuple(
        fuse
        for slot, (fuse, purpose) in enumerate(zip(boot.revoke, boot.digest_purposes, strict=True))
        if not info.flags >> (_FIRST_REVOCATION_FLAG + slot) & 1
        and KEY_PURPOSE_NUMBERS[purpose] not in info.key_purposes
    )


def locked_disagreements(state: ChipState, digests: Mapping[str, str], *, on: bool) -> tuple[str, ...]:
    """What the security info of a locked chip says against a record with these digests, by slot.

    Args:
        on: the record says that secure boot is on.
    """
    info = state.security_info
    if info is None:
        return ()
    found = []
    if info.secure_boot != on:
        found.append(f"secure boot is {'on' if info.secure_boot else 'off'} in the chip")
    revoked = [slot for slot in digests if info.flags >> (_FIRST_REVOCATION_FLAG + int(slot)) & 1]
    if digests and len(revoked) == len(digests):
        found.append(f"every boot key that the record knows is revoked (slot {', '.join(sorted(revoked))})")
    if has_purposes(state.chip):
        found += [
            f"no key block has the purpose {name}"
            for name in sorted(state.chip.secure_boot.digest_purposes[int(slot)] for slot in digests)
            if KEY_PURPOSE_NUMBERS[name] not in info.key_purposes
        ]
    return tuple(found)
