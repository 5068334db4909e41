"""A plan: what will be done to one board, in which order. `planner` makes it, `execute` carries it out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from harness.chips import chip_named
from harness.errors import FormatError, RefusedError
from harness.provision.chip_state import ChipState
from harness.provision.profile import Lock, Profile
from harness.provision.steps import FirmwareBurns, Step, WriteFlash, step_from_fields
from harness.vault.errors import NewerFormatError
from harness.vault.record_file import canonical

FORMAT = 2
"""Version of the JSON form; 2 has boot keys and the eFuses that are compared at the end."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps from what a board is to what a profile wants. No steps: it is there already."""

    chip_name: str
    mac: str
    profile: Profile
    lock: Lock
    state: ChipState
    """The board as it was when the plan was made; it must still be so when the plan is carried out."""
    key_id: str | None
    """Key id of the vault's key for this board; None when it has none yet, or needs none."""
    steps: tuple[Step, ...]
    goes_on: bool
    """An earlier run on this board was not finished; this plan finishes it."""
    burns_up_to: Profile | None
    """Furthest profile that eFuses are burned for, by these steps or the firmware they flash; None: none are."""
    now: str
    """What the board was recognised as, in words."""
    remarks: tuple[str, ...]
    flash: tuple[str, ...] = ()
    """What becomes of every partition, a line each: written, kept or erased."""
    digests: tuple[tuple[int, str, str], ...] = ()
    """Boot keys that the board is to trust: slot, digest in hexadecimal, name."""
    key_state: str | None = None
    """Where it is not the vault's key's: ``device-made``."""

    @property
    def id(self) -> str:
        """16 hexadecimal digits over all that matters: equal ids mean the same burns on the same board."""
        return hashlib.sha256(canonical(self._matter())).hexdigest()[:16]

    @property
    def empty(self) -> bool:
        """The board is there already; nothing is done."""
        return not self.steps

    @property
    def burns(self) -> tuple[Step, ...]:
        """The irreversible steps."""
        return tuple(step for step in self.steps if step.irreversible)

    @property
    def writes(self) -> tuple[WriteFlash, ...]:
        """What is written to flash."""
        return tuple(step for step in self.steps if isinstance(step, WriteFlash))

    @property
    def by_itself(self) -> bool:
        """The firmware burns something by itself when it runs."""
        return any(isinstance(step, FirmwareBurns) for step in self.steps)

    @property
    def final(self) -> bool:
        """After it no tool reaches the ROM over the UART ever again."""
        return any(getattr(step, "final", False) for step in self.steps)

    @property
    def unknown_burns(self) -> bool:
        """The firmware may burn eFuses of which nobody can tell."""
        return any(isinstance(step, FirmwareBurns) and step.unknown for step in self.steps)

    def changed_since(self, state: ChipState) -> tuple[str, ...]:
        """How the board differs from the one that was planned for; empty when it does not."""
        return self.state.differences(state)

    def require_unchanged(self, state: ChipState) -> None:
        """Refuses to go on with a plan that was made for another state.

        Raises:
            RefusedError: names every difference.
        """
        changes = self.changed_since(state)
        if changes:
            raise RefusedError(
                f"the board has changed since plan {self.id} was made: {'; '.join(changes)}",
                board=self.mac,
                todo="make a new plan and read it",
            )

    def text(self) -> str:
        """The plan for a person: numbered steps, the irreversible ones marked with ``!``."""
        chip = chip_named(self.chip_name)
        lines = [
            f"Plan {self.id}: {chip.title} {self.mac} to {self.profile.value}, lock {self.lock.value}",
            f"  now: {self.now}",
        ]
        if self.goes_on:
            lines.append("  an earlier run on this board was not finished: this plan does what is missing")
        if self.empty:
            lines.append("  nothing to do: the board is there already; no eFuse is burned")
        for number, step in enumerate(self.steps, 1):
            mark = "!" if step.irreversible else " "
            lines.append(f"  {number:2d} {mark} {step.text()}")
        if self.burns:
            lines.append(f"  ! = irreversible: {len(self.burns)} of {len(self.steps)} steps burn eFuses")
        if self.key_id:
            lines.append(f"  key id {self.key_id}")
        lines += [f"  boot key {name} in slot {slot}: {digest}" for slot, digest, name in self.digests]
        if self.flash and self.writes:
            lines += ["  flash:", *(f"     {line}" for line in self.flash)]
        lines += [f"  note: {remark}" for remark in self.remarks]
        return "\n".join(lines)

    def to_json(self) -> str:
        """The stored form; the contents of the regions are not in it, only their hashes."""
        return json.dumps({"format": FORMAT, "id": self.id, **self._matter(), **self._rest()}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Reads `to_json`'s form.

        Raises:
            NewerFormatError: a newer harness wrote it.
            FormatError: it cannot be read, or was edited.
        """
        try:
            fields = json.loads(text)
            version = fields["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError("this is not a stored plan", todo="make one with: harness plan") from error
        if type(version) is not int or version > FORMAT:
            raise NewerFormatError(
                f"the plan has format {version}; this harness knows {FORMAT}",
                todo="install the newer harness",
            )
        if version < FORMAT:
            raise FormatError("the plan is of an older harness", todo="make it again: harness plan")
        try:
            burns_up_to = fields["burns_up_to"]
            plan = cls(
                chip_name=fields["chip"],
                mac=fields["mac"],
                profile=Profile(fields["profile"]),
                lock=Lock(fields["lock"]),
                state=ChipState.from_fields(fields["state"]),
                key_id=fields["key_id"],
                steps=tuple(step_from_fields(step) for step in fields["steps"]),
                goes_on=bool(fields["goes_on"]),
                burns_up_to=None if burns_up_to is None else Profile(burns_up_to),
                now=str(fields["now"]),
                remarks=tuple(str(remark) for remark in fields["remarks"]),
                flash=tuple(str(line) for line in fields["flash"]),
                digests=tuple(
                    (int(slot), str(digest), str(name)) for slot, digest, name in fields["digests"]
                ),
                key_state=fields["key_state"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise FormatError(f"the stored plan cannot be read: {type(error).__name__} {error}") from error
        if plan.id != fields.get("id"):
            raise FormatError(
                "the stored plan was edited: its id does not fit its steps",
                todo="make it again: harness plan",
            )
        return plan

    def _matter(self) -> dict[str, Any]:
        """What the id stands for."""
        return {
            "chip": self.chip_name,
            "mac": self.mac,
            "profile": self.profile.value,
            "lock": self.lock.value,
            "key_id": self.key_id,
            "state": self.state.to_fields(),
            "steps": [step.to_fields() for step in self.steps],
            "digests": [list(each) for each in self.digests],
            "key_state": self.key_state,
            "burns_up_to": self.burns_up_to.value if self.burns_up_to else None,
        }

    def _rest(self) -> dict[str, Any]:
        return {
            "goes_on": self.goes_on,
            "now": self.now,
            "remarks": list(self.remarks),
            "flash": list(self.flash),
        }
