"""Whether a dead board that cannot say who it is may be written to as the one that a device record tells of. Pure.

In Secure Download Mode the ROM takes flash writes and tells neither MAC nor flash nor eFuses. What it still shows
(chip, encryption counter, key purposes, a few flags) is compared with the record; it can prove that the board is
another one, never that it is this one. That a person must say, by typing the MAC in full.

A mistake costs nothing that was not lost: ciphertext for one key is noise to every other, the board stays as dead as it
was. For plaintext that would not be so, and none is ever written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.errors import RefusedError
from harness.provision.chip_state import ChipState, Download, SecurityInfo
from harness.provision.device_record import DeviceRecord
from harness.provision.plan import Plan
from harness.provision.profile import Lock
from harness.provision.recognition import disagreements
from harness.provision.steps import WriteFlash, WriteRecord
from harness.vault.intent import Intent
from harness.vault.key_ref import KeyRef, plain_mac

NOT_VERIFIED = (
    "not verified over UART: the ROM reads nothing back; the proof is the boot and the device's own hash"
)


@dataclass(frozen=True, slots=True)
class SecurityFlag:
    """One bit of GET_SECURITY_INFO's flags (esptool's SECURITY_INFO_FLAG_MAP), and the eFuse that it shows."""

    bit: int
    fuses: tuple[str, ...]
    """By chip it is one of these; a chip that has none of them shows nothing in this bit."""


SECURITY_FLAGS = (
    SecurityFlag(0, ("SECURE_BOOT_EN",)),
    SecurityFlag(1, ("SECURE_BOOT_AGGRESSIVE_REVOKE",)),
    # Bit 2 is Secure Download Mode itself, without which nobody asks here.
    SecurityFlag(3, ("SECURE_BOOT_KEY_REVOKE0",)),
    SecurityFlag(4, ("SECURE_BOOT_KEY_REVOKE1",)),
    SecurityFlag(5, ("SECURE_BOOT_KEY_REVOKE2",)),
    SecurityFlag(6, ("SOFT_DIS_JTAG",)),
    SecurityFlag(7, ("DIS_PAD_JTAG", "HARD_DIS_JTAG")),
    SecurityFlag(8, ("DIS_USB",)),
    SecurityFlag(9, ("DIS_DOWNLOAD_DCACHE",)),
    SecurityFlag(10, ("DIS_DOWNLOAD_ICACHE",)),
)


def require_rescuable(
    state: ChipState,
    record: DeviceRecord,
    key: KeyRef | None,
    *,
    intent: Intent | None = None,
    board: str | None = None,
) -> None:
    """That nothing which the chip, its record and the vault tell speaks against taking the chip for `record`'s.

    Args:
        state: what the ROM told.
        record: of the device that a person says this is.
        key: the vault's key of that device.
        intent: what an earlier run began on that device and did not finish.
        board: name for the error.

    Raises:
        RefusedError: lists everything that speaks against it; or this board needs no rescue, or none helps.
    """
    _require_locked_rom(state, record, board)
    problems = [*_record_problems(state, record, intent), *_key_problems(record, key)]
    if state.security_info is None:
        problems.append("the ROM gave no security information to compare")
    else:
        problems += differences(state, state.security_info, record)
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in dict.fromkeys(problems))
        raise RefusedError(
            f"this is not taken for {record.mac}:{listed}\nNothing was written",
            board=board,
            todo="see which board is connected and which record is its own; the vault must be the one with its key",
        )


def _require_locked_rom(state: ChipState, record: DeviceRecord, board: str | None) -> None:
    """Only a board that cannot be identified in another way is written to on a person's word."""
    fuses = state.chip.fuses
    if state.download is Download.OFF:
        raise RefusedError(
            f"{fuses.download_off} is burned: nothing but its firmware can write to it, and nothing can rescue it",
            board=board,
            todo="if its firmware still runs, update it over the air",
        )
    if state.download is Download.OPEN:
        told = f"it tells its MAC ({state.mac})" if state.mac is not None else "it can be read"
        whose = "" if state.mac in (None, record.mac) else f", which is not {record.mac}"
        raise RefusedError(
            f"its ROM is not locked, {told}{whose}: it is identified by itself and needs no rescue. "
            "Nothing was written",
            board=board,
            todo="use `harness provision --reflash`, or `harness restore` for what was in its flash before",
        )


def _record_problems(state: ChipState, record: DeviceRecord, intent: Intent | None) -> list[str]:
    problems = []
    if record.chip_name != state.chip_name:
        problems.append(f"the record is that of an {record.chip_name}, this is an {state.chip_name}")
    if not record.profile.encrypts:
        problems.append(f"the record says {record.profile.value}: there is no ciphertext for it")
    # Killed right after the lock was burned, a run leaves a record without it, and an intent with it.
    locks = {record.lock} | ({Lock(intent.lock)} if intent is not None else set())
    if Lock.SECURE_DOWNLOAD not in locks:
        problems.append(f"the record says lock {record.lock.value}, this board is in Secure Download Mode")
    return problems


def _key_problems(record: DeviceRecord, key: KeyRef | None) -> list[str]:
    if key is None:
        return [f"the vault has no key of {record.mac}"]
    problems = []
    if key.chip_name != record.chip_name:
        problems.append(f"the vault's key of {record.mac} is one for an {key.chip_name}")
    if record.key_id != key.key_id:
        problems.append(f"the record tells of key {record.key_id}, the vault has {key.key_id}")
    return problems


def differences(state: ChipState, info: SecurityInfo, record: DeviceRecord) -> tuple[str, ...]:
    """How what the ROM shows of the chip differs from the fuses in `record`, in words; empty when it does not."""
    counter = state.chip.fuses.counter
    found = list(disagreements(state, record.profile, record.mac, fuses=record.fuses))
    if counter not in record.fuses:
        found.append(f"the record does not tell what {counter} is: there is too little to compare")
    elif info.crypt_count != record.fuses[counter]:
        found.append(f"{counter} is {info.crypt_count:#x}, in the record {record.fuses[counter]:#x}")
    found += _purpose_differences(info, record.fuses)
    found += _flag_differences(info, record.fuses)
    return tuple(found)


def _purpose_differences(info: SecurityInfo, fuses: Mapping[str, int]) -> list[str]:
    found = []
    for number, purpose in enumerate(info.key_purposes):
        name = f"KEY_PURPOSE_{number}"
        if name in fuses and fuses[name] != purpose:
            found.append(f"{name} is {purpose}, in the record {fuses[name]}")
    return found


def _flag_differences(info: SecurityInfo, fuses: Mapping[str, int]) -> list[str]:
    found = []
    for flag in SECURITY_FLAGS:
        name = next((fuse for fuse in flag.fuses if fuse in fuses), None)
        if name is None:
            continue
        # Of a fuse with several bits (SOFT_DIS_JTAG) an odd number of ones counts.
        recorded, shown = bin(fuses[name]).count("1") % 2, info.flags >> flag.bit & 1
        if recorded != shown:
            words = ("not set", "set")
            found.append(f"{name} is {words[shown]}, in the record {words[recorded]}")
    return found


def require_typed(typed: str, record: DeviceRecord, *, board: str | None = None) -> None:
    """That a person has named the device in full.

    Raises:
        RefusedError: what was typed is not the record's MAC.
    """
    if plain_mac(typed) != record.mac:
        raise RefusedError(
            f"the MAC that was typed is {plain_mac(typed)}, the record is that of {record.mac}. Nothing was written",
            board=board,
            todo="read the MAC off the board's label, and type it in full",
        )


def only_ciphertext(plan: Plan) -> Plan:
    """`plan`, which writes behind a lock, as a rescue: without what the chip keeps as plaintext, and without its end.

    The device record is written when the board has proven to be the one that it is taken for.
    """
    plain = [step for step in plan.writes if not step.enciphered]
    left_out = tuple(f"{step.name} at " for step in plain)
    remarks = [remark for remark in plan.remarks if "not verified over UART" not in remark]
    remarks += [
        NOT_VERIFIED,
        "the device record is written when the firmware has said that it is this device",
    ]
    remarks += [f"{step.name} is left as it is: the chip keeps it as plaintext" for step in plain]
    return replace(
        plan,
        steps=tuple(
            step
            for step in plan.steps
            if not isinstance(step, WriteRecord) and not (isinstance(step, WriteFlash) and step in plain)
        ),
        remarks=tuple(remarks),
        flash=tuple(line for line in plan.flash if not line.startswith(left_out)) if plain else plan.flash,
    )
