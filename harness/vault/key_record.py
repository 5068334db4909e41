"""What the vault writes down of one device's flash key beside the key: whose, since when, in which state, and why.

Format 1 knew keys that were made here, all of them test-only. Format 2 adds where a key came from, every change of its
state with its time, and the challenge of a hand-over. All of it is bound to the enciphered part: a record whose state was
edited does not open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.chips import Chip, chip_named
from harness.errors import UsageError
from harness.vault.errors import DamagedError
from harness.vault.key_ref import KeyRef, KeyState, plain_mac

KEY_FORMAT = 2
"""Format of the key records that this code writes; records of format 1 are read, and rewritten at their first change."""

PURPOSE = "flash-key"

MADE_HERE = "made here"


@dataclass(frozen=True, slots=True)
class Change:
    """One moment in a key's life."""

    state: KeyState
    """The state from then on."""
    at: str
    """UTC, ISO 8601."""
    note: str
    """What happened, in words."""

    def text(self) -> str:
        """One line."""
        return f"{self.at}  {self.state.value}: {self.note}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """A block that the receiver of a key shall encipher, to show that their copy of it is whole. Not secret."""

    address: int
    """Byte address in flash that the block is enciphered for, a multiple of 4096."""
    block: bytes
    """Random; a multiple of 32 bytes."""
    receiver: str
    """Who is asked, in words; may be empty."""
    made: str
    """UTC, ISO 8601."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One device's key record, without the key."""

    mac: str
    chip_name: str
    key_id: str
    """Empty when the device made its key: nobody knows its id."""
    state: KeyState
    made: str
    """UTC, ISO 8601: when the record began."""
    made_by: str
    """Where the key came from: ``made here``, ``file …``, ``command …``, ``imported``, ``the device``."""
    history: tuple[Change, ...]
    """Oldest first; never empty, never shortened."""
    challenge: Challenge | None = None
    """What the receiver was asked last and has not answered yet."""
    part_ids: tuple[str, ...] = ()
    """Key ids of the halves of a key that takes two eFuse blocks; see `KeyRef`."""

    @property
    def chip(self) -> Chip:
        return chip_named(self.chip_name)

    @property
    def ref(self) -> KeyRef:
        """Its name."""
        return KeyRef(self.mac, self.chip_name, self.key_id, self.state, self.part_ids)

    @property
    def since(self) -> str:
        """When it got into the state that it is in."""
        first = self.history[-1]
        for change in reversed(self.history):
            if change.state is not self.state:
                break
            first = change
        return first.at

    @property
    def ever_proven(self) -> bool:
        """Whether it was ever known to be the chip's key: made for it, or shown by it."""
        return any(change.state in (KeyState.TEST_ONLY, KeyState.HANDED_OVER) for change in self.history)

    def changed(
        self, state: KeyState, at: str, note: str, *, challenge: Challenge | None = None
    ) -> KeyRecord:
        """The record after something happened. A `challenge` that is not given is gone."""
        return replace(
            self, state=state, history=(*self.history, Change(state, at, note)), challenge=challenge
        )

    def is_later_than(self, other: KeyRecord) -> bool:
        """Whether this is `other` after something more has happened to it."""
        mine, theirs = self.history, other.history
        return self.key_id == other.key_id and len(mine) > len(theirs) and mine[: len(theirs)] == theirs

    def to_fields(self) -> dict[str, Any]:
        """For its file, without the enciphered part."""
        fields: dict[str, Any] = {
            "format": KEY_FORMAT,
            "purpose": PURPOSE,
            "mac": self.mac,
            "chip": self.chip_name,
            "key_id": self.key_id,
            "key_state": self.state.value,
            "made": self.made,
            "made_by": self.made_by,
            "history": [
                {"state": each.state.value, "at": each.at, "note": each.note} for each in self.history
            ],
        }
        if self.part_ids:
            fields["part_ids"] = list(self.part_ids)
        if self.challenge is not None:
            fields["challenge"] = {
                "address": self.challenge.address,
                "block": self.challenge.block.hex(),
                "receiver": self.challenge.receiver,
                "made": self.challenge.made,
            }
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> KeyRecord:
        """The inverse of `to_fields`; also takes format 1.

        Raises:
            DamagedError: a field is missing or says what cannot be.
        """
        try:
            if fields["format"] == 1:
                return cls._from_format_1(fields)
            asked = fields.get("challenge")
            record = cls(
                mac=plain_mac(fields["mac"]),
                chip_name=chip_named(fields["chip"]).name,
                key_id=str(fields["key_id"]),
                state=KeyState(fields["key_state"]),
                made=str(fields["made"]),
                made_by=str(fields["made_by"]),
                history=tuple(
                    Change(KeyState(each["state"]), str(each["at"]), str(each["note"]))
                    for each in fields["history"]
                ),
                challenge=None
                if asked is None
                else Challenge(
                    int(asked["address"]),
                    bytes.fromhex(asked["block"]),
                    str(asked["receiver"]),
                    str(asked["made"]),
                ),
                part_ids=tuple(str(each) for each in fields.get("part_ids", ())),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, UsageError) as error:
            raise DamagedError(f"a key record is damaged: {type(error).__name__} {error}") from error
        if not record.history:
            raise DamagedError("a key record is damaged: it has no history")
        return record

    @classmethod
    def _from_format_1(cls, fields: Mapping[str, Any]) -> KeyRecord:
        state, made = KeyState(fields["key_state"]), str(fields["made"])
        return cls(
            mac=plain_mac(fields["mac"]),
            chip_name=chip_named(fields["chip"]).name,
            key_id=str(fields["key_id"]),
            state=state,
            made=made,
            made_by=MADE_HERE,
            history=(Change(state, made, MADE_HERE),),
        )
