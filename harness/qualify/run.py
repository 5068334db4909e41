"""Carries out a qualification on a board that is open: as it came, the good update, the way back, as it is left."""

from __future__ import annotations

import time
from collections.abc import Sequence

from harness.console.boot_record import BootRecord
from harness.errors import HarnessError, NotProvenError
from harness.qualify import claims as c
from harness.qualify.artefacts import App
from harness.qualify.bench import Bench, NotCovered
from harness.qualify.claims import Attempt, Judged
from harness.qualify.file import QualifyFile
from harness.qualify.flash_view import FlashView, content_of
from harness.qualify.harm import try_harm
from harness.qualify.offer import Served, fetched_whole
from harness.qualify.sighting import Readings, Seen, matches
from harness.qualify.unit import POLL_S
from harness.qualify.witness import read_witnesses
from harness.report.verdict import Standing
from harness.vault.key_ref import DO_NOT_SHIP, KeyState

CONFIRM_GRACE_S = 0.3
"""From what has the unit confirm its version to what asks whether it has."""

THERE = (c.SERVED, c.UPDATE, c.CONFIRMED, c.SURVIVES)
BACK = (c.SERVED_BACK, c.BACK, c.CONFIRMED_BACK, c.SURVIVES_BACK)


def carry_out(bench: Bench) -> None:
    """All cases that qualify.yaml and the kind of unit allow, in order.

    Raises:
        LabError: the bench failed, not the unit. UsageError: qualify.yaml is wrong.
    """
    running, update = bench.artefacts.running, bench.artefacts.update
    sacrificial = bench.file.unit == "sacrificial"
    _arrive(bench)
    bench.offer.start()
    try:
        if sacrificial:
            try_harm(bench, late=False)
        else:
            why = "a ship unit is given nothing but a good update"
            bench.not_covered += [NotCovered(c.CLAIMS[key], why, key) for key in c.SACRIFICIAL]
        _update(bench, "update", running, update, THERE)
        if bench.file.there_and_back:
            _update(bench, "back", update, running, BACK)
        if sacrificial:
            try_harm(bench, late=True)
            _roll_back(bench)
    finally:
        bench.offer.stop()
    _end(bench)


def planned(file: QualifyFile) -> tuple[str, ...]:
    """The claims of every qualification by `file`, in order; those of sacrificial units come on top."""
    return (
        *arrival_claims(file),
        *THERE,
        *(BACK if file.there_and_back else ()),
        c.END,
    )


def arrival_claims(file: QualifyFile) -> tuple[str, ...]:
    """What is claimed of the unit as it came."""
    return (c.PROFILE, *((c.SECURE_BOOT,) if "+" in file.profile else ()), c.RUNS_BEFORE)


def _arrive(bench: Bench) -> None:
    file, unit = bench.file, bench.unit
    profile, _, secure_boot = file.profile.partition("+")
    with bench.case("arrival", "the unit as it came", arrival_claims(file), vital=True):
        boot = unit.current() if file.reset == "none" else unit.restart()
        if file.prepare:
            bench.say.detail("preparing it")
            bench.hands.carry_out(file.prepare)
            boot = unit.latest(unit.current())
        bench.settle(boot)
        silicon = bench.silicon
        in_profile = bench.judge(c.judge_profile(profile, bench.boot, silicon.profile, silicon.profile_by))
        if secure_boot:
            bench.judge(c.judge_secure_boot(bench.boot, silicon.secure_boot))
        chip = c.judge_chip(bench.board.chip.name, bench.boot)
        if chip is not None:
            bench.judge(chip)
        running = bench.artefacts.running
        judged = bench.judge(c.judge_running(c.RUNS_BEFORE, running.facts, bench.seen))
        if judged.standing is Standing.PROVEN and bench.partitions:
            bench.flash = FlashView(bench.partitions, content_of(file.profile, in_profile.standing))
            bench.flash.runs(running.facts, bench.boot)
        if judged.standing is Standing.FAILED:
            bench.lost = f"the unit does not run what was demanded: {judged.claim.evidence}"
        if chip is not None and chip.standing is Standing.FAILED:
            bench.lost = f"this is another chip: {chip.claim.evidence}"


def _update(bench: Bench, name: str, old: App, new: App, keys: Sequence[str]) -> None:
    fetched, switched, confirmed, survives = keys
    title = f"update from {old.facts.version} to {new.facts.version}"
    with bench.case(name, title, keys, vital=True):
        bench.require_unit()
        before = bench.seen
        since = bench.offer.journal_length()
        what = bench.body_for(new)
        bench.offer.make(what, new.release, bench.target_label())
        mark = bench.unit.mark()
        bench.hands.carry_out(bench.file.trigger)
        boot = bench.await_new(new, mark)
        bench.judge(_judge_fetched(bench, fetched, what, since))
        if boot is None:
            shown = bench.shown(mark)
            bench.judge(Judged.of(switched, Standing.FAILED if shown else Standing.NOT_PROVEN, shown))
            bench.lost = f"the update to {new.facts.version} did not come through"
            raise NotProvenError(f"{new.facts.version} was not seen to run")
        _confirm(bench, boot)
        arrived = bench.judge(c.judge_switch(switched, new.facts, before, bench.seen))
        if arrived.standing is Standing.PROVEN:
            bench.updated(new, bench.boot)
        demanded = bench.file.end.otadata
        said = bench.judge(c.judge_confirmed(confirmed, bench.boot, bench.readings, demanded=demanded))
        before = bench.seen
        bench.settle(bench.unit.restart())
        bench.judge(c.judge_same_place(survives, new.facts, before, bench.seen))
        bench.judge(c.judge_switch_later(arrived, new.facts, bench.seen))
        bench.judge(c.judge_confirmed_later(said, new.facts, bench.seen))


def _judge_fetched(bench: Bench, key: str, what: Served, since: int) -> Judged:
    if not bench.offer.seen_here:
        why = "somebody else's server: nobody here saw what it served"
        return Judged.of(key, Standing.NOT_APPLICABLE, why)
    requests = bench.offer.requests(since)
    evidence = f"{len(what.body)} bytes of {what.words}, SHA-256 {what.sha256}"
    if fetched_whole(requests, len(what.body)):
        return Judged.of(key, Standing.PROVEN, f"the server's journal: {evidence}")
    sent = sum(each.bytes_sent for each in requests)
    return Judged.of(key, Standing.NOT_PROVEN, f"only {sent} bytes were fetched of {evidence}")


def _confirm(bench: Bench, boot: BootRecord) -> None:
    """Has the new version confirmed, or waits until it has confirmed itself."""
    file = bench.file
    if file.confirm:
        bench.hands.carry_out(file.confirm, since=boot.first_line)
        time.sleep(CONFIRM_GRACE_S)
    bench.settle(boot)
    if file.end.otadata == "undefined" or (file.confirm and file.witness.confirmed is None):
        return
    deadline_s = time.monotonic() + (file.times.settle_s if file.confirm else file.times.confirm_s)
    while not _is_confirmed(bench) and time.monotonic() < deadline_s:
        time.sleep(POLL_S * 4)
        bench.settle(boot, wait=False)


def _is_confirmed(bench: Bench) -> bool:
    judged = c.judge_confirmed(c.CONFIRMED, bench.boot, bench.readings, demanded="valid")
    return judged.standing is Standing.PROVEN


# --- rollback ---------------------------------------------------------------------------------------------------------


def _roll_back(bench: Bench) -> None:
    if not bench.file.rollback:
        why = "qualify.yaml does not demand it"
        bench.not_covered.append(NotCovered(c.CLAIMS[c.ROLLBACK], why, c.ROLLBACK))
        return
    with bench.case(c.ROLLBACK, c.CLAIMS[c.ROLLBACK], (c.ROLLBACK,)):
        bench.require_unit()
        old, new, before = bench.old, bench.new, bench.seen
        bench.offer.make(bench.body_for(new), new.release, bench.target_label())
        mark = bench.unit.mark()
        bench.hands.carry_out(bench.file.trigger)
        began = bench.await_new(new, mark)
        if began is None:
            raise NotProvenError(f"{new.facts.version} was not seen to start: {bench.shown(mark)}")
        early = read_witnesses(bench.unit, bench.hands, began.first_line, wait=False)
        boot = bench.unit.restart()
        _judge_rollback(bench, old, new, early, began, boot, before)


def _judge_rollback(
    bench: Bench,
    old: App,
    new: App,
    early: Readings,
    began: BootRecord,
    boot: BootRecord | None,
    before: Seen,
) -> None:
    confirmed = c.judge_confirmed(c.CONFIRMED, bench.unit.latest(began), early, demanded="valid")
    bench.settle(boot)
    if matches(new.facts, bench.boot, bench.readings).same:
        if confirmed.standing is Standing.PROVEN:
            standing, why = Standing.NOT_PROVEN, "it had confirmed itself before the reset"
        elif confirmed.standing is Standing.FAILED or bench.file.confirm:
            standing, why = Standing.FAILED, "it runs again after the reset, without having been confirmed"
        else:
            standing = Standing.NOT_PROVEN
            why = "it runs again after the reset, and nothing tells whether it had confirmed itself"
        bench.judge(Judged.of(c.ROLLBACK, standing, f"{new.facts.version}: {why}"))
        return
    attempt = Attempt(None, f"{began.summary()}, then reset", began.first_line)
    bench.judge(
        c.judge_survival(
            c.ROLLBACK,
            attempt,
            old.facts,
            new.facts,
            bench.seen,
            before=before,
        )
    )


# --- the end ----------------------------------------------------------------------------------------------------------


def _end(bench: Bench) -> None:
    end = bench.file.end
    # What is lost is still left somehow, and that is what is judged here.
    bench.lost = None
    with bench.case("end", "the unit as it is left", (c.END,)):
        _judge_shipping(bench)
        if bench.file.unit == "sacrificial" and end.image is None and end.slot is None:
            why = "a sacrificial unit is left as the last case left it"
            bench.judge(Judged.of(c.END, Standing.NOT_APPLICABLE, why))
            return
        # What the unit has done by itself since it was looked at last.
        bench.look_again(bench.boot)
        judged = c.judge_running(c.END, stated_end(bench).facts, bench.seen)
        bench.judge(judged if judged.standing is not Standing.PROVEN else _with_otadata(bench, judged))


def _judge_shipping(bench: Bench) -> None:
    """A ship unit whose key is only here could never be updated by whoever gets it."""
    if bench.file.unit != "ship":
        return
    board = bench.board
    if bench.withdrawn is not None:
        bench.judge(Judged.of(c.MAY_SHIP, Standing.NOT_PROVEN, bench.withdrawn))
        return
    try:
        record = board.records.read(board.mac) if board.mac else None
    except HarnessError as error:
        # What it would say may be that the unit must not be shipped.
        why = f"its device record cannot be read: {error.message}"
        bench.judge(Judged.of(c.MAY_SHIP, Standing.NOT_PROVEN, why))
        return
    if record is None:
        why = "this harness has no device record of the unit"
        bench.not_covered.append(NotCovered(c.CLAIMS[c.MAY_SHIP], why, c.MAY_SHIP))
    elif record.shippable:
        key = f"its flash key is {record.key_state}" if record.key_state else "it has no flash key"
        bench.judge(Judged.of(c.MAY_SHIP, Standing.PROVEN, f"{key}, by its device record"))
    else:
        where = "" if bench.board.link.physical else f" --board {bench.board.name}"
        settle = (
            f"import it again with the board at hand: harness keys import FILE --board {bench.board.name}"
            if record.key_state == KeyState.UNPROVEN.value
            else f"hand it to the owner: harness keys hand-over {record.mac}{where} --out PARCEL --receiver WHO"
        )
        why = f"{DO_NOT_SHIP}: its flash key is {record.key_state} by its device record; {settle}, and qualify again"
        bench.judge(Judged.of(c.MAY_SHIP, Standing.NOT_PROVEN, why))


def stated_end(bench: Bench) -> App:
    """The app that the unit is to be left with."""
    default = "running" if bench.file.there_and_back else "update"
    return (
        bench.artefacts.running if (bench.file.end.image or default) == "running" else bench.artefacts.update
    )


def _with_otadata(bench: Bench, judged: Judged) -> Judged:
    end, boot = bench.file.end, bench.boot
    evidence, line = judged.claim.evidence, judged.line
    place = bench.seen.place
    if end.slot is not None and place != end.slot:
        standing = Standing.FAILED if place is not None else Standing.NOT_PROVEN
        return Judged.of(c.END, standing, f"{evidence}; it was to be in {end.slot}", line)
    if boot is not None and (boot.otadata_unreadable or boot.not_bootable):
        return Judged.of(c.END, Standing.FAILED, f"{evidence}; {boot.summary()}", line)
    if end.otadata == "undefined":
        if boot is None or place is None:
            why = "nothing tells from which slot, so nothing tells what otadata says"
            return Judged.of(c.END, Standing.NOT_PROVEN, f"{evidence}; {why}", line)
        said = "the bootloader followed otadata to it, and complained of nothing"
        return Judged.of(c.END, Standing.PROVEN, f"{evidence}; {said}", line)
    confirmed = c.judge_confirmed(c.CONFIRMED, boot, bench.readings, demanded="valid")
    standings = [each for each in bench.claims if each.key in (c.CONFIRMED, c.CONFIRMED_BACK)]
    if confirmed.standing is Standing.NOT_PROVEN and standings and bench.file.unit == "ship":
        # It was confirmed in the boot before the last reset, nothing was written since, and confirmation is for good.
        confirmed = standings[-1]
    return Judged.of(
        c.END, confirmed.standing, f"{evidence}; otadata valid: {confirmed.claim.evidence}", line
    )
