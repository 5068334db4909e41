"""The cases: a table of what a sacrificial unit is offered besides the good update, and what each claims. Pure.

A ship unit gets none of them: they are on its report as not covered.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from harness.chips import Chip
from harness.errors import NotProvenError
from harness.formats.partition import Partition
from harness.ota.faults import Fault, FaultKind
from harness.ota.release import Release
from harness.qualify.file import Image
from harness.qualify.offer import Served, enciphered, served


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What the body of a case is made of."""

    release: Release
    """The app that a right update would bring."""
    for_slot: Callable[[Partition], Served]
    """The update as it is right for that slot."""
    chip: Chip
    slot: Partition
    """Where it would go."""
    other_slot: Partition | None
    """Another one."""

    def right(self) -> Served:
        """The right update."""
        return self.for_slot(self.slot)


class How(str, Enum):
    """What a case does besides offering its body."""

    OFFER = "offer"
    CUT_IN_DOWNLOAD = "cut in the middle of the download"
    CUT_AT_END = "cut when the download is complete"
    OTHER_CERTIFICATE = "another certificate"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that must not harm the unit."""

    key: str
    """Of its claim."""
    images: frozenset[Image]
    """Kinds of update that it makes sense for."""
    make: Callable[[Ingredients], Served]
    how: How = How.OFFER
    fault: Callable[[int], Fault] | None = None
    """What the harness's server does to a body of that size."""
    late: bool = False
    """Only after the good update: the new version may be left running."""

    @property
    def needs_our_server(self) -> bool:
        """It is done by, or seen at, the server."""
        return self.fault is not None or self.how is not How.OFFER


_ALL: frozenset[Image] = frozenset({"ciphertext", "plaintext", "file"})
_CIPHERTEXT: frozenset[Image] = frozenset({"ciphertext"})
_PLAINTEXT: frozenset[Image] = frozenset({"plaintext"})


def _right(parts: Ingredients) -> Served:
    return parts.right()


def _wrong_key(parts: Ingredients) -> Served:
    key = os.urandom(parts.chip.cipher.key_size_bytes)
    body = enciphered(parts.release, chip=parts.chip, key=key, slot=parts.slot)
    return served(body, f"{parts.release.version}, enciphered with a random key for {parts.slot.label}")


def _wrong_slot(parts: Ingredients) -> Served:
    if parts.other_slot is None:
        raise NotProvenError("there is no other slot to encipher for")
    return parts.for_slot(parts.other_slot)


def _plaintext(parts: Ingredients) -> Served:
    return served(parts.release.image, f"{parts.release.version} as plaintext")


def _flipped(parts: Ingredients) -> Served:
    right = parts.right()
    body = bytearray(right.body)
    at = len(body) // 2
    body[at] ^= 1
    return served(bytes(body), f"{right.words}, bit 0 of byte {at} inverted")


def _noise(parts: Ingredients) -> Served:
    right = parts.right()
    # The magic byte of an image is 0xE9; of 255 other values none may be taken for one.
    body = b"\x00" + os.urandom(len(right.body) - 1)
    return served(body, f"{len(body)} random bytes")


def _half(size_bytes: int) -> int:
    return size_bytes // 2


CASES: tuple[Case, ...] = (
    Case("refuses-wrong-key", _CIPHERTEXT, _wrong_key),
    Case("refuses-wrong-slot", _CIPHERTEXT, _wrong_slot),
    Case("refuses-plaintext", _CIPHERTEXT, _plaintext),
    Case("refuses-ciphertext", _PLAINTEXT, _wrong_key),
    Case(
        "refuses-truncated",
        _ALL,
        _right,
        fault=lambda size: Fault(FaultKind.TRUNCATE, at_byte=_half(size), times=None),
    ),
    Case("refuses-flipped-byte", _ALL, _flipped),
    Case("refuses-noise", _ALL, _noise),
    Case("refuses-other-certificate", _ALL, _right, how=How.OTHER_CERTIFICATE),
    Case("survives-cut-download", _ALL, _right, how=How.CUT_IN_DOWNLOAD),
    Case("survives-cut-at-end", _ALL, _right, how=How.CUT_AT_END, late=True),
)


def why_not(case: Case, image: Image, *, our_server: bool, https: bool) -> str | None:
    """Why the question of `case` does not arise, or cannot be asked, for this kind of update; None: it can be asked."""
    if image not in case.images:
        made = {
            "ciphertext": "the update is enciphered on the host",
            "plaintext": "the update is plaintext",
            "file": "what is served was made elsewhere, and only there could be made wrong",
        }[image]
        return f"not applicable: {made}"
    if case.how is How.OTHER_CERTIFICATE and not https:
        return "not applicable: the update does not come over HTTPS"
    if case.needs_our_server and not our_server:
        return "somebody else's server does not cut, and nobody here sees what it sends"
    return None


def slots_of(partitions: tuple[Partition, ...], place: str | None) -> tuple[Partition, Partition | None]:
    """The slot that an update goes to when `place` (a label) runs, and another one.

    As ``esp_ota_get_next_update_partition`` has it: the OTA slot after the running one, and the first one after a
    factory app.

    Raises:
        NotProvenError: nothing tells what runs, or there are no two slots.
    """
    slots = [each for each in partitions if each.is_ota_slot]
    if len(slots) < 2:
        raise NotProvenError(
            "the partition table is not known: the bootloader printed none",
            todo="name it in qualify.yaml: partition_table: {path: …, sha256: …}",
        )
    labels = [each.label for each in slots]
    if place is None:
        raise NotProvenError(
            "nothing tells which slot runs, so nobody knows the one that an update goes to",
            todo="name a witness of it: witness: {slot: …}",
        )
    index = labels.index(place) if place in labels else -1
    target = slots[(index + 1) % len(slots)]
    others = [each for each in slots if each is not target]
    return target, others[0] if others else None
