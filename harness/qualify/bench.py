"""What all cases of a qualification share: the unit, what runs on it, what it is offered, and what was claimed so far."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.board import Board
from harness.console.boot_record import BootRecord
from harness.console.log_line import parse_esp_line
from harness.errors import LabError, NotProvenError
from harness.formats.partition import Partition
from harness.provision.device_record import DeviceRecord
from harness.qualify import claims as c
from harness.qualify.artefacts import App, Artefacts
from harness.qualify.cases import slots_of
from harness.qualify.claims import Judged
from harness.qualify.file import QualifyFile, QualifyPlan
from harness.qualify.flash_view import FlashView
from harness.qualify.offer import Offer, Served, enciphered, fetched_whole, key_of, served
from harness.qualify.otadata_told import otadata_told, why_not_read
from harness.qualify.sighting import Readings, Seen, first_try, matches, unsteady
from harness.qualify.silicon import Silicon, record_of
from harness.qualify.trigger import Hands
from harness.qualify.unit import POLL_S, Unit
from harness.qualify.witness import read_witnesses
from harness.report.failure import cause_of
from harness.report.run_record import FlashMap, FlashStep
from harness.report.verdict import Standing
from harness.say import Say

SIGNS = {
    Standing.PROVEN: "✓",
    Standing.FAILED: "✗",
    Standing.NOT_PROVEN: "?",
    Standing.NOT_APPLICABLE: "-",
}


@dataclass(frozen=True, slots=True)
class CaseEvent:
    """Something that the server saw meanwhile."""

    at_s: float
    """Unix seconds."""
    text: str
    size_bytes: int


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
    events: tuple[CaseEvent, ...] = ()
    flash_before: FlashMap | None = None
    flash_after: FlashMap | None = None
    flash_steps: tuple[FlashStep, ...] = ()
    otadata: tuple[str, ...] = ()
    """What the log tells of it before and after, a sentence each."""


@dataclass(frozen=True, slots=True)
class NotCovered:
    """Something that this qualification says nothing about, and why."""

    what: str
    why: str
    key: str | None = None
    """Of the claim."""


@dataclass(slots=True)
class Bench:
    """One qualification of one unit, under way."""

    plan: QualifyPlan
    artefacts: Artefacts
    board: Board
    hands: Hands
    offer: Offer
    silicon: Silicon
    say: Say
    observe: bool = False
    withdrawn: str | None = None
    """That the board is retired, or latched broken, and how that is undone."""
    results: list[CaseResult] = field(default_factory=list)
    not_covered: list[NotCovered] = field(default_factory=list)
    runs: App | None = None
    """What runs, as far as the cases tell."""
    boot: BootRecord | None = None
    """The boot that was looked at last."""
    readings: Readings = field(default_factory=Readings)
    """What the witnesses said of it."""
    falls: str | None = None
    """Why what it started does not count as running."""
    lost: str | None = None
    """Why no further case is tried."""
    broken: str | None = None
    """Why it could not be carried out to its end."""
    flash: FlashView | None = None
    """Where the apps lie, as far as the log says; None: it does not."""
    _claims: list[Judged] = field(default_factory=list)
    _flash_before: FlashMap | None = None
    _seen_before: Seen = field(default_factory=Seen)
    _flash_steps: list[FlashStep] = field(default_factory=list)

    @property
    def file(self) -> QualifyFile:
        return self.plan.file

    @property
    def unit(self) -> Unit:
        return self.hands.unit

    @property
    def claims(self) -> tuple[Judged, ...]:
        """Of all cases that have ended."""
        return tuple(claim for result in self.results for claim in result.claims)

    @property
    def seen(self) -> Seen:
        """The boot that was looked at last, and what was seen of it."""
        return Seen(self.boot, self.readings, self.falls, first_try(self.boot, self.unit.look()))

    @property
    def old(self) -> App:
        """The app that runs now."""
        return self.runs or self.artefacts.running

    @property
    def new(self) -> App:
        """The other one, which an update would bring."""
        return self.artefacts.update if self.old is self.artefacts.running else self.artefacts.running

    @property
    def device_record(self) -> DeviceRecord | None:
        """What this harness knows of the unit from the day it was provisioned; None: nothing, or it is damaged."""
        return record_of(self.board)

    # --- cases --------------------------------------------------------------------------------------------------

    @contextmanager
    def case(self, name: str, title: str, keys: Sequence[str], *, vital: bool = False) -> Iterator[None]:
        """One case, which makes the claims `keys`. What keeps it from being carried out leaves them not proven.

        Args:
            vital: when it cannot be carried out, no other is tried.

        Raises:
            LabError: the unit's port has gone. UsageError: qualify.yaml is wrong. The case is on record all the same.
        """
        self.say.step(title)
        self.board.run_note.doing(f"in the case '{name}' of a qualification")
        self.board.console.note(f"case {name}: {title}")
        began_s, first, since = time.time(), self.unit.mark(), self.offer.journal_length()
        self._begin_case()
        try:
            yield
            self._leave_unproven(keys, "nothing was seen of it")
        except (NotProvenError, LabError) as error:
            self._leave_unproven(keys, error.message)
            if self.board.console.is_over:
                raise
            if vital and self.lost is None:
                self.lost = error.message
        except BaseException as error:
            self._leave_unproven(keys, f"broken off: {cause_of(error)}")
            raise
        finally:
            self._close_case(name, title, began_s, first, since)

    def _begin_case(self) -> None:
        self._claims, self.hands.done, self._flash_steps = [], [], []
        self._flash_before = self.flash.map() if self.flash is not None else None
        self._seen_before = self.seen

    def updated(self, new: App, boot: BootRecord | None) -> None:
        """`boot` was proven to run what the unit was updated to."""
        step = self.flash.updated(new.facts, boot) if self.flash is not None else None
        if step is not None:
            self._flash_steps.append(step)

    def _close_case(self, name: str, title: str, began_s: float, first: int, since: int) -> None:
        events = tuple(
            CaseEvent(
                each.at_ms / 1000,
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
                self._flash_before,
                self.flash.map() if self.flash is not None else None,
                tuple(self._flash_steps),
                otadata_told(
                    self._seen_before,
                    self.seen,
                    why_not_read(observed=self.observe, is_open=self.silicon.is_open),
                ),
            )
        )

    def require_unit(self) -> None:
        """First thing in a case.

        Raises:
            NotProvenError: an earlier one has left nothing to go on with.
        """
        if self.lost is not None:
            raise NotProvenError(f"not tried: {self.lost}")

    def break_off(self, error: BaseException, planned: Sequence[str]) -> None:
        """It cannot go on: what was `planned` and not reached is not proven, and neither is the whole."""
        self.broken = cause_of(error)
        self._begin_case()
        now_s, line = time.time(), self.unit.mark()
        made = {judged.key for judged in self.claims}
        for key in planned:
            if key not in made:
                self.judge(
                    Judged.of(key, Standing.NOT_PROVEN, "not reached: the qualification was broken off")
                )
        self.judge(Judged.of(c.CARRIED_OUT, Standing.NOT_PROVEN, f"it was broken off: {self.broken}"))
        self._close_case(
            "broken-off", "the qualification was broken off", now_s, line, self.offer.journal_length()
        )

    def judge(self, judged: Judged) -> Judged:
        """Notes a claim of the case under way; the last word on it counts.

        What a requirement demands is shown or not: for it nothing is not applicable.
        """
        demanded = self.file.requirements_of(judged.key)
        if judged.standing is Standing.NOT_APPLICABLE and demanded is not None:
            why = f"{demanded} demands it, and nothing can show it here: {judged.claim.evidence}"
            judged = Judged.of(judged.key, Standing.NOT_PROVEN, why, judged.line)
        places = [n for n, each in enumerate(self._claims) if each.key == judged.key]
        if places:
            self._claims[places[0]] = judged
        else:
            self._claims.append(judged)
        self.say.detail(f"{SIGNS[judged.standing]} {judged.claim.text}: {judged.claim.evidence}")
        return judged

    def _leave_unproven(self, keys: Sequence[str], why: str) -> None:
        made = {judged.key for judged in self._claims}
        for key in keys:
            if key not in made:
                self.judge(Judged.of(key, Standing.NOT_PROVEN, why))

    # --- what runs ----------------------------------------------------------------------------------------------

    def settle(self, boot: BootRecord | None, *, wait: bool = True) -> None:
        """Remembers `boot` as the one that runs, with what the witnesses say of it, and whether it stays."""
        since = boot.first_line if boot is not None else 0
        self.readings = read_witnesses(self.unit, self.hands, since, wait=wait)
        if wait:
            self.unit.watch(boot, self.file.times.steady_s)
        self.look_again(boot)
        for app in (self.artefacts.running, self.artefacts.update):
            if matches(app.facts, self.boot, self.readings).same:
                self.runs = app

    def look_again(self, boot: BootRecord | None) -> None:
        """What has become of `boot` since."""
        self.boot = self.unit.latest(boot)
        self.falls = unsteady(self.boot, self.unit.look())

    def await_new(self, new: App, mark: int) -> BootRecord | None:
        """The boot in which `new` runs; None when the unit gives up, comes back without it, or takes too long.

        Args:
            mark: line of the log from which on it is looked for.
        """
        times = self.file.times
        deadline_s = time.monotonic() + times.update_s
        quiet_since_s, seen = time.monotonic(), (-1, -1)
        while time.monotonic() < deadline_s:
            time.sleep(POLL_S)
            for boot in self.unit.look():
                if boot.first_line >= mark and self.unit.is_up(boot) and self._is_new(new, boot):
                    return boot
            now = (self.unit.mark(), self.offer.journal_length())
            if now != seen:
                seen, quiet_since_s = now, time.monotonic()
            # A unit that has fetched all of it may write and verify for long, and say nothing meanwhile.
            over = self.gave_up(mark) or self.came_back(mark)
            if over and time.monotonic() - quiet_since_s > times.settle_s:
                return None
        return None

    def _is_new(self, new: App, boot: BootRecord) -> bool:
        match = matches(new.facts, boot)
        asks = self.file.witness.version or self.file.witness.image
        if match.same is not None or asks is None:
            return bool(match.same)
        readings = read_witnesses(self.unit, self.hands, boot.first_line, wait=False)
        return bool(matches(new.facts, boot, readings).same)

    def gave_up(self, mark: int) -> bool:
        """It has printed the line that means so."""
        return self.unit.failed is not None and self.unit.find(self.unit.failed, mark) is not None

    def came_back(self, mark: int) -> bool:
        """An app has started since."""
        return any(boot.first_line >= mark and self.unit.is_up(boot) for boot in self.unit.look())

    def fetched(self, since: int, size_bytes: int) -> bool:
        """All of a body has gone out since, to its end: a part of it, or a question for its size, is not all."""
        return fetched_whole(self.offer.requests(since), size_bytes)

    def complaint(self, mark: int) -> tuple[str, int] | None:
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

    def shown(self, mark: int) -> str:
        """What the unit has shown since, in words; empty: nothing."""
        complaint = self.complaint(mark)
        boots = [boot for boot in self.unit.look() if boot.first_line >= mark]
        words = [f"it printed '{complaint[0]}'"] if complaint is not None else []
        return "; ".join([*words, *([boots[-1].summary()] if boots else [])])

    # --- what it is offered -------------------------------------------------------------------------------------

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """Of the table that qualify.yaml names, else as the bootloader printed them."""
        if self.artefacts.table is not None:
            return tuple(self.artefacts.table.partitions)
        printed = next((boot.partitions for boot in reversed(self.unit.look()) if boot.partitions), ())
        return tuple(Partition(p.label, p.type, p.subtype, p.offset, p.size) for p in printed)

    def target(self) -> tuple[Partition, Partition | None]:
        """The slot that an update goes to, and another one.

        Raises:
            NotProvenError: nothing tells.
        """
        place = self.seen.place
        if place is not None and place.startswith("0x"):
            offset = int(place, 16)
            place = next((each.label for each in self.partitions if each.offset == offset), place)
        return slots_of(self.partitions, place)

    def target_label(self) -> str | None:
        """The label of that slot; None: nothing tells it."""
        try:
            return self.target()[0].label
        except NotProvenError:
            return None

    def body_for(self, app: App, slot: Partition | None = None) -> Served:
        """What brings `app` into `slot` (default: the one that an update goes to now).

        Raises:
            NotProvenError: nothing tells the slot, the key is elsewhere, or no file is named for it.
        """
        version = app.facts.version
        if self.file.image == "plaintext":
            return served(app.release.image, f"{version} as plaintext")
        if self.file.image == "file":
            files = self.artefacts.served_back if app is self.artefacts.running else self.artefacts.served
            label = slot.label if slot is not None else self.target_label()
            loaded = files.get(label or "") or files.get("any")
            if loaded is None:
                raise NotProvenError(f"qualify.yaml names no file that brings {version} into {label}")
            return served(loaded.data, f"{loaded.path.name} ({version})")
        slot = slot or self.target()[0]
        body = enciphered(app.release, chip=self.board.chip, key=key_of(self.board), slot=slot)
        return served(body, f"{version}, enciphered for {slot.label} at {slot.offset:#x}")
