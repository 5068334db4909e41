"""The rule by which a test counts as flaky. Pure: outcomes in, a judgement out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW = 20
"""How many of the last verdicts count."""

FLIPS = 2
"""One change from passed to failed, or back, may be a change in test or bench; two are not."""

RULE = (
    f"A test is flaky when, on the same board, in the same profile, with the same firmware (SHA-256), its last {WINDOW} "
    f"verdicts change between passed and failed at least {FLIPS} times. Errors of the bench count for the board, "
    "not for the test; skipped tests do not count."
)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What one test came to on one board, in one profile, with one firmware; oldest first."""

    test: str
    board: str | None
    profile: str | None
    firmware_sha256: str | None
    passed: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Flaky:
    """A flaky test."""

    test: str
    board: str | None
    profile: str | None
    firmware_sha256: str | None
    passed: int
    failed: int
    flips: int


def flips_in(passed: Sequence[bool]) -> int:
    """How often a verdict is another one than the one before."""
    return sum(earlier != later for earlier, later in pairwise(passed))


def flaky_among(series: Iterable[Verdicts]) -> list[Flaky]:
    """The flaky ones, most changes first. A firmware that nobody knows is never the same as another."""
    found = []
    for verdicts in series:
        window = verdicts.passed[-WINDOW:]
        flips = flips_in(window)
        if verdicts.firmware_sha256 is not None and flips >= FLIPS:
            passed = sum(window)
            found.append(
                Flaky(
                    verdicts.test,
                    verdicts.board,
                    verdicts.profile,
                    verdicts.firmware_sha256,
                    passed,
                    len(window) - passed,
                    flips,
                )
            )
    return sorted(found, key=lambda flaky: (-flaky.flips, flaky.test, flaky.board or ""))
