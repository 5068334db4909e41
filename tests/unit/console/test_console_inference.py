"""What two boots together tell: rollback, fall-back, silent downgrade, disagreement."""

from __future__ import annotations

import json

import pytest
from console_samples import booted, event_text, lines_from, tracked

from harness.console.inference import Baseline, Finding, FindingKind, boots_to_json, find, with_findings


def findings_of(texts, before=None):
    marks = [line for line in lines_from(texts) if line.is_mark]
    return find(tracked(texts).records, marks, before=before)


def kinds_of(texts, before=None):
    return [(f.boot, f.kind.value, f.inferred) for f in findings_of(texts, before)]


VERIFIED_1 = ["I (8473) esp_image: segment 0: paddr=001a0020 vaddr=3c070020 size=7dccch (515276) map"]
VERIFIED_0 = ["I (8473) esp_image: segment 0: paddr=00020020 vaddr=3c070020 size=7dccch (515276) map"]
REFUSED_1 = ["E (7835) esp_image: image at 0x1a0000 has invalid magic byte (nothing flashed here?)"]
OTA_DONE = [event_text(1, "ack", id=1, cmd="ota", ok=True), event_text(2, "done", id=1, ok=True)]
CONFIRMED = [event_text(3, "ack", id=2, cmd="confirm", ok=True), event_text(4, "done", id=2, ok=True)]
OTADATA_BAD = ["E (60) boot: ota data partition invalid and no factory, will try all partitions"]
SLOT_1_BAD = ["E (70) boot: OTA app partition slot 1 is not bootable"]

OLD = booted("ota_0", "1.0.0", state="valid")
NEW = booted("ota_1", "1.1.0", state="pending")
NEW_SILENT = booted("ota_1", "1.1.0")

CASES = {
    "update and nothing else": ([*OLD, *OTA_DONE, *NEW], []),
    "update seen by its verification only": ([*OLD, *VERIFIED_1, *NEW_SILENT], []),
    "update, confirmed, restart": (
        [*OLD, *OTA_DONE, *NEW, *CONFIRMED, *booted("ota_1", "1.1.0", state="valid")],
        [],
    ),
    "update and back by another update": (
        [*OLD, *OTA_DONE, *NEW, *CONFIRMED, *VERIFIED_0, *booted("ota_0", "1.2.0", state="pending")],
        [],
    ),
    "restart before confirmation": ([*OLD, *OTA_DONE, *NEW, *OLD], [(3, "rollback", True)]),
    "restart before confirmation, and no event at all": (
        [*booted("ota_0", "1.0.0"), *VERIFIED_1, *NEW_SILENT, *booted("ota_0", "1.0.0")],
        [(3, "rollback", True)],
    ),
    "rollback that a debug bootloader states": (
        [
            *OLD,
            *OTA_DONE,
            *NEW,
            *booted("ota_0", "1.0.0", extra=["D (6) boot: otadata[1] is marking as ABORTED"]),
        ],
        [(3, "rollback", False)],
    ),
    "rollback that the application asked for": (
        [*OLD, *OTA_DONE, *NEW, "I (2735) esp_ota_ops: Rollback to previously worked partition.", *OLD],
        [(3, "rollback", False)],
    ),
    "rollback by command": (
        [*OLD, *OTA_DONE, *NEW, event_text(3, "ack", id=5, cmd="rollback", ok=True), *OLD],
        [(3, "rollback", False)],
    ),
    "pending version gives way after a panic": (
        [*OLD, *OTA_DONE, *NEW, "abort() was called at PC 0x42001234 on core 0", *OLD],
        [(3, "rollback", True)],
    ),
    "confirmed version gives way and no line says why": (
        [*OLD, *OTA_DONE, *NEW, *CONFIRMED, *booted("ota_0", "1.0.0")],
        [(3, "silent-downgrade", True)],
    ),
    "version that booted twice gives way": (
        [*NEW_SILENT, *NEW_SILENT, *booted("ota_0", "1.0.0")],
        [(3, "silent-downgrade", True)],
    ),
    "confirmed version gives way to damaged otadata": (
        [*OLD, *OTA_DONE, *NEW, *CONFIRMED, *booted("ota_0", "1.0.0", extra=OTADATA_BAD)],
        [(3, "otadata-unreadable", False), (3, "silent-downgrade", True)],
    ),
    "confirmed version falls back": (
        [*NEW, *CONFIRMED, *booted("ota_0", "1.0.0", extra=SLOT_1_BAD)],
        [(2, "fall-back-boot", False), (2, "silent-downgrade", True)],
    ),
    "another version in the very same slot": (
        [*NEW, *CONFIRMED, *booted("ota_1", "9.9.9")],
        [(2, "silent-downgrade", True)],
    ),
    "update refused, another boots all the same": (
        [*OLD, *REFUSED_1, *booted("ota_1", "1.1.0")],
        [(2, "silent-downgrade", True)],
    ),
    "refused first, verified then": ([*OLD, *REFUSED_1, *VERIFIED_1, *NEW], []),
    "verified first, refused then": (
        [*OLD, *VERIFIED_1, *REFUSED_1, *NEW_SILENT],
        [(2, "silent-downgrade", True)],
    ),
    "update ended well and did not take": ([*OLD, *OTA_DONE, *OLD], [(2, "update-not-taken", True)]),
    "update refused and nothing changed": ([*OLD, *REFUSED_1, *OLD], []),
    "unknown state changes once": ([*NEW_SILENT, *booted("ota_0", "1.0.0")], [(2, "slot-change", True)]),
    "unconfirmed version and damaged otadata": (
        [*OLD, *OTA_DONE, *NEW, *booted("ota_0", "1.0.0", extra=OTADATA_BAD)],
        [(3, "otadata-unreadable", False), (3, "slot-change", True)],
    ),
    "flash written in between": (
        [*NEW, *CONFIRMED, ">>> flash: esptool has the port", *booted("ota_0", "1.0.0")],
        [],
    ),
    "otadata written from outside": (
        [*NEW, *CONFIRMED, ">>> otadata: esptool has the port", *booted("ota_0", "1.0.0")],
        [],
    ),
    "otadata written wrongly from outside": (
        [*NEW, *CONFIRMED, ">>> otadata: esptool has the port", *booted("ota_0", "1.0.0", extra=OTADATA_BAD)],
        [(2, "otadata-unreadable", False), (2, "silent-downgrade", True)],
    ),
    "port lent only to read": (
        [*NEW, *CONFIRMED, ">>> lent: espefuse has the port", *booted("ota_0", "1.0.0")],
        [(2, "silent-downgrade", True)],
    ),
    "download mode in between": (
        [
            *NEW,
            *CONFIRMED,
            "ESP-ROM:esp32c3-api1-20210207",
            "rst:0x1 (POWERON),boot:0x7 (DOWNLOAD(USB/UART0/1))",
            *OLD,
        ],
        [(3, "silent-downgrade", True)],
    ),
    "otadata names another slot": (
        [*booted("ota_0", "1.0.0"), event_text(0, "boot", slot="ota_0", otadata_slot="ota_1", agree=False)],
        [(1, "otadata-disagrees", False)],
    ),
    "factory resets without a change": ([*OLD, *OLD, *OLD], []),
}


@pytest.mark.parametrize("case", CASES)
def test_boots_in_sequence_give_these_findings(case):
    texts, expected = CASES[case]
    assert kinds_of(texts) == expected


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (Baseline("ota_1", "1.1.0", True), [(1, "silent-downgrade", True)]),
        (Baseline("ota_1", "1.1.0", False), [(1, "rollback", True)]),
        (Baseline("ota_0", "1.0.0", True), []),
        (None, []),
    ],
)
def test_what_ran_before_the_log_counts(before, expected):
    assert kinds_of(OLD, before) == expected


def test_inferred_finding_says_that_no_line_says_so():
    (finding,) = findings_of([*OLD, *OTA_DONE, *NEW, *OLD])
    assert str(finding) == (
        "boot 3: rolled back: 1.1.0 in ota_1 (pending verification) gave way to 1.0.0 in ota_0"
        " (inferred: no line says so)"
    )
    assert finding.evidence[:2] == ("before: 1.1.0 in ota_1 @ 0x1a0000", "now: 1.0.0 in ota_0 @ 0x20000")


def test_findings_go_into_records_and_json():
    texts = [*OLD, *OTA_DONE, *NEW, *OLD]
    records = tracked(texts).records
    findings = find(records)
    last = with_findings(records, findings)[2]
    assert last.inferred == (
        "rollback: rolled back: 1.1.0 in ota_1 (pending verification) gave way to 1.0.0 in ota_0 (inferred)",
    )
    document = json.loads(json.dumps(boots_to_json(records, findings)))
    assert document["format"] == document["findings"][0]["format"] == 1
    assert document["findings"][0]["kind"] == "rollback"
    assert document["boots"][2]["inferred"]


def test_stated_finding_does_not_claim_to_be_inferred():
    assert str(Finding(FindingKind.ROLLBACK, 2, "rolled back", inferred=False)) == "boot 2: rolled back"
