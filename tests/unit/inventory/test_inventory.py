"""boards.yaml: what it may say, and that every complaint names file, line and field."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.inventory.entry import SerialEntry, TwinEntry
from harness.inventory.inventory import parse_inventory, read_inventory

FILE = Path("boards.yaml")

GOOD = """\
version: 1
boards:
  desk-c3:
    chip: ESP32-C3
    link: serial
    port: /dev/ttyUSB0
    mac: "7C-DF-A1-00-00-01"
    burn_up_to: release
    tags: [desk, c3]
  twin-esp32: {chip: esp32, link: twin, tags: [desk]}
"""


def test_a_good_file_gives_typed_entries_in_the_order_written() -> None:
    inventory = parse_inventory(GOOD, FILE)
    assert list(inventory.boards) == ["desk-c3", "twin-esp32"]
    board = inventory.named("desk-c3")
    assert isinstance(board, SerialEntry)
    assert (board.chip, board.mac, board.burn_up_to) == ("esp32c3", "7c:df:a1:00:00:01", "release")
    assert isinstance(inventory.named("twin-esp32"), TwinEntry)


def test_consent_to_burn_is_absent_unless_written() -> None:
    board = parse_inventory(
        "version: 1\nboards:\n  a: {chip: esp32, link: serial, port: COM5}\n", FILE
    ).named("a")
    assert isinstance(board, SerialEntry)
    assert board.burn_up_to is None


def test_boards_are_chosen_by_name_or_tag_each_once() -> None:
    inventory = parse_inventory(GOOD, FILE)
    assert list(inventory.select(["desk", "twin-esp32"])) == ["desk-c3", "twin-esp32"]
    with pytest.raises(UsageError, match=r"no board 'nobody'.*desk-c3, twin-esp32"):
        inventory.select(["nobody"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"boards\.yaml:1: the file must be a mapping"),
        ("a: [", r"boards\.yaml:1: not valid YAML"),
        ("version: 1\nboards:\n  a: {}\n  a: {}\n", r"boards\.yaml:4: not valid YAML"),
        ("version: 2\nboards: {}", r"boards\.yaml:1: version: 2 is newer than this harness knows"),
        ("boards: {}", r"boards\.yaml:1: version: is missing"),
        ("version: 1\nboards: 5", r"boards\.yaml:2: boards: "),
        (
            "version: 1\nboards:\n  a:\n    chip: esp99\n    link: twin\n",
            r"boards\.yaml:4: boards\.a\.chip: chip 'esp99'",
        ),
        (
            "version: 1\nboards:\n  a:\n    chip: esp32\n    link: telepathy\n",
            r"boards\.yaml:3: boards\.a: link must be",
        ),
        ("version: 1\nboards:\n  a:\n    chip: esp32\n", r"boards\.yaml:3: boards\.a: link is missing"),
        (
            "version: 1\nboards:\n  a:\n    chip: esp32\n    link: twin\n    burn: 1\n",
            r":6: boards\.a\.burn: there is no such",
        ),
        (
            "version: 1\nboards:\n  a:\n    chip: esp32\n    link: serial\n",
            r"boards\.a: name the port in one way",
        ),
        (GOOD.replace("burn_up_to: release", "burn_up_to: all"), r":8: boards\.desk-c3\.burn_up_to: "),
        (GOOD.replace("7C-DF-A1-00-00-01", "7C-DF-A1"), r":7: boards\.desk-c3\.mac: '7C-DF-A1' is not a MAC"),
        (
            "version: 1\nboards:\n  '../up': {chip: esp32, link: twin}\n",
            r":3: boards\.\.\./up: not a usable name",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_file_line_and_field(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        parse_inventory(text, FILE)
    assert "what to do" in str(caught.value)


def test_a_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_inventory(tmp_path / "nowhere.yaml")
    assert read_inventory(None, folder=tmp_path).boards == {}


@settings(max_examples=80, deadline=None)
@given(st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1"))))
def test_no_text_makes_the_reader_raise_anything_but_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse_inventory(text, FILE)


@pytest.mark.parametrize(
    ("console", "expected"), [("", "uart0"), (", console: usb-serial-jtag", "usb-serial-jtag")]
)
def test_the_wire_of_a_serial_board_is_uart0_unless_written(console: str, expected: str) -> None:
    text = f"version: 1\nboards:\n  a: {{chip: esp32c3, link: serial, port: COM5{console}}}\n"
    board = parse_inventory(text, FILE).named("a")
    assert isinstance(board, SerialEntry)
    assert board.console == expected


@pytest.mark.parametrize("console", ["usb-serial-jtag", "uart1"])
def test_a_console_that_the_chip_has_not_is_refused(console: str) -> None:
    text = f"version: 1\nboards:\n  a: {{chip: esp32, link: serial, port: COM5, console: {console}}}\n"
    with pytest.raises(UsageError, match=r"boards\.yaml:3: boards\.a.*console|uart0"):
        parse_inventory(text, FILE)
