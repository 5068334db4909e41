"""Which burns turn secure boot v2 on, from whatever is there already. Pure.

The order is Espressif's ("Security Features Enablement Workflows"): digests, enable, JTAG and other ways to boot, write
protection of RD_DIS, revocation of unused slots. It stands behind everything that reads-protects a flash key, and in
front of the flash: a run that is cut off in between leaves a board that does not boot and whose UART is open.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from harness.chips import CURVE_MODE_BOTH, CURVES_BY_MODE
from harness.provision.boot_keys import BootDigest
from harness.provision.chip_state import ChipState, KeyBlock
from harness.provision.key_blocks import (
    DigestSlot,
    digest_block_name,
    digest_slots,
    free_blocks,
    has_purposes,
    holds,
    occupants,
    shares_one_block,
    sharing_protection,
    write_disable_bit,
)
from harness.provision.secure_boot_state import SPARED, secure_boot_is_on, trusted_slots
from harness.provision.steps import BurnDigest, BurnFuses, ProtectKey, Step, WriteProtect
from harness.vault.intent import Intent

AGGRESSIVE_REMARK = (
    "one step of Espressif's workflow is left out on purpose: {fuse} is not burned. With it a single damaged read of "
    "flash would revoke the boot key for good"
)


@dataclass(frozen=True, slots=True)
class BootSteps:
    """How secure boot is turned on, in three groups, so that a planner can put something between them."""

    digests: tuple[Step, ...] = ()
    enable: tuple[Step, ...] = ()
    """The fuse itself, and what is burned with it."""
    closing: tuple[Step, ...] = ()
    """Write protections and revocations."""
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    """The blocks that digests are burned into."""

    @property
    def all(self) -> tuple[Step, ...]:
        return (*self.digests, *self.enable, *self.closing)

    @property
    def placed(self) -> frozenset[bytes]:
        """Whole digests of the keys that are burned."""
        return frozenset(bytes.fromhex(step.digest) for step in self.digests if isinstance(step, BurnDigest))

    def problems_become_remarks(self) -> BootSteps:
        """For a chip that verifies already and is not locked: what can be burned is burned, the rest is said."""
        return replace(self, problems=(), remarks=(*self.remarks, *self.problems))


def secure_boot_steps(
    state: ChipState,
    digests: Sequence[BootDigest],
    intent: Intent | None,
    *,
    burned_with_key: bool = False,
    aggressive_revoke: bool = False,
    firmware_burns: Collection[str] = (),
    hides_key_later: bool = False,
) -> BootSteps:
    """What is still to burn so that the ROM trusts exactly the keys in `digests`.

    On a chip that verifies already, whoever turned it on, that is what is missing; a key that has no place any more
    is left out there, since the chip boots with another. What cannot be burned is a problem, and not among the steps.

    Args:
        state: after the burns of flash encryption that come first.
        burned_with_key: the digest goes into its block together with the flash key (ESP32-C2).
        aggressive_revoke: burn SECURE_BOOT_AGGRESSIVE_REVOKE, too.
        firmware_burns: fuses that the firmware burns by itself when it runs.
        hides_key_later: RD_DIS stays open, because the firmware's bootloader hides a key that it makes.
    """
    chip = state.chip
    boot = chip.secure_boot
    problems = _revision_problems(state)
    placed = _Placement([], [], [], [])
    if not burned_with_key:
        placed = _place(state, digests, intent)
    problems += placed.problems
    remarks = list(placed.remarks)
    on = secure_boot_is_on(state)
    burned = [] if on else [(boot.enable, 1)]
    with_it, spared = _burned_with(state)
    remarks += spared
    sha384 = boot.sha384_enable
    if sha384 is not None and state.is_set(sha384) and not all(each.sha384 for each in digests):
        problems.append(
            f"{sha384} is set: the ROM verifies P-384 signatures over SHA-384 only, and these keys make none"
        )
    if sha384 is not None and any(each.sha384 for each in digests) and not state.is_set(sha384):
        if on and any(slot.trusted and not _holds_one(slot, digests, state) for slot in digest_slots(state)):
            problems.append(
                f"{sha384} is not set, and with it another key that the chip trusts would be void"
            )
        else:
            with_it.insert(0, (sha384, 1))
    curve_mode, locked_curves = _curve_mode(state, digests)
    with_it[:0] = curve_mode
    problems += locked_curves
    if aggressive_revoke:
        if boot.aggressive_revoke is None:
            problems.append(f"{chip.title} has no aggressive revocation: it has one digest slot")
        elif not state.is_set(boot.aggressive_revoke):
            with_it.append((boot.aggressive_revoke, 1))
    elif boot.aggressive_revoke is not None and burned:
        remarks.append(AGGRESSIVE_REMARK.format(fuse=boot.aggressive_revoke))
    revoked = _revocations(state, digests)
    problems += [
        f"{name} is write-protected ({write_disable_bit(state, name)})"
        for name, _ in (*burned, *with_it, *revoked)
        if name in state.write_protected
    ]
    burned, with_it, revoked = (
        [each for each in group if each[0] not in state.write_protected]
        for group in (burned, with_it, revoked)
    )
    enable: list[Step] = []
    if burned:
        enable.append(BurnFuses(tuple(burned), "secure boot on, for good"))
    if with_it:
        enable.append(BurnFuses(tuple(with_it), "no way round secure boot"))
    closing: list[Step] = []
    freezing, left_open = freezes(state, boot.also_write_protect, firmware_burns)
    remarks += left_open
    if hides_key_later:
        remarks.append(
            f"{boot.write_protect} is left open for the firmware, whose bootloader hides the key that it makes and then "
            "write-protects it"
        )
    else:
        freezing.append(boot.write_protect)
    for fuse in freezing:
        if fuse in state.write_protected:
            continue
        if "WR_DIS" in state.write_protected:
            problems.append(f"WR_DIS is write-protected: {fuse} cannot be frozen")
            continue
        closing.append(WriteProtect(fuse, sharing_protection(chip, fuse)))
    if revoked:
        closing.append(BurnFuses(tuple(revoked), "digest slots without a key"))
    return BootSteps(
        tuple(placed.steps),
        tuple(enable),
        tuple(closing),
        tuple(dict.fromkeys(problems)),
        tuple(dict.fromkeys(remarks)),
        tuple(placed.blocks),
    )


def _curve_mode(state: ChipState, digests: Sequence[BootDigest]) -> tuple[list[tuple[str, int]], list[str]]:
    """The burn that lets the hardware calculate on the keys' curves, if they need one; or what is in its way.

    It comes before the fuse is frozen: ESP32-H2 does P-256 only until it is told, and signatures on another curve
    would never verify.
    """
    fuse = state.chip.secure_boot.curve_mode
    if fuse is None:
        return [], []
    mode = state.fuses.get(fuse, 0)
    wanted = CURVES_BY_MODE[CURVE_MODE_BOTH]
    off = [each for each in digests if each.scheme in wanted and each.scheme not in CURVES_BY_MODE[mode]]
    if not off:
        return [], []
    if mode == 0:
        return [(fuse, CURVE_MODE_BOTH)], []
    listed = ", ".join(f"boot key {each.name} ({each.scheme.value})" for each in off if each.scheme)
    return [], [f"{fuse} is {mode}, for good: the hardware verifies nothing by {listed}"]


def freezes(
    state: ChipState, fuses: Sequence[str], firmware_burns: Collection[str] = ()
) -> tuple[list[str], list[str]]:
    """Which of `fuses` may be write-protected now, and remarks on those that would freeze what is still to be burned.

    An app of ESP-IDF that finds a fuse frozen that it wants to burn at its start does not start.
    """
    freezing, remarks = [], []
    for fuse in fuses:
        sharing = sharing_protection(state.chip, fuse)
        open_ones = [other for other in (fuse, *sharing) if not state.is_set(other)]
        needed = [other for other in open_ones if other in state.chip.fuses.release]
        wanted = [other for other in open_ones if other in firmware_burns]
        if needed:
            remarks.append(
                f"{fuse} is not write-protected: its bit would also freeze {', '.join(needed)}, which release burns"
            )
        elif wanted:
            remarks.append(
                f"{fuse} is not write-protected here: that would freeze {', '.join(wanted)}, which the firmware burns "
                "by itself and does not start without"
            )
        else:
            freezing.append(fuse)
    return freezing, remarks


@dataclass(frozen=True, slots=True)
class _Placement:
    steps: list[Step]
    problems: list[str]
    remarks: list[str]
    blocks: list[str]


def _place(state: ChipState, digests: Sequence[BootDigest], intent: Intent | None) -> _Placement:
    """Every digest to its block; and nothing else may be trusted."""
    chip = state.chip
    placed = _Placement([], [], [], [])
    slots = digest_slots(state)
    ours = [
        slot
        for slot in slots
        if slot.block is not None and any(holds(slot.block, each, chip) for each in digests)
    ]
    for slot in slots:
        problem = _foreign(state, slot, digests, intent) if slot not in ours else None
        if problem is not None:
            placed.problems.append(problem)
    for digest in sorted(digests, key=lambda each: each.slot):
        there = next((s for s in ours if s.block is not None and holds(s.block, digest, chip)), None)
        if there is not None and there.block is not None:
            _keep(state, there, there.block, digest, placed)
        elif secure_boot_is_on(state) and _has_no_place(state, slots[digest.slot]):
            continue  # the plan says that the board does not trust it
        elif slots[digest.slot].revoked:
            placed.problems.append(
                f"{chip.secure_boot.revoke[digest.slot]} is burned: a boot key in slot {digest.slot} is not accepted"
            )
        elif not slots[digest.slot].used or _may_go_on(state, slots[digest.slot], intent):
            _burn(state, slots[digest.slot], digest, intent, placed.blocks, placed)
    return placed


def _foreign(
    state: ChipState, slot: DigestSlot, digests: Sequence[BootDigest], intent: Intent | None
) -> str | None:
    """Why a slot that holds none of `digests` is in the way; None when it is not."""
    if slot.block is None or slot.revoked or not slot.used:
        return None
    block = slot.block
    if not block.readable:
        return (
            f"{block.name} is read-protected: the ROM could never read the digest in slot {slot.number} "
            "(RD_DIS cannot be taken back)"
        )
    if _may_go_on(state, slot, intent):
        return None
    if intent is not None and block.name in intent.all_blocks and block.coding_errors:
        return f"{block.name} was half burned and is the only one: this board is sacrificed"
    if secure_boot_is_on(state):
        return trusts_another(slot)
    given = next((each for each in digests if each.slot == slot.number), None)
    other = f"not that of {given.name}" if given is not None else "for which no key was given"
    digest = f" {block.digest[:16]}…" if block.digest else ""
    return f"{block.name} holds another boot key's digest{digest} in slot {slot.number}, {other}"


def _may_go_on(state: ChipState, slot: DigestSlot, intent: Intent | None) -> bool:
    """ESP32: a half-burned digest takes its missing bits, since there are no check bytes."""
    return (
        intent is not None
        and slot.block is not None
        and slot.block.name in intent.all_blocks
        and state.chip.fuses.key_purpose is None
        and slot.block.writeable
        and slot.block.readable
    )


def _keep(
    state: ChipState, slot: DigestSlot, block: KeyBlock, digest: BootDigest, placed: _Placement
) -> None:
    """The digest is in a block with a digest's purpose: only protections may be missing."""
    if slot.revoked and secure_boot_is_on(state):
        return
    if slot.revoked:
        fuse = state.chip.secure_boot.revoke[slot.number]
        placed.problems.append(f"{fuse} is burned: boot key {digest.name} in {block.name} is not accepted")
        return
    if block.coding_errors == -1:
        placed.problems.append(
            f"{block.name} is damaged: the digest in slot {slot.number} cannot be relied on"
        )
        return
    if slot.number != digest.slot:
        placed.remarks.append(
            f"boot key {digest.name} is in slot {slot.number} already, and stays there instead of slot {digest.slot}"
        )
    purpose = has_purposes(state.chip) and block.purpose_writeable
    if block.writeable or purpose:
        if "WR_DIS" in state.write_protected:
            placed.problems.append(f"WR_DIS is write-protected: {block.name} cannot be protected any more")
            return
        why = "a digest that was left open"
        placed.steps.append(ProtectKey(block.name, False, block.writeable, purpose, why))


def _burn(
    state: ChipState,
    slot: DigestSlot,
    digest: BootDigest,
    intent: Intent | None,
    taken: Collection[str],
    placed: _Placement,
) -> None:
    chip = state.chip
    purposes = chip.secure_boot.digest_purposes
    purpose = purposes[digest.slot] if purposes else None
    candidates = (
        (slot.block,)
        if slot.block is not None
        else free_blocks(state, for_flash_key=False, taken=frozenset(taken))
    )
    fixed = digest_block_name(chip)
    for block in candidates:
        ours = holds(block, digest, chip) and block.coding_errors == 0
        marked = block.purpose == purpose and block.empty and block.readable and block.writeable
        if not (block.unused or ours or marked or (fixed is not None and _may_go_on(state, slot, intent))):
            if (
                intent is not None
                and block.writeable
                and (block.name in intent.all_blocks or block.coding_errors)
            ):
                placed.remarks.append(f"{block.name} was half burned by an earlier run and is given up")
                placed.steps.append(
                    ProtectKey(
                        block.name, False, True, False, "half a digest must not be completed by anybody"
                    )
                )
                placed.blocks.append(block.name)
            continue
        burn_as = str(chip.secure_boot.digest_block) if fixed is not None else block.name
        placed.blocks.append(block.name)
        placed.steps.append(
            BurnDigest(
                block.name,
                burn_as,
                purpose,
                digest.slot,
                digest.digest.hex(),
                digest.name,
                goes_on=not block.unused,
            )
        )
        if "WR_DIS" in state.write_protected:
            placed.problems.append("WR_DIS is write-protected: nothing can be write-protected any more")
        return
    listed = occupants(candidates)
    shared = "; it shares its block with the flash key" if shares_one_block(chip) else ""
    placed.problems.append(f"no key block is free for the digest of boot key {digest.name}: {listed}{shared}")


def _burned_with(state: ChipState) -> tuple[list[tuple[str, int]], list[str]]:
    """JTAG and other ways to boot, as far as they are still open; and remarks on what cannot be burned any more."""
    burned, remarks = [], []
    for fuse, value in state.chip.secure_boot.burned_with:
        if state.fuses.get(fuse, 0) == value:
            continue
        if fuse in SPARED and fuse in state.write_protected:
            remarks.append(
                f"{fuse} is write-protected ({write_disable_bit(state, fuse)}) and stays as it is: the hard switch of "
                "JTAG goes further"
            )
            continue
        burned.append((fuse, value))
    return burned, remarks


def _revocations(state: ChipState, digests: Sequence[BootDigest]) -> list[tuple[str, int]]:
    """The slots that hold no key and will hold none."""
    chip = state.chip
    slots = digest_slots(state)
    kept = {slot.number for slot in slots if slot.block is not None and slot.used}
    placed = {each.slot for each in digests if not any(_is_in(slot, each, state) for slot in slots)}
    return [
        (fuse, 1)
        for number, fuse in enumerate(chip.secure_boot.revoke)
        if number not in kept | placed and not state.is_set(fuse)
    ]


def also_trusted(state: ChipState, digests: Collection[str]) -> tuple[str, ...]:
    """The slots of a chip that verifies whose keys are none of `digests` (32 bytes each, hexadecimal), in words."""
    if not secure_boot_is_on(state):
        return ()
    known = {digest[: 2 * state.chip.secure_boot.digest_size_bytes] for digest in digests}
    return tuple(
        trusts_another(slot)
        for slot in trusted_slots(state)
        if slot.block is not None and slot.block.digest not in known
    )


def trusts_another(slot: DigestSlot) -> str:
    """That a slot's key counts, although nobody has given it."""
    assert slot.block is not None
    digest = f"{slot.block.digest[:16]}…" if slot.block.digest else "a key"
    return (
        f"slot {slot.number} also trusts {digest} ({slot.block.name}), which no key of the entry has: name that key, "
        "or revoke the slot"
    )


def _has_no_place(state: ChipState, slot: DigestSlot) -> bool:
    """No digest can be burned for this slot any more."""
    if slot.revoked or slot.used or "WR_DIS" in state.write_protected:
        return True
    if slot.block is not None:
        return not slot.block.writeable
    return not any(block.unused for block in free_blocks(state, for_flash_key=False))


def _holds_one(slot: DigestSlot, digests: Sequence[BootDigest], state: ChipState) -> bool:
    return any(_is_in(slot, each, state) for each in digests)


def _is_in(slot: DigestSlot, digest: BootDigest, state: ChipState) -> bool:
    return slot.block is not None and holds(slot.block, digest, state.chip)


def _revision_problems(state: ChipState) -> list[str]:
    wanted = state.chip.secure_boot.min_chip_rev_full
    if state.revision is None or state.revision >= wanted:
        return []
    found, needed = (f"v{rev // 100}.{rev % 100}" for rev in (state.revision, wanted))
    return [f"chip revision {found} cannot verify secure boot v2, {needed} is the oldest that can"]
