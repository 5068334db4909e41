"""`harness keys`: short tables, typed consent, no key on any screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.chips import ESP32, ESP32C3
from harness.cli.boards import boards
from harness.cli.encrypt import encrypt
from harness.cli.keys import keys
from harness.errors import NotProvenError, RefusedError, UsageError
from harness.formats.app_description import AppDescription
from harness.formats.app_image import Segment, build_app_image
from harness.home import Home
from harness.inventory.inventory import read_inventory
from harness.lab import Lab, own_vault
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.profile import Lock, Profile
from harness.provision.session import KeyToBurn
from harness.vault import KeyFile, KeyState, NoKeyHereError, UnprovenKeyError, Vault, back_up
from harness.vault.key_life import import_key, note_device_made
from harness.vault.secret import Secret

MAC, OTHER = "7c:df:a1:00:00:01", "7c:df:a1:00:00:02"
BOARDS = f"""\
version: 1
boards:
  desk: {{chip: esp32c3, link: serial, port: /dev/ttyUSB77, mac: "{MAC}"}}
  nameless: {{chip: esp32c3, link: serial, port: /dev/ttyUSB78}}
  twin: {{chip: esp32c3, link: twin, state: state}}
"""


@pytest.fixture(autouse=True)
def vault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vault:
    """A bench of our own, with the vault of physical boards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_VAULT", raising=False)
    monkeypatch.setenv("HARNESS_VAULT_KEY_FILE", str(tmp_path / "vault.key"))
    (tmp_path / "boards.yaml").write_text(BOARDS)
    return Vault.open(Home.of_user().vault, KeyFile.create(tmp_path / "vault.key"), create=True)


def run(*arguments: str, command: object = keys, say: str | None = None) -> Result:
    return CliRunner().invoke(command, list(arguments), standalone_mode=False, input=say)  # type: ignore[arg-type]


def fine(*arguments: str, command: object = keys) -> str:
    done = run(*arguments, command=command)
    assert done.exception is None, done.exception
    return done.stdout


def refused(*arguments: str, command: object = keys, kind: type[Exception] = RefusedError) -> str:
    done = run(*arguments, command=command)
    assert isinstance(done.exception, kind), done.output
    return str(done.exception)


def provisioned(vault: Vault, mac: str = MAC) -> DeviceRecords:
    """A key, and the device record that its provisioning left."""
    ref = vault.make_flash_key(mac, ESP32C3)
    records = DeviceRecords(Home.of_user().devices)
    records.write(
        DeviceRecord(
            mac,
            "esp32c3",
            Profile.RELEASE,
            Lock.SECURE_DOWNLOAD,
            ref.key_id,
            "test-only",
            "BLOCK_KEY0",
            {},
            {},
            "p",
            "t",
        )
    )
    return records


def state_of(vault: Vault, mac: str = MAC) -> KeyState:
    record = vault.key_record(mac)
    assert record is not None
    return record.state


def test_the_list_has_a_line_per_device_and_says_which_must_not_be_shipped(vault: Vault) -> None:
    assert "no keys" in fine("list")
    provisioned(vault)
    import_key(vault, OTHER, ESP32, bytes(range(32)))
    note_device_made(vault, "7c:df:a1:00:00:03", ESP32C3)
    head, *lines = fine("list").splitlines()
    assert head.split() == ["mac", "chip", "key", "id", "state", "ship", "board", "profile"]
    record = vault.key_record(MAC)
    assert record is not None
    assert lines[0].split("  ")[0] == MAC
    for word in (
        "esp32c3",
        record.key_id,
        "test-only",
        "do not ship",
        "desk",
        "release, lock secure-download",
    ):
        assert word in lines[0]
    assert "unproven" in lines[1]
    assert "do not ship" in lines[1]
    assert "device-made" in lines[2]
    assert "do not ship" not in lines[2]
    # Aligned: every state begins in the same column.
    states = ("test-only", "unproven", "device-made")
    assert len({line.index(state) for line, state in zip(lines, states, strict=True)}) == 1


def test_the_list_for_machines_has_the_history_and_no_key(vault: Vault) -> None:
    provisioned(vault)
    text = fine("list", "--json")
    (row,) = json.loads(text)["keys"]
    assert (row["mac"], row["state"], row["ship"], row["board"]) == (MAC, "test-only", "do not ship", "desk")
    assert row["history"][0]["note"] == "made here"
    assert vault.flash_key(MAC).hex() not in text
    assert "made here" in fine("list", "--history")


def test_a_key_of_two_devices_is_named(vault: Vault) -> None:
    for mac in (MAC, OTHER):
        import_key(vault, mac, ESP32C3, bytes(range(32)))
    assert f"is that of 2 devices: {MAC}, {OTHER}" in fine("list")


def test_a_virtual_board_has_its_own_keys(vault: Vault, tmp_path: Path) -> None:
    assert "has no vault yet" in refused("list", "--board", "twin", kind=UsageError)
    assert not (tmp_path / "state").exists()
    (tmp_path / "state").mkdir()
    own_vault(tmp_path / "state").make_flash_key(OTHER, ESP32C3)
    provisioned(vault)
    assert OTHER in fine("list", "--board", "twin")
    assert MAC not in fine("list", "--board", "twin")
    assert OTHER in fine("export", "--board", "twin", "--out", "twin.bin")


def test_the_export_names_key_id_and_warns(vault: Vault, tmp_path: Path) -> None:
    provisioned(vault)
    record = vault.key_record(MAC)
    assert record is not None
    done = run("export", MAC, "--out", "key.bin")
    assert record.key_id in done.stdout
    assert "whoever reads it" in done.stderr
    assert (tmp_path / "key.bin").read_bytes() == vault.flash_key(MAC)
    assert (tmp_path / "key.bin").stat().st_mode & 0o777 == 0o600
    assert "is not overwritten" in refused("export", "--board", "desk", "--out", "key.bin", kind=UsageError)
    assert vault.flash_key(MAC).hex() not in done.output


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (("export", "--out", "k"), UsageError, "which key?"),
        (("export", "7c:df", "--out", "k"), UsageError, "not a MAC address"),
        (("export", OTHER, "--out", "k"), UsageError, f"has no key for {OTHER}"),
        (("export", "--board", "nameless", "--out", "k"), UsageError, "board nameless has no known MAC"),
        (("export", "--board", "nobody", "--out", "k"), UsageError, "there is no board 'nobody'"),
        (("hand-over", MAC), UsageError, "has two steps"),
        (("hand-over", MAC, "--out", "d", "--answer", "00"), UsageError, "has two steps"),
        (("hand-over", MAC, "--answer", "00"), UsageError, "no answer is awaited"),
        (
            ("hand-over", MAC, "--answer", "nowhere.bin"),
            UsageError,
            "neither hexadecimal digits nor a readable file",
        ),
        (("forget", MAC), RefusedError, "nobody else is known to have it"),
        (("import", "nowhere.bin", "--board", "desk"), UsageError, "nowhere.bin cannot be read"),
        (("import", "short.bin", "--board", "desk"), UsageError, "has 5 bytes, xts-aes-128 takes 32"),
        (("answer", "nowhere.json", "--key", "k"), UsageError, "cannot be read"),
    ],
)
def test_bad_input_is_one_sentence(
    vault: Vault, tmp_path: Path, arguments: tuple[str, ...], kind: type[Exception], said: str
) -> None:
    provisioned(vault)
    (tmp_path / "short.bin").write_bytes(b"12345")
    before = vault.key_file(MAC).read_bytes()
    assert said in refused(*arguments, kind=kind)
    assert vault.key_file(MAC).read_bytes() == before


@pytest.mark.parametrize("form", ["hex", "hex file", "binary file"])
def test_a_hand_over_from_the_first_word_to_the_last(vault: Vault, tmp_path: Path, form: str) -> None:
    records = provisioned(vault)
    said = fine("hand-over", MAC, "--out", "parcel", "--receiver", "ACME")
    assert "espsecure encrypt-flash-data --aes-xts" in said
    assert "NOT enciphered" in said
    answer = fine("answer", "parcel/challenge.json", "--key", "parcel/flash-key.bin").strip()
    given = answer
    if form == "hex file":
        (tmp_path / "answer.txt").write_text(answer + "\n")
        given = "answer.txt"
    elif form == "binary file":
        (tmp_path / "answer.bin").write_bytes(bytes.fromhex(answer))
        given = "answer.bin"
    assert "do not ship" in fine(command=boards)
    assert "handed-over" in fine("hand-over", MAC, "--answer", given)
    assert state_of(vault) is KeyState.HANDED_OVER
    device = records.read(MAC)
    assert device is not None
    assert (device.key_state, device.shippable) == ("handed-over", True)
    assert "do not ship" not in fine(command=boards)
    assert "do not ship" not in fine("list")


def test_an_answer_from_another_key_is_said_before_it_travels(vault: Vault, tmp_path: Path) -> None:
    provisioned(vault)
    fine("hand-over", MAC, "--out", "parcel")
    (tmp_path / "other.bin").write_bytes(bytes(range(32)))
    assert "is meant" in refused("answer", "parcel/challenge.json", "--key", "other.bin")


def handed_over(vault: Vault) -> DeviceRecords:
    records = provisioned(vault)
    fine("hand-over", MAC, "--out", "parcel")
    fine(
        "hand-over",
        MAC,
        "--answer",
        fine("answer", "parcel/challenge.json", "--key", "parcel/flash-key.bin").strip(),
    )
    return records


def test_a_key_is_forgotten_only_when_its_mac_is_typed(vault: Vault, tmp_path: Path) -> None:
    records = handed_over(vault)
    back_up(vault, tmp_path / "copy")
    assert "only when its MAC is typed" in refused("forget", MAC)
    assert "nothing was destroyed" in refused("forget", MAC, "--confirm", OTHER)
    assert vault.flash_key(MAC)
    said = fine("forget", MAC, "--confirm", MAC.upper().replace(":", "-"))
    assert f"destroyed in the copy {tmp_path / 'copy'}" in said
    assert "exported files" in said
    assert state_of(vault) is KeyState.FORGOTTEN
    device = records.read(MAC)
    assert device is not None
    assert device.key_state == "forgotten"
    assert "forgotten" in fine("list")


def test_losing_updates_must_be_said(vault: Vault) -> None:
    provisioned(vault)
    assert "--lose-updates" in refused("forget", "--board", "desk", "--confirm", MAC)
    fine("forget", "--board", "desk", "--confirm", MAC, "--lose-updates")
    assert "--lose-updates" in fine("list", "--history")


def test_a_copy_out_of_reach_is_named_and_forgets_later(vault: Vault, tmp_path: Path) -> None:
    handed_over(vault)
    back_up(vault, tmp_path / "copy")
    (tmp_path / "copy").rename(tmp_path / "away")
    assert "NOT destroyed in the copy" in fine("forget", MAC, "--confirm", MAC)
    (tmp_path / "away").rename(tmp_path / "copy")
    assert "NOT destroyed" not in fine("forget", MAC, "--confirm", MAC)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        ("unproven", UnprovenKeyError, "is unproven"),
        ("forgotten", NoKeyHereError, "was forgotten here on"),
        ("device-made", NoKeyHereError, "made its key itself"),
    ],
)
def test_no_bundle_is_made_with_a_key_that_is_not_proven_or_not_here(
    vault: Vault, tmp_path: Path, make: str, kind: type[Exception], said: str
) -> None:
    if make == "unproven":
        import_key(vault, MAC, ESP32C3, bytes(range(32)))
    elif make == "device-made":
        note_device_made(vault, MAC, ESP32C3)
    else:
        provisioned(vault)
        fine("forget", MAC, "--confirm", MAC, "--lose-updates")
    described = AppDescription("1.0.0", "companion").to_bytes()
    image = build_app_image(ESP32C3, [Segment(ESP32C3.drom_base + 0x20, described)], entry_point=0)
    (tmp_path / "app.bin").write_bytes(image)
    words = ("app.bin", "--board", "desk", "--table", "t.csv", "--out", "bundle")
    assert said in refused(*words, command=encrypt, kind=kind)
    assert not (tmp_path / "bundle").exists()


def test_an_import_asks_the_board_and_keeps_what_it_cannot_prove_as_unproven(tmp_path: Path) -> None:
    boards_file = tmp_path / "boards.yaml"
    boards_file.write_text(BOARDS + "  other: {chip: esp32c3, link: twin, state: other}\n")
    home = Home.of_user()
    with Lab(home, read_inventory(boards_file), tmp_path / "out", no_secret) as lab:
        board = lab.open("twin")
        with board.rom() as session:
            session.burn_keys([KeyToBurn("BLOCK_KEY0", "XTS_AES_128_KEY", bytes(range(32)))])
        assert board.mac is None
    (tmp_path / "key.hex").write_text(bytes(range(32)).hex())
    # Burned and hidden, encryption not on: nothing can show it yet.
    done = run("import", "key.hex", "--board", "twin", "--out", "out")
    assert isinstance(done.exception, NotProvenError), done.output
    assert "kept as unproven" in str(done.exception)
    assert "canary" in str(done.exception)
    assert "unproven" in fine("list", "--board", "twin")
    assert "was here already" in fine("import", "key.hex", "--board", "twin", "--out", "out", "--no-proof")
    assert "no flash key is burned" in refused("import", "key.hex", "--board", "other", "--out", "out")


def test_a_key_of_a_board_that_is_not_at_hand_is_taken_in_unproven(vault: Vault, tmp_path: Path) -> None:
    (tmp_path / "key.bin").write_bytes(bytes(range(32)))
    said = fine("import", "key.bin", "--board", "desk", "--no-proof")
    assert "imported, unproven" in said
    assert state_of(vault) is KeyState.UNPROVEN
    assert "was here already" in fine("import", "key.bin", "--board", "desk", "--no-proof")
    (tmp_path / "other.bin").write_bytes(bytes(range(1, 33)))
    assert "a key is never replaced" in refused("import", "other.bin", "--board", "desk", "--no-proof")


def no_secret(_place: Path) -> Secret:
    raise AssertionError("the vault of physical boards is not needed")
