"""Secure boot keys in the vault: made once, never overwritten, in every copy, alive after a kill."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import espsecure
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_vault_kills import lives

from harness.build.boot_key import generate
from harness.chips import SigningScheme
from harness.errors import FormatError, LabError, RefusedError, UsageError
from harness.formats.signature_block import PrivateKey, key_digest, scheme_of
from harness.vault import DamagedError, KeyFile, NoVaultError, Vault, back_up, refresh, restore, verify
from harness.vault import place as place_module
from harness.vault.boot_keys import boot_key, boot_keys, import_boot_key, make_boot_key
from harness.vault.place import place_problems, probe_place

P256, P192, RSA = SigningScheme.ECDSA_P256, SigningScheme.ECDSA_P192, SigningScheme.RSA_3072


def key_of(number: int) -> PrivateKey:
    return ec.derive_private_key(0xABCDEF + number, ec.SECP256R1())


def pem_of(number: int) -> bytes:
    return key_of(number).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def key_file(tmp_path: Path) -> KeyFile:
    return KeyFile.create(tmp_path / "vault.key")


@pytest.fixture
def vault(tmp_path: Path, key_file: KeyFile) -> Vault:
    return Vault.open(tmp_path / "vault", key_file, create=True)


@pytest.mark.parametrize("scheme", list(SigningScheme), ids=lambda scheme: scheme.value)
def test_a_key_is_made_once_and_kept(vault, key_file, scheme):
    made = make_boot_key(vault, scheme, 0, generate)
    again = Vault.open(vault.path, key_file)
    assert make_boot_key(again, scheme, 0, generate) == made
    assert boot_key(again, scheme, 0).key.private_numbers() == made.key.private_numbers()
    assert scheme_of(made.key.public_key()) is scheme
    assert made.digest == espsecure._digest_sbv2_public_key(io.BytesIO(made.public_pem))
    assert made.name == f"{scheme.value}-0"
    assert not made.imported


def test_every_slot_and_scheme_has_a_key_of_its_own(vault):
    made = [make_boot_key(vault, scheme, slot, generate) for scheme in (P256, P192) for slot in range(3)]
    assert len({key.digest for key in made}) == 6
    assert sorted(key.name for key in boot_keys(vault)) == sorted(key.name for key in made)
    assert verify(vault).ok


def test_the_private_key_is_in_no_file_as_it_is(vault):
    made = make_boot_key(vault, P256, 0, generate)
    secret = made.key.private_numbers().private_value.to_bytes(32, "big")
    for file in vault.path.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        assert secret not in content
        assert secret.hex().encode() not in content
        assert b"PRIVATE" not in content
    assert "key=" not in repr(made)
    assert (vault.path / "boot-keys" / "ecdsa256-0.json").stat().st_mode & 0o077 == 0


def test_there_is_no_fourth_slot_and_no_key_unless_one_is_made(vault):
    with pytest.raises(UsageError, match="slots are 0 to 2"):
        boot_key(vault, P256, 3)
    with pytest.raises(NoVaultError, match="no ecdsa256 key for digest slot 1"):
        boot_key(vault, P256, 1)
    assert boot_keys(vault) == ()


def test_an_imported_key_is_the_one_in_the_file(vault):
    taken = import_boot_key(vault, pem_of(1), 2, name="mine.pem")
    assert taken.digest == key_digest(key_of(1).public_key())
    assert taken.imported
    assert import_boot_key(vault, pem_of(1), 2, name="mine.pem") == taken
    assert make_boot_key(vault, P256, 2, generate) == taken


def test_a_key_is_never_overwritten(vault):
    made = make_boot_key(vault, P256, 0, generate)
    with pytest.raises(RefusedError, match="has another ecdsa256 key for digest slot 0"):
        import_boot_key(vault, pem_of(1), 0, name="mine.pem")
    assert boot_key(vault, P256, 0) == made


def test_what_is_no_private_key_is_not_imported(vault):
    public = (
        key_of(1)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for pem in (public, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(FormatError, match=r"mine\.pem is no (private )?key in PEM form"):
            import_boot_key(vault, pem, 0, name="mine.pem")
    assert boot_keys(vault) == ()


def test_copies_have_the_key_and_bring_it_back(vault, key_file, tmp_path):
    back_up(vault, tmp_path / "copy")
    made = make_boot_key(vault, P256, 1, generate)
    refresh(vault)
    assert boot_key(Vault.open(tmp_path / "copy", key_file), P256, 1) == made
    (vault.path / "boot-keys" / "ecdsa256-1.json").write_bytes(b"{")
    with pytest.raises(DamagedError):
        boot_key(vault, P256, 1)
    assert restore(vault.path, tmp_path / "copy", key_file) == (vault.path / "boot-keys" / "ecdsa256-1.json",)
    assert boot_key(vault, P256, 1) == made
    shutil.rmtree(vault.path)
    restore(vault.path, tmp_path / "copy", key_file)
    assert boot_key(Vault.open(vault.path, key_file), P256, 1) == made


def test_two_different_keys_for_one_slot_are_refused(vault, key_file, tmp_path):
    make_boot_key(vault, P256, 0, generate)
    back_up(vault, tmp_path / "copy")
    (vault.path / "boot-keys" / "ecdsa256-0.json").unlink()
    make_boot_key(vault, P256, 0, generate)
    for act in (lambda: restore(vault.path, tmp_path / "copy", key_file), lambda: refresh(vault)):
        with pytest.raises(RefusedError, match="different keys for secure boot key ecdsa256-0"):
            act()


def test_verify_finds_a_damaged_and_a_swapped_key(vault):
    for slot in range(2):
        make_boot_key(vault, P256, slot, generate)
    folder = vault.path / "boot-keys"
    (folder / "ecdsa256-0.json").write_bytes((folder / "ecdsa256-1.json").read_bytes())
    (folder / "ecdsa256-1.json").write_bytes(b"x")
    problems = " ".join(verify(vault).problems)
    assert "ecdsa256-0.json holds another key than it says" in problems
    assert "ecdsa256-1.json is damaged" in problems


def test_a_record_of_another_kind_in_its_place_is_damage(vault):
    make_boot_key(vault, P256, 0, generate)
    vault.seal(vault.path / "boot-keys" / "ecdsa256-1.json", {"scheme": "ecdsa256", "slot": 1}, b"no key")
    with pytest.raises(DamagedError, match="not a signing key"):
        boot_key(vault, P256, 1)


def test_a_copy_without_the_key_does_not_count_before_a_burn(vault, tmp_path, monkeypatch):
    monkeypatch.setattr(place_module, "lies_elsewhere", lambda *_: True)
    monkeypatch.setattr(place_module, "_mounts", lambda: ())
    back_up(vault, tmp_path / "copy")
    assert place_problems(probe_place(vault)) == ()
    make_boot_key(vault, P256, 0, generate)
    assert "has no ecdsa256 key for digest slot 0" in " ".join(place_problems(probe_place(vault)))
    refresh(vault)
    assert place_problems(probe_place(vault)) == ()


def test_a_kill_while_a_key_is_made_leaves_one_key_or_none(vault, key_file, monkeypatch):
    old = make_boot_key(vault, P256, 0, generate)
    seen: set[bytes] = set()
    for _ in lives(monkeypatch, lambda: seen.add(make_boot_key(vault, P256, 1, generate).digest)):
        again = Vault.open(vault.path, key_file)
        assert boot_key(again, P256, 0) == old
        assert verify(again).ok
        seen.update(key.digest for key in boot_keys(again) if key.slot == 1)
    # A key that could be read back once is the key for ever.
    assert len(seen) == 1
    assert not list(vault.path.rglob("*.part"))


def test_a_kill_while_the_vault_is_copied_leaves_a_copy_that_opens_or_none(
    vault, key_file, tmp_path, monkeypatch
):
    made = make_boot_key(vault, P256, 0, generate)
    place = tmp_path / "copy"
    for _ in lives(monkeypatch, lambda: back_up(vault, place)):
        if (place / "vault.json").exists():
            assert boot_key(Vault.open(place, key_file), P256, 0) == made
    assert boot_key(Vault.open(place, key_file), P256, 0) == made


def test_a_record_says_who_may_read_it_and_nothing_secret(vault):
    made = make_boot_key(vault, P256, 0, generate)
    fields = json.loads((vault.path / "boot-keys" / "ecdsa256-0.json").read_text())
    assert set(fields) == {
        "format", "purpose", "scheme", "slot", "key_id", "made", "imported", "sealed", "check",
    }  # fmt: skip
    assert fields["key_id"] == made.digest.hex()


def test_nothing_of_a_new_key_stays_in_the_folder_where_espsecure_wrote_it(monkeypatch, tmp_path):
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr("harness.build.boot_key._MEMORY", memory)
    generate(P256)
    assert list(memory.iterdir()) == []
    monkeypatch.setattr("harness.build.boot_key._MEMORY", tmp_path / "absent")
    assert scheme_of(generate(RSA).public_key()) is RSA


def test_an_espsecure_that_fails_is_a_lab_error(monkeypatch):
    def fail(*_: object) -> None:
        raise espsecure.esptool.FatalError("disk full")

    monkeypatch.setattr(espsecure, "generate_signing_key", fail)
    with pytest.raises(LabError, match="making a signing key failed: disk full"):
        generate(P256)
