"""The real firmware on a twin: the proof is a GET of its own, and without it nothing is erased."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from harness.errors import LabError
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.inventory.network import Network
from harness.lab import Lab
from harness.preparation import Consent, Demand, prepare
from harness.provision.profile import Profile
from harness.say import Say

pytestmark = pytest.mark.skipif(
    "sys.platform != 'linux'", reason="all of 127.0.0.0/8 is loopback on Linux only"
)


def _no_secret(place: Path) -> Any:
    raise AssertionError(f"the vault {place} was opened")


def test_a_wrong_address_costs_an_error_and_not_the_content_of_a_slot(tmp_path: Path) -> None:
    # The server listens on 127.0.0.1; at 127.0.0.2 nobody answers.
    entry = TwinEntry(chip="esp32c3", network=Network(address="127.0.0.2"))
    say = Say(quiet=True)
    with Lab(Home.of_user(), Inventory(None, {}), tmp_path, _no_secret) as lab:
        board = lab.throwaway("esp32c3", "twin", entry=entry)
        prepare(board, Demand(Profile.OPEN), Consent(entry), lab.home, say=say)
        before = board.slot_digest("ota_1")
        with pytest.raises(LabError, match=r"asked 127\.0\.0\.2 port \d+ .*got no answer \(http-connect\)"):
            board.update(board.release("1.1.0"))
        assert board.slot_digest("ota_1") == before
        assert not any(re.search(r"sent: ota ", line.text) for line in board.console.lines)

        board.network.address = None
        assert board.update(board.release("1.1.0")).ok
        first, second = board.server.journal
        assert (first.name, first.status, second.name) == ("reachable", 200, "1.1.0.pkg")
