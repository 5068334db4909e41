"""What a scenario did to flash and what ROM and bootloader said meanwhile, step by step, as data.

The recorded side comes from ESP-IDF in an emulator (``tests/data/flash``), the other from the board under test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.links.flash_log import FlashChange, Terms, merged

RECORDINGS = Path(__file__).parents[1] / "data" / "flash"

FROM_FIRMWARE = ("bootloader", "app")
"""Whose changes are compared; a host tool in download mode is somebody else."""

_STAMP = re.compile(r"^([EWIDV]) \(\d+\) ")
_ENDS = ("Disabling RNG early entropy source...", "No bootable app partitions in the partition table")
"""The last line of a bootloader: it starts an application, or gives up."""
_BUILD_DEPENDENT = (
    # What was built differs by nature: addresses and lengths of segments, and when it was compiled.
    (re.compile(r"^(load:0x)\w+,len:\w+$"), "load:…"),
    (re.compile(r"^entry 0x\w+$"), "entry …"),
    (re.compile(r"^Saved PC:0x\w+$"), "Saved PC:…"),
    (re.compile(r"(compile time) .*$"), r"\1 …"),
    (re.compile(r"(esp_image: segment) \d+: paddr=.*$"), r"\1 …"),
    (re.compile(r"(esp_image: Checksum failed\.) .*$"), r"\1 …"),
)


def boot_lines(texts: list[str]) -> tuple[str, ...]:
    """Lines of ROM and bootloader without time stamps; what depends on the build is left open."""
    lines: list[str] = []
    for text in texts:
        line = _STAMP.sub(r"\1 ", text)
        for pattern, blank in _BUILD_DEPENDENT:
            line = pattern.sub(blank, line)
        if not lines or not (line.endswith("…") and line == lines[-1]):
            lines.append(line)
        if line.endswith(_ENDS):
            break
    return tuple(lines)


@dataclass(frozen=True)
class Step:
    """One thing that was done to the board."""

    name: str
    changes: tuple[FlashChange, ...]
    boots: tuple[tuple[str, ...], ...]
    """ROM's and bootloader's lines of every boot that began in this step."""


@dataclass
class Trace:
    """All steps of one scenario, and what its places and lengths were."""

    running: str
    """Label of the slot that ran at the beginning."""
    active: int | None
    """Index of the otadata record that counted at the beginning; None where the scenario destroys both."""
    body_bytes: int
    """What an update writes."""
    steps: list[Step] = field(default_factory=list)

    def readable(self, board: Board) -> list[str]:
        """Every change in the terms of `board`, which has the table of the board that this was recorded on."""
        assert board.table is not None
        assert board.table.otadata is not None
        terms = Terms.of_update(
            board.slot(self.running),
            board.other_slot(self.running),
            board.table.otadata,
            active=self.active,
            body_bytes=self.body_bytes,
        )
        lines = []
        for step in self.steps:
            lines.append(f"--- {step.name}")
            lines += terms.lines(merged(c for c in step.changes if c.who in FROM_FIRMWARE))
        return lines

    def said(self, board: Board) -> list[str]:
        """ROM's and bootloader's lines, the slots named by what they were."""
        names = {}
        for index, slot in enumerate(board.slots):
            name = "running" if slot.label == self.running else "other"
            names |= {f"0x{slot.offset:x}": name, f"slot {index}": f"slot {name}"}
        lines = []
        for step in self.steps:
            for boot in step.boots:
                lines.append(f"--- {step.name}")
                lines += [re.sub(r"0x\w+|slot \d", lambda m: names.get(m[0], m[0]), line) for line in boot]
        return lines


class Recorder:
    """Records the steps of a scenario on `board`."""

    def __init__(self, board: Board, running: str, active: int | None, body_bytes: int) -> None:
        self._board = board
        self.trace = Trace(running, active, body_bytes)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What happens in the block is one step."""
        mark = self._board.console.mark()
        with self._board.watching_flash() as changes:
            yield
        self.trace.steps.append(Step(name, tuple(changes), tuple(self._boots_since(mark))))

    def _boots_since(self, mark: int) -> Iterator[tuple[str, ...]]:
        lines = [line for line in self._board.console.lines_since(mark) if not line.is_mark]
        for record in self._board.console.boot_records:
            if record.first_line >= mark:
                of_boot = [x.text for x in lines if record.first_line <= x.n <= record.last_line]
                if any(text.endswith(_ENDS) for text in of_boot):
                    yield boot_lines(of_boot)


def to_json(trace: Trace, boots: list[tuple[str, ...]]) -> dict[str, Any]:
    """`trace` with every boot as an index into `boots`, which grows as needed."""
    steps = []
    for step in trace.steps:
        boots += [boot for boot in dict.fromkeys(step.boots) if boot not in boots]
        changes = [
            [c.boot, c.who, c.kind, c.offset, c.length] for c in step.changes if c.who in FROM_FIRMWARE
        ]
        first = changes[0][0] if changes else 0
        changes = [[boot - first, *rest] for boot, *rest in changes]
        steps.append([step.name, changes, [boots.index(boot) for boot in step.boots]])
    return {"running": trace.running, "active": trace.active, "body": trace.body_bytes, "steps": steps}


def from_json(data: dict[str, Any], boots: list[list[str]]) -> Trace:
    steps = [
        Step(name, tuple(FlashChange(*change) for change in changes), tuple(tuple(boots[n]) for n in numbers))
        for name, changes, numbers in data["steps"]
    ]
    return Trace(data["running"], data["active"], data["body"], steps)


def recorded(chip: str, profile: str, scenario: str) -> Trace | None:
    """What ESP-IDF did; None where nobody has recorded it."""
    path = RECORDINGS / f"{chip}-{profile}-idf5.5.json"
    if not path.is_file():
        return None
    data = json.loads(path.read_text(encoding="utf-8"))
    found = data["scenarios"].get(scenario)
    return from_json(found, data["boots"]) if found is not None else None


def keep(trace: Trace, folder: Path, scenario: str) -> None:
    """Leaves `trace` among the artefacts of a run."""
    boots: list[tuple[str, ...]] = []
    data = to_json(trace, boots)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"scenario": scenario, "boots": boots, **data}, ensure_ascii=False, indent=1)
    (folder / f"{re.sub(r'[^a-z0-9]+', '-', scenario)}.json").write_text(text + "\n", encoding="utf-8")
