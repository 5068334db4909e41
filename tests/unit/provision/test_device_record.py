"""Device records: what remains known of a board that tells nothing any more."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.provision import DeviceRecord, DeviceRecords, Lock, Profile
from harness.vault import DamagedError, NewerFormatError
from harness.vault.record_file import read_record, write_record

MAC = "02:00:00:aa:bb:01"
RECORD = DeviceRecord(
    mac=MAC,
    chip_name="esp32c3",
    profile=Profile.RELEASE,
    lock=Lock.SECURE_DOWNLOAD,
    key_id="0123456789abcdef",
    key_state="test-only",
    key_block="BLOCK_KEY0",
    fuses={"SPI_BOOT_CRYPT_CNT": 7},
    flashed={"app": "00" * 32},
    plan_id="fedcba9876543210",
    updated="2025-01-01T00:00:00+00:00",
)


@pytest.fixture
def records(tmp_path: Path) -> DeviceRecords:
    return DeviceRecords(tmp_path / "devices")


def file_of(records: DeviceRecords) -> Path:
    return records.folder / "02-00-00-aa-bb-01.json"


def test_a_record_comes_back_as_it_was_written(records):
    assert records.read(MAC) is None
    records.write(RECORD)
    assert records.read(MAC.upper()) == RECORD
    assert records.all() == (RECORD,)
    later = dataclasses.replace(RECORD, profile=Profile.DEVELOPMENT, differences=("RD_DIS is 1, not 0",))
    records.write(later)
    assert records.read(MAC) == later


def test_only_a_key_that_is_not_for_tests_alone_may_be_shipped():
    assert not RECORD.shippable
    assert dataclasses.replace(RECORD, key_state=None).shippable


def test_a_newer_record_is_refused_and_not_overwritten(records):
    records.write(RECORD)
    fields = read_record(file_of(records), newest=1, what="record")
    write_record(file_of(records), {**fields, "format": 2})
    before = file_of(records).read_bytes()
    with pytest.raises(NewerFormatError):
        records.read(MAC)
    with pytest.raises(NewerFormatError):
        records.write(RECORD)
    assert file_of(records).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", json.dumps(RECORD.to_fields()).encode()])
def test_a_damaged_record_is_told_and_kept_aside(records, content):
    records.write(RECORD)
    file_of(records).write_bytes(content)
    with pytest.raises(DamagedError, match="device record"):
        records.read(MAC)
    records.write(RECORD)
    assert records.read(MAC) == RECORD
    assert file_of(records).with_suffix(".damaged").read_bytes() == content


def test_a_record_under_another_mac_is_not_believed(records):
    records.write(RECORD)
    (records.folder / "02-00-00-aa-bb-02.json").write_bytes(file_of(records).read_bytes())
    with pytest.raises(DamagedError, match=f"is that of {MAC}"):
        records.read("02:00:00:aa:bb:02")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("profile", "superb"),
        ("lock", 7),
        ("fuses", []),
        ("mac", 3),
        ("flashed", None),
        ("key_state", "escrowed"),
    ],
)
def test_a_field_that_cannot_be_is_damage(records, field, value):
    records.write(RECORD)
    fields = read_record(file_of(records), newest=1, what="record")
    write_record(file_of(records), {**fields, field: value})
    with pytest.raises((DamagedError, UsageError)):
        records.read(MAC)


def test_a_mac_that_is_none_never_becomes_a_path(records):
    with pytest.raises(UsageError, match="not a MAC"):
        records.read("../../etc/passwd")
