"""Secure boot v2: what is not signed by a key that the board knows is neither installed nor started.

A signature is looked at three times, by code that differs: by the running application before it switches, by the
bootloader before it starts an app, by the ROM before it starts the bootloader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from row import Row, rows

from harness.board import Board, Snapshot
from harness.build.boot_key import from_private, generate
from harness.build.signing import sign
from harness.console.boot_record import BootRecord
from harness.errors import NotApplicableError
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.formats.otadata import OtaData, OtaState
from harness.formats.signature_block import (
    BLOCK_BYTES,
    PrivateKey,
    blocks_of,
    make_block,
    make_sector,
    regions,
    unsigned_length,
    with_crc,
)
from harness.ota import variants
from harness.ota.image_variants import patched_image
from harness.ota.release import Release, encipher_for_slot, parse_release
from harness.ota.variants import Recipe
from harness.vault.boot_keys import boot_key

pytestmark = [
    pytest.mark.in_turn,
    pytest.mark.profiles("release", full=("open", "development", "ciphertext-only"), secure_boot=True),
]

IDF_TEST = "esp-idf pytest_secure_boot.py"
MCUBOOT = "mcuboot run_signfail_upgrade"
IMAGE_INVALID = 0x1503
APP_REFUSES = "Secure boot signature verification failed"
"""What ESP-IDF's verification prints in an application, for whatever is wrong with a signature."""


# ---- images -------------------------------------------------------------------------------------------------


def signed_image(board: Board, release: Release) -> Recipe:
    """The recipe of a signed release for the slot that is free."""
    return board.recipe(release, board.slot(board.status().next_slot))


def unsigned(board: Board, image: bytes) -> bytes:
    return image[: unsigned_length(image)]


def by_a_stranger(board: Board, image: bytes) -> bytes:
    """Signed well, with a key of the right kind that this board has never heard of."""
    key = from_private("a stranger's key", _strangers_key(board))
    return sign(unsigned(board, image), [key], board.chip)


_STRANGERS: dict[str, PrivateKey] = {}


def _strangers_key(board: Board) -> PrivateKey:
    scheme = board.boot_keys.scheme
    return _STRANGERS.setdefault(scheme.value, generate(scheme))


def changed_under_its_signature(board: Board, image: bytes) -> bytes:
    """Another version in the description, checksum and hash right again, the old signature behind it."""
    return patched_image(parse_release(image), 0x70, b"12:34:56")


def with_blocks(image: bytes, change: Callable[[bytes, int], bytes]) -> bytes:
    """`image` with every signature block changed by `change`, which gets the block and its index."""
    start = unsigned_length(image)
    blocks = blocks_of(image)
    sector = bytearray(image[start:])
    for found in blocks:
        at = found.index * BLOCK_BYTES
        sector[at : at + BLOCK_BYTES] = change(bytes(sector[at : at + BLOCK_BYTES]), found.index)
    return image[:start] + bytes(sector)


def flipped_at(offset: int, *, crc_fits: bool = True) -> Callable[[Board, bytes], bytes]:
    """One bit of every block inverted at `offset`, its CRC made to fit."""

    def change(block: bytes, _: int) -> bytes:
        damaged = bytearray(block)
        damaged[offset] ^= 0x10
        return with_crc(bytes(damaged)) if crc_fits else bytes(damaged)

    return lambda board, image: with_blocks(image, change)


def of_another_release(board: Board, image: bytes) -> bytes:
    """The signature sector of an older image, which is good there."""
    other = board.release("0.0.9")
    return image[: unsigned_length(image)] + other.image[unsigned_length(other.image) :]


def empty_sector(board: Board, image: bytes) -> bytes:
    return unsigned(board, image) + b"\xff" * 4096


def region(name: str) -> Callable[[Board, bytes], bytes]:
    """One bit of that region of every block inverted; see `variants.DAMAGES`."""

    def make(board: Board, image: bytes) -> bytes:
        place = regions(board.boot_keys.scheme)[name]
        # Behind the first byte, which for an ECDSA key is its curve: that would be another scheme.
        return flipped_at(place.offset + min(1, place.size - 1), crc_fits=name not in ("crc", "padding"))(
            board, image
        )

    return make


@dataclass(frozen=True)
class Bad(Row):
    """An image whose signature is none, and who finds it out."""

    name: str
    make: Callable[[Board, bytes], bytes]
    app: bool = True
    """The running application refuses it. If not, the bootloader does, and the old version boots."""
    starts_on: tuple[str, ...] = ()
    """Chips whose bootloader starts it all the same."""


BAD = (
    Bad("unsigned", unsigned, source=(IDF_TEST, MCUBOOT)),
    Bad("an empty signature sector", empty_sector, full=True),
    Bad("signed by a stranger", by_a_stranger, source=(IDF_TEST, MCUBOOT)),
    Bad("signature of another image", of_another_release, source=(IDF_TEST,)),
    Bad("changed under its signature", changed_under_its_signature),
    Bad("damaged: magic", region("magic"), source=(IDF_TEST,)),
    # ESP-IDF's bootloader hands the block to ESP32's ROM as it is, and that looks at no version.
    Bad("damaged: version", region("version"), starts_on=("esp32",), source=(IDF_TEST,)),
    Bad("damaged: image digest", region("image digest"), app=False, source=(IDF_TEST,)),
    Bad("damaged: public key", region("public key"), source=(IDF_TEST,)),
    Bad("damaged: signature", region("signature"), source=(IDF_TEST,)),
    Bad("damaged: CRC", region("crc"), source=(IDF_TEST,)),
)


@pytest.mark.parametrize("bad", rows(BAD))
def test_the_raw_handler_does_not_install_what_is_not_signed_for_this_board(
    board: Board,
    bad: Bad,
    fresh: Callable[[], Release],
    before: Snapshot,
    still_runs: Callable[[], BootRecord],
) -> None:
    recipe = signed_image(board, fresh())
    mark = board.console.mark()
    answer = board.take(variants.around_image(recipe, bad.make(board, recipe.release.image)))
    if bad.app:
        assert (answer.error, answer.code) == ("image-invalid", IMAGE_INVALID), answer
        board.console.wait_for(APP_REFUSES, 5, since=mark)
    else:
        assert answer.ok, answer
        back = board.reboot()
        assert (back.slot, back.not_bootable) == (before.running.slot, (recipe.slot.label,))
        assert board.repair().ok
    still_runs()


@pytest.mark.parametrize(
    "bad", rows(each for each in BAD if each.name in ("unsigned", "signed by a stranger"))
)
def test_the_stock_handler_does_not_install_it_either(
    board: Board, bad: Bad, fresh: Callable[[], Release], still_runs: Callable[[], BootRecord]
) -> None:
    image = bad.make(board, fresh().image)
    mark = board.console.mark()
    answer = board.take(image, name="plain.bin", command="ota-stock")
    assert (answer.error, answer.code) == ("image-invalid", IMAGE_INVALID), answer
    board.console.wait_for(APP_REFUSES, 5, since=mark)
    still_runs()


# ---- what gets into flash past the application --------------------------------------------------------------


def flash_and_select(board: Board, recipe: Recipe, image: bytes) -> None:
    """Over the UART into the free slot, enciphered for it, and otadata names it."""
    slot = recipe.slot
    board.overwrite(slot.offset, encipher_for_slot(image, chip=board.chip, key=recipe.key, slot=slot))
    board.write_otadata(OtaData.for_slot(board.slots.index(slot), len(board.slots), OtaState.VALID))


@pytest.mark.needs("uart-download")
@pytest.mark.parametrize("bad", rows(BAD))
def test_the_bootloader_does_not_start_it_and_the_other_slot_boots(
    board: Board, bad: Bad, fresh: Callable[[], Release]
) -> None:
    if board.chip.name in bad.starts_on:
        raise NotApplicableError(f"the bootloader of {board.chip.title} does not look at it")
    start, recipe = board.status(), signed_image(board, fresh())
    flash_and_select(board, recipe, bad.make(board, recipe.release.image))
    fallen = board.restart()
    assert (fallen.slot, fallen.version) == (start.slot, start.version)
    assert fallen.not_bootable == (recipe.slot.label,)
    assert any(error.tag in ("secure_boot_v2", "esp_image") for error in fallen.errors), fallen.errors
    flash_and_select(board, recipe, recipe.release.image)
    boot = board.restart()
    assert (boot.slot, boot.version) == (recipe.slot.label, recipe.release.version)


def write_bootloader(board: Board, key: bytes | None, image: bytes) -> None:
    offset = board.chip.bootloader_offset
    data = pad_to_block(image)
    board.overwrite(offset, encrypt(board.chip.cipher, key, offset, data) if key is not None else data)


NO_BOOTLOADER = ("unsigned", "signature of another image", "changed under its signature", "damaged: version")
"""What there is only of apps. Without its sector a bootloader would be followed by the one that is in flash already; and
a ROM that knows one scheme only does not look at the version of a block."""

BAD_BOOTLOADERS = tuple(replace(bad, full=False) for bad in BAD if bad.name not in NO_BOOTLOADER)


@pytest.mark.needs("uart-download")
@pytest.mark.parametrize("bad", rows(BAD_BOOTLOADERS))
def test_the_rom_does_not_start_such_a_bootloader_and_nothing_is_lost_by_it(
    board: Board, bad: Bad, fresh: Callable[[], Release]
) -> None:
    start, key = board.status(), signed_image(board, fresh()).key
    assert board.app is not None
    good = board.app.bootloader
    write_bootloader(board, key, bad.make(board, good))
    dead = board.watch_boot()
    assert not dead.app_started
    assert dead.bootloader_version is None, "the ROM started it"
    write_bootloader(board, key, good)
    again = board.restart()
    assert (again.slot, again.version) == (start.slot, start.version)


# ---- what is good --------------------------------------------------------------------------------------------


@pytest.mark.source("esp-idf #15380", "esp-idf #10964")
@pytest.mark.parametrize("way", ["raw", "stock"])
def test_a_signed_update_goes_there_and_back_and_bootloader_and_app_say_that_they_verified_it(
    board: Board, fresh: Callable[[], Release], way: str
) -> None:
    start = board.status()
    for slot in (start.next_slot, start.slot):
        release = fresh()
        answer = (
            board.update(release)
            if way == "raw"
            else board.take(release.image, name="plain.bin", command="ota-stock")
        )
        assert answer.ok, answer
        boot = board.reboot()
        assert (boot.slot, boot.version, boot.secure_boot) == (slot, release.version, True)
        assert boot.rom_verified
        assert boot.app_signature_verified
        assert board.confirm().ok


def openssl_signature(key: PrivateKey, content: bytes) -> bytes:
    """A signature that neither espsecure nor this project's code has made."""
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
        return key.sign(content, pss, hashes.SHA256())
    return key.sign(content, ec.ECDSA(hashes.SHA256()))


def test_a_signature_that_openssl_made_is_as_good_as_one_of_espsecure(
    board: Board, fresh: Callable[[], Release]
) -> None:
    key = boot_key(board.vault, board.boot_keys.scheme, 0).key
    recipe = signed_image(board, fresh())
    content = unsigned(board, recipe.release.image)
    block = make_block(key.public_key(), content, openssl_signature(key, content))
    image = content + make_sector([block])
    assert board.take(variants.around_image(recipe, image)).ok
    boot = board.reboot()
    assert (boot.slot, boot.version) == (recipe.slot.label, recipe.release.version)


def test_damage_where_nobody_looks_stops_nothing(board: Board, fresh: Callable[[], Release]) -> None:
    """The 16 bytes behind a block's CRC: the rows above must not be refused for just any change of the sector."""
    recipe = signed_image(board, fresh())
    image = region("padding")(board, recipe.release.image)
    assert image != recipe.release.image
    assert board.take(variants.around_image(recipe, image)).ok
    assert board.reboot().version == recipe.release.version


SAMPLES = tuple(range(7, 1196, 61))
"""Offsets in a block that are sampled, over all its regions and, with ECDSA, over bytes that are not used."""


@pytest.mark.full
@pytest.mark.needs("uart-download")
@pytest.mark.parametrize("offset", SAMPLES)
def test_the_bootloader_refuses_a_bit_error_wherever_the_rom_would(
    board: Board, fresh: Callable[[], Release], offset: int
) -> None:
    start, recipe = board.status(), signed_image(board, fresh())
    used = any(
        place.offset <= offset < place.offset + place.size
        for name, place in regions(board.boot_keys.scheme).items()
        if name not in variants.NOBODY_LOOKS_AT
    )
    flash_and_select(board, recipe, flipped_at(offset)(board, recipe.release.image))
    boot = board.restart()
    assert boot.slot == (start.slot if used else recipe.slot.label)


# ---- revoked keys ------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.profiles("development", full=("open", "ciphertext-only"), secure_boot=True)
@pytest.mark.needs("uart-download")
@pytest.mark.source(IDF_TEST)
@pytest.mark.consumes(revocations=1)
def test_what_only_a_revoked_key_has_signed_is_refused_and_the_other_key_still_signs(
    board: Board, fresh: Callable[[], Release], still_runs: Callable[[], BootRecord]
) -> None:
    keys = board.boot_keys.open(board.vault)
    if len(keys) < 2:
        raise NotApplicableError("this board knows one boot key only: secure_boot: keys: in its entry")
    revoked = board.chip.secure_boot.revoke[1]
    with board.rom() as session:
        if session.state().is_set(revoked):
            raise NotApplicableError(f"{revoked} is burned already")

    def by(slot: int) -> Recipe:
        recipe = signed_image(board, fresh())
        image = sign(unsigned(board, recipe.release.image), [keys[slot]], board.chip)
        return board.recipe(parse_release(image), recipe.slot)

    board.restart()
    for slot in (1, 0):
        good = by(slot)
        assert board.take(good.package()).ok, f"key {slot} was not revoked"
        assert board.reboot().version == good.release.version
        assert board.confirm().ok

    with board.rom() as session:
        session.burn_fuses({revoked: 1})
    board.restart()
    mark = board.console.mark()
    answer = board.take(by(1).package())
    assert (answer.error, answer.code) == ("image-invalid", IMAGE_INVALID), answer
    board.console.wait_for(APP_REFUSES, 5, since=mark)
    old = by(1)
    start = board.status()
    flash_and_select(board, old, old.release.image)
    fallen = board.restart()
    assert (fallen.slot, fallen.not_bootable) == (start.slot, (old.slot.label,))
    assert board.repair().ok
    last = by(0)
    assert board.take(last.package()).ok
    assert board.reboot().version == last.release.version
