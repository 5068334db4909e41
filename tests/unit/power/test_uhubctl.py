"""Switching a port of a USB hub with uhubctl, on a stand-in that prints what uhubctl prints."""

import sys
import threading
from pathlib import Path

import pytest

from harness.errors import LabError
from harness.power.hub_guard import HubGuard
from harness.power.uhubctl import INSTALL, PERMISSION, UhubctlPower, find_uhubctl, parse_status

DATA = Path(__file__).parents[2] / "data" / "links"

OUTPUT = """\
Current status for hub 2-1 [2109:0817 VIA Labs, Inc. USB3.0 Hub, USB 3.20, 4 ports, ppps]
  Port 1: 02a0 power 5gbps Rx.Detect
  Port 2: 0080 off
Current status for hub 1 [1d6b:0002 Linux 6.1 xhci-hcd, USB 2.00, 2 ports, ganged]
  Port 1: 0503 power highspeed enable connect [0403:6001 FTDI off power, 1]
  Port 2: 0000 off
Sent power off request
New status for hub 1 [1d6b:0002 Linux 6.1 xhci-hcd, USB 2.00, 2 ports, ganged]
  Port 1: 0000 off
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    program = tmp_path / "bin" / "uhubctl"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable} -IS\n" + (DATA / "fake_uhubctl.py").read_text())
    program.chmod(0o755)
    return program


@pytest.fixture
def guard(tmp_path: Path) -> HubGuard:
    return HubGuard(tmp_path, wait_s=0.3)


def _power(program: Path, guard: HubGuard, hub: str = "1-1", port: int = 2) -> UhubctlPower:
    return UhubctlPower(hub, port, guard, program=[str(program)], board="b")


def _calls(program: Path) -> list[str]:
    return (program.parent / "calls").read_text().splitlines()


def test_the_listing_is_understood_with_both_kinds_of_hub() -> None:
    fast, root, after = parse_status(OUTPUT)
    assert (fast.location, fast.powered, fast.switches_single_ports) == ("2-1", {1: True, 2: False}, True)
    assert (root.location, root.powered, root.switches_single_ports) == ("1", {1: True, 2: False}, False)
    assert (after.location, after.powered) == ("1", {1: False})


def test_a_port_is_cut_and_supplied_again(program: Path, guard: HubGuard) -> None:
    power = _power(program, guard)
    power.off()
    assert (program.parent / "off").read_text() == "2"
    power.on()
    assert (program.parent / "off").read_text() == ""
    assert _calls(program) == ["-l 1-1", "-l 1-1 -p 2 -a off", "-l 1-1 -p 2 -a on"]


@pytest.mark.parametrize(
    ("hub", "port", "words"),
    [
        ("3", 1, r"hub 3 \[.*ganged\] cannot switch single ports: cutting one would cut all"),
        ("9-9", 1, "uhubctl finds no hub at 9-9"),
        ("1-1", 7, "hub 1-1 has no port 7; it has 1, 2, 3, 4"),
    ],
)
def test_what_cannot_switch_one_port_alone_is_refused_before_anything_is_switched(
    program: Path, guard: HubGuard, hub: str, port: int, words: str
) -> None:
    with pytest.raises(LabError, match=f"board b: {words}"):
        _power(program, guard, hub, port).off()
    assert not any("-a" in call for call in _calls(program))


def test_a_port_that_does_not_switch_is_an_error(program: Path, guard: HubGuard) -> None:
    (program.parent / "stuck").touch()
    with pytest.raises(LabError, match="port 2 of hub 1-1, 2-1 did not go off") as caught:
        _power(program, guard).off()
    assert caught.value.todo == PERMISSION


def test_no_port_is_cut_while_another_board_of_the_hub_burns(program: Path, guard: HubGuard) -> None:
    power = _power(program, guard)
    with (
        guard.burning("1-1", "other"),
        pytest.raises(LabError, match="board b: no port of hub 1-1 may be cut: other burns eFuses on it"),
    ):
        power.off()
    assert not any("-a" in call for call in _calls(program))
    power.off()
    with guard.burning("1-1", "other"):
        power.on()


def test_a_cut_waits_for_a_burn_that_ends(program: Path, tmp_path: Path) -> None:
    guard = HubGuard(tmp_path, wait_s=120)
    burning, done = threading.Event(), threading.Event()

    def burn() -> None:
        with guard.burning("1-1", "other"):
            burning.set()
            done.wait(60)

    other = threading.Thread(target=burn)
    other.start()
    burning.wait(60)
    threading.Timer(0.3, done.set).start()
    _power(program, guard).off()
    assert done.is_set()
    other.join()


def test_without_uhubctl_the_error_says_how_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    monkeypatch.setenv("HARNESS_UHUBCTL", str(tmp_path / "none"))
    with pytest.raises(LabError, match="cannot be executed") as caught:
        find_uhubctl("b")
    assert caught.value.todo == INSTALL
    monkeypatch.setenv("HARNESS_UHUBCTL", str(program))
    assert find_uhubctl() == str(program)
    monkeypatch.delenv("HARNESS_UHUBCTL")
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_uhubctl() == str(program)
