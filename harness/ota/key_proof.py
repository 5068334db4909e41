"""Whether an imported key is the one in the chip, shown by its firmware where flash cannot be read any more.

It gets one sector for the slot that does not run, enciphered with the key; its update handler reads it back deciphered
before it takes more. That sector can never become an update: the header promises another hash than the body has, and
what it deciphers to is no image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

from harness.chips import Chip
from harness.console.device import Answer
from harness.formats.app_description import AppDescription
from harness.formats.app_image import HEADER_BYTES, IMAGE_MAGIC, MAX_SEGMENT_BYTES
from harness.formats.flash_encryption import encrypt
from harness.formats.ota_package import PackageHeader, key_id_of
from harness.ota.mac_address import parse_mac
from harness.ota.release import Sign, sealed
from harness.vault.key_proof import KeyProof, ProofResult

PROOF_BYTES = 0x1000
"""One sector: what the firmware judges before it asks for more."""

PROOF_VERSION = "key-proof"


class ProofBoard(Protocol):
    """What a proof through the firmware needs of a board (`harness.board.Board`)."""

    def command(self, name: str, *, timeout_s: float = ..., **arguments: object) -> Answer:
        """One command of the firmware."""

    def take(self, data: bytes, **arguments: Any) -> Answer:
        """An update from these bytes."""


def proof_by_firmware(
    board: ProofBoard, chip: Chip, mac: str, key: bytes, status: Mapping[str, Any], sign: Sign
) -> KeyProof:
    """By one sector in the slot that does not run; what was in that slot is lost.

    Args:
        status: the device fields that its firmware tells (``status``).
        sign: signs the package; a firmware that does not know that key may take bare bytes.

    Raises:
        BoardError: the firmware does not answer.
    """
    why_not = _why_not_asked(status)
    if why_not is not None:
        return KeyProof(ProofResult.OPEN, why_not)
    slot, offset = str(status["next"]), int(status["next_offset"])
    size = board.command("hash", slot=slot, timeout_s=60.0).fields.get("len")
    if size is None:
        return KeyProof(ProofResult.OPEN, f"its firmware does not tell how large {slot} is")
    sector = proof_sector(chip, str(status["project"]), int(status["secure_version"]))
    body = encrypt(chip.cipher, key, offset, sector)
    header = PackageHeader(
        chip_id=chip.chip_id,
        cipher_number=chip.cipher.number,
        mac=parse_mac(mac),
        key_id=key_id_of(key),
        slot_offset=offset,
        slot_size=int(size),
        image_size=len(sector),
        body_size=len(body),
        # Never what comes: when the sector has been judged, the transfer must fail.
        body_sha256=hashlib.sha256(b"not " + body).digest(),
        image_sha256=hashlib.sha256(b"not " + sector).digest(),
        version=PROOF_VERSION,
        secure_version=int(status["secure_version"]),
        project_name=str(status["project"]),
    )
    answer = _sent(board, sealed(header, body, sign))
    if answer.error in ("bad-signature", "no-signature-key"):
        bare = _sent(board, body, bare=1)
        answer = answer if bare.error == "bare-not-allowed" else bare
    return _judged(answer, slot)


def _sent(board: ProofBoard, data: bytes, **arguments: int) -> Answer:
    """Over the UART, where no network need be set up for a sector; else as updates go."""
    answer = board.take(data, name="key-proof.pkg", over="uart", **arguments)
    return (
        board.take(data, name="key-proof.pkg", **arguments) if answer.error == "unknown-command" else answer
    )


def _why_not_asked(status: Mapping[str, Any]) -> str | None:
    if status.get("fe") == "off":
        return "its firmware says that flash encryption is off"
    if status.get("next") in (None, "none"):
        return "it has no slot but the one that runs"
    if status.get("state") == "pending":
        return "the version that runs is not confirmed yet, and the other slot is its only way back"
    return None


def _judged(answer: Answer, slot: str) -> KeyProof:
    deciphered = any(event.get("phase") == "first-sector" for event in answer.events)
    # Events get lost on a wire; each of these errors comes after the sector was judged.
    deciphered = deciphered or answer.error in ("body-hash", "image-hash", "image-invalid")
    if deciphered and answer.fields.get("version") == PROOF_VERSION:
        return KeyProof(
            ProofResult.PROVEN, f"the firmware read a sector in {slot} back as it was enciphered with it"
        )
    if answer.error == "not-deciphered":
        return KeyProof(
            ProofResult.WRONG, f"a sector in {slot} that was enciphered with it does not decipher"
        )
    return KeyProof(ProofResult.OPEN, f"its firmware did not take the sector: {answer}")


def proof_sector(chip: Chip, project: str, secure_version: int) -> bytes:
    """4096 bytes that begin like an application of `project`, and are none: its first segment has no possible length."""
    header = bytearray(HEADER_BYTES)
    header[0], header[1], header[23] = IMAGE_MAGIC, 1, 1
    header[12:14] = chip.chip_id.to_bytes(2, "little")
    segment = bytes(4) + MAX_SEGMENT_BYTES.to_bytes(4, "little")
    description = AppDescription(PROOF_VERSION, project, secure_version=secure_version)
    return (bytes(header) + segment + description.to_bytes()).ljust(PROOF_BYTES, b"\xff")
