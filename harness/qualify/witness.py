"""What the app says of itself, the way its owner reads it: in the log, by a command, or when it is asked."""

from __future__ import annotations

import re

from harness.errors import LabError
from harness.qualify.file import ConfirmedEntry, WitnessEntry
from harness.qualify.sighting import CONFIRMED_WORDS, Readings
from harness.qualify.trigger import Hands
from harness.qualify.unit import POLL_S, Unit

LONGEST_NOTE = 400
"""Characters of what a witness's command printed, in the log."""

WITNESSES = ("version", "slot", "confirmed", "image")


def read_witnesses(unit: Unit, hands: Hands, since: int, *, wait: bool = True) -> Readings:
    """What every witness named in qualify.yaml says now, of the boot that began at line `since`.

    A witness that fails says nothing; the log's note tells why.
    """
    values: dict[str, str | None] = {}
    words = CONFIRMED_WORDS
    lines: dict[str, int] = {}
    answers = unit.says_ready(since)
    for name in WITNESSES:
        entry: WitnessEntry | None = getattr(unit.file.witness, name)
        if entry is None:
            continue
        # Confirmation may come much later, or never: whoever waits for it asks again.
        waits = wait and name != "confirmed"
        value, line = read_witness(entry, unit, hands, since, timeout_s=None if waits else 0.0)
        if isinstance(entry, ConfirmedEntry) and value is not None:
            words = words_of(entry, value)
        answers = answers or (value is not None and (entry.run is not None or entry.send is not None))
        values[name] = _as_label(value, unit) if name == "slot" else value
        if line is not None:
            lines[name] = line
    return Readings(
        version=values.get("version"),
        slot=values.get("slot"),
        confirmed=values.get("confirmed"),
        confirmed_words=words,
        image=values.get("image"),
        lines=lines,
        answers=answers,
    )


def words_of(entry: ConfirmedEntry, value: str) -> frozenset[str]:
    """What of a witness's `value` means that the version is confirmed, in lower case."""
    if entry.stated is not None:
        return frozenset(word.strip().lower() for word in entry.stated)
    if not re.compile(entry.pattern).groups:
        # The app's owner wrote a pattern that only a confirmation matches.
        return frozenset({value.strip().lower()})
    return CONFIRMED_WORDS


def _value_of(match: re.Match[str]) -> str:
    """The first group, or all of it where there is none; an optional group that is absent says nothing."""
    return match[1] if match.re.groups else match[0]


def read_witness(
    entry: WitnessEntry, unit: Unit, hands: Hands, since: int, *, timeout_s: float | None = None
) -> tuple[str | None, int | None]:
    """What one witness says, and in which line of the log."""
    if entry.run is not None:
        try:
            said = hands.run(entry.run, entry.timeout_s)
        except LabError as error:
            unit.console.note(f"a witness failed: {error.message}")
            return None, None
        # What a claim rests on must be among the evidence.
        line = unit.mark()
        match = re.search(entry.pattern, said)
        if match is None:
            unit.console.note(f"a witness found no /{entry.pattern}/ in what that printed")
            return None, None
        unit.console.note(f"a witness read: {unit.console.redacted(match[0])[:LONGEST_NOTE]}")
        return _value_of(match), line
    start = since
    if entry.send is not None:
        start = unit.mark()
        hands.send(entry.send)
    wait_s = entry.timeout_s if timeout_s is None or entry.send is not None else timeout_s
    unit.await_line(entry.pattern, max(wait_s, POLL_S), start)
    # The newest word of this boot counts: a version that confirms itself says first that it has not yet.
    newest = unit.find(re.compile(entry.pattern), start, until=unit.end_of_boot(start))
    if newest is None:
        return None, None
    match = re.search(entry.pattern, newest.text)
    return (_value_of(match) if match else None), newest.n


def _as_label(value: str | None, unit: Unit) -> str | None:
    """An offset as the label of the partition there, where the bootloader has printed the table."""
    if value is None or not re.fullmatch(r"0x[0-9a-fA-F]+", value):
        return value
    offset = int(value, 16)
    for boot in reversed(unit.look()):
        found = boot.partition_at(offset)
        if found is not None:
            return found.label
    return f"{offset:#x}"
