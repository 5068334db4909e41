"""Secure boot from end to end on a twin: signed by the vault or by somebody else, and what is not signed right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.board import Board
from harness.build.artefacts import Artefacts
from harness.build.boot_key import BootKey, from_private, generate
from harness.build.native import build_native
from harness.build.signing import sign
from harness.chips import ESP32C3, SigningScheme
from harness.errors import UsageError
from harness.firmware import security_fragments
from harness.formats.signature_block import blocks_of
from harness.home import Home
from harness.inventory.entry import SecureBoot, TwinEntry
from harness.inventory.inventory import Inventory
from harness.lab import Lab, secret_from
from harness.ota import variants
from harness.ota.variants import Recipe
from harness.preparation import Consent, Demand, prepare
from harness.provision.profile import Lock, Profile
from harness.say import Say

RSA = SigningScheme.RSA_3072
PROFILE = Profile.OPEN_SBV2
"""Secure boot alone: quickly burned, and its boots are verified like any other's."""


@pytest.fixture(scope="module")
def strangers() -> tuple[BootKey, BootKey]:
    """Two keys that no board knows unless it is told."""
    return from_private("one", generate(RSA)), from_private("two", generate(RSA))


@contextmanager
def board_of(folder: Path, entry: TwinEntry, *apps: Path) -> Iterator[Board]:
    home = Home(folder / "home")
    with Lab(home, Inventory(None, {}), folder / "out", secret_from(None)) as lab:
        board = lab.throwaway("esp32c3", entry=entry)
        prepare(board, Demand(PROFILE, apps=apps), Consent(entry), home, say=Say(quiet=True))
        yield board


def signed_elsewhere(folder: Path, key: BootKey) -> Path:
    """Two versions of a build for twins, as somebody with `key` would hand them over."""
    home = Home(folder / "home")
    for version in ("1.0.0", "1.1.0"):
        made = build_native(
            ESP32C3,
            version=version,
            fragments=(*security_fragments(PROFILE, Lock.NONE, RSA), "test"),
            store=home.build_store,
            work=home.builds,
        )
        target = folder / version
        target.mkdir()
        Artefacts.write(
            target,
            chip=made.chip,
            kind=made.kind,
            project=made.project,
            version=made.version,
            secure_version=0,
            bootloader=sign(made.bootloader.read_bytes(), [key], ESP32C3),
            partition_table=made.partition_table,
            table_offset=made.table_offset,
            app=sign(made.app.read_bytes(), [key], ESP32C3),
            sdkconfig=(made.dir / "sdkconfig").read_text(),
        )
    return folder


def attempt(board: Board, make: Callable[[Recipe], bytes], version: str) -> str:
    """What runs after an update with the package that `make` makes and a restart."""
    running = board.status()
    if running.state == "pending":
        board.confirm()
    board.take(make(board.recipe(board.release(version), board.slot(running.next_slot))))
    board.reboot()
    return board.status().version


def test_a_board_of_two_keys_starts_what_either_signed_and_nothing_else(
    tmp_path: Path, strangers: tuple[BootKey, BootKey]
) -> None:
    entry = TwinEntry(chip="esp32c3", secure_boot=SecureBoot(keys=["vault", "vault"]))
    with board_of(tmp_path, entry) as board:
        assert board.firmware is not None
        assert len(board.firmware.digests) == 2
        # The second of the board's keys, from its vault.
        signer = board.boot_keys.open(board.vault)[1]

        def by(key: BootKey) -> Callable[[Recipe], bytes]:
            return lambda r: variants.with_image_signed_by(r, lambda image: sign(image, [key], r.chip))

        assert attempt(board, variants.with_unsigned_image, "2.0.0") == "1.0.0"
        assert attempt(board, by(strangers[0]), "2.1.0") == "1.0.0"
        for number, region in enumerate(variants.DAMAGES):
            expected = f"3.{number}.0" if region in variants.NOBODY_LOOKS_AT else "1.0.0"
            version = f"3.{number}.0"
            assert (
                attempt(board, lambda r, each=region: variants.with_signature_damaged(r, each), version)
                == expected
            )
        assert attempt(board, by(signer), "4.0.0") == "4.0.0"
        assert attempt(board, lambda r: r.package(), "4.1.0") == "4.1.0"


def test_a_build_that_was_signed_elsewhere_is_flashed_as_it_is_and_its_key_burned(
    tmp_path: Path, strangers: tuple[BootKey, BootKey]
) -> None:
    folder = signed_elsewhere(tmp_path, strangers[0])
    apps = (folder / "1.0.0", folder / "1.1.0")
    with board_of(tmp_path, TwinEntry(chip="esp32c3"), *apps) as board:
        assert board.status().version == "1.0.0"
        assert board.firmware is not None
        assert [each.digest for each in board.firmware.digests] == [strangers[0].digest]
        assert board.release("1.1.0").image == Artefacts.read(folder / "1.1.0").app.read_bytes()
        assert [block.key_digest for block in blocks_of(board.release("1.1.0").image)] == [
            strangers[0].digest
        ]


def test_a_board_whose_keys_are_named_does_not_take_a_build_of_somebody_else(
    tmp_path: Path, strangers: tuple[BootKey, BootKey]
) -> None:
    folder = signed_elsewhere(tmp_path, strangers[0])
    entry = TwinEntry(chip="esp32c3", secure_boot=SecureBoot(keys=["vault"]))
    with (
        pytest.raises(UsageError, match="a key that the board does not have"),
        board_of(tmp_path, entry, folder / "1.0.0"),
    ):
        pytest.fail("it was prepared")
