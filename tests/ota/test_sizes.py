"""How large an image may be: to the last block of its slot, and not one block more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.board import Board, Snapshot
from harness.console.boot_record import BootRecord
from harness.console.device import Answer
from harness.ota.image_variants import grown
from harness.ota.release import Release, encipher_for_slot, header_for, sealed

# A signed image ends with its signature sector, behind a page's padding: it never ends with its slot.
pytestmark = pytest.mark.profiles(
    "release", full=("open", "development", "ciphertext-only"), secure_boot=False
)

BLOCK = 16
WAYS = ("package", "bare", "stock")


def send(board: Board, release: Release, way: str) -> Answer:
    """The answer to `release`, sent for the slot that is free, whatever its size."""
    if way == "stock":
        return board.take(release.image, name="plain.bin", command="ota-stock")
    recipe = board.recipe(release, board.slot(board.status().next_slot))
    body = encipher_for_slot(release.image, chip=board.chip, key=recipe.key, slot=recipe.slot)
    if way == "bare":
        return board.take(body, name="bare.bin", bare=1)
    header = header_for(release, body, chip=board.chip, mac=recipe.mac, key=recipe.key, slot=recipe.slot)
    return board.take(sealed(header, body, recipe.sign))


@pytest.mark.parametrize("way", WAYS)
def test_an_image_that_fills_its_slot_to_the_last_block_is_taken_and_boots(
    board: Board, fresh: Callable[[], Release], way: str
) -> None:
    slot = board.slot(board.status().next_slot)
    largest = grown(fresh(), slot.size)
    assert send(board, largest, way).ok
    assert (board.reboot().slot, board.status().version) == (slot.label, largest.version)


@pytest.mark.parametrize(
    ("way", "error"), [("package", "wrong-size"), ("bare", "too-large"), ("stock", "flash")]
)
def test_an_image_one_block_larger_than_its_slot_is_refused(
    board: Board,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
    way: str,
    error: str,
) -> None:
    slot = board.slot(before.running.next_slot)
    untouched = board.slot_digest(slot.label)
    answer = send(board, grown(fresh(), slot.size + BLOCK), way)
    assert answer.error == error, answer
    if way != "stock":
        assert board.slot_digest(slot.label) == untouched, "refused by its size, and yet the slot was touched"
    still_runs()
