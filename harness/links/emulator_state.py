"""The state folder of an emulated board: flash and eFuse content, one user at a time.

``flash.bin`` and ``efuse.bin`` have the layout that Espressif's QEMU uses, and are the files that the built-in
twin keeps: the same folder can be opened by either, one after the other. ``lock`` is held while it is in use.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from harness.errors import InUseError, LabError, UsageError
from harness.formats.bootloader_config import SDKCONFIG_FILE

FLASH_FILE = "flash.bin"
EFUSE_FILE = "efuse.bin"
LOCK_FILE = "lock"

DEFAULT_FLASH_BYTES = 4 << 20
FLASH_SIZES = tuple(n << 20 for n in (2, 4, 8, 16))
"""The sizes of flash chip that the emulators know."""

_MAC_PREFIX = bytes.fromhex("7cdfa1")
"""One of Espressif's blocks; the rest of a generated MAC is random."""


@dataclass(frozen=True, slots=True)
class EfuseFile:
    """What lies where in the eFuse file of one chip: the read registers of all blocks in order, little endian."""

    size_bytes: int
    mac_offset: int
    """Six bytes, last byte of the MAC first: BLOCK0 word 1 of ESP32, BLOCK1 of all later chips."""
    mac_has_crc: bool
    """ESP32: a CRC-8 follows the MAC."""
    revision: tuple[tuple[int, int], ...]
    """(offset, byte) that make the chip revision which Espressif's emulator has; ESP32 also CLK8M_FREQ, at 16."""


EFUSE_FILES = {
    "esp32": EfuseFile(124, 4, True, ((13, 0x80), (16, 52), (22, 0x10))),
    "esp32c3": EfuseFile(1024, 24, False, ((38, 0x0C),)),
    "esp32s3": EfuseFile(1024, 24, False, ((38, 0x0C),)),
    "esp32c6": EfuseFile(1024, 24, False, ()),
    "esp32h2": EfuseFile(1024, 24, False, ()),
    "esp32p4": EfuseFile(1024, 24, False, ()),
}
"""By chip. Revisions: ESP32 v3.0, ESP32-C3 and S3 v0.3, as ESP-IDF's ``idf.py qemu`` makes them."""


BLOCKS_BYTES = 336
"""BLOCK0 to BLOCK10 of the chips whose file is longer: all that esp-emu keeps, and a file that it made has."""


def factory_efuses(chip: str, mac: bytes) -> bytes:
    """eFuse file of a chip as it leaves the factory: MAC and revision, no more."""
    row = EFUSE_FILES[chip]
    content = bytearray(row.size_bytes)
    content[row.mac_offset : row.mac_offset + 6] = mac[::-1]
    if row.mac_has_crc:
        content[row.mac_offset + 6] = _crc8(mac)
    for offset, value in row.revision:
        content[offset] = value
    return bytes(content)


def _crc8(data: bytes) -> int:
    """Polynomial 0x31 reflected, start 0: how ESP32 guards its MAC (``MAC_CRC``)."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8C if crc & 1 else 0)
    return crc


class EmulatorState:
    """The folder of one emulated board, locked from `open` to `close`."""

    def __init__(self, path: Path, chip: str, lock: FileLock) -> None:
        self.path = path
        self.flash = path / FLASH_FILE
        self.efuses = path / EFUSE_FILE
        self.chip = chip
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: Path,
        chip: str,
        *,
        mac: str | None = None,
        flash_bytes: int = DEFAULT_FLASH_BYTES,
        board: str | None = None,
    ) -> EmulatorState:
        """Opens the folder, creating what is missing with factory content: blank flash, eFuses with a MAC.

        `mac` (``aa:bb:cc:dd:ee:ff``) and `flash_bytes` are for new files; files that exist stay as they are.

        Raises:
            LabError: the folder cannot be written, or something else uses it.
            UsageError: the files in it have a size that those of this chip cannot have.
        """
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = FileLock(path / LOCK_FILE)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InUseError(
                f"the state folder {path} is in use by another twin or emulator",
                board=board,
                todo="end that one, or use another folder",
            ) from error
        except OSError as error:
            raise _unusable(path, error, board) from error
        state = cls(path, chip, lock)
        try:
            state._prepare(mac, flash_bytes, board)
        except OSError as error:
            state.close()
            raise _unusable(path, error, board) from error
        except UsageError:
            state.close()
            raise
        return state

    @property
    def mac(self) -> str:
        """The factory MAC in the eFuses, ``aa:bb:cc:dd:ee:ff``."""
        offset = EFUSE_FILES[self.chip].mac_offset
        content = self.efuses.read_bytes()
        return content[offset : offset + 6][::-1].hex(":")

    def close(self) -> None:
        """Lets go of the folder. May be called twice."""
        self._lock.release()

    def _prepare(self, mac: str | None, flash_bytes: int, board: str | None) -> None:
        # What exists is checked before anything is written: a folder of another chip stays as it was.
        wanted = EFUSE_FILES[self.chip].size_bytes
        found = self.efuses.stat().st_size if self.efuses.exists() else wanted
        is_short = found == BLOCKS_BYTES < wanted
        if found != wanted and not is_short:
            raise UsageError(
                f"{self.efuses} has {found} bytes, that of an {self.chip} has {wanted}",
                board=board,
                todo="correct 'chip' in its entry, or use another state folder",
            )
        if self.flash.exists() and self.flash.stat().st_size not in FLASH_SIZES:
            sizes = ", ".join(str(size) for size in FLASH_SIZES)
            raise UsageError(
                f"{self.flash} has {self.flash.stat().st_size} bytes; a flash chip has {sizes}",
                board=board,
                todo="restore the file, or use another state folder",
            )
        if is_short:
            write_whole(self.efuses, self.efuses.read_bytes().ljust(wanted, b"\0"))
        if not self.efuses.exists():
            number = bytes.fromhex(mac.replace(":", "")) if mac else _MAC_PREFIX + secrets.token_bytes(3)
            write_whole(self.efuses, factory_efuses(self.chip, number))
        if not self.flash.exists():
            write_whole(self.flash, b"\xff" * flash_bytes)
        for path in (self.efuses, self.flash):
            path.open("r+b").close()


def keep_sdkconfig(state: Path, text: str | None) -> None:
    """Beside the flash: what the bootloader in it was compiled with, which a twin needs to boot it.

    Raises:
        LabError: the folder cannot be written.
    """
    try:
        if text is None:
            (state / SDKCONFIG_FILE).unlink(missing_ok=True)
        else:
            write_whole(state / SDKCONFIG_FILE, text.encode())
    except OSError as error:
        raise _unusable(state, error, None) from error


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file with all of its content, or leaves it as it was."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _unusable(path: Path, error: OSError, board: str | None) -> LabError:
    return LabError(
        f"the state folder {path} cannot be used: {error.strerror or error}",
        board=board,
        todo="choose a folder that you may write to",
    )
