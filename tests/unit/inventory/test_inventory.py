"""boards.yaml: what it may say, and that every complaint names file, line and field."""

import contextlib
import traceback
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.chips import SigningScheme
from harness.connection import key_source_of
from harness.errors import UsageError
from harness.inventory.entry import ProfileName, SerialEntry, TwinEntry
from harness.inventory.inventory import parse_inventory, read_inventory
from harness.provision.profile import Profile
from harness.vault.key_source import CommandSource, FileSource

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


def with_flash_key(text: str) -> str:
    return f"version: 1\nboards:\n  a: {{chip: esp32, link: twin, flash_key: {text}}}\n"


def test_a_flash_key_may_come_from_a_file_or_a_command(tmp_path: Path) -> None:
    command = parse_inventory(with_flash_key('{command: [kms, get, "{mac}"], variables: [KMS_URL]}'), FILE)
    source = key_source_of(command.named("a"), tmp_path)
    assert isinstance(source, CommandSource)
    assert (source.command, source.text) == (("kms", "get", "{mac}"), "command kms")
    assert source.timeout_s == 30
    file = parse_inventory(with_flash_key('{file: "./keys/{mac}.bin"}'), FILE)
    assert key_source_of(file.named("a"), tmp_path) == FileSource("./keys/{mac}.bin", tmp_path)
    assert key_source_of(parse_inventory(GOOD, FILE).named("desk-c3"), tmp_path) is None


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


def test_nothing_may_be_used_up_unless_the_entry_says_how_much() -> None:
    text = GOOD.replace("tags: [desk, c3]", "budget: {secure_version: 4}")
    for written, bits in ((GOOD, 0), (text, 4)):
        board = parse_inventory(written, FILE).named("desk-c3")
        assert isinstance(board, SerialEntry)
        assert (board.budget.secure_version, board.budget.revocations) == (bits, 0)


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
        ("version: 1\nboards:\n  a: {}\n  a: {}\n", r"boards\.yaml:4: 'a' stands there twice"),
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
        (
            GOOD.replace("burn_up_to: release", "budget: {luck: 1}"),
            r":8: boards\.desk-c3\.budget\.luck: there is no",
        ),
        (
            GOOD.replace("burn_up_to: release", "budget: {revocations: 3}"),
            r":8: boards\.desk-c3\.budget\.revocations: must be at most 2",
        ),
        (with_flash_key("{}"), r"boards\.a\.flash_key: say where the key comes from in one way"),
        (with_flash_key("{file: a, command: [b]}"), r"flash_key: say where the key comes from in one way"),
        (with_flash_key("{command: []}"), r"boards\.a\.flash_key\.command: "),
        (with_flash_key("{command: kms}"), r"boards\.a\.flash_key\.command: "),
        (with_flash_key("{file: k, timeout_s: 0}"), r"boards\.a\.flash_key\.timeout_s: "),
        (with_flash_key("{key: 00112233}"), r"boards\.a\.flash_key\.key: there is no such field"),
        (
            GOOD.replace("burn_up_to: release", "profile: secret"),
            r":8: boards\.desk-c3\.profile: must be 'open', 'development'",
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


BOARD = "version: 1\nboards:\n  a:\n    chip: {chip}\n    link: {link}\n    {said}\n"


@pytest.mark.parametrize(
    ("link", "said", "complaint"),
    [
        ("twin", "budget: {secure_version: 1}", "a.budget: is for physical boards only"),
        ("twin", "burn_up_to: release", "a.burn_up_to: is for physical boards only"),
        ("qemu", "burn_up_to: release", "a.burn_up_to: is for physical boards only"),
        ("espemu", "budget: {}", "a.budget: is for physical boards only"),
        ("twin", "sacrificial: true", "a.sacrificial: is for physical boards only"),
        ("serial", "sacrificial: 'true'", "a.sacrificial: must be true or false"),
        ("serial", "sacrificial: 1", "a.sacrificial: must be true or false"),
        ("twin", "flash_key: {burn_up_to: release}", "a.flash_key.burn_up_to: there is no such field"),
        ("twin", "secure_boot: vault", "a.secure_boot: must be a mapping: {field: value}"),
        ("twin", "secure_boot: {keys: vault}", "a.secure_boot.keys: must be a list: [one, another]"),
        ("twin", "secure_boot: {keys: []}", "a.secure_boot.keys: must have at least 1 in the list"),
        ("twin", "network: 5", "a.network: must be a mapping"),
        ("twin", "description: [x]", "a.description: must be text"),
        ("twin", "flash_key: {file: ''}", "a.flash_key.file: must not be empty"),
        ("serial", "baud: fast", "a.baud: must be a whole number"),
        ("serial", "baud: 1", "a.baud: must be at least 9600"),
        ("serial", "budget: 3", "a.budget: must be a mapping"),
        ("serial", "burn_up_to: all", "a.burn_up_to: must be 'open', 'development'"),
        ("serial", "power: {by: hand}", "a.power: by must be one of: uhubctl, command"),
        ("serial", "power: {hub: 1-1}", "a.power: by is missing; it must be one of: uhubctl, command"),
        ("serial", "power: {by: command, off: [], on: [x]}", "a.power.off: must have at least 1"),
        (
            "serial",
            "power: {by: uhubctl, hub: left, port: 1}",
            "a.power.hub: 'left' is no location of a USB hub",
        ),
        ("rfc2217", "url: 'http://pi'", "a.url: 'http://pi' names no RFC 2217 server; write rfc2217://HOST"),
    ],
)
def test_what_is_wanted_of_a_field_is_said_in_plain_words(link: str, said: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_inventory(BOARD.format(chip="esp32c3", link=link, said=said), FILE)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"boards.yaml:6: boards.{complaint}"), first
    for jargon in ("Input", "valid", "instance", "pattern", "validation"):
        assert jargon not in first


def test_a_board_may_be_called_as_a_link_is() -> None:
    with pytest.raises(UsageError, match=r"boards\.yaml:3: boards\.twin\.burn: there is no such field"):
        parse_inventory("version: 1\nboards:\n  twin: {chip: esp32, link: twin, burn: 1}\n", FILE)


@pytest.mark.parametrize(
    ("chip", "bits"), [("esp32", 32), ("esp32c2", 4), ("esp32c5", 9), ("esp32c3", 16), ("esp32p4", 16)]
)
def test_no_more_secure_versions_are_given_than_the_chip_has(chip: str, bits: int) -> None:
    def text(amount: int) -> str:
        said = f"budget: {{secure_version: {amount}}}\n    port: COM5"
        return BOARD.format(chip=chip, link="serial", said=said)

    board = parse_inventory(text(bits), FILE).named("a")
    assert isinstance(board, SerialEntry)
    assert board.budget.secure_version == bits
    with pytest.raises(UsageError, match=f"budget: secure_version: .* has {bits} bits of it, {bits + 1} are"):
        parse_inventory(text(bits + 1), FILE)


DESK = "version: 1\nboards:\n  a:\n    chip: esp32\n    link: serial\n    port: COM5\n    network: {{{}}}\n"


@pytest.mark.parametrize(
    ("port", "numbers", "text"),
    [
        ("8070", [8070], "8070"),
        ("8070-8072", [8070, 8071, 8072], "8070-8072"),
        ("'8070 - 8071'", [8070, 8071], "8070-8071"),
        ("0", [0], "any free one"),
    ],
)
def test_a_port_may_be_one_or_a_range(port: str, numbers: list[int], text: str) -> None:
    network = parse_inventory(DESK.format(f"port: {port}"), FILE).named("a").network
    assert (list(network.port.numbers), str(network.port)) == (numbers, text)


def test_a_network_names_its_password_by_file_or_by_variable() -> None:
    network = (
        parse_inventory(
            DESK.format(
                "ssid: 'the lab', password_file: ~/wifi.txt, bind: 0.0.0.0, address: build-7.lab.example"
            ),
            FILE,
        )
        .named("a")
        .network
    )
    assert (network.ssid, network.password_file, network.password_env) == ("the lab", "~/wifi.txt", None)
    assert (network.bind, network.address) == ("0.0.0.0", "build-7.lab.example")
    network = parse_inventory(DESK.format("ssid: lab, password_env: LAB_WIFI"), FILE).named("a").network
    assert network.password_env == "LAB_WIFI"


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (
            "ssid: lab, password: hunter22",
            "network: the password itself does not belong here; put it into a file",
        ),
        ("ssid: lab, psk: hunter22", "network: the password itself does not belong here"),
        ("ssid: lab, passwort: hunter22", "network.passwort: there is no such field"),
        (
            "ssid: lab, password_env: hunter22",
            "password_env: give the NAME of an environment variable, in capitals",
        ),
        ("ssid: lab, password_file: f, password_env: E", "network: name the password in one way"),
        ("password_file: f", "network: there is a password, but no 'ssid'"),
        ("ssid: ''", "ssid: an SSID has 1 to 32 bytes"),
        (f"ssid: {'x' * 33}", "ssid: an SSID has 1 to 32 bytes"),
        ("ssid: 12345678", "ssid: put the SSID in quotes"),
        ("port: eighty", "port: 'eighty' is neither a port nor a range"),
        ("port: true", "port: 'True' is neither a port nor a range"),
        ("port: -1", "port: '-1' is neither a port nor a range"),
        ("port: 70000", "port: there is no port 70000"),
        ("port: 8079-8070", "port: '8079-8070' is no range of ports"),
        ("port: 0-10", "port: '0-10' is no range of ports"),
        (
            "address: http://192.168.1.20",
            "address: 'http://192.168.1.20' is neither an IP address nor a host name",
        ),
        (
            "address: 192.168.1.20:8070",
            "address: '192.168.1.20:8070' is neither an IP address nor a host name",
        ),
        ("address: 192.168.1.300", "address: '192.168.1.300' is neither an IP address nor a host name"),
        ("address: 0.0.0.0", "address: no board can reach '0.0.0.0'"),
        ("bind: ''", "bind: '' is neither an IP address nor a host name"),
    ],
)
def test_a_wrong_network_is_one_sentence_and_never_shows_a_password(network: str, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_inventory(DESK.format(network), FILE)
    said = str(caught.value).splitlines()[0]
    assert said.startswith("boards.yaml:7: boards.a.network")
    assert complaint in said
    # Nor does the error that it was made from.
    assert "hunter22" not in f"{caught.value} {caught.value.__cause__}"


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


BOOT = "version: 1\nboards:\n  a:\n    chip: {chip}\n    link: twin\n    secure_boot: {{{said}}}\n"


def test_a_board_boots_with_one_key_of_the_vault_unless_it_says_more() -> None:
    plain = parse_inventory("version: 1\nboards:\n  a: {chip: esp32c3, link: twin}\n", FILE).named("a")
    assert plain.secure_boot.keys == ["vault"]
    assert plain.signing_scheme is SigningScheme.RSA_3072
    said = "keys: [vault, ./other.pem, 'pkcs11:./hsm.ini'], scheme: rsa3072"
    board = parse_inventory(BOOT.format(chip="esp32c3", said=said), FILE).named("a")
    assert board.secure_boot.keys == ["vault", "./other.pem", "pkcs11:./hsm.ini"]


@pytest.mark.parametrize(
    ("chip", "said", "complaint"),
    [
        ("esp32c3", "keys: []", r"a\.secure_boot\.keys: .*at least 1"),
        ("esp32c3", "keys: ['']", r"keys\.0: give 'vault'"),
        ("esp32c3", "keys: ['pkcs11:']", r"keys\.0: give 'vault'"),
        ("esp32c3", "keys: ['kms:arn']", "'kms:' is no place for keys"),
        ("esp32c3", "keys: [vault, vault, vault, vault]", r"room for 3 key\(s\), 4 are named"),
        ("esp32", "keys: [vault, ./other.pem]", r"ESP32 has room for 1 key\(s\), 2 are named"),
        ("esp32c3", "keys: [./a.pem, ./a.pem]", "the same key is named for two digest slots"),
        ("esp32c3", "scheme: ecdsa256", "ESP32-C3 does not verify ecdsa256; use one of: rsa3072"),
        ("esp32c3", "scheme: rsa2048", r"a\.secure_boot\.scheme: .*'rsa3072'"),
        ("esp32c3", "key: vault", r"a\.secure_boot\.key: there is no such field"),
        ("esp32c3", "keys: ['-----BEGIN PRIVATE KEY----- MIIEv']", "the key itself does not belong here"),
    ],
)
def test_wrong_keys_are_named_with_file_line_and_field(chip: str, said: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        parse_inventory(BOOT.format(chip=chip, said=said), FILE)
    assert "boards.yaml:" in str(caught.value)
    assert "MIIEv" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        "password_file: 'hunter2hunter2",
        "ssid: hunter2hunter2, ssid: another",
        "ssid: lab, password_file: *hunter2hunter2",
        "ssid: lab, password_file: !hunter2hunter2 x",
        "ssid: lab, password_file: @hunter2hunter2",
        "ssid: lab, password_file: %hunter2hunter2",
        'ssid: "hunter2hunter2\\q"',
        "ssid: lab, password_file: [hunter2hunter2]",
    ],
)
def test_what_is_wrong_in_a_file_is_not_quoted_since_it_may_be_a_password(said: str) -> None:
    text = f"version: 1\nboards:\n  a: {{chip: esp32c3, link: twin, network: {{{said}}}}}\n"
    with pytest.raises(UsageError, match=r"boards\.yaml:[34]: ") as caught:
        parse_inventory(text, FILE)
    # With HARNESS_DEBUG what it came from is shown, too.
    assert "hunter2" not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None or "hunter2" not in str(caught.value.__cause__)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_drive_letter_is_no_place_for_keys() -> None:
    board = parse_inventory(BOOT.format(chip="esp32c3", said="keys: ['C:/keys/boot.pem']"), FILE).named("a")
    assert board.secure_boot.keys == ["C:/keys/boot.pem"]


def test_consent_knows_every_profile_by_its_word():
    assert get_args(ProfileName) == tuple(profile.value for profile in Profile)
