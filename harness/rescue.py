"""Brings a board back that is dead behind Secure Download Mode: ciphertext over the UART, on a person's word.

Such a board tells nobody who it is, neither its ROM nor, since it does not run, its firmware. A person names its device
record and types its MAC; everything that the chip still shows must agree (`harness.provision.rescue`). Whether it was
that device shows when it boots: with another one's ciphertext it cannot.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from harness.board import Board, Running
from harness.errors import BoardError, RefusedError
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.home import Home
from harness.preparation import (
    Consent,
    Demand,
    Planned,
    ask_rom,
    carry_out_plan,
    keep_plan,
    make_plan,
)
from harness.provision.chip_state import ChipState
from harness.provision.device_record import DeviceRecord
from harness.provision.profile import Lock
from harness.provision.region import FlashRegion
from harness.provision.rescue import only_ciphertext, require_rescuable, require_typed
from harness.say import Say
from harness.vault.intent import Intent
from harness.vault.key_ref import plain_mac
from harness.vault.record_file import now_utc


@dataclass(frozen=True, slots=True)
class Patient:
    """A dead board, and the device that a person says it is."""

    record: DeviceRecord
    state: ChipState
    intent: Intent | None
    """What an earlier run began on that device and did not finish."""
    last_words: str
    """What its firmware came to when it was asked, for a person."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """A board that runs again, and what proves that it got what was written."""

    record: DeviceRecord
    running: Running | None
    """None: its app says nothing of itself but its log."""
    boot: str
    """Its boot, in one line."""
    app_sha256: str | None
    """Of the app's ciphertext as the firmware hashed it in its flash, equal to what was written; None as `running`."""


def examine(board: Board, mac: str, *, say: Say) -> Patient:
    """Reads a dead board and compares it with the record of `mac`. Writes nothing.

    Raises:
        RefusedError: there is no such record or key, something speaks against it, or the board needs no rescue.
        BoardError: neither the ROM nor the firmware answers.
    """
    mac = plain_mac(mac)
    record = _record_of(board, mac)
    _require_same_name(board, mac)
    board.choose_vault(record.profile)
    key, intent = board.vault.key(mac), board.vault.intent(mac)
    if key is not None:
        # That it opens is seen now, not when half of the flash is written.
        board.vault.flash_key(mac)
    with say.phase("read", lambda: board.uart_bytes):
        state = ask_rom(board)
        require_rescuable(state, record, key, intent=intent, board=board.name)
        last_words = _require_dead(board, mac)
    return Patient(record, state, intent, last_words)


def _record_of(board: Board, mac: str) -> DeviceRecord:
    record = board.records.read(mac)
    if record is not None:
        return record
    same = [each.mac for each in board.records.all() if each.chip_name == board.chip.name]
    raise RefusedError(
        f"there is no device record of {mac}. Nothing was written",
        board=board.name,
        todo=f"records of an {board.chip.title} that are here: {', '.join(same) or 'none'}; "
        "the record and the key are where the board was provisioned",
    )


def _require_same_name(board: Board, mac: str) -> None:
    """Its entry, or its link, may know who it is."""
    declared, linked = board.identity.declared, getattr(board.link, "mac", None)
    if declared is not None and declared != mac:
        raise RefusedError(
            f"boards.yaml says that this is {declared}, not {mac}. Nothing was written",
            board=board.name,
            todo="name the board that is meant, or correct its entry",
        )
    if linked is not None and (board.link.physical or plain_mac(linked) != mac):
        said = plain_mac(linked)
        raise RefusedError(
            f"its {'own USB' if board.link.physical else 'state folder'} says that it is {said}: it is identified by "
            "that and not on anybody's word. Nothing was written",
            board=board.name,
            todo="use `harness provision --reflash`" if said == mac else f"name its own record: --as {said}",
        )


def _require_dead(board: Board, mac: str) -> str:
    """A board whose firmware can say who it is needs nobody's word; gives what became of it otherwise."""
    try:
        board.restart()
        told = board.status().mac
    except BoardError as error:
        last = board.boots[-1].summary() if board.boots else "it printed nothing"
        board.console.note(f"its firmware does not say who it is: {error.message}")
        return last
    whose = "" if told == mac else f", which is not {mac}"
    raise RefusedError(
        f"its firmware runs and says that this is {told}{whose}: it needs no rescue. Nothing was written",
        board=board.name,
        todo="update it over the air, or use `harness provision --reflash`",
    )


def plan_rescue(board: Board, patient: Patient, demand: Demand, home: Home, *, say: Say) -> Planned:
    """What would be written: bootloader, table, otadata and app, as ciphertext for the record's key and nothing else.

    Args:
        demand: which firmware; profile and lock are the record's.

    Raises:
        RefusedError, UsageError: as `make_plan`.
    """
    wanted = replace(demand, profile=patient.record.profile, lock=Lock.SECURE_DOWNLOAD)
    board.mac = patient.record.mac
    planned = make_plan(board, wanted, home, say=say, reflash=True, state=patient.state)
    plan = only_ciphertext(planned.plan)
    keep_plan(board, plan)
    return replace(planned, plan=plan)


def carry_out_rescue(
    board: Board,
    patient: Patient,
    planned: Planned,
    typed_mac: str,
    consent: Consent,
    home: Home,
    *,
    say: Say,
) -> Rescued:
    """Writes what was planned, boots it, and has it say who it is.

    Args:
        typed_mac: what a person has typed as the board's MAC.

    Raises:
        RefusedError: another MAC was typed, or the firmware burns eFuses and consent to that is missing.
        BoardError: it does not boot, is another device, or does not hold what was written. The intent stays, so the
            next run knows that its flash may hold anything.
    """
    record = patient.record
    require_typed(typed_mac, record, board=board.name)
    board.identity.vouched_for(record.mac)
    board.console.note(f"rescue: a person says that this is {record.mac}")
    # What was typed stands for the 'mac:' of an entry that has none.
    named = replace(consent, entry=consent.entry.model_copy(update={"mac": record.mac}))
    carry_out_plan(board, planned, named, home, say=say)
    with say.phase("first boot", lambda: board.uart_bytes):
        boot, running = _first_boot(board, patient)
        digest = _proven_app(board, planned, running) if running is not None else None
        board.profile, board.lock = record.profile, planned.plan.lock
        board.settle()
    done = _noted(board, patient, planned)
    return Rescued(done, running, boot, digest)


def _first_boot(board: Board, patient: Patient) -> tuple[str, Running | None]:
    record = patient.record
    try:
        boot = board.restart().summary()
        running = board.status() if board.speaks else None
    except BoardError as error:
        raise BoardError(
            f"was written as {record.mac}, and its firmware does not come up: {error.message}",
            board=board.name,
            todo="to any other chip this ciphertext is noise: see whether it is that board. "
            f"If it is, run it again; read the end of {board.log_path}",
        ) from error
    if running is not None and running.mac != record.mac:
        _tell_other(board, patient, running.mac)
    return boot, running


def _tell_other(board: Board, patient: Patient, told: str) -> None:
    """Another device booted this ciphertext: two chips have one key, and the wrong one was written to."""
    record = patient.record
    message = (
        f"CIPHERTEXT OF ANOTHER DEVICE WAS WRITTEN: the firmware says that this is {told}, not {record.mac}. "
        "That it boots means that both chips have the same flash key"
    )
    board.console.note(f"rescue: {message}")
    # Nothing was done to the device that was meant; what lies in the flash of this one is not what its record says.
    if patient.intent is None:
        board.vault.clear_intent(record.mac)
    else:
        board.vault.note_intent(record.mac, patient.intent)
    other = board.records.read(told)
    if other is not None:
        board.records.write(replace(other, flashed={}, plan_id="", updated=now_utc()))
    raise BoardError(
        message,
        board=board.name,
        todo=f"put {told} on this board's label and entry, and find out why its key is not its own",
    )


def _proven_app(board: Board, planned: Planned, running: Running) -> str:
    """The hash that the firmware makes of its own slot must be that of the ciphertext which was written there."""
    region = next(each for each in planned.regions if each.offset == running.offset)
    data = _in_flash(board, region)
    wanted = hashlib.sha256(data).hexdigest()
    found = board.slot_digest(running.slot, size_bytes=len(data))
    if found != wanted:
        raise BoardError(
            f"boots, but {running.slot} does not hold what was written: the firmware hashes it to {found[:16]}…, not "
            f"{wanted[:16]}…",
            board=board.name,
            todo="run it again; if it stays so, the flash chip or its wiring is at fault",
        )
    return found


def _in_flash(board: Board, region: FlashRegion) -> bytes:
    assert board.mac is not None
    key = board.vault.flash_key(board.mac)
    return encrypt(board.chip.cipher, key, region.offset, pad_to_block(region.data))


def _noted(board: Board, patient: Patient, planned: Planned) -> DeviceRecord:
    """The record and the end of the intent: only now is it proven whose flash was written."""
    plan = planned.plan
    written = {step.name: step.sha256 for step in plan.writes}
    record = replace(
        patient.record,
        lock=plan.lock,
        flashed={**patient.record.flashed, **written},
        plan_id=plan.id,
        updated=now_utc(),
    )
    board.records.write(record)
    board.vault.clear_intent(record.mac)
    return record
