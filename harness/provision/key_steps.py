"""Which steps bring the flash key into its key blocks, from whatever a killed run or somebody else left there.

The order inside a burn is key, purpose, protections (espefuse's batch with postponed protections). So what is
found tells how far it came: a block that can still be read can be compared; one that cannot is proven by the
intent that was synced before its burn, or by the canary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.provision.boot_keys import BootDigest
from harness.provision.chip_state import ChipState, KeyBlock
from harness.provision.key_blocks import (
    KeyPart,
    digest_block_name,
    flash_key_blocks,
    free_blocks,
    has_purposes,
    holds,
    key_parts,
    occupants,
    shares_one_block,
    write_disable_bit,
)
from harness.provision.steps import BurnKey, MakeKey, ProtectKey, Step
from harness.vault.intent import Intent
from harness.vault.key_ref import KeyRef


@dataclass(frozen=True, slots=True)
class KeySteps:
    """How the key gets where it must be."""

    steps: tuple[Step, ...]
    proven: bool
    """That the blocks hold the vault's key is known without asking the chip again."""
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that these steps burn keys into."""
        return tuple(step.block for step in self.steps if isinstance(step, BurnKey))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked of the blocks."""

    state: ChipState
    key: KeyRef | None
    intent: Intent | None
    digest: BootDigest | None
    """Goes into the other half of the same block (ESP32-C2)."""


@dataclass(slots=True)
class _Found:
    """What the parts come to, one after the other."""

    steps: list[Step] = field(default_factory=list)
    proven: bool = True
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    makes_key: bool = False


def key_steps(
    state: ChipState,
    key: KeyRef | None,
    intent: Intent | None,
    *,
    digests: Sequence[BootDigest] = (),
    digest: BootDigest | None = None,
) -> KeySteps:
    """The steps for the key alone; `problems` says why there are none that lead anywhere.

    Args:
        digests: of boot keys; a block that holds one is none of a flash key, whatever a torn burn left of its purpose.
        digest: what the same block is to hold beside the key, on a chip that has one block only.
    """
    holding = [
        block
        for block in flash_key_blocks(state)
        if not has_purposes(state.chip) or not any(holds(block, each, state.chip) for each in digests)
    ]
    parts = key_parts(state.chip)
    ours = {part.purpose for part in parts} if has_purposes(state.chip) else None
    foreign = [block for block in holding if ours is not None and block.purpose not in ours]
    if foreign:
        listed = ", ".join(f"{block.name} ({block.purpose})" for block in foreign)
        return _stuck(f"{listed} holds a flash key of another kind than {state.chip.cipher.value}")
    found = _Found()
    wanted = _Wanted(state, key, intent, digest)
    for part in parts:
        others = {other.id_in(key) for other in parts if other is not part} if key is not None else set()
        blocks = [
            block
            for block in holding
            # A burn that was torn may leave less of a purpose: what a block holds says more.
            if (ours is None or block.purpose == part.purpose)
            and (block.key_id is None or block.key_id not in others)
        ]
        if len(blocks) > 1:
            names = ", ".join(block.name for block in blocks)
            return _stuck(f"{names} all hold flash keys: which one the chip uses is not defined")
        problem = _go_on_with(wanted, part, blocks[0], found) if blocks else _burn_anew(wanted, part, found)
        if problem is not None:
            return _stuck(problem)
    making: list[Step] = [MakeKey()] if found.makes_key else []
    return KeySteps(
        (*making, *found.steps),
        found.proven,
        tuple(dict.fromkeys(found.problems)),
        tuple(dict.fromkeys(found.remarks)),
    )


def _go_on_with(wanted: _Wanted, part: KeyPart, block: KeyBlock, found: _Found) -> str | None:
    """`block` is marked as a flash key's (or, where there are no marks, is not blank)."""
    state, key, intent = wanted.state, wanted.key, wanted.intent
    begun = (
        intent is not None
        and block.name in intent.all_blocks
        and key is not None
        and intent.key_id == key.key_id
    )
    if block.readable:
        if block.empty and block.writeable and block.coding_errors == 0:
            # Somebody set the purpose and nothing else.
            _burn(wanted, part, block, found, goes_on=False)
            return None
        if key is not None and block.key_id == part.id_in(key) and block.coding_errors == 0:
            return _protect(wanted, block, found, proven=True)
        if begun and state.chip.fuses.key_purpose is None and block.writeable:
            # ESP32's blocks have no check bytes: a half-burned key takes its missing bits, and espefuse
            # refuses by itself if a bit is set that the key has not.
            _burn(wanted, part, block, found, goes_on=True)
            return None
        if begun and block.coding_errors:
            what = "has the purpose of a flash key" if has_purposes(state.chip) else "is the only one"
            return f"{block.name} was half burned and {what}: this board is sacrificed"
        return f"{block.name} holds a flash key that is not the vault's"
    if key is None:
        return (
            f"{block.name} holds a flash key that is not in the vault (the device made it, or another vault "
            "has it): ciphertext for this board cannot be made on the host"
        )
    return _protect(wanted, block, found, proven=begun)


def _protect(wanted: _Wanted, block: KeyBlock, found: _Found, *, proven: bool) -> str | None:
    """The key is in `block`; what of its protections is missing?"""
    state = wanted.state
    found.proven = found.proven and proven
    found.taken.append(block.name)
    problem = _no_digest_beside(wanted, block)
    if problem is not None:
        return problem
    purpose = has_purposes(state.chip) and block.purpose_writeable
    if not (block.readable or block.writeable or purpose):
        return None
    found.problems += _protection_problems(state, block, reading=block.readable)
    found.steps.append(
        ProtectKey(
            block.name, block.readable, block.writeable, purpose, "left open by a run that was cut off"
        )
    )
    return None


def _no_digest_beside(wanted: _Wanted, block: KeyBlock) -> str | None:
    """ESP32-C2: the block is burned; what is not in its other half by now never will be."""
    if wanted.digest is None:
        return None
    name = digest_block_name(wanted.state.chip)
    beside = wanted.state.block(str(name))
    if beside is not None and holds(beside, wanted.digest, wanted.state.chip):
        return None
    return (
        f"{block.name} holds the flash key, and its check bytes are burned with it: the digest of a boot key cannot be "
        "added; both have to be burned in one go"
    )


def _burn_anew(wanted: _Wanted, part: KeyPart, found: _Found) -> str | None:
    """No block has this part yet, or its purpose is not burned yet."""
    state, key, intent = wanted.state, wanted.key, wanted.intent
    before: list[Step] = []
    blocks = free_blocks(state, for_flash_key=True, taken=found.taken)
    given_up = False
    for block in blocks:
        beside = state.block(str(digest_block_name(state.chip))) if shares_one_block(state.chip) else None
        if block.unused and (beside is None or beside.unused):
            found.steps += before
            _burn(wanted, part, block, found, goes_on=False)
            return None
        if beside is not None and not beside.empty:
            return (
                f"{block.name} holds the digest of a boot key, and its check bytes are burned with it: a flash key "
                "cannot be added; both have to be burned in one go"
            )
        if (
            key is not None
            and block.readable
            and block.key_id is not None
            and block.key_id == part.id_in(key)
            and block.coding_errors == 0
        ):
            # The key is in, its purpose is not yet: burning it again sets what is missing.
            found.steps += before
            _burn(wanted, part, block, found, goes_on=True)
            return None
        if not block.readable or block.purpose not in (None, "USER"):
            continue
        if intent is not None and (block.name in intent.all_blocks or block.coding_errors):
            # Its check bytes cannot be completed: a block's code words are burned in one go or not at all.
            given_up = True
            found.remarks.append(f"{block.name} was half burned by an earlier run and is given up")
            found.taken.append(block.name)
            if state.fuses.get("RD_DIS") is not None and "RD_DIS" not in state.write_protected:
                before.append(
                    ProtectKey(block.name, True, block.writeable, False, "half a key must not stay readable")
                )
    taken = occupants(free_blocks(state, for_flash_key=True))
    if given_up:
        return f"no key block is left after a burn was cut off: {taken}; this board is sacrificed"
    many = "" if part.half is None else ", of which it takes two"
    return f"no key block is free for a flash key{many}: {taken}"


def _burn(wanted: _Wanted, part: KeyPart, block: KeyBlock, found: _Found, *, goes_on: bool) -> None:
    state = wanted.state
    fuses = state.chip.fuses
    # Even when nothing is in the chip yet: a vault that has no key makes one before the first burn.
    found.makes_key = found.makes_key or (wanted.key is None and not goes_on)
    found.taken.append(block.name)
    burn_as = block.name if has_purposes(state.chip) else fuses.key_block
    digest = wanted.digest
    found.steps.append(
        BurnKey(
            block.name,
            burn_as,
            part.purpose,
            goes_on,
            half=part.half,
            digest=digest.digest.hex() if digest is not None else None,
            digest_purpose=state.chip.secure_boot.digest_purposes[digest.slot]
            if digest is not None
            else None,
        )
    )
    # espefuse reads the block back before it protects it, so a burn that returns is its own proof.
    found.problems += _protection_problems(state, block, reading=True)


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


def _stuck(problem: str) -> KeySteps:
    return KeySteps((), False, (problem,))
