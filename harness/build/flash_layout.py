"""What of a build goes where in flash, and what becomes of every partition that is there. Pure.

What a chip with encryption on keeps enciphered follows from the partition table alone: bootloader, table, apps,
otadata and NVS keys always, the rest by the flag in the table (``esp_partition.c``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum

from harness.build.app_dir import AppDirectory
from harness.build.fuses_burned import APP, BOOTLOADER, SelfBurns
from harness.build.idf_build_folder import FlashFile
from harness.errors import UsageError
from harness.formats.otadata import OtaData
from harness.formats.partition import SUBTYPE_NVS, SUBTYPE_NVS_KEYS, TYPE_DATA, Partition
from harness.provision.region import FlashRegion

NO_BURNS = SelfBurns(())


class Fate(str, Enum):
    """What a plan does to one partition."""

    WRITTEN = "written"
    KEPT = "kept"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class PartitionFate:
    """One partition, what is done to it, and why."""

    name: str
    offset: int
    size: int
    fate: Fate
    stored_encrypted: bool
    """What a chip with encryption on keeps there is ciphertext."""
    why: str

    def text(self) -> str:
        """One line of a plan."""
        return f"{self.name} at {self.offset:#x} ({self.size:#x} bytes): {self.fate.value}, {self.why}"


@dataclass(frozen=True, slots=True)
class FlashLayout:
    """What is written, and what becomes of the rest."""

    regions: tuple[FlashRegion, ...] = field(repr=False)
    """For `harness.provision.planner.plan_for`, by offset."""
    fates: tuple[PartitionFate, ...]
    """Bootloader, table and every partition, by offset."""

    def lines(self) -> tuple[str, ...]:
        """For a plan."""
        return tuple(fate.text() for fate in self.fates)


def lay_out(
    app: AppDirectory,
    *,
    encrypts: bool,
    burns: SelfBurns = NO_BURNS,
    write: Collection[str] = (),
    erase: Collection[str] = (),
) -> FlashLayout:
    """Decides it for every partition of the build's table.

    Bootloader, table, otadata and the app are written. So are images that the build has for other partitions,
    but for NVS and its keys, in which a device keeps what it is; everything else is kept.

    Args:
        app: the build.
        encrypts: whether the board's flash is encrypted in the end.
        burns: what the firmware burns by itself; bootloader and app carry it into the plan.
        write: labels of partitions whose image is written although they would be kept (``nvs``).
        erase: labels of partitions that are left blank.

    Raises:
        UsageError: a label that the table does not have, or that cannot be treated so.
    """
    table = app.partition_table
    images = _images(app)
    for label in {*write, *erase}:
        table.find(label)
    missing = sorted(label for label in write if label not in images)
    if missing:
        raise UsageError(
            f"the build in {app.dir} has no image for partition {missing[0]}",
            todo="leave it out of what is written",
        )
    regions = [
        FlashRegion(
            "bootloader", app.chip.bootloader_offset, app.bootloader, burns_up_to=burns.up_to(BOOTLOADER)
        ),
        FlashRegion("partition-table", app.table_offset, app.table_image),
    ]
    room = app.table_offset - app.chip.bootloader_offset
    ours = "enciphered" if encrypts else "as it is"
    fates = [
        PartitionFate("bootloader", app.chip.bootloader_offset, room, Fate.WRITTEN, True, ours),
        PartitionFate("partition-table", app.table_offset, 0x1000, Fate.WRITTEN, True, ours),
    ]
    for partition in table.partitions:
        if partition.is_primary:
            continue
        file = images.get(partition.label)
        fate, why = _fate(partition, file, encrypts=encrypts, write=write, erase=erase)
        if fate is not Fate.KEPT:
            regions.append(_region(app, partition, file, fate, burns))
        fates.append(
            PartitionFate(
                partition.label, partition.offset, partition.size, fate, partition.is_stored_encrypted, why
            )
        )
    return FlashLayout(
        tuple(sorted(regions, key=lambda each: each.offset)),
        tuple(sorted(fates, key=lambda each: each.offset)),
    )


def _images(app: AppDirectory) -> Mapping[str, tuple[FlashFile | None, bytes]]:
    """By label: the file (None for otadata that is made here) and its bytes."""
    found: dict[str, tuple[FlashFile | None, bytes]] = {}
    for file in app.others:
        place = app.partition_table.at(file.offset)
        assert place is not None
        if place.label in found or place.label == app.app_partition.label or file.offset != place.offset:
            raise UsageError(
                f"{file.path.name} is to be flashed at {file.offset:#x}, inside of partition {place.label}, not as "
                "its one image",
                todo="give each partition at most one image, which begins where it begins",
            )
        found[place.label] = (file, file.data)
    otadata = app.partition_table.otadata
    if otadata is not None and otadata.label not in found:
        # Enciphered like the rest: raw 0xFF would decipher to noise and cost the board its memory of the slot.
        found[otadata.label] = (None, OtaData.blank().to_bytes())
    found[app.app_partition.label] = (None, app.release.image)
    return found


def _fate(
    partition: Partition,
    image: tuple[FlashFile | None, bytes] | None,
    *,
    encrypts: bool,
    write: Collection[str],
    erase: Collection[str],
) -> tuple[Fate, str]:
    label = partition.label
    if label in erase:
        if label in write or partition.is_otadata:
            raise UsageError(
                f"partition {label} cannot be erased and written", todo="decide for one of the two"
            )
        return Fate.ERASED, "as asked for"
    identity = partition.type == TYPE_DATA and partition.subtype in (SUBTYPE_NVS, SUBTYPE_NVS_KEYS)
    if image is None:
        if encrypts and partition.is_stored_encrypted and not partition.is_app:
            return Fate.KEPT, "the build has no image for it; what is there in plaintext will read as noise"
        return Fate.KEPT, "the build has no image for it"
    if identity and label not in write:
        return (
            Fate.KEPT,
            "a device keeps in it what it is; the build's image is written only if that is asked for",
        )
    how = "enciphered" if encrypts and partition.is_stored_encrypted else "as it is"
    return Fate.WRITTEN, how


def _region(
    app: AppDirectory,
    partition: Partition,
    image: tuple[FlashFile | None, bytes] | None,
    fate: Fate,
    burns: SelfBurns,
) -> FlashRegion:
    if fate is Fate.ERASED:
        # Blank flash is 0xFF as it lies there, whatever it deciphers to.
        blank = b"\xff" * partition.size
        return FlashRegion(partition.label, partition.offset, blank, stored_encrypted=False)
    assert image is not None
    is_app = partition.label == app.app_partition.label
    return FlashRegion(
        partition.label,
        partition.offset,
        image[1],
        stored_encrypted=partition.is_stored_encrypted,
        burns_up_to=burns.up_to(APP) if is_app else None,
    )
