"""A flash key that somebody burned elsewhere: into the vault, and proven by the very board it is said to be in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.board import Board
from harness.chips import Chip
from harness.errors import BoardError, RefusedError
from harness.ota.key_proof import proof_by_firmware
from harness.ota.release import signer
from harness.preparation import identify
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.key_blocks import flash_key_blocks
from harness.provision.key_proof import can_read_flash, proof_by_bootloader, proof_by_key_block
from harness.provision.profile import Profile
from harness.provision.recognition import lock_of, profile_of
from harness.say import Say
from harness.vault.key_life import discard_unproven, import_key, mark_proven
from harness.vault.key_proof import KeyProof, ProofResult
from harness.vault.key_record import KeyRecord
from harness.vault.key_ref import KeyState
from harness.vault.record_file import now_utc
from harness.vault.vault import Vault


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a key."""

    record: KeyRecord
    proof: KeyProof | None
    """None: nothing had to be shown, or was asked for."""
    was_here: bool
    """The vault had it already."""


def import_and_prove(board: Board, key: bytes, *, say: Say, prove: bool = True) -> Imported:
    """Stores `key` for `board` as unproven, then lets the board show that it is its own.

    Where flash cannot be read, its firmware is sent one sector: the slot that does not run is lost.

    Raises:
        UsageError: the key's length is not that of the chip.
        RefusedError: the board has no flash key, or another one; the vault has another one for it; the board is not
            identified. Nothing of `key` stays in the vault.
        BoardError, LabError: the board does not answer.
    """
    say.step(f"{board.name}: asking who it is")
    state = identify(board)
    mac = board.mac
    assert mac is not None
    board.identity.require()
    if state.download is Download.OPEN and not state.encrypted and not flash_key_blocks(state):
        raise RefusedError(
            f"no flash key is burned into {board.chip.title} {mac}: there is nothing to import a key for",
            board=board.name,
            todo="to have this key burned, name it in the board's entry: flash_key: {file: FILE}",
        )
    done = import_unproven(board.vault, board.records, mac, board.chip, key)
    record, was_here = done.record, done.was_here
    if record.state is not KeyState.UNPROVEN:
        return done
    proof, status = _proof(board, state, key, say) if prove else (None, None)
    if proof is not None and proof.result is ProofResult.WRONG:
        discard_unproven(board.vault, mac)
        raise RefusedError(
            f"this is not the key of {board.chip.title} {mac}: {proof.how}. It was not kept",
            board=board.name,
            todo="give the key that was burned into this very chip",
        )
    if proof is not None and proof.result is ProofResult.PROVEN:
        record = mark_proven(board.vault, mac, proof.how)
        _note_device(board, state, status, record)
    return Imported(record, proof, was_here)


def import_unproven(vault: Vault, records: DeviceRecords, mac: str, chip: Chip, key: bytes) -> Imported:
    """Stores `key` for `mac`, and asks no board; one that is here already, and proven, stays proven.

    Raises:
        UsageError: the key's length is not that of the chip. RefusedError: the vault has another one for it.
    """
    before = vault.key_record(mac)
    record = import_key(vault, mac, chip, key)
    if record.state is not KeyState.UNPROVEN:
        records.note_key(record)
    return Imported(record, None, before is not None and before.state is not KeyState.FORGOTTEN)


def _proof(board: Board, state: ChipState, key: bytes, say: Say) -> tuple[KeyProof, Mapping[str, Any] | None]:
    """The proof, and what the firmware says of the device where it was asked."""
    by_block = proof_by_key_block(state, key)
    if by_block is not None:
        return by_block, None
    if can_read_flash(state):
        say.step("reading the bootloader, raw, to decipher it with the key")
        with board.rom(writes_flash=False) as session:
            return proof_by_bootloader(session, board.chip, key), None
    if state.download is Download.OPEN:
        how = (
            "encryption is not on yet, and the key cannot be read; a plan for this board lets the chip encipher a canary "
            "before anything depends on the key"
        )
        return KeyProof(ProofResult.OPEN, how), None
    say.step("flash cannot be read: asking its firmware to decipher one sector in the slot that does not run")
    assert board.mac is not None
    try:
        board.restart()
        status = board.status().fields
        sign = signer(board.vault.signing_key())
        return proof_by_firmware(board, board.chip, board.mac, key, status, sign), status
    except BoardError as error:
        return KeyProof(ProofResult.OPEN, f"its firmware does not help: {error.message}"), None


def _note_device(board: Board, state: ChipState, status: Mapping[str, Any] | None, key: KeyRecord) -> None:
    """What is known of a board that came with its key: behind its lock only a record will tell."""
    known = board.records.read(key.mac)
    if known is not None:
        board.records.write(replace(known, key_id=key.key_id, key_state=key.state.value, updated=now_utc()))
        return
    profile = profile_of(state).profile if status is None else _profile_told(status)
    if profile is None or not profile.encrypts:
        return
    blocks = flash_key_blocks(state)
    board.records.write(
        DeviceRecord(
            mac=key.mac,
            chip_name=key.chip_name,
            profile=profile,
            lock=lock_of(state),
            key_id=key.key_id,
            key_state=key.state.value,
            key_block=blocks[0].name if blocks else None,
            fuses=state.fuses,
            flashed={},
            plan_id="",
            updated=now_utc(),
        )
    )


def _profile_told(status: Mapping[str, Any]) -> Profile | None:
    """By the firmware's own judgement of the eFuses."""
    modes = {"development": Profile.DEVELOPMENT, "release": Profile.RELEASE}
    mode = modes.get(str(status.get("fe")))
    return None if mode is None else Profile.of(mode, secure_boot=bool(status.get("sb")))
