"""Flash drawn in a few lines: what every sector holds, compared with the images that are known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.twin.explorer.job import Place
from harness.twin.explorer.stored import StoredState
from harness.twin.half_done import SECTOR_BYTES

LEGEND = "· erased  = as at the start  n as after a clean run  # something else"
_WIDTH = 64


def flash_map(places: Iterable[Place], state: StoredState, clean: StoredState) -> list[str]:
    """One or more lines for every partition: a character for each of its 4 KiB sectors, `LEGEND` says which."""
    lines = []
    for place in sorted(places, key=lambda p: p.offset):
        first = place.offset // SECTOR_BYTES
        last = min((place.offset + place.size) // SECTOR_BYTES, len(state.base))
        marks = "".join(_mark(state, clean, number) for number in range(first, last))
        head = f"{place.label:<16.16} 0x{place.offset:06x} "
        for row in _rows(marks):
            lines.append(head + row)
            head = " " * len(head)
    return lines


def _mark(state: StoredState, clean: StoredState, number: int) -> str:
    content = state.sector(number)
    start = state.base[number]
    if content == b"\xff" * SECTOR_BYTES:
        return "·"
    if content == start:
        return "="
    return "n" if content == clean.sector(number) else "#"


def _rows(marks: str) -> Sequence[str]:
    """At most `_WIDTH` a line; rows that all look alike are said once."""
    rows = [marks[at : at + _WIDTH] for at in range(0, len(marks), _WIDTH)]
    shown: list[str] = []
    repeated = 0
    for number, row in enumerate(rows):
        if shown and len(set(row)) == 1 and row[0] == shown[-1][-1] and len(set(shown[-1])) == 1:
            repeated += 1
            if number == len(rows) - 1:
                shown.append(f"({repeated} more lines of {row[0]})")
            continue
        if repeated:
            shown.append(f"({repeated} more lines of {shown[-1][-1]})")
            repeated = 0
        shown.append(row)
    return shown or [""]
