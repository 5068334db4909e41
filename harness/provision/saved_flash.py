"""The flash of a board as it was before the harness first overwrote it: saved, and put back on demand.

One folder per MAC under ``saved-flash``; in it numbered manifests (``1.json``, ``2.json``, …) and the contents they
name. A manifest is written last, so a killed run leaves none and the next one reads the flash again. Contents may
hold what is nobody else's business (Wi-Fi passwords, device certificates): folders have mode 0700, files 0600.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from harness.chips import chip_named
from harness.errors import BoardError, LabError, RefusedError
from harness.provision.chip_state import ChipState, Download
from harness.provision.device_record import DeviceRecord
from harness.provision.secure_boot_state import secure_boot_fuses
from harness.provision.session import Session
from harness.vault.errors import DamagedError
from harness.vault.key_ref import plain_mac
from harness.vault.record_file import make_private_folder, now_utc, read_record, write_bytes, write_record

FORMAT = 1
"""Of the manifests that this code writes."""

FOLDER = "saved-flash"

BLOCK_BYTES = 1 << 16
"""Flash is looked at in blocks of 64 KiB: blank ones are not transferred, and equal ones not written again."""


class SizedSession(Session, Protocol):
    """A session that can also ask the flash chip for its size."""

    def flash_size_bytes(self) -> int:
        """Size by its JEDEC id."""


@dataclass(frozen=True, slots=True)
class SavedFlash:
    """One saved content and the chip it belongs to."""

    number: int
    mac: str
    chip_name: str
    size_bytes: int
    sha256: str
    encrypted: bool
    """Flash encryption was on: the content is ciphertext."""
    secure_boot: tuple[str, ...]
    """Fuses by which secure boot was on."""
    saved: str
    """UTC, ISO 8601."""
    restored: str | None = None
    """When it was last put back; None: never."""

    def text(self) -> str:
        """One line."""
        kind = "ciphertext" if self.encrypted else "plaintext"
        back = f", put back {self.restored}" if self.restored else ""
        size = f"{self.size_bytes / (1 << 20):g} MiB"
        return f"{self.number}: {size} {kind} of {self.saved}{back}, SHA-256 {self.sha256[:16]}…"

    def to_fields(self) -> dict[str, Any]:
        """For its manifest."""
        return {
            "format": FORMAT,
            "number": self.number,
            "mac": self.mac,
            "chip": self.chip_name,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
            "encrypted": self.encrypted,
            "secure_boot": list(self.secure_boot),
            "saved": self.saved,
            "restored": self.restored,
        }


class SavedFlashes:
    """The folder of saved contents of all boards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, mac: str) -> tuple[SavedFlash, ...]:
        """What was saved of the board `mac`, oldest first.

        Raises:
            NewerFormatError, DamagedError: a manifest cannot be understood.
        """
        files = sorted(self._of(mac).glob("*.json"), key=lambda file: (len(file.stem), file.stem))
        return tuple(_read(file) for file in files)

    def newest(self, mac: str) -> SavedFlash | None:
        """The last one, or None."""
        return next(reversed(self.of(mac)), None)

    def add(self, state: ChipState, content: bytes) -> SavedFlash:
        """Stores `content`, the whole flash of the board in `state`: synced, read back, then the manifest.

        Raises:
            LabError: it cannot be written. DamagedError: it does not read back.
        """
        assert state.mac is not None
        mac = plain_mac(state.mac)
        numbers = [each.number for each in self.of(mac)]
        saved = SavedFlash(
            number=max(numbers, default=0) + 1,
            mac=mac,
            chip_name=state.chip_name,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            encrypted=state.encrypted,
            secure_boot=secure_boot_fuses(state),
            saved=now_utc(),
        )
        make_private_folder(self._of(mac))
        # By content: a board that is saved twice with the same bytes takes the space once.
        write_bytes(self.content_file(saved), content)
        self._write(saved)
        return saved

    def content(self, saved: SavedFlash) -> bytes:
        """The bytes.

        Raises:
            LabError: the file is gone. DamagedError: it is not what was saved.
        """
        file = self.content_file(saved)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise LabError(
                f"the saved flash {file} cannot be read: {error.strerror}", board=saved.mac
            ) from error
        if len(content) != saved.size_bytes or hashlib.sha256(content).hexdigest() != saved.sha256:
            raise DamagedError(f"the saved flash {file} is not what was saved; nothing was written")
        return content

    def content_file(self, saved: SavedFlash) -> Path:
        """Where the bytes are, as esptool would write them at address 0."""
        return self._of(saved.mac) / f"{saved.sha256[:32]}.bin"

    def note_restored(self, saved: SavedFlash) -> SavedFlash:
        """From now on the board holds its own content again, so it is saved anew before the next overwrite."""
        noted = replace(saved, restored=now_utc())
        self._write(noted)
        return noted

    def _write(self, saved: SavedFlash) -> None:
        write_record(self._of(saved.mac) / f"{saved.number}.json", saved.to_fields())

    def _of(self, mac: str) -> Path:
        return self.folder / plain_mac(mac).replace(":", "-")


def _read(file: Path) -> SavedFlash:
    fields = read_record(file, newest=FORMAT, what="the manifest of a saved flash")
    try:
        return SavedFlash(
            number=int(fields["number"]),
            mac=plain_mac(fields["mac"]),
            chip_name=chip_named(fields["chip"]).name,
            size_bytes=int(fields["size_bytes"]),
            sha256=str(fields["sha256"]),
            encrypted=bool(fields["encrypted"]),
            secure_boot=tuple(map(str, fields["secure_boot"])),
            saved=str(fields["saved"]),
            restored=fields["restored"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(
            f"the manifest of a saved flash {file} is damaged: {type(error).__name__} {error}"
        ) from error


# --- saving ---


def must_be_saved(record: DeviceRecord | None, newest: SavedFlash | None) -> bool:
    """Whether what is in a board's flash is not the harness's own: it has no record and was not saved yet, or
    what was saved has been put back."""
    if newest is None:
        return record is None
    return newest.restored is not None


def why_unreadable(state: ChipState) -> str | None:
    """Why flash cannot be read over the UART; None: it can."""
    if state.download is Download.OFF:
        return "its UART download is off"
    if state.download is Download.SECURE:
        return "it is in Secure Download Mode"
    if state.mac is None:
        return "its MAC is not known"
    return None


def save_before_overwrite(
    open_session: Callable[[], AbstractContextManager[SizedSession]],
    state: ChipState,
    *,
    saved: SavedFlashes,
    record: DeviceRecord | None,
    tell: Callable[[str], None],
    on_progress: Callable[[int, int], None] | None = None,
) -> SavedFlash | None:
    """Saves the flash of a physical board that the harness does not know, before anything is written to it.

    Args:
        open_session: resets the board into download mode and lends its ROM.
        state: the board as it was read.
        record: what is known of it.
        tell: gets one line per thing that a person should know.
        on_progress: told (bytes done, bytes in all).

    Returns:
        What was saved; None when there was nothing to save, or the flash cannot be read, which is told.

    Raises:
        BoardError, LabError: it can be read, but reading or storing failed. Nothing has been written to the board.
    """
    why_not = why_unreadable(state)
    if why_not is not None:
        if record is None:
            tell(f"what is in its flash cannot be saved: {why_not}")
        return None
    assert state.mac is not None
    if not must_be_saved(record, saved.newest(state.mac)):
        return None
    with open_session() as session:
        size_bytes = session.flash_size_bytes()
        tell(
            f"a board that is not known yet: its flash ({size_bytes >> 20} MiB) is saved before it is overwritten"
        )
        content = read_whole(session, size_bytes, on_progress)
    done = saved.add(state, content)
    tell(f"saved in {saved.content_file(done)}; `harness restore BOARD` puts it back")
    return done


def read_whole(
    session: Session, size_bytes: int, on_progress: Callable[[int, int], None] | None = None
) -> bytes:
    """The whole flash, raw. Blank blocks are found by a hash on the chip and not transferred.

    Raises:
        BoardError: reading failed.
    """
    content = bytearray(b"\xff" * size_bytes)
    blank: Mapping[int, str] = {
        size: hashlib.md5(b"\xff" * size, usedforsecurity=False).hexdigest()
        for size in {BLOCK_BYTES, size_bytes % BLOCK_BYTES}
    }
    for offset in range(0, size_bytes, BLOCK_BYTES):
        length = min(BLOCK_BYTES, size_bytes - offset)
        if session.flash_md5(offset, length) != blank[length]:
            block = session.read_flash(offset, length)
            if len(block) != length:
                raise BoardError(f"reading flash at {offset:#x}: {len(block)} of {length} bytes came")
            content[offset : offset + length] = block
        if on_progress is not None:
            on_progress(offset + length, size_bytes)
    return bytes(content)


# --- putting back ---


def why_not_restorable(saved: SavedFlash, state: ChipState) -> tuple[str, ...]:
    """Why the content must not be written back: it is another board, or it would not boot. Empty: it may."""
    if state.download is not Download.OPEN:
        return (
            f"{why_unreadable(state)}: it cannot be identified by its ROM, and what was written not be verified",
        )
    problems = []
    if state.mac is None or plain_mac(state.mac) != saved.mac:
        problems.append(f"the content is that of {saved.mac}, this chip is {state.mac}")
    if state.chip_name != saved.chip_name:
        problems.append(f"the content is that of an {saved.chip_name}, this is an {state.chip_name}")
    if state.encrypted and not saved.encrypted:
        problems.append("flash encryption is on by now, and the content is plaintext: it would not boot")
    if saved.encrypted and not state.encrypted:
        problems.append("the content is ciphertext, and flash encryption is off by now: it would not boot")
    new = [fuse for fuse in secure_boot_fuses(state) if fuse not in saved.secure_boot]
    if new:
        problems.append(
            f"secure boot is on by now ({', '.join(new)}), and was not when the content was saved"
        )
    return tuple(problems)


def put_back(
    session: Session,
    saved: SavedFlash,
    content: bytes,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Writes `content` where it differs, and verifies the whole by a hash on the chip.

    May be killed and run again: it goes on where it was.

    Returns:
        Bytes that differed.

    Raises:
        RefusedError: the board in this session must not get it; nothing was written.
        BoardError: writing failed, or the flash is not the content afterwards.
    """
    problems = why_not_restorable(saved, session.state())
    if problems:
        raise RefusedError(
            "the saved flash is not put back: " + "; ".join(problems) + ". Nothing was written",
            todo=None
            if len(problems) > 1
            else "connect the board that it was saved from, or leave this one as it is",
        )
    written = 0
    for offset in range(0, len(content), BLOCK_BYTES):
        block = content[offset : offset + BLOCK_BYTES]
        if session.flash_md5(offset, len(block)) == _md5(block):
            continue
        session.write_flash([(offset, block)], force=saved.encrypted)
        written += len(block)
        if on_progress is not None:
            on_progress(offset + len(block), len(content))
    if session.flash_md5(0, len(content)) != _md5(content):
        raise BoardError(
            "the flash is not what was put back",
            todo="run it again; if that fails too, the flash chip is worn",
        )
    return written


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
