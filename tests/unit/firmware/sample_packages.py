"""Packages for a fake board: the right one, and ones with a field changed before or after signing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from fake_board import FakeBoard
from fake_chip import encipher
from firmware_builds import SIGNING_KEY, sign_with

from harness.build.artefacts import Artefacts
from harness.formats.ota_package import PackageHeader
from harness.formats.partition_table import Partition


def image_of(artefacts: Artefacts) -> bytes:
    return artefacts.app.read_bytes()


def body_for(
    board: FakeBoard, image: bytes, slot: Partition | None = None, key: bytes | None = None
) -> bytes:
    """`image` as the server enciphers it for a slot (default: the other one) of this board."""
    padded = image + b"\xff" * (-len(image) % 16)
    if not board.chip.encrypted:
        return padded
    return encipher(key or board.chip.key, (slot or other_slot(board)).offset, padded)


def other_slot(board: FakeBoard) -> Partition:
    return next(slot for slot in board.table.ota_slots if slot != board.running)


def header_for(board: FakeBoard, artefacts: Artefacts, body: bytes, **changes: Any) -> PackageHeader:
    slot, image = other_slot(board), image_of(artefacts)
    right = PackageHeader(
        chip_id=artefacts.chip.chip_id,
        cipher_number=artefacts.chip.cipher.number if board.chip.encrypted else 0,
        mac=board.chip.mac,
        key_id=b"12345678",
        slot_offset=slot.offset,
        slot_size=slot.size,
        image_size=len(image),
        body_size=len(body),
        body_sha256=hashlib.sha256(body).digest(),
        image_sha256=hashlib.sha256(image).digest(),
        version=artefacts.version,
        secure_version=artefacts.secure_version,
        project_name=artefacts.project,
    )
    return replace(right, **changes)


def package_for(
    board: FakeBoard,
    artefacts: Artefacts,
    *,
    body: bytes | None = None,
    key: ec.EllipticCurvePrivateKey = SIGNING_KEY,
    **changes: Any,
) -> bytes:
    """A signed package; `changes` are made to its header before it is signed."""
    body = body if body is not None else body_for(board, image_of(artefacts))
    header = header_for(board, artefacts, body, **changes)
    return header.to_bytes(sign_with(key, header.signed_part())) + body


def patched(package: bytes, at: int, data: bytes, *, resign: bool = True) -> bytes:
    """A package with header bytes overwritten, signed anew or not."""
    signed = package[:at] + data + package[at + len(data) : 192]
    signature = sign_with(SIGNING_KEY, signed) if resign else package[192:256]
    return signed + signature + package[256:]
