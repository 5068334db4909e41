"""A bundle: one version for one device, as files a person can keep, send, or flash over UART.

``image.bin`` is the image as it was built, ``ota_N.bin`` its ciphertext for that slot (the very bytes that
``write-flash`` puts there), ``ota_N.pkg`` the OTA package, ``manifest.json`` says what is what, with hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness.chips import CHIPS, Chip
from harness.errors import FormatError, LabError, UsageError
from harness.formats.ota_package import HEADER_BYTES, key_id_of, parse_package
from harness.formats.partition import Partition
from harness.formats.partition_table import PartitionTable
from harness.ota.mac_address import normal_mac, parse_mac
from harness.ota.release import Release, Sign, make_package, parse_release

FORMAT_VERSION = 1
"""Version of manifest.json that this code writes; newer ones are refused."""

MANIFEST = "manifest.json"
IMAGE = "image.bin"
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILE_BYTES = 1 << 28
"""Twice the largest flash chip that an image header can name."""
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SlotUpdate:
    """What brings the bundle's version into one slot."""

    index: int
    """k of ota_k."""
    label: str
    offset: int
    size_bytes: int
    """Of the slot."""
    package: bytes = field(repr=False)

    @property
    def body(self) -> bytes:
        """The bare bin: what ``write-flash`` puts at `offset`."""
        return self.package[HEADER_BYTES:]

    @property
    def body_file(self) -> str:
        """Its file in the bundle's folder."""
        return f"ota_{self.index}.bin"

    @property
    def package_file(self) -> str:
        """The package's file in the bundle's folder."""
        return f"ota_{self.index}.pkg"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version for one device, for every OTA slot it has."""

    chip: Chip
    mac: str
    key_id: str | None
    """16 hex digits that name the flash key; None: not enciphered."""
    release: Release
    slots: tuple[SlotUpdate, ...]
    """By slot index."""

    def for_slot(self, slot: str | int | Partition) -> SlotUpdate:
        """The update for a slot, by label, flash offset or partition.

        Raises:
            UsageError: the bundle has none for it.
        """
        wanted = slot.offset if isinstance(slot, Partition) else slot
        for update in self.slots:
            if wanted in (update.label, update.offset):
                return update
        has = ", ".join(update.label for update in self.slots)
        raise UsageError(f"the bundle has no update for slot {slot!r}", todo=f"it has: {has}")


def make_bundle(
    release: Release, *, chip: Chip, mac: str, key: bytes | None, table: PartitionTable, sign: Sign
) -> Bundle:
    """Encipher and sign `release` for every OTA slot of the device.

    Raises:
        UsageError: the table has no OTA slot; else see `make_package`.
    """
    if not table.ota_slots:
        raise UsageError(
            "the partition table has no OTA slot", todo="give it ota_0 and ota_1 of type app, and otadata"
        )
    updates = []
    for slot in table.ota_slots:
        package = make_package(release, chip=chip, mac=mac, key=key, slot=slot, sign=sign)
        updates.append(SlotUpdate(slot.ota_index or 0, slot.label, slot.offset, slot.size, package))
    key_id = None if key is None else key_id_of(key).hex()
    return Bundle(chip, normal_mac(mac), key_id, release, tuple(updates))


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the bundle to `folder`, which appears whole or not at all; an older bundle there is replaced.

    Raises:
        UsageError: `folder` holds something that is no bundle. LabError: it cannot be written.
    """
    files = _files_of(bundle)
    folder = folder.absolute()
    mark = secrets.token_hex(4)
    fresh = folder.with_name(f".{folder.name}.{mark}.new")
    stale = folder.with_name(f".{folder.name}.{mark}.old")
    try:
        _check_replaceable(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()
        for name, data in files.items():
            _write_synced(fresh / name, data)
        if folder.exists():
            folder.rename(stale)
        fresh.rename(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        if stale.exists() and not folder.exists():
            stale.rename(folder)
        raise LabError(
            f"bundle {folder} cannot be written: {error.strerror or error}",
            todo="check that its parent folder is writable and has space left",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(stale, ignore_errors=True)


def read_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`: every file is there, has its hash, and is what the manifest says it is.

    Signatures are not judged here, see `signature_is_good`.

    Raises:
        UsageError: there is no bundle, or a file cannot be read. FormatError: the manifest is of a newer
            release, damaged, or does not agree with a file; the message names file and field.
    """
    manifest = _read_manifest(folder / MANIFEST)
    chip_name = _entry(manifest, "chip", str)
    chip = CHIPS.get(chip_name)
    if chip is None:
        raise FormatError(
            f"{MANIFEST}: chip '{chip_name}' is not supported", todo=f"one of {', '.join(CHIPS)}"
        )
    mac = normal_mac(_entry(manifest, "mac", str))
    key_id = _entry(manifest, "key_id", str) if manifest.get("key_id") is not None else None
    release = parse_release(_read_file(folder, _entry(manifest, "image", dict)), name=IMAGE)
    for name, found in _facts_of(release).items():
        _agree(name, _entry(manifest, name, type(found)), found, IMAGE)
    slots = _entry(manifest, "slots", list)
    if not slots or not all(isinstance(slot, dict) for slot in slots):
        raise FormatError(f"{MANIFEST}: slots is not a list of slots", todo="make the bundle again")
    updates = tuple(_read_slot(folder, slot, chip, mac, key_id, release) for slot in slots)
    indices = [update.index for update in updates]
    if indices != sorted(set(indices)) or indices[0] < 0:
        raise FormatError(f"{MANIFEST}: slots are not in order of index", todo="make the bundle again")
    return Bundle(chip, mac, key_id, release, updates)


def _facts_of(release: Release) -> dict[str, str | int]:
    return {
        "project": release.project_name,
        "version": release.version,
        "secure_version": release.secure_version,
    }


def _files_of(bundle: Bundle) -> dict[str, bytes]:
    files = {IMAGE: bundle.release.image}
    slots = []
    for update in bundle.slots:
        files[update.body_file] = update.body
        files[update.package_file] = update.package
        slots.append(
            {
                "index": update.index,
                "label": update.label,
                "offset": update.offset,
                "size_bytes": update.size_bytes,
                "body": _file_entry(update.body_file, update.body),
                "package": _file_entry(update.package_file, update.package),
            }
        )
    manifest = {
        "format": FORMAT_VERSION,
        "chip": bundle.chip.name,
        "mac": bundle.mac,
        "cipher": None if bundle.key_id is None else bundle.chip.cipher.value,
        "key_id": bundle.key_id,
        **_facts_of(bundle.release),
        "image": _file_entry(IMAGE, bundle.release.image),
        "slots": slots,
    }
    files[MANIFEST] = (json.dumps(manifest, indent=2) + "\n").encode()
    return files


def _file_entry(name: str, data: bytes) -> dict[str, str | int]:
    return {"file": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _read_manifest(path: Path) -> Mapping[str, Any]:
    raw = _read_bounded(path, _MAX_MANIFEST_BYTES)
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON: {error}", todo="make the bundle again") from error
    if not isinstance(manifest, dict):
        raise FormatError(f"{path} is not a JSON object", todo="make the bundle again")
    version = _entry(manifest, "format", int)
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{path}: format is {version}, this release reads {FORMAT_VERSION}",
            todo="use the release of this project that made the bundle, or a newer one",
        )
    return manifest


def _read_slot(
    folder: Path, slot: Mapping[str, Any], chip: Chip, mac: str, key_id: str | None, release: Release
) -> SlotUpdate:
    package_entry = _entry(slot, "package", dict)
    package = _read_file(folder, package_entry)
    name = _entry(package_entry, "file", str)
    update = SlotUpdate(
        index=_entry(slot, "index", int),
        label=_entry(slot, "label", str),
        offset=_entry(slot, "offset", int),
        size_bytes=_entry(slot, "size_bytes", int),
        package=package,
    )
    try:
        header, _, body = parse_package(package)
        header.check_body(body)
    except FormatError as error:
        raise FormatError(f"{name}: {error.message}", todo=error.todo) from error
    _agree("chip", chip.chip_id, header.chip_id, name)
    _agree("cipher", chip.cipher.number if key_id is not None else 0, header.cipher_number, name)
    _agree("mac", parse_mac(mac), header.mac, name)
    _agree("key_id", bytes(8).hex() if key_id is None else key_id, header.key_id.hex(), name)
    _agree("offset", update.offset, header.slot_offset, name)
    _agree("size_bytes", update.size_bytes, header.slot_size, name)
    _agree("version", release.version, header.version, name)
    _agree("image", release.sha256, header.image_sha256, name)
    if _read_file(folder, _entry(slot, "body", dict)) != update.body:
        raise FormatError(
            f"bundle: the bare bin of slot {update.label} is not the body of its package",
            todo="make the bundle again",
        )
    return update


def _agree(what: str, manifest: object, found: object, name: str) -> None:
    if manifest != found:
        raise FormatError(
            f"{MANIFEST} and {name} disagree about {what}", todo="the bundle was changed: make it again"
        )


def _read_file(folder: Path, entry: Mapping[str, Any]) -> bytes:
    name = _entry(entry, "file", str)
    if not _FILE_NAME.fullmatch(name):
        raise FormatError(f"{MANIFEST}: '{name}' is not the name of a file in the bundle")
    size_bytes = _entry(entry, "size_bytes", int)
    if not 0 <= size_bytes <= _MAX_FILE_BYTES:
        raise FormatError(f"{MANIFEST}: size_bytes of '{name}' is {size_bytes}", todo="make the bundle again")
    data = _read_bounded(folder / name, size_bytes)
    if len(data) != size_bytes or hashlib.sha256(data).hexdigest() != _entry(entry, "sha256", str).lower():
        raise FormatError(
            f"{folder / name} is not the file that the manifest lists: size or SHA-256 differ",
            todo="the file is damaged or was replaced: make the bundle again",
        )
    return data


def _read_bounded(path: Path, most_bytes: int) -> bytes:
    """At most one byte more than `most_bytes`: enough to see that a file is too long."""
    try:
        with path.open("rb") as file:
            return file.read(most_bytes + 1)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}", todo="give the folder of a whole bundle"
        ) from error


def _entry(mapping: Mapping[str, Any], key: str, kind: type[_T]) -> _T:
    value = mapping.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise FormatError(
            f"{MANIFEST}: field '{key}' is missing or not {kind.__name__}", todo="make the bundle again"
        )
    return value


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file", todo="give another folder for the bundle")
    names = {path.name for path in folder.iterdir()}
    strange = sorted(
        name
        for name in names
        if name not in (MANIFEST, IMAGE) and not re.fullmatch(r"ota_\d+\.(bin|pkg)", name)
    )
    if strange or (names and MANIFEST not in names):
        what = f"'{strange[0]}'" if strange else f"files but no {MANIFEST}"
        raise UsageError(
            f"{folder} holds {what} and is not replaced by a bundle", todo="give an empty or a new folder"
        )


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # Windows cannot open a folder for this
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
