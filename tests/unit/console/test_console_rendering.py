"""What ``harness log FILE`` prints."""

from __future__ import annotations

import pytest
from console_samples import RECORDED_LOGS, booted, event_text

from harness.console.log_file import read_log
from harness.console.render import read_boots, render_log
from harness.errors import UsageError

OTADATA_LOG = RECORDED_LOGS / "esp32c3-fe-neg-otadata-erased-idf5.5.log"


def test_boots_and_findings_come_first():
    lines = list(render_log(OTADATA_LOG))
    assert lines[0] == "esp32c3-fe-neg-otadata-erased-idf5.5.log: 385 lines, 5 boots"
    assert lines[1] == "    boot 1: POWERON → ota_0 @ 0x20000, 1.0.0, flash encryption RELEASE"
    assert (
        "  - boot 3: 1.1.0 in ota_1, confirmed, was replaced by 1.0.0 in ota_0 without an update"
        " (inferred: no line says so)"
    ) in lines


def test_every_line_of_the_log_is_there_and_the_telling_ones_are_marked():
    lines = list(render_log(OTADATA_LOG))
    for line in read_log(OTADATA_LOG):
        assert any(shown.endswith(f"| {line.text}") for shown in lines)
    assert "* | I (230) boot: Loaded app from partition at offset 0x20000" in lines
    assert "E | E (36422) boot: ota data partition invalid and no factory, will try all partitions" in lines
    assert sum(line.startswith("──── boot") for line in lines) == 5


def write_log(tmp_path, *lines: str):
    path = tmp_path / "board.log"
    path.write_text("".join(f"2026-11-21 02:31:07.{n:03d} {line}\n" for n, line in enumerate(lines)))
    return path


def test_log_of_ours_keeps_times_and_marks(tmp_path):
    path = write_log(
        tmp_path,
        ">>> opened: desk-c3",
        *[f"| {line}" for line in booted("ota_0", "1.0.0")],
        "~ esp> ",
        "| esp> restart",
        ">>> reset: EN",
        "| abort() was called at PC 0x42001234 on core 0",
        f"| {event_text(0, 'boot')[:-9]}",
    )
    lines = list(render_log(path))
    assert "02:31:07.000   >>> opened: desk-c3" in lines
    assert any(line.endswith(">>> reset: EN") for line in lines)
    assert any(" ! | abort() was called" in line for line in lines)
    assert not any(line.endswith("| esp> ") for line in lines)
    assert any("PANIC abort: abort() was called at 0x42001234" in line for line in lines[:4])
    assert "events: 0 good, 1 damaged, 0 missing" in lines


def test_flash_mark_in_a_log_of_ours_explains_another_version(tmp_path):
    boots = [
        [f"| {line}" for line in booted(slot, version)]
        for slot, version in (("ota_1", "2"), ("ota_1", "2"), ("ota_0", "1"))
    ]
    silent = write_log(tmp_path, *boots[0], *boots[1], *boots[2])
    assert [finding.kind.value for finding in read_boots(silent).findings] == ["silent-downgrade"]
    flashed = write_log(
        tmp_path, *boots[0], *boots[1], ">>> flash: esptool has the port", ">>> returned: x", *boots[2]
    )
    assert read_boots(flashed).findings == ()


def test_colour_only_when_asked_for(tmp_path):
    path = write_log(tmp_path, "| E (1) boot: bad")
    assert not any("\x1b" in line for line in render_log(path))
    assert any(line.startswith("\x1b[31m") for line in render_log(path, colour=True))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\x00" * 1000,
        bytes(range(256)) * 50,
        b"2026-99-99 99:99:99.999 | x\n",
        b"2026-11-21 02:31:07.123 >>> \n",
    ],
)
def test_any_file_can_be_rendered(tmp_path, content):
    path = tmp_path / "odd.log"
    path.write_bytes(content)
    assert list(render_log(path))


def test_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_boots(tmp_path / "none.log")
