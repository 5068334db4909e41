"""What a chip's eFuses must say once the burns of a plan are done, fuse by fuse. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.chips import Chip
from harness.chips.efuses import efuse_geometry
from harness.provision.chip_state import ChipState, KeyBlock
from harness.provision.key_blocks import digest_block_name, has_purposes, sharing_protection
from harness.provision.plan import Plan
from harness.provision.profile import Profile
from harness.provision.steps import (
    BurnDigest,
    BurnFuses,
    BurnKey,
    ConfirmFuses,
    FirmwareCommand,
    LockDownload,
    ProtectKey,
    Step,
    WriteProtect,
)

_PROTECTION = "WR_DIS of "
_BY_NAME = ("WR_DIS", "RD_DIS")
"""Protections are compared by what they protect, and purposes by the block that has them."""


def promised(state: ChipState, steps: Sequence[Step], profile: Profile) -> ConfirmFuses:
    """The check that belongs behind `steps`, which begin at `state`."""
    after = state_after(state, steps)
    return ConfirmFuses(
        profile,
        tuple((name, value) for name, value in sorted(after.fuses.items()) if _is_compared(name)),
        tuple(
            sorted(
                name
                for name in after.write_protected
                if not _is_purpose(name) and efuse_geometry(state.chip_name).has_field(name)
            )
        ),
        tuple(described(block) for block in after.key_blocks),
    )


def promised_so_far(check: ConfirmFuses) -> ConfirmFuses:
    """Without the key blocks that are still empty: the firmware will make its key in one of them."""
    return replace(check, blocks=tuple(block for block in check.blocks if " empty " not in block))


def state_after(state: ChipState, steps: Sequence[Step]) -> ChipState:
    """What a chip in `state` is after these burns; of a key that was burned no content is known."""
    for step in steps:
        state = _after(state, step)
    return state


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which a chip is not what was promised."""

    words: str
    is_more: bool
    """Something is burned over and above what was promised; nothing of it is missing."""

    def __str__(self) -> str:
        return self.words


def last_promise(plan: Plan) -> ConfirmFuses | None:
    """What the eFuses must say when all of `plan` is done, with its lock and what the firmware is told to burn."""
    promise: ConfirmFuses | None = None
    for step in plan.steps:
        if isinstance(step, ConfirmFuses):
            promise = step
        elif promise is not None and isinstance(step, LockDownload):
            promise = _with_values(promise, {step.fuse: 1})
        elif promise is not None and isinstance(step, FirmwareCommand):
            promise = _with_told(promise, step, plan.state.chip)
    return promise


def _with_told(promise: ConfirmFuses, step: FirmwareCommand, chip: Chip) -> ConfirmFuses:
    """After the firmware's own burns, as `FirmwareCommand` words them: ``NAME``, ``NAME = 0x7``, ``WR_DIS of NAME``."""
    frozen: set[str] = set()
    values: dict[str, int] = {}
    for words in step.fuses:
        if words.startswith(_PROTECTION):
            fuse = words.removeprefix(_PROTECTION)
            frozen |= {fuse, *sharing_protection(chip, fuse)}
            continue
        name, _, value = words.partition(" = ")
        values[name] = int(value, 0) if value else 1
    known = {name for name, _ in promise.fuses}
    protected = tuple(sorted({*promise.write_protected, *(frozen & {*known, *_BY_NAME})}))
    return replace(_with_values(promise, values), write_protected=protected)


def _with_values(promise: ConfirmFuses, values: Mapping[str, int]) -> ConfirmFuses:
    return replace(promise, fuses=tuple((name, value | values.get(name, 0)) for name, value in promise.fuses))


def broken_promises(step: ConfirmFuses, found: ChipState) -> tuple[Difference, ...]:
    """Every way in which `found` is not what `step` promises; empty when it is.

    Fields that `found` does not tell are passed over: a firmware does not know all that espefuse does.
    """
    wrong = [
        Difference(
            f"{name} is {found.fuses[name]}, not {value}", found.fuses[name] | value == found.fuses[name]
        )
        for name, value in step.fuses
        if found.fuses.get(name, value) != value
    ]
    if not step.fuses:
        return tuple(wrong)
    # espefuse knows fields of other revisions that share a bit, and a firmware some that espefuse leaves out.
    known = efuse_geometry(found.chip_name)
    compared = {name for name in (*dict(step.fuses), *_BY_NAME) if known.has_field(name)}
    protected = found.write_protected & compared
    wrong += [
        Difference(f"{name} is not write-protected", False)
        for name in step.write_protected
        if name not in protected
    ]
    wrong += [
        Difference(f"{name} is write-protected", True)
        for name in sorted(protected - set(step.write_protected))
    ]
    blocks = {described(block) for block in found.key_blocks}
    wrong += [Difference(f"not so: {block}", False) for block in step.blocks if block not in blocks]
    return tuple(wrong)


def described(block: KeyBlock) -> str:
    """What is known of a key block without its content."""
    content = "empty" if block.empty and block.readable else "full" if block.readable else "hidden"
    words = [block.name, block.purpose or "", content]
    words.append("writeable" if block.writeable else "write-protected")
    if not block.purpose_writeable:
        words.append("purpose write-protected")
    return " ".join(word for word in words if word)


def _is_compared(name: str) -> bool:
    return name not in _BY_NAME and not _is_purpose(name)


def _is_purpose(name: str) -> bool:
    return name.startswith("KEY_PURPOSE_")


def _after(state: ChipState, step: Step) -> ChipState:
    if isinstance(step, BurnFuses):
        burned = {name: state.fuses.get(name, 0) | value for name, value in step.fuses}
        return replace(state, fuses={**state.fuses, **burned})
    if isinstance(step, WriteProtect):
        frozen = {step.fuse, *sharing_protection(state.chip, step.fuse)} & set(state.fuses)
        return replace(state, write_protected=state.write_protected | frozen)
    if isinstance(step, BurnKey):
        after = _with_block(state, step.block, purpose=step.purpose, hide=True)
        if step.digest is not None:
            # The two halves are one block: it is write-protected as a whole.
            after = _with_block(after, str(digest_block_name(state.chip)), purpose=None, hide=False)
        return after
    if isinstance(step, BurnDigest):
        return _with_block(state, step.block, purpose=step.purpose, hide=False)
    if isinstance(step, ProtectKey):
        return _protected(state, step)
    return state


def _with_block(state: ChipState, name: str, *, purpose: str | None, hide: bool) -> ChipState:
    fixed = not has_purposes(state.chip)
    changes = [
        replace(
            block,
            purpose=None if fixed else purpose,
            empty=hide,
            readable=block.readable and not hide,
            writeable=False,
            purpose_writeable=fixed,
        )
        if block.name == name
        else replace(block, writeable=False)
        if fixed and _same_block(block.name, name)
        else block
        for block in state.key_blocks
    ]
    return replace(state, key_blocks=tuple(changes))


def _protected(state: ChipState, step: ProtectKey) -> ChipState:
    changes = [
        replace(
            block,
            readable=block.readable and not step.read,
            empty=block.empty or step.read,
            writeable=block.writeable and not step.write,
            purpose_writeable=block.purpose_writeable and not step.purpose,
        )
        if block.name == step.block
        else replace(block, writeable=block.writeable and not step.write)
        if not has_purposes(state.chip) and _same_block(block.name, step.block)
        else block
        for block in state.key_blocks
    ]
    return replace(state, key_blocks=tuple(changes))


def _same_block(one: str, other: str) -> bool:
    """Two halves of one block: it has one write protection."""
    return one.startswith(f"{other}_") or other.startswith(f"{one}_")
