"""What is known of one chip, by MAC: which key, which fuses, which profile, what was flashed. Not secret.

It is what remains to know of a board whose download mode tells nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import LabError
from harness.provision.profile import Lock, Profile
from harness.vault.errors import DamagedError
from harness.vault.key_record import KeyRecord
from harness.vault.key_ref import DO_NOT_SHIP, KeyState, plain_mac
from harness.vault.record_file import make_private_folder, now_utc, read_record, write_record

FORMAT = 1

RAW_UPDATE_THERE = "raw-update-there"
RAW_UPDATE_BACK = "raw-update-back"
ROLLBACK = "rollback"
PROOFS_FOR_DOWNLOAD_OFF = {
    RAW_UPDATE_THERE: "a raw update to the other slot",
    RAW_UPDATE_BACK: "a raw update back",
    ROLLBACK: "a rollback",
}
"""What must have passed on a board before nothing but its firmware can ever change its flash."""


@dataclass(frozen=True, slots=True)
class Passed:
    """Something that this very board has been seen to do."""

    what: str
    when: str
    """UTC, ISO 8601."""
    version: str
    """Of the firmware that did it."""

    def to_fields(self) -> dict[str, Any]:
        """For its record's file."""
        return {"what": self.what, "when": self.when, "version": self.version}


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """One board as the harness left it."""

    mac: str
    chip_name: str
    profile: Profile
    lock: Lock
    key_id: str | None
    """Key id of its flash key; None for ``open``."""
    key_state: str | None
    """`KeyState`'s word when this was written, e.g. ``test-only``: then the device must not be shipped."""
    key_block: str | None
    fuses: Mapping[str, int]
    """Snapshot of BLOCK0 after provisioning."""
    flashed: Mapping[str, str]
    """Region name -> SHA-256 of its plaintext."""
    plan_id: str
    updated: str
    """UTC, ISO 8601."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Digest slot -> boot key's digest, hexadecimal; empty without secure boot."""
    proven: tuple[Passed, ...] = ()
    """What has passed on this board, the last time of each."""
    differences: tuple[str, ...] = ()
    """What its firmware read otherwise than the last plan that burned had promised; empty: all was as promised."""

    def passed(self, what: str) -> Passed | None:
        """When `what` last passed, or None."""
        return next((each for each in self.proven if each.what == what), None)

    def missing_proofs(self) -> tuple[str, ...]:
        """What has not passed yet and must, before UART download may be switched off; in words."""
        return tuple(words for what, words in PROOFS_FOR_DOWNLOAD_OFF.items() if self.passed(what) is None)

    def to_fields(self) -> dict[str, Any]:
        """For its file."""
        return {
            "format": FORMAT,
            "mac": self.mac,
            "chip": self.chip_name,
            "profile": self.profile.value,
            "lock": self.lock.value,
            "key_id": self.key_id,
            "key_state": self.key_state,
            "ship": DO_NOT_SHIP if not self.shippable else "nothing known speaks against it",
            "key_block": self.key_block,
            "fuses": dict(sorted(self.fuses.items())),
            "flashed": dict(sorted(self.flashed.items())),
            "plan_id": self.plan_id,
            "updated": self.updated,
            "digests": dict(sorted(self.digests.items())),
            "proven": [each.to_fields() for each in self.proven],
            "differences": list(self.differences),
        }

    @property
    def shippable(self) -> bool:
        """Whether nothing known here speaks against shipping the device."""
        return self.key_state is None or KeyState(self.key_state).shippable


class DeviceRecords:
    """The folder of device records, one JSON file per MAC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, mac: str) -> DeviceRecord | None:
        """The record of `mac`, or None.

        Raises:
            NewerFormatError: a newer harness wrote it.
            DamagedError: it cannot be understood.
        """
        file = self._file(mac)
        if not file.exists():
            return None
        fields = read_record(file, newest=FORMAT, what="the device record", private=False)
        try:
            record = DeviceRecord(
                mac=plain_mac(fields["mac"]),
                chip_name=fields["chip"],
                profile=Profile(fields["profile"]),
                lock=Lock(fields["lock"]),
                key_id=fields["key_id"],
                key_state=None if fields["key_state"] is None else KeyState(fields["key_state"]).value,
                key_block=fields["key_block"],
                fuses={str(name): int(value) for name, value in fields["fuses"].items()},
                flashed={str(name): str(value) for name, value in fields["flashed"].items()},
                plan_id=fields["plan_id"],
                updated=fields["updated"],
                digests={str(slot): str(digest) for slot, digest in fields.get("digests", {}).items()},
                proven=tuple(
                    Passed(str(each["what"]), str(each["when"]), str(each["version"]))
                    for each in fields.get("proven", ())
                ),
                differences=tuple(str(each) for each in fields.get("differences", ())),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DamagedError(
                f"the device record {file} is damaged: {type(error).__name__} {error}"
            ) from error
        if record.mac != plain_mac(mac):
            raise DamagedError(f"the device record {file} is that of {record.mac}")
        return record

    def write(self, record: DeviceRecord) -> None:
        """Stores `record`, synced, in place of an earlier one.

        Raises:
            NewerFormatError: the one that is there is newer than this code; it is not touched.
            LabError: it cannot be written.
        """
        file = self._file(record.mac)
        if file.exists():
            try:
                read_record(file, newest=FORMAT, what="the device record", private=False)
            except DamagedError:
                file.rename(file.with_suffix(".damaged"))
        make_private_folder(self.folder)
        write_record(file, record.to_fields())

    def note_proof(self, mac: str, what: str, *, version: str, when: str) -> None:
        """Remembers that `what` has passed on the board `mac`, in place of an earlier time; without a record, nothing.

        Args:
            what: e.g. `RAW_UPDATE_THERE`.
            version: of the firmware that did it.
            when: UTC, ISO 8601.
        """
        record = self.read(mac)
        if record is None:
            return
        others = tuple(each for each in record.proven if each.what != what)
        self.write(replace(record, proven=(*others, Passed(what, when, version))))

    def note_differences(self, mac: str, differences: tuple[str, ...]) -> None:
        """Remembers that the board `mac` is not as its plan had promised; without a record, nothing.

        Args:
            differences: in words; empty: it is as promised.
        """
        record = self.read(mac)
        if record is not None and record.differences != differences:
            self.write(replace(record, differences=differences))

    def note_key(self, key: KeyRecord) -> DeviceRecord | None:
        """Brings the state of the key in the device's record up to date; None: there is no record, or it has no key.

        Raises:
            as `read` and `write`.
        """
        record = self.read(key.mac)
        if record is None or record.key_id != (key.key_id or None):
            return None
        if record.key_state != key.state.value:
            record = replace(record, key_state=key.state.value, updated=now_utc())
            self.write(record)
        return record

    def all(self) -> tuple[DeviceRecord, ...]:
        """Every record that can be read, by MAC; a damaged one raises."""
        try:
            names = sorted(file.stem.replace("-", ":") for file in self.folder.glob("*.json"))
        except OSError as error:
            raise LabError(f"{self.folder} cannot be read: {error.strerror}") from error
        return tuple(record for name in names if (record := self.read(name)) is not None)

    def _file(self, mac: str) -> Path:
        return self.folder / f"{plain_mac(mac).replace(':', '-')}.json"
