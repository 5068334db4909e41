"""What follows from boots in sequence and from what the harness did between them.

Pure. A bootloader at INFO level does not say that it rolled back, and says nothing at all when a damaged
otadata makes a device start an older version: only slot, offset and version of consecutive boots show it.
Every finding says whether it was stated by the device or inferred here, and from what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from harness.console.boot_record import FORMAT, BootRecord, Outcome, records_to_json
from harness.console.log_line import Line
from harness.console.mark import FLASHING, OTADATA, parse_mark


class FindingKind(str, Enum):
    """What may have happened between two boots."""

    ROLLBACK = "rollback"
    """An unconfirmed version gave way to the one before it."""
    FALLBACK_BOOT = "fall-back-boot"
    """The bootloader gave up a slot and started another; otadata still names the first."""
    SILENT_DOWNGRADE = "silent-downgrade"
    """A confirmed version was replaced by another, and nobody updated."""
    SLOT_CHANGE = "slot-change"
    """Another version runs without an update, and no line tells whether the one before was confirmed."""
    UPDATE_NOT_TAKEN = "update-not-taken"
    """An update ended well, and the next boot runs what ran before."""
    OTADATA_UNREADABLE = "otadata-unreadable"
    OTADATA_DISAGREES = "otadata-disagrees"
    """otadata names another slot than the one that runs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One conclusion, the boot it is about and what it rests on."""

    kind: FindingKind
    boot: int
    """`BootRecord.number` of the boot in which it shows."""
    text: str
    inferred: bool
    """False when the device itself printed it."""
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        how = " (inferred: no line says so)" if self.inferred else ""
        return f"boot {self.boot}: {self.text}{how}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object; ``format`` is that of the boot records."""
        return {
            "format": FORMAT,
            "kind": self.kind.value,
            "boot": self.boot,
            "text": self.text,
            "inferred": self.inferred,
            "evidence": list(self.evidence),
        }


@dataclass(frozen=True, slots=True)
class Baseline:
    """What ran before the first record, if the caller knows it (from a device record or an earlier log)."""

    slot: str
    version: str
    confirmed: bool


@dataclass(frozen=True, slots=True)
class _Running:
    """What an earlier boot ran, and what became known of it."""

    slot: str | None
    offset: int | None
    version: str | None
    confirmed: bool
    pending: bool
    boots: int
    """Boots in a row that ran it: a second one means that no rollback took it away."""
    label: str

    @property
    def settled(self) -> bool:
        return self.confirmed or self.boots > 1


def find(
    records: Sequence[BootRecord], marks: Iterable[Line] = (), *, before: Baseline | None = None
) -> tuple[Finding, ...]:
    """All findings over `records` (in order), given the harness's `marks` of the same log.

    No conclusion is drawn across a mark that says that flash was written from outside; if that was otadata
    alone, one is drawn only when the bootloader could not read it.
    """
    written = [(line.n, parse_mark(line.text).kind) for line in marks if line.is_mark]
    findings: list[Finding] = []
    running = _of_baseline(before)
    older: _Running | None = None
    last: BootRecord | None = None
    for record in records:
        findings += _stated(record)
        if record.outcome not in (Outcome.APP, Outcome.LOADED):
            continue
        since = last.first_line if last is not None else -1
        kinds = {kind for n, kind in written if since <= n <= record.first_line}
        if FLASHING in kinds or (OTADATA in kinds and not record.otadata_unreadable):
            running, older = None, None
        if running is not None:
            findings += _between(running, older, last, record)
        if running is not None and _same(running, record):
            running = _again(running, record)
        else:
            running, older = _started(record), running
        last = record
    return tuple(findings)


def with_findings(records: Sequence[BootRecord], findings: Iterable[Finding]) -> tuple[BootRecord, ...]:
    """`records` with each one's findings as sentences in ``inferred``."""
    found: dict[int, list[str]] = {}
    for finding in findings:
        how = " (inferred)" if finding.inferred else ""
        found.setdefault(finding.boot, []).append(f"{finding.kind.value}: {finding.text}{how}")
    return tuple(replace(r, inferred=tuple(found.get(r.number, ()))) for r in records)


def boots_to_json(records: Sequence[BootRecord], findings: Sequence[Finding]) -> dict[str, Any]:
    """Records and findings of one log as one JSON object with a format version."""
    return {
        **records_to_json(with_findings(records, findings)),
        "findings": [finding.to_json() for finding in findings],
    }


def _stated(record: BootRecord) -> list[Finding]:
    """What the device says of itself in one boot."""
    findings = []
    if record.otadata_unreadable:
        lines = tuple(str(e) for e in record.errors if "ota data" in e.text)
        by_bootloader = any(e.phase == "bootloader" and "ota data" in e.text for e in record.errors)
        then = (
            "the bootloader took the first slot that boots" if by_bootloader else "found by the application"
        )
        text = f"otadata holds no valid record; {then}"
        findings.append(Finding(FindingKind.OTADATA_UNREADABLE, record.number, text, False, lines[:4]))
    if record.not_bootable:
        gave_up = ", ".join(record.not_bootable)
        instead = f"; {_place(record)} was started instead" if record.offset is not None else ""
        lines = tuple(str(e) for e in record.errors if e.phase == "bootloader")
        text = f"the bootloader gave up {gave_up}{instead}"
        findings.append(Finding(FindingKind.FALLBACK_BOOT, record.number, text, False, lines[:4]))
    event = record.evt_boot
    if event is not None and event.get("agree") is False:
        text = f"{event.get('slot')} runs, otadata names {event.get('otadata_slot')}"
        evidence = (
            f"boot event: slot {event.get('slot')}, otadata_slot {event.get('otadata_slot')}, agree false",
        )
        findings.append(Finding(FindingKind.OTADATA_DISAGREES, record.number, text, False, evidence))
    return findings


def _between(
    running: _Running, older: _Running | None, last: BootRecord | None, record: BootRecord
) -> list[Finding]:
    """What the step from the boot before to `record` means."""
    updated = _update_evidence(last, record)
    if _same(running, record):
        done = [note for note in last.updates if note.startswith("command")] if last is not None else []
        if done and not record.rollback_notes:
            text = f"an update ended well, yet {_place(record)} {record.version or ''} runs as before".strip()
            return [Finding(FindingKind.UPDATE_NOT_TAKEN, record.number, text, True, tuple(done))]
        return []
    if updated:
        return []
    changed = f"{running.label} was replaced by {_label(record)}"
    evidence = _evidence(running, record)
    notes = (*(last.rollback_notes if last is not None else ()), *record.rollback_notes)
    if notes:
        return [
            Finding(
                FindingKind.ROLLBACK, record.number, f"rolled back: {changed}", False, (*notes, *evidence)
            )
        ]
    explained = record.otadata_unreadable or bool(record.not_bootable)
    if running.settled:
        why = "confirmed" if running.confirmed else "booted more than once"
        text = f"{running.label}, {why}, was replaced by {_label(record)} without an update"
        return [Finding(FindingKind.SILENT_DOWNGRADE, record.number, text, True, evidence)]
    if explained:
        text = f"{changed} because of what the bootloader reports"
        return [Finding(FindingKind.SLOT_CHANGE, record.number, text, True, evidence)]
    returned = older is not None and _same(older, record)
    if running.pending or returned:
        state = "pending verification" if running.pending else "never seen confirmed"
        text = f"rolled back: {running.label} ({state}) gave way to {_label(record)}"
        return [Finding(FindingKind.ROLLBACK, record.number, text, True, evidence)]
    text = f"{changed}, and no line tells why"
    return [Finding(FindingKind.SLOT_CHANGE, record.number, text, True, evidence)]


def _update_evidence(last: BootRecord | None, record: BootRecord) -> bool:
    """Whether the boot before installed, or deliberately chose, what now runs."""
    if last is None:
        return False
    checks = [check.ok for check in last.image_checks if check.offset == record.offset]
    if checks:
        # ESP-IDF verifies an image before it makes it the one to boot; the last word counts.
        return checks[-1]
    return any(note.startswith("command") for note in last.updates)


def _evidence(running: _Running, record: BootRecord) -> tuple[str, ...]:
    before = f"before: {running.label}" + (f" @ 0x{running.offset:x}" if running.offset is not None else "")
    after = f"now: {_label(record)}" + (f" @ 0x{record.offset:x}" if record.offset is not None else "")
    errors = tuple(str(e) for e in record.errors if e.phase == "bootloader")
    return (before, after, *errors[:3])


def _of_baseline(before: Baseline | None) -> _Running | None:
    if before is None:
        return None
    label = f"{before.version} in {before.slot}"
    return _Running(before.slot, None, before.version, before.confirmed, not before.confirmed, 1, label)


def _started(record: BootRecord) -> _Running:
    pending = record.ota_state in ("pending", "new") and not record.confirmed
    return _Running(
        record.slot,
        record.offset,
        record.version,
        record.confirmed,
        pending,
        1 + record.repeats,
        _label(record),
    )


def _again(running: _Running, record: BootRecord) -> _Running:
    newest = _started(record)
    return replace(
        newest, confirmed=newest.confirmed or running.confirmed, boots=running.boots + newest.boots
    )


def _same(running: _Running, record: BootRecord) -> bool:
    """Whether `record` runs the same version from the same place, as far as both were printed."""
    pairs = (
        (running.slot, record.slot),
        (running.offset, record.offset),
        (running.version, record.version),
    )
    return all(a is None or b is None or a == b for a, b in pairs)


def _place(record: BootRecord) -> str:
    return record.slot or (f"0x{record.offset:x}" if record.offset is not None else "an unknown slot")


def _label(record: BootRecord) -> str:
    return f"{record.version or 'an unknown version'} in {_place(record)}"
