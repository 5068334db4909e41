"""Where the apps lie in flash, as it follows from the log: for the drawing in the report. Nothing is read."""

from __future__ import annotations

from collections.abc import Sequence

from harness.console.boot_record import BootRecord
from harness.formats.partition import Partition
from harness.qualify.sighting import ImageFacts
from harness.report.flash_map import KnownFlash
from harness.report.run_record import Content, FlashChange, FlashMap, FlashStep, PartitionRow
from harness.report.verdict import Standing

_LEAST_BYTES = 1 << 20


class FlashView:
    """The flash of one unit with these `partitions`, whose apps are stored as `content`."""

    def __init__(self, partitions: Sequence[Partition], content: Content) -> None:
        self._content: Content = content
        self._rows = tuple(
            PartitionRow(label=each.label, offset=each.offset, size=each.size, kind=_kind(each))
            for each in sorted(partitions, key=lambda each: each.offset)
        )
        # No log says how large the chip is: the least that holds the table.
        size = _LEAST_BYTES
        while size < max((each.end for each in partitions), default=0):
            size *= 2
        self._known = KnownFlash(size)

    def map(self) -> FlashMap:
        """As it is now, as far as it is known."""
        return self._known.map(self._rows)

    def runs(self, image: ImageFacts, boot: BootRecord | None) -> None:
        """`boot` was seen to run `image`; nothing where its offset was not printed."""
        if boot is not None and boot.offset is not None:
            self._known.note(boot.offset, image.size_bytes, self._content, "inferred")

    def doubt(self, boot: BootRecord | None) -> None:
        """Something that may be anything was offered: of every slot but the one that `boot` runs, nothing is known."""
        for row in self._rows:
            if row.kind == "app" and (boot is None or row.offset != boot.offset):
                self._known.note(row.offset, row.size, "unknown", "inferred")

    def updated(self, image: ImageFacts, boot: BootRecord | None) -> FlashStep | None:
        """`image` was seen to run for the first time, in `boot`: what that says of flash; None: nothing."""
        if boot is None or boot.offset is None:
            return None
        self.runs(image, boot)
        encrypted = {"ciphertext": True, "plaintext": False}.get(self._content)
        change = FlashChange(kind="write", offset=boot.offset, size=image.size_bytes, encrypted=encrypted)
        return FlashStep(
            text=f"update to {image.version}",
            at_s=boot.started_wall,
            by="firmware",
            source="inferred",
            changes=(change,),
            line=boot.first_line,
        )


def content_of(profile: str, proven: Standing) -> Content:
    """How apps are stored in a unit that is demanded to be in `profile`, if that is proven."""
    if proven is not Standing.PROVEN:
        return "unknown"
    return "plaintext" if profile.partition("+")[0] == "open" else "ciphertext"


def _kind(partition: Partition) -> str:
    if partition.is_app:
        return "app"
    return "otadata" if partition.is_otadata else "data"
