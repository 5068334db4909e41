"""Counter, fuses of a profile and their write protection: what turns flash encryption on and how far. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.provision.chip_state import ChipState
from harness.provision.key_blocks import sharing_protection, write_disable_bit
from harness.provision.obstacles import lock_fuse
from harness.provision.profile import Lock, Profile
from harness.provision.recognition import lock_of
from harness.provision.steps import BurnFuses, LockDownload, Step, WriteProtect


@dataclass(frozen=True, slots=True)
class EncryptionSteps:
    """What is burned behind the key, in two groups, so that a planner can put something between them."""

    burns: tuple[Step, ...] = ()
    guard: tuple[Step, ...] = ()
    """The write protection that ESP-IDF's release check wants; it freezes other fuses, too."""
    problems: tuple[str, ...] = ()


def config_steps(state: ChipState) -> tuple[Step, ...]:
    """Fuses without which the chip would use the key differently."""
    wanted = tuple(
        (fuse, value) for fuse, value in state.chip.fuses.key_config if state.fuses.get(fuse, 0) != value
    )
    return (BurnFuses(wanted, "how the key is used"),) if wanted else ()


def encryption_steps(state: ChipState, profile: Profile) -> EncryptionSteps:
    """Counter, fuses of release, write protection; and what of it is frozen."""
    fuses = state.chip.fuses
    steps: list[Step] = []
    problems = [
        f"{name} is write-protected ({write_disable_bit(state, name)})"
        for name, value in fuses.key_config
        if state.fuses.get(name, 0) != value and name in state.write_protected
    ]

    def burn(values: tuple[tuple[str, int], ...], why: str) -> None:
        frozen = [name for name, _ in values if name in state.write_protected]
        problems.extend(f"{name} is write-protected ({write_disable_bit(state, name)})" for name in frozen)
        if values:
            steps.append(BurnFuses(values, why))

    count = state.crypt_count
    if profile.encryption is Profile.DEVELOPMENT:
        if not state.encrypted:
            raised = count | (count + 1)  # the lowest bit that is still 0
            if raised == fuses.counter_release:
                problems.append(
                    f"{fuses.counter} is {count:#x}: its next bit would make encryption permanent"
                )
            burn(((fuses.counter, raised),), "flash encryption on")
    elif not state.permanent:
        burn(((fuses.counter, fuses.counter_release),), "flash encryption on, for good")
    if profile.encryption is Profile.CIPHERTEXT_ONLY and state.manual_encryption:
        burn(((fuses.manual_encrypt_disable, 1),), "the ROM enciphers no more")
    guards: tuple[Step, ...] = ()
    if profile.encryption is Profile.RELEASE:
        burn(tuple((fuse, 1) for fuse in fuses.release if not state.is_set(fuse)), "release mode")
        guard = fuses.release_write_protect
        if guard is not None and guard not in state.write_protected:
            if "WR_DIS" in state.write_protected:
                problems.append(f"WR_DIS is write-protected: {guard} cannot be frozen")
            guards = (WriteProtect(guard, sharing_protection(state.chip, guard)),)
    return EncryptionSteps(tuple(steps), guards, tuple(problems))


def lock_steps(state: ChipState, lock: Lock) -> tuple[tuple[Step, ...], tuple[str, ...]]:
    """The last burn, and why it cannot be done."""
    if lock_of(state).distance >= lock.distance:
        return (), ()
    fuse = lock_fuse(state, lock)
    problems: tuple[str, ...] = ()
    if fuse in state.write_protected:
        problems = (
            f"{fuse} is write-protected ({write_disable_bit(state, fuse)}): lock {lock.value} is out of reach",
        )
    return (LockDownload(lock, fuse, final=lock is Lock.DOWNLOAD_OFF),), problems
