"""Secure boot signing keys in the vault: one per scheme and digest slot, for all boards of the vault.

A key is never overwritten: its digest may be in somebody's eFuses, and without it nothing new boots there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from harness.chips import SigningScheme
from harness.errors import FormatError, RefusedError, UsageError
from harness.formats.signature_block import PrivateKey, key_digest, read_private_key, scheme_of
from harness.vault.errors import DamagedError, NoVaultError
from harness.vault.record_file import now_utc
from harness.vault.vault import BOOT_KEYS_FOLDER, Vault

SLOTS = 3
"""Digest slots of the chips that have most."""
MOST_PEM_BYTES = 1 << 16
"""No key is longer: of a file that was named by mistake no more is read."""

_PURPOSE = "boot-key"

Generate = Callable[[SigningScheme], PrivateKey]
"""Makes a new key; `harness.build.boot_key.generate` has espsecure do it."""


@dataclass(frozen=True, slots=True)
class StoredBootKey:
    """One signing key as the vault holds it."""

    scheme: SigningScheme
    slot: int
    """Digest slot that it is for, 0..2."""
    digest: bytes
    """SHA-256 of the public key as the ROM hashes it."""
    made: str
    """UTC, ISO 8601; of an imported key, when that was."""
    imported: bool
    """It came from a file: copies of it may be elsewhere."""
    key: PrivateKey = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """What the key is called, e.g. ``rsa3072-0``."""
        return f"{self.scheme.value}-{self.slot}"

    @property
    def public_pem(self) -> bytes:
        """The public key as PEM."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )


def boot_key_files(vault: Vault) -> list[Path]:
    """The files of all signing keys, sorted by name."""
    return sorted((vault.path / BOOT_KEYS_FOLDER).glob("*.json"))


def boot_key_name(file: Path) -> str:
    """How messages call the key in `file`."""
    return f"secure boot key {file.stem}"


def boot_keys(vault: Vault) -> tuple[StoredBootKey, ...]:
    """All signing keys, by scheme and slot.

    Raises:
        DamagedError, NewerFormatError, UnsafePermissionsError: as reading any of them.
    """
    return tuple(read_boot_key(vault, file) for file in boot_key_files(vault))


def boot_key(vault: Vault, scheme: SigningScheme, slot: int) -> StoredBootKey:
    """The key of `scheme` for `slot`.

    Raises:
        NoVaultError: the vault has none. DamagedError: its record does not open, or is of another key.
    """
    file = _file(vault, scheme, slot)
    if not file.exists():
        raise NoVaultError(
            f"the vault {vault.path} has no {scheme.value} key for digest slot {slot}",
            todo="it is made when a board with secure boot is first planned for; or bring yours: "
            f"harness vault boot-key import FILE --slot {slot}",
        )
    return read_boot_key(vault, file)


def make_boot_key(vault: Vault, scheme: SigningScheme, slot: int, generate: Generate) -> StoredBootKey:
    """The key of `scheme` for `slot`: the one that is here, else a new one, on disk and read back.

    Raises:
        DamagedError, LabError, VaultBusyError: it could not be stored safely.
    """
    file = _file(vault, scheme, slot)
    if not file.exists():
        # RSA keys take their time: nobody else is to wait for the lock meanwhile.
        key = generate(scheme)
        with vault.writing():
            if not file.exists():
                _store(vault, file, key, slot, imported=False)
    return read_boot_key(vault, file)


def import_boot_key(vault: Vault, pem: bytes, slot: int, *, name: str) -> StoredBootKey:
    """Takes the private key in `pem` into the vault; `name` is what messages call the file.

    Raises:
        FormatError: no private key that secure boot v2 knows. RefusedError: the slot has another key already.
        DamagedError, LabError, VaultBusyError: it could not be stored safely.
    """
    key = read_private_key(pem, name=name)
    file = _file(vault, scheme_of(key.public_key()), slot)
    with vault.writing():
        if not file.exists():
            _store(vault, file, key, slot, imported=True)
        there = read_boot_key(vault, file)
    if there.digest != key_digest(key.public_key()):
        raise RefusedError(
            f"the vault has another {there.scheme.value} key for digest slot {slot} already, and keeps it: boards may "
            "boot nothing else",
            todo="import it for another slot; or name the file itself in the board's entry (secure_boot: keys:)",
        )
    return there


def read_boot_key(vault: Vault, file: Path) -> StoredBootKey:
    """The key in `file` of this vault or of a copy of it, compared with its name and its digest.

    Raises:
        DamagedError, NewerFormatError, UnsafePermissionsError: see `Vault.unseal`.
    """
    what = boot_key_name(file)
    fields, secret = vault.unseal(file, what)
    try:
        key = serialization.load_der_private_key(secret, password=None)
        scheme = SigningScheme(fields["scheme"])
        slot, made, imported = int(fields["slot"]), str(fields["made"]), bool(fields["imported"])
        digest = bytes.fromhex(fields["key_id"])
        found = key_digest(key.public_key())  # type: ignore[arg-type]
        found_scheme = scheme_of(key.public_key())  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError, FormatError, AttributeError):
        # What a library says of a key may quote it.
        raise DamagedError(f"{what} {file} is damaged: its content is not a signing key") from None
    stored = StoredBootKey(scheme, slot, digest, made, imported, key)  # type: ignore[arg-type]
    if found != digest or found_scheme is not scheme or file.stem != stored.name:
        raise DamagedError(
            f"{what} {file} holds another key than it says: files were swapped",
            todo="restore it from the second copy: harness vault restore",
        )
    return stored


def _file(vault: Vault, scheme: SigningScheme, slot: int) -> Path:
    if not 0 <= slot < SLOTS:
        raise UsageError(f"there is no digest slot {slot}", todo=f"slots are 0 to {SLOTS - 1}")
    return vault.path / BOOT_KEYS_FOLDER / f"{scheme.value}-{slot}.json"


def _store(vault: Vault, file: Path, key: PrivateKey, slot: int, *, imported: bool) -> None:
    """The caller holds the vault's lock and knows that there is no such file."""
    secret = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    fields = {
        "purpose": _PURPOSE,
        "scheme": scheme_of(key.public_key()).value,
        "slot": slot,
        "key_id": key_digest(key.public_key()).hex(),
        "made": now_utc(),
        "imported": imported,
    }
    vault.seal(file, fields, secret)
