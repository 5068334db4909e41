"""What the templates are given: the record of a run, with each test beside its board, boots, drawings and log. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.console.boot_patterns import LOADED_APP
from harness.report.html.board_log import BoardLog, LogLine
from harness.report.html.flash_drawing import FlashDrawing, drawing_of
from harness.report.html.otadata_words import OtadataChange, change_of
from harness.report.html.timeline import Timeline, timeline_of
from harness.report.run_record import BoardRecord, ClaimRecord, Event, RunRecord, TestRecord

_NAMED_BOOT = re.compile(r"boot (\d{1,6}): ")

LOUD = ("failed", "error")
OUTCOMES = ("failed", "error", "not proven", "passed", "skipped", "not applicable")
"""As the report orders them: what somebody must act on comes first."""

MAX_IN_FULL = 20
"""So many failures are in the page with everything; further ones are unpacked like tests that passed."""
GOOD_ENDS = ("app", "loaded", "download", "encrypted-in-place", None)
"""Outcomes of boots (`harness.console.boot_record.Outcome`) that nobody has to look into."""
OPENED = 3
"""So many failures are open from the start."""
ALIKE = 3
"""More failures than these of one cause are told once."""
FEW = 12
"""Up to so many tests are all in the page with everything, and all of them are open on paper."""
FEW_BOARDS = 4
"""The same for boards: preparation, plan, eFuses and boots."""
MAX_EVENTS = 400
"""Of one test; further ones are counted, and are in run.json."""
EXCERPT = 25
"""Lines of the log that a failure shows at once."""


_Span = tuple[int, int, str, str]
"""First and last line of a test in its board's log, its id and its name."""


@dataclass(frozen=True, slots=True)
class BootView:
    """One boot as its record has it."""

    id: str
    number: int
    summary: str
    reset: str | None
    """As the ROM printed it."""
    cause: str | None
    """What the harness did that it comes of."""
    slot: str | None
    offset: int | None
    version: str | None
    encryption: str | None
    state_words: str | None
    """Of the running slot in otadata."""
    first_line: int
    last_line: int
    shown_by: int
    """The line that shows the slot; the first one where none does."""
    inferred: tuple[str, ...]
    bad: bool
    after_update: int | None
    """It is the first boot after so many updates since the log began; None: no update ended well before it."""
    test: str | None
    """Id of the test during which it began."""
    test_name: str | None

    @property
    def fate(self) -> str:
        """How far it came, where nothing ran."""
        _, arrow, rest = self.summary.partition("→ ")
        return rest if arrow else self.summary


@dataclass(frozen=True, slots=True)
class BoardView:
    """One board and what belongs to it."""

    id: str
    record: BoardRecord
    log: BoardLog | None
    boots: tuple[BootView, ...]
    outcomes: tuple[tuple[str, int], ...]

    def boots_between(self, first: int | None, last: int | None) -> tuple[BootView, ...]:
        """The boots that began in these lines."""
        if first is None:
            return ()
        end = last if last is not None else first
        return tuple(boot for boot in self.boots if first <= boot.first_line <= end)

    def boot_at(self, line: int | None) -> BootView | None:
        """The boot that `line` belongs to."""
        if line is None:
            return None
        return next((boot for boot in reversed(self.boots) if boot.first_line <= line), None)


@dataclass(frozen=True, slots=True)
class TestView:
    """One test with everything that the report shows of it."""

    __test__ = False

    id: str
    record: TestRecord
    board: BoardView | None
    boots: tuple[BootView, ...]
    ran_before: BootView | None
    """What ran when the test began."""
    timeline: Timeline | None
    flash: FlashDrawing | None
    otadata: OtadataChange | None
    excerpt: tuple[LogLine, ...]
    in_full: bool
    place: int
    """In the report's order, from 0."""

    def line_of(self, claim: ClaimRecord) -> int | None:
        """The line that shows `claim`; of evidence that names a boot, the one that shows the boot's slot."""
        if claim.line is not None or self.board is None:
            return claim.line
        named = _NAMED_BOOT.match(claim.evidence)
        boots = self.board.boots if named else ()
        return next((boot.shown_by for boot in boots if named and boot.number == int(named[1])), None)

    @property
    def events(self) -> tuple[Event, ...]:
        """Those that are shown."""
        return self.record.events[:MAX_EVENTS]

    @property
    def loud(self) -> bool:
        return self.record.outcome in LOUD

    @property
    def opened(self) -> bool:
        """Open from the start."""
        return self.loud and self.in_full and self.place < OPENED

    @property
    def search(self) -> str:
        """What the filter looks in."""
        parts = (self.record.name, self.record.id, self.record.board, self.record.profile, self.record.cause)
        return " ".join(part for part in parts if part).lower()


@dataclass(frozen=True, slots=True)
class Group:
    """Tests that were left open or left out for the same reason."""

    outcome: str
    reason: str
    tests: tuple[TestView, ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """The whole report."""

    record: RunRecord
    boards: tuple[BoardView, ...]
    tests: tuple[TestView, ...]
    counts: tuple[tuple[str, int], ...]
    prepared: Mapping[str, TestView]
    """How boards became what the tests found, by the ids of the boards."""

    @property
    def failures(self) -> tuple[TestView, ...]:
        return tuple(test for test in self.tests if test.loud)

    @property
    def claimed(self) -> tuple[TestView, ...]:
        """The steps with their claims in the order of the run, where the claims are the verdict (no pytest)."""
        if self.record.kind == "pytest":
            return ()
        by_time = sorted(self.tests, key=lambda test: test.record.began_s)
        return tuple(test for test in by_time if test.record.claims)

    @property
    def failures_by_cause(self) -> tuple[tuple[TestView, ...], ...]:
        """Failures, those of one cause together where they are more than a few: a bench that fails fails everything."""
        alike: dict[tuple[str, str | None], list[TestView]] = {}
        for test in self.failures:
            alike.setdefault((test.record.outcome, test.record.cause), []).append(test)
        groups: list[tuple[TestView, ...]] = []
        for (_outcome, cause), tests in alike.items():
            groups += [tuple(tests)] if cause and len(tests) > ALIKE else [(test,) for test in tests]
        return tuple(sorted(groups, key=lambda group: group[0].place))

    @property
    def few(self) -> bool:
        return len(self.tests) <= FEW

    @property
    def few_boards(self) -> bool:
        return len(self.boards) <= FEW_BOARDS

    @property
    def virtual(self) -> str | None:
        """That nothing, or not all, was seen on silicon; None: no virtual board took part."""
        virtual = sum(board.record.virtual for board in self.boards)
        if virtual == len(self.boards):
            return "on virtual boards only: models, not silicon" if virtual else None
        return f"{virtual} of {len(self.boards)} boards virtual" if virtual else None

    @property
    def broken_boards(self) -> tuple[BoardView, ...]:
        return tuple(board for board in self.boards if board.record.problem)

    def groups(self, *outcomes: str) -> tuple[Group, ...]:
        """Tests of these outcomes by their reason, the most frequent first."""
        found: dict[tuple[str, str], list[TestView]] = {}
        for test in self.tests:
            if test.record.outcome in outcomes:
                reason = test.record.cause or "no reason was given"
                found.setdefault((test.record.outcome, reason), []).append(test)
        groups = [Group(outcome, reason, tuple(tests)) for (outcome, reason), tests in found.items()]
        return tuple(sorted(groups, key=lambda group: (outcomes.index(group.outcome), -len(group.tests))))


def view_of(run: RunRecord, logs: Mapping[int, BoardLog]) -> RunView:
    """The report of `run`; `logs` by the index of their board."""
    outcomes: dict[int, Counter[str]] = {}
    places = [_board_of(run.boards, test) for test in run.tests]
    for test, place in zip(run.tests, places, strict=True):
        if place is not None:
            outcomes.setdefault(place, Counter())[test.outcome] += 1
    spans: dict[int, list[_Span]] = {}
    for n, (test, place) in enumerate(zip(run.tests, places, strict=True)):
        if place is not None:
            spans.setdefault(place, []).extend(_span(f"t{n}", test))
    for n, record in enumerate(run.boards):
        if record.prepared is not None:
            spans.setdefault(n, []).extend(_span(f"b{n}p", record.prepared))
    boards = tuple(
        BoardView(
            f"b{n}",
            board,
            logs.get(n),
            _boots(f"b{n}", board.boots, logs.get(n), sorted(spans.get(n, []))),
            _in_order(outcomes.get(n, Counter())),
        )
        for n, board in enumerate(run.boards)
    )
    order = sorted(range(len(run.tests)), key=lambda n: _rank(run.tests[n]))
    full = {n for n in order if run.tests[n].outcome in LOUD or len(order) <= FEW}
    if len(full) > MAX_IN_FULL:
        full = set(order[:MAX_IN_FULL])
    tests = []
    for position, n in enumerate(order):
        place = places[n]
        of = boards[place] if place is not None else None
        tests.append(_test(f"t{n}", run.tests[n], of, in_full=n in full, place=position))
    few_boards = len(boards) <= FEW_BOARDS
    prepared = {
        board.id: _test(f"{board.id}p", made, board, in_full=made.outcome in LOUD or few_boards, place=OPENED)
        for board in boards
        if (made := board.record.prepared) is not None
    }
    return RunView(
        run, boards, tuple(tests), _in_order(Counter(test.outcome for test in run.tests)), prepared
    )


def references_of(tests: Iterable[TestView], board: BoardView) -> list[tuple[int, str, str]]:
    """(line, id of the element, what it is) for all that points into the log of `board`, by line."""
    found: list[tuple[int, str, str]] = []
    for test in tests:
        if test.board is not board:
            continue
        if test.record.first_line is not None:
            found.append((test.record.first_line, test.id, f"{test.record.name} begins"))
        for n, event in enumerate(test.events, start=1):
            if event.line is not None:
                found.append((event.line, f"{test.id}e{n}", f"{event.kind}: {event.text}"))
        for n, claim in enumerate(test.record.claims, start=1):
            line = test.line_of(claim)
            if line is not None:
                found.append((line, f"{test.id}c{n}", f"{claim.standing}: {claim.text}"))
    return sorted(found, key=lambda reference: reference[0])


def _span(name: str, test: TestRecord) -> list[_Span]:
    if test.first_line is None:
        return []
    last = test.last_line if test.last_line is not None else test.first_line
    return [(test.first_line, last, name, test.name)]


def _rank(test: TestRecord) -> tuple[int, float]:
    return OUTCOMES.index(test.outcome), test.began_s


def _in_order(counts: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple((outcome, counts[outcome]) for outcome in OUTCOMES if counts[outcome])


def _board_of(boards: Sequence[BoardRecord], test: TestRecord) -> int | None:
    """The index of a test's board; one that is there in several profiles is told by the profile."""
    named = [n for n, board in enumerate(boards) if board.name == test.board]
    exact = [n for n in named if boards[n].profile == test.profile]
    return next(iter(exact or named), None)


def _test(name: str, test: TestRecord, board: BoardView | None, *, in_full: bool, place: int) -> TestView:
    boots = board.boots_between(test.first_line, test.last_line) if board else ()
    before = board.boot_at(test.first_line) if board else None
    if before is not None and before in boots:
        before = None
    excerpt: Sequence[LogLine] = ()
    if (
        in_full
        and test.outcome in LOUD
        and board is not None
        and board.log is not None
        and test.first_line is not None
    ):
        last = test.last_line if test.last_line is not None else test.first_line
        excerpt = board.log.between(max(test.first_line, last - EXCERPT + 1), last)
    flash = drawing_of(test.flash_before, test.flash_after, test.flash_steps)
    return TestView(
        name,
        test,
        board,
        boots,
        before,
        timeline_of(test.events[:MAX_EVENTS], test.began_s, test.duration_s),
        flash,
        change_of(
            test.otadata_before,
            test.otadata_after,
            flash.otadata_steps if flash else (),
            test.otadata_told,
        ),
        tuple(excerpt),
        in_full,
        place,
    )


def _boots(
    board: str, boots: Sequence[Mapping[str, Any]], log: BoardLog | None, spans: Sequence[_Span]
) -> tuple[BootView, ...]:
    """The boots of a board; which update each comes after is counted, and during which test it began."""
    found = []
    updates = 0
    before: Mapping[str, Any] = {}
    starts = [span[0] for span in spans]
    for boot in boots:
        notes = [str(note) for note in before.get("updates") or ()]
        # A command has its answer; of what an app of its own printed the change of slot is the answer.
        moved = None not in (slots := (before.get("slot"), boot.get("slot"))) and slots[0] != slots[1]
        updated = any(note.startswith("command") for note in notes) or (bool(notes) and moved)
        updates += updated
        first = int(boot.get("first_line") or 0)
        place = bisect_right(starts, first) - 1
        during = spans[place] if place >= 0 and first <= spans[place][1] else None
        found.append(_boot(board, boot, log, updates if updated else None, during))
        before = boot
    return tuple(found)


def _boot(
    board: str, boot: Mapping[str, Any], log: BoardLog | None, after_update: int | None, during: _Span | None
) -> BootView:
    """A boot record's JSON, of which any field may be missing: it may come of an older harness."""
    number = int(boot.get("number") or 0)
    first = int(boot.get("first_line") or 0)
    last = int(boot.get("last_line") or first)
    lines = log.between(first, last) if log else ()
    return BootView(
        id=f"{board}boot{number}",
        number=number,
        summary=str(boot.get("summary") or f"boot {number}"),
        reset=boot.get("reset_reason"),
        cause=boot.get("caused_by"),
        slot=boot.get("slot"),
        offset=boot.get("offset"),
        version=boot.get("version"),
        encryption=boot.get("encryption"),
        state_words=_state_words(boot),
        first_line=first,
        last_line=last,
        shown_by=next((line.n for line in lines if LOADED_APP.search(line.text)), first),
        inferred=tuple(boot.get("inferred") or ()),
        bad=bool(boot.get("panic")) or boot.get("outcome") not in GOOD_ENDS,
        after_update=after_update,
        test=during[2] if during else None,
        test_name=during[3] if during else None,
    )


def _state_words(boot: Mapping[str, Any]) -> str | None:
    state = boot.get("ota_state")
    if state == "pending":
        return "pending verification, then confirmed" if boot.get("confirmed") else "pending verification"
    return str(state) if state else None
