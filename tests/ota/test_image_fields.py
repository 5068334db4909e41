"""Every field of an app image that is judged, wrong on its own in an otherwise intact image.

The raw handler judges the first sector by itself, then has ESP-IDF verify the whole; the stock handler knows ESP-IDF's
verification only. Places are those of ``esp_image_header_t`` and ``esp_app_desc_t``, written out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from row import Row, rows

from harness.board import Board, Snapshot
from harness.console.boot_record import BootRecord
from harness.errors import NotApplicableError
from harness.ota import variants
from harness.ota.image_variants import patched_image, with_checksum, with_hash
from harness.ota.release import Release

pytestmark = [
    pytest.mark.in_turn,
    pytest.mark.profiles("release", full=("open", "development", "ciphertext-only"), secure_boot=False),
]

ADVANCED_OTA = "esp-idf pytest_advanced_ota.py"
IMAGE_INVALID = 0x1503
"""ESP_ERR_OTA_VALIDATE_FAILED."""


@dataclass(frozen=True)
class Field(Row):
    """One wrong field, what the raw handler says of it, and what ESP-IDF's verification prints where it gets so far."""

    name: str
    make: Callable[[Release], bytes]
    raw: str
    said: str = ""
    stock: bool = True
    """The stock handler refuses it, too."""
    not_on: tuple[str, ...] = ()
    """Chips whose ESP-IDF does not look at it."""


def patch(at: int, data: bytes) -> Callable[[Release], bytes]:
    return lambda release: patched_image(release, at, data)


def misplaced(release: Release) -> bytes:
    """The first segment, mapped from flash, at another place within its page."""
    address = release.parsed.segments[0].load_address + 0x1000
    return patched_image(release, 24, address.to_bytes(4, "little"))


FIELDS = (
    Field(
        "magic",
        patch(0, b"\xe8"),
        "not-deciphered",
        "OTA image has invalid magic byte (expected 0xE9, saw 0xe8)",
        source=("forum t=31410", "forum t=30704"),
    ),
    Field("no segment", patch(1, b"\0"), "not-deciphered"),
    Field("17 segments", patch(1, b"\x11"), "not-deciphered", "segment count 17 exceeds max 16"),
    # One more could be read out of the zeros before the checksum, as an empty one.
    Field("16 segments where there are fewer", patch(1, b"\x10"), "image-invalid"),
    Field(
        "chip id",
        patch(12, b"\xfe\0"),
        "wrong-description",
        "mismatch chip ID, expected",
        source=(ADVANCED_OTA,),
    ),
    Field(
        "made for later revisions of the chip",
        patch(15, (900).to_bytes(2, "little")),
        "image-invalid",
        "chip revision check failed. Required >= v9.0",
        source=(ADVANCED_OTA,),
    ),
    Field(
        "made for earlier revisions of the chip",
        # Revision 0.0 would mean: no limit.
        patch(17, (1).to_bytes(2, "little")),
        "image-invalid",
        "chip revision check failed. Required <= v0.1",
        # The least revision that this project takes of them is 0.0: none is newer than 0.1.
        not_on=("esp32s2", "esp32s3", "esp32c5", "esp32c6", "esp32h2", "esp32p4", "esp32c2"),
    ),
    Field("no hash appended", patch(23, b"\0"), "wrong-description", stock=False),
    Field("neither with nor without a hash", patch(23, b"\2"), "wrong-description", stock=False, full=True),
    Field("load address of a mapped segment", misplaced, "image-invalid", "doesn't match data"),
    Field("length of a segment is odd", patch(28, b"\1"), "image-invalid", "invalid segment length"),
    Field("length of a segment is 16 MiB", patch(28, b"\0\0\0\1"), "image-invalid", "invalid segment length"),
    Field("checksum", with_checksum, "image-invalid", "Checksum failed. Calculated"),
    Field("hash", with_hash, "image-invalid", "Image hash failed - image is corrupt"),
    Field("description: magic", patch(0x20, b"\0\0\0\0"), "not-deciphered", stock=False),
    Field("description: secure version", patch(0x24, b"\1"), "wrong-description", stock=False),
    Field("description: version", patch(0x30, b"8"), "wrong-description", stock=False),
    Field("description: project", patch(0x50, b"blink\0"), "wrong-description", stock=False),
    Field(
        "description: made for later eFuse blocks",
        patch(0xD0, (999).to_bytes(2, "little")),
        "image-invalid",
        "Image requires efuse blk rev >= v9.99, but chip is",
        not_on=("esp32",),
    ),
)
"""The magic of a description is looked at by ESP-IDF only on chips whose MMU pages have more than one size."""


def made(field: Field, board: Board, release: Release) -> bytes:
    if board.chip.name in field.not_on:
        raise NotApplicableError(f"ESP-IDF on {board.chip.title} does not refuse it")
    return field.make(release)


@pytest.mark.parametrize("field", rows(FIELDS))
def test_the_raw_handler_refuses_an_image_with_one_wrong_field(
    board: Board,
    field: Field,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    recipe = board.recipe(fresh(), board.slot(before.running.next_slot))
    mark = board.console.mark()
    answer = board.take(variants.around_image(recipe, made(field, board, recipe.release)))
    assert answer.error == field.raw, answer
    if field.raw == "image-invalid":
        assert answer.code == IMAGE_INVALID
        if field.said:
            board.console.wait_for(field.said, 5, since=mark)
    still_runs()


@pytest.mark.parametrize("field", rows(each for each in FIELDS if each.stock))
def test_the_stock_handler_refuses_an_image_with_one_wrong_field(
    board: Board,
    field: Field,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    image = made(field, board, fresh())
    mark = board.console.mark()
    answer = board.take(image, name="plain.bin", command="ota-stock")
    assert (answer.error, answer.code) == ("image-invalid", IMAGE_INVALID), answer
    if field.said:
        board.console.wait_for(field.said, 5, since=mark)
    still_runs()


def test_an_image_without_a_hash_passes_the_stock_handler_and_is_what_the_raw_one_asks_for(
    board: Board, fresh: Callable[[], Release]
) -> None:
    """ESP-IDF takes such images: the row above must not be refused for another reason."""
    release, start = fresh(), board.status()
    image = patched_image(release, 23, b"\0")
    assert board.take(image, name="plain.bin", command="ota-stock").ok
    assert (board.reboot().slot, board.status().version) == (start.next_slot, release.version)


def test_what_nobody_judges_does_not_stop_an_image(board: Board, fresh: Callable[[], Release]) -> None:
    """SPI mode, speed and size, write-protect pin, legacy revision: the second-stage bootloader's are what counts."""
    recipe = board.recipe(fresh(), board.slot(board.status().next_slot))
    release = recipe.release
    for at, data in ((2, b"\5\0"), (8, b"\0"), (14, b"\xff"), (0x70, b"99:99:99"), (0xB0, b"\xff" * 32)):
        image = patched_image(release, at, data)
        assert board.take(variants.around_image(recipe, image)).ok, f"refused for byte {at:#x}"
    assert (board.reboot().slot, board.status().version) == (recipe.slot.label, release.version)
