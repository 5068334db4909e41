"""The vault: the durable store of per-device keys, written before any key is burned.

Layout of the folder (mode 0700, files 0600):

    vault.json          format, how the secret becomes a key, and the vault's own key enciphered with it
    keys/MAC.json       one device's flash key, enciphered with the vault's key; what is known of it (`key_record`)
    signing.json        the private key that signs OTA packages, enciphered likewise
    boot-keys/S-N.json  the secure boot key of scheme S in digest slot N, enciphered likewise
    intents/MAC.json    what was begun on a board and is not finished; not secret
    copies.json         where second copies lie; not secret

Only `vault.json` depends on the passphrase or key file. A change of secret is one rename, so a kill leaves a
vault that opens with the old or the new secret, never with neither.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from filelock import FileLock, Timeout

from harness.chips import Chip
from harness.errors import LabError, RefusedError
from harness.vault.errors import (
    DamagedError,
    NoKeyHereError,
    NoVaultError,
    UnprovenKeyError,
    VaultBusyError,
    WrongSecretError,
)
from harness.vault.intent import Intent
from harness.vault.key_bytes import KeyBytes, leave_no_core_dump
from harness.vault.key_record import KEY_FORMAT, MADE_HERE, Change, KeyRecord
from harness.vault.key_ref import KeyRef, KeyState, key_id, part_ids, plain_mac
from harness.vault.key_source import KeySource
from harness.vault.record_file import (
    TEMPORARY_SUFFIX,
    make_private_folder,
    now_utc,
    read_record,
    remove_leftovers,
    require_private,
    shredded_after,
    sync_folder,
    write_record,
)
from harness.vault.sealed import KEY_BYTES, Sealed
from harness.vault.secret import Secret

FORMAT = 1
"""Format of all files of a vault that this code writes, but for the key records (`KEY_FORMAT`)."""

HEAD_FILE = "vault.json"
KEYS_FOLDER = "keys"
INTENTS_FOLDER = "intents"
BOOT_KEYS_FOLDER = "boot-keys"
FOLDERS = (KEYS_FOLDER, BOOT_KEYS_FOLDER, INTENTS_FOLDER)
SIGNING_FILE = "signing.json"
COPIES_FILE = "copies.json"
_LOCK_FILE = ".lock"
_LOCK_TIMEOUT_S = 10.0

_NO_KEY = b"no key"
"""What is enciphered in a record without a key, so that it, too, opens only as it was written."""


def newest_format(file: Path) -> int:
    """The highest format of `file`, which lies in a vault, that this code knows."""
    return KEY_FORMAT if file.parent.name == KEYS_FOLDER else FORMAT


class Vault:
    """An open vault. Reading needs no lock (files are replaced whole); writers take turns."""

    def __init__(self, path: Path, vault_id: str, key: bytes, secret: Secret) -> None:
        """Not for callers: use `open`."""
        self.path = path
        self.vault_id = vault_id
        self._key = key
        self._secret = secret
        self._source: KeySource | None = None

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
        leave_no_core_dump()
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

    def at(self, place: Path) -> Vault:
        """The copy of this vault in `place`, whatever opens it: copies have the vault's own key."""
        return Vault(place, self.vault_id, self._key, self._secret)

    # Flash keys

    def key_records(self) -> tuple[KeyRecord, ...]:
        """What is known of the key of every device that has a record here, by MAC, those without a key among them.

        Raises:
            DamagedError, NewerFormatError, UnsafePermissionsError: as reading any of them.
        """
        return tuple(self._open_record(file)[0] for file in self.key_files())

    def key_refs(self) -> tuple[KeyRef, ...]:
        """All devices that have a key here, by MAC. Errors as `key_records`."""
        return tuple(record.ref for record in self.key_records() if record.state.has_key)

    def key_files(self) -> list[Path]:
        """The files of all key records, sorted."""
        return sorted((self.path / KEYS_FOLDER).glob("*.json"))

    def key_file(self, mac: str) -> Path:
        """Where the key record of `mac` is, or would be."""
        return self.path / KEYS_FOLDER / f"{plain_mac(mac).replace(':', '-')}.json"

    def key_record(self, mac: str) -> KeyRecord | None:
        """What is known of the key of `mac`, also when the key itself is not here; None: there is no record."""
        file = self.key_file(mac)
        return self._open_record(file, mac)[0] if file.exists() else None

    def key(self, mac: str) -> KeyRef | None:
        """The name of the key of `mac`; None when there is no key of it here."""
        record = self.key_record(mac)
        return record.ref if record is not None and record.state.has_key else None

    def take_keys_from(self, source: KeySource | None) -> Vault:
        """From now on a new key comes from `source` instead of this computer's random numbers."""
        self._source = source
        return self

    @property
    def key_source(self) -> KeySource | None:
        """Where new keys come from; None: they are made here."""
        return self._source

    def make_flash_key(self, mac: str, chip: Chip) -> KeyRef:
        """A key for `mac`: the one that is here, else a new one, on disk and read back.

        A new one is random, or comes from where `take_keys_from` said. A key is never overwritten: it may be burned
        into a chip.

        Raises:
            RefusedError: the vault has a key of that MAC for another chip type, or has had one that was forgotten.
            DamagedError, LabError, VaultBusyError: it could not be stored safely, or its source gave none.
        """
        mac = plain_mac(mac)
        with self._writing():
            existing = self.key_record(mac)
            if existing is not None:
                require_chip(existing, chip)
                self.stored_key(mac)
                return existing.ref
            if self._source is None:
                key, made_by = secrets.token_bytes(chip.cipher.key_size_bytes), MADE_HERE
            else:
                key, made_by = self._source.obtain(mac, chip), self._source.text
            return self.add_key(mac, chip, key, state=KeyState.TEST_ONLY, made_by=made_by).ref

    def add_key(self, mac: str, chip: Chip, key: bytes, *, state: KeyState, made_by: str) -> KeyRecord:
        """Stores the first key of a device, and reads it back.

        Raises:
            RefusedError: the device has a record already.
            DamagedError, LabError, VaultBusyError: it could not be stored safely.
        """
        mac = plain_mac(mac)
        at = now_utc()
        record = KeyRecord(
            mac,
            chip.name,
            key_id(key),
            state,
            at,
            made_by,
            (Change(state, at, made_by),),
            part_ids=part_ids(key),
        )
        with self._writing():
            if self.key_file(mac).exists():
                raise RefusedError(f"the vault has a key record of {mac} already; nothing was changed")
            self.put_record(record, key)
            if not hmac.compare_digest(self.stored_key(mac), key):
                raise DamagedError(
                    f"the key of {mac} does not read back as it was stored",
                    todo="do not burn it; check the disk",
                )
        return record

    def change_key(self, record: KeyRecord) -> KeyRecord:
        """Writes `record`, which is a later state of the one that is here; its key stays as it is.

        Raises:
            RefusedError: somebody has changed the record meanwhile.
        """
        with self._writing():
            here = self.key_record(record.mac)
            if here is None or not record.is_later_than(here):
                raise RefusedError(
                    f"the key record of {record.mac} was changed meanwhile; nothing was done",
                    todo="look at it, and begin again: harness keys list",
                )
            self.put_record(record, self.stored_key(record.mac))
        return record

    def put_record(self, record: KeyRecord, key: bytes | None) -> None:
        """Writes a record with its key, or without: then the bytes of the one that was there are overwritten, too.

        For `key_life`, under the writers' lock.
        """
        make_private_folder(self.path / KEYS_FOLDER)
        file = self.key_file(record.mac)
        if key is not None:
            self._write_sealed(file, record.to_fields(), key)
            return
        with shredded_after(file):
            self._write_sealed(file, record.to_fields(), _NO_KEY)

    def flash_key(self, mac: str) -> bytes:
        """The key of `mac`, in the byte order of espsecure's key files, to encipher what the device shall run.

        Raises:
            NoVaultError: the vault has no key of this device.
            NoKeyHereError: it had one that was forgotten, or the device made its key itself.
            UnprovenKeyError: it was imported, and is not proven yet.
            DamagedError: the record does not open, or its key is not the one its key id names.
        """
        key = self.stored_key(mac)
        record = self.key_record(mac)
        if record is not None and record.state is KeyState.UNPROVEN:
            raise UnprovenKeyError(
                f"the key {record.key_id} of {record.mac} is unproven: nothing shows yet that it is the one in the chip, "
                "so nothing is enciphered with it",
                todo=f"prove it: harness keys import FILE --board NAME (again, with the board of MAC {record.mac})",
            )
        return key

    def stored_key(self, mac: str) -> bytes:
        """The key of `mac` whatever its state: for copies, exports and proofs. Errors as `flash_key`, but the third."""
        file = self.key_file(mac)
        if not file.exists():
            raise NoVaultError(f"the vault {self.path} has no key for {plain_mac(mac)}")
        record, key = self._open_record(file, mac)
        if not record.state.has_key:
            raise NoKeyHereError(no_key_text(record), todo=no_key_todo(record))
        if key_id(key) != record.key_id or len(key) != record.chip.cipher.key_size_bytes:
            raise DamagedError(f"the key record {file} holds another key than its key id says")
        return KeyBytes(key)

    def check_key_file(self, file: Path) -> bool:
        """Whether there is a key in a key record that is in order.

        Raises:
            DamagedError and what else reading it may raise: it is not.
        """
        mac = file.stem.replace("-", ":")
        record, _ = self._open_record(file, mac)
        if record.state.has_key:
            self.stored_key(mac)
        return record.state.has_key

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

    # Secrets of other kinds

    def writing(self) -> AbstractContextManager[None]:
        """Holds the writers' lock, see `writing`."""
        return writing(self.path)

    def seal(self, file: Path, fields: dict[str, Any], secret: bytes) -> None:
        """Stores `fields`, which are not secret, and `secret` in `file` of this vault, synced and read back.

        The caller holds the writers' lock, and has made sure that nothing is overwritten.

        Raises:
            LabError, DamagedError: it could not be stored safely.
        """
        make_private_folder(file.parent)
        self._write_sealed(file, {"format": FORMAT, **fields}, secret)
        _, back = self.unseal(file, "the record")
        if not hmac.compare_digest(back, secret):
            raise DamagedError(f"{file} does not read back as it was stored", todo="check the disk")

    def unseal(self, file: Path, what: str) -> tuple[dict[str, Any], bytes]:
        """What `seal` stored: fields and secret; `what` names the file in errors.

        Raises:
            DamagedError, NewerFormatError, UnsafePermissionsError: see `read_record`, or it does not open.
        """
        fields = read_record(file, newest=FORMAT, what=what)
        return fields, self._open_sealed(fields, f"{what} {file}")

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
            fields = read_record(file, newest=newest_format(file), what="the record")
            self._open_sealed(fields, f"the record {file}")
        except DamagedError:
            return False
        return True

    # Inside

    def _intent_file(self, mac: str) -> Path:
        return self.path / INTENTS_FOLDER / f"{plain_mac(mac).replace(':', '-')}.json"

    def _open_record(self, file: Path, mac: str | None = None) -> tuple[KeyRecord, bytes]:
        """A key record, and what is enciphered in it; `mac` is whose it must be."""
        fields = read_record(file, newest=KEY_FORMAT, what="the key record")
        record = KeyRecord.from_fields(fields)
        if mac is not None and record.mac != plain_mac(mac):
            raise DamagedError(
                f"the record of {plain_mac(mac)} in the vault is that of {record.mac}: files were swapped",
                todo="restore it from the second copy: harness vault restore",
            )
        return record, self._open_sealed(fields, f"the key record {file}")

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
        for folder in (path, *(path / name for name in FOLDERS)):
            remove_leftovers(folder)
        yield
    finally:
        lock.release()


def require_chip(record: KeyRecord, chip: Chip) -> None:
    """One MAC is one chip.

    Raises:
        RefusedError: the record is that of another chip type.
    """
    if record.chip_name != chip.name:
        raise RefusedError(
            f"the vault has a key for {record.mac} as {record.chip_name}, not as {chip.name}",
            todo="check chip and MAC of this board; one MAC cannot be two chips",
        )


def no_key_text(record: KeyRecord) -> str:
    """Why there is no key in a record."""
    if record.state is KeyState.FORGOTTEN:
        return (
            f"the key {record.key_id} of {record.mac} was forgotten here on {record.since}: this device takes updates "
            "only from who holds a copy of it"
        )
    return f"{record.mac} made its key itself: nothing can be enciphered for it outside of it"


def no_key_todo(record: KeyRecord) -> str:
    """What a person can do about it."""
    if record.state is KeyState.FORGOTTEN:
        return (
            "have the update enciphered there; or bring the key back: harness keys import FILE --board NAME"
        )
    return "update it with ESP-IDF's own OTA, which the device enciphers by itself"


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
