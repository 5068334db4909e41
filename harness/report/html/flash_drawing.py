"""The flash map as a drawing and in words: what each partition held before and after, what each step changed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.report.html.words import address, how_known, size
from harness.report.run_record import Extent, FlashChange, FlashMap, FlashStep, PartitionRow

TINY_SHARE = 0.004
"""What is narrower is drawn wider than it is, or it would not be seen."""
MAX_STEPS = 80
"""More than these are counted, not drawn."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Something from one place in flash to another, as shares of what is drawn."""

    x: float
    width: float
    look: str
    """``ciphertext``, ``plaintext``, ``erased``, ``unknown``; of changes ``erase``, too."""
    title: str

    @property
    def tiny(self) -> bool:
        return self.width < TINY_SHARE


@dataclass(frozen=True, slots=True)
class PartitionView:
    """One partition before and after, on a scale of its own."""

    row: PartitionRow
    before: tuple[Stretch, ...]
    after: tuple[Stretch, ...]
    before_words: str
    after_words: str
    touched_by: tuple[int, ...]
    """Numbers of the steps that changed it, from 1."""


@dataclass(frozen=True, slots=True)
class StepView:
    """One step and where it changed something."""

    step: FlashStep
    number: int
    stretches: tuple[Stretch, ...]
    words: str


@dataclass(frozen=True, slots=True)
class FlashDrawing:
    """All that is known of the flash of one test."""

    size: int
    partitions: tuple[Stretch, ...]
    before: tuple[Stretch, ...] | None
    after: tuple[Stretch, ...] | None
    rows: tuple[PartitionView, ...]
    steps: tuple[StepView, ...]
    left_out: int
    """Steps beyond `MAX_STEPS`."""
    known_by: str | None
    """How all of what it holds is known, in words; None: it differs, and is said of each stretch."""

    @property
    def otadata_steps(self) -> tuple[int, ...]:
        """Numbers of the steps that changed otadata."""
        return tuple(n for row in self.rows if row.row.kind == "otadata" for n in row.touched_by)


def drawing_of(
    before: FlashMap | None, after: FlashMap | None, steps: Sequence[FlashStep]
) -> FlashDrawing | None:
    """The drawing; None where nothing is known of any flash."""
    known = after or before
    if known is None and not steps:
        return None
    reach = max((c.offset + c.size for step in steps for c in step.changes), default=0)
    total = max([m.size for m in (before, after) if m is not None] or [reach], default=0) or 1
    partitions = sorted((known.partitions if known else ()), key=lambda row: row.offset)
    shown = steps[:MAX_STEPS]
    sources = {extent.source for flash in (before, after) if flash for extent in flash.extents}
    known_by = how_known(*sources) if len(sources) == 1 else None
    return FlashDrawing(
        total,
        tuple(
            _stretch(
                p.offset, p.size, 0, total, "partition", f"{p.label}: {size(p.size)} at {address(p.offset)}"
            )
            for p in partitions
        ),
        _strip(before, 0, total) if before else None,
        _strip(after, 0, total) if after else None,
        tuple(_partition(p, before, after, shown, tell_source=known_by is None) for p in partitions),
        tuple(_step(step, n, total, partitions) for n, step in enumerate(shown, start=1)),
        len(steps) - len(shown),
        known_by,
    )


def _partition(
    row: PartitionRow,
    before: FlashMap | None,
    after: FlashMap | None,
    steps: Sequence[FlashStep],
    *,
    tell_source: bool,
) -> PartitionView:
    first, end = row.offset, row.offset + row.size
    touched = tuple(
        n
        for n, step in enumerate(steps, start=1)
        if any(c.offset < end and c.offset + c.size > first for c in step.changes)
    )
    return PartitionView(
        row,
        _strip(before, first, row.size) if before else (),
        _strip(after, first, row.size) if after else (),
        content_words(before.extents, first, row.size, tell_source=tell_source) if before else "not recorded",
        content_words(after.extents, first, row.size, tell_source=tell_source) if after else "not recorded",
        touched,
    )


def _strip(flash: FlashMap, first: int, length: int) -> tuple[Stretch, ...]:
    """What `length` bytes from `first` hold; what no extent covers is unknown and drawn as such."""
    stretches = []
    known = 0
    for extent in sorted(flash.extents, key=lambda extent: extent.offset):
        start, end = max(extent.offset, first), min(extent.offset + extent.size, first + length)
        if end > start:
            known += end - start
            title = f"{extent.content}: {size(end - start)} at {address(start)}, {extent.source}"
            stretches.append(_stretch(start, end - start, first, length, extent.content, title))
    if known < length:
        stretches.insert(0, _stretch(first, length, first, length, "unknown", "unknown"))
    return tuple(stretches)


def _stretch(offset: int, length: int, first: int, total: int, look: str, title: str) -> Stretch:
    return Stretch((offset - first) / total, length / total, look, title)


def content_words(extents: Iterable[Extent], first: int, length: int, *, tell_source: bool) -> str:
    """``ciphertext, 95.3 KiB (the harness wrote it over the UART); erased, 1.4 MiB (…)``; the rest is unknown."""
    sums: dict[tuple[str, str], int] = {}
    for extent in sorted(extents, key=lambda extent: extent.offset):
        inside = min(extent.offset + extent.size, first + length) - max(extent.offset, first)
        if inside > 0:
            sums[extent.content, extent.source] = sums.get((extent.content, extent.source), 0) + inside
    parts = []
    rest = length - sum(sums.values())
    for (content, source), count in sums.items():
        amount = "all" if count >= length else size(count)
        parts.append(f"{content}, {amount}" + (f" ({how_known(source)})" if tell_source else ""))
    if rest > 0:
        parts.append("unknown" if rest == length else f"unknown, {size(rest)}")
    return "; ".join(parts)


def _step(step: FlashStep, number: int, total: int, partitions: Sequence[PartitionRow]) -> StepView:
    stretches = tuple(
        _stretch(c.offset, c.size, 0, total, _look(c), _change_words(c, partitions)) for c in step.changes
    )
    words = "; ".join(_change_words(c, partitions) for c in step.changes[:6])
    if len(step.changes) > 6:
        words += f"; and {len(step.changes) - 6} more"
    return StepView(step, number, stretches, words or "no change was seen")


def _look(change: FlashChange) -> str:
    if change.kind == "erase":
        return "erased"
    return {True: "ciphertext", False: "plaintext", None: "unknown"}[change.encrypted]


def _change_words(change: FlashChange, partitions: Sequence[PartitionRow]) -> str:
    where = next((p.label for p in partitions if p.offset <= change.offset < p.offset + p.size), None)
    place = f"{address(change.offset)} ({where})" if where else address(change.offset)
    if change.kind == "erase":
        return f"erased {size(change.size)} at {place}"
    what = {True: " of ciphertext", False: " of plaintext", None: ""}[change.encrypted]
    return f"wrote {size(change.size)}{what} at {place}"
