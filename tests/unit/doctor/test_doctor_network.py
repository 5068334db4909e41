"""The doctor on the network entry of a board."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.doctor.finding import Finding, Level
from harness.doctor.network import check_network, probe_network
from harness.inventory.entry import AnyEntry, SerialEntry, TwinEntry

FAR_AWAY = "198.51.100.7"
"""A documentation address (RFC 5737): nobody has it."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    file = tmp_path / "wifi.txt"
    file.write_text("hunter22\n")
    file.chmod(0o600)
    return tmp_path


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("", 0)) as server:
        yield int(server.getsockname()[1])


def desk(**network: Any) -> AnyEntry:
    wifi = {"ssid": "lab", "password_file": "wifi.txt"}
    return SerialEntry.model_validate(
        {"chip": "esp32", "link": "serial", "port": "COM5", "network": {**wifi, **network}}
    )


def looked_at(entry: AnyEntry, folder: Path) -> list[Finding]:
    found = check_network(probe_network("desk", entry, folder))
    assert all(finding.area == "board desk" for finding in found)
    assert not any("hunter" in finding.text for finding in found)
    return found


def test_a_network_that_is_as_it_should_be_is_one_line(folder: Path) -> None:
    (finding,) = looked_at(desk(), folder)
    assert finding.level is Level.GOOD
    assert finding.text == "joins Wi-Fi network 'lab', OTA server on 0.0.0.0, port any free one: free"


def test_of_a_virtual_board_that_says_nothing_nothing_is_said(folder: Path) -> None:
    assert looked_at(TwinEntry(chip="esp32"), folder) == []


def test_a_physical_board_without_wifi_is_told_what_to_write(folder: Path) -> None:
    entry = SerialEntry(chip="esp32", link="serial", port="COM5")
    (finding,) = looked_at(entry, folder)
    assert (finding.level, finding.todo) == (Level.NOTE, "network: {ssid: NAME, password_file: FILE}")


@pytest.mark.parametrize(
    ("network", "level", "said"),
    [
        ({"password_file": "nowhere.txt"}, Level.WRONG, "nowhere.txt cannot be read: No such file"),
        ({"password_file": None, "password_env": "NO_SUCH_ENV"}, Level.WRONG, "NO_SUCH_ENV is not set"),
        ({"bind": "127.0.0.1"}, Level.WRONG, "would listen on 127.0.0.1, where no board reaches it"),
        ({"bind": FAR_AWAY}, Level.WRONG, f"cannot listen on address {FAR_AWAY}"),
        ({"address": FAR_AWAY}, Level.NOTE, f"come from {FAR_AWAY}, which is no address of this machine"),
    ],
)
def test_what_is_wrong_is_said_with_its_remedy(
    folder: Path, network: dict[str, Any], level: Level, said: str
) -> None:
    (finding,) = looked_at(desk(**network), folder)
    assert (finding.level, said in finding.text) == (level, True), finding
    assert finding.todo


def test_a_taken_port_is_said_and_a_range_with_a_free_one_is_not(folder: Path, taken: int) -> None:
    (finding,) = looked_at(desk(port=taken), folder)
    assert (finding.level, f"port {taken}: Address already in use" in finding.text) == (Level.WRONG, True)
    (finding,) = looked_at(desk(port=f"{taken}-{taken + 20}"), folder)
    assert finding.level is Level.GOOD


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_password_that_others_may_read_is_worth_knowing(folder: Path) -> None:
    (folder / "wifi.txt").chmod(0o644)
    (finding,) = looked_at(desk(), folder)
    assert (finding.level, "others may read" in finding.text) == (Level.NOTE, True)
    assert finding.todo == f"chmod 600 {folder / 'wifi.txt'}"
