"""Records a run that is no pytest, step by step: each step is a test of the record, with the claims that it proved."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.errors import NotApplicableError, NotProvenError
from harness.report.board_watch import BoardWatch
from harness.report.failure import cause_of, is_of_the_board
from harness.report.recorder import Recorder
from harness.report.run_record import ClaimRecord, Outcome, TestRecord
from harness.report.verdict import Claim, Standing


@dataclass(slots=True)
class Step:
    """What a step found; whoever does it fills this in."""

    claims: list[Claim] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)
    outcome: Outcome | None = None
    """Where it does not follow from the claims."""
    cause: str | None = None


class StepRecording:
    """The steps of one run on one board. Without a recorder they are done and not recorded."""

    def __init__(
        self, recorder: Recorder | None = None, watch: BoardWatch | None = None, *, prefix: str = "run"
    ) -> None:
        """`prefix` is what ids begin with: ``run``, ``qualify``."""
        self._recorder = recorder
        self._watch = watch
        self._prefix = prefix

    @contextmanager
    def step(self, name: str, *, repeat: str | None = None, sources: Iterable[str] = ()) -> Iterator[Step]:
        """What happens inside is the step called `name`; an error ends it and goes on to whoever is outside."""
        found = Step()
        if self._recorder is None:
            yield found
            return
        test_id, began_s = f"{self._prefix}/{name}", time.time()
        watch = self._watch
        moment = watch.now() if watch is not None else None
        self._recorder.began(test_id, name, board=watch.name if watch else None, repeat=repeat)
        error: BaseException | None = None
        try:
            yield found
        except BaseException as caught:
            error = caught
            raise
        finally:
            seen = watch.since(moment) if watch is not None and moment is not None else None
            outcome, cause = _judged(found, error)
            profile = watch.board.profile if watch is not None else None
            fields: dict[str, Any] = seen.fields() if seen is not None else {}
            self._recorder.test(
                TestRecord(
                    id=test_id,
                    name=name,
                    outcome=outcome,
                    began_s=round(began_s, 3),
                    duration_s=round(time.time() - began_s, 3),
                    board=watch.name if watch is not None else None,
                    profile=profile.value if profile is not None else None,
                    cause=watch.board.console.redacted(cause) if cause and watch is not None else cause,
                    repeat=repeat,
                    claims=tuple(claim_record(claim, line=_line_of(claim, watch)) for claim in found.claims),
                    sources=tuple(sources),
                    properties=found.properties,
                    **fields,
                )
            )
            if watch is not None:
                self._recorder.note_board(watch)


def claim_record(claim: Claim, *, requirement: str | None = None, line: int | None = None) -> ClaimRecord:
    """A claim as it is recorded."""
    return ClaimRecord(
        text=claim.text,
        standing=claim.standing.value,
        evidence=claim.evidence,
        requirement=requirement,
        line=line,
    )


def _line_of(claim: Claim, watch: BoardWatch | None) -> int | None:
    """Where the boot begins that the evidence is of."""
    match = _OF_BOOT.match(claim.evidence)
    if match is None or watch is None:
        return None
    number = int(match[1])
    return next((boot.first_line for boot in watch.board.console.boot_records if boot.number == number), None)


_OF_BOOT = re.compile(r"boot (\d{1,9}): ")


def _judged(found: Step, error: BaseException | None) -> tuple[Outcome, str | None]:
    if error is not None:
        cause = cause_of(error)
        if isinstance(error, NotApplicableError):
            return "not applicable", cause
        if isinstance(error, NotProvenError):
            return "not proven", cause
        return ("failed" if is_of_the_board(error) else "error"), cause
    if found.outcome is not None:
        return found.outcome, found.cause
    return _of_claims(found.claims)


def _of_claims(claims: list[Claim]) -> tuple[Outcome, str | None]:
    worst: tuple[tuple[Standing, Outcome], ...] = (
        (Standing.FAILED, "failed"),
        (Standing.NOT_PROVEN, "not proven"),
    )
    for standing, outcome in worst:
        for claim in claims:
            if claim.standing is standing:
                return outcome, f"{claim.text}: {claim.evidence}"
    if claims and all(claim.standing is Standing.NOT_APPLICABLE for claim in claims):
        return "not applicable", claims[0].evidence
    return "passed", None
