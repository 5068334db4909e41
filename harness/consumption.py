"""Scenarios that use something up for good: whether a board gives it, the note before, and what is left afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.provision.chip_state import Download, unreachable_state
from harness.provision.consumables import (
    Resource,
    Stocks,
    Uses,
    added,
    budget_of,
    refusal_of_use,
    stocks_of,
    uses_of,
)
from harness.provision.consumption_ledger import ConsumptionLedger
from harness.provision.profile import Lock

if TYPE_CHECKING:
    from harness.board import Board

MARKER = "consumes"
FILE_NAME = "consumables.json"


@dataclass(slots=True)
class Consumption:
    """What the scenarios of one session use up."""

    consumed: frozenset[str]
    """Boards that were named with ``--consume``."""
    lines: dict[str, str] = field(default_factory=dict)
    """What is left of each board, for the end of the session."""

    def uses(self, item: pytest.Item) -> Uses:
        """What `item` declares; nothing without the marker.

        Raises:
            UsageError: a resource that there is not.
        """
        marker = item.get_closest_marker(MARKER)
        return uses_of(marker.kwargs) if marker is not None else {}

    def begin(self, item: pytest.Item, board: Board, entry: AnyEntry) -> str | None:
        """Notes what `item` is about to use up of `board`; or says why it may not, and nothing is noted.

        The chip is asked what it has left, by its ROM: the board must be restarted afterwards.

        Raises:
            LabError: it cannot be noted.
        """
        uses = self.uses(item)
        if not uses:
            return None
        mac = board.mac
        assert mac is not None
        ledger = ConsumptionLedger(board.records.folder)
        stocks = self._stocks(board, ledger)
        budget = _budget(entry)
        refusal = refusal_of_use(
            uses,
            board_name=board.name,
            physical=board.link.physical,
            consumed=self.consumed,
            budget=budget,
            spent=ledger.spent(mac),
            stocks=stocks,
        )
        if refusal is not None:
            return refusal
        ledger.note(mac, item.nodeid, uses)
        left = stocks.less(uses)
        self._tell(board, entry, ledger, left)
        used = ", ".join(f"{resource.value} {amount}" for resource, amount in uses.items())
        item.user_properties += [("consumes", used), ("left", left.text())]
        board.console.note(f"uses up for good: {used}; left: {left.text()}")
        return None

    def look(self, board: Board, entry: AnyEntry) -> None:
        """Keeps what is left of a physical board for the end of the session; the board is not touched."""
        if not board.link.physical or board.mac is None:
            return
        ledger = ConsumptionLedger(board.records.folder)
        record = board.records.read(board.mac)
        stocks = stocks_of(unreachable_state(board.chip, board.mac), record)
        self._tell(
            board, entry, ledger, stocks.less(_since(ledger, board.mac, record.updated if record else ""))
        )

    def _stocks(self, board: Board, ledger: ConsumptionLedger) -> Stocks:
        assert board.mac is not None
        state = (
            unreachable_state(board.chip, board.mac)
            if board.lock is Lock.DOWNLOAD_OFF
            else board.read_state()
        )
        record = board.records.read(board.mac)
        stocks = stocks_of(state, record)
        if state.download is Download.OPEN or record is None:
            return stocks
        return stocks.less(_since(ledger, board.mac, record.updated))

    def _tell(self, board: Board, entry: AnyEntry, ledger: ConsumptionLedger, left: Stocks) -> None:
        assert board.mac is not None
        budget, spent = _budget(entry), ledger.spent(board.mac)
        text = left.text()
        if budget:
            text += "; budget: " + ", ".join(
                f"{resource.value} {max(0, allowed - spent.get(resource, 0))} of {allowed}"
                for resource, allowed in budget.items()
            )
        self.lines[board.name] = text
        fields = {
            "format": 1,
            "board": board.name,
            "left": left.to_fields(),
            "budget": _words(budget),
            "spent": _words(spent),
        }
        (board.folder / FILE_NAME).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def _budget(entry: AnyEntry) -> dict[Resource, int]:
    """Of a physical board; virtual ones need none."""
    if not isinstance(entry, PhysicalEntry):
        return {}
    return {each: amount for each, amount in budget_of(entry.budget.model_dump()).items() if amount}


def _since(ledger: ConsumptionLedger, mac: str, moment: str) -> dict[Resource, int]:
    """What was noted since `moment`, ISO 8601 in UTC as records have it."""
    return added(use.uses for use in ledger.read(mac) if use.at >= moment)


def _words(uses: Mapping[Resource, int]) -> dict[str, int]:
    return {resource.value: amount for resource, amount in uses.items()}
