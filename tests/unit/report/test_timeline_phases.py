"""Phases of an update on the timeline: of today's firmware, and of one that does not announce the end of its erase."""

from __future__ import annotations

import binascii
import json
from collections.abc import Sequence

import pytest

from harness.console.log_line import Line
from harness.report.timeline import events_of


def log_of(phases: Sequence[str]) -> list[Line]:
    """An update that announces these phases, one a second."""
    told = [
        {"ev": "ack", "id": 5, "cmd": "ota", "ok": True},
        *({"ev": "ota", "id": 5, "phase": phase, "bytes": 0, "total": 8192} for phase in phases),
        {"ev": "done", "id": 5, "cmd": "ota", "ok": True},
    ]
    lines = []
    for n, fields in enumerate(told):
        body = json.dumps({"n": n, **fields}, separators=(",", ":"))[:-1]
        text = f'@evt {body},"crc":"{binascii.crc32(body.encode()):08x}"}}'
        lines.append(Line(n, float(n), text, text.encode(), wall_s=float(n)))
    return lines


@pytest.mark.parametrize(
    ("phases", "shown"),
    [
        (
            ("begin", "erase", "erased", "first-sector", "write"),
            [("erased", 1.0), ("first sector written and read back", 1.0), ("downloaded and written", 2.0)],
        ),
        (
            ("begin", "erase", "first-sector", "write"),
            [("erased, first sector written", 1.0), ("downloaded and written", 2.0)],
        ),
        (("begin", "erase"), [("erased, first sector written", 1.0)]),
    ],
    ids=["erase and first sector apart", "older firmware", "an erase whose end was not seen"],
)
def test_an_erase_has_a_duration_of_its_own_where_the_firmware_tells_its_end(
    phases: Sequence[str], shown: list[tuple[str, float]]
) -> None:
    found = [event for event in events_of(log_of(phases)) if event.kind == "phase"]
    assert [(event.text, event.duration_s) for event in found][1:] == shown
