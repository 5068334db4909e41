"""QEMU boards on a real QEMU of Espressif's, where one is installed: mask ROM, download mode, flash, eFuses."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator_bench import read_until

from harness.chips import chip_named
from harness.links.link import BootMode
from harness.links.qemu import MACHINES, QemuLink
from harness.provision.rom import RomSession

MAC = "7c:df:a1:0a:0b:0c"


def _absence(chip: str) -> str | None:
    machine = MACHINES[chip]
    if os.environ.get(machine.variable) or shutil.which(machine.program):
        return None
    return f"no {machine.program} on PATH or in {machine.variable}"


@pytest.fixture(params=["esp32", "esp32c3"])
def link(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[QemuLink]:
    reason = _absence(request.param)
    if reason is not None:
        pytest.skip(reason)
    link = QemuLink(request.param, tmp_path / "state", mac=MAC, flash_bytes=2 << 20)
    yield link
    link.close()


def _chip(link: QemuLink, tmp_path: Path) -> str:
    return "esp32" if (tmp_path / "state" / "efuse.bin").stat().st_size == 124 else "esp32c3"


def test_the_mask_rom_boots_from_its_first_line_warm_and_cold(link: QemuLink, tmp_path: Path) -> None:
    first = b"ets Jul" if _chip(link, tmp_path) == "esp32" else b"ESP-ROM:esp32c3"
    link.reset(BootMode.RUN)
    assert read_until(link.port, b"FAST_FLASH_BOOT").startswith(first)
    link.reset(BootMode.RUN)
    read_until(link.port, first)
    link.power_off()
    link.port.reset_input_buffer()
    link.power_on()
    assert read_until(link.port, b"FAST_FLASH_BOOT").startswith(first)


def test_the_rom_in_download_mode_tells_the_mac_and_burns_a_fuse_that_lasts(
    link: QemuLink, tmp_path: Path
) -> None:
    chip = chip_named(_chip(link, tmp_path))
    fuse = chip.fuses.release[-1]
    link.reset(BootMode.DOWNLOAD)
    with RomSession(link.port, chip) as session:
        state = session.state()
        assert (state.mac, state.fuses[fuse]) == (MAC, 0)
        session.burn_fuses({fuse: 1})
    link.power_off()
    link.reset(BootMode.DOWNLOAD)
    with RomSession(link.port, chip) as session:
        assert session.state().fuses[fuse] == 1


def test_what_is_written_to_flash_is_in_the_file_when_the_power_is_cut(
    link: QemuLink, tmp_path: Path
) -> None:
    if _chip(link, tmp_path) == "esp32":
        pytest.skip(
            "writing needs the stub, and on a busy machine QEMU's ESP32 loses bytes while it is loaded"
        )
    data = os.urandom(8192)
    link.reset(BootMode.DOWNLOAD)
    with RomSession(link.port, chip_named("esp32c3"), baud=link.flash_baud) as session:
        session.write_flash([(0x10000, data)], force=True)
        assert session.read_flash(0x10000, len(data)) == data
    link.power_off()
    assert (tmp_path / "state" / "flash.bin").read_bytes()[0x10000:0x12000] == data
