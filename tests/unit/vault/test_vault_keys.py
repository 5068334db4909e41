"""The vault keeps keys: made once, never overwritten, bound to their device, never shown."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.chips import ESP32, ESP32C3
from harness.errors import HarnessError, RefusedError, UsageError
from harness.vault import (
    DamagedError,
    KeyFile,
    NoVaultError,
    Passphrase,
    UnsafePermissionsError,
    Vault,
    VaultBusyError,
    WrongSecretError,
    key_id,
)
from harness.vault import vault as vault_module
from harness.vault.record_file import read_record, write_record

MAC = "02:00:00:aa:bb:01"
OTHER = "02:00:00:aa:bb:02"
WORDS = b"five words are a passphrase"
CHEAP = 1 << 14


def passphrase(words: bytes = WORDS) -> Passphrase:
    return Passphrase(words, scrypt_n=CHEAP)


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "secret" / "vault.key")


@pytest.fixture
def vault(tmp_path: Path, key_file: KeyFile) -> Vault:
    return Vault.open(tmp_path / "vault", key_file, create=True)


def key_record(vault: Vault, mac: str = MAC) -> Path:
    return vault.path / "keys" / f"{mac.replace(':', '-')}.json"


@pytest.mark.parametrize("chip", [ESP32, ESP32C3])
def test_a_key_is_on_disk_and_readable_by_a_second_process_once_it_has_a_name(vault, key_file, chip):
    ref = vault.make_flash_key(MAC, chip)
    again = Vault.open(vault.path, key_file)
    key = again.flash_key(MAC)
    assert len(key) == chip.cipher.key_size_bytes
    assert ref == again.key(MAC)
    assert ref.key_id == key_id(key)
    assert ref.state == "test-only"


def test_making_a_key_twice_gives_the_first_one(vault):
    first = vault.make_flash_key(MAC, ESP32C3)
    key = vault.flash_key(MAC)
    assert vault.make_flash_key(MAC.upper(), ESP32C3) == first
    assert vault.flash_key(MAC) == key


def test_two_devices_have_two_keys(vault):
    vault.make_flash_key(MAC, ESP32C3)
    vault.make_flash_key(OTHER, ESP32C3)
    assert vault.flash_key(MAC) != vault.flash_key(OTHER)
    assert [ref.mac for ref in vault.key_refs()] == [MAC, OTHER]


def test_one_mac_cannot_be_two_chips(vault):
    vault.make_flash_key(MAC, ESP32C3)
    with pytest.raises(RefusedError, match="as esp32c3, not as esp32"):
        vault.make_flash_key(MAC, ESP32)


def test_a_device_without_key_is_an_error_that_names_it(vault):
    assert vault.key(MAC) is None
    with pytest.raises(NoVaultError, match=MAC):
        vault.flash_key(MAC)


def test_the_key_id_follows_the_packages_rule():
    # firmware/README.md, package header offset 24
    assert key_id(bytes(range(32))) == "2365ac83273f2b91"


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_everything_in_the_vault_is_private(vault):
    vault.make_flash_key(MAC, ESP32C3)
    vault.signing_key()
    for path in [vault.path, *vault.path.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
@pytest.mark.parametrize("name", [".", "vault.json", "keys/02-00-00-aa-bb-01.json"])
def test_a_vault_that_others_may_read_is_refused(vault, key_file, name):
    vault.make_flash_key(MAC, ESP32C3)
    path = vault.path / name
    path.chmod(path.stat().st_mode | 0o040)
    with pytest.raises(UnsafePermissionsError, match="chmod"):
        Vault.open(vault.path, key_file).flash_key(MAC)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_key_file_that_others_may_read_is_refused(vault, key_file):
    key_file.path.chmod(0o644)
    with pytest.raises(UnsafePermissionsError, match=r"vault\.key"):
        Vault.open(vault.path, key_file)


def test_the_wrong_passphrase_is_one_clear_error(tmp_path):
    Vault.open(tmp_path / "v", passphrase(), create=True)
    with pytest.raises(WrongSecretError, match="the passphrase does not open the vault"):
        Vault.open(tmp_path / "v", passphrase(b"five words are a passphrasf"))
    Vault.open(tmp_path / "v", passphrase())


def test_the_wrong_key_file_is_one_clear_error(vault, tmp_path):
    with pytest.raises(WrongSecretError, match="the key file does not open the vault"):
        Vault.open(vault.path, KeyFile.create(tmp_path / "other.key"))


def test_a_passphrase_for_a_key_file_vault_says_what_is_wanted(vault, tmp_path, key_file):
    with pytest.raises(WrongSecretError, match="opens with a key file"):
        Vault.open(vault.path, passphrase())
    Vault.open(tmp_path / "p", passphrase(), create=True)
    with pytest.raises(WrongSecretError, match="opens with a passphrase"):
        Vault.open(tmp_path / "p", key_file)


def test_a_passphrase_comes_through_a_descriptor():
    reading, writing = os.pipe()
    os.write(writing, WORDS + b"\nsecond line")
    os.close(writing)
    try:
        assert Passphrase.from_descriptor(reading).words == WORDS
    finally:
        os.close(reading)
    with pytest.raises(UsageError, match="descriptor 999"):
        Passphrase.from_descriptor(999)


def test_a_short_passphrase_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(UsageError, match="too short"):
        Vault.open(tmp_path / "v", passphrase(b"short"), create=True)
    with pytest.raises(NoVaultError):
        Vault.open(tmp_path / "v", passphrase(b"short"))


def test_a_short_or_missing_key_file_is_refused(tmp_path):
    path = tmp_path / "short.key"
    path.write_bytes(b"x" * 31 + b"\n")
    path.chmod(0o600)
    with pytest.raises(UsageError, match="31 bytes"):
        Vault.open(tmp_path / "v", KeyFile(path), create=True)
    with pytest.raises(UsageError, match="cannot be read"):
        Vault.open(tmp_path / "v", KeyFile(tmp_path / "none.key"), create=True)


def test_a_key_file_is_never_overwritten(key_file):
    before = key_file.path.read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        KeyFile.create(key_file.path)
    assert key_file.path.read_bytes() == before


def test_no_vault_and_not_a_vault_are_told_apart(tmp_path, key_file):
    with pytest.raises(NoVaultError, match="there is no vault"):
        Vault.open(tmp_path / "nothing", key_file)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("x")
    with pytest.raises(NoVaultError, match="not empty"):
        Vault.open(full, key_file, create=True)
    assert [path.name for path in full.iterdir()] == ["thesis.txt"]


def test_a_swapped_record_is_noticed(vault):
    vault.make_flash_key(MAC, ESP32C3)
    vault.make_flash_key(OTHER, ESP32C3)
    key_record(vault, OTHER).write_bytes(key_record(vault, MAC).read_bytes())
    with pytest.raises(DamagedError, match="swapped"):
        vault.flash_key(OTHER)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mac", OTHER),
        ("chip", "esp32"),
        ("key_id", "0" * 16),
        ("key_state", "handed-over"),
        ("purpose", "ota-signing-key"),
    ],
)
def test_a_record_whose_label_was_changed_with_its_checksum_does_not_open(vault, field, value):
    vault.make_flash_key(MAC, ESP32C3)
    fields = read_record(key_record(vault), newest=2, what="record")
    target = key_record(vault, value) if field == "mac" else key_record(vault)
    write_record(target, {**fields, field: value})
    with pytest.raises(DamagedError, match="does not open"):
        vault.flash_key(value if field == "mac" else MAC)


def test_a_record_of_another_vault_does_not_open(vault, tmp_path, key_file):
    other = Vault.open(tmp_path / "other", key_file, create=True)
    other.make_flash_key(MAC, ESP32C3)
    vault.make_flash_key(MAC, ESP32C3)
    key_record(vault).write_bytes(key_record(other).read_bytes())
    with pytest.raises(DamagedError, match="another vault"):
        vault.flash_key(MAC)


@pytest.mark.parametrize("position", [0, 5, 40, -3, -100])
def test_one_changed_byte_in_a_record_is_damage(vault, position):
    vault.make_flash_key(MAC, ESP32C3)
    data = bytearray(key_record(vault).read_bytes())
    data[position] ^= 0x01
    key_record(vault).write_bytes(bytes(data))
    with pytest.raises(DamagedError, match="restore it from the second copy"):
        vault.flash_key(MAC)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"format":"1"}', b'{"format":true}', b"\xff\xfe", b"[" * 5000],
)
def test_nonsense_instead_of_a_record_is_damage(vault, key_file, content):
    vault.make_flash_key(MAC, ESP32C3)
    key_record(vault).write_bytes(content)
    with pytest.raises(DamagedError):
        vault.flash_key(MAC)
    (vault.path / "vault.json").write_bytes(content)
    with pytest.raises(DamagedError):
        Vault.open(vault.path, key_file)


@pytest.mark.parametrize("n", [1024, (1 << 20) + 1, 1 << 30, "131072", True, 20000])
def test_absurd_scrypt_costs_in_the_file_are_refused_unspent(tmp_path, n):
    vault = Vault.open(tmp_path / "v", passphrase(), create=True)
    head = vault.path / "vault.json"
    fields = read_record(head, newest=1, what="vault")
    write_record(head, {**fields, "kdf": {**fields["kdf"], "n": n}})
    with pytest.raises(DamagedError, match="out of range"):
        Vault.open(vault.path, passphrase())


@pytest.mark.parametrize("mac", ["", "..", "../../x", "02:00:00:aa:bb", "02:00:00:aa:bb:zz", "a" * 400])
def test_a_mac_that_is_none_never_becomes_a_path(vault, mac):
    for act in (vault.key, vault.flash_key, vault.intent, lambda text: vault.make_flash_key(text, ESP32C3)):
        with pytest.raises(UsageError, match="not a MAC"):
            act(mac)


def test_the_signing_key_is_made_once_and_signs(vault, key_file):
    key = vault.signing_key()
    point = vault.signing_public_key()
    assert len(point) == 65
    assert point[0] == 4
    assert Vault.open(vault.path, key_file).signing_public_key() == point
    signature = key.sign(b"package", ec.ECDSA(hashes.SHA256()))
    ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point).verify(
        signature, b"package", ec.ECDSA(hashes.SHA256())
    )


def test_no_secret_is_in_any_file_repr_or_error(tmp_path, capsys):
    secret = passphrase()
    vault = Vault.open(tmp_path / "v", secret, create=True)
    vault.make_flash_key(MAC, ESP32C3)
    private = vault.signing_key().private_numbers().private_value.to_bytes(32, "big")
    key = vault.flash_key(MAC)
    pem = vault.signing_key().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    texts = [repr(vault), str(vault), repr(secret), repr(vault.key(MAC)), repr(vars(vault).keys())]
    (vault.path / "vault.json").chmod(0o600)
    key_record(vault).write_bytes(key_record(vault).read_bytes()[:-9])
    with pytest.raises(HarnessError) as error:
        vault.flash_key(MAC)
    texts += [str(error.value), repr(error.value), "".join(capsys.readouterr())]
    contents = [path.read_bytes() for path in vault.path.rglob("*") if path.is_file()]
    for hidden in (key, private, pem, WORDS):
        for content in [*contents, *(text.encode() for text in texts)]:
            assert hidden not in content
            assert hidden.hex().encode() not in content.lower()
        assert not any(repr(hidden) in text for text in texts)


def test_writers_take_turns_and_lose_nothing(vault, key_file):
    macs = [f"02:00:00:00:01:{index:02x}" for index in range(12)]
    errors: list[BaseException] = []

    def make(some: list[str]) -> None:
        try:
            mine = Vault.open(vault.path, key_file)
            for mac in some:
                mine.make_flash_key(mac, ESP32C3)
        except BaseException as error:  # noqa: BLE001 -- a thread's failure must reach the test
            errors.append(error)

    threads = [threading.Thread(target=make, args=(macs[start::2] + macs[:3],)) for start in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [ref.mac for ref in vault.key_refs()] == macs
    assert all(vault.flash_key(mac) for mac in macs)


def test_a_writer_that_never_ends_is_one_clear_error(vault, monkeypatch):
    monkeypatch.setattr(vault_module, "_LOCK_TIMEOUT_S", 0.05)
    holding, release = threading.Event(), threading.Event()

    def hold() -> None:
        with vault_module.writing(vault.path):
            holding.set()
            release.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(60)
        with pytest.raises(VaultBusyError, match="another process"):
            vault.make_flash_key(MAC, ESP32C3)
    finally:
        release.set()
        thread.join()
    assert vault.make_flash_key(MAC, ESP32C3)


def test_left_over_temporary_files_of_a_killed_writer_go_away(vault):
    vault.make_flash_key(MAC, ESP32C3)
    stale = vault.path / "keys" / "02-00-00-aa-bb-02.json.12345678.part"
    stale.write_bytes(b"half")
    vault.make_flash_key(OTHER, ESP32C3)
    assert not stale.exists()
    assert json.loads(key_record(vault, OTHER).read_text())["mac"] == OTHER
