"""The health of boards: latched with a reason, mended, least recently used first; whatever lies in its folder."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import (
    AppDownError,
    BoardError,
    CheckFailedError,
    HarnessError,
    InUseError,
    LabError,
    LinkError,
    NotApplicableError,
    NotProvenError,
    RefusedError,
    UsageError,
)
from harness.home import Home
from harness.provision.rom import OtherChipError
from harness.rack.health import FOLDER, HealthBook, latches, order
from harness.vault.errors import DamagedError


@pytest.fixture
def book(tmp_path: Path) -> HealthBook:
    return HealthBook(Home(tmp_path))


def test_a_latched_board_is_broken_until_it_is_mended(book: HealthBook, tmp_path: Path) -> None:
    assert book.of("c3").broken is None
    assert not (tmp_path / FOLDER).exists(), "looking makes nothing"
    book.latch("c3", "does not boot", run="pytest (process 7)")
    found = HealthBook(Home(tmp_path)).of("c3")
    assert (found.broken, found.run) == ("does not boot", "pytest (process 7)")
    assert found.since_s is not None
    assert abs(found.since_s - time.time()) < 300
    assert "latched broken since" in found.text()
    assert "(found by pytest (process 7)): does not boot" in found.text()
    book.mend("c3")
    assert book.of("c3").broken is None
    book.mend("c3")


def test_a_board_that_fails_again_is_broken_since_the_first_time_and_for_the_last_reason(
    book: HealthBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000.0)
    book.latch("c3", "first")
    monkeypatch.setattr(time, "time", lambda: 2_000.0)
    book.latch("c3", "second")
    assert (book.of("c3").since_s, book.of("c3").broken) == (1_000.0, "second")


DAMAGED: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:40]),
    "rubbish": lambda path: path.write_bytes(b"\xff\x00" * 100),
    "a list": lambda path: path.write_text("[1]"),
    "another type": lambda path: path.write_text(path.read_text().replace('"does not boot"', "7")),
    "a time that is none": lambda path: path.write_text(
        path.read_text().replace('since_s": ', 'since_s": 1e99')
    ),
    "of a newer harness": lambda path: path.write_text(path.read_text().replace("1,", "99,", 1)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_a_broken_board_that_says_which_file(
    book: HealthBook, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    book.latch("c3", "does not boot")
    path = tmp_path / FOLDER / "c3.broken"
    damage(path)
    assert str(path) in (book.of("c3").broken or "")
    assert book.all()["c3"].broken == book.of("c3").broken
    if path.is_dir():
        with pytest.raises(LabError, match="cannot be removed"):
            book.mend("c3")
    else:
        book.mend("c3")
        assert book.of("c3").broken is None


def test_nothing_of_a_board_can_be_written_in_a_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    book = HealthBook(Home(tmp_path / "file"))
    book.used("c3")
    assert (book.of("c3").broken, book.all()) == (None, {})
    with pytest.raises(LabError, match="cannot be made"):
        book.latch("c3", "does not boot")


def test_all_tells_of_every_board_that_was_ever_used_or_broken(book: HealthBook) -> None:
    book.used("a.used")
    book.latch("b", "x")
    book.used("b")
    assert list(book.all()) == ["a.used", "b"]
    assert book.all()["b"].broken == "x"
    assert book.all()["b"].last_used_s is not None


def test_parallel_latches_and_mends_leave_a_whole_record_or_none(book: HealthBook) -> None:
    def work(number: int) -> None:
        for turn in range(20):
            book.latch("c3", f"reason {number}")
            if turn % 3 == number % 3:
                book.mend("c3")
            assert book.of("c3").broken in {None, *(f"reason {n}" for n in range(4))}

    failed: list[Exception] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except (AssertionError, HarnessError, OSError) as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_healthy_boards_come_first_then_those_never_used_then_the_least_recent(
    book: HealthBook, tmp_path: Path
) -> None:
    for name, used_s in (("new", 3000), ("old", 1000), ("broken-old", 10)):
        book.used(name)
        os.utime(tmp_path / FOLDER / f"{name}.used", (used_s, used_s))
    book.latch("broken-old", "x")
    book.latch("broken", "x")
    names = ["new", "broken-old", "old", "never-1", "broken", "never-2"]
    assert order(names, book) == ["never-1", "never-2", "old", "new", "broken", "broken-old"]
    assert order([], book) == []


LATCHING: dict[str, tuple[HarnessError, bool]] = {
    "no answer, no boot": (BoardError("does not boot"), True),
    "another chip on the wire": (OtherChipError("is an ESP32", None, board="c3"), True),
    "its port is gone": (LinkError("the port is gone"), True),
    "its twin has died": (LinkError("the twin's process ended"), True),
    "a given app that does not start": (AppDownError("does not come up"), False),
    "somebody else has it": (InUseError("in use by anna"), False),
    "no compiler on this machine": (LabError("there is no compiler"), False),
    "a damaged vault": (DamagedError("the vault is damaged"), False),
    "no consent to burn": (RefusedError("burning needs --burn"), False),
    "wrong input": (UsageError("there is no such profile"), False),
    "a question that does not arise": (NotApplicableError("not applicable: no key"), False),
    "a test's check": (CheckFailedError("the slot is another one"), False),
    "not enough evidence": (NotProvenError("nothing was seen"), False),
}


@pytest.mark.parametrize(("error", "broken"), LATCHING.values(), ids=LATCHING)
def test_what_latches_a_board_broken(error: HarnessError, broken: bool) -> None:
    assert latches(error) is broken
