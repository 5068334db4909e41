"""`harness sign`: an image as a board with secure boot takes it."""

from __future__ import annotations

from pathlib import Path

import click

from harness.build.board_keys import KeySources
from harness.build.boot_key import BootKey
from harness.build.signing import append_signatures, sign, signed_already
from harness.chips import chip_named
from harness.cli.options import boards_option, secret_options, vault_secret
from harness.errors import UsageError
from harness.formats.signature_block import verify
from harness.home import Home
from harness.inventory.inventory import read_inventory
from harness.lab import open_vault
from harness.state_folder import base_folder


@click.command(
    "sign",
    epilog="Example: harness sign build/app.bin --board desk-c3 --out app-signed.bin",
)
@click.argument("image", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--board", required=True, metavar="NAME", help="The board whose keys sign (secure_boot: keys:)."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="Where the signed image goes.",
)
@click.option("--append", is_flag=True, help="IMAGE is signed: add the signatures of the board's other keys.")
@boards_option
@secret_options
def sign_image(
    image: Path,
    board: str,
    out: Path,
    append: bool,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Sign IMAGE, an app or a bootloader as it was built, with every key of the board that signs.

    An app is filled to 64 KiB, as ESP-IDF does it; then comes the sector of signatures. Sign before enciphering.
    """
    inventory = read_inventory(boards_file)
    entry = inventory.named(board)
    home, chip = Home.of_user(), chip_named(entry.chip)
    data = _read(image)
    vault = open_vault(home, inventory.path, board, entry, vault_secret(vault_key_file, vault_passphrase_fd))
    keys = KeySources.of_entry(entry, base_folder(inventory.path)).open(vault)
    signers = tuple(key for key in keys if key.signs)
    if not signers:
        raise UsageError(
            f"board {board} has only public keys: nothing can be signed for it here",
            todo="sign where the private key is",
        )
    if append:
        signed = append_signatures(data, signers, chip, name=str(image))
    elif signed_already(data, name=str(image)):
        raise UsageError(
            f"{image} is signed already", todo="add signatures with --append, or give the unsigned image"
        )
    else:
        signed = sign(data, signers[: chip.secure_boot.signature_blocks], chip, name=str(image))
    try:
        out.write_bytes(signed)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror}", todo="choose another file") from error
    click.echo(f"{out}: {len(signed)} bytes, {len(verify(signed))} signature(s)")
    for block in verify(signed):
        click.echo(
            f"  {block.scheme.value} by {_name(block.key_digest, keys)}, key digest {block.key_digest.hex()}"
        )


def _name(digest: bytes, keys: tuple[BootKey, ...]) -> str:
    return next((key.name for key in keys if key.digest == digest), "somebody else")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", todo="give an app or a bootloader"
        ) from error
