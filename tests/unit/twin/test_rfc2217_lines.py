"""DTR and RTS reset the board as on Espressif's boards, through pyserial's own RFC 2217 client."""

from __future__ import annotations

import socket
import time

import pytest
import serial
from rom_requests import READ_MAGIC, SYNC
from twin_process import TwinProcess

from harness.twin.machine import Boot
from harness.twin.rfc2217 import ModemLines

# pyserial 3.5 starts its reader thread the old way.
pytestmark = pytest.mark.filterwarnings("ignore:set(Daemon|Name):DeprecationWarning")

# (DTR, RTS) one after the other; from esptool's reset sequences.
CLASSIC_DOWNLOAD = [(0, 1), (1, 1), (1, 0), (0, 0)]
TIGHT_DOWNLOAD = [(0, 0), (1, 1), (0, 1), (1, 0), (0, 0)]
HARD_RESET = [(0, 1), (0, 0)]


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        (CLASSIC_DOWNLOAD, ["hold", Boot.DOWNLOAD]),
        (TIGHT_DOWNLOAD, ["hold", Boot.DOWNLOAD]),
        (HARD_RESET, ["hold", Boot.RUN]),
        ([(1, 1), (0, 0)], ["hold", Boot.RUN]),
        ([(1, 1), (1, 0), (0, 0)], []),
        ([(1, 0), (0, 0)], []),
        (HARD_RESET * 2, ["hold", Boot.RUN] * 2),
    ],
)
def test_lines_reset_the_board(sequence, expected):
    seen: list[object] = []
    lines = ModemLines(lambda: seen.append("hold"), seen.append)
    for dtr, rts in sequence:
        lines.set_dtr(bool(dtr))
        lines.set_rts(bool(rts))
    assert seen == expected


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
    twin = TwinProcess("esp32c3", tmp_path_factory.mktemp("rfc2217") / "state", "--rfc2217", boot="run")
    yield twin
    twin.close()


def test_a_client_resets_into_download_mode_and_talks_to_the_rom(twin):
    port = serial.serial_for_url(twin.started["rfc2217"], baudrate=115200, timeout=60)
    try:
        port.dtr, port.rts = False, True
        assert twin.tell("status")["halted"] == "held in reset"
        port.dtr = True
        port.rts = False
        port.dtr = False
        assert port.read_until(b"waiting for download\r\n").endswith(b"waiting for download\r\n")
        port.write(SYNC + READ_MAGIC)
        assert b"\x0a\x04\x00\x6f\x50\x31\x1b" in port.read_until(b"\x1b\x00\x00\x00\x00\xc0")
        assert twin.tell("status")["state"] == "download"
        port.rts = True
        port.rts = False
        assert b"SPI_FAST_FLASH_BOOT" in port.read_until(b"SPI_FAST_FLASH_BOOT")
    finally:
        port.close()


def test_bytes_that_telnet_uses_itself_pass_unharmed(twin):
    port = serial.serial_for_url(twin.started["rfc2217"], baudrate=115200, timeout=60)
    try:
        twin.tell("reset", boot="download")
        # Unknown commands are refused; 0xFF in the data is telnet's escape.
        port.write(SYNC + b"\xc0\x00\xff\x04\x00\xff\xff\xff\xff\xff\xff\xff\xff\xc0")
        assert port.read_until(b"\x01\x05\x00\x00\xc0").endswith(b"\x01\x05\x00\x00\xc0")
    finally:
        port.close()


def test_the_board_has_one_client_whichever_the_port(twin):
    host, port = twin.started["rfc2217"].removeprefix("rfc2217://").split(":")
    deadline = time.monotonic() + 60
    while twin.tell("status")["client"]:
        assert time.monotonic() < deadline, "the client before is not let go"
        time.sleep(0.01)
    with twin.uart() as raw:
        assert twin.tell("status")["client"]
        with socket.create_connection((host, int(port)), timeout=60) as other:
            assert other.recv(1) == b""
        twin.tell("reset", boot="download")
        raw.settimeout(60)
        assert raw.recv(1)
