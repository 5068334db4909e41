"""The state folder of a twin: flash and eFuse content, one process at a time.

``flash.bin`` and ``efuse.bin`` have the layout that Espressif's QEMU uses for the chip. ``chip`` names the chip, since
the files of most chips look alike; a folder without it (QEMU's) is taken for what it is opened as. ``lock`` is held
while a twin lives, ``running.json`` says where it listens.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from harness.chips import Chip
from harness.chips.efuses import EFUSE_GEOMETRY, efuse_geometry
from harness.errors import LabError, UsageError
from harness.twin.efuses import factory_content, mac_crc

FLASH_FILE = "flash.bin"
EFUSE_FILE = "efuse.bin"
CHIP_FILE = "chip"
LOCK_FILE = "lock"
RUNNING_FILE = "running.json"

DEFAULT_FLASH_BYTES = 4 << 20
FLASH_SIZES = {f"{n}MB": n << 20 for n in (2, 4, 8, 16)}

#: First three bytes of generated MACs: blocks of Espressif.
_MAC_PREFIX = {"esp32": bytes.fromhex("240ac4")}
_LATER_MAC_PREFIX = bytes.fromhex("7cdfa1")


def parse_mac(text: str) -> bytes:
    """Six bytes from ``AA:BB:CC:DD:EE:FF``.

    Raises:
        UsageError: not six hex bytes, or a group address (lowest bit of the first byte set).
    """
    parts = text.replace("-", ":").split(":")
    try:
        mac = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        mac = b""
    if len(mac) != 6 or len(parts) != 6:
        raise UsageError(f"'{text}' is not a MAC address", todo="write six hex bytes: 7C:DF:A1:00:00:01")
    if mac[0] & 1:
        raise UsageError(f"'{text}' is a group address, no board has that", todo="use an even first byte")
    return mac


class StateFolder:
    """The folder of one twin, locked from `open` to `close`."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self.flash_path = path / FLASH_FILE
        self.efuse_path = path / EFUSE_FILE
        self._lock = lock

    @classmethod
    def open(
        cls, path: Path, chip: Chip, *, flash_bytes: int | None = None, mac: bytes | None = None
    ) -> StateFolder:
        """Open the folder, creating it and what is missing in it; factory content for new files.

        `flash_bytes` is the size of a new flash (default 4 MiB) and must match that of an existing one. `mac`
        is used for new eFuses; existing ones keep theirs.

        Raises:
            LabError: the folder cannot be written, or another twin has it.
            UsageError: the files in it are another chip's, or have a size that they cannot have.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path / LOCK_FILE)
            lock.acquire(blocking=False)
        except Timeout as error:
            raise LabError(
                f"the state folder {path} is in use by {_holder(path)}",
                todo="stop that twin, or use another folder",
            ) from error
        except OSError as error:
            raise _unusable(path, error) from error
        folder = cls(path, lock)
        try:
            folder._prepare(chip, flash_bytes, mac)
        except OSError as error:
            folder.close()
            raise _unusable(path, error) from error
        except UsageError:
            folder.close()
            raise
        return folder

    def announce(self, content: dict[str, Any]) -> None:
        """Write ``running.json``, whole or not at all."""
        new = self.path / (RUNNING_FILE + ".new")
        new.write_text(json.dumps(content) + "\n")
        new.replace(self.path / RUNNING_FILE)

    def close(self) -> None:
        """Take ``running.json`` away and let go of the lock."""
        with contextlib.suppress(OSError):
            (self.path / RUNNING_FILE).unlink(missing_ok=True)
        self._lock.release()

    def _prepare(self, chip: Chip, flash_bytes: int | None, mac: bytes | None) -> None:
        (self.path / RUNNING_FILE).unlink(missing_ok=True)
        # The size is checked before anything is written: a folder of another chip stays as it was.
        wanted = efuse_geometry(chip.name).file_size_bytes
        chip_path = self.path / CHIP_FILE
        if chip_path.exists():
            self._check_chip(chip, chip_path.read_text("utf-8", "replace").strip())
        if self.efuse_path.exists():
            self._check_efuses(chip, wanted)
        if self.flash_path.exists():
            self._check_flash(flash_bytes)
        if not self.efuse_path.exists():
            fresh = (
                mac
                if mac is not None
                else _MAC_PREFIX.get(chip.name, _LATER_MAC_PREFIX) + secrets.token_bytes(3)
            )
            _write_whole(self.efuse_path, factory_content(chip, fresh))
        if not self.flash_path.exists():
            _write_whole(self.flash_path, b"\xff" * (flash_bytes or DEFAULT_FLASH_BYTES))
        if not chip_path.exists():
            _write_whole(chip_path, f"{chip.name}\n".encode())
        for path in (self.efuse_path, self.flash_path):
            path.open("r+b").close()

    def _check_chip(self, chip: Chip, found: str) -> None:
        if found != chip.name:
            raise UsageError(
                f"the state folder {self.path} belongs to a board of chip {found}, not {chip.name}",
                todo=f"use --chip {found}, or another folder",
            )

    def _check_efuses(self, chip: Chip, wanted: int) -> None:
        found = self.efuse_path.stat().st_size
        others = [name for name, geometry in EFUSE_GEOMETRY.items() if geometry.file_size_bytes == found]
        if found != wanted:
            if others:
                names = " or ".join(others)
                raise UsageError(
                    f"the state folder {self.path} belongs to a board of chip {names}, not {chip.name}",
                    todo="use its --chip, or another folder",
                )
            raise UsageError(
                f"{self.efuse_path} has {found} bytes, {chip.name} needs {wanted}",
                todo="restore the file, or use another folder",
            )
        if chip.name == "esp32":
            self._check_mac_crc()

    def _check_mac_crc(self) -> None:
        """A foreign file of the right length would make a board without an identity."""
        content = self.efuse_path.read_bytes()
        mac = int.from_bytes(content[4:10], "little").to_bytes(6, "big")
        if any(mac) and mac_crc(mac) != content[10]:
            raise UsageError(
                f"{self.efuse_path} holds a MAC whose CRC is wrong",
                todo="restore the file, or use another folder",
            )

    def _check_flash(self, flash_bytes: int | None) -> None:
        found = self.flash_path.stat().st_size
        if found not in FLASH_SIZES.values():
            sizes = ", ".join(FLASH_SIZES)
            raise UsageError(
                f"{self.flash_path} has {found} bytes; a flash chip has {sizes}",
                todo="restore the file, or use another folder",
            )
        if flash_bytes is not None and found != flash_bytes:
            raise UsageError(
                f"{self.flash_path} has {found >> 20}MB, asked for are {flash_bytes >> 20}MB",
                todo=f"use --flash-size {found >> 20}MB, or another folder",
            )


def _write_whole(path: Path, content: bytes) -> None:
    """Create a file with its content, or not at all."""
    new = path.with_name(path.name + ".new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _unusable(path: Path, error: OSError) -> LabError:
    return LabError(
        f"the state folder {path} cannot be used: {error.strerror or error}",
        todo="choose a folder that you may write to",
    )


def _holder(path: Path) -> str:
    try:
        pid = json.loads((path / RUNNING_FILE).read_text())["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return "another twin that is just starting or ending"
    return f"the twin with process id {pid}"
