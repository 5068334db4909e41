"""What is plugged in becomes a boards.yaml that can be read again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import LabError
from harness.inventory.discover import (
    EXAMPLES,
    Attached,
    Identified,
    boards_yaml,
    lasting_name_of,
    look_around,
)
from harness.inventory.entry import QemuEntry, Rfc2217Entry, SerialEntry
from harness.inventory.inventory import Inventory, parse_inventory
from harness.links.find_port import SerialPort

FILE = Path("boards.yaml")
MAC = "7c:df:a1:00:00:01"
BRIDGE = SerialPort("/dev/ttyUSB0", "0001", "1-1.4", 0x10C4, "CP2102N")
OWN_USB = SerialPort("/dev/ttyACM0", MAC.upper(), "1-1.2", 0x303A, "USB JTAG/serial debug unit")
MODEM = SerialPort("/dev/ttyACM1", "123", "1-2", 0x1199, "EM7455")
BUILT_IN = SerialPort("/dev/ttyS0")


def nobody(_device: str) -> None:
    return None


def same(device: str) -> str:
    return device


def read(text: str) -> Inventory:
    return parse_inventory(text, FILE)


def uncommented(text: str) -> str:
    """The entries in comments, as a person would uncover them: prose has no two spaces and no colon at its end."""
    lines = [line.removeprefix("  # ") for line in text.splitlines()]
    keep = [line for line in lines if line.startswith("  ") or (line.endswith(":") and " " not in line)]
    return "version: 1\nboards:\n" + "".join(f"  {line}\n" for line in keep)


def test_with_nothing_attached_there_are_two_twins_and_examples() -> None:
    text = boards_yaml(())
    assert list(read(text).boards) == ["twin-c3", "twin-esp32"]
    assert "No board is plugged in" in text
    assert EXAMPLES in text


def test_every_example_is_valid_once_the_comment_signs_are_gone() -> None:
    boards = read(uncommented(EXAMPLES)).boards
    kinds = [type(entry) for entry in boards.values()]
    assert kinds == [SerialEntry, SerialEntry, Rfc2217Entry, QemuEntry]


def test_an_identified_board_becomes_an_entry_without_consent() -> None:
    one = Attached(BRIDGE, "/dev/serial/by-id/usb-CP2102N-if00", chip="esp32c3", mac=MAC)
    inventory = read(boards_yaml([one]))
    entry = inventory.named("esp32c3-0001")
    assert isinstance(entry, SerialEntry)
    assert (entry.chip, entry.port, entry.mac, entry.burn_up_to) == ("esp32c3", one.name, MAC, None)


def test_a_board_on_its_own_usb_has_its_console_there() -> None:
    one = Attached(OWN_USB, OWN_USB.device, chip="esp32c3", mac=MAC)
    entry = read(boards_yaml([one])).named("esp32c3-0001")
    assert isinstance(entry, SerialEntry)
    assert (entry.console, entry.mac) == ("usb-serial-jtag", MAC)


def test_boards_that_end_in_the_same_digits_get_names_of_their_own() -> None:
    ones = [
        Attached(replace(BRIDGE, device=f"/dev/ttyUSB{n}"), f"/dev/ttyUSB{n}", chip="esp32", mac=MAC)
        for n in range(3)
    ]
    names = list(read(boards_yaml(ones)).boards)
    assert names[2:] == ["esp32-0001", "esp32-0001-2", "esp32-0001-3"]


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (Attached(BRIDGE, BRIDGE.device), "harness init --probe"),
        (Attached(BRIDGE, BRIDGE.device, holder="process 7 (minicom)"), "held by process 7 (minicom)"),
        (Attached(BRIDGE, BRIDGE.device, problem="no chip answers"), "no chip answers"),
    ],
)
def test_a_board_whose_chip_is_not_known_stays_a_comment_that_says_why(one: Attached, said: str) -> None:
    text = boards_yaml([one])
    assert list(read(text).boards) == ["twin-c3", "twin-esp32"]
    assert said in text
    before = text[: text.index("# --- Examples")]
    chosen = uncommented(before[before.index("# board-1") - 2 :].replace("CHIP", "esp32"))
    assert list(read(chosen).boards) == ["board-1"]


def test_what_is_probably_no_board_is_only_named() -> None:
    text = boards_yaml([Attached(MODEM, MODEM.device), Attached(BUILT_IN, BUILT_IN.device)])
    assert list(read(text).boards) == ["twin-c3", "twin-esp32"]
    assert "probably no boards" in text
    assert "/dev/ttyS0" not in text


def test_looking_opens_nothing_and_knows_the_mac_of_a_chip_on_usb() -> None:
    bridge, own = look_around([BRIDGE, OWN_USB], holder=nobody, lasting_name=same)
    assert (bridge.mac, bridge.chip) == (None, None)
    assert (own.mac, own.chip) == (MAC, None)


def test_only_free_ports_of_usb_bridges_are_asked() -> None:
    asked = []

    def identify(device: str) -> Identified:
        asked.append(device)
        return Identified("esp32", MAC)

    held = replace(BRIDGE, device="/dev/ttyUSB9")
    found = look_around(
        [BRIDGE, held, MODEM, BUILT_IN],
        holder=lambda device: "process 7" if device == held.device else None,
        lasting_name=same,
        identify=identify,
    )
    assert asked == [BRIDGE.device]
    assert [one.chip for one in found] == ["esp32", None, None, None]


def test_a_port_that_fails_while_it_is_asked_is_a_board_with_a_problem() -> None:
    def identify(_device: str) -> Identified:
        raise LabError("in use by somebody")

    (one,) = look_around([BRIDGE], holder=nobody, lasting_name=same, identify=identify)
    assert one.problem == "in use by somebody"


def test_the_name_that_lasts_is_taken_where_the_system_has_one(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB0").write_bytes(b"")
    links = tmp_path / "by-id"
    links.mkdir()
    (links / "usb-CP2102N-if00").symlink_to(tmp_path / "ttyUSB0")
    assert lasting_name_of(str(tmp_path / "ttyUSB0"), folder=links) == str(links / "usb-CP2102N-if00")
    assert lasting_name_of("/dev/ttyUSB5", folder=links) == "/dev/ttyUSB5"
    assert lasting_name_of("COM5", folder=tmp_path / "none") == "COM5"


@settings(max_examples=40, deadline=None)
@given(
    device=st.text(min_size=1, max_size=40).filter(str.strip),
    serial=st.text(max_size=20),
    description=st.text(max_size=40),
    chip=st.sampled_from([None, "esp32", "esp32c3"]),
)
def test_nothing_that_a_device_says_of_itself_breaks_the_file(
    device: str, serial: str, description: str, chip: str | None
) -> None:
    port = SerialPort(device, serial, None, 0x1A86, description)
    boards = read(boards_yaml([Attached(port, device, chip=chip, mac=MAC if chip else None)])).boards
    assert len(boards) == (3 if chip else 2)
