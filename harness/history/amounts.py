"""Ages and sizes as people write them: ``30d``, ``12h``, ``5GB``."""

from __future__ import annotations

import re

from harness.errors import UsageError

DAY_S = 86400.0
GB = 1_000_000_000

_AGES = {"m": 60.0, "h": 3600.0, "d": DAY_S, "w": 7 * DAY_S, "y": 365 * DAY_S}
_SIZES = {"KB": 1000, "MB": 1_000_000, "GB": GB, "TB": 1000 * GB}
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,3})?)"


def age_s(text: str) -> float:
    """Seconds.

    Raises:
        UsageError: it is no age.
    """
    match = re.fullmatch(rf"{_NUMBER} ?([mhdwy])", text.strip().lower())
    if match is None:
        raise UsageError(f"'{text}' is no age", todo="write it as 45m, 12h, 30d, 8w or 1y")
    return float(match[1]) * _AGES[match[2]]


def size_bytes(text: str) -> int:
    """Bytes; a KB is 1000 of them.

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(rf"{_NUMBER} ?([KMGT]B)", text.strip().upper())
    if match is None:
        raise UsageError(f"'{text}' is no size", todo="write it as 500MB or 5GB")
    return int(float(match[1]) * _SIZES[match[2]])


def age_text(seconds: float) -> str:
    """``3 d``, ``5 h``, ``12 min``, ``8 s``: as much as a person needs."""
    for unit, size in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size_text(size: int) -> str:
    """``1.2 GB``."""
    for unit, factor in (("GB", GB), ("MB", 1_000_000), ("KB", 1000)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
