"""Which steps bring the flash key into a key block, from whatever a killed run or somebody else left there.

The order inside a burn is key, purpose, protections (espefuse's batch with postponed protections). So what is
found tells how far it came: a block that can still be read can be compared; one that cannot is proven by the
intent that was synced before its burn, or by the canary.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.chips.efuses import efuse_geometry
from harness.provision.chip_state import ChipState, KeyBlock
from harness.provision.recognition import flash_key_blocks
from harness.provision.steps import BurnKey, MakeKey, ProtectKey, Step
from harness.vault.intent import Intent
from harness.vault.key_ref import KeyRef


@dataclass(frozen=True, slots=True)
class KeySteps:
    """How the key gets where it must be."""

    steps: tuple[Step, ...]
    proven: bool
    """That the block holds the vault's key is known without asking the chip again."""
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def key_steps(state: ChipState, key: KeyRef | None, intent: Intent | None) -> KeySteps:
    """The steps for the key alone; `problems` says why there are none that lead anywhere."""
    holding = flash_key_blocks(state)
    if len(holding) > 1:
        names = ", ".join(block.name for block in holding)
        return _stuck(f"{names} all hold flash keys: which one the chip uses is not defined")
    if not holding:
        return _burn_into_free_block(state, key, intent)
    return _go_on_with(state, holding[0], key, intent)


def _go_on_with(state: ChipState, block: KeyBlock, key: KeyRef | None, intent: Intent | None) -> KeySteps:
    """`block` is marked as a flash key's (or, on ESP32, is not blank)."""
    begun = (
        intent is not None and intent.block == block.name and key is not None and intent.key_id == key.key_id
    )
    if block.readable:
        if block.empty and block.writeable and block.coding_errors == 0:
            # Somebody set the purpose and nothing else.
            return _with_burn(state, block, goes_on=False, key=key)
        if key is not None and block.key_id == key.key_id and block.coding_errors == 0:
            return _protect(state, block, proven=True)
        if begun and state.chip.fuses.key_purpose is None and block.writeable:
            # ESP32's blocks have no check bytes: a half-burned key takes its missing bits, and espefuse
            # refuses by itself if a bit is set that the key has not.
            return _with_burn(state, block, goes_on=True)
        if begun and block.coding_errors:
            return _stuck(
                f"{block.name} was half burned and has the purpose of a flash key: this board is sacrificed"
            )
        return _stuck(f"{block.name} holds a flash key that is not the vault's")
    if key is None:
        return _stuck(
            f"{block.name} holds a flash key that is not in the vault (the device made it, or another vault "
            "has it): ciphertext for this board cannot be made on the host"
        )
    return _protect(state, block, proven=begun)


def _protect(state: ChipState, block: KeyBlock, *, proven: bool) -> KeySteps:
    """The key is in `block`; what of its protections is missing?"""
    purpose = state.chip.fuses.key_purpose is not None and block.purpose_writeable
    if not (block.readable or block.writeable or purpose):
        return KeySteps((), proven)
    problems = _protection_problems(state, block, reading=block.readable)
    step = ProtectKey(
        block.name, block.readable, block.writeable, purpose, "left open by a run that was cut off"
    )
    return KeySteps((step,), proven, problems)


def _burn_into_free_block(state: ChipState, key: KeyRef | None, intent: Intent | None) -> KeySteps:
    before: list[Step] = []
    remarks: list[str] = []
    for block in _candidates(state):
        if block.unused:
            return _with_burn(state, block, goes_on=False, key=key, before=before, remarks=remarks)
        if not block.readable or block.purpose not in (None, "USER"):
            continue
        if key is not None and block.key_id == key.key_id and block.coding_errors == 0:
            # The key is in, its purpose is not yet: burning it again sets what is missing.
            return _with_burn(state, block, goes_on=True, key=key, before=before, remarks=remarks)
        if intent is not None and (intent.block == block.name or block.coding_errors):
            # Its check bytes cannot be completed: a block's code words are burned in one go or not at all.
            remarks.append(f"{block.name} was half burned by an earlier run and is given up")
            if state.fuses.get("RD_DIS") is not None and "RD_DIS" not in state.write_protected:
                before.append(
                    ProtectKey(block.name, True, block.writeable, False, "half a key must not stay readable")
                )
    taken = ", ".join(f"{block.name} ({_occupant(block)})" for block in _candidates(state))
    if remarks:
        return _stuck(f"no key block is left after a burn was cut off: {taken}; this board is sacrificed")
    return _stuck(f"no key block is free for a flash key: {taken}")


def _with_burn(
    state: ChipState,
    block: KeyBlock,
    *,
    goes_on: bool,
    key: KeyRef | None = None,
    before: list[Step] | None = None,
    remarks: list[str] | None = None,
) -> KeySteps:
    fuses = state.chip.fuses
    burn_as = fuses.key_block if fuses.key_purpose is None else block.name
    steps: list[Step] = [] if key is not None or goes_on else [MakeKey()]
    steps += before or []
    steps.append(BurnKey(block.name, burn_as, fuses.key_purpose, goes_on))
    problems = _protection_problems(state, block, reading=True)
    # espefuse reads the block back before it protects it, so a burn that returns is its own proof.
    return KeySteps(tuple(steps), True, problems, tuple(remarks or ()))


def _candidates(state: ChipState) -> tuple[KeyBlock, ...]:
    """The blocks that a flash key may go to, in the order in which they are tried."""
    fuses = state.chip.fuses
    if fuses.key_purpose is None:
        return tuple(block for block in state.key_blocks if block.name == fuses.key_storage_block)
    excluded = state.chip.key_blocks_without_flash_keys
    return tuple(block for block in state.key_blocks if block.name not in excluded)


def _occupant(block: KeyBlock) -> str:
    if block.coding_errors:
        return "damaged"
    if not block.readable:
        return "read-protected"
    if block.purpose not in (None, "USER"):
        return str(block.purpose)
    if not block.empty:
        return "not empty"
    return "write-protected"


def _protection_problems(state: ChipState, block: KeyBlock, *, reading: bool) -> tuple[str, ...]:
    found = []
    if reading and "RD_DIS" in state.write_protected:
        found.append(
            f"RD_DIS is write-protected ({write_disable_bit(state, 'RD_DIS')}): the key in {block.name} "
            "could never be read-protected"
        )
    if "WR_DIS" in state.write_protected:
        found.append("WR_DIS is write-protected: nothing can be write-protected any more")
    return tuple(found)


def write_disable_bit(state: ChipState, fuse: str) -> str:
    """Which bit of WR_DIS freezes `fuse`, in words."""
    geometry = efuse_geometry(state.chip_name)
    bit = geometry.field(fuse).write_disable if geometry.has_field(fuse) else None
    return "WR_DIS" if bit is None else f"WR_DIS bit {bit}"


def sharing_protection(state: ChipState, fuse: str) -> tuple[str, ...]:
    """The other fields that the write-protection bit of `fuse` freezes."""
    geometry = efuse_geometry(state.chip_name)
    bit = geometry.field(fuse).write_disable
    return tuple(
        row.name
        for row in geometry.fields
        if row.block == 0 and row.write_disable == bit and row.name != fuse and bit is not None
    )


def _stuck(problem: str) -> KeySteps:
    return KeySteps((), False, (problem,))
