"""Updates that must be refused: each with its own error, the running slot untouched, the next good update works.

Single fields of headers have tables of their own: test_header_fields.py and test_image_fields.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from row import Row, rows

from harness.board import Board, Snapshot
from harness.console.boot_record import BootRecord
from harness.formats.ota_package import HEADER_BYTES
from harness.formats.partition_table import Partition
from harness.ota import variants
from harness.ota.release import Release, encipher_for_slot
from harness.ota.variants import Recipe

pytestmark = [pytest.mark.in_turn, pytest.mark.profiles("release", full=("development", "ciphertext-only"))]

OTHER_MAC = "7c:df:a1:ff:ff:fe"


def other_slot(board: Board, recipe: Recipe) -> Partition:
    return board.other_slot(recipe.slot.label)


def other_key(board: Board) -> bytes:
    """A key that is not the board's."""
    return bytes(range(1, board.chip.cipher.key_size_bytes + 1))


ADVANCED_OTA = "esp-idf pytest_advanced_ota.py"
DOUBLE_ENCRYPTION = ("esp-idf #6172", "esp-idf #17267", "forum t=7800", "forum t=31410", "BLEOTA #29")


@dataclass(frozen=True)
class Case(Row):
    """One line of the table: what is served, and the error by which the device refuses it."""

    name: str
    make: Callable[[Board, Recipe], bytes]
    error: str
    arguments: tuple[tuple[str, int], ...] = ()
    erases: bool = False
    """Found only after the slot was erased; without it, the slot that was to be written is untouched."""


BODY = HEADER_BYTES

PACKAGES = (
    Case(
        "made for the other slot",
        lambda b, r: variants.for_other_slot(r, other_slot(b, r)),
        "wrong-slot",
        source=("esp-idf PR #7305",),
    ),
    Case(
        "made for another device, with its key",
        lambda b, r: variants.for_other_device(r, OTHER_MAC, other_key(b)),
        "wrong-device",
        source=("esp-idf #9953",),
    ),
    Case(
        "cipher of another chip in the header",
        lambda b, r: variants.with_cipher_number(r, b.chip.cipher.number % 4 + 1),
        "wrong-cipher",
    ),
    Case("larger than the slot", lambda b, r: variants.larger_than_slot(r), "wrong-size"),
    Case("not a package", lambda b, r: r.body(), "bad-magic"),
    Case(
        "enciphered for the other slot under a right label",
        lambda b, r: variants.enciphered_for_slot(r, other_slot(b, r)),
        "not-deciphered",
        erases=True,
        source=("esp-idf #6172",),
    ),
    Case(
        "another key under a right label",
        lambda b, r: variants.enciphered_with_key(r, other_key(b)),
        "not-deciphered",
        erases=True,
        source=("esp-idf #9953",),
    ),
    Case(
        "plaintext under a right label",
        lambda b, r: variants.plaintext_under_cipher(r),
        "plaintext-image",
        erases=True,
        source=("esptool #699",),
    ),
    Case(
        "an image for another chip inside",
        lambda b, r: variants.with_image_chip_id(r, 0xFE),
        "wrong-description",
        erases=True,
        source=(ADVANCED_OTA,),
    ),
    Case(
        "truncated at half",
        lambda b, r: variants.truncated(r.package(), BODY + len(r.body()) // 2),
        "truncated",
        erases=True,
        source=(ADVANCED_OTA,),
    ),
    Case(
        "truncated in the header",
        lambda b, r: variants.truncated(r.package(), 100),
        "truncated",
        source=(ADVANCED_OTA,),
    ),
    Case("empty", lambda b, r: b"", "truncated", full=True),
    Case(
        "random bytes",
        lambda b, r: bytes((37 * n * n + 11 * n) & 0xFF for n in range(8192)),
        "bad-magic",
        source=(ADVANCED_OTA,),
    ),
    Case(
        "one bit flipped in the middle",
        lambda b, r: variants.flipped(r.package(), BODY + len(r.body()) // 2),
        "body-hash",
        erases=True,
    ),
    Case(
        "one bit flipped in the last byte",
        lambda b, r: variants.flipped(r.package(), -1),
        "body-hash",
        erases=True,
        full=True,
    ),
    Case(
        "flipped body with a hash that fits",
        lambda b, r: variants.flipped_body(r, len(r.body()) // 2),
        "image-hash",
        erases=True,
    ),
    Case(
        "slot not erased first",
        lambda b, r: r.package(),
        "not-erased",
        (("noerase", 1),),
        erases=True,
        source=("esp-idf #6172",),
    ),
)


@pytest.mark.parametrize("case", rows(PACKAGES))
def test_a_bad_package_is_refused_by_its_own_error(
    board: Board,
    case: Case,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    target = board.slot(before.running.next_slot)
    other = board.slot_digest(target.label)
    recipe = board.recipe(fresh(), target)
    answer = board.take(case.make(board, recipe), **dict(case.arguments))
    assert answer.error == case.error, answer
    if not case.erases:
        assert board.slot_digest(target.label) == other, "refused by the header, and yet the slot was touched"
    still_runs()


BARE = (
    (
        "wrong slot",
        lambda b, r: encipher_for_slot(r.release.image, chip=r.chip, key=r.key, slot=other_slot(b, r)),
        "not-deciphered",
        "wrong slot",
    ),
    ("plaintext", lambda b, r: r.release.image, "plaintext-image", "plaintext"),
    ("truncated", lambda b, r: r.body()[: len(r.body()) // 2 // 16 * 16], "image-invalid", "truncated"),
    (
        "one bit flipped",
        lambda b, r: variants.flipped(r.body(), len(r.body()) // 2),
        "image-invalid",
        "changed on the way",
    ),
    (
        "another device's key",
        lambda b, r: encipher_for_slot(r.release.image, chip=r.chip, key=other_key(b), slot=r.slot),
        "not-deciphered",
        "made for another device",
    ),
)


@pytest.mark.parametrize(("name", "make", "error", "cause"), BARE, ids=[row[0] for row in BARE])
def test_of_a_bad_bare_bin_the_device_says_that_it_is_no_image_and_the_host_says_why(
    board: Board,
    name: str,
    make: Callable[[Board, Recipe], bytes],
    error: str,
    cause: str,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    recipe = board.recipe(fresh(), board.slot(before.running.next_slot))
    body = make(board, recipe)
    answer = board.take(body, name="bare.bin", bare=1)
    assert answer.error == error, answer
    found = board.diagnose(body, recipe, other_keys={"bench-2": other_key(board)})
    assert found.cause.value == cause, found
    still_runs()


def test_a_good_bare_bin_is_taken(board: Board, fresh: Callable[[], Release]) -> None:
    release, slot = fresh(), board.status().next_slot
    assert board.take(board.body(release), name="bare.bin", bare=1).ok
    assert (board.reboot().slot, board.status().version) == (slot, release.version)


@pytest.mark.source(*DOUBLE_ENCRYPTION)
def test_pre_encrypted_through_the_stock_handler_is_refused_with_the_invalid_magic_error(
    board: Board, fresh: Callable[[], Release], still_runs: Callable[[], BootRecord]
) -> None:
    mark = board.console.mark()
    body = board.body(fresh())
    answer = board.take(body, name="cipher.bin", command="ota-stock")
    assert (answer.error, answer.code) == ("image-invalid", 0x1503)
    # Under one key in 256 the ciphertext itself begins like an image, and something else about it is wrong.
    magic = "OTA image has invalid magic byte (expected 0xE9, saw 0x"
    board.console.wait_for("New image failed verification" if body[0] == 0xE9 else magic, 5, since=mark)
    still_runs()


@pytest.mark.needs("fault-injection")
def test_a_failing_encrypted_write_aborts_the_update_with_the_flash_error(
    board: Board, fresh: Callable[[], Release], still_runs: Callable[[], BootRecord]
) -> None:
    package = board.package(fresh())
    board.inject("write-encrypted", error=0x6001)
    answer = board.take(package)
    assert (answer.error, answer.code) == ("flash", 0x6001)
    board.inject("clear")
    still_runs()
