"""What esptool prints is in the board's log, marked, and nowhere else; reading a log opens no port."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import serial
from click.testing import CliRunner
from pexpect import TIMEOUT

from harness.board import Board
from harness.cli.log import log
from harness.console.log_file import MARK_SIGN
from harness.errors import BoardError
from harness.home import Home
from harness.inventory.inventory import Inventory
from harness.lab import Lab

SAID = "Hash of data verified"


@pytest.fixture
def board(home: Home, tmp_path: Path):
    def no_secret(place: Path) -> None:
        raise AssertionError(f"the vault {place} was opened")

    with Lab(home, Inventory(None, {}), tmp_path / "out", no_secret) as lab:  # type: ignore[arg-type]
        yield lab.throwaway("esp32c3")


def flashed(board: Board) -> None:
    with board.rom() as session:
        session.write_flash([(0x10000, b"noise" * 100)], force=True)


def test_neither_dut_nor_a_wait_sees_what_the_tools_print(board: Board, capfd: pytest.CaptureFixture[str]):
    dut, mark = board.dut, board.console.mark()
    flashed(board)
    marked = [line for line in board.console.lines_since(mark) if SAID in line.text]
    assert [(line.is_mark, line.text[:6]) for line in marked] == [(True, "tool: ")]
    for expect in (dut.expect_exact, dut.expect):
        with pytest.raises(TIMEOUT):
            expect(SAID, timeout=0.3)
    for wanted in (SAID, re.compile("tool|esptool"), lambda line: SAID in line.text):
        with pytest.raises(BoardError, match="waited for"):
            board.console.wait_for(wanted, 0.2, since=mark)
    with pytest.raises(BoardError, match="waited for"):
        board.console.wait_for("never", 0.2, since=mark, fail_on=SAID)
    assert not board.console.events
    assert SAID not in board.console.raw_path.read_text(errors="replace")
    assert capfd.readouterr() == ("", "")
    board.console.close()
    lines = [line for line in board.log_path.read_text().splitlines() if SAID in line]
    assert len(lines) == 1
    assert f" {MARK_SIGN} tool: " in lines[0]


def test_a_log_is_read_without_opening_a_port(board: Board, monkeypatch: pytest.MonkeyPatch):
    flashed(board)
    board.watch_boot()
    board.close()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("something was opened or reset")

    for place, name in (
        (serial, "serial_for_url"),
        (serial.Serial, "open"),
        (socket, "create_connection"),
        (socket.socket, "connect"),
    ):
        monkeypatch.setattr(place, name, forbidden)
    for options in ((), ("--boots",), ("--json",)):
        done = CliRunner().invoke(log, [str(board.log_path), *options], standalone_mode=False)
        assert done.exception is None
        assert done.output
    assert "(by the harness: reset: into run)" in CliRunner().invoke(log, [str(board.log_path)]).output
