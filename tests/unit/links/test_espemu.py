"""esp-emu boards, on a stand-in that behaves as its documentation says."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator_bench import executable, is_gone, read_until

from harness.chips.efuses import efuse_geometry
from harness.errors import LabError, UsageError
from harness.links.espemu import (
    CHIPS,
    EFUSE_COPY,
    EFUSE_COPY_BYTES,
    INSTALL,
    EspEmu,
    EspEmuLink,
    command_line,
)
from harness.links.link import BootMode


@pytest.fixture(autouse=True)
def _no_espemu_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_ESPEMU", raising=False)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return executable(tmp_path / "bin", "fake_espemu.py", "esp-emu")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def link(program: Path, state: Path) -> Iterator[EspEmuLink]:
    link = EspEmuLink("esp32c3", state, EspEmu(program=str(program)), board="e")
    yield link
    link.close()


@pytest.mark.parametrize(("mode", "strap"), [(BootMode.RUN, "0x08"), (BootMode.DOWNLOAD, "0x02")])
def test_the_command_line_names_files_uart_and_straps(mode: BootMode, strap: str) -> None:
    line = command_line(
        "esp-emu",
        "esp32c3",
        mode,
        flash=Path("/f"),
        efuses=Path("/e"),
        port=4711,
        espemu=EspEmu(arguments=("-x",)),
    )
    assert " ".join(line) == (
        "esp-emu --chip esp32c3 --firmware /f --efuse /e --uart-tcp 127.0.0.1:4711 "
        f"--strap-mode {strap} --net user --save-state -x"
    )


def test_every_reset_is_a_new_process_on_the_same_port(link: EspEmuLink) -> None:
    port = link.port
    link.reset(BootMode.RUN)
    first = link.pid
    assert read_until(port, b"\n") == b"strap 0x08 chip esp32c3\n"
    link.reset(BootMode.RUN)
    assert link.pid != first
    assert read_until(port, b"\n") == b"strap 0x08 chip esp32c3\n"
    link.reset(BootMode.DOWNLOAD)
    assert read_until(port, b"\n") == b"strap 0x02 chip esp32c3\n"
    assert link.port is port


def test_flash_and_efuses_are_in_the_boards_files_after_a_reset(link: EspEmuLink, state: Path) -> None:
    before = (state / "efuse.bin").read_bytes()
    link.reset(BootMode.DOWNLOAD)
    link.port.write(b"burn and flash")
    read_until(link.port, b"flash")
    link.reset(BootMode.RUN)
    after = (state / "efuse.bin").read_bytes()
    assert len(after) == len(before) == 1024
    assert after == before[:0x70] + b"\x01" + before[0x71:]
    assert (state / "flash.bin").read_bytes()[:2] == b"\x00\xff"
    link.close()
    assert not (state / EFUSE_COPY).exists()


@pytest.mark.parametrize("chip", CHIPS)
def test_the_twins_state_folder_and_esp_emus_are_the_same(chip: str, program: Path, state: Path) -> None:
    link = EspEmuLink(chip, state, EspEmu(program=str(program)))
    own = state / "efuse.bin"
    assert own.stat().st_size == efuse_geometry(chip).file_size_bytes
    assert sum(block.size_bytes for block in efuse_geometry(chip).blocks) == EFUSE_COPY_BYTES
    tail = bytes(range(1, 101))
    own.write_bytes(own.read_bytes()[:-100] + tail)
    link.reset(BootMode.DOWNLOAD)
    assert (state / EFUSE_COPY).read_bytes() == own.read_bytes()[:336]
    link.port.write(b"burn")
    read_until(link.port, b"burn")
    link.close()
    assert own.read_bytes()[0x70] == 1
    assert own.read_bytes()[-100:] == tail


@pytest.mark.parametrize("chip", CHIPS)
def test_an_efuse_file_that_esp_emu_made_is_taken(chip: str, program: Path, state: Path) -> None:
    state.mkdir()
    made = bytes(range(256)) + bytes(80)
    (state / "efuse.bin").write_bytes(made)
    EspEmuLink(chip, state, EspEmu(program=str(program))).close()
    assert (state / "efuse.bin").read_bytes() == made.ljust(1024, b"\0")


def test_fuses_that_a_killed_run_left_in_the_copy_are_kept(program: Path, state: Path) -> None:
    EspEmuLink("esp32c3", state, EspEmu(program=str(program))).close()
    own = bytearray((state / "efuse.bin").read_bytes())
    copy = bytearray(own[:336])
    own[0x50] |= 0x80
    copy[0x90] |= 0x01
    (state / "efuse.bin").write_bytes(own)
    (state / EFUSE_COPY).write_bytes(copy)
    EspEmuLink("esp32c3", state, EspEmu(program=str(program))).close()
    merged = (state / "efuse.bin").read_bytes()
    assert (merged[0x50], merged[0x90], len(merged)) == (0x80, 0x01, 1024)


def test_a_copy_that_is_no_efuse_file_is_refused_and_the_board_is_free_again(
    program: Path, state: Path
) -> None:
    EspEmuLink("esp32c3", state, EspEmu(program=str(program))).close()
    (state / EFUSE_COPY).write_bytes(b"short")
    with pytest.raises(LabError, match="left an eFuse file of 5 bytes, 336 were expected"):
        EspEmuLink("esp32c3", state, EspEmu(program=str(program)))
    (state / EFUSE_COPY).unlink()
    EspEmuLink("esp32c3", state, EspEmu(program=str(program))).close()


def test_a_port_that_somebody_took_is_replaced_by_another(link: EspEmuLink, state: Path) -> None:
    (state / "refuse-once").touch()
    link.reset(BootMode.RUN)
    assert read_until(link.port, b"strap 0x08")
    assert not (state / "refuse-once").exists()


def test_an_emulator_that_does_not_start_says_why(state: Path, tmp_path: Path) -> None:
    broken = tmp_path / "esp-emu"
    broken.write_text("#!/bin/sh\necho unknown option --uart-tcp >&2\nexit 2\n")
    broken.chmod(0o755)
    link = EspEmuLink("esp32c3", state, EspEmu(program=str(broken)), board="e")
    with pytest.raises(
        LabError, match=r"board e: esp-emu did not start: .* status 2: unknown option --uart-tcp"
    ):
        link.reset(BootMode.RUN)
    link.close()


def test_a_killed_harness_leaves_the_files_written_and_no_process(program: Path, state: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from harness.links.espemu import EspEmu, EspEmuLink
        from harness.links.link import BootMode
        link = EspEmuLink("esp32c3", Path(sys.argv[1]), EspEmu(program=sys.argv[2]))
        link.reset(BootMode.DOWNLOAD)
        link.port.timeout = 0.1
        link.port.write(b"burn")
        while b"burn" not in link.port.read(100):
            pass
        print(link.pid, flush=True)
        time.sleep(600)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(state), str(program)], stdout=subprocess.PIPE
    ) as harness:
        assert harness.stdout is not None
        pid = int(harness.stdout.readline())
        harness.kill()
    assert is_gone(pid)
    link = EspEmuLink("esp32c3", state, EspEmu(program=str(program)))
    assert (state / "efuse.bin").read_bytes()[0x70] == 1
    link.close()


def test_without_esp_emu_the_error_says_how_its_maker_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabError, match="esp-emu is not on PATH") as caught:
        EspEmuLink("esp32c3", tmp_path / "s")
    assert caught.value.todo == INSTALL


def test_a_chip_that_esp_emu_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="esp-emu has no esp32"):
        EspEmuLink("esp32", tmp_path)
