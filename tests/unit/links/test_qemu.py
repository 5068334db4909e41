"""QEMU boards. The process is a stand-in, so that every machine can run this; `test_qemu_real.py` has the real one."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial
from emulator_bench import executable, is_gone, read_until

from harness.chips import CHIPS
from harness.errors import LabError, UsageError
from harness.links import emulator
from harness.links.emulator_state import EFUSE_FILES, EmulatorState, factory_efuses
from harness.links.link import BootMode
from harness.links.qemu import INSTALL, MACHINES, Qemu, QemuLink, command_line
from harness.twin.efuses import factory_content
from harness.twin.state import StateFolder

MAC = "7c:df:a1:00:00:05"


@pytest.fixture(autouse=True)
def _no_qemu_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_QEMU_RISCV32", raising=False)
    monkeypatch.delenv("HARNESS_QEMU_XTENSA", raising=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return executable(tmp_path / "bin", "fake_qemu.py", "qemu-system-riscv32")


@pytest.fixture
def link(program: Path, tmp_path: Path) -> Iterator[QemuLink]:
    link = QemuLink("esp32c3", tmp_path / "a,state", Qemu(program=str(program)), mac=MAC, board="q")
    yield link
    link.close()


# --- command lines ---


@pytest.mark.parametrize(
    ("chip", "mode", "qemu", "present", "absent"),
    [
        (
            "esp32",
            BootMode.RUN,
            Qemu(),
            ["-M esp32 -m 4M", "driver=nvram.esp32.efuse,property=drive"],
            "strap",
        ),
        ("esp32", BootMode.DOWNLOAD, Qemu(), ["driver=esp32.gpio,property=strap_mode,value=0x0f"], "esp32c3"),
        (
            "esp32c3",
            BootMode.RUN,
            Qemu(),
            ["-M esp32c3 -drive", "timer.esp32c3.timg,property=wdt_dis"],
            "strap",
        ),
        ("esp32c3", BootMode.DOWNLOAD, Qemu(), ["esp32c3.gpio,property=strap_mode,value=0x02"], "-m "),
        ("esp32s3", BootMode.DOWNLOAD, Qemu(), ["esp32s3.gpio,property=strap_mode,value=0x07"], "esp32c3"),
        ("esp32c3", BootMode.RUN, Qemu(watchdog=True), ["-nic user,model=open_eth"], "wdt_disable"),
        ("esp32c3", BootMode.RUN, Qemu(network=False), ["-nic none"], "open_eth"),
        ("esp32c3", BootMode.RUN, Qemu(arguments=("-d", "x")), ["-S -nic user,model=open_eth -d x"], "strap"),
    ],
)
def test_the_command_line_is_that_of_the_chip_and_the_boot_mode(
    chip: str, mode: BootMode, qemu: Qemu, present: list[str], absent: str
) -> None:
    line = " ".join(
        command_line(
            "qemu", chip, mode, flash=Path("/f"), efuses=Path("/e"), uart="tcp:u", qmp="unix:q", qemu=qemu
        )
    )
    always = ["file=/f,if=mtd,format=raw", "file=/e,if=none,format=raw,id=efuse", "-serial tcp:u -qmp unix:q"]
    for words in (*present, *always, "-nographic -monitor none -S"):
        assert words in line
    assert absent not in line


# --- state ---


@pytest.mark.parametrize("chip", sorted(MACHINES))
def test_new_efuses_are_those_that_the_twin_makes(chip: str) -> None:
    mac = bytes.fromhex("7cdfa1a2b3c4")
    assert factory_efuses(chip, mac) == factory_content(CHIPS[chip], mac)


def test_a_new_board_has_blank_flash_and_a_mac(link: QemuLink, tmp_path: Path) -> None:
    state = tmp_path / "a,state"
    assert (state / "flash.bin").read_bytes() == b"\xff" * (4 << 20)
    assert (state / "efuse.bin").stat().st_size == EFUSE_FILES["esp32c3"].size_bytes
    assert link.mac == MAC


def test_generated_macs_differ(tmp_path: Path) -> None:
    macs = set()
    for name in "ab":
        state = EmulatorState.open(tmp_path / name, "esp32c3")
        macs.add(state.mac)
        state.close()
    assert len(macs) == 2


def test_a_board_keeps_its_files_and_its_mac(link: QemuLink, program: Path, tmp_path: Path) -> None:
    link.close()
    (tmp_path / "a,state" / "flash.bin").write_bytes(b"\x55" * (2 << 20))
    again = QemuLink("esp32c3", tmp_path / "a,state", Qemu(program=str(program)), mac="7c:df:a1:00:00:06")
    assert again.mac == MAC
    again.close()
    assert (tmp_path / "a,state" / "flash.bin").read_bytes() == b"\x55" * (2 << 20)


@pytest.mark.parametrize(
    ("file", "size", "words"),
    [("efuse.bin", 124, "that of an esp32c3 has 1024"), ("flash.bin", 1000, "a flash chip has 2097152")],
)
def test_files_of_another_chip_are_refused_and_left_alone(
    tmp_path: Path, file: str, size: int, words: str
) -> None:
    (tmp_path / file).write_bytes(bytes(size))
    with pytest.raises(UsageError, match=words):
        EmulatorState.open(tmp_path, "esp32c3")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([file, "lock"])
    (tmp_path / file).unlink()
    EmulatorState.open(tmp_path, "esp32c3").close()


def test_twin_and_emulator_do_not_open_one_folder_at_a_time(link: QemuLink, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="in use"):
        StateFolder.open(tmp_path / "a,state", CHIPS["esp32c3"])
    with pytest.raises(LabError, match="in use by another twin or emulator"):
        EmulatorState.open(tmp_path / "a,state", "esp32c3")
    link.close()
    StateFolder.open(tmp_path / "a,state", CHIPS["esp32c3"]).close()


# --- the program ---


def test_without_qemu_the_error_says_how_its_maker_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match=r"board q: qemu-system-xtensa is not on PATH") as caught:
        QemuLink("esp32", tmp_path / "s", board="q")
    assert caught.value.todo == INSTALL
    assert not (tmp_path / "s").exists()


def test_the_program_is_taken_from_the_entry_then_the_environment_then_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: Path
) -> None:
    def found(given: str | None) -> str:
        return emulator.find_program(
            "qemu-system-riscv32", given=given, variable="HARNESS_QEMU_RISCV32", install="", board=None
        )

    other = executable(tmp_path / "other", "fake_qemu.py", "mine")
    third = executable(tmp_path / "third", "fake_qemu.py", "given")
    monkeypatch.setenv("PATH", str(program.parent))
    assert found(None) == str(program)
    monkeypatch.setenv("HARNESS_QEMU_RISCV32", str(other))
    assert found(None) == str(other)
    assert found(str(third)) == str(third)
    with pytest.raises(LabError, match=r"/none, named in the board's entry, cannot be executed"):
        found("/none")


def test_a_chip_that_qemu_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="QEMU has no esp32c6"):
        QemuLink("esp32c6", tmp_path)


@pytest.mark.parametrize(
    ("how", "words", "todo"),
    [
        ("machine", "ended with status 1: qemu-system-riscv32: unsupported machine type", "not Espressif's"),
        ("alien", "another program has connected to its UART", None),
    ],
)
def test_a_qemu_that_does_not_come_up_says_why(
    program: Path, tmp_path: Path, how: str, words: str, todo: str | None
) -> None:
    link = QemuLink("esp32c3", tmp_path / "s", Qemu(str(program), arguments=("--misbehave", how)), board="q")
    with pytest.raises(LabError, match=f"board q: qemu-system-riscv32 did not start: .*{words}") as caught:
        link.reset(BootMode.RUN)
    assert link.pid is None
    assert (todo or "") in (caught.value.todo or "")
    link.close()


# --- resets and power ---


def test_no_line_of_the_first_boot_is_lost(link: QemuLink) -> None:
    link.reset(BootMode.RUN)
    assert read_until(link.port, b"\n") == b"boot 1 strap default\n"


def test_a_reset_into_the_other_mode_is_a_new_process_on_the_same_port(link: QemuLink) -> None:
    port = link.port
    link.reset(BootMode.RUN)
    first = link.pid
    link.reset(BootMode.DOWNLOAD)
    assert link.pid != first
    assert link.port is port
    assert read_until(port, b"0x02\n") == b"boot 1 strap default\nboot 1 strap 0x02\n"
    port.write(b"echo")
    assert read_until(port, b"echo") == b"echo"


def test_a_reset_into_the_same_mode_is_warm(link: QemuLink) -> None:
    link.reset(BootMode.RUN)
    first = link.pid
    link.reset(BootMode.RUN)
    assert link.pid == first
    assert read_until(link.port, b"boot 2 strap default\n")


def test_a_reset_before_the_chip_has_answered_is_a_new_process_that_does_not_hear_what_was_sent(
    link: QemuLink,
) -> None:
    link.reset(BootMode.DOWNLOAD)
    first = link.pid
    read_until(link.port, b"0x02\n")
    link.port.write(b"half a block")
    link.reset(BootMode.DOWNLOAD)
    assert link.pid != first
    read_until(link.port, b"boot 1 strap 0x02\n")
    link.port.write(b"echo")
    assert read_until(link.port, b"echo") == b"echo"


def test_without_power_there_is_no_process_and_no_sound(link: QemuLink) -> None:
    link.power_on()
    pid = link.pid
    assert pid is not None
    read_until(link.port, b"\n")
    link.power_off()
    link.power_off()
    assert is_gone(pid)
    assert link.pid is None
    link.port.write(b"lost")
    assert link.port.read(10) == b""
    link.power_on()
    assert read_until(link.port, b"\n") == b"boot 1 strap default\n"


def test_a_board_that_rests_costs_no_processor_time_and_a_reset_wakes_it(link: QemuLink) -> None:
    link.reset(BootMode.DOWNLOAD)
    pid = link.pid
    assert pid is not None
    link.rest()
    assert is_gone(pid)
    link.reset(BootMode.DOWNLOAD)
    link.port.write(b"echo")
    assert b"echo" in read_until(link.port, b"echo")


def test_a_reset_that_qemu_refuses_is_one_error_and_the_next_one_works(program: Path, tmp_path: Path) -> None:
    link = QemuLink("esp32c3", tmp_path / "s", Qemu(str(program), arguments=("--misbehave", "no-reset")))
    link.reset(BootMode.RUN)
    with pytest.raises(LabError, match="QEMU cannot be reset: 'system_reset' is refused: not now"):
        link.reset(BootMode.RUN)
    link.reset(BootMode.DOWNLOAD)
    assert read_until(link.port, b"0x02\n")
    link.close()


def test_an_emulator_that_dies_is_named_with_its_last_words_and_can_be_started_again(link: QemuLink) -> None:
    link.reset(BootMode.RUN)
    read_until(link.port, b"\n")
    link.port.write(b"die")
    with pytest.raises(serial.SerialException, match="it ended with status 3: Segmentation fault"):
        read_until(link.port, b"never")
    link.reset(BootMode.RUN)
    assert read_until(link.port, b"boot 1")


def test_a_killed_emulator_is_named_with_the_signal(link: QemuLink) -> None:
    link.reset(BootMode.RUN)
    assert link.pid is not None
    read_until(link.port, b"\n")
    subprocess.run(["kill", "-KILL", str(link.pid)], check=True)
    with pytest.raises(serial.SerialException, match="it ended with SIGKILL"):
        read_until(link.port, b"never")


def at_a_terminal() -> None:
    """What is started in the background ignores SIGINT and would hand that on; at a terminal nothing does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_emulator_does_not_outlive_the_harness(program: Path, tmp_path: Path, number: int) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from harness.links.link import BootMode
        from harness.links.qemu import Qemu, QemuLink
        link = QemuLink("esp32c3", Path(sys.argv[1]), Qemu(program=sys.argv[2]))
        link.reset(BootMode.RUN)
        print(link.pid, flush=True)
        time.sleep(600)
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "s"), str(program)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=at_a_terminal
    ) as harness:
        assert harness.stdout is not None
        pid = int(harness.stdout.readline())
        harness.send_signal(number)
        harness.wait(60)
    assert is_gone(pid)
    # Nothing is left that would keep the next run from the board.
    link = QemuLink("esp32c3", tmp_path / "s", Qemu(program=str(program)))
    link.reset(BootMode.RUN)
    assert read_until(link.port, b"boot 1")
    link.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's death")
def test_the_emulator_does_not_outlive_its_supervisor(link: QemuLink) -> None:
    link.reset(BootMode.RUN)
    assert link.pid is not None
    status = Path(f"/proc/{link.pid}/stat").read_text()
    supervisor = int(status.rpartition(")")[2].split()[1])
    subprocess.run(["kill", "-KILL", str(supervisor)], check=True)
    assert is_gone(link.pid)


def test_closing_twice_ends_everything_and_leaves_nothing_in_the_temporary_folder(
    link: QemuLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    link.reset(BootMode.RUN)
    pid = link.pid
    assert pid is not None
    link.close()
    link.close()
    assert is_gone(pid)
    assert list(temporary.iterdir()) == []
