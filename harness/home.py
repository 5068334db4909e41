"""Where the harness keeps what lasts: the state folder of this user, and the folders in it.

`HARNESS_HOME` names it; the default is the platform's state folder for users. `HARNESS_VAULT` may put the vault
elsewhere, because keys and run state have different owners and different back-ups.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from harness.errors import LabError


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
        return self.folder("devices")

    def twin(self, name: str) -> Path:
        """The folder of a named twin: flash, eFuses, and a vault of its own."""
        return self.folder("twins") / name
