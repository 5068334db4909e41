"""What the harness itself writes into a board's log: ``kind: text``.

In the log file such a line carries ``>>>`` where a board's line carries ``|``, so neither can pass for the
other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CHANGING = frozenset({"reset", "power", "flash", "otadata"})
"""Marks after which a board may be another: a boot after one of them continues no reboot loop."""

CAUSING = frozenset({"reset", "power"})
"""Marks of what starts a chip anew: the boot that comes soon after one of them was caused by it."""

UNSEEN = frozenset({"returned", "opened", "gap"})
"""Marks after which something may be missing: what the board did meanwhile is not in the log."""

FLASHING = "flash"
"""The mark after which flash may hold anything: no conclusion is drawn across it."""

OTADATA = "otadata"
"""The mark after which otadata, and only otadata, may be another: a change of slot then has its reason, unless
the bootloader finds otadata unreadable."""

STEP = "step"
"""The mark of a step of a plan: that it begins, or that it is done."""

STEP_DONE = re.compile(r"(\d{1,4}/\d{1,4}) done")

_REPEATED = re.compile(r"(\d{1,18})(?: more)? times (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mark:
    """One thing that the harness did or noticed.

    Kinds in use: ``opened``, ``closed``, ``vanished``, ``gap``, ``lent``, ``returned``, ``flash``, ``otadata``,
    ``reset``, ``power``, ``cut``, ``sent``, ``tool``, ``step``, ``repeated``, ``note``.
    """

    kind: str
    text: str
    count: int = 0
    """For ``repeated``: how many lines."""

    @property
    def changes_board(self) -> bool:
        return self.kind in CHANGING


def mark_text(kind: str, text: str) -> str:
    """The text of a mark's line."""
    return f"{kind}: {text}"


def step_text(number: int, total: int, headline: str | None) -> str:
    """The text of the mark that says that step `number` of `total` begins; without a headline, that it is done."""
    return f"{number}/{total} {headline or 'done'}"


def repeated_text(count: int, text: str) -> str:
    """The text of the mark that stands for `count` further lines equal to `text`."""
    return mark_text("repeated", f"{count} more times {text}")


def parse_mark(text: str) -> Mark:
    """The opposite of `mark_text`; anything else is a ``note``."""
    kind, colon, rest = text.partition(": ")
    if not colon or not kind.isidentifier():
        return Mark("note", text)
    if kind == "repeated":
        counted = _REPEATED.fullmatch(rest)
        return Mark(kind, counted[2], int(counted[1])) if counted else Mark("note", text)
    return Mark(kind, rest)
