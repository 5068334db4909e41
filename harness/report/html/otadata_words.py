"""otadata before and after a test, in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.html.words import how_known
from harness.report.run_record import OtadataSector, OtadataView


@dataclass(frozen=True, slots=True)
class OtadataChange:
    """Both moments, and what happened between them."""

    before: OtadataView | None
    after: OtadataView | None
    sentences: tuple[str, ...]


def change_of(
    before: OtadataView | None,
    after: OtadataView | None,
    steps: Sequence[int] = (),
    told: Sequence[str] = (),
) -> OtadataChange | None:
    """None where nothing is known of otadata.

    Args:
        steps: numbers of the steps in flash that wrote or erased it.
        told: what the log says where otadata itself was not read.
    """
    if before is None and after is None and not told:
        return None
    sentences = list(told)
    if before is not None:
        sentences.append(f"Before: {followed(before)} ({how_known(before.source)}).")
    if after is not None:
        sentences.append(f"After: {followed(after)} ({how_known(after.source)}).")
    if before is not None and after is not None:
        pairs = list(zip(before.sectors, after.sectors, strict=False))
        changed = [f"Sector {n}: {words(a)} → {words(b)}." for n, (a, b) in enumerate(pairs) if a != b]
        wrote = (
            f", although {'step' if len(steps) == 1 else 'steps'} {', '.join(map(str, steps))} wrote otadata"
        )
        sentences += changed or [f"Both sectors are as before{wrote if steps else ''}."]
    return OtadataChange(before, after, tuple(sentences))


def followed(view: OtadataView) -> str:
    """Which record the bootloader would follow."""
    if view.active is None or view.active >= len(view.sectors):
        return "no sector holds a record that the bootloader would follow"
    sector = view.sectors[view.active]
    return f"the bootloader follows sector {view.active}: {words(sector)}"


def words(sector: OtadataSector) -> str:
    """``ota_1, sequence 2, valid``."""
    if sector.sequence is None:
        return sector.state
    slot = f"{sector.slot}, " if sector.slot else ""
    return f"{slot}sequence {sector.sequence}, {sector.state}"
