"""What each step changed in flash: from a link's log of operations, else from what tools and firmware said. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from harness.chips import Chip
from harness.console.boot_record import BootRecord
from harness.console.log_line import Line
from harness.console.mark import parse_mark
from harness.formats.otadata import SECTOR_BYTES
from harness.formats.partition import Partition
from harness.formats.partition_table import PartitionTable
from harness.links.flash_log import FlashChange as Operation
from harness.provision.canary import CANARY_BYTES
from harness.provision.steps import WriteFlash
from harness.report.flash_map import stored_encrypted
from harness.report.run_record import FlashChange, FlashStep
from harness.report.updates import Command

By = Literal["harness", "firmware", "bootloader", "unknown"]

_BY: dict[str, By] = {
    "rom": "harness",
    "stub": "harness",
    "host": "harness",
    "app": "firmware",
    "bootloader": "bootloader",
}

_WROTE = re.compile(r"Wrote (\d+) bytes(?: \(\d+ compressed\))? at 0x([0-9a-fA-F]{1,8})")
_ERASED = re.compile(r"Flash will be erased from 0x([0-9a-fA-F]{1,8}) to 0x([0-9a-fA-F]{1,8})")
"""What esptool says of a write; it stands in the board's log as marks."""

OTADATA_TEXTS = {
    "confirm": "otadata: the running version is confirmed",
    "repair": "otadata: brought in step with what runs",
    "rollback": "otadata: the running version is given up",
    "otadata-raw": "otadata: written as it is, past the encryption",
}


@dataclass(frozen=True, slots=True)
class Layout:
    """What lies where on one board, and whether its flash is encrypted."""

    chip: Chip
    table: PartitionTable
    table_offset: int
    encrypts: bool
    written: Sequence[WriteFlash] = ()
    """What plans had the harness write."""
    canaries: frozenset[int] = frozenset()
    """Where plans had the chip encipher known bytes."""

    def label_at(self, offset: int) -> str:
        """The partition there, or what lies outside of all."""
        found = next((each for each in self.table.partitions if each.offset <= offset < each.end), None)
        if found is not None:
            return found.label
        if self.chip.bootloader_offset <= offset < self.table_offset:
            return "bootloader"
        if self.table_offset <= offset < self.table_offset + SECTOR_BYTES:
            return "partition table"
        return f"0x{offset:x}"

    def is_otadata(self, offset: int) -> bool:
        """Whether otadata lies there."""
        place = self.table.otadata
        return place is not None and place.offset <= offset < place.end

    def slot(self, label: object) -> Partition | None:
        """The OTA slot of that name."""
        return next((each for each in self.table.ota_slots if each.label == label), None)

    def encrypted_by_plan(self, offset: int) -> bool | None:
        """What the harness wrote there by a plan is ciphertext; None: no plan wrote there."""
        for step in self.written:
            if step.offset <= offset < step.offset + step.size_bytes:
                return step.enciphered or step.by_chip
        return None

    def written_text(self, operation: Operation) -> str:
        """What the harness did with it."""
        through_cipher = operation.kind == "write-encrypted" and operation.length == CANARY_BYTES
        if through_cipher and operation.offset in self.canaries:
            return "canary: known bytes, enciphered by the chip and read back"
        return f"{self.label_at(operation.offset)}: written over the UART"

    def may_be_encrypted(self, offset: int) -> bool:
        """Whether the board deciphers what lies there."""
        return self.encrypts and stored_encrypted(self.chip, self.table, self.table_offset, offset)


@dataclass(slots=True)
class Story:
    """What was said while flash changed: lines, commands and boots of one test."""

    lines: Sequence[Line]
    commands: Sequence[Command]
    boots: Sequence[BootRecord] = ()
    _moments: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._moments = [line.wall_s for line in self.lines]

    def line_at(self, at_s: float) -> int | None:
        """The last line that had come by then."""
        index = bisect_right(self._moments, at_s) - 1
        return self.lines[index].n if index >= 0 else None

    def boot_at(self, at_s: float) -> BootRecord | None:
        """The boot whose first line came closest to that moment."""
        first = self.lines[0].n if self.lines else 0
        begun = [boot for boot in self.boots if first <= boot.first_line < first + len(self.lines)]
        return min(
            begun, key=lambda boot: abs(self.lines[boot.first_line - first].wall_s - at_s), default=None
        )

    def command_at(self, at_s: float) -> Command | None:
        """The command that the firmware was at: the last one that had been sent by then.

        What the board says is stamped when it arrives, which is later: the end of a command tells nothing here.
        """
        return next((each for each in reversed(self.commands) if each.sent_s <= at_s), None)


def last_otadata_answer(story: Story) -> Mapping[str, Any] | None:
    """What the firmware answered to ``otadata``, unless something may have changed it since."""
    found: Command | None = None
    for command in story.commands:
        if command.name == "otadata":
            found = command if command.ok else None
        elif command.updates or command.name in OTADATA_TEXTS:
            found = None
    if found is None or found.done is None or any(boot.first_line > found.done.line for boot in story.boots):
        return None
    return found.done.data


# --- from a log of operations ---


def judge(operations: Iterable[Operation], layout: Layout, story: Story) -> list[Judged]:
    """What each operation was part of."""
    judged = [Judged(each, layout, story) for each in operations if each.length]
    # ESP-IDF's esp_ota_begin changes otadata as well: what comes behind the slot's last write is the switch.
    written = {id(each.command): number for number, each in enumerate(judged) if not each.otadata}
    for number, each in enumerate(judged):
        each.switches = each.otadata and id(each.command) in written and number > written[id(each.command)]
    return judged


def steps_of_log(judged: Iterable[Judged], story: Story) -> tuple[FlashStep, ...]:
    """One step per thing that was done, in order."""
    return tuple(_step(list(group), story) for _, group in groupby(judged, key=lambda each: each.key))


class Judged:
    """One operation, and what it was part of."""

    def __init__(self, operation: Operation, layout: Layout, story: Story) -> None:
        self.operation = operation
        self.by: By = _BY.get(operation.who, "unknown")
        self.label = layout.label_at(operation.offset)
        self.at_s = operation.at_s or 0.0
        self.command = story.command_at(self.at_s) if self.by == "firmware" else None
        self.written_as = layout.written_text(operation) if self.by == "harness" else ""
        self.otadata = layout.is_otadata(operation.offset)
        self.switches = False
        """It makes the updated slot the one that boots next."""
        self.encrypted = self._encrypted(layout)

    @property
    def key(self) -> tuple[object, ...]:
        """Operations in a row that share it are one step."""
        return (self.operation.boot, self.by, self.label, self.written_as, id(self.command), self.switches)

    def line(self, story: Story) -> int | None:
        """The line of the log that stands for it best."""
        command = self.command
        if self.by == "bootloader":
            boot = story.boot_at(self.at_s)
            return boot.first_line if boot is not None else None
        if command is None:
            return story.line_at(self.at_s)
        phase = command.phase("switch" if self.switches else "erase") if command.updates else None
        return (phase or command.ack).line

    def _encrypted(self, layout: Layout) -> bool | None:
        operation = self.operation
        if operation.kind == "erase":
            return None
        if operation.kind == "write-encrypted":
            return True
        if self.by == "harness":
            planned = layout.encrypted_by_plan(operation.offset)
            if planned is not None:
                return planned
        if not layout.may_be_encrypted(operation.offset):
            return False
        command = self.command
        if command is None:
            return None
        if command.name == "otadata-raw" or command.error == "plaintext-image":
            return False
        # Only what the firmware has read back through its cipher is known to be ciphertext.
        return True if command.deciphered else None

    def text(self) -> str:
        if self.by == "harness":
            return self.written_as
        if self.by == "bootloader":
            return (
                "otadata: changed by the bootloader" if self.otadata else f"{self.label}: enciphered in place"
            )
        command = self.command
        if self.otadata:
            return _otadata_text(command, switches=self.switches)
        return _slot_text(command, self.label)


def _otadata_text(command: Command | None, *, switches: bool) -> str:
    if command is None:
        return "otadata: changed by the app"
    if command.updates:
        slot = command.result("slot")
        if switches and command.ok is not False:
            return f"otadata: {slot or 'the new slot'} is selected for the next boot"
        return "otadata: changed in the update"
    return OTADATA_TEXTS.get(command.name, f"otadata: changed by '{command.name}'")


def _slot_text(command: Command | None, label: str) -> str:
    if command is None or not command.updates:
        return f"{label}: written by the app"
    version = command.result("version")
    return (
        f"{label}: update to {version}" if version else f"{label}: update that ends in {command.error or '?'}"
    )


def _step(group: Sequence[Judged], story: Story) -> FlashStep:
    changes = tuple(sorted(_merged(group), key=lambda change: change.kind == "write"))
    first = group[0]
    return FlashStep(
        text=first.text(),
        at_s=round(first.at_s, 3),
        by=first.by,
        source="observed",
        changes=changes,
        line=first.line(story),
    )


def _merged(group: Iterable[Judged]) -> Iterator[FlashChange]:
    """Erases apart from writes: a handler may erase and write sector by sector."""
    kinds: dict[tuple[str, bool | None], list[tuple[int, int]]] = {}
    for each in group:
        kind = "erase" if each.operation.kind == "erase" else "write"
        stretches = kinds.setdefault((kind, each.encrypted), [])
        start, end = each.operation.offset, each.operation.offset + each.operation.length
        if stretches and stretches[-1][1] == start:
            stretches[-1] = (stretches[-1][0], end)
        elif (start, end) not in stretches:
            stretches.append((start, end))
    for (kind, encrypted), stretches in kinds.items():
        for start, end in stretches:
            yield FlashChange(
                kind="erase" if kind == "erase" else "write",
                offset=start,
                size=end - start,
                encrypted=encrypted,
            )


# --- from what was said ---


def steps_told(layout: Layout, story: Story) -> tuple[FlashStep, ...]:
    """Where no log of operations is kept: esptool's lines, the firmware's events, and what follows from boots."""
    found = [
        *_by_tools(layout, story.lines),
        *(step for command in story.commands for step in _by_command(command, layout)),
        *(step for boot in story.boots for step in _by_bootloader(boot, layout, story.lines)),
    ]
    return tuple(sorted(found, key=lambda step: (step.at_s, step.line or 0)))


def _by_tools(layout: Layout, lines: Iterable[Line]) -> Iterator[FlashStep]:
    erased: list[FlashChange] = []
    for line in lines:
        if not line.is_mark or not line.text.startswith("tool:"):
            continue
        text = parse_mark(line.text).text
        if (match := _ERASED.search(text)) is not None:
            start, last = int(match[1], 16), int(match[2], 16)
            erased.append(FlashChange(kind="erase", offset=start, size=last - start + 1))
        elif (match := _WROTE.search(text)) is not None:
            size, offset = int(match[1]), int(match[2], 16)
            planned = layout.encrypted_by_plan(offset)
            encrypted = planned if planned is not None or layout.may_be_encrypted(offset) else False
            write = FlashChange(kind="write", offset=offset, size=size, encrypted=encrypted)
            yield FlashStep(
                text=f"{layout.label_at(offset)}: written over the UART",
                at_s=line.wall_s,
                by="harness",
                source="written",
                changes=(*erased, write),
                line=line.n,
            )
            erased = []


def _by_command(command: Command, layout: Layout) -> Iterator[FlashStep]:
    if command.updates:
        yield from _by_update(command, layout)
    elif command.ok and command.name in OTADATA_TEXTS and command.done is not None:
        yield FlashStep(
            text=OTADATA_TEXTS[command.name],
            at_s=command.done.at_s,
            by="firmware",
            source="told",
            changes=(),
            line=command.done.line,
        )


def _by_update(command: Command, layout: Layout) -> Iterator[FlashStep]:
    slot = layout.slot(command.result("slot"))
    erase = command.phase("erase")
    size = command.bytes or (command.result("bytes") if isinstance(command.result("bytes"), int) else 0)
    at = erase or command.ack
    if slot is None or (erase is None and not size):
        return
    total = erase.data.get("total") if erase is not None else size
    whole = -(-int(total or size) // SECTOR_BYTES) * SECTOR_BYTES
    changes = [FlashChange(kind="erase", offset=slot.offset, size=min(whole, slot.size))]
    if size:
        sure = command.deciphered or command.name == "ota-stock"
        encrypted = (sure or None) if layout.encrypts else False
        changes.append(FlashChange(kind="write", offset=slot.offset, size=size, encrypted=encrypted))
    yield FlashStep(
        text=_slot_text(command, slot.label),
        at_s=at.at_s,
        by="firmware",
        source="told",
        changes=tuple(changes),
        line=at.line,
    )
    if command.ok and command.done is not None:
        switch = command.phase("switch") or command.done
        yield FlashStep(
            text=_otadata_text(command, switches=True),
            at_s=switch.at_s,
            by="firmware",
            source="told",
            changes=(),
            line=switch.line,
        )


def _by_bootloader(boot: BootRecord, layout: Layout, lines: Sequence[Line]) -> Iterator[FlashStep]:
    place = layout.table.otadata
    if place is None or not lines or not lines[0].n <= boot.first_line <= lines[-1].n:
        return
    at_s = lines[boot.first_line - lines[0].n].wall_s
    changes: tuple[FlashChange, ...] = ()
    if boot.otadata_written:
        # It names the slot that it chose in the first record.
        changes = (
            FlashChange(kind="write", offset=place.offset, size=SECTOR_BYTES, encrypted=layout.encrypts),
        )
        text = f"otadata: the bootloader names {boot.slot or 'what it boots'}"
    elif boot.ota_state == "pending" and not boot.confirmed:
        text = "otadata: the bootloader notes the first boot of a new version"
    else:
        return
    yield FlashStep(
        text=text, at_s=at_s, by="bootloader", source="inferred", changes=changes, line=boot.first_line
    )
