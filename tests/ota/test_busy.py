"""A second update while one runs is refused at once, by either handler and over either wire; the first one goes on."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from row import Row, rows

from harness.board import Board, Way
from harness.console.device import Answer
from harness.ota.faults import Fault, FaultKind
from harness.ota.release import Release
from harness.ota.server import OtaServer

pytestmark = pytest.mark.profiles("release", full=("open", "development", "ciphertext-only"))

FIRST = "first.bin"
HANDLERS = {"raw": "ota", "stock": "ota-stock"}
SLOWLY = Fault(FaultKind.SLOW, match=FIRST, bytes_per_s=20_000)
"""Until the second one has come and been refused."""


@dataclass(frozen=True)
class Pair(Row):
    """Who updates, and who comes second."""

    first: str
    second: str
    first_over: Way | None = None
    second_over: Way | None = None

    @property
    def name(self) -> str:
        ways = {None: "", "uart": " over the UART", "network": ""}
        return f"{self.first}{ways[self.first_over]}, then {self.second}{ways[self.second_over]}"


PAIRS = (
    Pair("raw", "raw"),
    Pair("raw", "stock"),
    Pair("stock", "raw"),
    Pair("stock", "stock", full=True),
    Pair("raw", "raw", second_over="uart"),
    Pair("stock", "raw", second_over="uart", full=True),
    Pair("raw", "raw", first_over="uart"),
    Pair("raw", "stock", first_over="uart"),
    Pair("raw", "raw", first_over="uart", second_over="uart", full=True),
)


BEGUN = re.compile(r'"phase":"first-sector"|stock_ota: writing')


class Held(bytes):
    """Bytes that a host sends up to their middle; the rest has to be released."""

    released: threading.Event

    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]
        assert isinstance(key, slice)
        if key.start > len(self) // 2:
            assert self.released.wait(120)
        return bytes(self)[key]


def sent(board: Board, release: Release, handler: str) -> bytes:
    return board.package(release) if handler == "raw" else release.image


@pytest.mark.parametrize("pair", rows(PAIRS))
def test_a_second_update_is_refused_and_the_first_one_goes_on(
    board: Board, ota_server: OtaServer, fresh: Callable[[], Release], pair: Pair
) -> None:
    release, slot = fresh(), board.status().next_slot
    first, second = Held(sent(board, release, pair.first)), sent(board, fresh(), pair.second)
    first.released = threading.Event()
    board.reach_updates()
    ota_server.faults.add(SLOWLY)
    mark = board.console.mark()

    def take_first() -> Answer:
        return board.take(first, name=FIRST, command=HANDLERS[pair.first], over=pair.first_over)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(take_first)
        board.console.wait_for(BEGUN, 60, since=mark)
        answer = board.take(second, command=HANDLERS[pair.second], over=pair.second_over)
        assert not running.done(), "the first one was over before the second one came"
        first.released.set()
        ota_server.faults.clear()
        assert answer.error == "busy", answer
        assert running.result(timeout=120).ok
    assert (board.reboot().slot, board.status().version) == (slot, release.version)
