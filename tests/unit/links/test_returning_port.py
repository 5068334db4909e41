"""One port object over all the device nodes that a board on its own USB has."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import serial
from fake_usb import UsbBus

from harness.console.reader import Console
from harness.errors import LabError
from harness.links.find_port import LastingPort, SerialPort
from harness.links.returning_port import Absence, ReturningPort


def opened(bus: UsbBus, **more: object) -> ReturningPort:
    port = ReturningPort(bus.find, opener=bus.open, **more)
    port.open()
    return port


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.005)


def test_a_reader_goes_on_under_the_new_name():
    bus, told = UsbBus(), []
    port = opened(bus, on_return=told.append)
    bus.say(b"before")
    assert port.read(6) == b"before"
    bus.vanish()
    assert port.read(1) == b""
    assert port.is_away
    time.sleep(0.1)
    bus.come_back()
    port.await_return()
    bus.say(b"after")
    port.timeout = 60
    assert port.read(5) == b"after"
    assert bus.opened == ["/dev/ttyACM0", "/dev/ttyACM1"]
    assert (port.port, port.name) == ("/dev/ttyACM1", "/dev/ttyACM1")
    assert len(told) == 1
    assert 0.1 < told[0].lasted_s < 60


def test_nothing_is_read_while_it_is_away_and_time_outs_hold():
    bus = UsbBus()
    port = opened(bus)
    bus.vanish()
    for timeout_s in (0, 0.2):
        port.timeout = timeout_s
        began = time.monotonic()
        assert port.read(10) == b""
        assert time.monotonic() - began < 60
    assert port.in_waiting == 0


def test_a_device_that_does_not_come_back_is_an_error_for_good():
    bus = UsbBus()
    port = opened(bus, return_timeout_s=0.3)
    bus.vanish()
    port.timeout = 60
    with pytest.raises(serial.SerialException, match=r"ttyACM0 vanished .* did not come back within 0.3 s"):
        port.read(1)
    bus.come_back()
    with pytest.raises(serial.SerialException, match="did not come back"):
        port.read(1)
    with pytest.raises(serial.SerialException, match="did not come back"):
        port.write(b"x")


def test_a_device_that_another_program_took_is_named_as_such():
    bus = UsbBus()
    port = opened(bus, return_timeout_s=0.4)
    bus.forbidden = 1000
    bus.vanish()
    bus.come_back()
    port.timeout = 60
    why = r"as /dev/ttyACM1 it cannot be opened: .*Permission denied"
    with pytest.raises(serial.SerialException, match=why):
        port.read(1)


def test_a_node_that_may_not_be_opened_at_once_is_tried_again():
    bus = UsbBus()
    port = opened(bus)
    bus.forbidden = 2
    bus.vanish(0.05)
    _ = port.in_waiting
    port.await_return()
    assert bus.opened == ["/dev/ttyACM0", "/dev/ttyACM1"]


def test_a_write_waits_for_the_return_and_one_under_way_is_lost():
    bus = UsbBus()
    port = opened(bus)
    bus.vanish(0.3)
    assert port.write(b"lost") == 4
    assert port.write(b"waits") == 5
    assert bus.written == b"waits"


def test_a_supply_that_is_cut_may_stay_so_for_any_time():
    bus = UsbBus()
    port = opened(bus, return_timeout_s=0.2)
    port.park()
    bus.vanish()
    port.timeout = 0.5
    assert port.read(1) == b""
    port.unpark()
    bus.come_back()
    port.await_return()
    assert not port.is_away


def test_lines_and_baud_rate_are_as_wanted_after_the_return():
    bus = UsbBus()
    port = opened(bus)
    bus.vanish(0.2)
    _ = port.in_waiting
    port.baudrate = 460_800
    port.dtr = True
    port.await_return()
    assert bus.lines[-2:] == ["D1", "R0"]
    port.dtr = False
    assert bus.lines[-1] == "D0"


def test_a_closed_port_says_so():
    port = opened(UsbBus())
    port.close()
    port.close()
    for use in (port.read, port.reset_input_buffer, lambda: port.write(b"x"), lambda: port.in_waiting):
        with pytest.raises(serial.SerialException):
            use()


def test_the_console_goes_on_with_the_same_log_and_marks_the_gap(tmp_path: Path):
    bus = UsbBus()
    port = opened(bus)
    console = Console(port, log_path=tmp_path / "serial.log", name="usb")
    port.on_return = lambda absence: console.note(absence.text(), kind="gap")
    with console:
        mark = console.mark()
        bus.say(b"first line\r\nhalf of a li")
        console.wait_for("half of a li", 60, since=mark)
        bus.vanish()
        wait_until(lambda: port.is_away)
        bus.come_back()
        wait_until(lambda: any("back after" in line.text for line in console.marks))
        bus.say(b"later line\r\n")
        console.wait_for("later line", 60, since=mark)
    log = (tmp_path / "serial.log").read_text()
    texts = [line.split(" | ")[-1].split(" >>> ")[-1] for line in log.splitlines() if " ~ " not in line]
    gap = next(n for n, text in enumerate(texts) if text.startswith("gap: port vanished at "))
    assert re.search(r"back after \d+\.\d{3} s", texts[gap])
    assert texts[gap].endswith("as /dev/ttyACM1; lines may be lost")
    assert texts[gap - 1 : gap + 2 : 2] == ["half of a li", "later line"]


def test_who_waits_on_a_console_is_told_that_the_port_did_not_come_back(tmp_path: Path):
    bus = UsbBus()
    port = opened(bus, return_timeout_s=0.3)
    with Console(port, log_path=tmp_path / "serial.log", name="usb") as console:
        bus.vanish()
        with pytest.raises(LabError, match=r"board usb: the port has gone \(/dev/ttyACM0 vanished"):
            console.wait_for("anything", 60)


def test_an_absence_reads_as_a_sentence():
    text = Absence(0.125, 1.25, "/dev/ttyACM3").text()
    assert text.endswith("00.125, back after 1.250 s as /dev/ttyACM3; lines may be lost")


ACM = SerialPort("/dev/ttyACM0", "7C:DF:A1:00:00:01", "1-1.2:1.0", 0x303A)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([SerialPort("/dev/ttyACM4", ACM.usb_serial, "1-1.2:1.0", 0x303A)], "/dev/ttyACM4"),
        ([SerialPort("/dev/ttyACM4", ACM.usb_serial, "2-3:1.0", 0x303A)], "/dev/ttyACM4"),
        ([SerialPort("/dev/ttyACM0", "7C:DF:A1:00:00:02", "1-1.2:1.0", 0x303A)], None),
        ([], None),
    ],
)
def test_a_port_is_found_again_by_its_usb_serial_number(now: list[SerialPort], expected: str | None):
    place = LastingPort("/dev/ttyACM0", [ACM])
    assert place.mac == "7c:df:a1:00:00:01"
    assert place.device(lambda: now) == expected


def test_of_two_adapters_with_one_number_the_socket_decides():
    bridge = SerialPort("/dev/ttyUSB0", "0001", "1-1.2", 0x10C4)
    place = LastingPort("/dev/ttyUSB0", [bridge])
    assert place.mac is None
    now = [SerialPort("/dev/ttyUSB1", "0001", "1-1.3"), SerialPort("/dev/ttyUSB2", "0001", "1-1.2")]
    assert place.device(lambda: now) == "/dev/ttyUSB2"


def test_a_port_that_is_not_on_usb_is_known_by_its_path(tmp_path: Path):
    node = tmp_path / "tty"
    place = LastingPort(str(node), [])
    assert place.device(list) is None
    node.touch()
    assert place.device(list) == str(node)
