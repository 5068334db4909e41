"""A handler with a known mistake is found out: an exploration that finds nothing there would prove nothing."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from explored_twin import FEW, explored

from harness.build.native import firmware_dir


@dataclass(frozen=True)
class Bug:
    """One mistake: each first text in the file becomes the second, and `sequence` shows it."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    sequence: str
    shows: str
    full: bool = False


HANDLER = "components/raw_ota/raw_ota.c"
BODY = "components/raw_ota/raw_ota_body.c"
PORT = "native/src/otadata.c"

SELECT_UNVERIFIED = """
#include "esp_rom_crc.h"
static void select_unverified(const esp_partition_t *slot)
{
    const esp_partition_t *otadata =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_DATA_OTA, NULL);
    uint32_t records[2][8];
    (void)esp_partition_read(otadata, 0, records[0], 32);
    (void)esp_partition_read(otadata, 0x1000, records[1], 32);
    const int newer = records[1][0] != UINT32_MAX && records[1][0] > records[0][0] ? 1 : 0;
    uint32_t record[8] = {records[newer][0] + 1};
    record[7] = esp_rom_crc32_le(UINT32_MAX, (const uint8_t *)record, 4);
    (void)esp_partition_erase_range(otadata, (size_t)(1 - newer) * 0x1000, 0x1000);
    (void)esp_partition_write(otadata, (size_t)(1 - newer) * 0x1000, record, sizeof(record));
    (void)slot;
}

static raw_ota_err_t write_pieces("""
"""Writes the next record of otadata, which selects the other slot."""

BUGS = (
    Bug(
        "otadata is written before the image is verified",
        BODY,
        (
            ("static raw_ota_err_t write_pieces(", SELECT_UNVERIFIED),
            (
                "    uint32_t reported = 0;\n",
                "    uint32_t reported = 0;\n    select_unverified(job->slot);\n",
            ),
        ),
        "update",
        "holds nothing that boots",
    ),
    Bug(
        "the slot is not erased",
        HANDLER,
        (
            (
                "    size_t erase_size = job->body_size;\n",
                "    size_t erase_size = OTA_WITH_SEQUENTIAL_WRITES;\n",
            ),
        ),
        "update",
        "not-erased",
        full=True,
    ),
    Bug(
        "otadata is written raw",
        PORT,
        (("esp_partition_write(partition", "esp_partition_write_raw(partition"),),
        "update",
        "",
        full=True,
    ),
    Bug(
        "a version counts as confirmed as soon as it runs",
        "main/app_main.c",
        (
            (
                "void app_main(void)\n{\n",
                "void app_main(void)\n{\n    (void)esp_ota_mark_app_valid_cancel_rollback();\n",
            ),
        ),
        "update",
        "state is 'valid', not 'pending'",
    ),
    Bug(
        "nobody compares the hash of what was received",
        BODY,
        (("memcmp(sha256, job->package.body_sha256, hash_size) != 0", "false"),),
        "substituted",
        "not 'body-hash'",
        full=True,
    ),
    Bug(
        "nobody reads back what was written",
        BODY,
        (("memcmp(sha256, job->result->body_sha256, sizeof(sha256)) != 0", "false"),),
        "worn",
        "not 'readback-mismatch'",
        full=True,
    ),
    Bug(
        "only the first update of a boot erases",
        HANDLER,
        (
            (
                "    size_t erase_size = job->body_size;\n",
                "    static bool s_erased;\n"
                "    size_t erase_size = s_erased ? OTA_WITH_SEQUENTIAL_WRITES : job->body_size;\n"
                "    s_erased = true;\n",
            ),
        ),
        "invalid",
        "'good update'",
        full=True,
    ),
    Bug(
        "behind a broken download nothing is erased",
        HANDLER,
        (
            (
                "    size_t erase_size = job->body_size;\n",
                "    static bool s_broken;\n"
                "    size_t erase_size = s_broken ? OTA_WITH_SEQUENTIAL_WRITES : job->body_size;\n",
            ),
            (
                "    if (handle != 0) {\n",
                "    s_broken = err == RAW_OTA_TRUNCATED;\n    if (handle != 0) {\n",
            ),
        ),
        "broken-off",
        "'good update'",
        full=True,
    ),
    Bug(
        "nobody compares the hash of what it deciphers to",
        BODY,
        (("memcmp(sha256, job->package.image_sha256, sizeof(sha256)) != 0", "false"),),
        "forged",
        "not 'image-hash'",
        full=True,
    ),
    Bug(
        "a version counts as confirmed when power comes back",
        "main/app_main.c",
        (
            (
                "void app_main(void)\n{\n",
                '#include "esp_system.h"\nvoid app_main(void)\n{\n'
                "    if (esp_reset_reason() == ESP_RST_POWERON) {\n"
                "        (void)esp_ota_mark_app_valid_cancel_rollback();\n    }\n",
            ),
        ),
        "update",
        "after power came back, not 'pending'",
    ),
    Bug(
        "whoever asks for the status confirms",
        "main/commands.c",
        (
            (
                '    device_state_add(&outcome->fields);\n    event_add_number(&outcome->fields, "uptime_ms"',
                "    (void)esp_ota_mark_app_valid_cancel_rollback();\n"
                '    device_state_add(&outcome->fields);\n    event_add_number(&outcome->fields, "uptime_ms"',
            ),
            ('#include "esp_log.h"\n', '#include "esp_log.h"\n#include "esp_ota_ops.h"\n'),
        ),
        "rollback",
        "state is 'valid', not 'pending'",
        full=True,
    ),
)


@pytest.mark.parametrize(
    "bug",
    [pytest.param(bug, id=bug.name, marks=[pytest.mark.full] if bug.full else []) for bug in BUGS],
)
def test_a_planted_bug_is_found(bug: Bug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    firmware = tmp_path / "firmware"
    shutil.copytree(firmware_dir(), firmware)
    source = firmware / bug.file
    text = source.read_text()
    for old, new in bug.changes:
        assert old in text, "the place where the bug is planted has changed"
        text = text.replace(old, new)
    source.write_text(text)
    monkeypatch.setenv("HARNESS_FIRMWARE", str(firmware))
    monkeypatch.delenv("HARNESS_WERROR", raising=False)

    found = explored(tmp_path / "out", bug.sequence, FEW)

    assert not found.ok
    problems = [found.clean_problem or ""] + [text for finding in found.findings for text in finding.problems]
    assert any(bug.shows in problem for problem in problems), problems
