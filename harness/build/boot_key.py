"""A key of secure boot v2 as what signs: from the vault, from a PEM file, or in a token. espsecure does the signing.

What a key is called and its public half are all that anybody else gets to see of it.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import espsecure
from cryptography.hazmat.primitives import serialization
from esptool import FatalError

from harness.chips import SigningScheme
from harness.errors import LabError, UsageError
from harness.formats.signature_block import (
    PrivateKey,
    PublicKey,
    is_private,
    key_digest,
    read_private_key,
    read_public_key,
    scheme_of,
)
from harness.provision.vendor_log import listening, vendor_log_installed
from harness.vault.boot_keys import MOST_PEM_BYTES, StoredBootKey
from harness.vault.record_file import require_private

_MEMORY = Path("/dev/shm")  # noqa: S108 - what is made in it is private to us


@dataclass(frozen=True, slots=True)
class BootKey:
    """One key that a board with secure boot is to know."""

    name: str
    """What it is called, for people: ``vault rsa3072-0``, a file's name, a token's label."""
    public_key: PublicKey = field(repr=False)
    add_signature: Callable[[bytes], bytes] | None = field(default=None, repr=False, compare=False)
    """Takes an image, signed or not, and returns it with one more signature; None: the private half is elsewhere."""

    @property
    def scheme(self) -> SigningScheme:
        return scheme_of(self.public_key)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the public key as the ROM hashes it, 32 bytes."""
        return key_digest(self.public_key)

    @property
    def signs(self) -> bool:
        return self.add_signature is not None


def from_vault(stored: StoredBootKey) -> BootKey:
    """The vault's key."""
    return from_private(f"vault {stored.name}", stored.key)


def from_private(name: str, key: PrivateKey) -> BootKey:
    """A key at hand, such as one that no board knows."""
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return BootKey(name, key.public_key(), lambda image: _sign(image, pem))


def from_pem(path: Path) -> BootKey:
    """The key in a PEM file: a private one signs, a public one is only known to the board.

    Raises:
        UsageError: the file cannot be read. FormatError: no key of secure boot v2 in it.
        UnsafePermissionsError: others may read the private key.
    """
    try:
        with path.open("rb") as stream:
            pem = stream.read(MOST_PEM_BYTES)
    except OSError as error:
        raise UsageError(
            f"the secure boot key {path} cannot be read: {error.strerror}", todo="correct secure_boot: keys:"
        ) from error
    public = read_public_key(pem, name=str(path))
    if not is_private(pem):
        return BootKey(path.name, public)
    require_private(path)
    return BootKey(path.name, public, lambda image: _sign(image, pem))


def generate(scheme: SigningScheme) -> PrivateKey:
    """A new key, made by espsecure, which only writes files: into memory where there is such a folder.

    The file is gone before anybody uses the key, so what a kill could leave of it is a key of nothing.

    Raises:
        LabError: it could not be made.
    """
    with _folder() as folder:
        espsecure_does(
            "making a signing key",
            lambda: espsecure.generate_signing_key("2", scheme.value, str(folder / "key.pem")),
        )
        pem = (folder / "key.pem").read_bytes()
    return read_private_key(pem, name="the new key")


def signed_by_espsecure(what: str, image: bytes, **arguments: Any) -> bytes:
    """``espsecure sign-data`` of `image`, with one more signature; `arguments` are those that differ.

    Raises:
        LabError: espsecure refuses; says why.
    """
    source = io.BytesIO(image)
    source.name = "image"
    given: dict[str, Any] = {
        "version": "2",
        "keyfile": [],
        "append_signatures": True,
        "hsm": False,
        "hsm_config": None,
        "pub_key": [],
        "signature": [],
        **arguments,
    }
    with _folder() as folder:
        espsecure_does(
            what, lambda: espsecure.sign_data(output=str(folder / "signed.bin"), datafile=source, **given)
        )
        return (folder / "signed.bin").read_bytes()


def espsecure_does(what: str, act: Callable[[], object]) -> None:
    """Runs a function of espsecure without its talk; what it says in the end becomes the error.

    Raises:
        LabError: it failed.
    """
    said: list[str] = []
    try:
        with vendor_log_installed(), listening(said.append, None):
            act()
    except (FatalError, OSError) as error:
        raise LabError(f"{what} failed: {error}") from error
    except SystemExit as error:
        errors = [line.removeprefix("Error: ") for line in said if line.startswith("Error: ")]
        raise LabError(f"{what} failed: {' '.join(errors) or 'espsecure does not say why'}") from error


def _sign(image: bytes, pem: bytes) -> bytes:
    return signed_by_espsecure("signing for secure boot", image, keyfile=[io.BytesIO(pem)])


@contextmanager
def _folder() -> Iterator[Path]:
    """A private folder, in memory where the system has such a place."""
    memory = str(_MEMORY) if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
    try:
        folder = Path(tempfile.mkdtemp(prefix="harness-signing-", dir=memory))
    except OSError as error:
        raise LabError(f"there is no place to sign in: {error.strerror}", todo="free some space") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
