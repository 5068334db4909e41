"""The test hook that ends the program at one of its flash operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_board import FakeBoard
from fake_chip import SECTOR
from fake_server import FakeServer
from firmware_builds import TEST_FRAGMENTS, Builds
from sample_packages import image_of, other_slot, package_for

RESTARTED, PANICKED, STARVED = 0, 1, 2
"""What the program asks the twin for: TWIN_RESTART_*."""


@pytest.fixture
def begin(board: FakeBoard, builds: Builds, server: FakeServer) -> Callable[[], int]:
    """Begins an update; the id of its command."""
    package = package_for(board, builds("1.1.0"))

    def send() -> int:
        board.chip.operations.clear()
        return board.send("ota", url=server.serve("/p", server.whole(package)))

    return send


def sectors_of(builds: Builds) -> int:
    return -(-len(image_of(builds("1.1.0"))) // SECTOR)


def test_the_operations_of_an_update_are_counted_armed_or_not(
    board: FakeBoard, builds: Builds, begin: Callable[[], int]
) -> None:
    sectors = sectors_of(builds)
    assert board.wait_event("done", id=begin())["ok"]
    told = board.command("flash-ops")
    # The slot's sectors and otadata's one; the last write is the otadata record.
    assert (told["erases"], told["writes"], told["left"]) == (sectors + 1, sectors + 1, 0)
    assert ("erase", other_slot(board).offset, sectors * SECTOR) in board.chip.operations


def test_an_update_that_ends_before_the_armed_operation_is_as_any_other(
    board: FakeBoard, builds: Builds, begin: Callable[[], int]
) -> None:
    sectors = sectors_of(builds)
    assert board.command("cut-at", kind="panic", n=2 * sectors + 3)["ok"]
    assert board.wait_event("done", id=begin())["ok"]
    told = board.command("flash-ops")
    assert (told["erases"], told["writes"], told["left"]) == (sectors + 1, sectors + 1, 1)


@pytest.mark.parametrize(
    ("arguments", "erased", "written"),
    [
        ({"op": "erase", "n": 1, "where": "before"}, 0, 0),
        ({"op": "erase", "n": 2, "where": "before"}, 1, 0),
        ({"op": "erase", "n": 2, "where": "after"}, 2, 0),
        ({"op": "write", "n": 1, "where": "before"}, None, 0),
        ({"op": "write", "n": 2, "where": "after"}, None, 2 * SECTOR),
        ({"op": "write", "n": 2, "where": "inside"}, None, SECTOR + SECTOR // 2),
        ({"op": "write", "n": 2, "where": "inside", "byte": 5}, None, SECTOR + 5),
        ({"op": "any", "n": 1, "where": "after"}, 1, 0),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_the_program_ends_at_the_operation_that_was_armed(
    board: FakeBoard,
    builds: Builds,
    begin: Callable[[], int],
    arguments: dict[str, object],
    erased: int | None,
    written: int,
) -> None:
    assert board.command("cut-at", kind="restart", **arguments)["ok"]
    begin()
    assert board.wait_restart() == RESTARTED
    done = board.chip.operations
    sectors = sectors_of(builds)
    assert (
        sum(size for kind, _, size in done if kind == "erase")
        == (sectors if erased is None else erased) * SECTOR
    )
    assert sum(size for kind, _, size in done if kind == "write") == written
    assert board.logged(f" cut: {arguments['where']} operation {arguments['n']}, esp_partition_")


def test_inside_an_otadata_record_is_between_its_cipher_blocks(
    board: FakeBoard, builds: Builds, begin: Callable[[], int]
) -> None:
    arguments = {"op": "write", "n": sectors_of(builds) + 1, "where": "inside", "byte": 23}
    assert board.command("cut-at", kind="restart", **arguments)["ok"]
    begin()
    board.wait_restart()
    assert board.table.otadata is not None
    assert board.chip.operations[-1] == ("write-encrypted", board.table.otadata.offset + SECTOR, 16)
    assert board.boot()["slot"] == "ota_0"


@pytest.mark.parametrize(
    ("kind", "reason"), [("restart", RESTARTED), ("panic", PANICKED), ("watchdog", STARVED)]
)
def test_the_program_ends_as_it_was_told(
    board: FakeBoard, begin: Callable[[], int], kind: str, reason: int
) -> None:
    assert board.command("cut-at", kind=kind, op="write")["ok"]
    begin()
    assert board.wait_restart() == reason


def test_hold_stops_the_update_and_nothing_else(board: FakeBoard, begin: Callable[[], int]) -> None:
    assert board.command("cut-at", kind="hold", op="write")["ok"]
    begin()
    board.wait_event("ota", phase="erase")
    while not board.logged("esp_partition_write_raw of 4096 bytes at ota_1+0x0: hold"):
        assert board.command("status")["ok"]
    assert not [operation for operation in board.chip.operations if operation[0] == "write"]
    assert board.command("cut-at", kind="off")["err"] == "busy"


def test_a_cut_strikes_once_and_no_restart_survives_it(board: FakeBoard, begin: Callable[[], int]) -> None:
    assert board.command("cut-at", kind="restart", op="write")["ok"]
    assert board.command("flash-ops")["left"] == 1
    board.boot(0xC)
    assert board.command("flash-ops")["left"] == 0
    assert board.command("cut-at", kind="restart", op="write")["ok"]
    assert board.command("cut-at", kind="off")["ok"]
    assert board.wait_event("done", id=begin())["ok"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kind": "fire"},
        {"kind": "panic", "op": "read"},
        {"kind": "panic", "n": 0},
        {"kind": "panic", "n": "two"},
        {"kind": "panic", "where": "beside"},
        {"kind": "panic", "where": "inside"},
        {"kind": "panic", "op": "erase", "where": "inside"},
        {"kind": "panic", "op": "write", "where": "inside", "byte": "x"},
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) or "nothing",
)
def test_what_cannot_be_armed_is_refused_and_arms_nothing(
    board: FakeBoard, arguments: dict[str, object]
) -> None:
    assert board.command("cut-at", **arguments)["err"] == "bad-argument"
    assert board.command("flash-ops")["left"] == 0


def test_a_product_has_neither_the_commands_nor_the_wrapping(
    make_board: Callable[..., FakeBoard], builds: Builds, server: FakeServer
) -> None:
    fragments = tuple(name for name in TEST_FRAGMENTS if name != "test")
    board = make_board(builds("1.0.0", fragments=fragments))
    board.boot()
    for command in ("cut-at", "flash-ops"):
        ack = board.wait_event("ack", id=board.send(command, kind="panic"))
        assert ack["err"] == "unknown-command"
    package = package_for(board, builds("1.1.0"))
    assert board.command("ota", url=server.serve("/p", server.whole(package)))["ok"]
