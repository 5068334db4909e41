"""What a build with CMake and ninja prints: how far it is, and the first thing that went wrong. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NINJA = re.compile(r"\[(\d+)/(\d+)\] (.*)")
_COMPILER = re.compile(
    r"(?:.*:\d+: )?(?:fatal )?error: .+|.*: undefined reference to .+|.*: region `.+' overflowed.*"
)
_CMAKE = re.compile(r"CMake Error.*")
_OTHER = re.compile(
    r"ninja: error: .+|(?:Error|ERROR|error)\b[: ].+|.*(?:will not fit in region|is too (?:small|large|big)).*"
    r"|No space left on device.*|.*: command not found"
)
_EARLIEST = (_COMPILER, _CMAKE, _OTHER)
"""In this order: what a compiler says is nearer to the cause than what ninja makes of it."""

MESSAGE_MAX_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a build."""

    done: int
    total: int
    """Steps as far as they are known; grows when CMake adds some."""
    step: str
    """E.g. ``Building C object …/commands.c.obj``."""


class ProgressReader:
    """Finds the build's own steps in its output; those of the bootloader's build inside it are left out."""

    def __init__(self) -> None:
        self._total = 0

    def read(self, line: str) -> Progress | None:
        """The step that `line` tells of, or None."""
        match = _NINJA.fullmatch(line.strip())
        if match is None or int(match[2]) < self._total:
            return None
        self._total = int(match[2])
        return Progress(int(match[1]), self._total, match[3])


def first_failure(lines: Iterable[str]) -> str:
    """The message that explains a failed build best: one line, without ninja's own.

    Of several compilers that fail side by side it is the first one's.
    """
    said = [line.strip() for line in lines]
    said = [line for line in said if line and not _NINJA.match(line) and not line.startswith("$ ")]
    for pattern in _EARLIEST:
        for index, line in enumerate(said):
            if pattern.fullmatch(line):
                message = line
                if pattern is _CMAKE and index + 1 < len(said) and line.endswith(":"):
                    message = f"{line} {said[index + 1]}"
                return message[:MESSAGE_MAX_CHARACTERS]
    return said[-1][:MESSAGE_MAX_CHARACTERS] if said else "it said nothing"
