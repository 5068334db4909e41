"""What a lab does to a board from outside: reset, power, faults, cuts, and what the UART shows meanwhile."""

from __future__ import annotations

import json
import socket
import time

import pytest
from rom_requests import NOISE, PARAMETERS, SYNC, block, request, words
from twin_process import TwinProcess, read_until

from harness.twin.uart import Uart

READ = request(0x0A, words(0x60008850))


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    twin = TwinProcess("esp32c3", tmp_path_factory.mktemp("control") / "state", boot="off")
    yield twin
    twin.close()


@pytest.fixture
def line(twin):
    """The UART of a board that is on."""
    twin.tell("power", on=True)
    with twin.uart() as connection:
        yield connection
    twin.tell("fault", kind="clear")
    twin.tell("cut", kind="clear")


def test_a_board_without_power_says_so(twin):
    twin.tell("power", on=False)
    status = twin.tell("status")
    assert (status["ok"], status["version"], status["state"]) == (True, 1, "off")
    assert twin.tell("reset") == {"ok": False, "error": "the board has no power"}


def test_power_brings_the_rom_up_and_takes_it_down(twin, line):
    boots = twin.tell("status")["boots"]
    twin.tell("power", on=False)
    assert twin.tell("status")["state"] == "off"
    twin.tell("power", on=True)
    assert b"rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\r\n" in read_until(
        line, b"SPI_FAST_FLASH_BOOT)\r\n"
    )
    assert twin.tell("status")["boots"] >= boots + 1


@pytest.mark.parametrize("power", [False, True])
def test_a_reset_is_answered_when_the_rom_has_begun_to_print(twin, line, power):
    line.settimeout(60)
    assert twin.tell("reset", boot="download", power=power) == {"ok": True}
    # Left over from before the reset, then the banner of the new boot.
    read_until(line, b"boot:0x7 (DOWNLOAD(USB/UART0/1))\r\nwaiting for download\r\n", 1 << 20)
    status = twin.tell("status")
    assert (status["state"], status["boot"]) == ("download", "download")


def test_the_straps_stay_for_a_software_reset_and_for_power(twin, line):
    twin.tell("reset", boot="download")
    line.sendall(SYNC)
    read_until(line, b"\xc0\xc0")
    line.sendall(PARAMETERS)
    line.sendall(request(0x02, words(0, 0, 0x400, 0, 0)) + request(0x04, words(0)))
    read_until(line, b"rst:0x3 (RTC_SW_SYS_RST),boot:0x7 (DOWNLOAD(USB/UART0/1))\r\n")
    twin.tell("power", on=False)
    twin.tell("power", on=True)
    read_until(line, b"rst:0x1 (POWERON),boot:0x7 (DOWNLOAD(USB/UART0/1))\r\n")


def test_many_resets_in_a_row_each_boot_once(twin, line):
    before = twin.tell("status")["boots"]
    for number in range(20):
        assert twin.tell("reset", boot="download" if number % 2 else "run")["ok"]
    assert twin.tell("status")["boots"] == before + 20


def test_a_second_client_is_closed_at_once_and_the_first_stays(twin, line):
    with twin.uart() as second:
        assert second.recv(1) == b""
    twin.tell("reset", boot="download")
    read_until(line, b"waiting for download\r\n", 1 << 20)


def test_what_is_sent_without_a_client_is_lost(twin):
    twin.tell("power", on=True)
    wait_without_client(twin)
    before = twin.tell("account")
    twin.tell("reset", boot="download")
    after = twin.tell("account")
    assert after["tx_lost_bytes"] > before["tx_lost_bytes"]
    with twin.uart() as connection:
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_client_that_just_connected_misses_nothing_of_a_reset(twin):
    twin.tell("reset", boot="download", power=True)
    wait_without_client(twin)
    for _ in range(20):
        with twin.uart() as connection:
            twin.tell("reset", boot="download")
            connection.settimeout(60)
            assert connection.recv(8) == b"ESP-ROM:"


def wait_without_client(twin):
    deadline = time.monotonic() + 60
    while twin.tell("status")["client"]:
        assert time.monotonic() < deadline, "the client before is not let go"
        time.sleep(0.01)


def wait_without_power(twin):
    deadline = time.monotonic() + 60
    while twin.tell("status")["state"] != "off":
        assert time.monotonic() < deadline, "the cut did not strike"
        time.sleep(0.01)


def test_time_on_the_wire_is_accounted_at_the_baud_rate(twin, line):
    twin.tell("reset", boot="download")
    line.sendall(SYNC)
    read_until(line, b"\x00\xc0" * 1)
    line.sendall(request(0x0F, words(921600, 0)))
    read_until(line, b"\xc0\xc0\xc0")
    line.sendall(READ)
    read_until(line, b"\x00\xc0")
    before = twin.tell("account")
    assert before["baud"] == 921600
    line.sendall(READ)
    read_until(line, b"\x00\xc0")
    after = twin.tell("account")
    count = after["rx_bytes"] - before["rx_bytes"] + after["tx_bytes"] - before["tx_bytes"]
    assert count >= 26
    assert after["wire_seconds"] - before["wire_seconds"] == pytest.approx(count * 10 / 921600, rel=0.01)
    twin.tell("reset", boot="download")
    assert twin.tell("account")["baud"] == 115200


def write_a_block(line):
    line.sendall(SYNC)
    read_until(line, b"\x08\x04\x00")
    line.sendall(PARAMETERS + request(0x02, words(0x400, 1, 0x400, 0x8000, 0)))
    line.sendall(block(0x03, NOISE[:0x400], 0))


def test_operations_are_told_with_number_place_who_and_boot(twin, line):
    twin.tell("reset", boot="download")
    boot = twin.tell("status")["boots"]
    start = twin.tell("flash-log", since=0)["next"]
    write_a_block(line)
    read_until(line, b"\x03\x04\x00")
    log = twin.tell("flash-log", since=start)
    assert log["ops"] == [
        [start, "erase", 0x8000, 0x1000, "rom", boot],
        [start + 1, "write", 0x8000, 0x400, "rom", boot],
    ]
    assert log["next"] == start + 2
    assert twin.tell("flash-log", since=log["next"])["ops"] == []


def test_a_fault_makes_one_operation_fail(twin, line):
    twin.tell("reset", boot="download")
    assert twin.tell("fault", kind="erase", error=0x6001)["ok"]
    write_a_block(line)
    # FLASH_BEGIN: status 1, error 6.
    assert b"\x02\x04\x00" in (answer := read_until(line, b"\x01\x06\x00\x00\xc0"))
    assert answer


@pytest.mark.parametrize(("where", "kept"), [("before", 0), ("inside", 0x123), ("after", 0x400)])
def test_a_cut_takes_the_power_at_an_operation(twin, line, where, kept):
    twin.tell("reset", boot="download", power=True)
    start = twin.tell("flash-log", since=0)["next"]
    assert twin.tell("cut", at_op=start + 1, where=where, byte=0x123)["ok"]
    write_a_block(line)
    wait_without_power(twin)
    assert twin.flash(0x8000, 0x400) == NOISE[:kept].ljust(0x400, b"\xff")
    assert twin.tell("reset")["error"] == "the board has no power"
    assert twin.tell("reset", boot="download", power=True)["ok"]
    assert twin.tell("status")["state"] == "download"


def test_a_supply_that_stays_away_no_reset_brings_back(twin, line):
    twin.tell("reset", boot="download", power=True)
    start = twin.tell("flash-log", since=0)["next"]
    assert twin.tell("cut", at_op=start, where="after", stays=True)["ok"]
    write_a_block(line)
    wait_without_power(twin)
    assert twin.tell("reset", boot="download", power=True)["error"] == "the board has no power"
    assert twin.tell("power", on=True)["ok"]
    assert twin.tell("reset", boot="download", power=True)["ok"]


@pytest.mark.parametrize(
    ("line_sent", "said"),
    [
        (b"no json\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (b"[" * 60_000 + b"\n", "not JSON"),
        (b"[1]\n", "a request is a JSON object"),
        (b"{}\n", "unknown op"),
        (b'{"op": ["reset"]}\n', "unknown op"),
        (b'{"op": "reset", "boot": "sideways"}\n', "boot is 'run' or 'download'"),
        (b'{"op": "reset", "power": "yes"}\n', "power is true or false"),
        (b'{"op": "power"}\n', "on is true or false"),
        (b'{"op": "fault", "kind": "fire"}\n', 'fault kind "fire" is unknown'),
        (b'{"op": "fault", "kind": []}\n', "fault kind [] is unknown"),
        (b'{"op": "fault", "kind": {}}\n', "fault kind {} is unknown"),
        (b'{"op": "fault", "kind": "erase"}\n', "error is a number"),
        (
            b'{"op": "fault", "kind": "erase", "error": 4294967296}\n',
            "error is a number from 0 to 2147483647",
        ),
        (b'{"op": "cut", "at_op": 1, "where": "aside"}\n', "where is before, inside or after"),
        (b'{"op": "cut", "at_op": true}\n', "at_op is a number"),
        (b'{"op": "flash-log", "since": -1}\n', "since is a number from 0"),
    ],
)
def test_wrong_requests_are_refused_with_the_reason(twin, line_sent, said):
    answer = twin.send(line_sent)
    assert answer["ok"] is False
    assert said in answer["error"]


def test_several_clients_are_served_and_an_endless_line_is_not(twin):
    host, port = twin.started["control"].split(":")
    with socket.create_connection((host, int(port)), timeout=60) as other:
        other.sendall(b'{"op": "status"}\n')
        assert json.loads(other.makefile("rb").readline())["ok"]
        other.sendall(b"x" * (1 << 16))
        assert b"at most" in other.recv(4096)
        assert other.recv(1) == b""
    assert twin.tell("status")["ok"]


class TestUart:
    def test_input_waits_for_the_board_and_a_reset_forgets_it(self):
        uart = Uart()
        uart.feed(b"abc")
        assert uart.recv(0) == b"abc"
        uart.feed(b"def")
        uart.clear()
        assert uart.recv(0) == b""

    def test_an_interrupt_ends_a_wait(self):
        uart = Uart()
        uart.interrupt()
        begun = time.monotonic()
        assert uart.recv(120) == b""
        assert time.monotonic() - begun < 60

    def test_one_client_at_a_time(self):
        uart, first, second = Uart(), [], []
        assert uart.attach(first.append)
        assert not uart.attach(second.append)
        uart.detach(second.append)
        uart.send(b"a")
        uart.detach(first.append)
        uart.send(b"b")
        assert (first, second, uart.account.tx_lost_bytes) == ([b"a"], [], 1)
