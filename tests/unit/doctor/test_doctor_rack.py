"""Single judgements of the doctor: leases, records, rules, emulators, hubs, packages that do not fit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bench_facts import MAC, device_record

from harness.doctor.finding import Finding, Level
from harness.doctor.machine import MachineFacts, check_machine, key_file_complaint
from harness.doctor.programs import check_hubs, check_qemu, probe_hubs, probe_qemu
from harness.doctor.rack import check_lease, check_names_apart, check_record, is_held
from harness.doctor.state_folder import check_artefacts
from harness.doctor.udev import FILE, udev_rules
from harness.history.pruning import Limits
from harness.inventory.discover import BRIDGES
from harness.inventory.entry import SerialEntry
from harness.inventory.inventory import parse_inventory
from harness.rack.lease import Lease

LEASE = Lease("b", "ada", "elsewhere", 4711, "pytest tests/ota", 100.0, time.time() + 86_400)


def one(found: list[Finding]) -> tuple[Level, str, str]:
    (finding,) = found
    return finding.level, finding.text, finding.todo or ""


def test_a_held_board_is_left_alone_and_a_holder_that_hangs_is_wrong() -> None:
    found = check_lease("b", LEASE)
    assert is_held(found)
    assert one(found)[0] is Level.NOTE
    assert "ada on elsewhere (process 4711, pytest tests/ota" in one(found)[1]
    overdue = Lease("b", "ada", "elsewhere", 4711, "r", 100.0, 200.0)
    level, _text, todo = one(check_lease("b", overdue))
    assert (level, "kill 4711" in todo) == (Level.WRONG, True)
    assert check_lease("b", None) == []


def test_a_record_of_another_chip_is_seen_without_opening_the_board() -> None:
    entry = SerialEntry(chip="esp32", link="serial", mac=MAC)
    level, text, todo = one(check_record("b", entry, device_record()))
    assert (level, "says esp32c3" in text, "correct 'chip'" in todo) == (Level.WRONG, True, True)
    assert check_record("b", SerialEntry(chip="esp32c3", link="serial", mac=MAC), device_record()) == []


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        ("port: COM5", "port: com5", "port"),
        (f"mac: '{MAC}'", f"port: COM5, mac: '{MAC.upper()}'", "mac"),
        ("usb_location: 1-1.4", "usb_location: 1-1.4", "usb_location"),
        ("port: COM5", "port: COM6", None),
    ],
)
def test_two_entries_that_are_one_board_are_found(first: str, second: str, field: str | None) -> None:
    text = "version: 1\nboards:\n" + "".join(
        f"  {name}: {{chip: esp32, link: serial, {fields}}}\n"
        for name, fields in (("a", first), ("b", second))
    )
    found = check_names_apart(parse_inventory(text, Path("boards.yaml")).boards)
    assert [f"'{field}'" in each.text for each in found] == ([True] if field else [])


def test_the_udev_rule_is_for_ports_of_boards_only_and_of_the_right_form(tmp_path: Path) -> None:
    rules = [line for line in udev_rules().splitlines() if not line.startswith("#")]
    assert len(rules) == len(BRIDGES)
    part = r'[A-Z]+(\{[A-Za-z_]+\})?(==|\+=|=)"[^"]*"'
    for rule in rules:
        assert re.fullmatch(rf"{part}(, {part})*", rule)
        assert re.search(r'ATTRS\{idVendor\}=="[0-9a-f]{4}"', rule)
    # uaccess is taken up by 73-seat-late.rules; what comes later does nothing.
    assert int(Path(FILE).name[:2]) < 73
    file = tmp_path / "60-esp32-boards.rules"
    file.write_text(udev_rules())
    try:
        told = subprocess.run(["udevadm", "verify", str(file)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return
    # Before systemd 254 there is no 'verify'.
    assert told.returncode == 0 or "Unknown command" in told.stderr + told.stdout, told.stderr


QEMU = {"qemu-system-riscv32": "/q/qemu-system-riscv32"}


@pytest.mark.parametrize(
    ("version", "machines", "chips", "level", "said"),
    [
        ("9.2.2 (esp_develop_9.2.2_20250817)", "esp32c3  Espressif", {"esp32c3"}, Level.GOOD, "esp_develop"),
        ("8.1.3", "esp32c3  Espressif", {"esp32c3"}, Level.NOTE, "XTS key is not reversed"),
        ("8.2.0 (Debian 1:8.2.0)", "virt  RISC-V", {"esp32c3"}, Level.WRONG, "has no machine esp32c3"),
        ("8.2.0 (Debian 1:8.2.0)", "virt  RISC-V", set(), Level.NOTE, "has no machine"),
        (None, "", {"esp32c3"}, Level.WRONG, "does not run"),
    ],
    ids=range(5),
)
def test_a_qemu_says_whose_it_is_and_what_is_known_of_it(
    version: str | None, machines: str, chips: set[str], level: Level, said: str
) -> None:
    def run(command: list[str] | tuple[str, ...]) -> str | None:
        if version is None:
            return None
        return (
            f"QEMU emulator version {version}\n"
            if "--version" in command
            else f"Supported machines are:\n{machines}\n"
        )

    (facts,) = probe_qemu(QEMU, lambda command: run(tuple(command)))
    found = one(check_qemu(facts, frozenset(chips)))
    assert (found[0], said in found[1]) == (level, True), found
    assert level is Level.GOOD or found[2]


HUBS = """\
Current status for hub 1-1 [0bda:5411 Generic USB2.1 Hub, USB 2.10, 4 ports, ppps]
  Port 1: 0100 power
Current status for hub 2 [1d6b:0003 Linux, USB 3.00, 4 ports, nops]
"""


@pytest.mark.parametrize(
    ("told", "needed", "level", "said"),
    [
        (HUBS, True, Level.GOOD, "1-1 (1 ports)"),
        ("No compatible devices detected!\n", True, Level.WRONG, "no USB hub here switches"),
        ("No compatible devices detected!\n", False, Level.NOTE, "no USB hub here switches"),
        (None, True, Level.WRONG, "does not run"),
    ],
    ids=range(4),
)
def test_hubs_that_switch_single_ports_are_named(
    told: str | None, needed: bool, level: Level, said: str
) -> None:
    found = one(check_hubs(probe_hubs("uhubctl", lambda _command: told), needed=needed))
    assert (found[0], said in found[1]) == (level, True)


def test_packages_that_do_not_belong_together_are_notes() -> None:
    versions = {"pytest-embedded": "2.9.3", "pytest-embedded-idf": "1.2.0", "labgrid": "26.0"}
    found = check_machine(MachineFacts(2e9, 1e9, "/run/lock", versions=versions))
    assert [each.level for each in found] == [Level.NOTE, Level.NOTE]
    assert "pip install pytest-embedded-idf==2.9.3" in (found[0].todo or "")
    assert "an environment of its own" in (found[1].todo or "")
    assert check_machine(MachineFacts(2e9, 1e9, "/run/lock", versions={"pytest-embedded": "2.9.3"})) == []


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_file_that_others_may_read_or_that_is_missing_is_told_without_reading_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "key"
    assert "No such file" in (key_file_complaint(file) or ("", ""))[0]
    file.write_text("secret")
    file.chmod(0o640)
    text, todo = key_file_complaint(file) or ("", "")
    assert ("secret" in text, f"chmod 600 {file}" in todo) == (False, True)
    file.chmod(0o600)
    assert key_file_complaint(file) is None


def test_old_runs_that_take_much_space_are_told_with_what_deletes_them() -> None:
    assert check_artefacts(1 << 30, Limits(None, 2 << 30)) == []
    level, text, todo = one(check_artefacts(3 << 30, Limits(None, 2 << 30)))
    assert (level, "3.0 GiB" in text, "harness prune" in todo) == (Level.NOTE, True, True)
    assert check_artefacts(3 << 30, Limits(None, None)) == []


def test_an_environment_whose_packages_do_not_fit_together_is_one_sentence_before_there_is_a_doctor(
    tmp_path: Path,
) -> None:
    (tmp_path / "espefuse.py").write_text(
        "raise ImportError(\"cannot import name 'BitStream' from 'bitstring'\")\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"}
    environment.pop("HARNESS_DEBUG", None)
    done = subprocess.run(
        [sys.executable, "-m", "harness", "doctor"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "do not fit together: cannot import name 'BitStream'" in done.stderr
    assert "bitstring<5" in done.stderr
    assert "Traceback" not in done.stderr
