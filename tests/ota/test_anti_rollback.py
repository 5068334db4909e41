"""Anti-rollback: the secure version in eFuses, who raises it, and what an older version is refused by.

With it on, ESP-IDF's bootloader also reads otadata differently: records that make no sense count as initial, and are
written anew at the next boot (without it they stay as they are: `test_otadata`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from one_way import EVERY_CHIP, OneWayBench

from harness.board import Board
from harness.formats.otadata import OtaData
from harness.ota.release import Release
from harness.provision.profile import Lock, Profile

pytestmark = pytest.mark.consumes(secure_version=2)

SMALL_SEC_VER = 0x1504
ROLLBACK_FAILED = 0x1505
ROLLBACK_INVALID_STATE = 0x1506
INITIAL = "otadata[0..1] in initial state"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[OneWayBench]:
    made = OneWayBench.opened(tmp_path)
    with made.lab:
        yield made


@pytest.fixture(params=EVERY_CHIP)
def board(bench: OneWayBench, request: pytest.FixtureRequest) -> Board:
    """Secure version 0 runs from ota_0, and nothing is burned."""
    return bench.prepared(request.param, Profile.DEVELOPMENT, lock=Lock.NONE, fragments=("rollback.anti",))


def burned(board: Board) -> int:
    """The secure version that the eFuses hold."""
    return int(board.status().fields["fuse_secure_version"])


def installed(board: Board, version: str, secure_version: int) -> Release:
    """Updated to, running, and confirmed."""
    release = board.release(version, secure_version=secure_version)
    answer = board.update(release)
    assert answer.ok, answer
    assert board.reboot().version == version
    answer = board.confirm()
    assert answer.ok, answer
    return release


def said(board: Board, mark: int) -> list[str]:
    return [line.text for line in board.console.lines_since(mark) if not line.is_mark]


def test_confirming_raises_the_fuses_and_nothing_else_does(board: Board) -> None:
    assert board.update(board.release("2.0.0", secure_version=1)).ok
    mark = board.console.mark()
    assert board.reboot().version == "2.0.0"
    lines = said(board, mark)
    assert any("boot: Secure version (from eFuse) = 0" in line for line in lines)
    assert any("Secure version:   1" in line for line in lines), "the app's start-up says its own"
    assert burned(board) == 0

    mark = board.console.mark()
    assert board.confirm().ok
    assert burned(board) == 1
    assert any(
        "efuse: Anti-rollback is set. eFuse field is updated(1)." in line for line in said(board, mark)
    )
    mark = board.console.mark()
    board.restart()
    lines = said(board, mark)
    assert any("boot: Secure version (from eFuse) = 1" in line for line in lines)
    assert not any("efuse: BURN" in line for line in lines)


def test_an_unconfirmed_newer_version_goes_back_and_leaves_the_fuses_alone(board: Board) -> None:
    assert board.update(board.release("2.0.0", secure_version=3)).ok
    assert board.reboot().version == "2.0.0"
    assert board.restart().version == "1.0.0"
    assert burned(board) == 0


def test_an_older_package_is_refused_before_anything_is_erased(board: Board) -> None:
    installed(board, "2.0.0", 2)
    passive = board.status().next_slot
    before = board.slot_digest(passive)
    older = board.release("2.0.1", secure_version=1)
    with board.watching_flash() as changes:
        answer = board.update(older)
    assert (answer.ok, answer.error) == (False, "secure-version-too-old")
    assert changes == []
    assert board.slot_digest(passive) == before


def test_the_bootloader_starts_nothing_that_is_below_the_fuses(bench: OneWayBench) -> None:
    board = bench.prepared("esp32c3", Profile.DEVELOPMENT, lock=Lock.NONE, fragments=("rollback.anti",))
    with board.rom() as session:
        session.burn_fuses({"SECURE_VERSION": 0b1})
    mark = board.console.mark()
    record = board.watch_boot()
    assert set(record.not_bootable) == {"ota_0", "ota_1"}
    assert not record.app_started
    assert any("boot: Secure version (from eFuse) = 1" in line for line in said(board, mark))


def test_the_stock_handler_erases_what_is_too_old(board: Board) -> None:
    installed(board, "2.0.0", 1)
    passive = board.slot(board.status().next_slot)
    older = board.release("2.0.1", secure_version=0)
    mark = board.console.mark()
    answer = board.take(older.image, name="plain.bin", command="ota-stock")
    assert (answer.error, answer.code) == ("secure-version-too-old", SMALL_SEC_VER)
    assert any("Partition will be erased." in line for line in said(board, mark))
    assert board.slot_digest(passive.label) == hashlib.sha256(b"\xff" * passive.size).hexdigest()
    assert board.restart().version == "2.0.0"


def test_a_version_of_the_same_number_is_welcome(board: Board) -> None:
    installed(board, "2.0.0", 1)
    installed(board, "2.1.0", 1)
    assert burned(board) == 1


def test_there_is_no_way_back_to_what_is_too_old(board: Board) -> None:
    installed(board, "2.0.0", 1)
    answer = board.command("rollback")
    assert (answer.ok, answer.code) == (False, ROLLBACK_FAILED)
    assert board.status().state == "valid"


def test_when_the_only_app_that_is_new_enough_is_damaged_nothing_boots(board: Board) -> None:
    installed(board, "2.0.0", 1)
    slot = board.slot("ota_1")
    with board.rom(writes_flash=False) as session:
        content = session.read_flash(slot.offset, 0x1000)
    board.overwrite(slot.offset, bytes(0x1000), enciphered=True)

    record = board.watch_boot()
    assert set(record.not_bootable) == {"ota_0", "ota_1"}
    board.overwrite(slot.offset, content)
    assert board.restart().version == "2.0.0"


@pytest.mark.parametrize("handler", ["ota", "ota-stock"])
def test_an_update_while_unconfirmed_is_refused_by_both_handlers(board: Board, handler: str) -> None:
    assert board.update(board.release("2.0.0", secure_version=1)).ok
    assert board.reboot().version == "2.0.0"
    newer = board.release("2.1.0", secure_version=1)
    if handler == "ota":
        answer = board.update(newer)
    else:
        answer = board.take(newer.image, name="plain.bin", command="ota-stock")
        assert answer.code == ROLLBACK_INVALID_STATE
    assert answer.error == "pending-verify"
    assert board.confirm().ok


@pytest.mark.parametrize("kind", ["plaintext", "erase"])
def test_otadata_that_makes_no_sense_counts_as_initial_and_is_repaired(board: Board, kind: str) -> None:
    installed(board, "2.0.0", 0)
    installed(board, "2.1.0", 0)
    assert board.command("otadata-raw", kind=kind).ok
    mark = board.console.mark()
    record = board.restart()
    lines = said(board, mark)
    assert any(INITIAL in line for line in lines)
    assert any("boot: Set actual ota_seq=1 in otadata[0]" in line for line in lines)
    assert record.slot == "ota_0"
    assert board.status().agrees, "the bootloader has mended it"
    mark = board.console.mark()
    board.restart()
    assert not any(INITIAL in line for line in said(board, mark))


def test_damaged_otadata_does_not_bring_an_older_version_back(board: Board) -> None:
    """Without anti-rollback the first slot that boots is taken, and a confirmed update silently lost."""
    installed(board, "2.0.0", 1)
    assert board.status().slot == "ota_1"
    assert board.command("otadata-raw", kind="plaintext").ok
    record = board.restart()
    assert (record.slot, record.version) == ("ota_1", "2.0.0")
    assert record.not_bootable == ("ota_0",)
    assert board.status().agrees
    records: OtaData = board.read_otadata()
    assert records.records[0].seq == 2
