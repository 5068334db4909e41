"""Where a board's firmware comes from: built here for a twin or for a chip, or given as folders.

All three answer the same questions, so that nothing above knows which one it is: what is flashed first
(`first`), and which releases it can be updated to (`release`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harness.build.app_dir import AppDirectory, is_signed, read_app_dir
from harness.build.artefacts import Artefacts
from harness.build.build_output import Progress
from harness.build.companion import Companion
from harness.build.esp_idf import find_esp_idf
from harness.build.restamp import restamp
from harness.build.signing import ImageSigner
from harness.build.target import build_target
from harness.chips import Chip
from harness.errors import NotApplicableError, UsageError
from harness.ota.release import Release
from harness.provision.boot_keys import BootDigest


class FirmwareSource(Protocol):
    """What a board is flashed with, and updated to."""

    @property
    def kind(self) -> str:
        """``native`` (only a twin runs it) or ``target``."""

    def first(self, version: str) -> AppDirectory:
        """What is flashed over the UART: `version` where versions are made here, else what was given."""

    def all(self, version: str) -> Sequence[AppDirectory]:
        """`first`, and every build that a board may be updated to."""

    @property
    def any_version(self) -> bool:
        """`release` gives whatever version it is asked for."""

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions there are, where not any version can be had."""

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """The app image of `version`, ready to be enciphered for a device."""

    @property
    def digests(self) -> Sequence[BootDigest]:
        """The keys of secure boot that sign it, known after `first` or `all`; empty: it is for no secure boot."""


@dataclass(slots=True)
class NativeFirmware:
    """The companion firmware for a twin of this host."""

    companion: Companion

    @property
    def kind(self) -> str:
        return "native"

    @property
    def any_version(self) -> bool:
        return True

    @property
    def versions(self) -> tuple[str, ...]:
        return ()

    def first(self, version: str) -> AppDirectory:
        """Built with this host's compiler."""
        return read_app_dir(self.companion.artefacts(version).dir)

    def all(self, version: str) -> Sequence[AppDirectory]:
        """The first: versions differ in nothing else."""
        return (self.first(version),)

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """Built with this host's compiler; each version is a program of its own."""
        return self.companion.release(version, secure_version=secure_version)

    @property
    def digests(self) -> Sequence[BootDigest]:
        return ()


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

    @property
    def any_version(self) -> bool:
        return True

    @property
    def versions(self) -> tuple[str, ...]:
        return ()

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

    def all(self, version: str) -> Sequence[AppDirectory]:
        """The first: versions differ in nothing else."""
        return (self.first(version),)

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """What was built first, as `version`."""
        built = next(iter(self._made.values()), None) or self.artefacts(version)
        return restamp(read_app_dir(built.dir).release, version=version, secure_version=secure_version)

    @property
    def digests(self) -> Sequence[BootDigest]:
        return ()


@dataclass(slots=True)
class GivenFirmware:
    """Builds that were given with ``--app``: the first is flashed, all of them are what there is to update to.

    Nobody's app is changed, so a board can only be updated to versions that are there. Only this project's own
    companion is stamped with further versions, as scenarios need them by the dozen.
    """

    apps: Sequence[AppDirectory]

    @classmethod
    def read(
        cls,
        folders: Sequence[Path],
        *,
        chip: Chip | None = None,
        encryption: str | None = None,
        secure_boot: bool | None = None,
    ) -> GivenFirmware:
        """Reads every folder; of several, those count that are for `chip`, and best those made for what it becomes.

        Args:
            folders: as `read_app_dir` takes them.
            chip: the board's.
            encryption: ``off``, ``development`` or ``release``, as `AppDirectory.encryption`.
            secure_boot: as `AppDirectory.secure_boot`.

        Raises:
            UsageError: none is given or fits, one is no build, or two do not belong together.
        """
        if not folders:
            raise UsageError("no build is given", todo="name one with --app DIR")
        if len(folders) == 1:
            return cls((read_app_dir(folders[0], chip=chip),))
        apps = [read_app_dir(folder) for folder in folders]
        if chip is not None:
            apps = [app for app in apps if app.chip.name == chip.name]
            if not apps:
                raise UsageError(
                    f"none of the {len(folders)} builds that were given is for {chip.title}",
                    todo=f"name one for {chip.name} with --app DIR",
                )
        apps = [app for app in apps if app.secure_boot == secure_boot] or apps
        apps = [app for app in apps if app.encryption == encryption] or apps
        for other in apps[1:]:
            _require_together(apps[0], other)
        return cls(tuple(apps))

    @property
    def kind(self) -> str:
        return self.apps[0].kind

    @property
    def versions(self) -> tuple[str, ...]:
        """Of all apps, in the order in which they were given."""
        return tuple(app.version for app in self.apps)

    @property
    def any_version(self) -> bool:
        """Every version can be had: the app is this project's own, and reads its version from its image.

        A program for this host has it compiled in; a signed image must be built and signed anew.
        """
        first = self.apps[0]
        return first.is_companion and self.kind == "target" and not is_signed(first.release.image)

    def first(self, version: str) -> AppDirectory:  # noqa: ARG002 - what was given has the version that it has
        """The first folder."""
        return self.apps[0]

    def all(self, version: str) -> Sequence[AppDirectory]:  # noqa: ARG002 - as above
        """Every folder."""
        return self.apps

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """The given app of that version; of the companion any version.

        Raises:
            NotApplicableError: there is no such version of somebody's own app.
        """
        for app in self.apps:
            if app.version == version and app.secure_version == secure_version:
                return app.release
        if self.any_version:
            return restamp(self.apps[0].release, version=version, secure_version=secure_version)
        raise NotApplicableError(
            f"version {version} is not among the builds that were given: {', '.join(self.versions)}",
            todo="give the folder of one more build with --app DIR",
        )

    @property
    def digests(self) -> Sequence[BootDigest]:
        return ()


@dataclass(slots=True)
class SignedFirmware:
    """Any of the others, signed for a board with secure boot: what it is flashed with, and every update."""

    source: FirmwareSource
    signer: ImageSigner
    _digests: tuple[BootDigest, ...] | None = None

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def any_version(self) -> bool:
        return self.source.any_version

    @property
    def versions(self) -> tuple[str, ...]:
        return self.source.versions

    @property
    def digests(self) -> tuple[BootDigest, ...]:
        """The keys of the board's entry, or those that signed the bootloader which was given."""
        return self.signer.own if self._digests is None else self._digests

    def first(self, version: str) -> AppDirectory:
        """Bootloader and app, signed."""
        return self._signed(self.source.first(version))

    def all(self, version: str) -> Sequence[AppDirectory]:
        """All of them, signed; the first one's bootloader is the one that is flashed."""
        return tuple(self._signed(app) for app in self.source.all(version))

    def release(self, version: str, *, secure_version: int = 0) -> Release:
        """The app image, signed with keys that the board knows."""
        made = self.source.release(version, secure_version=secure_version)
        return self.signer.release(made, self.digests)

    def _signed(self, app: AppDirectory) -> AppDirectory:
        if self._digests is None:
            self._digests = self.signer.digests(app)
        return self.signer.app(app, self._digests)


def _require_together(one: AppDirectory, other: AppDirectory) -> None:
    if (other.chip.name, other.kind) != (one.chip.name, one.kind):
        raise UsageError(
            f"{one.dir} is a {one.kind} build for {one.chip.name}, {other.dir} a {other.kind} one for "
            f"{other.chip.name}",
            todo="give builds of one kind for one chip",
        )
    if other.partition_table.ota_slots != one.partition_table.ota_slots:
        raise UsageError(
            f"{one.dir} and {other.dir} have different OTA slots",
            todo="build both with the same table",
        )
