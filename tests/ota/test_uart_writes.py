"""What the UART still writes in each state of encryption, and what becomes of it.

Only the tool on the host refuses plaintext, since a board was bricked with it (esptool #699); the ROM writes what it is
given. So a forced plaintext is written, and does not boot until its ciphertext comes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.board import Board
from harness.console.boot_record import Outcome
from harness.errors import BoardError
from harness.formats.flash_encryption import encrypt, pad_to_block
from harness.formats.otadata import OtaData, OtaState
from harness.formats.partition import Partition
from harness.ota.bundle import make_bundle, write_bundle
from harness.ota.release import Release
from harness.ota.variants import Recipe

pytestmark = pytest.mark.needs("uart-download")

ENCIPHERED_BY_HAND = pytest.mark.source("esp-idf #5945", "esptool #809")
BRICKED = pytest.mark.source("esptool #699")


REFUSED = r"encrypt functionality in UART download mode disabled|Failed to enter flash download mode"
"""By the tool, where it can read the eFuses; by the ROM in Secure Download Mode."""


def next_recipe(board: Board, release: Release) -> Recipe:
    return board.recipe(release, board.slot(board.status().next_slot))


def boots(board: Board, slot: Partition, release: Release) -> None:
    """otadata is made to name `slot`, and `release` boots from it."""
    board.write_otadata(OtaData.for_slot(board.slots.index(slot), len(board.slots), OtaState.VALID))
    boot = board.restart()
    assert (boot.slot, boot.version) == (slot.label, release.version)


def write(board: Board, offset: int, data: bytes, *, encipher: bool = False, force: bool = False) -> None:
    """As a person would with ``write-flash``, ``--encrypt`` or ``--force``."""
    with board.rom() as session:
        session.write_flash([(offset, data)], encrypt=encipher, force=force)


@pytest.mark.profiles("development")
def test_in_development_the_rom_enciphers_plaintext_as_the_host_does(
    board: Board, fresh: Callable[[], Release]
) -> None:
    recipe = next_recipe(board, fresh())
    write(board, recipe.slot.offset, pad_to_block(recipe.release.image, 32), encipher=True)
    with board.rom(writes_flash=False) as session:
        assert session.read_flash(recipe.slot.offset, len(recipe.body())) == recipe.body()
    boots(board, recipe.slot, recipe.release)


@ENCIPHERED_BY_HAND
@pytest.mark.profiles("ciphertext-only", full=("release",))
def test_elsewhere_the_rom_enciphers_nothing_any_more(board: Board, fresh: Callable[[], Release]) -> None:
    recipe = next_recipe(board, fresh())
    untouched = board.slot_digest(recipe.slot.label)
    with pytest.raises(BoardError, match=REFUSED):
        write(board, recipe.slot.offset, pad_to_block(recipe.release.image, 32), encipher=True)
    board.restart()
    assert board.slot_digest(recipe.slot.label) == untouched


@ENCIPHERED_BY_HAND
@pytest.mark.profiles("release", full=("development", "ciphertext-only"))
def test_ciphertext_is_written_and_boots(board: Board, fresh: Callable[[], Release]) -> None:
    recipe = next_recipe(board, fresh())
    write(board, recipe.slot.offset, recipe.body(), force=board.profile.encryption.value != "development")
    boots(board, recipe.slot, recipe.release)


@BRICKED
@pytest.mark.profiles("release", full=("ciphertext-only",))
@pytest.mark.parametrize("content", ["plaintext", "ciphertext"])
def test_the_tool_writes_nothing_unless_it_is_forced_since_it_cannot_tell_plaintext(
    board: Board, fresh: Callable[[], Release], content: str
) -> None:
    recipe = next_recipe(board, fresh())
    untouched = board.slot_digest(recipe.slot.label)
    data = recipe.body() if content == "ciphertext" else recipe.release.image
    with pytest.raises(BoardError, match="Detected flash encryption"):
        write(board, recipe.slot.offset, data)
    board.restart()
    assert board.slot_digest(recipe.slot.label) == untouched


@BRICKED
@pytest.mark.profiles("ciphertext-only", full=("development", "release"))
def test_a_forced_plaintext_app_does_not_boot_until_its_ciphertext_comes(
    board: Board, fresh: Callable[[], Release]
) -> None:
    start = board.status()
    recipe = next_recipe(board, fresh())
    write(board, recipe.slot.offset, recipe.release.image, force=True)
    board.write_otadata(OtaData.for_slot(board.slots.index(recipe.slot), len(board.slots), OtaState.VALID))
    fallen = board.restart()
    assert (fallen.slot, fallen.version) == (start.slot, start.version)
    assert recipe.slot.label in fallen.not_bootable
    assert any("invalid magic byte" in error.text for error in fallen.errors)
    write(board, recipe.slot.offset, recipe.body(), force=True)
    boots(board, recipe.slot, recipe.release)


@BRICKED
@pytest.mark.profiles("release", full=("development", "ciphertext-only"), secure_boot=False)
def test_a_forced_plaintext_bootloader_is_no_bootloader_until_its_ciphertext_comes(
    board: Board, fresh: Callable[[], Release]
) -> None:
    start = board.status()
    assert board.app is not None
    offset, bootloader = board.chip.bootloader_offset, pad_to_block(board.app.bootloader)
    key = next_recipe(board, fresh()).key
    assert key is not None
    write(board, offset, bootloader, force=True)
    dead = board.watch_boot(until=lambda boot: boot.outcome is Outcome.ROM_FAILED)
    assert dead.rom_header_word is not None
    assert dead.rom_header_word & 0xFF != 0xE9, "the ROM deciphers what it reads: plaintext is noise to it"
    assert not dead.app_started
    write(board, offset, encrypt(board.chip.cipher, key, offset, bootloader), force=True)
    again = board.restart()
    assert (again.slot, again.version) == (start.slot, start.version)


@ENCIPHERED_BY_HAND
@pytest.mark.profiles("development", "release", full=("open", "ciphertext-only"))
def test_the_bin_that_is_flashed_over_the_uart_is_the_file_that_the_server_serves_for_that_slot(
    board: Board, fresh: Callable[[], Release], tmp_path: Path
) -> None:
    recipe = next_recipe(board, fresh())
    assert board.table is not None
    bundle = make_bundle(
        recipe.release,
        chip=board.chip,
        mac=recipe.mac,
        key=recipe.key,
        table=board.table,
        sign=recipe.sign,
    )
    write_bundle(bundle, tmp_path / "bundle")
    update = bundle.for_slot(recipe.slot)
    file = (tmp_path / "bundle" / update.body_file).read_bytes()
    package = (tmp_path / "bundle" / update.package_file).read_bytes()
    wanted = hashlib.sha256(file).hexdigest()

    served = board.take(package)
    assert served.ok
    assert served.fields["sha256"] == wanted
    assert board.slot_digest(recipe.slot.label, size_bytes=len(file)) == wanted
    bare = board.take(file, name=update.body_file, bare=1)
    assert bare.ok
    assert bare.fields["sha256"] == wanted

    board.overwrite(recipe.slot.offset, bytes(len(file)))
    board.restart()
    assert board.slot_digest(recipe.slot.label, size_bytes=len(file)) != wanted
    board.overwrite(recipe.slot.offset, file)
    board.restart()
    assert board.slot_digest(recipe.slot.label, size_bytes=len(file)) == wanted
    boots(board, recipe.slot, recipe.release)
