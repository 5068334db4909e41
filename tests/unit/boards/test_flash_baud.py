"""A board's wire is found out once: the next run begins at the rate that worked."""

from __future__ import annotations

import pytest
from wired_twin import Start, WiredLab, entry_of

from harness.links.rfc2217 import Rfc2217Port

PLACE = 0x100000


class LongCable(Rfc2217Port):
    """Nothing above 230400 baud arrives."""

    def write(self, data: bytes) -> int:
        return len(data) if self.baudrate > 230_400 else super().write(data)


def test_the_next_run_starts_at_what_worked(start: Start, wired: WiredLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.links.rfc2217.Rfc2217Port", LongCable)
    twin = start()
    entry = entry_of(twin, mac=twin.mac, baud=921_600)
    tries = []
    for data in (b"first", b"second"):
        board = wired.open(entry)
        board.read_state()
        with board.rom() as session:
            session.write_flash([(PLACE, data)], force=True)
        tries.append([line.text for line in board.console.lines if "does not work" in line.text])
        wired.close()
    assert [len(each) for each in tries] == [2, 0]
    assert tries[0][0].startswith("tool: 921600 baud does not work")
    assert twin.flash[PLACE : PLACE + 6] == b"second"
