"""From an entry of boards.yaml to an update over the network: joined, proven, and refused before anything is erased."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from _pytest._code import ExceptionInfo
from scripted_device import ScriptedDevice, fetch

from harness.board import Board, Running
from harness.console import device as device_module
from harness.errors import BoardError, HarnessError, LabError, UsageError
from harness.home import Home
from harness.inventory.inventory import parse_inventory
from harness.lab import Lab
from harness.ota.faults import Fault
from harness.preparation import Demand, Planned, settle_after
from harness.provision.profile import Lock, Profile
from harness.say import Say

MAC = "7c:df:a1:00:00:01"
PASSWORD = "correct horse,&battery"
FAR_AWAY = "198.51.100.7"
"""A documentation address (RFC 5737): nobody has it."""

Opens = Callable[..., tuple[Board, ScriptedDevice]]


@pytest.fixture
def opens(tmp_path: Path) -> Iterator[Opens]:
    """Opens a board of boards.yaml whose port leads to a scripted device: `network` as its entry has it."""
    closing: list[Any] = []
    (tmp_path / "wifi.txt").write_text(PASSWORD + "\n")

    def open_one(
        network: str = "ssid: lab, password_file: wifi.txt", **device: Any
    ) -> tuple[Board, ScriptedDevice]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            # One more device each time: one that is open already would be in use.
            mac = f"{MAC[:-2]}{len(closing) // 2 + 1:02x}"
            text = (
                "version: 1\nboards:\n  desk: {chip: esp32c3, link: serial, "
                f'port: "socket://127.0.0.1:{port}", mac: "{mac}", network: {{{network}}}}}\n'
            )
            inventory = parse_inventory(text, tmp_path / "boards.yaml")
            name = f"run-{len(closing)}"
            lab = Lab(Home(tmp_path / name), inventory, tmp_path / name / "out", _no_secret)
            board = lab.open("desk")
            wire, _ = server.accept()
        closing.extend([lab, wire])
        board.identity.told(mac)
        board.mac = mac
        there = ScriptedDevice(wire, **{"password": PASSWORD, **device}).start()
        mark = board.console.mark()
        there.boot()
        board.console.wait_for_event(lambda event: event.ev == "boot", 60, since=mark)
        return board, there

    yield open_one
    for each in reversed(closing):
        each.close()


def _no_secret(place: Path) -> Any:
    raise AssertionError(f"the vault {place} was opened")


def no_connection(_url: str) -> tuple[int, int]:
    raise ConnectionRefusedError


# --- the good way ---


def test_a_board_joins_proves_the_way_and_only_then_updates(opens: Opens) -> None:
    board, there = opens()
    assert board.take(b"new version").ok
    assert there.commands == ["net", "wifi", "probe", "ota"]
    assert [(request.name, request.status) for request in board.server.journal] == [
        ("reachable", 200),
        ("update.pkg", 200),
    ]
    # A real board is not on this machine: the server listens where it can be reached.
    assert board.server.address[0] == "0.0.0.0"
    with pytest.raises(UsageError, match="nothing called 'reachable' is published"):
        board.server.url_for(MAC, "reachable")


def test_the_way_is_proven_once_per_boot_and_the_network_joined_again_after_each(opens: Opens) -> None:
    board, there = opens()
    assert board.take(b"1").ok
    assert board.take(b"2").ok
    assert there.commands == ["net", "wifi", "probe", "ota", "net", "ota"]
    mark, _ = board.console.mark(), there.commands.clear()
    there.boot()
    board.console.wait_for_event(lambda event: event.ev == "boot", 60, since=mark)
    assert board.take(b"3").ok
    assert there.commands == ["net", "wifi", "probe", "ota"]


def test_a_server_that_comes_back_elsewhere_is_proven_anew(opens: Opens) -> None:
    board, there = opens()
    board.reach_updates()
    board.server.stop()
    board.server.start("0.0.0.0", 0)
    there.commands.clear()
    board.reach_updates()
    assert "probe" in there.commands


def test_a_fault_of_the_server_strikes_the_update_and_not_the_proof(opens: Opens) -> None:
    board, _ = opens()
    board.server.faults.add(Fault("status", code=500))
    board.take(b"new version")
    assert [(request.name, request.status) for request in board.server.journal] == [
        ("reachable", 200),
        ("update.pkg", 500),
    ]


def test_a_busy_access_point_is_asked_a_second_time(opens: Opens) -> None:
    board, there = opens(joins_at=2)
    assert board.take(b"new version").ok
    assert there.joins == 2


def test_an_open_network_needs_no_password(opens: Opens) -> None:
    board, _ = opens("ssid: lab", password="")
    assert board.take(b"new version").ok


def test_the_password_may_come_from_a_named_environment_variable(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, there = opens("ssid: lab, password_env: LAB_WIFI")
    with pytest.raises(UsageError, match="'lab': the environment variable LAB_WIFI is not set"):
        board.take(b"new version")
    monkeypatch.setenv("LAB_WIFI", PASSWORD)
    assert board.take(b"new version").ok
    assert there.joins == 1


def test_a_board_that_is_on_a_network_already_needs_no_ssid(opens: Opens) -> None:
    board, there = opens("port: 0", kind="openeth")
    assert board.take(b"new version").ok
    assert there.commands == ["net", "probe", "ota"]


# --- what goes wrong ---


def refused(board: Board, there: ScriptedDevice, kind: type[HarnessError]) -> str:
    """The message of an update that must not begin."""
    with pytest.raises(kind) as caught:
        board.take(b"new version")
    assert "ota" not in there.commands
    assert caught.value.board == "desk"
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


def test_wifi_without_an_ssid_is_one_error_that_says_what_to_add(opens: Opens) -> None:
    said = refused(*opens("port: 0"), UsageError)
    assert "its entry does not say which network to join" in said
    assert "network: {ssid: NAME, password_file: FILE}" in said


def test_a_network_that_is_not_joined_is_one_error_with_the_ssid_and_not_the_password(opens: Opens) -> None:
    board, there = opens(password="another one")
    said = refused(board, there, LabError)
    assert "does not get into Wi-Fi network 'lab': no address after 2 attempts" in said
    assert "wifi.txt" in said
    assert there.joins == 2


def test_firmware_without_a_network_is_one_error(opens: Opens) -> None:
    board, _ = opens(kind="none")
    with pytest.raises(BoardError, match="its firmware has no network"):
        board.reach_updates()


def test_a_missing_password_file_is_one_error(opens: Opens, tmp_path: Path) -> None:
    board, there = opens()
    (tmp_path / "wifi.txt").unlink()
    assert f"{tmp_path / 'wifi.txt'} cannot be read: No such file" in refused(board, there, UsageError)


def test_a_server_that_is_not_reached_is_named_with_address_port_and_interface(opens: Opens) -> None:
    board, there = opens(fetches=no_connection)
    said = refused(board, there, LabError)
    port = board.server.address[1]
    assert f"the device at 127.0.0.1 in Wi-Fi network 'lab' asked 127.0.0.1 port {port}" in said
    assert "got no answer (http-connect); no update was begun" in said
    assert f"firewall accept TCP port {port}, after giving it a fixed one" in said
    if sys.platform == "linux":
        assert "(interface lo of this machine)" in said


def test_an_address_of_another_machine_is_named_as_such(opens: Opens) -> None:
    board, there = opens(f"ssid: lab, password_file: wifi.txt, address: {FAR_AWAY}", fetches=no_connection)
    assert f"asked {FAR_AWAY} port {board.server.address[1]} (no address of this machine)" in refused(
        board, there, LabError
    )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((302, 0), "got status 302, from something else than our server"),
        ((200, 10), "got an answer, but our server saw no request"),
    ],
)
def test_a_captive_portal_is_not_taken_for_our_server(
    opens: Opens, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, int], said: str
) -> None:
    monkeypatch.setattr("harness.network.update_path.SEEN_TIMEOUT_S", 0.1)
    assert said in refused(*opens(fetches=lambda url: answer), LabError)


def test_a_server_on_loopback_is_refused_for_a_device_that_is_elsewhere(opens: Opens) -> None:
    board, there = opens("ssid: lab, password_file: wifi.txt, bind: 127.0.0.1", ip=FAR_AWAY)
    said = refused(board, there, UsageError)
    assert f"listens on 127.0.0.1, which the device at {FAR_AWAY} cannot reach" in said


def test_old_firmware_that_knows_no_probe_is_one_error(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedDevice, "_probe", None)
    assert "cannot prove that it reaches its updates: probe: unknown-command" in refused(*opens(), BoardError)


# --- ports ---


def two_free_ports() -> int:
    """The first of two; the system gives these to nobody who does not ask for them."""
    while True:
        first = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server(("", first)), socket.create_server(("", first + 1)):
            return first


def test_two_boards_share_a_range_and_the_third_finds_it_taken(opens: Opens) -> None:
    first = two_free_ports()
    network = f"ssid: lab, password_file: wifi.txt, port: {first}-{first + 1}"
    one, _ = opens(network)
    assert one.server.address[1] == first
    two, _ = opens(network, kind="wifi")
    assert two.server.address[1] == first + 1
    three, _ = opens(network)
    with pytest.raises(LabError, match=f"ports {first} to {first + 1}: all of them are taken") as caught:
        three.take(b"new version")
    assert caught.value.board == "desk"


# --- first boot ---


def running(net: str) -> Running:
    return Running("1.0.0", "ota_0", 0, "valid", True, "ota_1", MAC, "off", False, {"net": net})


@pytest.mark.parametrize(("net", "proven"), [("wifi", ["net", "wifi", "probe"]), ("none", [])])
def test_after_the_first_boot_of_a_physical_board_the_way_is_proven(
    opens: Opens, monkeypatch: pytest.MonkeyPatch, net: str, proven: list[str]
) -> None:
    board, there = opens()
    monkeypatch.setattr(board, "settle", lambda: running(net))
    planned = cast(
        Planned, SimpleNamespace(plan=SimpleNamespace(lock=Lock.NONE, burns=(), key_state=None, by_itself=()))
    )
    settle_after(board, planned, Demand(Profile.OPEN), say=Say(quiet=True))
    assert there.commands == proven


def test_a_first_boot_without_a_way_to_updates_ends_preparation(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, _ = opens(fetches=no_connection)
    monkeypatch.setattr(board, "settle", lambda: running("wifi"))
    planned = cast(
        Planned, SimpleNamespace(plan=SimpleNamespace(lock=Lock.NONE, burns=(), key_state=None, by_itself=()))
    )
    with pytest.raises(LabError, match="does not reach its updates"):
        settle_after(board, planned, Demand(Profile.OPEN), say=Say(quiet=True))


# --- the password ---


def everything_on_disk(folder: Path) -> bytes:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "wifi.txt"]
    return b"".join(file.read_bytes() for file in files)


def test_the_password_reaches_no_file_even_when_the_device_echoes_it(opens: Opens, tmp_path: Path) -> None:
    board, _ = opens(echoes=True)
    assert board.take(b"new version").ok
    board.close()
    written = everything_on_disk(tmp_path)
    assert b"ssid=lab password=<redacted>" in written
    assert b"ssid=lab password=****" in board.console.raw_path.read_bytes()
    for form in (PASSWORD, "correct%20horse%2C%26battery", "battery"):
        assert form.encode() not in written


@pytest.mark.parametrize("showlocals", [False, True])
def test_a_traceback_in_the_middle_of_joining_does_not_show_the_password(
    opens: Opens, monkeypatch: pytest.MonkeyPatch, showlocals: bool
) -> None:
    # Three times so long is waited for the answers before, too.
    monkeypatch.setattr(device_module, "ACK_TIMEOUT_S", 1.0)
    board, there = opens()

    def deaf(*_: object) -> None:
        """No acknowledgement."""

    original = there._carry_out
    monkeypatch.setattr(
        there, "_carry_out", lambda line: (deaf if line.startswith("wifi") else original)(line)
    )
    with pytest.raises(BoardError, match="does not acknowledge 'wifi'") as caught:
        board.take(b"new version")
    # As pytest shows a failure: the arguments of every frame, with --showlocals every variable.
    shown = str(ExceptionInfo.getrepr(caught, style="long", funcargs=True, showlocals=showlocals))
    assert "_acknowledged" in shown
    for form in (PASSWORD, "correct%20horse", "battery"):
        assert form not in board.console.redacted(shown)
        assert form not in shown


def test_a_real_get_goes_the_way_of_the_scripted_one(opens: Opens) -> None:
    board, _ = opens("port: 0", kind="openeth")
    board.server.publish(MAC, "a", b"0123456789")
    assert fetch(board.url_for("a")) == (200, 10)
