"""Names why a bare ciphertext does not decipher to an image on a device.

The device sees noise whatever the cause: wrong slot, wrong key, plaintext and a slot that was not erased print the
same line. The host knows keys, slots and what was made, so it can tell them apart. Pure: bytes in, sentence out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from harness.chips import Cipher
from harness.errors import FormatError
from harness.formats.app_image import AppImage, parse_app_image
from harness.formats.flash_encryption import decrypt, pad_to_block
from harness.formats.partition_table import Partition

APP_DESCRIPTION_MAGIC = bytes.fromhex("3254cdab")
"""``ESP_APP_DESC_MAGIC_WORD`` 0xABCD5432, little endian, at offset 0x20 of an app image."""

HEAD_BYTES = 0x120
"""Image header, first segment header and the app description: enough to recognise an image."""


class Cause(str, Enum):
    """What is wrong with a body; the value is the word used in reports."""

    NONE = "none"
    PLAINTEXT = "plaintext"
    WRONG_SLOT = "wrong slot"
    OTHER_DEVICE = "made for another device"
    OTHER_KEY = "another key under a right label"
    TRUNCATED = "truncated"
    CHANGED = "changed on the way"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The cause and one sentence that a person can act on."""

    cause: Cause
    sentence: str


def diagnose(
    body: bytes,
    *,
    cipher: Cipher,
    key: bytes,
    slot: Partition,
    slots: Sequence[Partition],
    other_keys: Mapping[str, bytes] | None = None,
    made: bytes | None = None,
) -> Diagnosis:
    """Finds out what is wrong with `body`, which was offered for `slot` of a device with `key`.

    Args:
        body: what the device received: a bare ciphertext, at most the size of the slot.
        cipher: the device's flash encryption.
        key: the device's flash key, as its key file (32 or 64 bytes).
        slot: where the body was to be written.
        slots: every OTA slot of the device.
        other_keys: keys of other devices, by what a person calls these devices.
        made: the ciphertext that was made for this slot, where it is known.
    """
    if _is_image(body):
        return Diagnosis(Cause.PLAINTEXT, "the body is a plaintext image; it must be enciphered for its slot")
    if made is not None and body != made:
        found = _against_made(body, made)
        if found is not None:
            return found
    for candidate in slots:
        if _deciphers(cipher, key, candidate.offset, body):
            if candidate.offset != slot.offset:
                return Diagnosis(
                    Cause.WRONG_SLOT,
                    f"the body is enciphered for {candidate.label} (0x{candidate.offset:x}), but was written to "
                    f"{slot.label} (0x{slot.offset:x})",
                )
            return _whole_image(cipher, key, slot, body)
    for owner, other in (other_keys or {}).items():
        if other == key:
            continue
        for candidate in slots:
            if _deciphers(cipher, other, candidate.offset, body):
                where = "" if candidate.offset == slot.offset else f", for its {candidate.label}"
                return Diagnosis(Cause.OTHER_DEVICE, f"the body is enciphered with the key of {owner}{where}")
    return Diagnosis(
        Cause.UNKNOWN,
        "no key and slot that this harness knows deciphers the body: another key, damage at its head, or not an image",
    )


def _is_image(data: bytes) -> bool:
    return len(data) >= HEAD_BYTES and data[0] == 0xE9 and data[0x20:0x24] == APP_DESCRIPTION_MAGIC


def _deciphers(cipher: Cipher, key: bytes, offset: int, body: bytes) -> bool:
    head = pad_to_block(body[:HEAD_BYTES])
    return _is_image(decrypt(cipher, key, offset, head))


def _against_made(body: bytes, made: bytes) -> Diagnosis | None:
    if made.startswith(body):
        return Diagnosis(Cause.TRUNCATED, f"the body ends after {len(body)} of {len(made)} bytes")
    if len(body) != len(made):
        return None
    different = [index for index, (a, b) in enumerate(zip(body, made, strict=True)) if a != b]
    if len(different) > 64:
        return None
    return Diagnosis(
        Cause.CHANGED,
        f"{len(different)} byte(s) differ from what was made, the first at 0x{different[0]:x} of the body",
    )


def _whole_image(cipher: Cipher, key: bytes, slot: Partition, body: bytes) -> Diagnosis:
    usable = body[: len(body) - len(body) % 16]
    plain = decrypt(cipher, key, slot.offset, usable)
    try:
        image: AppImage = parse_app_image(plain)
    except FormatError as error:
        return Diagnosis(
            Cause.TRUNCATED,
            f"the body begins as an image for {slot.label} but does not end as one: {error.message}",
        )
    if not (image.checksum_ok and image.hash_ok):
        return Diagnosis(
            Cause.CHANGED, "the body deciphers to an image whose checksum or SHA-256 does not hold"
        )
    digest = hashlib.sha256(plain[: image.size_bytes]).hexdigest()
    return Diagnosis(Cause.NONE, f"the body is a sound image for {slot.label} (SHA-256 {digest[:16]}…)")
