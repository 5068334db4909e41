"""Finding a board's port by what stays the same when cables are moved, or by what its chip says."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import LabError
from harness.links import find_port
from harness.links.find_port import (
    SerialPort,
    port_by_mac,
    port_by_usb_location,
    port_by_usb_serial,
    port_holder,
    serial_ports,
)

BRIDGE = SerialPort("/dev/ttyUSB0", "0001", "1-1.4:1.0", 0x10C4)
DUAL_A = SerialPort("/dev/ttyUSB1", "FT12", "1-1.3:1.0", 0x0403)
DUAL_B = SerialPort("/dev/ttyUSB2", "FT12", "1-1.3:1.1", 0x0403)
NATIVE = SerialPort("/dev/ttyACM0", "7C:DF:A1:00:00:09", "1-2:1.0", 0x303A)
BUILT_IN = SerialPort("/dev/ttyS0")
PORTS = (NATIVE, BUILT_IN, BRIDGE, DUAL_A, DUAL_B)

MAC = "24:0a:c4:00:00:01"


def _nobody(_device: str) -> None:
    return None


# --- without opening anything ---


@pytest.mark.parametrize(
    ("number", "device"), [("0001", "/dev/ttyUSB0"), ("7c:df:a1:00:00:09", "/dev/ttyACM0")]
)
def test_a_usb_serial_number_names_its_port_in_any_spelling(number: str, device: str) -> None:
    assert port_by_usb_serial(number, PORTS).device == device


@pytest.mark.parametrize(
    ("location", "device"),
    [("1-1.4", "/dev/ttyUSB0"), ("1-1.3:1.1", "/dev/ttyUSB2"), ("1-2", "/dev/ttyACM0")],
)
def test_a_usb_location_names_its_port_with_or_without_interface(location: str, device: str) -> None:
    assert port_by_usb_location(location, PORTS).device == device


def test_an_adapter_with_two_ports_must_be_told_apart() -> None:
    with pytest.raises(LabError, match=r"board b: 2 ports have .*ttyUSB1 .*1-1\.3:1\.0.*ttyUSB2") as caught:
        port_by_usb_serial("ft12", PORTS, board="b")
    assert "usb_location" in (caught.value.todo or "")
    with pytest.raises(LabError, match=r"2 ports have USB location 1-1\.3"):
        port_by_usb_location("1-1.3", PORTS)


def test_what_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(LabError, match=r"no port has USB location 9-9; there is .*/dev/ttyS0 \(not on USB\)"):
        port_by_usb_location("9-9", PORTS)
    with pytest.raises(LabError, match="no port has USB serial number x; there is no serial port"):
        port_by_usb_serial("x", ())


def test_the_ports_of_this_machine_can_be_listed() -> None:
    assert [port.device for port in serial_ports()] == sorted(port.device for port in serial_ports())


# --- by MAC ---


class Bench:
    """Chips at ports; remembers which were asked, and under which guard."""

    def __init__(self, macs: dict[str, str | None]) -> None:
        self.macs = macs
        self.asked: list[str] = []
        self.guarded: list[str] = []

    def probe(self, device: str) -> str | None:
        assert self.guarded[-1:] == [device]
        self.asked.append(device)
        return self.macs.get(device)

    @contextlib.contextmanager
    def guard(self, device: str) -> Iterator[None]:
        if device == "/dev/ttyUSB1":
            raise LabError("in use by ann (process 7, pytest)")
        self.guarded.append(device)
        yield
        self.guarded.append("released")


def test_a_chip_that_says_its_mac_over_usb_is_found_without_being_opened() -> None:
    def never(device: str) -> str | None:
        raise AssertionError(f"{device} was opened")

    assert port_by_mac("7C-DF-A1-00-00-09", PORTS, probe=never, holder=_nobody) is NATIVE


def test_only_free_usb_ports_are_asked_each_under_its_lock() -> None:
    bench = Bench({"/dev/ttyUSB0": "24:0A:C4:00:00:77", "/dev/ttyUSB2": MAC.upper()})
    found = port_by_mac(MAC, PORTS, probe=bench.probe, guard=bench.guard, holder=_nobody)
    assert found is DUAL_B
    assert bench.asked == ["/dev/ttyUSB0", "/dev/ttyUSB2"]
    assert bench.guarded == ["/dev/ttyUSB0", "released", "/dev/ttyUSB2", "released"]


def test_a_search_that_fails_says_of_each_port_why_it_was_not_the_one() -> None:
    bench = Bench({"/dev/ttyUSB2": None})
    with pytest.raises(LabError) as caught:
        port_by_mac(
            MAC,
            PORTS,
            probe=bench.probe,
            guard=bench.guard,
            claimed=["/dev/ttyUSB0"],
            holder=lambda device: "process 9 (picocom)" if device.endswith("S0") else None,
            board="b",
        )
    for words in (
        f"board b: no port has a chip with MAC {MAC}",
        "/dev/ttyACM0: its chip is 7c:df:a1:00:00:09",
        "/dev/ttyS0: not a USB port, not opened",
        "/dev/ttyUSB0: belongs to another board's entry, not opened",
        "/dev/ttyUSB1: in use by ann (process 7, pytest)",
        "/dev/ttyUSB2: no chip answers",
    ):
        assert words in str(caught.value)
    assert bench.asked == ["/dev/ttyUSB2"]


def test_a_held_port_is_not_opened() -> None:
    bench = Bench({})
    with pytest.raises(LabError, match=r"ttyUSB0: held by process 9 \(picocom\), not opened"):
        port_by_mac(
            MAC, [BRIDGE], probe=bench.probe, guard=bench.guard, holder=lambda _: "process 9 (picocom)"
        )
    assert bench.asked == []


# --- who holds a port ---


@pytest.fixture
def terminal() -> Iterator[str]:
    """A character device that can be opened like a serial port."""
    if not hasattr(os, "openpty"):
        pytest.skip("no pseudo-terminals on this platform")
    main, secondary = os.openpty()
    name = os.ttyname(secondary)
    os.close(secondary)
    yield name
    os.close(main)


@pytest.mark.skipif(sys.platform != "linux", reason="open files of other processes are read from /proc")
def test_a_program_that_has_a_port_open_is_named(terminal: str) -> None:
    assert port_holder(terminal) is None
    script = (
        "import os, sys, time; os.open(sys.argv[1], os.O_RDWR); print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, terminal], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert (port_holder(terminal) or "").startswith(f"process {holder.pid} (")
        holder.kill()
    assert port_holder(terminal) is None


@pytest.mark.parametrize(
    ("content", "held"),
    [(f"{os.getpid():>10}\n", True), ("4194305\n", False), ("", False), ("x", False)],
    ids=["alive", "gone", "empty", "garbage"],
)
def test_lock_files_of_other_programs_count_while_their_owner_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, held: bool
) -> None:
    monkeypatch.setattr(find_port, "_UUCP_LOCKS", (tmp_path,))
    (tmp_path / "LCK..ttyUSB9").write_text(content)
    assert (port_holder("/dev/ttyUSB9") is not None) is held
