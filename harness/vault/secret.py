"""What opens a vault: a key file, or a passphrase. Neither ever shows its content."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from harness.errors import LabError, UsageError
from harness.vault.errors import DamagedError, WrongSecretError
from harness.vault.record_file import make_private_folder, require_private, write_bytes

SCRYPT_N = 1 << 17
"""Cost of scrypt for new vaults: 128 MiB and about half a second (OWASP's recommendation with r=8, p=1)."""

_SCRYPT_N_RANGE = range(1 << 14, (1 << 20) + 1)
"""A vault file may not make us spend gigabytes, nor pretend that a cheap hash is enough."""

_KEY_FILE_BYTES = range(32, 65537)
_KEK_BYTES = 32
_SALT_BYTES = 16


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file of at least 32 unguessable bytes (line ends at its end do not count), private to its owner."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> KeyFile:
        """Makes a new key file of 256 random bits, as text that can also be kept on paper.

        Raises:
            UsageError: the file exists; a key file is never overwritten.
            LabError: it cannot be written.
        """
        if path.exists():
            raise UsageError(f"the key file {path} exists already", todo="use it, or name another file")
        make_private_folder(path.parent)
        write_bytes(path, secrets.token_hex(32).encode("ascii") + b"\n")
        return cls(path)

    def new_parameters(self) -> dict[str, Any]:
        """What a new vault stores to derive the key-encryption key again; not secret."""
        return {"name": "key-file", "salt": secrets.token_hex(_SALT_BYTES)}

    def key_encryption_key(self, parameters: dict[str, Any]) -> bytes:
        """32 bytes: HKDF-SHA256 of the file's content with the vault's salt.

        Raises:
            WrongSecretError: the vault wants a passphrase.
            UsageError: the file is missing or too short.
            UnsafePermissionsError: others may read it.
        """
        if parameters.get("name") != "key-file":
            raise WrongSecretError(
                "this vault opens with a passphrase, and a key file was given", todo="give the passphrase"
            )
        try:
            require_private(self.path)
            with self.path.open("rb") as stream:
                # Not all of whatever was named: a device or an image of gigabytes is no key file either way.
                content = stream.read(_KEY_FILE_BYTES.stop + 2).rstrip(b"\r\n")
        except OSError as error:
            raise UsageError(f"the key file {self.path} cannot be read: {error.strerror}") from error
        if len(content) not in _KEY_FILE_BYTES:
            size = str(len(content)) if len(content) < _KEY_FILE_BYTES.stop else "more than 65536"
            raise UsageError(
                f"the key file {self.path} has {size} bytes; it needs 32 to 65536",
                todo="fill it with 32 random bytes or more; nothing else may be in it",
            )
        salt = _salt(parameters)
        return HKDF(hashes.SHA256(), _KEK_BYTES, salt, b"esp32-secure-ota vault key-encryption key").derive(
            content
        )


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Words that a person knows.

    `scrypt_n` is the cost for vaults that are made or rekeyed with it, a power of two.
    """

    words: bytes = field(repr=False)
    scrypt_n: int = SCRYPT_N

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Passphrase:
        """Reads one line from an open file descriptor, so that no process list or environment shows it.

        Raises:
            UsageError: nothing readable there.
        """
        try:
            with os.fdopen(descriptor, "rb", closefd=False) as stream:
                line = stream.readline(4096)
        except (OSError, TypeError) as error:
            # TypeError: the number is none that a descriptor can have.
            raise UsageError(
                f"the passphrase cannot be read from descriptor {descriptor}",
                todo="open it in the same command, as number 3 here: 3< FILE",
            ) from error
        return cls(line.rstrip(b"\r\n"))

    def new_parameters(self) -> dict[str, Any]:
        """As `KeyFile.new_parameters`.

        Raises:
            UsageError: the passphrase is shorter than 8 bytes.
        """
        if len(self.words) < 8:
            raise UsageError(
                "the passphrase is too short", todo="use at least 8 characters; five words are good"
            )
        return {
            "name": "scrypt",
            "salt": secrets.token_hex(_SALT_BYTES),
            "n": self.scrypt_n,
            "r": 8,
            "p": 1,
        }

    def key_encryption_key(self, parameters: dict[str, Any]) -> bytes:
        """32 bytes: scrypt of the passphrase with the vault's salt and cost.

        Raises:
            WrongSecretError: the vault wants a key file.
            DamagedError: the cost parameters are out of range.
            LabError: not enough memory for scrypt.
        """
        if parameters.get("name") != "scrypt":
            raise WrongSecretError(
                "this vault opens with a key file, and a passphrase was given", todo="give the key file"
            )
        n, r, p = (parameters.get(name) for name in ("n", "r", "p"))
        if type(n) is not int or n not in _SCRYPT_N_RANGE or n & (n - 1) or r != 8 or p != 1:
            raise DamagedError(f"the vault's scrypt parameters are out of range (n={n}, r={r}, p={p})")
        try:
            return Scrypt(salt=_salt(parameters), length=_KEK_BYTES, n=n, r=8, p=1).derive(self.words)
        except (MemoryError, UnsupportedAlgorithm) as error:
            raise LabError(f"scrypt with n={n} does not run here: {type(error).__name__}") from error


Secret = KeyFile | Passphrase


def _salt(parameters: dict[str, Any]) -> bytes:
    try:
        salt = bytes.fromhex(parameters["salt"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError("the vault's salt is not readable") from error
    if len(salt) < _SALT_BYTES:
        raise DamagedError(f"the vault's salt has {len(salt)} bytes instead of {_SALT_BYTES}")
    return salt
