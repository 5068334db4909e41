"""The state folder: created, locked, checked; and the process around it starts and ends as promised."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from twin_process import TwinProcess, command, environment, read_until

from harness.chips import CHIPS
from harness.errors import LabError, UsageError
from harness.twin.state import StateFolder, parse_mac

ESP32, ESP32C3 = CHIPS["esp32"], CHIPS["esp32c3"]


def open_and_close(path, chip, **values):
    StateFolder.open(path, chip, **values).close()


class TestContent:
    @pytest.mark.parametrize(("chip", "size"), [(ESP32, 124), (ESP32C3, 1024)])
    def test_a_new_folder_gets_blank_flash_and_factory_fuses(self, tmp_path, chip, size):
        open_and_close(tmp_path / "a" / "b", chip)
        assert (tmp_path / "a/b/flash.bin").read_bytes() == b"\xff" * (4 << 20)
        assert len((tmp_path / "a/b/efuse.bin").read_bytes()) == size

    def test_two_boards_get_different_macs_and_a_given_one_is_used(self, tmp_path):
        for name in ("a", "b"):
            open_and_close(tmp_path / name, ESP32C3)
        assert (tmp_path / "a/efuse.bin").read_bytes() != (tmp_path / "b/efuse.bin").read_bytes()
        open_and_close(tmp_path / "c", ESP32C3, mac=parse_mac("7C:DF:A1:00:00:07"))
        assert (tmp_path / "c/efuse.bin").read_bytes()[0x18:0x1E] == bytes.fromhex("070000a1df7c")

    def test_existing_content_stays(self, tmp_path):
        open_and_close(tmp_path, ESP32C3)
        before = (tmp_path / "efuse.bin").read_bytes()
        (tmp_path / "flash.bin").write_bytes(b"\x11" * (2 << 20))
        open_and_close(tmp_path, ESP32C3, mac=parse_mac("7C:DF:A1:00:00:07"))
        assert (tmp_path / "efuse.bin").read_bytes() == before
        assert (tmp_path / "flash.bin").read_bytes() == b"\x11" * (2 << 20)

    def test_a_folder_as_qemu_leaves_it_is_taken(self, tmp_path):
        # A file that QEMU made has no MAC.
        content = bytearray(124)
        content[13], content[22] = 0x80, 0x10
        (tmp_path / "efuse.bin").write_bytes(content)
        open_and_close(tmp_path, ESP32)
        assert (tmp_path / "efuse.bin").read_bytes() == content


class TestRefusals:
    def test_a_folder_of_a_chip_whose_files_look_alike(self, tmp_path):
        open_and_close(tmp_path, ESP32C3)
        with pytest.raises(UsageError, match="belongs to a board of chip esp32c3, not esp32s3"):
            open_and_close(tmp_path, CHIPS["esp32s3"])
        # QEMU's folders do not say.
        (tmp_path / "chip").unlink()
        open_and_close(tmp_path, CHIPS["esp32s3"])

    def test_a_folder_of_another_chip(self, tmp_path):
        open_and_close(tmp_path, ESP32)
        with pytest.raises(UsageError, match="belongs to a board of chip esp32, not esp32c3"):
            StateFolder.open(tmp_path, ESP32C3)
        open_and_close(tmp_path, ESP32)

    @pytest.mark.parametrize("size", [0, 1, 123, 336, 4096])
    def test_fuses_of_a_wrong_size(self, tmp_path, size):
        (tmp_path / "efuse.bin").write_bytes(bytes(size))
        with pytest.raises(UsageError, match=f"efuse.bin has {size} bytes, esp32c3 needs 1024"):
            StateFolder.open(tmp_path, ESP32C3)
        assert not (tmp_path / "flash.bin").exists()

    @pytest.mark.parametrize("size", [0, 4096, (4 << 20) - 1])
    def test_flash_of_a_wrong_size(self, tmp_path, size):
        (tmp_path / "flash.bin").write_bytes(bytes(size))
        with pytest.raises(UsageError, match=f"flash.bin has {size} bytes"):
            StateFolder.open(tmp_path, ESP32C3)

    def test_flash_of_another_size_than_asked_for(self, tmp_path):
        open_and_close(tmp_path, ESP32C3)
        with pytest.raises(UsageError, match="has 4MB, asked for are 8MB"):
            StateFolder.open(tmp_path, ESP32C3, flash_bytes=8 << 20)

    def test_a_mac_whose_crc_is_wrong(self, tmp_path):
        (tmp_path / "efuse.bin").write_bytes(b"\x5a" * 124)
        with pytest.raises(UsageError, match="CRC"):
            StateFolder.open(tmp_path, ESP32)

    def test_a_place_that_cannot_be_a_folder(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(LabError, match="cannot be used"):
            StateFolder.open(tmp_path / "file" / "state", ESP32)

    def test_a_folder_in_use(self, tmp_path):
        folder = StateFolder.open(tmp_path, ESP32C3)
        folder.announce({"pid": 4711})
        try:
            with pytest.raises(LabError, match="in use by the twin with process id 4711"):
                StateFolder.open(tmp_path, ESP32C3)
        finally:
            folder.close()
        open_and_close(tmp_path, ESP32C3)

    @pytest.mark.parametrize(
        "text", ["", "7C:DF:A1:00:00", "7C:DF:A1:00:00:0G", "7CDFA1000001", "1:2:3:4:5:6"]
    )
    def test_what_is_no_mac(self, text):
        with pytest.raises(UsageError, match="not a MAC"):
            parse_mac(text)

    def test_a_group_address(self):
        with pytest.raises(UsageError, match="group"):
            parse_mac("01:00:00:00:00:01")


class TestProcess:
    def test_it_says_where_it_listens_and_takes_that_back_at_the_end(self, tmp_path):
        folder = tmp_path / "state"
        twin = TwinProcess("esp32c3", folder, "--mac", "7C:DF:A1:00:00:07", boot="off")
        running = json.loads((folder / "running.json").read_text())
        assert running == twin.started
        assert running["twin"] == 1
        assert running["chip"] == "esp32c3"
        assert running["mac"] == "7C:DF:A1:00:00:07"
        assert running["pid"] == twin.process.pid
        assert running["rfc2217"] is None
        twin.close()
        assert twin.process.returncode == 0
        assert not (folder / "running.json").exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
    def test_a_killed_twin_leaves_a_folder_that_starts_again(self, tmp_path):
        folder = tmp_path / "state"
        twin = TwinProcess("esp32", folder, boot="off")
        twin.process.send_signal(signal.SIGKILL)
        twin.close()
        assert (folder / "running.json").exists()
        again = TwinProcess("esp32", folder, boot="off")
        assert again.started["mac"] == twin.started["mac"]
        again.close()

    def test_it_ends_with_its_standard_input_when_tied_to_it(self, tmp_path):
        twin = TwinProcess("esp32c3", tmp_path / "state", "--tie-to-stdin", boot="run")
        assert twin.process.stdin is not None
        twin.process.stdin.close()
        assert twin.process.wait(timeout=60) == 0
        twin.process.stdin = None
        twin.close()

    def test_it_ends_on_the_control_channels_word(self, tmp_path):
        twin = TwinProcess("esp32c3", tmp_path / "state", boot="run")
        assert twin.tell("stop") == {"ok": True}
        assert twin.process.wait(timeout=60) == 0
        twin.close()

    @pytest.mark.parametrize(
        ("prepare", "said"),
        [
            (
                lambda folder: (folder / "efuse.bin").write_bytes(bytes(124)),
                "belongs to a board of chip esp32",
            ),
            (lambda folder: (folder / "flash.bin").write_bytes(b"x"), "flash.bin has 1 bytes"),
        ],
    )
    def test_what_prevents_a_start_is_one_line_and_exit_code_3(self, tmp_path, prepare, said):
        folder = tmp_path / "state"
        folder.mkdir()
        prepare(folder)
        result = subprocess.run(
            command("esp32c3", folder), capture_output=True, text=True, env=environment(), timeout=300
        )
        assert result.returncode == 3
        assert result.stdout == ""
        assert said in result.stderr
        assert result.stderr.count("\n") == 1

    def test_a_folder_in_use_names_the_process(self, tmp_path):
        twin = TwinProcess("esp32c3", tmp_path / "state", boot="off")
        try:
            result = subprocess.run(
                command("esp32c3", tmp_path / "state"),
                capture_output=True,
                text=True,
                env=environment(),
                timeout=300,
            )
            assert result.returncode == 3
            assert f"process id {twin.process.pid}" in result.stderr
        finally:
            twin.close()

    def test_a_port_in_use_is_one_line_too(self, tmp_path):
        twin = TwinProcess("esp32c3", tmp_path / "a", boot="off")
        try:
            port = twin.url.rpartition(":")[2]
            result = subprocess.run(
                command("esp32c3", tmp_path / "b", "--port", port),
                capture_output=True,
                text=True,
                env=environment(),
                timeout=300,
            )
            assert result.returncode == 3
            assert f"port {port} cannot be used" in result.stderr
            assert result.stderr.count("\n") == 1
        finally:
            twin.close()

    def test_it_imports_nothing_that_would_make_its_start_slow(self):
        imports = subprocess.run(
            [sys.executable, "-c", "import harness.twin.__main__, sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=300,
        ).stdout.split()
        assert not {"esptool", "espefuse", "espsecure", "reedsolo", "serial"} & set(imports)

    def test_a_blank_board_does_not_burn_a_processor(self, tmp_path):
        twin = TwinProcess("esp32c3", tmp_path / "state", boot="run")
        try:
            with twin.uart() as line:
                for _ in range(3):
                    read_until(line, b"invalid header: 0xffffffff\r\n")
            if not Path(f"/proc/{twin.process.pid}/stat").exists():
                pytest.skip("no /proc on this host")
            before = cpu_s(twin.process.pid)
            time.sleep(1)
            assert cpu_s(twin.process.pid) - before < 0.5
            assert twin.tell("status")["state"] == "rom-loop"
        finally:
            twin.close()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
