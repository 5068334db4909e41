"""The copy of a flash key that its receiver gets: the key file, or a container that only they can open; and a challenge.

The container is CMS (RFC 5652) for the receiver's own certificate, AES-256: any OpenSSL opens it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import pkcs7

from harness.chips import Chip, Cipher, chip_named
from harness.errors import LabError, UsageError
from harness.vault.key_life import offer, require_new, write_new_private
from harness.vault.key_record import Challenge, KeyRecord
from harness.vault.record_file import FOLDER_MODE
from harness.vault.vault import Vault

KEY_FILE = "flash-key.bin"
CONTAINER_FILE = "flash-key.p7m"
BLOCK_FILE = "challenge.bin"
CHALLENGE_FILE = "challenge.json"
README_FILE = "README.txt"

FORMAT = 1
"""Of challenge.json."""

LEAST_RSA_BITS = 2048

_MOST_CERTIFICATE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Parcel:
    """What was made for a receiver."""

    record: KeyRecord
    folder: Path
    key_file: Path
    enciphered: bool


def make_parcel(
    vault: Vault, mac: str, folder: Path, *, receiver: str = "", certificate: Path | None = None
) -> Parcel:
    """A new folder with the key, a challenge, and what to do with them; the record awaits the answer from now on.

    Args:
        receiver: who gets it, for the record.
        certificate: an RSA certificate (PEM or DER); then the key leaves the vault only enciphered for it.

    Raises:
        UsageError: the folder exists; the certificate cannot be used.
        RefusedError: the key is unproven. NoVaultError, NoKeyHereError: there is none.
        LabError: it cannot be written.
    """
    require_new(folder)
    holder = _read_certificate(certificate) if certificate is not None else None
    # Killed after this, an answer is awaited that nobody can give; the next parcel asks anew.
    record = offer(vault, mac, receiver)
    _make_folder(folder)
    assert record.challenge is not None
    key = vault.stored_key(mac)
    file = folder / (KEY_FILE if holder is None else CONTAINER_FILE)
    write_new_private(file, key if holder is None else _enciphered(key, holder))
    write_new_private(folder / BLOCK_FILE, record.challenge.block)
    write_new_private(
        folder / CHALLENGE_FILE, (json.dumps(_challenge_fields(record), indent=1) + "\n").encode()
    )
    write_new_private(folder / README_FILE, _readme(record, enciphered=holder is not None).encode())
    return Parcel(record, folder, file, holder is not None)


def read_challenge(file: Path) -> tuple[Chip, Challenge, str]:
    """What challenge.json asks: the chip, the challenge, and the key id that is meant.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    todo = f"give the {CHALLENGE_FILE} that came with the key"
    try:
        with file.open("rb") as stream:
            fields: Any = json.loads(stream.read(1 << 16))
        version = fields["format"]
        if type(version) is not int or version > FORMAT:
            raise UsageError(f"{file} was made by a newer harness (format {version})", todo="use that one")
        challenge = Challenge(
            int(fields["address"]),
            bytes.fromhex(fields["block"]),
            str(fields["receiver"]),
            str(fields["made"]),
        )
        chip, key_id = chip_named(str(fields["chip"])), str(fields["key_id"])
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", todo=todo) from error
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{file} is no challenge: {type(error).__name__}", todo=todo) from error
    return chip, challenge, key_id


def _challenge_fields(record: KeyRecord) -> dict[str, Any]:
    challenge = record.challenge
    assert challenge is not None
    return {
        "format": FORMAT,
        "mac": record.mac,
        "chip": record.chip_name,
        "cipher": record.chip.cipher.value,
        "key_id": record.key_id,
        "address": challenge.address,
        "block": challenge.block.hex(),
        "receiver": challenge.receiver,
        "made": challenge.made,
    }


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=FOLDER_MODE)
    except FileExistsError as error:
        raise UsageError(
            f"{folder} exists; a key is put into a new folder only", todo="name another"
        ) from error
    except OSError as error:
        raise LabError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _read_certificate(file: Path) -> x509.Certificate:
    todo = "give an X.509 certificate of the receiver with an RSA key, PEM or DER"
    try:
        with file.open("rb") as stream:
            data = stream.read(_MOST_CERTIFICATE_BYTES)
    except OSError as error:
        raise UsageError(f"the certificate {file} cannot be read: {error.strerror}", todo=todo) from error
    load = x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate
    try:
        certificate = load(data)
        public = certificate.public_key()
    except ValueError as error:
        raise UsageError(f"{file} is no certificate", todo=todo) from error
    if not isinstance(public, rsa.RSAPublicKey):
        raise UsageError(
            f"the certificate {file} has no RSA key, and only for those a key can be enciphered", todo=todo
        )
    if public.key_size < LEAST_RSA_BITS:
        raise UsageError(f"the certificate {file} has an RSA key of {public.key_size} bits only", todo=todo)
    return certificate


def _enciphered(key: bytes, certificate: x509.Certificate) -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(key).add_recipient(certificate)
    builder = builder.set_content_encryption_algorithm(algorithms.AES256)
    return builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def espsecure_command(record: KeyRecord, challenge: Challenge) -> str:
    """How the block is enciphered with Espressif's tool."""
    aes = "" if record.chip.cipher is Cipher.ESP32_AES else "--aes-xts "
    return (
        f"espsecure encrypt-flash-data {aes}--keyfile {KEY_FILE} --address {challenge.address:#x} "
        f"--output answer.bin {BLOCK_FILE}"
    )


def _readme(record: KeyRecord, *, enciphered: bool) -> str:
    challenge = record.challenge
    assert challenge is not None
    opening = (
        f"""
Open the container with your private key, into a place that only you can read:

    openssl cms -decrypt -binary -inform DER -in {CONTAINER_FILE} -inkey YOUR-KEY.pem -out {KEY_FILE}
"""
        if enciphered
        else ""
    )
    waiting = (
        f"Until that answer has come the device counts as {record.state.value}, and must not be shipped.\n"
        if not record.state.shippable
        else ""
    )
    return f"""\
The flash encryption key of {record.chip.title} {record.mac}, key id {record.key_id}.

Whoever has it can read and write the flash of this device, and only who has it can encipher updates for it.
It cannot be changed: it is in the chip's eFuses. Keep it as long as the device lives.
{opening}
To show that your copy is whole, encipher {BLOCK_FILE} with it and send back answer.bin, which tells nothing of the key:

    {espsecure_command(record, challenge)}

or, with this project's tool, which prints the answer as text:

    harness keys answer {CHALLENGE_FILE} --key {KEY_FILE}

{waiting}"""
