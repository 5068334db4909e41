"""The weaker exploration, on a board that is no throwaway twin: a sample of cuts of the kinds that its bench can make."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from harness.board import Board
from harness.cuts.cut import CutResult, summary_of
from harness.cuts.walk import walk
from harness.home import Home
from harness.ota.release import Release
from harness.preparation import Consent, Demand, prepare
from harness.say import Say

DEFAULT_COUNT = 20
"""On a board of 1 MB a cut costs about a minute."""


def walk_on(
    board: Board, demand: Demand, consent: Consent, home: Home, *, count: int, seed: int, say: Say
) -> list[CutResult]:
    """Provisions `board` if need be, and cuts it off `count` times during updates and confirmations.

    Raises:
        HarnessError: as `harness.preparation.prepare` and `harness.cuts.walk.walk`.
    """
    say.step(f"{board.name}: {board.chip.title} on {board.link.description}")
    prepare(board, demand, consent, home, say=say)
    numbers = itertools.count(1)

    def fresh() -> Release:
        burned = 0
        if "anti-rollback" in board.capabilities:
            burned = int(board.status().fields["fuse_secure_version"])
        return board.release(f"3.{next(numbers)}.0", secure_version=burned)

    def tell(number: int, of: int, result: CutResult) -> None:
        say.detail(f"{number}/{of}  {result}")

    return walk(board, fresh, count=count, seed=seed, tell=tell)


def passed(results: list[CutResult]) -> bool:
    """Something was cut, and nothing was broken."""
    return any(result.struck for result in results) and not any(result.violations for result in results)


def write_walk(results: list[CutResult], folder: Path) -> str:
    """``explore.json`` of a walk; returns its summary."""
    summary = summary_of(results)
    content = {
        "format": 1,
        "exhaustive": False,
        "ok": passed(results),
        "summary": summary,
        "cuts": [result.to_json() for result in results],
    }
    (folder / "explore.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return summary
