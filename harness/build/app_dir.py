"""What `--app DIR` names: a set of artefacts of ours, or the build folder of anybody's ESP-IDF app.

Nothing in it is ever built or changed. A build folder of ESP-IDF says where its images go, but neither what a chip
keeps enciphered (a RELEASE build marks nothing) nor, with secure boot, that it has a bootloader at all: the first
follows from the partition table (`harness.build.flash_layout`), the second is looked for where ESP-IDF leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.build.artefacts import FILE_NAME as ARTEFACTS_FILE
from harness.build.artefacts import Artefacts
from harness.build.idf_build_folder import (
    BOOTLOADER,
    FLASHER_ARGS,
    FlashFile,
    IdfBuildFolder,
    read_bytes,
    read_idf_build_folder,
)
from harness.build.sdkconfig import to_text
from harness.chips import Chip, SigningScheme, chip_named
from harness.errors import FormatError, UsageError
from harness.formats.app_image import AppImage, parse_app_image
from harness.formats.native_payload import NativeMark
from harness.formats.partition import Partition
from harness.formats.partition_table import PartitionTable
from harness.formats.signature_block import blocks_of
from harness.ota.release import Release, parse_release

PROJECT = "companion"
"""Project name of this project's own app."""
EVENT_MARK = b"@evt "
"""With what every event of the UART protocol begins; a constant text in an app that has it."""

_REBUILD = "build the app again with 'idf.py build', and name its build folder"


@dataclass(frozen=True, slots=True)
class AppDirectory:
    """One build of an app with an OTA layout, whole and checked; every image is held as it was read."""

    dir: Path
    chip: Chip
    kind: str
    """``native``: the app runs on a twin of this host; ``target``: on the chip."""
    release: Release
    """The app image, and what it says of itself."""
    app_partition: Partition
    """Where the build flashes the app: a factory partition or an OTA slot."""
    bootloader: bytes = field(repr=False)
    partition_table: PartitionTable
    table_image: bytes = field(repr=False)
    """The table as the build made it: with MD5 entry or without."""
    table_offset: int
    others: tuple[FlashFile, ...]
    """Images for data partitions that the build also flashes (otadata, file systems, …)."""
    sdkconfig: Mapping[str, str] | None
    """``CONFIG_…`` names and values; None: unknown, so is what the firmware burns by itself."""
    flash_size_bytes: int
    """Flash chip that the build is for."""
    remarks: tuple[str, ...] = ()
    """What a person should know before this is flashed."""

    @property
    def version(self) -> str:
        return self.release.version

    @property
    def project(self) -> str:
        return self.release.project_name

    @property
    def secure_version(self) -> int:
        return self.release.secure_version

    @property
    def idf_version(self) -> str:
        """Of the app, as its description says, e.g. ``v5.5.5``."""
        return self.release.description.idf_ver

    @property
    def speaks(self) -> bool:
        """The app has the companion's UART protocol: it takes commands, and answers with events."""
        return EVENT_MARK in self.release.image

    @property
    def is_companion(self) -> bool:
        """It is this project's own app, whose versions differ in nothing but their number."""
        return self.project == PROJECT and self.speaks

    @property
    def encryption(self) -> str | None:
        """Flash encryption that the build is made for: ``off``, ``development``, ``release``; None: unknown."""
        if self.sdkconfig is None:
            return None
        if self.sdkconfig.get("CONFIG_SECURE_FLASH_ENC_ENABLED") != "y":
            return "off"
        release = self.sdkconfig.get("CONFIG_SECURE_FLASH_ENCRYPTION_MODE_RELEASE") == "y"
        return "release" if release else "development"

    @property
    def secure_boot(self) -> bool | None:
        """Whether bootloader and app are built for secure boot v2; None: unknown."""
        if self.sdkconfig is None:
            return None
        return self.sdkconfig.get("CONFIG_SECURE_BOOT") == "y" and not self.secure_boot_v1

    @property
    def secure_boot_v1(self) -> bool:
        """They are built for the ESP32's older secure boot, which this project does not do."""
        return (self.sdkconfig or {}).get("CONFIG_SECURE_BOOT_V1_ENABLED") == "y"

    @property
    def signing_scheme(self) -> SigningScheme | None:
        """What its bootloader and app verify; None: nothing, or unknown."""
        config = self.sdkconfig or {}
        if config.get("CONFIG_SECURE_SIGNED_APPS_RSA_SCHEME") == "y":
            return SigningScheme.RSA_3072
        if config.get("CONFIG_SECURE_SIGNED_APPS_ECDSA_V2_SCHEME") != "y":
            return None
        lengths = {"192": SigningScheme.ECDSA_P192, "384": SigningScheme.ECDSA_P384}
        for length, scheme in lengths.items():
            if config.get(f"CONFIG_SECURE_BOOT_ECDSA_KEY_LEN_{length}_BITS") == "y":
                return scheme
        return SigningScheme.ECDSA_P256

    @property
    def sdkconfig_text(self) -> str | None:
        """The configuration as a file, for a twin that is to run the real bootloader."""
        return None if self.sdkconfig is None else to_text(self.sdkconfig, idf_version=self.idf_version)


def read_app_dir(folder: Path, *, chip: Chip | None = None) -> AppDirectory:
    """The build in `folder`.

    Args:
        folder: of a `harness build`, or the build folder of an ESP-IDF project.
        chip: what it must be for, when that is known.

    Raises:
        UsageError: something is missing, damaged, for another chip, or has no OTA layout; says what and where.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UsageError(f"--app {folder}: there is no such folder", todo="name the folder that a build left")
    if (folder / ARTEFACTS_FILE).is_file():
        found = _from_artefacts(Artefacts.read(folder))
    elif (folder / FLASHER_ARGS).is_file():
        found = _from_idf(read_idf_build_folder(folder))
    else:
        inside = folder / "build"
        is_project = (inside / FLASHER_ARGS).is_file()
        raise UsageError(
            f"{folder} holds no build: it has neither {ARTEFACTS_FILE} nor {FLASHER_ARGS}",
            todo=f"name {inside}" if is_project else "name the folder that a build left",
        )
    if chip is not None and found.chip.name != chip.name:
        raise UsageError(
            f"the build in {folder} is for {found.chip.title}, the board is {chip.title}",
            todo=f"give a build for {chip.name}",
        )
    return found


def _from_artefacts(made: Artefacts) -> AppDirectory:
    release = _app(made.app, read_bytes(made.app), made.chip)
    table = made.partition_table
    place = table.factory or (table.ota_slots[0] if table.ota_slots else None)
    if place is None:
        raise _no_ota(made.dir)
    return _checked(
        AppDirectory(
            dir=made.dir,
            chip=made.chip,
            kind=made.kind,
            release=release,
            app_partition=place,
            bootloader=read_bytes(made.bootloader),
            partition_table=table,
            table_image=table.to_binary(),
            table_offset=made.table_offset,
            others=(),
            sdkconfig=made.sdkconfig,
            flash_size_bytes=_flash_size(made.sdkconfig, release.parsed),
        )
    )


def _from_idf(build: IdfBuildFolder) -> AppDirectory:
    chip = chip_named(build.target)
    app, table_file = build.file("app"), build.file("partition-table")
    for role, file in (("app", app), ("partition table", table_file)):
        if file is None:
            raise UsageError(
                f"the build in {build.dir} has no {role}: {FLASHER_ARGS} names none", todo=_REBUILD
            )
    assert app is not None
    assert table_file is not None
    release = _app(app.path, app.data, chip)
    try:
        table = PartitionTable.from_binary(table_file.data)
    except FormatError as error:
        raise UsageError(f"{table_file.path}: {error.message}", todo=error.todo) from error
    place = next((each for each in table.partitions if each.is_app and each.offset == app.offset), None)
    if place is None:
        raise UsageError(
            f"{build.dir / FLASHER_ARGS} puts the app at {app.offset:#x}, where {table_file.path.name} has no app "
            "partition",
            todo="the two are of different builds: build again",
        )
    bootloader = build.file("bootloader") or _left_out_bootloader(build, chip)
    named = (app, table_file, bootloader)
    return _checked(
        AppDirectory(
            dir=build.dir,
            chip=chip,
            kind="native" if NativeMark.from_description(release.description) else "target",
            release=release,
            app_partition=place,
            bootloader=bootloader.data,
            partition_table=table,
            table_image=table_file.data,
            table_offset=table_file.offset,
            others=tuple(file for file in build.files if file not in named),
            sdkconfig=build.sdkconfig,
            flash_size_bytes=_flash_size(build.sdkconfig, release.parsed),
            remarks=_remarks(build, release),
        ),
        bootloader_offset=bootloader.offset,
    )


def _left_out_bootloader(build: IdfBuildFolder, chip: Chip) -> FlashFile:
    """With secure boot v2 a build leaves the bootloader out of what ``idf.py flash`` writes."""
    path = build.dir / BOOTLOADER
    if not path.is_file():
        raise UsageError(
            f"the build in {build.dir} has no bootloader: {FLASHER_ARGS} names none, and {BOOTLOADER} is not there",
            todo="build it with 'idf.py bootloader', or copy the whole build folder",
        )
    return FlashFile("bootloader", chip.bootloader_offset, path, read_bytes(path))


def _app(path: Path, data: bytes, chip: Chip) -> Release:
    try:
        release = parse_release(data, name=str(path))
    except FormatError as error:
        raise UsageError(error.message, todo=error.todo) from error
    _require_chip(release.parsed, path.name, path.parent, chip)
    return release


def _require_chip(image: AppImage, name: str, folder: Path, chip: Chip) -> None:
    if image.chip_id != chip.chip_id:
        raise UsageError(
            f"{folder / name} has chip id {image.chip_id}, {chip.title} has {chip.chip_id}", todo=_REBUILD
        )


def _checked(app: AppDirectory, *, bootloader_offset: int | None = None) -> AppDirectory:
    """Demands of the whole what each file alone does not show.

    Raises:
        UsageError: an image does not fit its place, the bootloader is broken, or there is no OTA layout.
    """
    table, chip = app.partition_table, app.chip
    try:
        bootloader = parse_app_image(app.bootloader)
        table.check(table_offset=app.table_offset, flash_size_bytes=app.flash_size_bytes)
    except FormatError as error:
        raise UsageError(f"the build in {app.dir}: {error.message}", todo=error.todo) from error
    _require_chip(bootloader, "the bootloader", app.dir, chip)
    if not bootloader.is_intact:
        raise UsageError(
            f"the build in {app.dir}: the bootloader is damaged (checksum or SHA-256)", todo=_REBUILD
        )
    if bootloader_offset not in (None, chip.bootloader_offset):
        raise UsageError(
            f"the build in {app.dir} puts the bootloader at {bootloader_offset:#x}; the ROM of {chip.title} starts the "
            f"one at {chip.bootloader_offset:#x}",
            todo=_REBUILD,
        )
    if table.otadata is None or len(table.ota_slots) < 2:
        raise _no_ota(app.dir)
    room = app.table_offset - chip.bootloader_offset
    if len(app.bootloader) > room:
        raise UsageError(
            f"the bootloader has {len(app.bootloader):#x} bytes, and the partition table begins {room:#x} behind it",
            todo="set CONFIG_PARTITION_TABLE_OFFSET=0x10000 and build again",
        )
    if len(app.release.image) > app.app_partition.size:
        raise UsageError(
            f"the app has {len(app.release.image):#x} bytes, its partition {app.app_partition.label} "
            f"{app.app_partition.size:#x}",
            todo="make the partition larger and build again",
        )
    for file in app.others:
        place = table.at(file.offset)
        if place is None or file.offset + len(file.data) > place.end:
            where = f"partition {place.label}" if place else "no partition"
            raise UsageError(
                f"{file.path.name} ({len(file.data):#x} bytes at {file.offset:#x}) lies in {where} and does not fit",
                todo="correct the partition table or the image, and build again",
            )
    return app


def _no_ota(folder: Path) -> UsageError:
    return UsageError(
        f"the app in {folder} cannot be updated: its partition table lacks otadata or has fewer than two OTA slots",
        todo="use a partition table with otadata, ota_0 and ota_1 (CONFIG_PARTITION_TABLE_TWO_OTA or a CSV)",
    )


def _flash_size(sdkconfig: Mapping[str, str] | None, app: AppImage) -> int:
    """Of the configuration, else of the image's header, which may stand for "find out"."""
    text = (sdkconfig or {}).get("CONFIG_ESPTOOLPY_FLASHSIZE", "").strip('"')
    if text.endswith("MB") and text[:-2].isdecimal():
        return int(text[:-2]) << 20
    return app.flash_size_bytes


def is_signed(image: bytes) -> bool:
    """Whether a secure boot v2 signature block, right or wrong, follows `image`, which is an app or a bootloader.

    Raises:
        FormatError: no image.
    """
    return bool(blocks_of(image))


def with_images(app: AppDirectory, *, bootloader: bytes, release: Release) -> AppDirectory:
    """The same build with other images, such as signed ones.

    Raises:
        UsageError: one does not fit its place.
    """
    return _checked(replace(app, bootloader=bootloader, release=release))


def _remarks(build: IdfBuildFolder, release: Release) -> tuple[str, ...]:
    found = []
    config = build.sdkconfig
    if config is None:
        found.append("there is no sdkconfig: nobody can tell which eFuses this firmware burns by itself")
    told = build.project.get("project_version")
    if isinstance(told, str) and told and told != release.version:
        found.append(
            f"the image says version {release.version}, {build.dir.name} was configured as {told}: it may be stale"
        )
    return tuple(found)
