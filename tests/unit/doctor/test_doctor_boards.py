"""The doctor on boards: from outside, and as their ROM shows them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from bench_facts import BRIDGE, MAC, OWN_USB, attached, chip_state, device_record

from harness.chips import Chip
from harness.doctor.board_facts import BoardFacts, check_board
from harness.doctor.boards import Surroundings, check_from_outside, examine
from harness.doctor.finding import Finding, Level
from harness.doctor.identification import identify_on
from harness.doctor.serial_ports import Access
from harness.errors import BoardError
from harness.home import Home
from harness.inventory.discover import Attached
from harness.inventory.entry import (
    EspEmuEntry,
    PhysicalEntry,
    QemuEntry,
    Rfc2217Entry,
    SerialEntry,
    TwinEntry,
)
from harness.inventory.inventory import Inventory
from harness.lab import Lab, own_vault
from harness.links.link import BootMode
from harness.links.serial_port import SerialLink
from harness.links.twin import TwinLink
from harness.provision.chip_state import Download, SecurityInfo
from harness.provision.profile import Lock, Profile
from harness.rack.health import HealthBook

ENTRY = SerialEntry(chip="esp32c3", link="serial", port="/dev/ttyUSB0", mac=MAC)
FACTS = BoardFacts("desk", ENTRY, "/dev/ttyUSB0", chip_state(), MAC, None)

IN_SECURE_DOWNLOAD = chip_state(
    mac=None, download=Download.SECURE, key_blocks=(), security_info=SecurityInfo(4, 7, (4, 0, 0, 0, 0, 0))
)


def wrong(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.level is Level.WRONG]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (FACTS, []),
        (replace(FACTS, record=device_record()), []),
        (replace(FACTS, mac="7c:df:a1:00:00:02"), ["boards.yaml says 7c:df:a1:00:00:01, the chip says"]),
        (replace(FACTS, state=chip_state(revision=2)), ["revision v0.2 is older than"]),
        (replace(FACTS, record=device_record(Profile.RELEASE)), ["its device record says release"]),
        (
            replace(FACTS, state=IN_SECURE_DOWNLOAD, mac=None),
            ["there is no device record: it cannot be told"],
        ),
        (
            replace(
                FACTS,
                state=IN_SECURE_DOWNLOAD,
                mac=None,
                record=device_record(Profile.RELEASE, Lock.SECURE_DOWNLOAD),
            ),
            [],
        ),
        (
            replace(FACTS, state=chip_state(fuses={"SPI_BOOT_CRYPT_CNT": 1})),
            ["flash encryption is on, but"],
        ),
    ],
)
def test_a_board_is_compared_with_its_entry_and_its_record(facts: BoardFacts, said: list[str]) -> None:
    found = wrong(check_board(facts))
    assert len(found) == len(said), found
    assert all(text in complaint for text, complaint in zip(said, found, strict=True))


def test_a_board_without_a_declared_mac_is_told_what_to_write() -> None:
    entry = ENTRY.model_copy(update={"mac": None})
    (finding,) = [f for f in check_board(replace(FACTS, entry=entry)) if "no 'mac:'" in f.text]
    assert (finding.level, finding.todo) == (Level.NOTE, f'mac: "{MAC}"')


def test_a_board_whose_key_is_kept_is_not_to_be_shipped() -> None:
    record = device_record(key_state="test-only")
    assert any("do not ship" in finding.text for finding in check_board(replace(FACTS, record=record)))


# --- from outside ---


def around(*ports: Attached, probe: bool = False, allowed: bool = True) -> Surroundings:
    return Surroundings(ports, lambda device: Access(device, True, allowed, "dialout", group_may=True), probe)


def serial(**fields: Any) -> SerialEntry:
    return SerialEntry.model_validate({"chip": "esp32c3", "link": "serial", **fields})


RFC = Rfc2217Entry(chip="esp32", link="rfc2217", url="rfc2217://h:4000")


@pytest.mark.parametrize(
    ("entry", "there", "level", "said"),
    [
        (ENTRY, around(attached()), Level.NOTE, "esp32c3 at /dev/ttyUSB0: there, and free; not opened"),
        (ENTRY, around(attached(), allowed=False), Level.WRONG, "may not open it"),
        (ENTRY, around(attached(holder="process 7")), Level.NOTE, "held by process 7; not opened"),
        (serial(usb_serial="0001"), around(attached()), Level.NOTE, "at /dev/ttyUSB0: there"),
        (serial(usb_serial="0002"), around(attached()), Level.WRONG, "no port has USB serial number 0002"),
        (serial(usb_location="1-1.4"), around(attached()), Level.NOTE, "at /dev/ttyUSB0: there"),
        (serial(usb_location="1-9"), around(attached()), Level.WRONG, "no port has USB location 1-9"),
        (
            serial(mac=MAC, console="usb-serial-jtag"),
            around(attached(OWN_USB)),
            Level.NOTE,
            "at /dev/ttyACM0: there",
        ),
        (serial(mac=MAC), around(attached(OWN_USB)), Level.WRONG, "is the chip's own USB"),
        (
            serial(mac=MAC),
            around(attached()),
            Level.NOTE,
            "to find its port by its MAC, boards must be reset",
        ),
        (serial(port="socket://h:1"), around(), Level.NOTE, "not opened"),
        (
            serial(port="/dev/ttyACM0", mac="7c:df:a1:00:00:02", console="usb-serial-jtag"),
            around(attached(OWN_USB)),
            Level.WRONG,
            f"is {MAC}",
        ),
        (
            serial(port="/dev/pts/3"),
            replace(around(), holder=lambda device: f"who has {device}"),
            Level.NOTE,
            "held by who has /dev/pts/3; not opened",
        ),
        (RFC, around(), Level.NOTE, "at rfc2217://h:4000: not opened"),
    ],
)
def test_a_physical_board_is_looked_at_without_opening_its_port(
    entry: PhysicalEntry, there: Surroundings, level: Level, said: str
) -> None:
    first = check_from_outside("desk", entry, there)[0]
    assert (first.level, said in first.text) == (level, True), first


def lab(folder: Path, entry: Any) -> Lab:
    def no_secret(place: Path) -> Any:
        raise AssertionError(f"the doctor opened the vault {place}")

    return Lab(Home(folder / "home"), Inventory(None, {"b": entry}), folder / "out", no_secret)


def test_a_twin_that_was_never_used_is_not_started(tmp_path: Path) -> None:
    entry = TwinEntry(chip="esp32c3", state=str(tmp_path / "state"))
    with lab(tmp_path, entry) as bench:
        (finding,) = examine(bench, "b", around())
    assert finding.level is Level.NOTE
    assert not (tmp_path / "state").exists()


def test_a_twin_that_has_a_state_is_started_and_read_and_one_in_use_is_left_alone(tmp_path: Path) -> None:
    entry = TwinEntry(chip="esp32c3", state=str(tmp_path / "state"))
    with lab(tmp_path, entry) as bench:
        bench.open("b").link.reset(BootMode.DOWNLOAD)
        with lab(tmp_path, entry) as other:
            (busy,) = examine(other, "b", around())
    assert (busy.level, busy.text.startswith("held by ")) == (Level.NOTE, True)
    own_vault(tmp_path / "state")
    with lab(tmp_path, entry) as bench:
        found = examine(bench, "b", around())
    assert wrong(found) == []
    assert any("profile open" in finding.text for finding in found)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (QemuEntry(chip="esp32c3", link="qemu", qemu="/no/qemu"), "/no/qemu, named in the board's entry"),
        (EspEmuEntry(chip="esp32c3", link="espemu", espemu="/no/emu"), "/no/emu, named in the board's entry"),
    ],
)
def test_a_board_whose_emulator_is_missing_is_wrong(tmp_path: Path, entry: Any, said: str) -> None:
    with lab(tmp_path, entry) as bench:
        (finding,) = examine(bench, "b", around())
    assert (finding.level, said in finding.text) == (Level.WRONG, True)
    assert "install" in (finding.todo or "")


def test_a_retired_board_is_a_note_and_nothing_of_it_is_looked_at(tmp_path: Path) -> None:
    with lab(tmp_path, QemuEntry(chip="esp32c3", link="qemu", qemu="/no/qemu")) as bench:
        HealthBook(bench.home).retire("b", "worn")
        (finding,) = examine(bench, "b", around())
    assert (finding.level, finding.text.startswith("retired")) == (Level.NOTE, True)
    assert finding.todo == "to undo that: harness retire b --undo"


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_a_chip_says_by_its_rom_which_one_it_is(tmp_path: Path, chip: str) -> None:
    link = TwinLink(chip, tmp_path / "state", tmp_path / "store")
    try:
        found = identify_on(link)
    finally:
        link.close()
    assert (found.chip, found.mac, found.problem) == (chip, link.mac.lower(), None)


class DeafSession:
    """A session with something that is no chip of ours."""

    tried: ClassVar[list[str]] = []
    cause: ClassVar[Exception | None] = None

    def __init__(self, _port: object, chip: Chip) -> None:
        self.tried.append(chip.name)

    def __enter__(self) -> None:
        raise BoardError("this chip is no. 99") from self.cause

    def __exit__(self, *_: object) -> None:
        """Never entered."""


class Wire(SerialLink):
    """A link without a wire."""

    resets: ClassVar[list[BootMode]] = []
    port = cast(Any, SimpleNamespace(timeout=0.05))

    def reset(self, mode: BootMode) -> None:
        self.resets.append(mode)


@pytest.mark.parametrize(
    ("cause", "tries", "said"),
    [(None, 2, "this chip is no. 99"), (RuntimeError("Failed to connect"), 2, "no chip answers")],
)
def test_a_port_without_a_chip_of_ours_says_why_and_is_let_run_again(
    monkeypatch: pytest.MonkeyPatch, cause: Exception | None, tries: int, said: str
) -> None:
    monkeypatch.setattr("harness.doctor.identification.RomSession", DeafSession)
    monkeypatch.setattr(DeafSession, "cause", cause)
    monkeypatch.setattr(DeafSession, "tried", [])
    found = identify_on(Wire("/dev/none"))
    assert (found.chip, said in (found.problem or "")) == (None, True)
    assert len(DeafSession.tried) == tries
    assert Wire.resets[-1] is BootMode.RUN


def test_a_physical_board_that_does_not_answer_is_one_finding(tmp_path: Path) -> None:
    gone = serial(port=str(tmp_path / "ttyUSB9"))
    with lab(tmp_path, gone) as bench:
        found = examine(bench, "b", Surroundings((), lambda device: Access(device, exists=False), probe=True))
    assert len(wrong(found)) == 1
    assert "does not exist" in found[0].text


def test_what_the_operating_system_lets_pass_and_the_port_does_not_is_said(tmp_path: Path) -> None:
    with lab(tmp_path, serial(port=str(tmp_path / "ttyUSB9"))) as bench:
        found = examine(bench, "b", around(attached(BRIDGE), probe=True))
    assert len(wrong(found)) == 1
    assert "does not exist" in wrong(found)[0]
