"""Carries out a qualification on a board that is open, and collects what each case shows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness.board import Board
from harness.console.boot_record import BootRecord
from harness.console.log_line import parse_esp_line
from harness.errors import BoardError, HarnessError, LabError, NotProvenError, UsageError
from harness.formats.partition import Partition
from harness.ota.faults import Fault, FaultKind
from harness.ota.journal import RequestEnd
from harness.qualify import claims as c
from harness.qualify.artefacts import App, Artefacts
from harness.qualify.cases import CASES, Case, How, Ingredients, slots_of, why_not
from harness.qualify.claims import Attempt, Judged, Readings
from harness.qualify.file import HarnessServer, QualifyPlan
from harness.qualify.offer import NAME, Offer, Served, enciphered, fetched_whole, key_of, served
from harness.qualify.silicon import Silicon
from harness.qualify.trigger import Hands
from harness.qualify.unit import POLL_S, Unit
from harness.qualify.witness import read_witnesses
from harness.report.verdict import Standing
from harness.say import Say

CONFIRM_GRACE_S = 0.3


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case as it went."""

    name: str
    title: str
    began_s: float
    ended_s: float
    claims: tuple[Judged, ...]
    first_line: int
    last_line: int
    steps: tuple[str, ...] = ()
    """What was done to the unit, in order."""
    events: tuple[tuple[float, str, str, int | None], ...] = ()
    """Unix seconds, kind, text, bytes: what was served meanwhile."""


@dataclass(frozen=True, slots=True)
class NotCovered:
    """Something that this qualification says nothing about, and why."""

    what: str
    why: str
    key: str | None = None


@dataclass(slots=True)
class Qualifier:
    """One qualification on one unit."""

    plan: QualifyPlan
    artefacts: Artefacts
    board: Board
    hands: Hands
    offer: Offer
    silicon: Silicon
    say: Say
    observe: bool = False
    results: list[CaseResult] = field(default_factory=list)
    not_covered: list[NotCovered] = field(default_factory=list)
    _now: App | None = None
    _boot: BootRecord | None = None
    _readings: Readings = field(default_factory=Readings)
    _claims: list[Judged] = field(default_factory=list)
    _lost: str | None = None
    """Why no further case is tried."""

    @property
    def unit(self) -> Unit:
        return self.hands.unit

    @property
    def runs(self) -> App | None:
        """What runs now, as far as the cases tell."""
        return self._now

    @property
    def last_boot(self) -> BootRecord | None:
        """The newest boot that was looked at."""
        return self._boot

    @property
    def last_readings(self) -> Readings:
        """What the witnesses said of it."""
        return self._readings

    @property
    def claims(self) -> tuple[Judged, ...]:
        """Of all cases."""
        return tuple(claim for result in self.results for claim in result.claims)

    def carry_out(self) -> None:
        """All cases that the file and the kind of unit allow, in order.

        Raises:
            LabError, BoardError: the bench failed, not the unit.
        """
        file = self.plan.file
        self._now = self.artefacts.running
        running, update = self.artefacts.running, self.artefacts.update
        sacrificial = file.unit == "sacrificial"
        with self._case("arrival", "the unit as it came"):
            self._arrive()
        self.offer.start()
        try:
            if sacrificial:
                self._bad_cases(late=False)
            else:
                self._leave_out_bad_cases()
            self._good_update("update", running, update, (c.SERVED, c.UPDATE, c.CONFIRMED, c.SURVIVES))
            if file.there_and_back:
                keys = (c.SERVED_BACK, c.BACK, c.CONFIRMED_BACK, c.SURVIVES_BACK)
                self._good_update("back", update, running, keys)
            if sacrificial:
                self._bad_cases(late=True)
                self._roll_back()
        finally:
            self.offer.stop()
        with self._case("end", "the unit as it is left"):
            self._end()

    # --- the unit as it came ------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        file = self.plan.file
        boot = self.unit.current() if file.reset == "none" else self.unit.restart()
        if file.prepare:
            self.say.detail("preparing it")
            self.hands.carry_out(file.prepare)
            boot = self.unit.latest(self.unit.current())
        self._settle(boot)
        profile, _, boot_part = file.profile.partition("+")
        self._judge(c.judge_profile(profile, self._boot, self.silicon.profile, self.silicon.profile_by))
        if boot_part:
            self._judge(c.judge_secure_boot(self._boot, self.silicon.secure_boot))
        before = c.judge_running(c.RUNS_BEFORE, self.artefacts.running.facts, self._boot, self._readings)
        self._judge(before)
        if before.standing is Standing.FAILED:
            self._lost = f"it does not run what was demanded: {before.claim.evidence}"

    def _settle(self, boot: BootRecord | None, *, wait: bool = True) -> None:
        """Remembers `boot` as the one that runs, with what the witnesses say of it."""
        since = boot.first_line if boot is not None else 0
        self._readings = read_witnesses(self.unit, self.hands, since, wait=wait)
        self._boot = self.unit.latest(boot)

    # --- the good update ----------------------------------------------------------------------------------------

    def _good_update(self, name: str, old: App, new: App, keys: Sequence[str]) -> None:
        fetched, switched, confirmed, survives = keys
        title = f"update from {old.facts.version} to {new.facts.version}"
        with self._case(name, title):
            if self._lost is not None:
                self._judge_all(keys, self._lost)
                return
            back = new is self.artefacts.running
            try:
                before, readings_before = self._boot, self._readings
                since = self.offer.journal_length()
                what = self._right_body(new, back=back)
                self.offer.make(what, new.release, self._target_label())
                mark = self.unit.mark()
                self.hands.carry_out(self.plan.file.trigger)
                boot = self._await_new(new, mark, since)
            except (NotProvenError, UsageError, LabError) as error:
                _reraise_if_gone(self.board, error)
                self._judge_all(keys, error.message)
                return
            self._judge(self._judge_fetched(fetched, what, since))
            if boot is None:
                shown = self._shown_since(mark)
                self._judge(Judged.of(switched, Standing.FAILED if shown else Standing.NOT_PROVEN, shown))
                self._judge_all((confirmed, survives), "the new version was not seen to run")
                self._lost = "the update before did not come through"
                return
            self._confirm(boot)
            self._judge(
                c.judge_switch(switched, new.facts, before, self._boot, self._readings, readings_before)
            )
            self._now = new
            self._survive(survives, new, confirmed)

    def _survive(self, key: str, new: App, confirmed: str) -> None:
        """Confirmation, and a reset after it."""
        demanded = self.plan.file.end.otadata
        self._judge(c.judge_confirmed(confirmed, self._boot, self._readings, demanded=demanded))
        before = self._boot
        try:
            boot = self.unit.restart()
        except NotProvenError as error:
            self._judge(Judged.of(key, Standing.NOT_PROVEN, error.message))
            return
        self._settle(boot)
        self._judge(c.judge_same_place(key, new.facts, before, self._boot, self._readings))

    def _confirm(self, boot: BootRecord) -> None:
        """Has the new version confirmed, or waits until it has confirmed itself."""
        file = self.plan.file
        if file.confirm:
            self.hands.carry_out(file.confirm, since=boot.first_line)
            time.sleep(CONFIRM_GRACE_S)
        self._settle(boot)
        deadline_s = time.monotonic() + (file.times.confirm_s if not file.confirm else file.times.settle_s)
        if file.witness.confirmed is None and file.confirm:
            return
        while not self._is_confirmed() and time.monotonic() < deadline_s:
            if file.witness.confirmed is None and file.end.otadata == "undefined":
                return
            time.sleep(POLL_S * 4)
            self._settle(boot, wait=False)

    def _is_confirmed(self) -> bool:
        judged = c.judge_confirmed(c.CONFIRMED, self._boot, self._readings, demanded="valid")
        return judged.standing is Standing.PROVEN

    def _await_new(self, new: App, mark: int, since: int) -> BootRecord | None:
        """The boot in which `new` runs; None when the unit runs on, or comes back, without it."""
        times = self.plan.file.times
        deadline_s = time.monotonic() + times.update_s
        quiet_since_s, seen = time.monotonic(), (-1, -1)
        while time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            for boot in self.unit.look():
                if boot.first_line < mark or not self.unit.is_up(boot):
                    continue
                match = c.matches(new.facts, boot)
                if match.same or (match.same is None and self._witness_says(new, boot)):
                    return boot
            now = (self.unit.mark(), self.offer.journal_length())
            if now != seen:
                seen, quiet_since_s = now, time.monotonic()
            given_up = self.unit.failed is not None and self.unit.find(self.unit.failed, mark) is not None
            over = given_up or self._came_back(mark) or self._fetched_since(since)
            if over and time.monotonic() - quiet_since_s > times.settle_s:
                return None
            if given_up and not self._fetched_since(since):
                return None
        return None

    def _witness_says(self, new: App, boot: BootRecord) -> bool:
        if self.plan.file.witness.version is None and self.plan.file.witness.image is None:
            return False
        readings = read_witnesses(self.unit, self.hands, boot.first_line, wait=False)
        return bool(c.matches(new.facts, boot, readings).same)

    def _came_back(self, mark: int) -> bool:
        return any(boot.first_line >= mark and self.unit.is_up(boot) for boot in self.unit.look())

    def _fetched_since(self, since: int) -> bool:
        return any(each.end is RequestEnd.COMPLETE for each in self.offer.requests(since))

    def _judge_fetched(self, key: str, what: Served, since: int) -> Judged:
        if not self.offer.seen_here:
            why = "somebody else's server: nobody here saw what it served"
            return Judged.of(key, Standing.NOT_APPLICABLE, why)
        requests = self.offer.requests(since)
        sent = sum(each.bytes_sent for each in requests)
        evidence = f"{len(what.body)} bytes of {what.words}, SHA-256 {what.sha256}"
        if fetched_whole(requests, len(what.body)):
            return Judged.of(key, Standing.PROVEN, f"the server's journal: {evidence}")
        return Judged.of(key, Standing.NOT_PROVEN, f"only {sent} bytes were fetched of {evidence}")

    def _shown_since(self, mark: int) -> str:
        """What the unit shows instead of the new version."""
        complaint = self._complaint(mark)
        boots = [boot for boot in self.unit.look() if boot.first_line >= mark]
        shown = [f"it printed '{complaint[0]}'"] if complaint is not None else []
        shown += [boots[-1].summary()] if boots else []
        return "; ".join(shown)

    def _complaint(self, mark: int) -> tuple[str, int] | None:
        """What the unit printed of an update that it did not take: the line that was named, or its last error."""
        if self.unit.failed is not None:
            found = self.unit.find(self.unit.failed, mark)
            if found is not None:
                return found.text, found.n
        for line in reversed(self.unit.lines(mark)):
            log = parse_esp_line(line.text)
            if log is not None and log.level == "E":
                return f"{log.tag}: {log.text}", line.n
        return None

    # --- bodies -------------------------------------------------------------------------------------------------

    @property
    def _partitions(self) -> tuple[Partition, ...]:
        if self.artefacts.table is not None:
            return tuple(self.artefacts.table.partitions)
        printed = next((boot.partitions for boot in reversed(self.unit.look()) if boot.partitions), ())
        return tuple(Partition(p.label, p.type, p.subtype, p.offset, p.size) for p in printed)

    def _target(self) -> tuple[Partition, Partition | None]:
        place = c.place_of(self._boot, self._readings)
        if place is not None and place.startswith("0x"):
            offset = int(place, 16)
            place = next((each.label for each in self._partitions if each.offset == offset), place)
        return slots_of(self._partitions, place)

    def _target_label(self) -> str | None:
        try:
            return self._target()[0].label
        except NotProvenError:
            return None

    def _for_slot(self, app: App, slot: Partition) -> Served:
        image = self.plan.file.image
        if image == "ciphertext":
            body = enciphered(app.release, chip=self.board.chip, key=key_of(self.board), slot=slot)
            return served(body, f"{app.facts.version}, enciphered for {slot.label} at {slot.offset:#x}")
        files = self.artefacts.served_back if app is self.artefacts.running else self.artefacts.served
        loaded = files.get(slot.label) or files.get("any")
        if loaded is None:
            raise NotProvenError(
                f"qualify.yaml names no file to serve for {slot.label}", board=self.board.name
            )
        return served(loaded.data, f"{loaded.path.name} ({app.facts.version})")

    def _right_body(self, app: App, *, back: bool) -> Served:
        if self.plan.file.image == "plaintext":
            return served(app.release.image, f"{app.facts.version} as plaintext")
        files = self.artefacts.served_back if back else self.artefacts.served
        if self.plan.file.image == "file" and "any" in files and len(files) == 1:
            return served(files["any"].data, f"{files['any'].path.name} ({app.facts.version})")
        return self._for_slot(app, self._target()[0])

    # --- what must not harm it ----------------------------------------------------------------------------------

    def _leave_out_bad_cases(self) -> None:
        why = "a ship unit is given nothing but a good update"
        self.not_covered += [NotCovered(c.CLAIMS[key], why, key) for key in c.SACRIFICIAL]

    def _bad_cases(self, *, late: bool) -> None:
        file = self.plan.file
        https = isinstance(file.server, HarnessServer) and file.server.certificate is not None
        for case in CASES:
            if case.late is not late:
                continue
            reason = why_not(case, file.image, our_server=self.offer.seen_here, https=https)
            if reason is not None:
                self.not_covered.append(NotCovered(c.CLAIMS[case.key], reason, case.key))
                continue
            with self._case(case.key, c.CLAIMS[case.key]):
                self._try(case)

    def _try(self, case: Case) -> None:
        if self._lost is not None:
            self._judge(Judged.of(case.key, Standing.NOT_PROVEN, f"not tried: {self._lost}"))
            return
        old = self._now or self.artefacts.running
        new = self.artefacts.update if old is self.artefacts.running else self.artefacts.running
        mark, since = self.unit.mark(), self.offer.journal_length()
        try:
            attempt = self._offer_bad(case, new, mark, since)
            boot = self._boot_after(case)
        except (NotProvenError, UsageError, LabError) as error:
            _reraise_if_gone(self.board, error)
            self._judge(Judged.of(case.key, Standing.NOT_PROVEN, error.message))
            return
        self._settle(boot)
        judged = c.judge_survival(
            case.key, attempt, old.facts, new.facts, self._boot, self._readings, new_may_run=case.late
        )
        self._judge(judged)
        if judged.standing is Standing.FAILED:
            self._lost = f"the unit no longer runs what it ran ({c.CLAIMS[case.key]})"
        elif case.late and c.matches(new.facts, self._boot, self._readings).same and self._boot is not None:
            self._confirm(self._boot)
            self._now = new

    def _offer_bad(self, case: Case, new: App, mark: int, since: int) -> Attempt:
        """Offers the body of `case` and waits until the unit is done with it, or cuts."""
        image = self.plan.file.image
        right = served(new.release.image, f"{new.facts.version} as plaintext")
        needs_slot = image != "plaintext" or case.key == "refuses-ciphertext"
        slot, other = self._target() if needs_slot else _some_slots(self._partitions)
        parts = Ingredients(
            new.release,
            (lambda _: right) if image == "plaintext" else (lambda where: self._for_slot(new, where)),
            self.board.chip,
            slot,
            other,
        )
        what = case.make(parts)
        if case.how is How.OTHER_CERTIFICATE:
            return self._offer_with_other_certificate(what, new, mark)
        self.offer.make(what, new.release, slot.label)
        if case.how is How.CUT_IN_DOWNLOAD:
            return self._cut_in_download(what, mark)
        fault = case.fault(len(what.body)) if case.fault is not None else None
        armed = self.offer.server.faults.add(fault) if fault is not None and self.offer.server else None
        try:
            self.hands.carry_out(self.plan.file.trigger)
            if case.how is How.CUT_AT_END:
                return self._cut_at_end(what, since)
            self._await_over(mark, since)
        finally:
            if armed is not None:
                self.offer.clear_faults()
        complaint = self._complaint(mark)
        sent = sum(each.bytes_sent for each in self.offer.requests(since)) if self.offer.seen_here else None
        return Attempt(sent, *(complaint or (None, None)))

    def _await_over(self, mark: int, since: int) -> None:
        """Until the unit has given up, has restarted, or nothing happens any more."""
        times = self.plan.file.times
        deadline_s = time.monotonic() + times.update_s
        quiet_since_s, seen = time.monotonic(), (-1, -1)
        while time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            if self.unit.failed is not None and self.unit.find(self.unit.failed, mark) is not None:
                return
            if self._came_back(mark):
                return
            now = (self.unit.mark(), self.offer.journal_length())
            if now != seen:
                seen, quiet_since_s = now, time.monotonic()
            asked = not self.offer.seen_here or self.offer.journal_length() > since
            if asked and time.monotonic() - quiet_since_s > times.settle_s:
                return

    def _boot_after(self, case: Case) -> BootRecord | None:
        """The boot that shows what is left; cuts have restarted the unit already."""
        times = self.plan.file.times
        if case.how in (How.CUT_IN_DOWNLOAD, How.CUT_AT_END):
            found = self.unit.await_app(self._cut_mark, times.boot_s)
            if found is not None:
                return found
            since = [boot for boot in self.unit.look() if boot.first_line >= self._cut_mark]
            return since[-1] if since else None
        return self.unit.restart()

    _cut_mark: int = 0

    def _cut_in_download(self, what: Served, mark: int) -> Attempt:
        assert self.offer.server is not None
        half = len(what.body) // 2
        armed = self.offer.server.faults.add(Fault(FaultKind.STALL, match=NAME, at_byte=half))
        try:
            self.hands.carry_out(self.plan.file.trigger)
            deadline_s = time.monotonic() + self.plan.file.times.update_s
            while armed.struck == 0:
                if time.monotonic() > deadline_s or self._complaint(mark) is not None:
                    raise NotProvenError("the download did not get to where it was to be cut")
                time.sleep(POLL_S)
            self._cut_mark = self.unit.reset()
        finally:
            self.offer.clear_faults()
        return Attempt(half)

    def _cut_at_end(self, what: Served, since: int) -> Attempt:
        deadline_s = time.monotonic() + self.plan.file.times.update_s
        while not self._fetched_since(since):
            if time.monotonic() > deadline_s:
                raise NotProvenError("the download was not completed: there was nothing to cut")
            time.sleep(POLL_S / 10)
        self._cut_mark = self.unit.reset()
        return Attempt(len(what.body))

    def _offer_with_other_certificate(self, what: Served, new: App, mark: int) -> Attempt:
        server = self.offer.server
        assert server is not None
        address = server.address
        folder = self.board.folder
        certificate, key = _other_certificate(folder, self.hands.values.get("host", address[0]))
        self.offer.make(what, new.release, None)
        server.stop()
        try:
            self.offer.start(certificate=certificate, key=key)
            since = self.offer.journal_length()
            self.offer.make(what, new.release, None)
            self.hands.carry_out(self.plan.file.trigger)
            deadline_s = time.monotonic() + self.plan.file.times.update_s
            while time.monotonic() < deadline_s and self._complaint(mark) is None:
                if self._fetched_since(since) or self._came_back(mark):
                    break
                time.sleep(POLL_S)
            time.sleep(POLL_S * 4)
        finally:
            server.stop()
            key.unlink(missing_ok=True)
            self.offer.start()
        sent = sum(each.bytes_sent for each in self.offer.requests(since))
        return Attempt(sent, *(self._complaint(mark) or (None, None)))

    # --- rollback -----------------------------------------------------------------------------------------------

    def _roll_back(self) -> None:
        if not self.plan.file.rollback:
            self.not_covered.append(
                NotCovered(c.CLAIMS[c.ROLLBACK], "qualify.yaml does not demand it", c.ROLLBACK)
            )
            return
        with self._case(c.ROLLBACK, c.CLAIMS[c.ROLLBACK]):
            if self._lost is not None:
                self._judge(Judged.of(c.ROLLBACK, Standing.NOT_PROVEN, f"not tried: {self._lost}"))
                return
            old = self._now or self.artefacts.running
            new = self.artefacts.update if old is self.artefacts.running else self.artefacts.running
            try:
                since = self.offer.journal_length()
                what = self._right_body(new, back=new is self.artefacts.running)
                self.offer.make(what, new.release, self._target_label())
                mark = self.unit.mark()
                self.hands.carry_out(self.plan.file.trigger)
                began = self._await_new(new, mark, since)
                if began is None:
                    raise NotProvenError(
                        f"{new.facts.version} was not seen to start: {self._shown_since(mark)}"
                    )
                early = read_witnesses(self.unit, self.hands, began.first_line, wait=False)
                boot = self.unit.restart()
            except (NotProvenError, UsageError, LabError) as error:
                _reraise_if_gone(self.board, error)
                self._judge(Judged.of(c.ROLLBACK, Standing.NOT_PROVEN, error.message))
                return
            self._judge_rollback(old, new, early, began, boot)

    def _judge_rollback(
        self, old: App, new: App, early: Readings, began: BootRecord, boot: BootRecord | None
    ) -> None:
        confirmed = c.judge_confirmed(c.CONFIRMED, self.unit.latest(began), early, demanded="valid")
        self._settle(boot)
        if c.matches(new.facts, self._boot, self._readings).same:
            was = confirmed.standing is Standing.PROVEN
            why = "it had confirmed itself before the reset" if was else "it runs again after the reset"
            standing = Standing.NOT_PROVEN if was else Standing.FAILED
            self._judge(Judged.of(c.ROLLBACK, standing, f"{new.facts.version}: {why}"))
            self._now = new
            return
        attempt = Attempt(None, f"{began.summary()}, then reset", began.first_line)
        self._judge(c.judge_survival(c.ROLLBACK, attempt, old.facts, new.facts, self._boot, self._readings))

    # --- the end ------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        end = self.plan.file.end
        if self.plan.file.unit == "sacrificial" and end.image is None:
            why = "a sacrificial unit is left as the last case left it"
            self._judge(Judged.of(c.END, Standing.NOT_APPLICABLE, why))
            return
        left = self._now or self.artefacts.running
        stated = {"running": self.artefacts.running, "update": self.artefacts.update, None: left}[end.image]
        judged = c.judge_running(c.END, stated.facts, self._boot, self._readings)
        if judged.standing is not Standing.PROVEN:
            self._judge(judged)
            return
        self._judge(self._with_otadata(judged))

    def _with_otadata(self, judged: Judged) -> Judged:
        end, boot = self.plan.file.end, self._boot
        evidence = judged.claim.evidence
        place = c.place_of(boot, self._readings)
        if end.slot is not None and place != end.slot:
            standing = Standing.FAILED if place is not None else Standing.NOT_PROVEN
            return Judged.of(c.END, standing, f"{evidence}; it was to be in {end.slot}", judged.line)
        if boot is not None and (boot.otadata_unreadable or boot.not_bootable):
            return Judged.of(c.END, Standing.FAILED, f"{evidence}; {boot.summary()}", judged.line)
        if end.otadata == "undefined":
            shown = boot is not None
            return Judged.of(
                c.END,
                Standing.PROVEN if shown else Standing.NOT_PROVEN,
                f"{evidence}; the bootloader followed otadata to it and complained of nothing",
                judged.line,
            )
        confirmed = c.judge_confirmed(c.CONFIRMED, boot, self._readings, demanded="valid")
        standings = [each for each in self.claims if each.key in (c.CONFIRMED, c.CONFIRMED_BACK)]
        if confirmed.standing is not Standing.PROVEN and standings:
            # It was confirmed in the boot before this one, which the bootloader would otherwise have taken back.
            confirmed = standings[-1]
        text = f"{evidence}; otadata valid: {confirmed.claim.evidence}"
        return Judged.of(c.END, confirmed.standing, text, judged.line)

    # --- bookkeeping --------------------------------------------------------------------------------------------

    def _judge(self, judged: Judged) -> None:
        self._claims.append(judged)
        marks = {
            Standing.PROVEN: "✓",
            Standing.FAILED: "✗",
            Standing.NOT_PROVEN: "?",
            Standing.NOT_APPLICABLE: "-",
        }
        self.say.detail(f"{marks[judged.standing]} {judged.claim.text}: {judged.claim.evidence}")

    def _judge_all(self, keys: Sequence[str], why: str) -> None:
        for key in keys:
            self._judge(Judged.of(key, Standing.NOT_PROVEN, why))

    @contextmanager
    def _case(self, name: str, title: str) -> Iterator[None]:
        self.say.step(title)
        self.board.run_note.doing(f"in the case '{name}' of a qualification")
        self.board.console.note(f"case {name}: {title}")
        began_s, first, since = time.time(), self.unit.mark(), self.offer.journal_length()
        self._claims, self.hands.done = [], []
        yield
        events = tuple(
            (
                each.at_ms / 1000,
                "served",
                f"{each.method} {each.path}: {each.status}, {each.end.value}",
                each.bytes_sent,
            )
            for each in self.offer.requests(since)
        )
        self.results.append(
            CaseResult(
                name,
                title,
                began_s,
                time.time(),
                tuple(self._claims),
                first,
                self.unit.mark() - 1,
                tuple(self.hands.done),
                events,
            )
        )


def _some_slots(partitions: tuple[Partition, ...]) -> tuple[Partition, Partition | None]:
    """Where an update goes does not matter to what is served."""
    slots = [each for each in partitions if each.is_ota_slot]
    return (slots[0] if slots else Partition("any", 0, 0x10, 0, 0)), None


def _reraise_if_gone(board: Board, error: HarnessError) -> None:
    """A unit whose port has gone is the bench's failure, not a claim's."""
    if isinstance(error, BoardError):
        raise error
    if isinstance(error, LabError) and error.board == board.name and board.console.is_over:
        raise error


def _other_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate that the unit cannot trust, for the same name; its key is gone after the case."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host or "somebody else")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate, key_file = folder / "other-certificate.pem", folder / "other-certificate.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, key_file
