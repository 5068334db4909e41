"""What keeps a chip from a profile: what it is, and what is burned already. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from harness.chips import Cipher
from harness.errors import RefusedError
from harness.provision.chip_state import ChipState
from harness.provision.key_blocks import flash_key_blocks
from harness.provision.profile import Lock, Profile
from harness.provision.recognition import lock_of, missing_for_release
from harness.provision.secure_boot_state import secure_boot_fuses, secure_boot_is_on


def chip_problems(state: ChipState) -> list[str]:
    """What no burn can change: revision, coding scheme, the length of the key."""
    chip = state.chip
    problems = []
    if state.revision is not None and state.revision < chip.min_chip_rev_full:
        found, wanted = (f"v{rev // 100}.{rev % 100}" for rev in (state.revision, chip.min_chip_rev_full))
        problems.append(f"chip revision {found} is too old, {wanted} is needed")
    scheme = state.fuses.get("CODING_SCHEME", 0)
    if scheme not in (0, 3):
        name = {1: "3/4", 2: "repeat"}.get(scheme, str(scheme))
        problems.append(f"CODING_SCHEME is {name}: keys of 256 bits do not fit this chip's blocks")
    if chip.cipher is Cipher.XTS_AES_128_DERIVED and state.is_set("XTS_KEY_LENGTH_256"):
        problems.append(
            "XTS_KEY_LENGTH_256 is set: the chip takes a key of 256 bits, which leaves no room for a digest"
        )
    return problems


def direction_problems(state: ChipState, profile: Profile, lock: Lock) -> list[str]:
    """What is burned already that `profile` and `lock` do not have: no way leads back."""
    fuses = state.chip.fuses
    problems = []
    here = lock_of(state)
    if here.distance > lock.distance:
        problems.append(f"{lock_fuse(state, here)} is burned: lock {lock.value} is out of reach")
    if profile.encryption is Profile.OPEN:
        if state.crypt_count:
            problems.append(f"{fuses.counter} is {state.crypt_count:#x}: this chip has been encrypted")
        problems += [f"{block.name} holds a flash key" for block in flash_key_blocks(state)]
    if profile.encryption is Profile.DEVELOPMENT:
        if state.permanent:
            problems.append(f"{fuses.counter} is {state.crypt_count:#x}: encryption is permanent")
        if not state.manual_encryption:
            problems.append(f"{fuses.manual_encrypt_disable} is burned: the ROM no longer enciphers")
    if profile.encryption is Profile.CIPHERTEXT_ONLY and state.encrypted and not missing_for_release(state):
        problems.append(f"{', '.join(fuses.release)} are burned: this is release, and goes further")
    if profile.encrypts:
        problems += [
            f"{fuse} is read-protected and cannot be checked"
            for fuse, _ in fuses.key_config
            if fuse in state.hidden
        ]
    return problems + _secure_boot_direction(state, profile)


def _secure_boot_direction(state: ChipState, profile: Profile) -> list[str]:
    if not profile.secure_boot:
        return [f"{fuse} is set: secure boot is on, and stays on" for fuse in secure_boot_fuses(state)]
    if state.is_set("ABS_DONE_0") and not secure_boot_is_on(state):
        return ["ABS_DONE_0 is set: secure boot v1 is on, which this project does not handle"]
    return []


def lock_fuse(state: ChipState, lock: Lock) -> str:
    """The fuse that makes `lock`."""
    fuses = state.chip.fuses
    return fuses.download_off if lock is Lock.DOWNLOAD_OFF else str(fuses.secure_download)


def refuse(problems: Sequence[str], state: ChipState, profile: Profile) -> None:
    """Raises:
    RefusedError: there are problems; lists every one.
    """
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in dict.fromkeys(problems))
        raise RefusedError(
            f"{state.chip.title} {state.mac} cannot become {profile.value}:{listed}",
            board=state.mac,
            todo="use another board for this profile; burned fuses stay burned",
        )
