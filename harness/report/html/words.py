"""How the report says numbers, moments and standings: pure functions, used by the templates as filters."""

from __future__ import annotations

import datetime

SIGNS = {
    "passed": "✓",
    "proven": "✓",
    "failed": "✗",
    "error": "!",
    "not proven": "?",
    "skipped": "–",
    "not applicable": "∅",
}
"""A sign beside every word and colour: not everybody sees colours, and paper may have none."""

TONES = {
    "passed": "good",
    "proven": "good",
    "failed": "bad",
    "error": "bad",
    "not proven": "open",
    "skipped": "quiet",
    "not applicable": "quiet",
}
"""Which of the look's colours a standing has."""

HOW_KNOWN = {
    "observed": "read from the flash itself",
    "written": "the harness wrote it over the UART",
    "told": "the firmware said so in its events",
    "inferred": "it follows from the log",
}

DONE_BY = {
    "harness": "by the harness",
    "firmware": "by the firmware",
    "bootloader": "by the bootloader",
    "unknown": "by whom is not known",
}


def sign(standing: str) -> str:
    """``✓`` for passed, ``✗`` for failed, …"""
    return SIGNS.get(standing, "•")


def tone(standing: str) -> str:
    """The name of a standing's colours: good, bad, open, quiet."""
    return TONES.get(standing, "quiet")


def duration(seconds: float) -> str:
    """``0.4 ms``, ``35 ms``, ``2.41 s``, ``3 min 5 s``, ``2 h 14 min``; the sign of `seconds` is kept."""
    if seconds < 0:
        return f"−{duration(-seconds)}"
    if seconds < 0.0095:
        return f"{seconds * 1000:.1f} ms" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: int) -> str:
    """Bytes for a person: ``96 B``, ``95.3 KiB``, ``1.5 MiB``."""
    if count < 1024:
        return f"{count} B"
    for unit, scale in (("KiB", 1 << 10), ("MiB", 1 << 20)):
        number = count / scale
        if number < 1023.95 or unit == "MiB":
            return f"{number:.0f} {unit}" if number == int(number) else f"{number:.1f} {unit}"
    raise AssertionError("the last unit takes all")


def address(offset: int) -> str:
    """An offset in flash: ``0x1a0000``."""
    return f"0x{offset:x}"


def moment(unix_s: float) -> str:
    """``2026-11-26 18:23:01 UTC``."""
    try:
        when = datetime.datetime.fromtimestamp(unix_s, datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "at an unknown time"
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``1 test``, ``3 tests``."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}".replace(",", "\u202f")


def how_known(source: str) -> str:
    """Where knowledge of flash comes from, as a clause."""
    return HOW_KNOWN.get(source, source)


def done_by(actor: str) -> str:
    """Who changed the flash."""
    return DONE_BY.get(actor, actor)


def percent(share: float) -> str:
    """A share of 1 as a coordinate in SVG: ``12.5%``; what leaves the drawing is cut at its edge."""
    return f"{min(max(share, 0.0), 1.0) * 100:.4f}".rstrip("0").rstrip(".") + "%"


def since(moment_s: float, began_s: float) -> str:
    """Time after the beginning of a test: ``+1.23 s``."""
    after = duration(moment_s - began_s)
    return after if after.startswith("−") else f"+{after}"
