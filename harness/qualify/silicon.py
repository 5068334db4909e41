"""Which silicon this is, and what its ROM still tells: read before the first case, and never in an observation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from harness.board import Board
from harness.errors import BoardError, HarnessError
from harness.inventory.entry import AnyEntry
from harness.preparation import ask_rom
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord
from harness.provision.recognition import profile_of
from harness.provision.secure_boot_state import secure_boot_is_on

READ_FROM_CHIP = "read from the chip"
TOLD_BY_LINK = "by its link"
"""A virtual board's link knows whose state it has."""


@dataclass(frozen=True, slots=True)
class Silicon:
    """The chip, as far as it was told. Nothing in it is secret."""

    chip: str
    mac: str | None
    identity: str
    """How it is known that it is this one."""
    revision: str | None = None
    profile: str | None = None
    """Encryption's part of the profile, as eFuses or security info show it; None: not read."""
    profile_by: str = ""
    secure_boot: bool | None = None
    lock: str | None = None
    fuses: dict[str, int] = field(default_factory=dict)
    fuses_by: str | None = None
    """Where the snapshot of the eFuses is from: read now, or the device record of the day it was locked."""
    security_info: dict[str, Any] | None = None
    rom_answered: bool = False
    is_open: bool = False
    """The ROM still reads flash for whoever asks."""
    not_read: str | None = None
    """Why the ROM was not asked, or what it does not tell any more."""


def observed(board: Board, entry: AnyEntry) -> Silicon:
    """What is known without asking the ROM anything: an observation, or a unit that must not be reset by its lines."""
    mac = entry.mac or getattr(board.link, "mac", None)
    how = (
        "as declared in boards.yaml, not read from the chip"
        if entry.mac
        else TOLD_BY_LINK
        if mac
        else "unknown"
    )
    board.mac = str(mac).lower() if mac else None
    record = record_of(board)
    return Silicon(
        board.chip.name,
        board.mac,
        how,
        fuses=dict(record.fuses) if record else {},
        fuses_by=_of_record(record),
        lock=record.lock.value if record else None,
        not_read="eFuses and ROM were not touched",
    )


def read_silicon(board: Board, entry: AnyEntry) -> Silicon:
    """Asks the ROM for eFuses or, where it is locked, for its security info; nothing is written.

    Raises:
        BoardError: it answers as another device than its entry says. LabError: the link is gone.
    """
    try:
        state = ask_rom(board)
    except BoardError as error:
        known = observed(board, entry)
        return Silicon(
            known.chip,
            known.mac,
            known.identity,
            fuses=known.fuses,
            fuses_by=known.fuses_by,
            lock=known.lock,
            not_read=f"the ROM does not answer: {error.message.splitlines()[0]}",
        )
    return _of_state(board, entry, state)


def _of_state(board: Board, entry: AnyEntry, state: ChipState) -> Silicon:
    mac, how = state.mac, READ_FROM_CHIP
    if mac is None:
        told = getattr(board.link, "mac", None)
        mac = str(told) if told else entry.mac
        how = (
            TOLD_BY_LINK
            if told
            else "as declared in boards.yaml: a locked ROM does not tell it"
            if mac
            else "unknown: a locked ROM does not tell it"
        )
    board.mac = mac = mac.lower() if mac else None
    record = record_of(board)
    info = state.security_info
    is_open = state.download is Download.OPEN
    found = profile_of(state, record)
    profile, by = None, ""
    if is_open:
        profile = found.profile.encryption.value if found.profile else "none of the known profiles"
        by = "eFuses: " + "; ".join(found.reasons)
    elif info is not None:
        names = state.chip.fuses
        if not state.encrypted:
            profile, by = "open", "the ROM's security info: flash encryption is off"
        elif info.crypt_count == names.counter_release:
            # Encryption that cannot be turned off, behind a lock: nothing plaintext can be written any more.
            profile, by = (
                "release",
                "the ROM's security info: the encryption counter is full, and download is locked",
            )
        elif found.profile is not None:
            profile, by = found.profile.encryption.value, "; ".join(found.reasons)
    return Silicon(
        board.chip.name,
        mac,
        how,
        revision=f"v{state.revision // 100}.{state.revision % 100}" if state.revision is not None else None,
        profile=profile,
        profile_by=by,
        secure_boot=info.secure_boot if info is not None else secure_boot_is_on(state) if is_open else None,
        lock=found.lock.value,
        fuses=dict(state.fuses) if is_open else dict(record.fuses) if record else {},
        fuses_by="read from the chip in this qualification" if is_open else _of_record(record),
        security_info=None
        if info is None
        else {
            "flags": f"{info.flags:#x}",
            "crypt_count": info.crypt_count,
            "key_purposes": list(info.key_purposes),
            "secure_boot": info.secure_boot,
            "secure_download": info.secure_download,
        },
        rom_answered=True,
        is_open=is_open,
        not_read=None if is_open else "the ROM is locked: eFuses cannot be read any more",
    )


def record_of(board: Board) -> DeviceRecord | None:
    """The device record of `board`; None: there is none, or it cannot be read, which its log then says."""
    try:
        return board.records.read(board.mac) if board.mac else None
    except HarnessError as error:
        board.console.note(f"its device record cannot be read: {error.message}")
        return None


def _of_record(record: DeviceRecord | None) -> str | None:
    return f"its device record of {record.updated}, written when it was locked" if record else None
