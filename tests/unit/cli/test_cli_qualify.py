"""`harness qualify` and `harness retire` at the command line: nothing is touched before the files are the right ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.chips import ESP32C3
from harness.cli.main import cli
from harness.errors import RefusedError, UsageError
from harness.home import Home
from harness.provision.consumables import Resource
from harness.provision.consumption_ledger import ConsumptionLedger
from harness.provision.device_record import RAW_UPDATE_THERE, DeviceRecord, DeviceRecords
from harness.provision.profile import Lock, Profile
from harness.qualify.file import read_qualify_file
from harness.rack.health import HealthBook
from harness.vault import KeyFile, Vault
from harness.vault.key_ref import KeyState

MAC = "7c:df:a1:00:00:01"
BOARDS = f"""\
version: 1
boards:
  desk: {{chip: esp32c3, link: serial, port: /dev/ttyUSB77, mac: "{MAC}"}}
"""
FUSES = {
    "SPI_BOOT_CRYPT_CNT": 7,
    "DIS_DOWNLOAD_MANUAL_ENCRYPT": 1,
    "DIS_PAD_JTAG": 1,
    "ENABLE_SECURITY_DOWNLOAD": 1,
    "SECURE_VERSION": 3,
    "DIS_TWAI": 0,
}


@pytest.fixture(autouse=True)
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HARNESS_VAULT", raising=False)
    monkeypatch.setenv("HARNESS_VAULT_KEY_FILE", str(tmp_path / "vault.key"))
    (tmp_path / "boards.yaml").write_text(BOARDS)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments], standalone_mode=False)


def test_init_writes_a_file_that_can_be_read_and_never_overwrites_one() -> None:
    assert run("qualify", "--init").return_value == 0
    assert read_qualify_file(Path("qualify.yaml")).file.unit == "ship"
    assert isinstance(run("qualify", "--init").exception, UsageError)


def test_the_wrong_image_is_refused_before_a_folder_or_a_port_is_touched() -> None:
    run("qualify", "--init")
    Path("app-1.0.0.bin").write_bytes(b"another build")
    done = run("qualify", "qualify.yaml", "--board", "desk", "--out", "out")
    assert isinstance(done.exception, RefusedError)
    assert "Nothing was touched" in done.exception.message
    assert not Path("out").exists()


def test_the_folder_of_another_qualification_is_not_written_into() -> None:
    run("qualify", "--init")
    Path("out").mkdir()
    Path("out/qualification.json").write_text("{}")
    done = run("qualify", "qualify.yaml", "--board", "desk", "--out", "out")
    assert isinstance(done.exception, RefusedError)
    assert "not an empty folder" in done.exception.message
    assert Path("out/qualification.json").read_text() == "{}"


def test_without_a_board_it_asks_which() -> None:
    run("qualify", "--init")
    assert isinstance(run("qualify").exception, UsageError)


def test_a_folder_without_evidence_cannot_be_verified(tmp_path: Path) -> None:
    done = run("qualify", "--verify", str(tmp_path))
    assert isinstance(done.exception, UsageError)


def recorded(lock: Lock = Lock.SECURE_DOWNLOAD, key_state: str | None = "test-only") -> None:
    """What is left of a board that was provisioned here."""
    home = Home.of_user()
    DeviceRecords(home.devices).write(
        DeviceRecord(
            mac=MAC,
            chip_name="esp32c3",
            profile=Profile.RELEASE,
            lock=lock,
            key_id="0011223344556677",
            key_state=key_state,
            key_block="BLOCK_KEY0",
            fuses=FUSES,
            flashed={"ota_0": "ab" * 32},
            plan_id="1",
            updated="2026-01-01T00:00:00+00:00",
        )
    )
    DeviceRecords(home.devices).note_proof(
        MAC, RAW_UPDATE_THERE, version="1.1.0", when="2026-01-02T00:00:00+00:00"
    )


def test_retiring_a_board_says_what_is_for_good_and_marks_it_for_all() -> None:
    recorded()
    ConsumptionLedger(Home.of_user().devices).note(MAC, "anti-rollback", {Resource.SECURE_VERSION: 2})
    done = run("retire", "desk", "--no-look", "--reason", "its socket is worn")
    assert done.exception is None
    for words in (
        "flash encryption is on (SPI_BOOT_CRYPT_CNT 0x7; for good",
        "Secure Download Mode",
        "JTAG over pins is off",
        "secure version below 2 do not start",
        "BLOCK_KEY0 holds a flash key",
        "ota_0, SHA-256 abababababababab…",
        "raw-update-there passed with version 1.1.0",
        "key 0011223344556677 (test-only)",
        "secure_version 2: anti-rollback",
        f"harness keys forget {MAC} --lose-updates",
    ):
        assert words in done.output
    assert "DIS_TWAI" not in done.output, "it is not burned"
    health = HealthBook(Home.of_user()).of("desk")
    assert health.retired == "its socket is worn"
    assert health.broken is None, "nothing is wrong with it"
    assert "board desk is retired" in run("boards").output
    assert isinstance(run("boards", "mend").exception, UsageError), "a retired board is not one to mend"
    assert "is a board of the rack again" in run("retire", "desk", "--undo").output
    assert HealthBook(Home.of_user()).of("desk").retired is None


def test_a_dry_run_marks_nothing_and_json_says_the_same() -> None:
    recorded(Lock.DOWNLOAD_OFF)
    done = run("retire", "desk", "--no-look", "--dry-run", "--json")
    told = json.loads(done.output)
    assert told["retired"] is False
    assert told["lock"] == "download-off"
    assert any("nothing else ever changes its flash" in each for each in told["possible"])
    assert HealthBook(Home.of_user()).of("desk").retired is None


def test_the_key_is_told_from_the_vault_where_that_opens(tmp_path: Path) -> None:
    recorded()
    vault = Vault.open(Home.of_user().vault, KeyFile.create(tmp_path / "vault.key"), create=True)
    made = vault.make_flash_key(MAC, ESP32C3)
    told = json.loads(run("retire", "desk", "--no-look", "--dry-run", "--json").output)
    assert told["key"]["key_id"] == made.key_id
    assert told["key"]["state"] == KeyState.TEST_ONLY.value
    assert vault.flash_key(MAC).hex() not in json.dumps(told)


def test_a_board_of_which_nothing_is_known_is_retired_too_and_that_is_said() -> None:
    done = run("retire", "desk", "--no-look")
    assert "nothing tells: neither eFuses nor a device record" in done.output
    assert HealthBook(Home.of_user()).of("desk").retired == ""


def test_a_board_that_is_not_there_is_retired_by_its_record() -> None:
    recorded()
    done = run("retire", "desk", "--out", "out")
    assert done.exception is None
    assert "Not read: port /dev/ttyUSB77 does not exist" in done.output
    assert "flash encryption is on" in done.output
