"""What a receiver gets works with Espressif's and OpenSSL's tools, and is of use to nobody else."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from harness.chips import ESP32, ESP32C3, Chip
from harness.errors import RefusedError, UsageError
from harness.vault import KeyFile, KeyState, Vault
from harness.vault.hand_over import espsecure_command, make_parcel, read_challenge
from harness.vault.key_life import answer_to, hand_over, import_key

MAC = "02:00:00:aa:bb:01"
BOTH = pytest.mark.parametrize("chip", [ESP32, ESP32C3], ids=lambda chip: chip.name)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return Vault.open(tmp_path / "vault", KeyFile.create(tmp_path / "vault.key"), create=True)


def certificate(folder: Path, private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Path:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME")])
    now = datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).serial_number(1)
    builder = builder.public_key(private.public_key()).not_valid_before(now)
    made = builder.not_valid_after(now + datetime.timedelta(days=9000)).sign(private, hashes.SHA256())
    (folder / "acme.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "acme.key").write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "acme.pem"


@BOTH
def test_espsecure_alone_gives_the_right_answer(vault: Vault, tmp_path: Path, chip: Chip) -> None:
    vault.make_flash_key(MAC, chip)
    parcel = make_parcel(vault, MAC, tmp_path / "parcel", receiver="ACME")
    assert parcel.record.challenge is not None
    command = espsecure_command(parcel.record, parcel.record.challenge)
    assert command in (tmp_path / "parcel" / "README.txt").read_text()
    words = [sys.executable, "-m", *command.split()]
    subprocess.run(words, cwd=parcel.folder, check=True, capture_output=True, timeout=300)
    answer = (parcel.folder / "answer.bin").read_bytes()
    assert hand_over(vault, MAC, answer).state is KeyState.HANDED_OVER


@BOTH
def test_the_challenge_file_says_all_that_an_answer_needs(vault: Vault, tmp_path: Path, chip: Chip) -> None:
    vault.make_flash_key(MAC, chip)
    parcel = make_parcel(vault, MAC, tmp_path / "parcel")
    asked, challenge, which = read_challenge(parcel.folder / "challenge.json")
    assert (asked, challenge, which) == (chip, parcel.record.challenge, parcel.record.key_id)
    key = parcel.key_file.read_bytes()
    hand_over(vault, MAC, answer_to(asked, key, challenge))


def test_everything_in_a_parcel_is_private(vault: Vault, tmp_path: Path) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    parcel = make_parcel(vault, MAC, tmp_path / "parcel")
    assert parcel.folder.stat().st_mode & 0o777 == 0o700
    for file in parcel.folder.iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
        if file != parcel.key_file:
            assert vault.stored_key(MAC).hex() not in file.read_bytes().hex()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
def test_a_container_opens_with_the_receivers_key_and_openssl(vault: Vault, tmp_path: Path) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    holder = certificate(tmp_path, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    parcel = make_parcel(vault, MAC, tmp_path / "parcel", certificate=holder)
    assert parcel.enciphered
    for file in parcel.folder.iterdir():
        assert vault.stored_key(MAC) not in file.read_bytes()
    line = next(
        line for line in (parcel.folder / "README.txt").read_text().splitlines() if "openssl cms" in line
    )
    words = line.replace("YOUR-KEY.pem", str(tmp_path / "acme.key")).split()
    subprocess.run(words, cwd=parcel.folder, check=True, capture_output=True, timeout=300)
    assert (parcel.folder / "flash-key.bin").read_bytes() == vault.stored_key(MAC)
    shown = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", str(parcel.key_file)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "aes-256-cbc" in shown.stdout


@pytest.mark.parametrize("what", ["no certificate", "an EC key", "a short RSA key", "nothing"])
def test_a_certificate_that_cannot_be_used_is_said_before_anything_is_made(
    vault: Vault, tmp_path: Path, what: str
) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    file = tmp_path / "acme.pem"
    if what == "no certificate":
        file.write_text("hello")
    elif what == "an EC key":
        certificate(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    elif what == "a short RSA key":
        certificate(tmp_path, rsa.generate_private_key(public_exponent=65537, key_size=1024))
    before = vault.key_file(MAC).read_bytes()
    with pytest.raises(UsageError, match=r"acme\.pem"):
        make_parcel(vault, MAC, tmp_path / "parcel", certificate=file)
    assert not (tmp_path / "parcel").exists()
    assert vault.key_file(MAC).read_bytes() == before


def test_a_folder_that_exists_is_not_used_and_voids_no_challenge(vault: Vault, tmp_path: Path) -> None:
    vault.make_flash_key(MAC, ESP32C3)
    first = make_parcel(vault, MAC, tmp_path / "parcel")
    with pytest.raises(UsageError, match="exists"):
        make_parcel(vault, MAC, tmp_path / "parcel")
    record = vault.key_record(MAC)
    assert record is not None
    assert record.challenge == first.record.challenge


def test_an_unproven_key_makes_no_parcel(vault: Vault, tmp_path: Path) -> None:
    import_key(vault, MAC, ESP32C3, bytes(range(32)))
    with pytest.raises(RefusedError, match="is unproven"):
        make_parcel(vault, MAC, tmp_path / "parcel")
    assert not (tmp_path / "parcel").exists()


EMPTY = {"format": 1, "key_id": "", "address": 0, "block": "", "receiver": "", "made": ""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no challenge"),
        ("[]", "is no challenge"),
        ('{"format": 1}', "is no challenge"),
        ('{"format": 2}', "newer harness"),
        (
            json.dumps(
                {
                    "format": 1,
                    "chip": "esp99",
                    "key_id": "",
                    "address": 0,
                    "block": "",
                    "receiver": "",
                    "made": "",
                }
            ),
            "esp99",
        ),
    ],
)
def test_what_is_no_challenge_is_said_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "challenge.json"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_challenge(file)


def test_a_receiver_whose_name_would_break_a_line_is_refused_before_anything_is_made(
    vault: Vault, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="control characters"):
        make_parcel(vault, MAC, tmp_path / "parcel", receiver="ACME\n\x1b[31m")
    assert not (tmp_path / "parcel").exists()


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless file on this host")
def test_no_more_than_a_certificate_is_read_of_a_file_that_is_none(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no certificate"):
        make_parcel(vault, MAC, tmp_path / "parcel", certificate=Path("/dev/zero"))
