"""Where the harness keeps what lasts: the state folder of this user, and the folders in it.

`HARNESS_HOME` names it; the default is the platform's state folder for users. `HARNESS_VAULT` may put the vault
elsewhere, because keys and run state have different owners and different back-ups. What is known of a physical device is
of no use without its key, nor the key without it: so it lies in a vault that `HARNESS_VAULT` names, and all hosts that
share that vault know the same.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from harness.errors import LabError

VAULT_HEAD = "vault.json"
"""What makes a folder a vault; `harness.vault.vault.HEAD_FILE`, which is not imported for it."""

RACK_FOLDER = "rack"
"""In a vault: what its hosts know of devices, none of it secret. Not a part of the vault's copies."""


@dataclass(frozen=True, slots=True)
class Home:
    """The state folder. Folders come into being when first asked for, mode 0700."""

    root: Path
    vault_override: Path | None = None

    @classmethod
    def of_user(cls) -> Home:
        """From `HARNESS_HOME` and `HARNESS_VAULT`, else the platform's defaults."""
        named = os.environ.get("HARNESS_HOME")
        root = Path(named) if named else platformdirs.user_state_path("esp32-secure-ota-harness")
        vault = os.environ.get("HARNESS_VAULT")
        return cls(root.expanduser().absolute(), Path(vault).expanduser().absolute() if vault else None)

    def folder(self, name: str) -> Path:
        """The subfolder `name`, made if need be.

        Raises:
            LabError: it cannot be made or is a file.
        """
        path = self.root / name
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(
                f"the state folder {path} cannot be made: {error.strerror}",
                todo="set HARNESS_HOME to a folder that you may write to",
            ) from error
        return path

    @property
    def vault(self) -> Path:
        """The vault of physical boards; virtual boards have one of their own beside their state."""
        return self.vault_override or self.root / "vault"

    @property
    def builds(self) -> Path:
        """Compiled objects of the companion firmware, by content."""
        return self.folder("builds")

    @property
    def build_store(self) -> Path:
        """Native programs by SHA-256: the only files that a twin executes."""
        return self.folder("builds") / "store"

    @property
    def plans(self) -> Path:
        """Plans that were printed, by id."""
        return self.folder("plans")

    @property
    def devices(self) -> Path:
        """Device records of physical boards, by MAC."""
        return self.with_keys("devices")

    def with_keys(self, name: str) -> Path:
        """The folder `name` of what is known of physical devices: in the vault that `HARNESS_VAULT` names, once there is
        one, else in the state folder. What the state folder knew before is taken over; what is there already stays.

        Raises:
            LabError: it cannot be made.
        """
        folder = self.place_with_keys(name)
        if folder == self.root / name:
            return self.folder(name)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _take_over(self.root / name, folder)
        except OSError as error:
            raise LabError(
                f"{folder} cannot be made or filled: {error.strerror}",
                todo="give the vault in HARNESS_VAULT to the user who runs the harness, or use another",
            ) from error
        return folder

    def place_with_keys(self, name: str) -> Path:
        """As `with_keys`, for those who only look: nothing is made, and nothing taken over."""
        if self.vault_override is None or not (self.vault_override / VAULT_HEAD).exists():
            return self.root / name
        return self.vault_override / RACK_FOLDER / name

    def twin(self, name: str) -> Path:
        """The folder of a named twin: flash, eFuses, and a vault of its own."""
        return self.root / "twins" / name


def _take_over(earlier: Path, folder: Path) -> None:
    """Copies what is in `earlier` and not in `folder`, each entry whole or not at all."""
    if not earlier.is_dir():
        return
    for entry in earlier.iterdir():
        target = folder / entry.name
        if target.exists() or entry.name.startswith(".") or entry.suffix == ".part":
            continue
        part = folder / f".{entry.name}.{secrets.token_hex(4)}.part"
        if entry.is_dir():
            shutil.copytree(entry, part)
        else:
            shutil.copy2(entry, part)
        try:
            # Another process, or host, may have been quicker: what it put there stays.
            if entry.is_dir() or not _linked(part, target):
                part.rename(target)
        except OSError:
            if not target.exists():
                raise
        finally:
            shutil.rmtree(part, ignore_errors=True) if entry.is_dir() else part.unlink(missing_ok=True)


def _linked(part: Path, target: Path) -> bool:
    """Gives the file its name, if that is free; False: this file system has no second names."""
    try:
        os.link(part, target)
    except FileExistsError:
        pass
    except OSError:
        return False
    return True
