"""What may be done with a key in the state that it is in. Pure; asked when a plan is made, and again when it is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from harness.chips import chip_named
from harness.errors import RefusedError
from harness.provision.plan import Plan
from harness.provision.steps import BurnKey, Canary, DecipherCheck, MakeKey, Step, WriteFlash
from harness.vault.errors import NoKeyHereError
from harness.vault.key_life import due_notes
from harness.vault.key_record import KeyRecord
from harness.vault.key_ref import KeyRef, KeyState
from harness.vault.key_source import KeySource
from harness.vault.vault import no_key_text, no_key_todo


def require_proven(ref: KeyRef | None, step: Step) -> None:
    """An unproven key neither goes into a chip nor enciphers what it boots from: bootloader, partition table, first app.

    Raises:
        RefusedError: `step` would do that with the key `ref`.
    """
    if ref is not None and ref.state is KeyState.UNPROVEN and _depends_on_key(step):
        raise RefusedError(
            f"the key {ref.key_id} of {ref.mac} was imported and is unproven: not done: {step.text()}",
            board=ref.mac,
            todo="prove it first: harness keys import FILE --board NAME",
        )


def require_key(plan: Plan, record: KeyRecord | None) -> None:
    """That the key which `plan` needs is here, and proven or proven by the plan itself before anything depends on it.

    Raises:
        NoKeyHereError: it was forgotten, or the device made it. RefusedError: it is unproven.
    """
    if record is None:
        return
    for step in plan.steps:
        if isinstance(step, (Canary, DecipherCheck)) and record.state is KeyState.UNPROVEN:
            return
        if _depends_on_key(step) and not record.state.has_key:
            raise NoKeyHereError(
                f"{no_key_text(record)}. The plan needs it to {step.text()}",
                board=plan.mac,
                todo=no_key_todo(record),
            )
        require_proven(record.ref, step)


def with_key_notes(plan: Plan, record: KeyRecord | None, source: KeySource | None = None) -> Plan:
    """`plan`, saying what a person should know of the key of its board; `source` is where a new one comes from.

    Raises:
        UsageError, UnsafePermissionsError: `source` cannot give one, as far as can be seen without asking for it.
    """
    if not plan.profile.encrypts:
        return plan
    kinds = {type(step) for step in plan.steps}
    if MakeKey in kinds and source is not None:
        chip = chip_named(plan.chip_name)
        source.check(plan.mac, chip)
        taking = MakeKey(source.named(plan.mac, chip))
        return replace(
            plan, steps=tuple(taking if isinstance(step, MakeKey) else step for step in plan.steps)
        )
    # A plan that burns a key says in its own words that it is test-only.
    if record is None or (BurnKey in kinds and record.state is KeyState.TEST_ONLY):
        return plan
    return replace(plan, remarks=(*plan.remarks, *due_notes(record)))


@contextmanager
def saying_what_became_of(record: KeyRecord | None) -> Iterator[None]:
    """A refusal for want of a key says why there is none."""
    try:
        yield
    except RefusedError as error:
        if record is not None and not record.state.has_key:
            error.message = f"{error.message}\n  {no_key_text(record)}"
            error.todo = no_key_todo(record)
        raise


def _depends_on_key(step: Step) -> bool:
    return isinstance(step, (MakeKey, BurnKey)) or (isinstance(step, WriteFlash) and step.enciphered)
