"""What the doctor says: one finding per thing that was looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

FORMAT = 1
"""Of the JSON that `harness doctor --json` prints."""


class Level(str, Enum):
    """How much a finding matters."""

    GOOD = "good"
    NOTE = "note"
    """Worth knowing; nothing is wrong."""
    WRONG = "wrong"


SIGNS = {Level.GOOD: "✓", Level.NOTE: "·", Level.WRONG: "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. What is wrong always says what mends it."""

    area: str
    """``host``, ``ports``, ``state``, ``vault``, ``tools``, or ``board NAME``."""
    level: Level
    text: str
    todo: str | None = None

    def __post_init__(self) -> None:
        if self.level is Level.WRONG and not self.todo:
            raise ValueError(f"a finding that is wrong must say what to do: {self.text}")

    def to_fields(self) -> dict[str, Any]:
        """For JSON."""
        return {"area": self.area, "level": self.level.value, "text": self.text, "todo": self.todo}


def good(area: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(area, Level.GOOD, text)


def note(area: str, text: str, todo: str | None = None) -> Finding:
    """Worth knowing."""
    return Finding(area, Level.NOTE, text, todo)


def wrong(area: str, text: str, todo: str) -> Finding:
    """Something that has to be mended."""
    return Finding(area, Level.WRONG, text, todo)


@dataclass(frozen=True, slots=True)
class Report:
    """All findings, in the order they were made."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Nothing is wrong."""
        return not self.wrong

    @property
    def wrong(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level is Level.WRONG)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {"format": FORMAT, "ok": self.ok, "findings": [each.to_fields() for each in self.findings]}

    def last_line(self) -> str:
        """The verdict."""
        count = len(self.wrong)
        if not count:
            return "Nothing is wrong."
        return f"{count} thing{'s are' if count > 1 else ' is'} wrong; the lines after ✗ say what mends each."


def lines_of(findings: Iterable[Finding]) -> list[str]:
    """For a person: a sign, the finding, and below it what to do."""
    lines = []
    for finding in findings:
        first, *rest = finding.text.splitlines() or [""]
        lines.append(f"  {SIGNS[finding.level]} {first}")
        lines += [f"    {line}" for line in rest]
        if finding.todo:
            lines.append(f"      → {finding.todo}")
    return lines
