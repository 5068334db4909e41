"""What the log tells of otadata: which slot the bootloader followed it to, and in which state that is. Pure.

Nothing is read back from flash, so the two records themselves, with their sequence numbers, are never known here.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.qualify.sighting import Seen

OBSERVED = "an observation touches no flash"
LOCKED = "its ROM gives no flash any more"
NOT_READ = "nothing is read back, since that would take the unit into download mode between two steps"


def why_not_read(*, observed: bool, is_open: bool) -> str:
    """Why the records are not known. `is_open`: its ROM would still give what lies in flash."""
    return OBSERVED if observed else NOT_READ if is_open else LOCKED


def otadata_told(before: Seen, after: Seen, why: str) -> tuple[str, ...]:
    """Of the boot before a case and the last one in it, a sentence each, and `why` no more is known."""
    return (
        f"Before: {'; '.join(_told(before))}.",
        f"After: {'; '.join(_told(after))}.",
        f"The two records and their sequence numbers are not known: {why}.",
    )


def _told(seen: Seen) -> Iterator[str]:
    boot, readings = seen.boot, seen.readings
    if boot is None:
        yield "no boot was seen"
        return
    for slot in boot.not_bootable:
        yield f"the bootloader gave up {slot}"
    if boot.otadata_unreadable:
        yield "no valid record was found"
    place = seen.place
    if place == "factory":
        yield f"the bootloader started factory, which no record names (boot {boot.number})"
    elif place is not None:
        yield f"the bootloader followed otadata to {place} (boot {boot.number})"
    else:
        yield f"nothing tells which slot the bootloader started (boot {boot.number})"
    if boot.otadata_written:
        yield "it wrote the record of that slot anew"
    if readings.confirmed is not None:
        yield f"the witness says of its state: '{readings.confirmed}'"
    elif boot.confirmed or boot.ota_state is not None:
        yield f"its state is {'valid' if boot.confirmed else boot.ota_state} by the log"
    else:
        yield "its state was not printed"
