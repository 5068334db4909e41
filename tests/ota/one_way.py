"""Boards for scenarios that no way leads back from: each is a twin of one test alone, blank when it begins."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.board import Board
from harness.build.flash_layout import lay_out
from harness.chips import TWINS
from harness.firmware import firmware_for
from harness.home import Home
from harness.identification import identify
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.links.flash_log import END_OF_FLASH_LOG
from harness.links.twin import TwinLink
from harness.preparation import FIRST_VERSION, Consent, Demand, prepare
from harness.provision.profile import Lock, Profile
from harness.say import Say

ONE_CHIP = "esp32c3"
EVERY_CHIP = [
    ONE_CHIP,
    *(pytest.param(name, marks=pytest.mark.full) for name in TWINS if name != ONE_CHIP),
]
"""For ``parametrize``: one chip in the default subset, all twins with ``--full``."""


@dataclass
class OneWayBench:
    """Makes boards, and takes them away when its lab closes."""

    lab: Lab
    _count: int = 0

    @classmethod
    def opened(cls, folder: Path) -> OneWayBench:
        """Its boards' artefacts go into `folder`."""
        return cls(Lab(Home.of_user(), Inventory(None, {}), folder, secret_from(None), purpose="pytest"))

    def board(self, chip: str) -> Board:
        """A blank board; nothing is flashed."""
        self._count += 1
        return self.lab.throwaway(chip, f"one-way-{self._count}-{chip}")

    def prepared(
        self,
        chip: str,
        profile: Profile,
        *,
        lock: Lock | None = None,
        fragments: tuple[str, ...] = (),
        device_key: bool = False,
        by_firmware: bool = False,
    ) -> Board:
        """A board that the harness has brought into a profile by a plan; arguments as those of `Demand`."""
        board = self.board(chip)
        demand = Demand(
            profile, lock=lock, fragments=fragments, device_key=device_key, by_firmware=by_firmware
        )
        consent = Consent(TwinEntry(chip=chip))
        prepare(board, demand, consent, self.lab.home, say=Say(quiet=True))
        return board

    def flashed_as_plaintext(self, chip: str, profile: Profile, *, fragments: tuple[str, ...]) -> Board:
        """A board on which everything lies as ``idf.py flash`` leaves it: plaintext, and not started yet."""
        board = self.board(chip)
        identify(board)
        firmware = firmware_for(
            board, profile, Lock.NONE, self.lab.home, fragments=fragments, say=Say(quiet=True)
        )
        app = firmware.first(FIRST_VERSION)
        board.firmware, board.app, board.table = firmware, app, app.partition_table
        flash_plaintext(board)
        return board


def flash_plaintext(board: Board) -> None:
    """Writes bootloader, table, otadata and app over the UART as they come out of the build."""
    assert board.app is not None
    regions = lay_out(board.app, encrypts=False).regions
    with board.rom() as session:
        session.write_flash([(region.offset, region.data) for region in regions], force=True)


def cut_power_in(board: Board, operations: int, *, where: str = "inside", byte: int = 0x800) -> None:
    """Cuts the supply of a twin at the operation that comes after so many more."""
    link = board.link
    assert isinstance(link, TwinLink)
    next_number = link.control("flash-log", since=END_OF_FLASH_LOG)["next"]
    link.control("cut", at_op=next_number + operations, where=where, byte=byte)


def await_power_loss(board: Board, timeout_s: float = 60.0) -> None:
    """Waits until a cut that was armed has struck."""
    assert isinstance(board.link, TwinLink)
    deadline = time.monotonic() + timeout_s
    while board.link.control("status")["state"] != "off":
        assert time.monotonic() < deadline, "the armed cut did not strike"
        time.sleep(0.02)
