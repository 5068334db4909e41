"""The real esptool over wires that are slow, poor or cut; only what differs goes over them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import esptool
import pytest
from twin_bench import TwinBench

from harness.chips import ESP32, ESP32C3, Chip
from harness.errors import BoardError
from harness.links.counting import CountingPort
from harness.provision import rom
from harness.provision.rom import ROM_BAUD, RomSession

SECTOR = 4096
IMAGE = random.Random(7).randbytes(70 * SECTOR)
PLACE = 0x20000


class PoorWire:
    """A port that carries nothing above `limit` bits/s, as a long cable does."""

    def __init__(self, port: Any, limit: int) -> None:
        object.__setattr__(self, "_port", port)
        object.__setattr__(self, "limit", limit)
        object.__setattr__(self, "baudrate", ROM_BAUD)
        object.__setattr__(self, "tried", [])

    def read(self, size: int = 1) -> bytes:
        data: bytes = self._port.read(size)
        return data if self.baudrate <= self.limit else b""

    def write(self, data: bytes) -> int:
        return self._port.write(data) if self.baudrate <= self.limit else len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_port"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if name == "baudrate":
            self.tried.append(value)
        elif name not in ("limit", "_port", "is_silent"):
            setattr(self._port, name, value)


class TiredWire(PoorWire):
    """One that falls silent above `limit` bits/s, but only after so many bytes of a transfer."""

    def __init__(self, port: Any, limit: int, left: int) -> None:
        super().__init__(port, limit)
        object.__setattr__(self, "left", left)
        object.__setattr__(self, "is_silent", lambda: False)

    def read(self, size: int = 1) -> bytes:
        data: bytes = self._port.read(size)
        if self.is_silent():
            return b""
        return data if self.baudrate <= self.limit or self.left > 0 else b""

    def write(self, data: bytes) -> int:
        if self.baudrate > self.limit:
            object.__setattr__(self, "left", self.left - len(data))
            if self.left <= 0:
                return len(data)
        return int(self._port.write(data))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Chip], TwinBench]]:
    started: list[TwinBench] = []

    def begin(chip: Chip) -> TwinBench:
        started.append(TwinBench(chip, tmp_path / f"twin{len(started)}"))
        return started[-1]

    yield begin
    for twin in started:
        twin.close()


def session_on(twin: TwinBench, port: Any, **more: Any) -> RomSession:
    def reset() -> None:
        twin.control("reset", boot="download", power=True)
        twin.port.reset_input_buffer()

    reset()
    port.timeout = 3.0
    return RomSession(port, twin.chip, board="bench", log=twin.log.append, reset=reset, **more)


def sent(twin: TwinBench, data: bytes, *, encrypted: bool = False) -> int:
    """Bytes on the UART of a session that writes `data`."""
    port = CountingPort(twin.port)
    with session_on(twin, port) as session:
        session.flash_md5(PLACE, SECTOR)
        before = port.bytes_written
        session.write_flash([(PLACE, data)], force=True, skip_identical=True)
        return int(port.bytes_written) - before


@pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
def test_only_changed_sectors_go_over_the_wire(start, chip):
    twin = start(chip)
    whole = sent(twin, IMAGE)
    assert whole > len(IMAGE)
    assert sent(twin, IMAGE) < 200
    later = bytearray(IMAGE)
    for sector in (3, 4, 69):
        later[sector * SECTOR + 5] ^= 0x40
    partly = sent(twin, bytes(later))
    assert 3 * SECTOR < partly < 5 * SECTOR
    assert any("3 of 70 sectors at 0x20000 differ" in line for line in twin.log)
    with session_on(twin, twin.port) as session:
        assert session.read_flash(PLACE, len(later)) == later


def test_blank_stretches_are_not_sent_and_are_blank_afterwards(start):
    twin = start(ESP32C3)
    gap = IMAGE[: 2 * SECTOR] + b"\xff" * (66 * SECTOR) + IMAGE[-2 * SECTOR :]
    assert sent(twin, gap) < 5 * SECTOR
    sent(twin, IMAGE)
    # What lies there must go, and a long run of 0xFF compresses to nearly nothing.
    assert sent(twin, gap) < 3 * SECTOR
    with session_on(twin, twin.port) as session:
        assert session.read_flash(PLACE, len(gap)) == gap


def test_the_baud_rate_is_lowered_until_the_wire_carries_it(start):
    twin = start(ESP32C3)
    wire = PoorWire(twin.port, 230_400)
    with session_on(twin, wire, baud=921_600) as session:
        session.write_flash([(PLACE, IMAGE)], force=True)
        assert session.baud == 230_400
        assert session.read_flash(PLACE, len(IMAGE)) == IMAGE
    said = [line for line in twin.log if "does not work" in line]
    assert [line[:7] for line in said] == ["921600 ", "460800 "]
    assert wire.baudrate == ROM_BAUD


def test_a_wire_that_fails_between_two_blocks_is_tried_at_a_lower_rate(start):
    twin = start(ESP32C3)
    wire = TiredWire(twin.port, 460_800, left=3 * 16 * 1024)
    with session_on(twin, wire, baud=921_600) as session:
        session.write_flash([(PLACE, IMAGE)], force=True)
        assert session.baud == 460_800
        assert session.read_flash(PLACE, len(IMAGE)) == IMAGE
    assert wire.left <= 0


def test_a_chip_that_does_not_answer_at_once_after_a_fault_is_reset_again(start, monkeypatch):
    # Of three tries the first suffices here to see that nothing comes: a second less.
    monkeypatch.setattr(rom, "_CONNECT_ATTEMPTS", 1)
    twin, few = start(ESP32C3), IMAGE[: 10 * SECTOR]
    wire = TiredWire(twin.port, ROM_BAUD, left=16 * 1024)

    def says_nothing_yet() -> bool:
        return wire.left <= 0 and not any("resetting, once more" in line for line in twin.log)

    monkeypatch.setattr(wire, "is_silent", says_nothing_yet)
    with session_on(twin, wire, baud=230_400) as session:
        session.write_flash([(PLACE, few)], force=True)
        assert session.read_flash(PLACE, len(few)) == few
    assert sum("no answer after the reset" in line for line in twin.log) == 1


def test_a_wire_that_carries_nothing_is_given_up_and_says_so(start, monkeypatch):
    twin = start(ESP32C3)
    wire = PoorWire(twin.port, ROM_BAUD)
    twin.log.clear()
    with session_on(twin, wire, baud=230_400) as session:
        session.write_flash([(PLACE, IMAGE[:SECTOR])], force=True)
        assert session.baud == ROM_BAUD
    wire = PoorWire(twin.port, 0)
    with pytest.raises(BoardError, match="connecting to the ROM"), session_on(twin, wire, baud=230_400):
        pytest.fail("it connected")


@pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)
def test_a_stub_that_loses_its_sync_is_loaded_once_more(start, chip, monkeypatch):
    twin, tries = start(chip), []
    run_stub = esptool.run_stub

    def flaky(esp: Any) -> Any:
        tries.append(esp)
        if len(tries) == 1:
            raise esptool.FatalError("Failed to start stub flasher. There was no response.")
        return run_stub(esp)

    monkeypatch.setattr(esptool, "run_stub", flaky)
    with session_on(twin, twin.port) as session:
        session.write_flash([(PLACE, IMAGE[:SECTOR])], force=True)
        assert session.stub_running
    assert len(tries) == 2
    assert [line for line in twin.log if "once more" in line] == [
        "the flasher stub did not start (Failed to start stub flasher. There was no response.); resetting, once more"
    ]


def test_a_stub_that_never_starts_is_one_error(start, monkeypatch):
    twin = start(ESP32C3)

    def dead(_esp: Any) -> Any:
        raise esptool.FatalError("Failed to start stub flasher. There was no response.")

    monkeypatch.setattr(esptool, "run_stub", dead)
    with session_on(twin, twin.port) as session, pytest.raises(BoardError, match="Failed to start stub"):
        session.write_flash([(PLACE, IMAGE[:SECTOR])], force=True)


def test_a_transfer_that_is_damaged_is_made_again_at_a_lower_rate(start, monkeypatch):
    twin, rates = start(ESP32C3), []
    write_flash = esptool.write_flash

    def damaged_above_115200(esp: Any, *arguments: Any, **more: Any) -> None:
        rates.append(esp._port.baudrate)
        if esp._port.baudrate > ROM_BAUD:
            raise esptool.FatalError("Invalid head of packet (0x46): Possible serial noise or corruption.")
        write_flash(esp, *arguments, **more)

    monkeypatch.setattr(esptool, "write_flash", damaged_above_115200)
    with session_on(twin, twin.port, baud=460_800) as session:
        session.write_flash([(PLACE, IMAGE[:SECTOR])], force=True)
        assert session.read_flash(PLACE, SECTOR) == IMAGE[:SECTOR]
    assert rates == [460_800, 230_400, 115_200]


def test_a_refusal_of_the_tool_is_not_tried_again(start, monkeypatch):
    twin, tries = start(ESP32C3), []

    def refuses(*arguments: Any, **more: Any) -> None:
        tries.append(arguments)
        raise esptool.FatalError("Flashing plaintext binary may brick your device!")

    monkeypatch.setattr(esptool, "write_flash", refuses)
    with session_on(twin, twin.port, baud=460_800) as session, pytest.raises(BoardError, match="may brick"):
        session.write_flash([(PLACE, IMAGE[:SECTOR])])
    assert len(tries) == 1
