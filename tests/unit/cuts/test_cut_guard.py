"""Where a physical board is not cut, unless its entry gives it up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.board import Board
from harness.cuts.guard import Work, require_cuttable
from harness.errors import RefusedError

KNOWN = SimpleNamespace(sdkconfig={"CONFIG_X": "y"})
FLASHED = SimpleNamespace(n=10, text="flash: esptool has the port")
RESET = SimpleNamespace(n=50, text="reset: into run")


def board(
    *,
    physical: bool = True,
    sacrificial: bool = False,
    capabilities: frozenset[str] = frozenset(),
    app: object = KNOWN,
    started_at: int | None = 20,
) -> Board:
    """As far as the guard looks at one; its flash was written at line 10 of its log."""
    boots = [] if started_at is None else [SimpleNamespace(app_started=True, first_line=started_at)]
    facts: dict[str, Any] = {
        "name": "desk",
        "link": SimpleNamespace(physical=physical),
        "sacrificial": sacrificial,
        "capabilities": capabilities,
        "app": app,
        "console": SimpleNamespace(marks=(FLASHED, RESET), boot_records=boots),
    }
    return cast(Board, SimpleNamespace(**facts))


ANTI = frozenset({"anti-rollback"})
UNKNOWN = SimpleNamespace(sdkconfig=None)


@pytest.mark.parametrize(
    ("work", "facts", "danger"),
    [
        (Work.UPDATE, {}, None),
        (Work.UPDATE, {"capabilities": ANTI, "app": UNKNOWN, "started_at": None}, None),
        (Work.CONFIRM, {}, None),
        (Work.CONFIRM, {"started_at": None}, None),
        (Work.CONFIRM, {"capabilities": ANTI}, "the fuse burn of a secure version"),
        (Work.CONFIRM, {"app": UNKNOWN}, "a fuse burn: without its sdkconfig"),
        (Work.CONFIRM, {"app": None}, "a fuse burn: without its sdkconfig"),
        (Work.BOOT, {}, None),
        (Work.BOOT, {"started_at": None}, "a first-boot encryption or a fuse burn"),
        (Work.BOOT, {"started_at": 5}, "a first-boot encryption or a fuse burn"),
        (Work.BOOT, {"capabilities": ANTI}, "the fuse burn of a secure version"),
        (Work.FLASHING, {}, "a write of bootloader or partition table"),
        (Work.FIRST_BOOT, {}, "a first-boot encryption"),
        (Work.BURN, {}, "a fuse burn"),
    ],
)
def test_a_physical_board_is_cut_only_where_nothing_is_lost_for_good(
    work: Work, facts: dict[str, Any], danger: str | None
) -> None:
    require_cuttable(board(**facts, physical=False), work)
    require_cuttable(board(**facts, sacrificial=True), work)
    if danger is None:
        require_cuttable(board(**facts), work)
        return
    with pytest.raises(RefusedError) as caught:
        require_cuttable(board(**facts), work)
    said = str(caught.value)
    assert said.startswith(f"board desk: no cut is placed in {work.value}: it may hit {danger}")
    assert "'sacrificial: true'" in said
