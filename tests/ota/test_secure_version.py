"""Secure versions on any board: with anti-rollback in the build they are burned for good, without it they only compare.

What anti-rollback changes in detail is held against ESP-IDF on twins of its own: test_anti_rollback.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.board import Board
from harness.ota import variants
from harness.ota.release import Release

pytestmark = pytest.mark.profiles("release", full=("open", "development", "ciphertext-only"))

NODOWNGRADE = pytest.mark.source("mcuboot run_nodowngrade", "mcuboot run_hw_rollback_prot")
TOO_OLD = "secure-version-too-old"


def next_version(release: Release) -> str:
    return f"{release.version}-s"


@pytest.fixture
def running_secure_version_1(board: Board, fresh: Callable[[], Release]) -> Iterator[Release]:
    """A confirmed version with secure version 1 runs; nothing is burned, so there is a way back."""
    if "anti-rollback" in board.capabilities:
        pytest.skip("this build burns secure versions: see the scenario that uses one up")
    release = board.release(next_version(fresh()), secure_version=1)
    assert board.update(release).ok
    board.reboot()
    assert board.confirm().ok
    yield release
    # Back to a version that every other scenario may follow: ESP-IDF's own functions do not compare.
    board.settle()
    assert board.take(fresh().image, name="plain.bin", command="ota-stock").ok
    board.reboot()
    assert board.confirm().ok


@NODOWNGRADE
@pytest.mark.parametrize("way", ["package", "relabelled", "bare"])
def test_a_secure_version_below_the_running_one_is_refused(
    board: Board, fresh: Callable[[], Release], running_secure_version_1: Release, way: str
) -> None:
    target = board.slot(board.status().next_slot)
    untouched = board.slot_digest(target.label)
    recipe = board.recipe(fresh(), target)
    if way == "bare":
        answer = board.take(recipe.body(), name="bare.bin", bare=1)
    elif way == "relabelled":
        # The label lies about an old image: the image itself tells.
        answer = board.take(variants.with_secure_version(recipe, 1))
    else:
        answer = board.take(recipe.package())
        assert board.slot_digest(target.label) == untouched, "refused by the header, and the slot was touched"
    assert answer.error == ("wrong-description" if way == "relabelled" else TOO_OLD), answer
    boot = board.restart()
    assert boot.version == running_secure_version_1.version
    same = board.release(next_version(fresh()), secure_version=1)
    assert board.update(same).ok
    assert board.reboot().version == same.version


@NODOWNGRADE
@pytest.mark.needs("anti-rollback")
@pytest.mark.consumes(secure_version=1)
def test_a_secure_version_is_burned_with_its_confirmation_and_nothing_older_comes_back(
    board: Board, fresh: Callable[[], Release]
) -> None:
    burned = int(board.status().fields["fuse_secure_version"])
    older = fresh()
    release = board.release(next_version(fresh()), secure_version=burned + 1)
    assert board.update(release).ok
    assert board.reboot().version == release.version
    assert int(board.status().fields["fuse_secure_version"]) == burned, "burned before it was confirmed"
    assert board.confirm().ok
    running = board.status()
    assert int(running.fields["fuse_secure_version"]) == burned + 1
    for command, data in (("ota", board.package(older)), ("ota-stock", older.image)):
        assert board.take(data, command=command).error == TOO_OLD
    assert board.restart().version == release.version
