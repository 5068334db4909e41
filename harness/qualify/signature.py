"""Signs the seal of a qualification with a key that somebody gives, and checks such a signature.

The passphrase of a key comes from a file or a descriptor, never from an argument or the environment.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509 import load_pem_x509_certificate

from harness.errors import UsageError
from harness.qualify.evidence import SIGNATURE

FORMAT = 1

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
MIN_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature over a seal."""

    public_key: str
    """PEM."""
    signature: bytes

    @property
    def algorithm(self) -> str:
        """As follows from the key: what a file says of it is nobody's word."""
        return algorithm_of(_public(self.public_key.encode(), "the signature's public key"))

    @property
    def key_sha256(self) -> str:
        """Of the public key's DER (SubjectPublicKeyInfo): what a person compares."""
        return fingerprint(_public(self.public_key.encode(), "the signature's public key"))


def load_signing_key(path: Path, passphrase: bytes | None) -> PrivateKey:
    """The private key in the PEM file `path`.

    Raises:
        UsageError: it cannot be read, needs a passphrase, or is of a kind that is not signed with here.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the signing key {path} cannot be read: {error.strerror}") from error
    try:
        key = serialization.load_pem_private_key(data, passphrase)
    except TypeError:
        todo = (
            "give its passphrase with --sign-passphrase-file or --sign-passphrase-fd"
            if passphrase is None
            else "leave the passphrase out"
        )
        need = "needs a passphrase" if passphrase is None else "is not enciphered, and a passphrase was given"
        raise UsageError(f"the signing key {path} {need}", todo=todo) from None
    except (ValueError, UnsupportedAlgorithm):
        # Not "from": what the parser quotes is of the key.
        raise UsageError(
            f"the signing key {path} cannot be used: no private key in PEM, or the passphrase is wrong"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise UsageError(
            f"the signing key {path} is of a kind that is not signed with", todo="ECDSA, RSA, Ed25519"
        )
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
        raise UsageError(f"the signing key {path} has {key.key_size} bits; {MIN_RSA_BITS} are the least")
    return key


def sign(text: bytes, key: PrivateKey) -> Signed:
    """Signs `text`."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        signature = key.sign(text, ec.ECDSA(hashes.SHA256()))
    elif isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(text, _PSS, hashes.SHA256())
    else:
        signature = key.sign(text)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Signed(public.decode(), signature)


def algorithm_of(key: PublicKey) -> str:
    """What a signature by `key` is, in words."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"ECDSA {key.curve.name} SHA-256"
    return "RSA-PSS SHA-256" if isinstance(key, rsa.RSAPublicKey) else "Ed25519"


_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256().digest_size)


def is_good(signed: Signed, text: bytes) -> bool:
    """Whether the signature is one of `text` by the public key that it names."""
    key = _public(signed.public_key.encode(), "the signature's public key")
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signed.signature, text, ec.ECDSA(hashes.SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signed.signature, text, _PSS, hashes.SHA256())
        else:
            key.verify(signed.signature, text)
    except InvalidSignature:
        return False
    return True


def write_signature(folder: Path, signed: Signed) -> None:
    """Puts it beside the seal."""
    fields = {
        "format": FORMAT,
        "algorithm": signed.algorithm,
        "public_key": signed.public_key,
        "signature": base64.b64encode(signed.signature).decode(),
    }
    (folder / SIGNATURE).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


def read_signature(folder: Path) -> Signed | None:
    """The signature in `folder`, or None.

    Raises:
        UsageError: it cannot be understood.
    """
    path = folder / SIGNATURE
    if not path.exists():
        return None
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Signed(
            str(fields["public_key"]),
            base64.b64decode(fields["signature"], validate=True),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no signature: {type(error).__name__}") from error


def load_public_key(path: Path) -> PublicKey:
    """The public key in a PEM file, which may hold a certificate.

    Raises:
        UsageError: it holds none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    return _public(data, str(path))


def _public(data: bytes, what: str) -> PublicKey:
    try:
        if b"BEGIN CERTIFICATE" in data:
            key: Any = load_pem_x509_certificate(data).public_key()
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"{what}: no public key in PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise UsageError(f"{what}: a key of a kind that is not signed with here")
    return key


def fingerprint(key: PublicKey) -> str:
    """SHA-256 of the public key's DER (SubjectPublicKeyInfo), hexadecimal."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
