"""Revoking a boot key that is in use: which eFuse, what must lie in flash before it, or why not. Pure.

A revoked key is never accepted again, by ROM, bootloader or app. So whatever the chip starts by itself is written and
compared first, signed with a key that stays; only then is SECURE_BOOT_KEY_REVOKEn burned, and the eFuses compared.
What the flash holds already is found out by the writing: sectors that are right are not written again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.errors import FormatError, RefusedError, UsageError
from harness.formats.otadata import OtaData
from harness.formats.partition import Partition
from harness.formats.partition_table import PartitionTable
from harness.provision.chip_state import ChipState, Download
from harness.provision.draft import made
from harness.provision.flash_steps import IMAGE_MAGIC, check_signed
from harness.provision.key_blocks import DigestSlot, digest_slots, write_disable_bit
from harness.provision.obstacles import lock_fuse
from harness.provision.plan import Plan
from harness.provision.promise import promised, state_after
from harness.provision.recognition import lock_of, profile_of
from harness.provision.region import FlashRegion
from harness.provision.request import Request
from harness.provision.secure_boot_state import secure_boot_is_on
from harness.provision.steps import BurnFuses, ConfirmFuses, WriteRecord

_TABLE_BEGINS = b"\xaa\x50"
_IMAGES = "give the images to flash: bootloader, partition table, otadata, and the app that it selects"
_SIGN = "sign it with a boot key that stays, in the board's entry or with: harness sign --append"


def plan_revocation(request: Request, plan_flash: Callable[[Request], Plan]) -> Plan:
    """The plan that writes what starts, then revokes the keys in the slots of `request.revoke`.

    Args:
        plan_flash: plans to write the flash of a board that is in its profile already.

    Raises:
        RefusedError: the chip cannot, or would start nothing afterwards; or an image is signed with no other key.
        UsageError: not everything that the chip starts is given.
    """
    state, profile = request.state, request.profile
    _require_open(request)
    goes_on = request.intent is not None
    problems = revocation_problems(state, request.revoke, goes_on=goes_on)
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise RefusedError(
            f"no boot key of {state.chip.title} {state.mac} is revoked:{listed}",
            board=state.mac,
            todo="read the board's slots in a plan without --revoke; burned fuses stay burned",
        )
    now = profile_of(state, request.record)
    if now.profile is not profile or now.lock is not request.lock:
        raise RefusedError(
            f"a key is revoked on a board that is in its profile, and this one is {now.text()}, not "
            f"{profile.value} with lock {request.lock.value}",
            board=state.mac,
            todo="say with --profile what it is, or bring it there first, in a plan of its own",
        )
    steps = revocation_steps(state, request)
    kept_apps = _check_what_starts(request)
    check_signed(replace(request, state=state_after(state, steps)), todo=_SIGN)
    flash = plan_flash(replace(request, revoke=(), reflash=True))
    done = [step for step in flash.steps if not isinstance(step, (ConfirmFuses, WriteRecord))] + [*steps]
    draft = made(
        request, (*done, promised(state, done, profile)), now=now, remarks=_remarks(request, kept_apps)
    )
    return replace(draft, remarks=tuple(dict.fromkeys((*draft.remarks, *flash.remarks))))


def revocation_problems(state: ChipState, revoke: Sequence[int], *, goes_on: bool = False) -> tuple[str, ...]:
    """Why the keys in these slots cannot be revoked, or must not be; empty when they can.

    Args:
        goes_on: an earlier run may have burned some of it.
    """
    chip = state.chip
    fuses = chip.secure_boot.revoke
    if not fuses:
        return (f"{chip.title} has one slot for a boot key and no eFuse that revokes it",)
    if not secure_boot_is_on(state):
        return (f"{chip.secure_boot.enable} is not set: secure boot is not on, there is no boot key in use",)
    slots = digest_slots(state)
    problems = []
    for number in dict.fromkeys(revoke):
        if not 0 <= number < len(fuses):
            problems.append(f"there is no slot {number}: {chip.title} has {len(fuses)}, from 0")
        elif slots[number].revoked:
            if not goes_on:
                problems.append(f"slot {number} is revoked already: {fuses[number]} is burned")
        elif not slots[number].used:
            problems.append(f"slot {number} holds no digest: there is no key to revoke in it")
        elif fuses[number] in state.write_protected:
            problems.append(f"{fuses[number]} is write-protected ({write_disable_bit(state, fuses[number])})")
    if not any(_is_relied_on(slot) and slot.number not in revoke for slot in slots):
        listed = ", ".join(str(number) for number in dict.fromkeys(revoke))
        problems.append(
            f"without slot {listed} no trusted key is left: the board would start nothing, for good"
        )
    return tuple(problems)


def revocation_steps(state: ChipState, request: Request) -> tuple[BurnFuses, ...]:
    """The burn itself, of all slots at once; none when an earlier run has burned them."""
    slots = digest_slots(state)
    numbers = [number for number in dict.fromkeys(request.revoke) if not slots[number].revoked]
    if not numbers:
        return ()
    names = ", ".join(f"{_name(request, slots[number])} in slot {number}" for number in numbers)
    burned = tuple((state.chip.secure_boot.revoke[number], 1) for number in numbers)
    return (BurnFuses(burned, f"boot key {names} is not accepted any more, for good"),)


def revoked_by(plan: Plan) -> tuple[int, ...]:
    """The slots with a key in use that `plan` revokes; slots that never had one do not count."""
    burned = {name for step in plan.steps if isinstance(step, BurnFuses) for name, _ in step.fuses}
    fuses = plan.state.chip.secure_boot.revoke
    used = [slot.number for slot in digest_slots(plan.state) if slot.trusted]
    return tuple(number for number in used if number < len(fuses) and fuses[number] in burned)


def _require_open(request: Request) -> None:
    state = request.state
    if state.download is Download.OPEN:
        return
    raise RefusedError(
        f"{lock_fuse(state, lock_of(state))} is burned: espefuse reaches no eFuse any more, only the board's own "
        "firmware could still revoke a boot key",
        board=state.mac or (request.record.mac if request.record is not None else None),
        todo="update it to firmware that calls esp_efuse_set_digest_revoke(), once all that it starts is signed anew",
    )


def _is_relied_on(slot: DigestSlot) -> bool:
    """The ROM accepts its key, and the block is not damaged."""
    return slot.trusted and slot.block is not None and slot.block.coding_errors != -1


def _name(request: Request, slot: DigestSlot) -> str:
    digest = slot.block.digest if slot.block is not None else None
    chip = request.state.chip
    known = (each.name for each in request.digests if each.burned_on(chip).hex() == digest)
    return next(known, f"{digest[:16]}…" if digest else "of unknown digest")


def _check_what_starts(request: Request) -> tuple[Partition, ...]:
    """What the chip starts by itself must all be written; the apps that are kept, of which nothing is known.

    Raises:
        UsageError: something is not given.
    """
    state = request.state
    by_offset = {region.offset: region for region in request.regions}
    table = _table(request.regions)
    missing = [] if state.chip.bootloader_offset in by_offset else ["the bootloader"]
    if table is None:
        missing.append("the partition table")
    else:
        missing += _missing_of(table, by_offset)
    if table is None or missing:
        raise UsageError(
            "what the board starts must be signed with a key that stays before one is revoked, and nothing shows that "
            f"it is; not given: {', '.join(missing)}",
            board=state.mac,
            todo=_IMAGES,
        )
    return tuple(each for each in table.partitions if each.is_app and each.offset not in by_offset)


def _missing_of(table: PartitionTable, by_offset: dict[int, FlashRegion]) -> list[str]:
    place, slots = table.otadata, table.ota_slots
    chosen = table.factory or (slots[0] if slots else None)
    if place is not None:
        if place.offset not in by_offset:
            return [place.label]
        index = OtaData.from_bytes(by_offset[place.offset].data).select(len(slots)).slot_index
        chosen = slots[index] if index is not None else chosen
    if chosen is None:
        return ["an app"]
    image = by_offset.get(chosen.offset)
    return [] if image is not None and image.data[0] == IMAGE_MAGIC else [f"the app in {chosen.label}"]


def _table(regions: Sequence[FlashRegion]) -> PartitionTable | None:
    for region in regions:
        if region.data.startswith(_TABLE_BEGINS):
            try:
                return PartitionTable.from_binary(region.data)
            except FormatError:
                continue
    return None


def _remarks(request: Request, kept: Sequence[Partition]) -> tuple[str, ...]:
    slots = digest_slots(request.state)
    already = [number for number in dict.fromkeys(request.revoke) if slots[number].revoked]
    stay = [slot for slot in slots if _is_relied_on(slot) and slot.number not in request.revoke]
    left = ", ".join(f"{_name(request, slot)} in slot {slot.number}" for slot in stay)
    return (
        *(f"slot {number} was revoked by the run that was not finished" for number in already),
        f"afterwards the board trusts {left}, and no other key",
        *(
            f"{each.label} may hold an image signed only with the revoked key: it would not boot any more; update it "
            "first"
            for each in kept
        ),
    )
