"""Cuts on a physical board: what its bench can do, what it is called, and what its entry gives up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from wired_twin import Start, WiredLab, WiredTwin, entry_of, provisioned

from harness.board import Board
from harness.cuts.cut import Counted, Cut, CutKind, FlashOperation, ServedByte
from harness.cuts.guard import Work, require_cuttable
from harness.cuts.strike import FILE_NAME, strike, strongest_kind
from harness.cuts.walk import walk
from harness.errors import NotApplicableError, RefusedError
from harness.inventory.entry import Rfc2217Entry
from harness.preparation import Consent, Demand, prepare
from harness.provision.profile import Lock, Profile
from harness.say import Say

SWITCH = """
import json, socket, sys
host, port = sys.argv[1].rsplit(":", 1)
with socket.create_connection((host, int(port)), timeout=60) as connection:
    connection.sendall(json.dumps({"op": "power", "on": sys.argv[2] == "on"}).encode() + b"\\n")
    assert json.loads(connection.makefile().readline())["ok"]
"""


def opened(wired: WiredLab, twin: WiredTwin, **fields: Any) -> tuple[Board, Rfc2217Entry]:
    entry = entry_of(twin, mac=twin.mac, network={"bind": "127.0.0.1", "address": "127.0.0.1"}, **fields)
    board = wired.open(entry)
    prepare(board, Demand(Profile.RELEASE), Consent(entry), wired.home, say=Say(quiet=True))
    board.settle()
    return board, entry


@pytest.mark.full
def test_a_board_with_dtr_and_rts_is_reset_and_no_power_is_claimed(
    start: Start, wired: WiredLab, tmp_path: Path
) -> None:
    board, _ = opened(wired, provisioned(start, wired, Lock.SECURE_DOWNLOAD))
    old, release = board.status(), board.release("3.0.0")
    assert strongest_kind(board) is CutKind.RESET
    cut = Cut(CutKind.POWER, ServedByte(9000))
    with pytest.raises(NotApplicableError, match=r"DTR/RTS of .* is a reset, no power cut"):
        strike(board, cut, lambda: board.update(release), during=Work.UPDATE)
    result = strike(board, cut, lambda: board.update(release), during=Work.UPDATE, or_reset=True)
    assert (result.struck, result.asked, result.kind) == (True, CutKind.POWER, CutKind.RESET)
    assert (result.how, result.version) == (f"DTR/RTS of {board.link.description}", old.version)
    marks = [line.text for line in board.console.marks if line.text.startswith("cut: ")]
    assert f"cut: {result}" in marks
    with pytest.raises(RefusedError, match="no cut is placed in flashing"):
        strike(board, cut, lambda: board.update(release), during=Work.FLASHING)

    # The weaker walk: nothing but resets from outside, and ends that the firmware makes itself.
    versions = iter(f"4.{n}.0" for n in range(100))
    results = walk(board, lambda: board.release(next(versions)), count=2, seed=5)
    assert not [str(each) for each in results if each.violations]
    kept = [json.loads(line) for line in (board.folder / FILE_NAME).read_text().splitlines()]
    assert [line["kind"] for line in kept] == [each.kind.value for each in results]
    assert CutKind.POWER not in [each.kind for each in results]


@pytest.mark.full
def test_a_supply_that_can_be_switched_is_cut_at_the_operation_where_the_firmware_holds(
    start: Start, wired: WiredLab
) -> None:
    twin = provisioned(start, wired, Lock.SECURE_DOWNLOAD)
    command = [sys.executable, "-c", SWITCH, twin._control_at]
    power = {"by": "command", "off": [*command, "off"], "on": [*command, "on"]}
    board, _ = opened(wired, twin, power=power)
    old, release = board.status(), board.release("3.0.0")
    cut = Cut(strongest_kind(board), FlashOperation(2, Counted.WRITE))
    result = strike(board, cut, lambda: board.update(release), during=Work.UPDATE)
    assert (result.struck, result.kind, result.layer) == (True, CutKind.POWER, "shipping C")
    assert (result.operation and result.operation.offset, result.version) == (4096, old.version)
    assert result.delay_ms is not None


@pytest.mark.parametrize("said", [{}, {"sacrificial": False}, {"sacrificial": True}], ids=str)
def test_only_its_entry_gives_a_board_up(start: Start, wired: WiredLab, said: dict[str, Any]) -> None:
    twin = start()
    board = wired.open(entry_of(twin, mac=twin.mac, **said))
    for work in (Work.FLASHING, Work.FIRST_BOOT, Work.BURN, Work.BOOT, Work.CONFIRM):
        if said.get("sacrificial"):
            require_cuttable(board, work)
            continue
        with pytest.raises(RefusedError, match="no cut is placed in"):
            require_cuttable(board, work)
