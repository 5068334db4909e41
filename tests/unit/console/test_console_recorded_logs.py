"""Every recorded log of real firmware gives exactly the boots that are in it."""

from __future__ import annotations

import functools

import pytest
from console_samples import RECORDED_LOGS

from harness.console.boot_record import Outcome
from harness.console.inference import FindingKind
from harness.console.render import read_boots

# reset, slot, offset, version, encryption, plaintext flashes left, secure boot
C3_POWER, C3_SW = "POWERON", "RTC_SW_CPU_RST"
E32_POWER, E32_SW = "POWERON_RESET", "SW_CPU_RESET"
SLOT_0, SLOT_1 = ("ota_0", 0x20000), ("ota_1", 0x1A0000)
RELEASE, DEVELOPMENT, PLAIN = ("release", 0), ("development", 3), ("off", None)

LOGS = {
    "esp32-fe-neg-stock-preencrypted-idf5.5": [
        (E32_POWER, *SLOT_0, "1.0.0", *RELEASE, False),
        (E32_SW, *SLOT_0, "1.0.0", *RELEASE, False),
    ],
    "esp32-fe-positive-idf5.5": [
        (E32_POWER, *SLOT_0, "1.0.0", *RELEASE, False),
        (E32_SW, *SLOT_1, "1.1.0", *RELEASE, False),
        (E32_SW, *SLOT_1, "1.1.0", *RELEASE, False),
        (E32_SW, *SLOT_0, "1.2.0", *RELEASE, False),
    ],
    "esp32-hello-idf5.5": [(E32_POWER, "factory", 0x10000, "1", *PLAIN, False)],
    "esp32-plain-ota-idf5.5": [
        (E32_POWER, *SLOT_0, "1", *PLAIN, False),
        (E32_SW, *SLOT_1, "2", *PLAIN, False),
    ],
    "esp32-preencrypted-secure-raw-ota-idf5.5": [
        (E32_POWER, *SLOT_0, "1", *DEVELOPMENT, True),
        (E32_SW, *SLOT_1, "2", *DEVELOPMENT, True),
    ],
    "esp32-secure-first-boot-idf5.5": [
        (E32_POWER, *SLOT_0, None, "enabled", None, True),
        ("SW_RESET", *SLOT_0, "1", *DEVELOPMENT, True),
    ],
    "esp32c3-fe-neg-otadata-erased-idf5.5": [
        (C3_POWER, *SLOT_0, "1.0.0", *RELEASE, False),
        (C3_SW, *SLOT_1, "1.1.0", *RELEASE, False),
        (C3_SW, *SLOT_0, "1.0.0", *RELEASE, False),
        (C3_SW, *SLOT_0, "1.0.0", *RELEASE, False),
        (C3_SW, *SLOT_1, "1.2.0", *RELEASE, False),
    ],
    "esp32c3-fe-neg-stock-preencrypted-idf5.5": [
        (C3_POWER, *SLOT_0, "1.0.0", *RELEASE, False),
        (C3_SW, *SLOT_0, "1.0.0", *RELEASE, False),
    ],
    "esp32c3-fe-neg-wrong-slot-idf5.5": [
        (C3_POWER, *SLOT_0, "1.0.0", *RELEASE, False),
        (C3_SW, *SLOT_0, "1.0.0", *RELEASE, False),
    ],
    "esp32c3-fe-pos-stock-plaintext-idf5.5": [
        (C3_POWER, *SLOT_0, "1.0.0", *RELEASE, False),
        (C3_SW, *SLOT_1, "1.1.0", *RELEASE, False),
    ],
    "esp32c3-fe-positive-idf5.5": [
        (C3_POWER, *SLOT_0, "1.0.0", *RELEASE, False),
        (C3_SW, *SLOT_1, "1.1.0", *RELEASE, False),
        (C3_SW, *SLOT_1, "1.1.0", *RELEASE, False),
        (C3_SW, *SLOT_0, "1.2.0", *RELEASE, False),
    ],
    "esp32c3-fe-verify-release-idf5.5": [(C3_POWER, *SLOT_0, "1.9.1", *RELEASE, False)],
    "esp32c3-sb-neg-unsigned-idf5.5": [
        (C3_POWER, *SLOT_0, "1.0.0", *RELEASE, True),
        (C3_SW, *SLOT_0, "1.0.0", *RELEASE, True),
    ],
    "esp32c3-sb-positive-idf5.5": [
        (C3_POWER, *SLOT_0, "1.0.0", *RELEASE, True),
        (C3_SW, *SLOT_1, "1.1.0", *RELEASE, True),
        (C3_SW, *SLOT_1, "1.1.0", *RELEASE, True),
        (C3_SW, *SLOT_0, "1.2.0", *RELEASE, True),
    ],
    "esp32c3-secure-first-boot-development-idf5.5": [
        (C3_POWER, *SLOT_0, None, "enabled", None, True),
        ("RTC_SW_SYS_RST", *SLOT_0, "1", "development", 1, True),
    ],
    "esp32c3-secure-ota-rollback-idf5.5": [
        (C3_POWER, *SLOT_0, None, "enabled", None, True),
        ("RTC_SW_SYS_RST", *SLOT_0, "1.0.0", "development", 1, True),
        (C3_SW, *SLOT_1, "1.0.2-bad", "development", 1, True),
        (C3_SW, *SLOT_0, "1.0.0", "development", 1, True),
    ],
}

FINDINGS = {
    "esp32c3-fe-neg-otadata-erased-idf5.5": [
        (2, FindingKind.OTADATA_UNREADABLE, False),
        (3, FindingKind.OTADATA_UNREADABLE, False),
        (3, FindingKind.SILENT_DOWNGRADE, True),
        (4, FindingKind.OTADATA_UNREADABLE, False),
    ],
    "esp32c3-secure-ota-rollback-idf5.5": [(4, FindingKind.ROLLBACK, False)],
}

ERRORS = {
    (
        "esp32-fe-neg-stock-preencrypted-idf5.5",
        1,
    ): "OTA image has invalid magic byte (expected 0xE9, saw 0x0d)",
    (
        "esp32c3-fe-neg-stock-preencrypted-idf5.5",
        1,
    ): "OTA image has invalid magic byte (expected 0xE9, saw 0x63)",
    (
        "esp32c3-fe-neg-wrong-slot-idf5.5",
        1,
    ): "image at 0x1a0000 has invalid magic byte (nothing flashed here?)",
    ("esp32c3-sb-neg-unsigned-idf5.5", 1): "Secure boot signature verification failed",
    (
        "esp32c3-fe-neg-otadata-erased-idf5.5",
        3,
    ): "ota data partition invalid and no factory, will try all partitions",
}


@functools.cache
def read(name: str):
    return read_boots(RECORDED_LOGS / f"{name}.log")


def test_the_table_covers_every_recorded_log():
    assert sorted(LOGS) == sorted(path.stem for path in RECORDED_LOGS.glob("*.log"))


@pytest.mark.parametrize("name", LOGS)
def test_recorded_log_gives_its_boots(name):
    found = [
        (r.reset_reason, r.slot, r.offset, r.version, r.encryption, r.plaintext_flashes_left, r.secure_boot)
        for r in read(name).records
    ]
    assert found == LOGS[name]


@pytest.mark.parametrize("name", LOGS)
def test_recorded_log_gives_its_findings_and_no_others(name):
    found = [(f.boot, f.kind, f.inferred) for f in read(name).findings]
    assert found == FINDINGS.get(name, [])


@pytest.mark.parametrize("name", LOGS)
def test_recorded_boots_know_chip_idf_and_outcome(name):
    chip = "esp32c3" if name.startswith("esp32c3") else "esp32"
    for record in read(name).records:
        assert record.chip == chip
        assert record.bootloader_version == "v5.5.5"
        assert record.outcome is (Outcome.APP if record.version else Outcome.ENCRYPTED)
        assert record.panic is None
        assert record.from_start
        assert [p.label for p in record.partitions if p.is_app]


@pytest.mark.parametrize(("name", "number"), ERRORS)
def test_recorded_error_is_in_its_boot(name, number):
    record = read(name).records[number - 1]
    assert ERRORS[name, number] in [error.text for error in record.boot_errors]


def test_recorded_refusal_marks_the_image_as_bad():
    checks = read("esp32c3-fe-neg-wrong-slot-idf5.5").records[0].image_checks
    assert [(check.offset, check.ok) for check in checks] == [(0x1A0000, False)]


def test_summary_reads_as_one_line():
    records = read("esp32c3-sb-positive-idf5.5").records
    assert (
        records[1].summary()
        == "boot 2: RTC_SW_CPU_RST → ota_1 @ 0x1a0000, 1.1.0, flash encryption RELEASE, secure boot"
    )
