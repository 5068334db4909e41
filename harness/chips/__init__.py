"""The per-chip table of facts: another chip is another file here and another row in `CHIPS`."""

from harness.chips.chip import (
    CURVE_MODE_BOTH,
    CURVES_BY_MODE,
    KEY_PURPOSE_NUMBERS,
    Chip,
    Cipher,
    FuseNames,
    SecureBootFuses,
    SigningScheme,
)
from harness.chips.esp32 import ESP32
from harness.chips.esp32c2 import ESP32C2
from harness.chips.esp32c3 import ESP32C3
from harness.chips.esp32c5 import ESP32C5
from harness.chips.esp32c6 import ESP32C6
from harness.chips.esp32h2 import ESP32H2
from harness.chips.esp32p4 import ESP32P4
from harness.chips.esp32s2 import ESP32S2
from harness.chips.esp32s3 import ESP32S3
from harness.errors import UsageError

CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (ESP32, ESP32S2, ESP32S3, ESP32C2, ESP32C3, ESP32C5, ESP32C6, ESP32H2, ESP32P4)
}

TWINS = tuple(CHIPS)
"""Chips that the built-in virtual board models: all of them."""


def chip_named(name: str) -> Chip:
    """The row of `name` (any case, dashes ignored).

    Raises:
        UsageError: there is no such row; the message lists those there are.
    """
    chip = CHIPS.get(name.lower().replace("-", ""))
    if chip is None:
        raise UsageError(f"chip '{name}' is not supported", todo=f"use one of: {', '.join(CHIPS)}")
    return chip


def chip_with_id(chip_id: int) -> Chip | None:
    """The row whose image-header chip id is `chip_id`, or None."""
    return next((chip for chip in CHIPS.values() if chip.chip_id == chip_id), None)


__all__ = [
    "CHIPS",
    "CURVES_BY_MODE",
    "CURVE_MODE_BOTH",
    "KEY_PURPOSE_NUMBERS",
    "TWINS",
    "Chip",
    "Cipher",
    "FuseNames",
    "SecureBootFuses",
    "SigningScheme",
    "chip_named",
    "chip_with_id",
]
