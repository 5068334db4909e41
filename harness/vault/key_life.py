"""What happens to a flash key after it was made: imported, proven, exported, handed over, forgotten.

Nothing here happens by itself, and a key that is a chip's is never replaced by another: it is in eFuses. Each function
changes one device's record in one step; killed in the middle it leaves the state before or after, and may be done again.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.chips import Chip
from harness.errors import HarnessError, LabError, RefusedError, UsageError
from harness.formats.flash_encryption import encrypt
from harness.vault.errors import NoKeyHereError, NoVaultError
from harness.vault.key_record import Challenge, KeyRecord
from harness.vault.key_ref import KeyState, key_id, part_ids, plain_mac
from harness.vault.record_file import FILE_MODE, now_utc, read_record, shredded_after, sync_folder
from harness.vault.vault import (
    FORMAT,
    HEAD_FILE,
    Vault,
    no_key_text,
    no_key_todo,
    require_chip,
    writing,
)

CHALLENGE_BYTES = 64
"""Two rows of ESP32's cipher: guessing them takes for ever."""

_CHALLENGE_SECTORS = range(0x10, 0x400)
"""Sectors that a challenge's address is taken from: all within 4 MiB, and never address 0, which a person forgets."""

_SECTOR_BYTES = 0x1000


# Import and proof


def import_key(vault: Vault, mac: str, chip: Chip, key: bytes) -> KeyRecord:
    """Stores a key that somebody burned elsewhere, as unproven; never in place of another.

    One that is here already stays as it is. One that was forgotten here comes back, if it is the same: then it is as
    proven as it was. In place of one that was forgotten and had never been proven, another may come.

    Raises:
        UsageError: its length is not that of the chip's cipher.
        RefusedError: another key of this device is, or was, here; or the device made its key itself.
    """
    mac = plain_mac(mac)
    size = chip.cipher.key_size_bytes
    if len(key) != size:
        raise UsageError(
            f"the key has {len(key)} bytes, {chip.title} ({chip.cipher.value}) takes {size}",
            todo="give the key file that was burned into this chip",
        )
    with writing(vault.path):
        record = vault.key_record(mac)
        if record is None:
            return vault.add_key(mac, chip, key, state=KeyState.UNPROVEN, made_by="imported")
        require_chip(record, chip)
        if record.state is KeyState.DEVICE_MADE:
            raise NoKeyHereError(no_key_text(record), todo=no_key_todo(record))
        if record.key_id != key_id(key):
            if record.state is KeyState.FORGOTTEN and not record.ever_proven:
                fresh = replace(record, key_id=key_id(key), part_ids=part_ids(key))
                fresh = fresh.changed(KeyState.UNPROVEN, now_utc(), f"imported, after {record.key_id}")
                vault.put_record(fresh, key)
                return fresh
            raise RefusedError(
                f"the vault knows key {record.key_id} of {mac} ({record.state.value}), the given one is {key_id(key)}: a "
                "key is never replaced. Nothing was changed",
                todo="find out which of the two is in the chip; another vault (HARNESS_VAULT) can hold the other"
                if record.ever_proven
                else f"if the one that is here is wrong: harness keys forget {mac} --lose-updates",
            )
        if record.state is not KeyState.FORGOTTEN:
            return record
        before = next(change.state for change in reversed(record.history) if change.state.has_key)
        back = record.changed(before, now_utc(), "brought back by import, the same key as before")
        vault.put_record(back, key)
        return back


def mark_proven(vault: Vault, mac: str, how: str) -> KeyRecord:
    """The chip has shown that the imported key is its own; `how`, in words. One that is proven stays as it is.

    Raises:
        NoVaultError, NoKeyHereError: there is no key.
    """
    record = record_with_key(vault, mac)
    if record.state is not KeyState.UNPROVEN:
        return record
    return vault.change_key(record.changed(KeyState.TEST_ONLY, now_utc(), f"proven: {how}"))


def discard_unproven(vault: Vault, mac: str) -> None:
    """The chip has shown that an imported key is not its own: nothing of it stays. One that is proven stays as it is."""
    with writing(vault.path):
        record = vault.key_record(mac)
        if record is None or record.state is not KeyState.UNPROVEN:
            return
        if len(record.history) > 1:
            # There was a record before the import: it goes back to that.
            vault.put_record(record.changed(KeyState.FORGOTTEN, now_utc(), "it is not the chip's key"), None)
            return
        file = vault.key_file(mac)
        with shredded_after(file):
            file.unlink()
            sync_folder(file.parent)


def note_device_made(vault: Vault, mac: str, chip: Chip) -> KeyRecord:
    """The device has made its key itself: a record says so, so that nobody makes or burns another one.

    Raises:
        RefusedError: the vault has a key of this device, or has had one.
    """
    mac = plain_mac(mac)
    with writing(vault.path):
        record = vault.key_record(mac)
        if record is not None:
            require_chip(record, chip)
            if record.state is not KeyState.DEVICE_MADE:
                raise RefusedError(
                    f"the vault knows key {record.key_id} of {mac} ({record.state.value}); the device cannot have made "
                    "another one",
                    todo="look at it: harness keys list",
                )
            return record
        at = now_utc()
        made = KeyRecord(mac, chip.name, "", KeyState.DEVICE_MADE, at, "the device", ())
        made = made.changed(KeyState.DEVICE_MADE, at, "made by the device at its first boot")
        vault.put_record(made, None)
        return made


def record_with_key(vault: Vault, mac: str) -> KeyRecord:
    """The record of `mac`, which holds a key.

    Raises:
        NoVaultError: there is no record. NoKeyHereError: it holds no key.
    """
    record = vault.key_record(mac)
    if record is None:
        raise NoVaultError(
            f"the vault {vault.path} has no key for {plain_mac(mac)}",
            todo="see what it has: harness keys list",
        )
    if not record.state.has_key:
        raise NoKeyHereError(no_key_text(record), todo=no_key_todo(record))
    return record


# Export


def export_key(vault: Vault, mac: str, file: Path) -> KeyRecord:
    """Writes the key to a new file, as espsecure's key files are, readable by its owner alone; the record notes it.

    Raises:
        UsageError: the file exists. LabError: it cannot be written. NoVaultError, NoKeyHereError: there is no key.
    """
    record = record_with_key(vault, mac)
    require_new(file)
    # Noted first: a copy that nobody knows of is worse than a note without one.
    noted = vault.change_key(
        record.changed(record.state, now_utc(), "exported to a file", challenge=record.challenge)
    )
    write_new_private(file, vault.stored_key(mac))
    return noted


def require_new(file: Path) -> None:
    """Raises:
    UsageError: there is something at `file` already.
    """
    if os.path.lexists(file):
        raise UsageError(f"{file} exists, and is not overwritten", todo="name a new file")


def write_new_private(file: Path, data: bytes) -> None:
    """A new file, mode 0600 from its first moment on, synced.

    Raises:
        UsageError: it exists. LabError: it cannot be written; nothing of it is left.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    except FileExistsError:
        require_new(file)
        raise
    except OSError as error:
        raise LabError(
            f"{file} cannot be written: {error.strerror}", todo="name a file in a folder of yours"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        sync_folder(file.absolute().parent)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise LabError(f"{file} cannot be written: {error.strerror}", todo="check the space there") from error


# Hand-over


def offer(vault: Vault, mac: str, receiver: str) -> KeyRecord:
    """Asks for an answer: from now on the record has a new challenge; one that was not answered is void.

    Raises:
        NoVaultError, NoKeyHereError: there is no key. RefusedError: it is unproven.
        UsageError: the name has control characters, which would break lines of history and of a letter.
    """
    if not receiver.isprintable():
        raise UsageError(
            "the receiver's name has control characters in it", todo="give a name that fits into a line"
        )
    record = record_with_key(vault, mac)
    if record.state is KeyState.UNPROVEN:
        raise RefusedError(
            f"the key {record.key_id} of {record.mac} is unproven: nothing shows that it is the one in the chip, so "
            "there is nothing to hand over yet",
            todo="prove it: harness keys import FILE --board NAME",
        )
    at = now_utc()
    challenge = Challenge(
        address=secrets.choice(_CHALLENGE_SECTORS) * _SECTOR_BYTES,
        block=secrets.token_bytes(CHALLENGE_BYTES),
        receiver=receiver,
        made=at,
    )
    whom = f" to {receiver}" if receiver else ""
    return vault.change_key(record.changed(record.state, at, f"offered{whom}", challenge=challenge))


def answer_to(chip: Chip, key: bytes, challenge: Challenge) -> bytes:
    """What a whole copy of the key makes of the challenge."""
    return encrypt(chip.cipher, key, challenge.address, challenge.block)


def hand_over(vault: Vault, mac: str, answer: bytes) -> KeyRecord:
    """The receiver's answer: if it is right, the key counts as handed over from now on.

    Raises:
        NoVaultError, NoKeyHereError: there is no key.
        UsageError: nothing was asked. RefusedError: the answer is wrong; says what it may be. Nothing was changed.
    """
    record = record_with_key(vault, mac)
    challenge = record.challenge
    if challenge is None:
        raise UsageError(
            f"no answer is awaited for {record.mac}",
            todo=f"begin with the copy for the receiver: harness keys hand-over {record.mac} --out DIR",
        )
    key = vault.stored_key(mac)
    if not hmac.compare_digest(answer, answer_to(record.chip, key, challenge)):
        raise RefusedError(
            f"the answer for {record.mac} is not what key {record.key_id} makes of the block: "
            f"{_why_wrong(record.chip, key, challenge, answer)}. The key stays {record.state.value}",
            todo="have the receiver check their copy (key id, length), the address and the block, and answer again",
        )
    whose = f"{challenge.receiver}'s" if challenge.receiver else "the receiver's"
    return vault.change_key(
        record.changed(
            KeyState.HANDED_OVER, now_utc(), f"{whose} copy enciphered a given block to the same bytes"
        )
    )


def _why_wrong(chip: Chip, key: bytes, challenge: Challenge, answer: bytes) -> str:
    if len(answer) != len(challenge.block):
        return f"it has {len(answer)} bytes, the block {len(challenge.block)}"
    if answer == challenge.block:
        return "it is the block itself, not enciphered"
    if answer == encrypt(chip.cipher, key, 0, challenge.block):
        return f"it was enciphered for address 0, not {challenge.address:#x}"
    return "it was enciphered with another key, or for another address"


# Forgetting


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was destroyed, and what was not."""

    record: KeyRecord
    copies: tuple[Path, ...]
    """Second copies in which the key was destroyed now, or had been before."""
    left: tuple[tuple[Path, str], ...]
    """Second copies that may still hold it, and why."""


def require_forgettable(vault: Vault, mac: str, *, lose_updates: bool) -> KeyRecord:
    """What speaks against forgetting the key of `mac`.

    Raises:
        NoVaultError: there is no record. NoKeyHereError: the device made its key itself.
        RefusedError: nobody else is known to have the key, or a run on the board is not finished; `lose_updates` says
            that this is wanted.
    """
    record = vault.key_record(mac)
    if record is None or record.state is KeyState.DEVICE_MADE:
        return record_with_key(vault, mac)
    if record.state is KeyState.FORGOTTEN or lose_updates:
        return record
    if record.state is not KeyState.HANDED_OVER:
        raise RefusedError(
            f"the key {record.key_id} of {record.mac} is {record.state.value}: nobody else is known to have it, and "
            "without it no encrypted update can ever be made for this device",
            todo=f"hand it over first: harness keys hand-over {record.mac} --out DIR; "
            "or, if that is what you want: --lose-updates",
        )
    if vault.intent(mac) is not None:
        raise RefusedError(
            f"a run on {record.mac} was cut off and needs the key to be finished",
            todo="finish it first (harness provision), or, if the board is given up: --lose-updates",
        )
    return record


def forget(vault: Vault, mac: str, *, lose_updates: bool = False) -> Forgotten:
    """Destroys the key of `mac` here and in every second copy within reach; a record without key stays in each.

    Doing it again goes on with copies that were out of reach.

    Raises:
        as `require_forgettable`; nothing was changed.
    """
    with writing(vault.path):
        record = require_forgettable(vault, mac, lose_updates=lose_updates)
        if record.state is not KeyState.FORGOTTEN:
            note = "on demand, after it was handed over"
            if record.state is not KeyState.HANDED_OVER:
                note = f"on demand (--lose-updates), while it was {record.state.value}"
            record = record.changed(KeyState.FORGOTTEN, now_utc(), note)
            vault.put_record(record, None)
    done: list[Path] = []
    left: list[tuple[Path, str]] = []
    for place in vault.copies():
        try:
            _forget_in_copy(vault, place, record)
        except HarnessError as error:
            left.append((place, error.message))
        else:
            done.append(place)
    return Forgotten(record, tuple(done), tuple(left))


def _forget_in_copy(vault: Vault, place: Path, record: KeyRecord) -> None:
    """Needs no secret of the copy: its records are enciphered with the vault's own key.

    Raises:
        LabError: it is not there. RefusedError: it is not a copy of this vault.
    """
    if not (place / HEAD_FILE).exists():
        raise LabError("it is not there (unplugged?)")
    head = read_record(place / HEAD_FILE, newest=FORMAT, what="the copy")
    if head.get("vault_id") != vault.vault_id:
        raise RefusedError("it is a copy of another vault")
    with writing(place):
        vault.at(place).put_record(record, None)


def due_notes(record: KeyRecord) -> Sequence[str]:
    """What a person should know about a key in this state, a line each; empty when nothing."""
    if record.state is KeyState.TEST_ONLY:
        return (f"key {record.key_id} is test-only: do not ship this device",)
    if record.state is KeyState.UNPROVEN:
        return (
            f"key {record.key_id} is unproven: nothing is enciphered with it before a proof; do not ship this device",
        )
    return (no_key_text(record),) if record.state is KeyState.FORGOTTEN else ()
