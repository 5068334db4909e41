"""The ledger of what scenarios have used up: on disk before they begin, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import LabError
from harness.provision import DeviceRecords
from harness.provision.consumables import Resource
from harness.provision.consumption_ledger import ConsumptionLedger
from harness.vault import DamagedError, NewerFormatError
from harness.vault.record_file import read_record, write_record

MAC = "02:00:00:aa:bb:01"
BITS, SLOTS = Resource.SECURE_VERSION, Resource.DIGEST_SLOTS


@pytest.fixture
def ledger(tmp_path: Path) -> ConsumptionLedger:
    return ConsumptionLedger(tmp_path / "devices")


def file_of(ledger: ConsumptionLedger) -> Path:
    return ledger.folder / "02-00-00-aa-bb-01.used"


def test_what_was_noted_is_there_for_the_next_run_and_adds_up(ledger: ConsumptionLedger) -> None:
    assert ledger.spent(MAC) == {}
    ledger.note(MAC, "test_a", {BITS: 2})
    ledger.note(MAC.upper(), "test_b", {BITS: 1, SLOTS: 1})
    again = ConsumptionLedger(ledger.folder)
    assert [(use.scenario, dict(use.uses)) for use in again.read(MAC)] == [
        ("test_a", {BITS: 2}),
        ("test_b", {BITS: 1, SLOTS: 1}),
    ]
    assert again.spent(MAC) == {BITS: 3, SLOTS: 1}
    assert again.spent("02:00:00:aa:bb:02") == {}


def test_it_is_no_device_record(ledger: ConsumptionLedger) -> None:
    ledger.note(MAC, "test_a", {BITS: 1})
    assert DeviceRecords(ledger.folder).all() == ()


def test_a_ledger_that_cannot_be_understood_is_not_taken_for_an_empty_one(ledger: ConsumptionLedger) -> None:
    ledger.note(MAC, "test_a", {BITS: 1})
    good = file_of(ledger).read_bytes()
    fields = read_record(file_of(ledger), newest=1, what="ledger")
    for changed, error in (
        ({**fields, "format": 2}, NewerFormatError),
        ({**fields, "used": [{"scenario": "x", "uses": {"luck": 1}, "at": ""}]}, DamagedError),
    ):
        write_record(file_of(ledger), changed)
        with pytest.raises(error):
            ledger.note(MAC, "test_b", {BITS: 1})
    file_of(ledger).write_bytes(good[:-20])
    with pytest.raises(DamagedError):
        ledger.spent(MAC)


def test_what_cannot_be_noted_is_an_error(ledger: ConsumptionLedger) -> None:
    ledger.folder.write_text("in the way")
    with pytest.raises(LabError):
        ledger.note(MAC, "test_a", {BITS: 1})
