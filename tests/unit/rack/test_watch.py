"""What latches a board while it is prepared, and what once it is ready; a person may try it all the same."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.errors import BoardError, HarnessError, InUseError, LinkError, RefusedError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.rack.health import HealthBook
from harness.rack.watch import BoardWatch
from harness.say import Say


@pytest.fixture
def book(tmp_path: Path) -> HealthBook:
    return HealthBook(Home(tmp_path))


def watch(book: HealthBook) -> BoardWatch:
    return BoardWatch(book, "c3", run="pytest tests/ota", say=Say(quiet=True))


@pytest.mark.parametrize(
    ("error", "while_preparing", "once_ready"),
    [
        (BoardError("does not boot"), True, False),
        (LinkError("the port is gone"), True, True),
        (InUseError("in use by anna"), False, False),
        (RefusedError("burning needs --burn"), False, False),
        (AssertionError("a test failed"), False, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_a_ready_board_is_broken_only_when_the_way_to_it_is(
    book: HealthBook, error: Exception, while_preparing: bool, once_ready: bool
) -> None:
    assert watch(book).failed(error) is while_preparing
    assert (book.of("c3").broken is not None) is while_preparing
    ready = watch(book)
    ready.ready()
    assert book.of("c3").broken is None, "what works is not broken"
    assert ready.failed(error) is once_ready
    assert (book.of("c3").broken is not None) is once_ready


def test_a_ready_board_that_cannot_be_brought_back_is_broken(book: HealthBook) -> None:
    ready = watch(book)
    ready.ready()
    assert ready.failed(BoardError("does not boot"), answers=False)
    assert ready.refusal is not None
    assert ready.refusal.endswith("does not boot; to clear that: harness boards mend c3")
    assert f"(found by pytest tests/ota (process {os.getpid()}))" in ready.refusal


def test_a_latch_that_cannot_be_written_is_told_and_hides_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    blind = BoardWatch(HealthBook(Home(tmp_path / "file")), "c3", run="r", say=Say())
    with pytest.raises(BoardError, match="does not boot"), blind.watching():
        raise BoardError("does not boot")
    assert "cannot be made" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_twin_whose_process_was_killed_is_not_broken(tmp_path: Path, book: HealthBook) -> None:
    """Of a virtual board the next run starts another process."""
    inventory = Inventory(None, {"c3": TwinEntry(chip="esp32c3")})
    with Lab(Home(tmp_path), inventory, tmp_path / "out", secret_from(None)) as lab:
        board = lab.open("c3")
        os.kill(board.link.pid, signal.SIGKILL)
        with pytest.raises(HarnessError), lab.watch("c3").watching():
            board.read_state()
    assert book.of("c3").broken is None
