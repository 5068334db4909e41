"""The per-chip table of facts: another chip is another file here and another row in `CHIPS`."""

from harness.chips.chip import Chip, Cipher, FuseNames, SecureBootFuses, SigningScheme
from harness.chips.esp32 import ESP32
from harness.chips.esp32c3 import ESP32C3
from harness.errors import UsageError

CHIPS: dict[str, Chip] = {chip.name: chip for chip in (ESP32, ESP32C3)}


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
    "Chip",
    "Cipher",
    "FuseNames",
    "SecureBootFuses",
    "SigningScheme",
    "chip_named",
    "chip_with_id",
]
