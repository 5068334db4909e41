"""What a board was found to be, and whether that is what boards.yaml and its device record say. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from harness.chips import chip_named
from harness.doctor.finding import Finding, good, note, wrong
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.provision.chip_state import ChipState
from harness.provision.device_record import DeviceRecord
from harness.provision.recognition import LOCK_WORDS, Recognition, profile_of
from harness.vault.key_ref import DO_NOT_SHIP


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """One board as it was read."""

    name: str
    entry: AnyEntry
    reached_by: str
    """The link's own description."""
    state: ChipState
    mac: str | None
    """From the ROM, else from the link (a chip's own USB, a virtual board's state folder)."""
    record: DeviceRecord | None


def check_board(facts: BoardFacts) -> list[Finding]:
    """Judges a board that was read: chip, MAC, revision, profile, against its entry and its device record."""
    return [_who(facts), *_check_mac(facts), *_check_revision(facts), *_check_profile(facts)]


def area_of(name: str) -> str:
    """The findings' area of a board."""
    return f"board {name}"


def revision_text(revision: int | None) -> str:
    """``v0.4`` from major * 100 + minor."""
    return "of unknown revision" if revision is None else f"v{revision // 100}.{revision % 100}"


def _who(facts: BoardFacts) -> Finding:
    state = facts.state
    who = f"{state.chip.title} {revision_text(state.revision)}, {facts.mac or 'MAC not told'}"
    return good(area_of(facts.name), f"reached by {facts.reached_by}: {who}")


def _check_mac(facts: BoardFacts) -> list[Finding]:
    area, declared = area_of(facts.name), facts.entry.mac
    if facts.mac is None:
        return [
            note(
                area,
                "its ROM does not tell the MAC any more; before anything is written its firmware has to",
                None if declared else "write its 'mac:' into its entry",
            )
        ]
    if declared is None:
        if not isinstance(facts.entry, PhysicalEntry):
            return []
        return [
            note(
                area,
                "its entry has no 'mac:': it is only read, nothing is written to it",
                f'mac: "{facts.mac}"',
            )
        ]
    if declared != facts.mac:
        return [
            wrong(
                area,
                f"boards.yaml says {declared}, the chip says {facts.mac}",
                "connect the right board (two cables may be swapped), or correct 'mac:' in its entry",
            )
        ]
    return [good(area, "the MAC is as declared")]


def _check_revision(facts: BoardFacts) -> list[Finding]:
    chip, revision = chip_named(facts.entry.chip), facts.state.revision
    if revision is None or revision >= chip.min_chip_rev_full:
        return []
    return [
        wrong(
            area_of(facts.name),
            f"revision {revision_text(revision)} is older than {revision_text(chip.min_chip_rev_full)}, the oldest "
            f"{chip.title} that the firmware starts on",
            "use a newer board",
        )
    ]


def _check_profile(facts: BoardFacts) -> list[Finding]:
    area, record = area_of(facts.name), facts.record
    # Without the record: what the chip itself shows. Behind a lock that is nothing, and the record has the word.
    shown = profile_of(facts.state)
    now = shown if shown.profile is not None else profile_of(facts.state, record)
    found = []
    if now.profile is None:
        found.append(
            wrong(
                area,
                f"profile: {now.text()}",
                "bring back its device record (HARNESS_HOME/devices) from a copy, or use another board"
                if record is None
                else "use another board until it is known what happened to this one",
            )
        )
    elif record is not None and (now.profile is not record.profile or now.lock is not record.lock):
        found.append(
            wrong(
                area,
                f"by its eFuses it is {now.profile.value}, UART download {LOCK_WORDS[now.lock]}; its device record says "
                f"{record.profile.value}, {LOCK_WORDS[record.lock]}",
                f"somebody else has burned it, or a run was killed: harness plan --board {facts.name} shows the way on",
            )
        )
    else:
        known = "as its device record says" if record is not None else "no device record yet"
        found.append(
            good(area, f"profile {now.profile.value}, UART download {LOCK_WORDS[now.lock]}; {known}")
        )
    return [*found, *_missing(area, now), *_shipping(area, record)]


def _missing(area: str, now: Recognition) -> list[Finding]:
    if not now.missing:
        return []
    return [note(area, f"not release: {'; '.join(now.missing)}")]


def _shipping(area: str, record: DeviceRecord | None) -> list[Finding]:
    if record is None or record.shippable:
        return []
    return [note(area, f"its flash key is {record.key_state}: {DO_NOT_SHIP}")]
