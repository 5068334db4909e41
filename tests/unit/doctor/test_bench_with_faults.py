"""`harness doctor` on a machine with many faults made on purpose: each is named, with the sentence that mends it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.doctor.examination import Request, examination
from harness.doctor.finding import Finding, Level, Report
from harness.doctor.serial_ports import Access
from harness.home import Home
from harness.inventory.entry import TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab
from harness.links.find_port import SerialPort
from harness.links.link import BootMode
from harness.provision.device_record import DeviceRecord
from harness.provision.profile import Lock, Profile
from harness.rack.health import HealthBook
from harness.vault.secret import KeyFile
from harness.vault.vault import Vault

BRIDGE = SerialPort("/dev/ttyUSB0", "0001", "1-1.4", 0x10C4, "CP2102N")

BOARDS = """\
version: 1
boards:
  other-chip: {{chip: esp32c3, link: twin, state: {folder}/esp32}}
  burned: {{chip: esp32c3, link: twin, state: {folder}/c3}}
  broken: {{chip: esp32c3, link: twin, state: {folder}/never}}
  desk: {{chip: esp32c3, link: serial, port: /dev/ttyUSB0, mac: "7c:df:a1:00:00:01"}}
  desk-again: {{chip: esp32c3, link: serial, port: /dev/ttyUSB0, mac: "7c:df:a1:00:00:02"}}
  gone: {{chip: esp32, link: serial, port: /dev/serial/by-id/usb-nobody}}
  no-state: {{chip: esp32c3, link: twin, state: {folder}/key}}
  far: {{chip: esp32c3, link: labgrid, place: p, coordinator: "127.0.0.1:9"}}
  emulated: {{chip: esp32c3, link: qemu, qemu: {folder}/no-qemu}}
"""

NAMED = {
    # part of a finding: part of the sentence that mends it
    "C compiler: ": "install",
    "0.0 GiB free for": "make room",
    "the clock says 1970-01-01": "set the clock",
    "others may read the key file": "chmod 600",
    "espefuse cannot be imported: cannot import name 'BitStream'": "pip install --upgrade 'esptool",
    "may not open it": "usermod -aG dialout",
    "may be read or written by others": "mend that before anything is burned",
    "desk and desk-again have the same 'port': /dev/ttyUSB0": "take one of them out",
    "port /dev/serial/by-id/usb-nobody does not exist": "there is: /dev/ttyUSB0",
    "HARNESS_KEEP_SIZE: 'much' is no size": "write it as 500MB",
    "/key is no folder": "name a folder with 'state'",
    "the coordinator at 127.0.0.1:9 is not reached": "start labgrid-coordinator",
    "latched broken": "harness boards mend broken",
    "its device record says release": "harness plan --board burned",
    "no-qemu, named in the board's entry, cannot be executed": "install",
    "belongs to a board of chip esp32, not esp32c3": "correct its entry",
}


def blank_twin(folder: Path, chip: str) -> str:
    """The state of a twin that was switched on once; its MAC."""
    entry = TwinEntry(chip=chip, state=str(folder))
    home = Home(folder.parent / "home")
    with Lab(home, Inventory(None, {"t": entry}), folder.parent / "out", lambda _place: _no_secret()) as lab:
        board = lab.open("t")
        board.link.reset(BootMode.DOWNLOAD)
        mac = board.read_state().mac
        assert mac is not None
        if chip == "esp32c3":
            board.records.write(
                DeviceRecord(
                    mac,
                    chip,
                    Profile.RELEASE,
                    Lock.NONE,
                    None,
                    None,
                    None,
                    {},
                    {},
                    "0" * 16,
                    "2026-01-01T00:00:00Z",
                )
            )
    return mac


def _no_secret() -> Any:
    raise AssertionError("nothing here needs a key")


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A bench with everything in `NAMED`."""
    blank_twin(tmp_path / "esp32", "esp32")
    blank_twin(tmp_path / "c3", "esp32c3")
    home = Home(tmp_path / "home", tmp_path / "vault")
    (tmp_path / "boards.yaml").write_text(BOARDS.format(folder=tmp_path))
    key_file = tmp_path / "key"
    Vault.open(home.vault, KeyFile.create(key_file), create=True)
    home.vault.chmod(0o755)
    key_file.chmod(0o644)
    HealthBook(home).latch("broken", "no answer from its ROM", "pytest tests/ota")
    monkeypatch.setenv("HARNESS_VAULT_KEY_FILE", str(key_file))
    monkeypatch.setenv("HARNESS_KEEP_SIZE", "much")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("IDF_PATH", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=1 << 20))
    monkeypatch.setattr("harness.doctor.machine.time", _Clock(0.0))
    monkeypatch.setattr("harness.doctor.machine._importing", lambda _name: "cannot import name 'BitStream'")
    monkeypatch.setattr("harness.doctor.examination.probe_access", _forbidden)
    monkeypatch.setattr("harness.doctor.examination.probe_services", lambda: ("ModemManager",))
    return Request(home, tmp_path / "boards.yaml")


class _Clock:
    """`time`, of which only the present is another."""

    def __init__(self, now_s: float) -> None:
        self.time = lambda: now_s

    def __getattr__(self, name: str) -> Any:
        import time

        return getattr(time, name)


def _forbidden(device: str) -> Access:
    exists = not device.startswith("/dev/serial")
    return Access(device, exists=exists, group="dialout", group_may=True)


def test_each_of_many_faults_is_named_with_what_mends_it(faults: Request) -> None:
    found = list(examination(faults, ports=lambda: [BRIDGE], holder=lambda _device: None))
    wrong = [finding for finding in found if finding.level is Level.WRONG]
    missing = [
        (text, todo)
        for text, todo in NAMED.items()
        if not any(text in each.text and todo in (each.todo or "") for each in wrong)
    ]
    assert missing == [], "\n".join(f"{each.area}: {each.text} → {each.todo}" for each in wrong)
    assert any("ModemManager" in each.text for each in found)
    assert not Report(tuple(found)).ok


def test_a_boards_file_that_leads_in_a_circle_is_one_finding_of_many(tmp_path: Path) -> None:
    (tmp_path / "boards.yaml").symlink_to("boards.yaml")
    request = Request(Home(tmp_path / "home"), tmp_path / "boards.yaml")
    found = list(examination(request, ports=list, holder=lambda _device: None))
    assert any("cannot be read: Too many levels" in each.text for each in found)
    assert {each.area for each in found} >= {"host", "tools", "state", "vault"}


def test_without_faults_of_the_machine_it_says_nothing_of_it(tmp_path: Path) -> None:
    found: list[Finding] = list(
        examination(Request(Home(tmp_path / "home"), None), ports=list, holder=lambda _device: None)
    )
    assert [each.text for each in found if "clock" in each.text or "espefuse" in each.text] == []
