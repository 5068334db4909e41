"""The vault: the durable store of per-device keys, written before any key is burned.

Layout of the folder (mode 0700, files 0600):

    vault.json          format, how the secret becomes a key, and the vault's own key enciphered with it
    keys/MAC.json       one device's flash key, enciphered with the vault's key
    signing.json        the private key that signs OTA packages, enciphered likewise
    intents/MAC.json    what was begun on a board and is not finished; not secret
    copies.json         where second copies lie; not secret

Only `vault.json` depends on the passphrase or key file. A change of secret is one rename, so a kill leaves a
vault that opens with the old or the new secret, never with neither.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from filelock import FileLock, Timeout

from harness.chips import Chip
from harness.errors import LabError, RefusedError
from harness.vault.errors import DamagedError, NoVaultError, VaultBusyError, WrongSecretError
from harness.vault.intent import Intent
from harness.vault.key_ref import KEY_STATE_TEST_ONLY, KeyRef, key_id, part_ids, plain_mac
from harness.vault.record_file import (
    TEMPORARY_SUFFIX,
    make_private_folder,
    read_record,
    remove_leftovers,
    require_private,
    sync_folder,
    write_record,
)
from harness.vault.sealed import KEY_BYTES, Sealed
from harness.vault.secret import Secret

FORMAT = 1
"""Format of all files of a vault that this code writes."""

HEAD_FILE = "vault.json"
KEYS_FOLDER = "keys"
INTENTS_FOLDER = "intents"
SIGNING_FILE = "signing.json"
COPIES_FILE = "copies.json"
_LOCK_FILE = ".lock"
_LOCK_TIMEOUT_S = 10.0


class Vault:
    """An open vault. Reading needs no lock (files are replaced whole); writers take turns."""

    def __init__(self, path: Path, vault_id: str, key: bytes, secret: Secret) -> None:
        """Not for callers: use `open`."""
        self.path = path
        self.vault_id = vault_id
        self._key = key
        self._secret = secret

    def __repr__(self) -> str:
        return f"Vault({str(self.path)!r}, id={self.vault_id})"

    @classmethod
    def open(cls, path: Path, secret: Secret, *, create: bool = False) -> Vault:
        """Opens the vault in the folder `path`; with `create`, makes it if there is none.

        Raises:
            NoVaultError: there is none, or the folder holds something else.
            WrongSecretError: `secret` does not open it.
            NewerFormatError: a newer harness wrote it; nothing was touched.
            UnsafePermissionsError: others may touch it.
            DamagedError: its head file is damaged.
        """
        path = path.absolute()
        if not (path / HEAD_FILE).exists():
            if not create:
                raise NoVaultError(
                    f"there is no vault in {path}",
                    todo="name its folder (HARNESS_VAULT), or bring it back from a copy: harness vault restore",
                )
            _create(path, secret)
        require_private(path)
        return cls(path, *_open_head(path, secret), secret)

    # Flash keys

    def key_refs(self) -> tuple[KeyRef, ...]:
        """All devices that have a key here, by MAC.

        Raises:
            DamagedError, NewerFormatError, UnsafePermissionsError: as reading any of them.
        """
        return tuple(_ref_of(self._read_key_fields(file)) for file in self.key_files())

    def key_files(self) -> list[Path]:
        """The files of all flash keys, sorted."""
        return sorted((self.path / KEYS_FOLDER).glob("*.json"))

    def key(self, mac: str) -> KeyRef | None:
        """What is known of the key of `mac`, or None. Does not decipher it."""
        file = self._key_file(mac)
        if not file.exists():
            return None
        return self._checked_ref(self._read_key_fields(file), mac)

    def make_flash_key(self, mac: str, chip: Chip) -> KeyRef:
        """A key for `mac`: the one that is here, else a new random one, on disk and read back.

        A key is never overwritten: it may be burned into a chip.

        Raises:
            RefusedError: the vault has a key of that MAC for another chip type.
            DamagedError, LabError, VaultBusyError: it could not be stored safely.
        """
        mac = plain_mac(mac)
        with self._writing():
            existing = self.key(mac)
            if existing is not None:
                if existing.chip_name != chip.name:
                    raise RefusedError(
                        f"the vault has a key for {mac} as {existing.chip_name}, not as {chip.name}",
                        todo="check chip and MAC of this board; one MAC cannot be two chips",
                    )
                self.flash_key(mac)
                return existing
            key = secrets.token_bytes(chip.cipher.key_size_bytes)
            ref = KeyRef(mac, chip.name, key_id(key), part_ids=part_ids(key))
            fields = {
                "format": FORMAT,
                "purpose": "flash-key",
                "mac": mac,
                "chip": chip.name,
                "key_id": ref.key_id,
                "key_state": KEY_STATE_TEST_ONLY,
                "made": now_utc(),
                **({"part_ids": list(ref.part_ids)} if ref.part_ids else {}),
            }
            make_private_folder(self.path / KEYS_FOLDER)
            self._write_sealed(self._key_file(mac), fields, key)
            if not hmac.compare_digest(self.flash_key(mac), key):
                raise DamagedError(
                    f"the key of {mac} does not read back as it was stored",
                    todo="do not burn it; check the disk",
                )
            return ref

    def flash_key(self, mac: str) -> bytes:
        """The key of `mac`, in the byte order of espsecure's key files.

        Raises:
            NoVaultError: the vault has no key of this device.
            DamagedError: the record does not open, or its key is not the one its key id names.
        """
        file = self._key_file(mac)
        if not file.exists():
            raise NoVaultError(f"the vault {self.path} has no key for {plain_mac(mac)}")
        fields = self._read_key_fields(file)
        ref = self._checked_ref(fields, mac)
        key = self._open_sealed(fields, f"the key record {file}")
        if key_id(key) != ref.key_id or len(key) != ref.chip.cipher.key_size_bytes:
            raise DamagedError(f"the key record {file} holds another key than its key id says")
        return key

    # The key that signs OTA packages

    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        """The P-256 key that signs OTA packages; made, stored and read back at first use.

        Raises:
            DamagedError: the stored key does not open.
        """
        file = self.path / SIGNING_FILE
        if not file.exists():
            with self._writing():
                if not file.exists():
                    self._make_signing_key(file)
        fields = read_record(file, newest=FORMAT, what="the signing key")
        content = self._open_sealed(fields, f"the signing key {file}")
        try:
            key = serialization.load_der_private_key(content, password=None)
        except ValueError as error:
            raise DamagedError(f"the signing key {file} is not a private key") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise DamagedError(f"the signing key {file} is not a P-256 key")
        return key

    def signing_public_key(self) -> bytes:
        """65 bytes: 04, X, Y, big endian, as the firmware is given it."""
        return (
            self.signing_key()
            .public_key()
            .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        )

    def _make_signing_key(self, file: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        content = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        fields = {"format": FORMAT, "purpose": "ota-signing-key", "curve": "P-256", "made": now_utc()}
        self._write_sealed(file, fields, content)

    # Intents

    def note_intent(self, mac: str, intent: Intent) -> None:
        """Stores, synced, what is about to be done to a board; replaces an earlier intent of the same board.

        Raises:
            LabError, VaultBusyError: it could not be stored.
        """
        make_private_folder(self.path / INTENTS_FOLDER)
        with self._writing():
            write_record(self._intent_file(mac), {"format": FORMAT, **intent.to_fields()})

    def intent(self, mac: str) -> Intent | None:
        """What was begun on `mac` and is not finished, or None.

        Raises:
            DamagedError, NewerFormatError: its file.
        """
        file = self._intent_file(mac)
        if not file.exists():
            return None
        return Intent.from_fields(read_record(file, newest=FORMAT, what="the intent"))

    def clear_intent(self, mac: str) -> None:
        """Everything that was begun on `mac` is done and proven."""
        with self._writing():
            self._intent_file(mac).unlink(missing_ok=True)
            if (self.path / INTENTS_FOLDER).exists():
                sync_folder(self.path / INTENTS_FOLDER)

    # Secret and copies

    def rekey(self, new_secret: Secret) -> None:
        """From now on `new_secret` opens the vault and the old one does not. Second copies keep the old one
        until they are made anew (`harness.vault.copies.back_up`).

        Somebody who has both an old copy and the old secret can still read that copy: keys in eFuses cannot
        be changed, so a leaked key stays leaked.

        Raises:
            LabError, VaultBusyError: it could not be stored; then the old secret still opens it.
        """
        with self._writing():
            fields = read_record(self.path / HEAD_FILE, newest=FORMAT, what="the vault")
            write_record(
                self.path / HEAD_FILE, _head_fields(new_secret, self.vault_id, self._key, fields["made"])
            )
        self._secret = new_secret

    @property
    def secret(self) -> Secret:
        """What opened it, to try whether a second copy opens with the same."""
        return self._secret

    def note_copy(self, place: Path) -> None:
        """Remembers where a second copy lies."""
        with self._writing():
            places = dict.fromkeys([*map(str, self.copies()), str(place.absolute())])
            write_record(self.path / COPIES_FILE, {"format": FORMAT, "copies": list(places)})

    def copies(self) -> tuple[Path, ...]:
        """Where second copies were made, in the order they were made; they may be unplugged by now."""
        file = self.path / COPIES_FILE
        if not file.exists():
            return ()
        fields = read_record(file, newest=FORMAT, what="the list of copies")
        return tuple(Path(str(place)) for place in fields.get("copies", []))

    def opens(self, file: Path) -> bool:
        """Whether the sealed record in `file` (of this vault or a copy of it) opens with this vault's key."""
        try:
            self._open_sealed(read_record(file, newest=FORMAT, what="the record"), f"the record {file}")
        except DamagedError:
            return False
        return True

    # Inside

    def _key_file(self, mac: str) -> Path:
        return self.path / KEYS_FOLDER / f"{plain_mac(mac).replace(':', '-')}.json"

    def _intent_file(self, mac: str) -> Path:
        return self.path / INTENTS_FOLDER / f"{plain_mac(mac).replace(':', '-')}.json"

    def _read_key_fields(self, file: Path) -> dict[str, Any]:
        return read_record(file, newest=FORMAT, what="the key record")

    def _checked_ref(self, fields: dict[str, Any], mac: str) -> KeyRef:
        ref = _ref_of(fields)
        if ref.mac != plain_mac(mac):
            raise DamagedError(
                f"the record of {plain_mac(mac)} in the vault is that of {ref.mac}: files were swapped",
                todo="restore it from the second copy: harness vault restore",
            )
        return ref

    def _write_sealed(self, file: Path, fields: dict[str, Any], content: bytes) -> None:
        binding = {**fields, "vault_id": self.vault_id}
        write_record(file, {**fields, "sealed": Sealed.of(self._key, content, binding).to_fields()})

    def _open_sealed(self, fields: dict[str, Any], what: str) -> bytes:
        binding = {key: value for key, value in fields.items() if key != "sealed"}
        sealed = Sealed.from_fields(fields.get("sealed"), what)
        content = sealed.open(self._key, {**binding, "vault_id": self.vault_id})
        if content is None:
            raise DamagedError(
                f"{what} does not open with the key of this vault: it was changed, or is from another vault",
                todo="restore it from the second copy: harness vault restore",
            )
        return content

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with writing(self.path):
            yield


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Holds the writers' lock of the vault in `path`; it dies with its holder. Re-entrant in one thread.

    Raises:
        VaultBusyError: somebody else holds it for longer than ten seconds.
    """
    lock = FileLock(path / _LOCK_FILE, mode=0o600, is_singleton=True)
    try:
        lock.acquire(timeout=_LOCK_TIMEOUT_S)
    except Timeout as error:
        raise VaultBusyError(
            f"another process has been writing to the vault {path} for {_LOCK_TIMEOUT_S:.0f} s",
            todo="wait for it to end, then try again",
        ) from error
    except OSError as error:
        raise LabError(f"the vault {path} cannot be locked: {error.strerror}") from error
    try:
        for folder in (path, path / KEYS_FOLDER, path / INTENTS_FOLDER):
            remove_leftovers(folder)
        yield
    finally:
        lock.release()


def now_utc() -> str:
    """The time for records: UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _create(path: Path, secret: Secret) -> None:
    # What a creation that was killed leaves is no content.
    leftovers = (_LOCK_FILE, TEMPORARY_SUFFIX)
    if path.exists() and any(not entry.name.endswith(leftovers) for entry in path.iterdir()):
        raise NoVaultError(f"{path} is not a vault and not empty", todo="choose a new folder for the vault")
    make_private_folder(path)
    with writing(path):
        if not (path / HEAD_FILE).exists():
            key = secrets.token_bytes(KEY_BYTES)
            write_record(path / HEAD_FILE, _head_fields(secret, secrets.token_hex(8), key, now_utc()))


def _head_fields(secret: Secret, vault_id: str, key: bytes, made: str) -> dict[str, Any]:
    parameters = secret.new_parameters()
    fields = {"format": FORMAT, "purpose": "vault-key", "vault_id": vault_id, "made": made, "kdf": parameters}
    sealed = Sealed.of(secret.key_encryption_key(parameters), key, fields)
    return {**fields, "sealed": sealed.to_fields()}


def _open_head(path: Path, secret: Secret) -> tuple[str, bytes]:
    file = path / HEAD_FILE
    fields = read_record(file, newest=FORMAT, what="the vault")
    sealed = Sealed.from_fields(fields.pop("sealed", None), f"the vault {file}")
    parameters = fields.get("kdf")
    if not isinstance(parameters, dict) or not isinstance(fields.get("vault_id"), str):
        raise DamagedError(f"the vault {file} is damaged: fields are missing")
    key = sealed.open(secret.key_encryption_key(parameters), fields)
    if key is None:
        given = "passphrase" if parameters.get("name") == "scrypt" else "key file"
        raise WrongSecretError(
            f"the {given} does not open the vault {path}",
            todo="give the one it was made with; nothing was changed",
        )
    return fields["vault_id"], key


def _ref_of(fields: dict[str, Any]) -> KeyRef:
    try:
        return KeyRef(
            plain_mac(fields["mac"]),
            fields["chip"],
            fields["key_id"],
            fields["key_state"],
            tuple(fields.get("part_ids", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"a key record is damaged: it has no {error}") from error
