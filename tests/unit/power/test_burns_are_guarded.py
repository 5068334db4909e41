"""While eFuses of a board are burned, the hub that it hangs on is not cut by another run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import connection
from harness.errors import LabError
from harness.links.serial_port import SerialLink
from harness.power import hub_guard
from harness.power.hub_guard import HubGuard


def plugged_in(monkeypatch: pytest.MonkeyPatch, device: str, usb_location: str | None, folder: Path) -> None:
    ports: list[Any] = [SimpleNamespace(device=device, usb_location=usb_location)]
    monkeypatch.setattr(connection, "serial_ports", lambda: ports)
    # The folder that all users of this machine share, for those who burn and those who cut.
    monkeypatch.setattr(hub_guard, "shared_folder", lambda: folder)


def test_a_port_of_the_hub_is_not_cut_while_a_board_on_it_burns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged_in(monkeypatch, "/dev/ttyUSB7", "1-1.3", tmp_path)
    hubs = HubGuard(wait_s=0.2)
    with connection.burn_guard(SerialLink("/dev/ttyUSB7"), "desk"):
        refused = pytest.raises(LabError, match="no port of hub 1-1 may be cut: desk burns eFuses on it")
        with refused, hubs.cutting("1-1"):
            pytest.fail("the hub was cut")
        with hubs.cutting("2-1"):
            pass
    with hubs.cutting("1-1"):
        pass


def test_a_board_that_hangs_on_no_hub_guards_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugged_in(monkeypatch, "/dev/ttyUSB7", None, tmp_path)
    hubs = HubGuard(wait_s=0.2)
    with connection.burn_guard(SerialLink("/dev/ttyUSB7"), "desk"), hubs.cutting("1-1"):
        pass
