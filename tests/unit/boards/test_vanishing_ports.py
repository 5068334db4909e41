"""Ports that are taken, or go in the middle of something: one clear error, nothing left behind, the next run works."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wired_twin import Start, WiredLab, WiredTwin, entry_of

from harness.board import Board
from harness.chips import ESP32C3
from harness.errors import BoardError, LabError
from harness.home import Home
from harness.inventory.entry import QemuEntry, SerialEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab
from harness.links.device_port import open_device
from harness.links.link import BootMode
from harness.ota.faults import Fault
from harness.preparation import Consent, Demand, carry_out_plan, make_plan, prepare
from harness.provision.profile import Profile
from harness.provision.rom import RomSession
from harness.say import Say

OPEN = Demand(Profile.OPEN)
QUIET = Say(quiet=True)


class Terminal:
    """A pseudo-terminal: the device that a board's bridge is, and the board's end of it."""

    def __init__(self) -> None:
        self.board, device = os.openpty()
        self.path = os.ttyname(device)
        os.close(device)
        self._there = threading.Lock()

    def say(self, data: bytes) -> None:
        os.write(self.board, data)

    def vanish(self) -> None:
        """By whoever comes first: a timer in the test, or the end of it."""
        if self._there.acquire(blocking=False):
            os.close(self.board)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.vanish()


def lab_with(home: Home, folder: Path, entry: SerialEntry | QemuEntry) -> Lab:
    def no_secret(place: Path) -> None:
        raise AssertionError(f"the vault {place} was opened")

    return Lab(home, Inventory(None, {"desk": entry}), folder / "out", no_secret)  # type: ignore[arg-type]


def serial_entry(port: str) -> SerialEntry:
    return SerialEntry(chip="esp32c3", link="serial", port=port)


# --- taken ---


@pytest.mark.skipif(sys.platform != "linux", reason="who holds a port is read from /proc")
@pytest.mark.parametrize("locks", [True, False], ids=["with a lock", "without"])
def test_a_port_that_another_program_has_is_refused_with_its_name(
    terminal: Terminal, home: Home, tmp_path: Path, locks: bool
):
    script = "import fcntl, os, sys, time; port = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)\n"
    script += "fcntl.flock(port, fcntl.LOCK_EX)\n" if locks else ""
    script += "print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script, terminal.path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        said = rf"desk: port {terminal.path} is held by process {holder.pid} \(python"
        with (
            lab_with(home, tmp_path, serial_entry(terminal.path)) as lab,
            pytest.raises(LabError, match=said),
        ):
            lab.open("desk")
        holder.kill()
    with lab_with(home, tmp_path, serial_entry(terminal.path)) as lab:
        lab.open("desk")


def test_a_port_that_we_have_is_not_opened_by_programs_that_ask_for_no_lock(terminal: Terminal):
    if os.geteuid() == 0:
        pytest.skip("nothing is kept from root")
    port = open_device(terminal.path, 115_200)
    with pytest.raises(OSError, match="busy"):
        os.open(terminal.path, os.O_RDWR | os.O_NOCTTY)
    port.close()


@pytest.mark.parametrize("port", ["/dev/serial/by-id/usb-nothing", "/dev/null-and-void"])
def test_a_port_that_is_not_there_is_one_sentence(home: Home, tmp_path: Path, port: str):
    with (
        lab_with(home, tmp_path, serial_entry(port)) as lab,
        pytest.raises(LabError, match=rf"desk: port {port} does not exist\n.*plug the board in"),
    ):
        lab.open("desk")


# --- gone in the middle ---


@pytest.mark.parametrize(
    "wait",
    [
        lambda board: board.watch_boot(timeout_s=120),
        lambda board: board.status(),
        lambda board: board.console.wait_for("never", 120),
        lambda board: board.dut.expect_exact("never", timeout=120),
    ],
    ids=["a boot", "an answer", "a line", "a line of dut"],
)
def test_who_waits_is_told_at_once_that_the_port_has_gone(
    terminal: Terminal,
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wait: Callable[[Board], None],
):
    # A pseudo-terminal has no modem lines.
    monkeypatch.setattr("harness.links.serial_port.SerialLink.reset", lambda _link, _mode: None)
    with lab_with(home, tmp_path, serial_entry(terminal.path)) as lab:
        board = lab.open("desk")
        terminal.say(b"ESP-ROM:esp32c3-api1-20210207\r\n")
        board.console.wait_for("ESP-ROM", 60, since=0)
        threading.Timer(0.3, terminal.vanish).start()
        with pytest.raises(Exception, match="port has gone") as told:
            wait(board)
        assert isinstance(told.value, LabError) or type(told.value).__name__ == "EOF"
        log = board.log_path
    assert "vanished: the port has gone" in log.read_text()


def test_a_terminal_that_goes_while_the_rom_is_spoken_to_is_a_lab_error(terminal: Terminal):
    port = open_device(terminal.path, 115_200)
    threading.Timer(0.3, terminal.vanish).start()
    with (
        pytest.raises(LabError, match="desk: connecting to the ROM: the port failed"),
        RomSession(port, ESP32C3, board="desk"),
    ):
        pytest.fail("it connected")
    port.close()


def killed_in(twin: WiredTwin, board: Board) -> None:
    """Ends the twin as soon as flash is being written."""
    board.on_rom_output = lambda text: twin.kill() if "Flash will be erased" in text else None


def test_a_run_goes_on_after_its_port_went_while_it_was_flashing(start: Start, wired: WiredLab):
    twin = start()
    wired.vault()
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    planned = make_plan(board, OPEN, wired.home, say=QUIET)
    killed_in(twin, board)
    with pytest.raises(LabError, match=r"board desk: writing flash: the port failed.*\n.*check the cable"):
        carry_out_plan(board, planned, Consent(entry), wired.home, say=QUIET)
    with pytest.raises(LabError, match=r"port has gone|nothing can be sent to it"):
        board.status()
    wired.close()
    again = start()
    entry = entry_of(again, mac=twin.mac)
    prepared = prepare(wired.open(entry), OPEN, Consent(entry), wired.home, say=QUIET)
    assert prepared.running.slot == "ota_0"


def test_a_run_goes_on_after_its_port_went_during_an_update(start: Start, wired: WiredLab):
    twin = start()
    wired.vault()
    entry = entry_of(twin, mac=twin.mac)
    board = wired.open(entry)
    prepare(board, OPEN, Consent(entry), wired.home, say=QUIET)
    board.server.faults.add(Fault("slow", bytes_per_s=4_000))
    threading.Timer(1.5, twin.kill).start()
    with pytest.raises(LabError, match=r"board desk: the port has gone"):
        board.update(board.release("1.1.0"))
    wired.close()
    again = start()
    entry = entry_of(again, mac=twin.mac)
    board = wired.open(entry)
    assert prepare(board, OPEN, Consent(entry), wired.home, say=QUIET).running.version == "1.0.0"
    assert board.update(board.release("1.1.0")).ok


# --- emulators ---


@pytest.fixture
def emulated(tmp_path: Path) -> QemuEntry:
    program = tmp_path / "bin" / "qemu-system-riscv32"
    program.parent.mkdir()
    source = Path(__file__).parents[2] / "data" / "links" / "fake_qemu.py"
    program.write_text(f"#!{sys.executable} -IS\n" + source.read_text())
    program.chmod(0o755)
    return QemuEntry(chip="esp32c3", link="qemu", qemu=str(program), state=str(tmp_path / "state"))


@pytest.mark.parametrize(
    "wait",
    [
        lambda board: board.restart(timeout_s=120),
        lambda board: board.status(),
        lambda board: board.read_state(),
    ],
    ids=["a boot", "an answer", "the ROM"],
)
def test_an_emulator_that_is_killed_is_one_error_and_the_next_run_works(
    emulated: QemuEntry, home: Home, tmp_path: Path, wait: Callable[[Board], None]
):
    with lab_with(home, tmp_path, emulated) as lab:
        board = lab.open("desk")
        board.reset(BootMode.RUN)
        board.console.wait_for("boot 1", 60, since=0)

        def kill() -> None:
            subprocess.run(["kill", "-KILL", str(board.link.pid)], check=True)  # type: ignore[attr-defined]

        threading.Timer(0.5, kill).start()
        with pytest.raises((LabError, BoardError)) as told:
            wait(board)
        assert "SIGKILL" in str(told.value)
        assert "Traceback" not in str(told.value)
    with lab_with(home, tmp_path, emulated) as lab:
        board = lab.open("desk")
        board.reset(BootMode.RUN)
        board.console.wait_for("boot 1", 60, since=0)


def test_whoever_lost_an_emulator_is_not_sent_to_look_at_a_cable(
    emulated: QemuEntry, home: Home, tmp_path: Path
) -> None:
    def lose_it() -> None:
        with lab_with(home, tmp_path, emulated) as lab:
            board = lab.open("desk")
            board.reset(BootMode.RUN)
            board.console.wait_for("boot 1", 60, since=0)
            subprocess.run(["kill", "-KILL", str(board.link.pid)], check=True)  # type: ignore[attr-defined]
            board.console.wait_for("never said", 120, since=0)

    with pytest.raises(LabError) as told:
        lose_it()
    assert "run it again, the next run goes on from here" in str(told.value)
    assert "cable" not in str(told.value)
