"""Boards on their chip's own USB: reset as esptool does it, and still there when the device node has moved."""

from __future__ import annotations

from pathlib import Path

import pytest
from esptool.reset import HardReset, USBJTAGSerialReset
from fake_usb import UsbBus

from harness.connection import link_at
from harness.errors import LabError
from harness.links.find_port import LastingPort, SerialPort
from harness.links.link import BootMode
from harness.links.serial_port import SerialLink
from harness.links.usb_serial_jtag import UsbSerialJtagLink

PLACE = LastingPort("/dev/ttyACM0", [SerialPort("/dev/ttyACM0", "7C:DF:A1:00:00:01", "1-1", 0x303A)])


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.links.usb_serial_jtag.STEP_S", 0.01)


def link_on(bus: UsbBus, **more: float) -> UsbSerialJtagLink:
    return UsbSerialJtagLink(PLACE, name="desk", board="usb", find=bus.find, opener=bus.open, **more)


class Lines:
    """A port on which esptool's own sequence is recorded."""

    def __init__(self) -> None:
        self.states: list[tuple[bool, bool]] = []
        self.dtr = self.rts = False

    def isOpen(self) -> bool:
        return True

    def setDTR(self, state: bool) -> None:
        self.dtr = state
        self.states.append((self.dtr, self.rts))

    def setRTS(self, state: bool) -> None:
        self.rts = state
        self.states.append((self.dtr, self.rts))


def changes(states: list[tuple[bool, bool]]) -> list[tuple[bool, bool]]:
    """What the chip sees: only changes; the pair is (DTR, RTS)."""
    seen = [(False, False)]
    for state in states:
        if state != seen[-1]:
            seen.append(state)
    return seen


def states_of(lines: list[str]) -> list[tuple[bool, bool]]:
    now = {"D": False, "R": False}
    states = []
    for line in lines:
        now[line[0]] = line[1] == "1"
        states.append((now["D"], now["R"]))
    return states


@pytest.mark.parametrize("mode", list(BootMode))
def test_a_reset_moves_the_lines_as_esptool_does(mode: BootMode, monkeypatch: pytest.MonkeyPatch):
    theirs, bus = Lines(), UsbBus()
    reset = USBJTAGSerialReset(theirs) if mode is BootMode.DOWNLOAD else HardReset(theirs, uses_usb=True)
    reset.reset()
    link_on(bus).reset(mode)
    assert changes(states_of(bus.lines)) == changes(theirs.states)


@pytest.mark.parametrize("mode", list(BootMode))
def test_a_reset_that_takes_the_device_off_the_bus_ends_when_it_is_back(mode: BootMode):
    bus = UsbBus(leaves_on_reset=0.5)
    told: list[tuple[str, str]] = []
    link = link_on(bus)
    link.tell_to(lambda *what: told.append(what))
    link.reset(mode)
    assert bus.name == "/dev/ttyACM1"
    assert bus.opened == ["/dev/ttyACM0", "/dev/ttyACM1"]
    link.port.write(b"sync")
    assert bus.written == b"sync"
    assert [kind for kind, _ in told] == ["reset", "gap"]
    assert told[0][1].startswith("opening /dev/ttyACM0")


def test_a_device_that_stays_away_is_one_error():
    bus = UsbBus()
    link = link_on(bus, return_timeout_s=0.3)
    _ = link.port
    bus.vanish()
    with pytest.raises(
        LabError, match=r"board usb: desk is gone after a reset: .* did not come back within 0.3 s"
    ):
        link.reset(BootMode.RUN)


def test_its_usb_serial_number_is_its_mac():
    assert link_on(UsbBus()).mac == "7c:df:a1:00:00:01"


def test_a_board_that_is_not_plugged_in_is_one_error():
    bus = UsbBus()
    bus.vanish()
    with pytest.raises(LabError, match="board usb: port desk does not exist"):
        _ = link_on(bus).port


@pytest.mark.parametrize(
    ("port", "kind"),
    [
        (SerialPort("/dev/ttyACM0", "7C:DF:A1:00:00:01", "1-1", 0x303A), UsbSerialJtagLink),
        (SerialPort("/dev/ttyACM0", "0001", "1-1", 0x10C4), SerialLink),
    ],
)
def test_a_port_that_no_entry_describes_gets_the_link_that_fits(
    port: SerialPort, kind: type, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("harness.links.usb_serial_jtag.serial_ports", lambda: (port,))
    assert isinstance(link_at("/dev/ttyACM0"), kind)


def test_the_log_of_a_board_names_what_opening_did(tmp_path: Path):
    from harness.console.reader import Console

    bus = UsbBus()
    link = link_on(bus)
    console = Console(link.port, log_path=tmp_path / "serial.log", name="usb")
    bus.say(
        b"ESP-ROM:esp32c3-api1-20210207\r\nrst:0x15 (USB_UART_CHIP_RESET),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
    )
    console.start(lambda: link.tell_to(lambda kind, text: console.note(text, kind=kind)))
    boot = console.wait_for_boot(lambda record: record.reset_code is not None, 60, since=0)
    console.close()
    assert boot.reset_reason == "USB_UART_CHIP_RESET"
    assert boot.caused_by == "reset: opening /dev/ttyACM0 (some adapters reset the chip then)"
