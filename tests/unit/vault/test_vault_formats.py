"""Old vaults are read for ever; newer ones are refused and not touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.chips import ESP32C3
from harness.vault import DamagedError, NewerFormatError, Passphrase, Vault, back_up, restore, verify
from harness.vault.key_life import answer_to, hand_over, offer
from harness.vault.record_file import parse_record, read_record, write_record

DATA = Path(__file__).parents[2] / "data" / "vault"
WORDS = b"test only, correct horse"
C3_MAC, ESP32_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def private_copy(path: Path) -> Path:
    """A copy of the vault that the first released version wrote; a checkout does not keep its permissions."""
    shutil.copytree(DATA / "v1", path)
    for entry in [path, *path.rglob("*")]:
        entry.chmod(0o700 if entry.is_dir() else 0o600)
    return path


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A private working copy."""
    return private_copy(tmp_path / "vault")


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_a_vault_of_the_first_released_version_opens(released):
    vault = Vault.open(released, Passphrase(WORDS))
    assert {ref.mac: (ref.chip_name, ref.key_id, ref.state) for ref in vault.key_refs()} == {
        C3_MAC: ("esp32c3", "7edaa2c0a0f699fe", "test-only"),
        ESP32_MAC: ("esp32", "f5ea866414a0a134", "test-only"),
    }
    assert vault.flash_key(C3_MAC).hex() == "8d50b9924c62ca26e937ccac5c2b2221286320c68531bc5abe47028e28558d58"
    assert (
        vault.flash_key(ESP32_MAC).hex() == "3e996cc4fc035e58e2523b50c541e6b87add2d0b8e478a4aedf1d3af7a2a2245"
    )
    assert vault.signing_public_key().hex().startswith("04a239227f3d5607")
    intent = vault.intent(ESP32_MAC)
    assert intent is not None
    assert (intent.block, intent.profile, intent.fuses) == ("BLOCK1", "release", {"FLASH_CRYPT_CNT": 0})
    assert vault.intent(C3_MAC) is None
    assert verify(vault).ok


def test_reading_a_released_vault_changes_nothing_in_it(released):
    before = contents(released)
    vault = Vault.open(released, Passphrase(WORDS))
    vault.flash_key(C3_MAC)
    vault.signing_key()
    verify(vault)
    assert contents(released) == before


def test_a_record_of_the_first_format_has_a_history_and_is_rewritten_at_its_first_change(released):
    vault = Vault.open(released, Passphrase(WORDS))
    file = vault.key_file(C3_MAC)
    record = vault.key_record(C3_MAC)
    assert record is not None
    assert [change.text() for change in record.history] == ["2025-01-01T00:00:00+00:00  test-only: made here"]
    key = vault.flash_key(C3_MAC)
    asked = offer(vault, C3_MAC, "")
    hand_over(vault, C3_MAC, answer_to(ESP32C3, key, asked.challenge))
    assert read_record(file, newest=2, what="record")["format"] == 2
    again = Vault.open(released, Passphrase(WORDS))
    assert again.flash_key(C3_MAC) == key
    assert [change.state.value for change in again.key_record(C3_MAC).history] == [
        "test-only",
        "test-only",
        "handed-over",
    ]


def test_a_newer_vault_is_refused_and_not_touched(released, tmp_path):
    copy = private_copy(tmp_path / "copy")
    fields = read_record(released / "vault.json", newest=1, what="vault")
    write_record(released / "vault.json", {**fields, "format": 2})
    before = contents(released)
    for act in (
        lambda: Vault.open(released, Passphrase(WORDS)),
        lambda: Vault.open(released, Passphrase(WORDS), create=True),
        lambda: restore(released, copy, Passphrase(WORDS)),
    ):
        with pytest.raises((NewerFormatError, DamagedError)):
            act()
    assert contents(released) == before


def test_a_newer_vault_may_have_another_checksum_and_is_still_recognised_as_newer(released):
    (released / "vault.json").write_text(json.dumps({"format": 7, "all": "new"}))
    with pytest.raises(NewerFormatError, match="format 7"):
        Vault.open(released, Passphrase(WORDS))


def test_one_newer_record_is_refused_alone(released):
    vault = Vault.open(released, Passphrase(WORDS))
    file = released / "keys" / "02-00-00-00-00-01.json"
    fields = read_record(file, newest=1, what="record")
    write_record(file, {**fields, "format": 3})
    before = contents(released)
    with pytest.raises(NewerFormatError, match="Nothing was changed"):
        vault.flash_key(C3_MAC)
    with pytest.raises(NewerFormatError):
        vault.make_flash_key(C3_MAC, ESP32C3)
    assert vault.flash_key(ESP32_MAC)
    found = verify(vault)
    assert len(found.problems) == 1
    assert "format 3" in found.problems[0]
    assert {name: data for name, data in contents(released).items() if name != ".lock"} == before


def test_a_newer_copy_is_not_overwritten(released, tmp_path):
    vault = Vault.open(released, Passphrase(WORDS))
    place = tmp_path / "copy"
    back_up(vault, place)
    head = read_record(place / "vault.json", newest=1, what="copy")
    write_record(place / "vault.json", {**head, "format": 2})
    before = contents(place)
    with pytest.raises(NewerFormatError):
        back_up(vault, place)
    assert contents(place) == before


@pytest.mark.parametrize(
    "file", sorted(str(path.relative_to(DATA)) for path in (DATA / "v1").rglob("*.json"))
)
def test_the_fixture_is_as_it_was_released(file):
    path = DATA / file
    assert parse_record(path.read_bytes(), path, newest=1, what="fixture")["format"] == 1
