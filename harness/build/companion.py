"""The companion firmware in any version, for one chip, profile and lock; built once per version."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from harness.build.artefacts import Artefacts
from harness.build.native import build_native
from harness.chips import Chip
from harness.ota.release import Release, read_release

TEST_FRAGMENT = "test"
"""Allows bare bins and the hooks that the scenarios need; never part of a product's build."""


@dataclass(slots=True)
class Companion:
    """Makes versions of the companion firmware and keeps what was made.

    ``fragments`` are the names of the sdkconfig fragments of ``firmware/`` that the build is made of.
    """

    kind: ClassVar[str] = "native"
    chip: Chip
    fragments: tuple[str, ...]
    signing_keys: tuple[bytes, ...]
    """Public keys (65 bytes, uncompressed P-256 points) whose packages the firmware takes."""
    builds: Path
    store: Path
    _made: dict[tuple[str, int], Artefacts] = field(default_factory=dict)

    def artefacts(self, version: str, *, secure_version: int = 0) -> Artefacts:
        """Bootloader, partition table and app of `version`.

        Raises:
            LabError: no compiler, or the build failed; names the log.
        """
        key = (version, secure_version)
        if key not in self._made:
            self._made[key] = build_native(
                self.chip,
                version=version,
                secure_version=secure_version,
                fragments=self.fragments,
                signing_keys=self.signing_keys,
                store=self.store,
                work=self.builds,
            )
        return self._made[key]

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """The app image of `version`, ready to be enciphered for a device."""
        return read_release(self.artefacts(version, secure_version=secure_version).app)
