"""Where a board's firmware comes from: built here for a twin or for a chip, or given as folders.

All three answer the same questions, so that nothing above knows which one it is: what is flashed first
(`first`), and which releases it can be updated to (`release`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.build.app_dir import AppDirectory, read_app_dir
from harness.build.artefacts import Artefacts
from harness.build.build_output import Progress
from harness.build.companion import Companion
from harness.build.esp_idf import find_esp_idf
from harness.build.restamp import restamp
from harness.build.target import build_target
from harness.chips import Chip
from harness.errors import UsageError
from harness.ota.release import Release


class FirmwareSource(Protocol):
    """What a board is flashed with, and updated to."""

    @property
    def kind(self) -> str:
        """``native`` (only a twin runs it) or ``target``."""

    def first(self, version: str) -> AppDirectory:
        """What is flashed over the UART: `version` where versions are made here, else what was given."""

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """The app image of `version`, ready to be enciphered for a device."""


@dataclass(slots=True)
class NativeFirmware:
    """The companion firmware for a twin of this host."""

    companion: Companion

    @property
    def kind(self) -> str:
        return "native"

    def first(self, version: str) -> AppDirectory:
        """Built with this host's compiler."""
        return read_app_dir(self.companion.artefacts(version).dir)

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """Built with this host's compiler; each version is a program of its own."""
        return self.companion.release(version, secure_version=secure_version)


@dataclass(slots=True)
class TargetFirmware:
    """The companion firmware for a chip, built with ESP-IDF.

    Only the first version is compiled. The others are the same code with another version in its description,
    which takes milliseconds where a build takes seconds.
    """

    chip: Chip
    fragments: tuple[str, ...]
    signing_keys: tuple[bytes, ...]
    builds: Path
    idf: Path | None = None
    """ESP-IDF's folder; None: the environment's."""
    on_progress: Callable[[Progress], None] = lambda _progress: None
    _made: dict[str, Artefacts] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return "target"

    def artefacts(self, version: str) -> Artefacts:
        """Bootloader, partition table and app of `version`, compiled or from the cache.

        Raises:
            LabError: no ESP-IDF, or the build failed; names the log.
        """
        if version not in self._made:
            self._made[version] = build_target(
                self.chip,
                version=version,
                fragments=self.fragments,
                signing_keys=self.signing_keys,
                idf=find_esp_idf(self.idf),
                work=self.builds,
                on_progress=self.on_progress,
            )
        return self._made[version]

    def first(self, version: str) -> AppDirectory:
        """Built with ESP-IDF."""
        return read_app_dir(self.artefacts(version).dir, chip=self.chip)

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """What was built first, as `version`."""
        built = next(iter(self._made.values()), None) or self.artefacts(version)
        return restamp(read_app_dir(built.dir).release, version=version, secure_version=secure_version)


@dataclass(slots=True)
class GivenFirmware:
    """Builds that were given with ``--app``: the first is flashed, all of them are what there is to update to.

    Nothing in them is changed, so a board can only be updated to versions that are there.
    """

    apps: Sequence[AppDirectory]

    @classmethod
    def read(cls, folders: Sequence[Path], *, chip: Chip | None = None) -> GivenFirmware:
        """Reads every folder.

        Raises:
            UsageError: none is given, one is no build, or two do not belong together.
        """
        apps = [read_app_dir(folder, chip=chip) for folder in folders]
        if not apps:
            raise UsageError("no build is given", todo="name one with --app DIR")
        for other in apps[1:]:
            if (other.chip.name, other.kind) != (apps[0].chip.name, apps[0].kind):
                raise UsageError(
                    f"{apps[0].dir} is a {apps[0].kind} build for {apps[0].chip.name}, {other.dir} a {other.kind} one "
                    f"for {other.chip.name}",
                    todo="give builds of one kind for one chip",
                )
            if other.partition_table.ota_slots != apps[0].partition_table.ota_slots:
                raise UsageError(
                    f"{apps[0].dir} and {other.dir} have different OTA slots",
                    todo="build both with the same table",
                )
        return cls(tuple(apps))

    @property
    def kind(self) -> str:
        return self.apps[0].kind

    @property
    def versions(self) -> tuple[str, ...]:
        """Of all apps, in the order in which they were given."""
        return tuple(app.version for app in self.apps)

    def first(self, version: str) -> AppDirectory:  # noqa: ARG002 - what was given has the version that it has
        """The first folder."""
        return self.apps[0]

    def release(self, version: str, *, secure_version: int = 0) -> Release:  # noqa: ARG002 - as above
        """The given app of that version.

        Raises:
            UsageError: there is none.
        """
        for app in self.apps:
            if app.version == version:
                return app.release
        raise UsageError(
            f"version {version} is not among the builds that were given: {', '.join(self.versions)}",
            todo="give the folder of one more build with --app DIR",
        )
