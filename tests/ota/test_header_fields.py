"""Every field of a package's header, wrong on its own and signed like a right one: refused by the error that fits it.

Places and sizes are those of firmware/components/raw_ota/README.md, written out: the table does not ask the code that
makes packages where it puts things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from row import Row, rows

from harness.board import Board, Snapshot
from harness.console.boot_record import BootRecord
from harness.ota import variants
from harness.ota.release import Release, signer
from harness.ota.variants import Recipe

pytestmark = [
    pytest.mark.in_turn,
    pytest.mark.profiles("release", full=("open", "development", "ciphertext-only")),
]

BLOCK = 16
Make = Callable[[Recipe], bytes]


def u32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def text(value: str) -> bytes:
    return value.encode().ljust(32, b"\0")


def body_bytes(recipe: Recipe) -> int:
    return len(recipe.body())


@dataclass(frozen=True)
class Field(Row):
    """One field of the header, and what is put there."""

    name: str
    at: int
    """Offset in the header."""
    data: bytes | Make
    error: str
    erases: bool = False
    """Found only after the slot was erased."""

    def package(self, recipe: Recipe) -> bytes:
        data = self.data if isinstance(self.data, bytes) else self.data(recipe)
        return variants.patched(recipe.package(), self.at, data, recipe.sign)


FIELDS = (
    Field("magic of something else", 0, b"\xe9", "bad-magic"),
    Field("magic of a later format", 0, b"RAWOTA2\0", "bad-magic", full=True),
    Field("header version 0", 8, b"\0\0", "bad-header-version", full=True),
    Field("header version 2", 8, b"\2\0", "bad-header-version"),
    Field("header size 255", 10, b"\xff\0", "bad-header-size"),
    Field("header size 512", 10, b"\0\2", "bad-header-size", full=True),
    Field("chip id of an ESP32-S2", 12, b"\2\0", "wrong-chip"),
    Field("chip id of no chip", 12, b"\xff\xff", "wrong-chip", full=True),
    Field("a cipher that there is not", 14, b"\xff", "wrong-cipher"),
    Field("a flag", 15, b"\1", "bad-header-version"),
    Field("base MAC of another device", 16, b"\x7c\xdf\xa1\xff\xff\xfe", "wrong-device"),
    Field("no base MAC", 16, bytes(6), "wrong-device", full=True),
    Field("reserved bytes behind the MAC", 22, b"\0\1", "bad-header-version"),
    Field("slot offset one sector on", 32, lambda r: u32(r.slot.offset + 0x1000), "wrong-slot"),
    Field("slot offset 0", 32, u32(0), "wrong-slot", full=True),
    Field("slot size one sector more", 36, lambda r: u32(r.slot.size + 0x1000), "wrong-slot"),
    Field("slot size one sector less", 36, lambda r: u32(r.slot.size - 0x1000), "wrong-slot", full=True),
    Field("image size 0", 40, u32(0), "wrong-size"),
    Field("image size just below 2^32", 40, u32(-1), "wrong-size"),
    Field("image size one block less", 40, lambda r: u32(len(r.release.image) - BLOCK), "wrong-size"),
    Field(
        "image size one byte less, in the same block",
        40,
        lambda r: u32(len(r.release.image) - 1),
        "image-hash",
        erases=True,
    ),
    Field("body size one block more", 44, lambda r: u32(body_bytes(r) + BLOCK), "wrong-size"),
    Field("body size 0", 44, u32(0), "wrong-size", full=True),
    Field(
        "both sizes one block more than is sent",
        40,
        lambda r: u32(len(r.release.image) + BLOCK) + u32(body_bytes(r) + BLOCK),
        "truncated",
    ),
    Field(
        "both sizes one block less than is sent",
        40,
        lambda r: u32(len(r.release.image) - BLOCK) + u32(body_bytes(r) - BLOCK),
        "wrong-size",
    ),
    Field("SHA-256 of another body", 48, bytes(32), "body-hash", erases=True),
    Field("SHA-256 of another image", 80, bytes(32), "image-hash", erases=True),
    Field("no version", 112, text(""), "wrong-version"),
    Field("a version that is no text", 112, text("2.\1.0"), "wrong-version"),
    Field("a version without an end", 112, b"9" * 32, "wrong-version", full=True),
    Field("something behind the version", 112, b"2.0.0\0x", "wrong-version", full=True),
    Field("another version", 112, text("9.9.9"), "wrong-description", erases=True),
    Field("a higher secure version than the image's", 144, u32(1), "wrong-description", erases=True),
    Field("project of another app", 148, text("blink"), "wrong-version"),
    Field("no project", 148, text(""), "wrong-version", full=True),
    Field("reserved bytes at the end, the first", 180, b"\1", "bad-header-version", full=True),
    Field("reserved bytes at the end, the last", 191, b"\1", "bad-header-version"),
)


@pytest.mark.parametrize("field", rows(FIELDS))
def test_a_header_with_one_wrong_field_is_refused_by_its_own_error(
    board: Board,
    field: Field,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    target = board.slot(before.running.next_slot)
    untouched = board.slot_digest(target.label)
    answer = board.take(field.package(board.recipe(fresh(), target)))
    assert answer.error == field.error, answer
    if not field.erases:
        assert board.slot_digest(target.label) == untouched, "refused by the header, and the slot was touched"
    still_runs()


OTHER_KEY = signer(ec.derive_private_key(0x5EED, ec.SECP256R1()))
SIGNATURE = 192


def swapped(recipe: Recipe) -> bytes:
    """s before r."""
    package = recipe.package()
    return variants.patched(package, SIGNATURE, package[224:256] + package[192:224])


@dataclass(frozen=True)
class Signature(Row):
    """One way in which the header's signature is none of this header."""

    name: str
    make: Make


SIGNATURES = (
    Signature("all zero", lambda r: variants.unsigned(r.package())),
    Signature("r zero", lambda r: variants.patched(r.package(), SIGNATURE, bytes(32)), full=True),
    Signature("s zero", lambda r: variants.patched(r.package(), SIGNATURE + 32, bytes(32)), full=True),
    Signature("all ones", lambda r: variants.patched(r.package(), SIGNATURE, b"\xff" * 64), full=True),
    Signature("first bit of r flipped", lambda r: variants.flipped(r.package(), SIGNATURE, 7), full=True),
    Signature("last bit of s flipped", lambda r: variants.flipped(r.package(), 255)),
    Signature("r and s swapped", swapped, full=True),
    Signature("by another key", lambda r: variants.signed_by(r.package(), OTHER_KEY)),
    Signature("a bit of the version flipped", lambda r: variants.flipped(r.package(), 112), full=True),
    Signature("a bit of the key id flipped", lambda r: variants.flipped(r.package(), 24)),
    Signature("a bit of the body's hash flipped", lambda r: variants.flipped(r.package(), 48), full=True),
)


@pytest.mark.parametrize("case", rows(SIGNATURES))
def test_a_header_that_was_changed_or_signed_by_somebody_else_is_refused_before_anything_is_erased(
    board: Board,
    case: Signature,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    target = board.slot(before.running.next_slot)
    untouched = board.slot_digest(target.label)
    answer = board.take(case.make(board.recipe(fresh(), target)))
    assert answer.error == "bad-signature", answer
    assert board.slot_digest(target.label) == untouched
    still_runs()


def test_the_key_id_is_for_people_and_servers_and_does_not_stop_a_device(
    board: Board, fresh: Callable[[], Release]
) -> None:
    """A device cannot read its key: it tells a wrong one by the first sector, whatever the label says."""
    release, target = fresh(), board.slot(board.status().next_slot)
    package = variants.relabelled(
        board.recipe(release, target).package(), board.recipe(release, target).sign, key_id=b"\xff" * 8
    )
    assert board.take(package).ok
    assert (board.reboot().slot, board.status().version) == (target.label, release.version)
