"""Secrets at rest: AES-256-GCM, bound to what they are for."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from harness.vault.errors import DamagedError
from harness.vault.key_bytes import KeyBytes
from harness.vault.record_file import canonical

KEY_BYTES = 32
_NONCE_BYTES = 12
_CONTEXT = b"esp32-secure-ota vault\0"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A nonce and a ciphertext with its tag; safe to show, of use only with the key."""

    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    @classmethod
    def of(cls, key: bytes, plaintext: bytes, binding: Mapping[str, Any]) -> Sealed:
        """Enciphers `plaintext` under `key` (32 bytes) so that it opens only together with `binding`.

        The nonce is random: 96 bits are enough for far more records than a lab has boards.
        """
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return cls(nonce, AESGCM(key).encrypt(nonce, plaintext, _CONTEXT + canonical(binding)))

    def open(self, key: bytes, binding: Mapping[str, Any]) -> bytes | None:
        """The plaintext, or None when key, binding or ciphertext are not those that were sealed."""
        try:
            return KeyBytes(AESGCM(key).decrypt(self.nonce, self.ciphertext, _CONTEXT + canonical(binding)))
        except InvalidTag:
            return None

    def to_fields(self) -> dict[str, str]:
        """For a JSON file: hexadecimal."""
        return {"nonce": self.nonce.hex(), "ciphertext": self.ciphertext.hex()}

    @classmethod
    def from_fields(cls, fields: Any, what: str) -> Sealed:
        """The inverse of `to_fields`; `what` names the file in the error.

        Raises:
            DamagedError: it is not hexadecimal of a possible length.
        """
        try:
            sealed = cls(bytes.fromhex(fields["nonce"]), bytes.fromhex(fields["ciphertext"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{what} is damaged: its enciphered part cannot be read") from error
        if len(sealed.nonce) != _NONCE_BYTES or len(sealed.ciphertext) < 17:
            raise DamagedError(f"{what} is damaged: its enciphered part has the wrong length")
        return sealed
