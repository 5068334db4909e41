"""verify, backup and restore: what is lost comes back, what is there is never overwritten."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness.chips import ESP32, ESP32C3
from harness.errors import RefusedError, UsageError
from harness.vault import (
    DamagedError,
    KeyFile,
    NoVaultError,
    Vault,
    WrongSecretError,
    back_up,
    refresh,
    restore,
    verify,
)
from harness.vault import copies as copies_module
from harness.vault.record_file import read_record, write_record

MAC = "02:00:00:aa:bb:01"
OTHER = "02:00:00:aa:bb:02"


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "vault.key")


@pytest.fixture
def vault(tmp_path: Path, key_file: KeyFile) -> Vault:
    vault = Vault.open(tmp_path / "vault", key_file, create=True)
    vault.make_flash_key(MAC, ESP32C3)
    vault.signing_key()
    return vault


def record_of(path: Path, mac: str = MAC) -> Path:
    return path / "keys" / f"{mac.replace(':', '-')}.json"


def test_a_good_vault_verifies(vault):
    assert verify(vault).problems == ()
    assert verify(vault).keys == 1


def test_verify_names_every_damaged_file_and_goes_on(vault):
    vault.make_flash_key(OTHER, ESP32)
    record_of(vault.path).write_bytes(b"x")
    (vault.path / "signing.json").write_bytes(b"y")
    found = verify(vault)
    assert not found.ok
    assert found.keys == 2
    assert [
        name for name in ("02-00-00-aa-bb-01.json", "signing.json") if name in " ".join(found.problems)
    ] == [
        "02-00-00-aa-bb-01.json",
        "signing.json",
    ]
    assert len(found.problems) == 2


def test_a_copy_opens_with_the_same_secret_and_is_remembered(vault, key_file, tmp_path):
    report = back_up(vault, tmp_path / "copy")
    copy = Vault.open(tmp_path / "copy", key_file)
    assert copy.flash_key(MAC) == vault.flash_key(MAC)
    assert copy.signing_public_key() == vault.signing_public_key()
    assert vault.copies() == (tmp_path / "copy",)
    assert report.keys == 1
    back_up(vault, tmp_path / "copy")
    assert vault.copies() == (tmp_path / "copy",)


def test_a_copy_on_the_same_file_system_is_called_that(vault, tmp_path, monkeypatch):
    report = back_up(vault, tmp_path / "copy")
    assert not report.other_file_system
    assert "no protection" in report.text()
    monkeypatch.setattr(copies_module, "lies_elsewhere", lambda *_: True)
    assert "on another file system" in back_up(vault, tmp_path / "copy").text()


def test_a_new_key_reaches_the_copies(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    back_up(vault, tmp_path / "unplugged")
    shutil.rmtree(tmp_path / "unplugged")
    vault.make_flash_key(OTHER, ESP32)
    reports = refresh(vault)
    assert [report.place for report in reports] == [tmp_path / "copy"]
    assert Vault.open(tmp_path / "copy", key_file).flash_key(OTHER) == vault.flash_key(OTHER)


def test_a_copy_into_itself_or_among_other_things_is_refused(vault, tmp_path):
    for place in (vault.path, vault.path / "inside"):
        with pytest.raises(UsageError, match="inside the vault"):
            back_up(vault, place)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(UsageError, match="something else"):
        back_up(vault, tmp_path / "photos")


def test_another_vaults_copy_is_not_overwritten(vault, key_file, tmp_path):
    other = Vault.open(tmp_path / "other", key_file, create=True)
    back_up(other, tmp_path / "copy")
    with pytest.raises(RefusedError, match="another vault"):
        back_up(vault, tmp_path / "copy")


def test_a_damaged_vault_does_not_spoil_its_copy(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    record_of(vault.path).write_bytes(b"x")
    with pytest.raises(DamagedError, match="not copied"):
        back_up(vault, tmp_path / "copy")
    assert verify(Vault.open(tmp_path / "copy", key_file)).ok


def test_a_key_that_only_the_copy_has_stays_there(vault, key_file, tmp_path):
    vault.make_flash_key(OTHER, ESP32)
    back_up(vault, tmp_path / "copy")
    key = vault.flash_key(OTHER)
    record_of(vault.path, OTHER).unlink()
    back_up(vault, tmp_path / "copy")
    assert Vault.open(tmp_path / "copy", key_file).flash_key(OTHER) == key


@pytest.mark.parametrize("lost", ["everything", "the head", "one key", "one key, damaged", "the signing key"])
def test_what_is_lost_comes_back(vault, key_file, tmp_path, lost):
    vault.make_flash_key(OTHER, ESP32)
    back_up(vault, tmp_path / "copy")
    keys = {mac: vault.flash_key(mac) for mac in (MAC, OTHER)}
    point = vault.signing_public_key()
    if lost == "everything":
        shutil.rmtree(vault.path)
    elif lost == "the head":
        (vault.path / "vault.json").unlink()
    elif lost == "one key":
        record_of(vault.path).unlink()
    elif lost == "one key, damaged":
        record_of(vault.path).write_bytes(b"{")
    else:
        (vault.path / "signing.json").unlink()
    brought = restore(vault.path, tmp_path / "copy", key_file)
    again = Vault.open(vault.path, key_file)
    assert {mac: again.flash_key(mac) for mac in (MAC, OTHER)} == keys
    assert again.signing_public_key() == point
    assert len(brought) == (4 if lost == "everything" else 1)


def test_a_record_that_reads_well_but_does_not_open_is_replaced(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    key = vault.flash_key(MAC)
    fields = read_record(record_of(vault.path), newest=2, what="record")
    write_record(record_of(vault.path), {**fields, "key_id": "0" * 16})
    assert restore(vault.path, tmp_path / "copy", key_file) == (record_of(vault.path),)
    assert Vault.open(vault.path, key_file).flash_key(MAC) == key


def test_restoring_a_good_vault_changes_nothing(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    assert restore(vault.path, tmp_path / "copy", key_file) == ()


def test_two_different_keys_for_one_device_are_refused(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    kept = record_of(vault.path).read_bytes()
    record_of(vault.path).unlink()
    vault.make_flash_key(MAC, ESP32C3)
    for act in (
        lambda: restore(vault.path, tmp_path / "copy", key_file),
        lambda: back_up(vault, tmp_path / "copy"),
    ):
        with pytest.raises(RefusedError, match="different keys"):
            act()
    assert record_of(tmp_path / "copy").read_bytes() == kept


def test_restoring_over_another_vault_or_a_full_folder_is_refused(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    other = Vault.open(tmp_path / "other", key_file, create=True)
    with pytest.raises(RefusedError, match="another vault"):
        restore(other.path, tmp_path / "copy", key_file)
    full = tmp_path / "full"
    full.mkdir(mode=0o700)
    (full / "thesis.txt").write_text("x")
    with pytest.raises(NoVaultError, match="not empty"):
        restore(full, tmp_path / "copy", key_file)
    with pytest.raises(UsageError, match="same folder"):
        restore(vault.path, vault.path, key_file)


def test_restoring_with_the_wrong_secret_is_refused(vault, tmp_path):
    back_up(vault, tmp_path / "copy")
    with pytest.raises(WrongSecretError):
        restore(tmp_path / "new", tmp_path / "copy", KeyFile.create(tmp_path / "other.key"))
    assert not (tmp_path / "new").exists()


def test_after_a_change_of_secret_a_new_copy_opens_with_the_new_one(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    new = KeyFile.create(tmp_path / "new.key")
    vault.rekey(new)
    assert Vault.open(tmp_path / "copy", key_file).flash_key(MAC) == vault.flash_key(MAC)
    refresh(vault)
    assert Vault.open(tmp_path / "copy", new).flash_key(MAC) == vault.flash_key(MAC)
    with pytest.raises(WrongSecretError):
        Vault.open(tmp_path / "copy", key_file)
