"""`harness vault`: the keys of physical boards: make, verify, back up, restore, change what opens it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.chips import SigningScheme
from harness.cli.options import boards_option, secret_options, vault_secret
from harness.errors import HarnessError, UsageError
from harness.home import Home
from harness.inventory.entry import PhysicalEntry
from harness.inventory.inventory import read_inventory
from harness.lab import open_vault, own_vault
from harness.provision.profile import Profile
from harness.state_folder import state_folder
from harness.vault import boot_keys, copies
from harness.vault.secret import KeyFile, Passphrase, Secret
from harness.vault.vault import Vault

F = TypeVar("F", bound=Callable[..., Any])


@click.group(
    epilog="""\b
To begin:
  harness vault new-key-file ~/keys/lab.key
  harness vault create --vault-key-file ~/keys/lab.key
  harness vault backup /mnt/other-disk/vault --vault-key-file ~/keys/lab.key
"""
)
def vault() -> None:
    """Look after the vault of flash keys.

    It holds the keys of physical boards (HARNESS_VAULT). Virtual boards have vaults of their own (--board NAME).
    """


def _vault_options(function: F) -> F:
    """``--board``, ``--boards`` and what opens the vault."""
    which = click.option("--board", metavar="NAME", help="The own vault of this virtual board instead.")
    return which(boards_option(secret_options(function)))


def _opened(
    board: str | None,
    boards_file: Path | None,
    key_file: str | None,
    passphrase_fd: int | None,
    *,
    make: bool = False,
) -> Vault:
    home = Home.of_user()
    if board is None:
        return Vault.open(home.vault, vault_secret(key_file, passphrase_fd)(home.vault))
    inventory = read_inventory(boards_file)
    entry = inventory.named(board)
    if isinstance(entry, PhysicalEntry):
        raise UsageError(
            f"board {board} is physical: its keys are in the vault {home.vault}", todo="leave --board out"
        )
    state = state_folder(home, inventory.path, board, entry)
    if not make and not (state / "vault").is_dir():
        # Looking at a vault does not make one.
        raise UsageError(
            f"board {board} has no vault yet in {state}",
            todo=f"provision it first: harness provision --board {board}",
        )
    return own_vault(state)


@vault.command(
    "new-key-file",
    epilog="Example: harness vault new-key-file ~/keys/lab.key",
)
@click.argument("file", type=click.Path(path_type=Path))
def new_key_file(file: Path) -> None:
    """Make a key FILE (256 random bits) that opens a vault. Keep it apart from the vault, and a copy on paper."""
    KeyFile.create(file)
    click.echo(f"{file}: made, readable by you alone")


@vault.command(
    short_help="Make the vault of physical boards.",
    epilog="Example: harness vault create --vault-key-file ~/keys/lab.key",
)
@secret_options
def create(vault_key_file: str | None, vault_passphrase_fd: int | None) -> None:
    """Make the vault of physical boards (HARNESS_VAULT), opened by a key file or a passphrase."""
    place = Home.of_user().vault
    made = Vault.open(place, vault_secret(vault_key_file, vault_passphrase_fd)(place), create=True)
    click.echo(
        f"{made.path}: ready. Before the first burn of a board it needs a copy: harness vault backup DIR"
    )


@vault.command(
    "public-key",
    short_help="Print the public key that checks the packages of a board.",
    epilog="Example: harness vault public-key --board desk-c3 > lab.pem",
)
@click.option(
    "--board", required=True, metavar="NAME", help="Board of boards.yaml whose packages are signed."
)
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    default=Profile.RELEASE.value,
    show_default=True,
    help="In open, packages for physical boards are signed with a key of this bench, not of the vault.",
)
@boards_option
@secret_options
def public_key(
    board: str,
    profile: str,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Print the public key (PEM) that a firmware for BOARD must hold to take packages from here.

    For a build on another machine: harness build --sign-key FILE.
    """
    home, inventory = Home.of_user(), read_inventory(boards_file)
    entry = inventory.named(board)
    secret = vault_secret(vault_key_file, vault_passphrase_fd)
    opened = open_vault(home, inventory.path, board, entry, secret, profile=Profile(profile))
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), opened.signing_public_key())
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    click.echo(pem.decode(), nl=False)


@vault.command(
    epilog="Example: harness vault verify --vault-key-file ~/keys/lab.key",
)
@_vault_options
def verify(
    board: str | None, boards_file: Path | None, vault_key_file: str | None, vault_passphrase_fd: int | None
) -> None:
    """Open every record and compare its key with its key id."""
    opened = _opened(board, boards_file, vault_key_file, vault_passphrase_fd)
    report = copies.verify(opened)
    if not report.ok:
        raise HarnessError(
            "the vault does not verify:\n  " + "\n  ".join(report.problems), todo="harness vault restore DIR"
        )
    known = ", ".join(str(place) for place in opened.copies()) or "none"
    click.echo(
        f"{opened.path}: {report.keys} key(s) and {report.boot_keys} for secure boot, every record opens and matches its "
        f"key id; copies: {known}"
    )


@vault.command(
    short_help="Copy the vault to another disk and read it back.",
    epilog="Example: harness vault backup /mnt/other-disk/vault --vault-key-file ~/keys/lab.key",
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_vault_options
def backup(
    folder: Path,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Copy the vault into FOLDER, open the copy and read every key back."""
    click.echo(
        copies.back_up(_opened(board, boards_file, vault_key_file, vault_passphrase_fd), folder).text()
    )


@vault.command(
    short_help="Bring back from a copy what is missing or damaged.",
    epilog="Example: harness vault restore /mnt/other-disk/vault --vault-key-file ~/keys/lab.key",
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@secret_options
def restore(folder: Path, vault_key_file: str | None, vault_passphrase_fd: int | None) -> None:
    """Bring back from the copy in FOLDER what is missing or damaged. A record that opens is never overwritten."""
    place = Home.of_user().vault
    restored = copies.restore(place, folder, vault_secret(vault_key_file, vault_passphrase_fd)(place))
    click.echo(f"{place}: {len(restored)} file(s) brought back" + "".join(f"\n  {file}" for file in restored))


@vault.command(
    short_help="Change what opens the vault, and its copies within reach.",
    epilog="Example: harness vault rekey --vault-key-file ~/keys/lab.key --new-key-file ~/keys/new.key",
)
@click.option(
    "--new-key-file", type=click.Path(path_type=Path), metavar="FILE", help="What shall open it from now on."
)
@click.option(
    "--new-passphrase-fd",
    type=click.IntRange(min=0),
    metavar="N",
    help="Read the new passphrase from this descriptor.",
)
@_vault_options
def rekey(
    new_key_file: Path | None,
    new_passphrase_fd: int | None,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Change what opens the vault, and its copies that are plugged in; others keep the old secret: back up again."""
    opened = _opened(board, boards_file, vault_key_file, vault_passphrase_fd)
    opened.rekey(_new_secret(new_key_file, new_passphrase_fd))
    click.echo(f"{opened.path}: opens with the new secret")
    # Copies keep the old secret until they are made anew, and would not count before a first burn.
    for report in copies.refresh(opened):
        click.echo(report.text())


def _new_secret(key_file: Path | None, passphrase_fd: int | None) -> Secret:
    if key_file is not None:
        return KeyFile(key_file)
    if passphrase_fd is not None:
        return Passphrase.from_descriptor(passphrase_fd)
    if sys.stdin.isatty():
        words = click.prompt("new passphrase", hide_input=True, confirmation_prompt=True, err=True)
        return Passphrase(str(words).encode())
    raise UsageError(
        "what shall open the vault from now on?", todo="give --new-key-file FILE or --new-passphrase-fd N"
    )


@vault.group("boot-key", short_help="The keys that sign for secure boot.")
def boot_key() -> None:
    """The keys that sign for secure boot: one per scheme and digest slot, made when a board first needs one."""


def _slot_option(function: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--slot",
        type=click.IntRange(0, boot_keys.SLOTS - 1),
        default=0,
        show_default=True,
        help="Digest slot of the chip that the key is for.",
    )(function)


@boot_key.command(
    "list",
    short_help="List the keys: scheme, digest slot, digest.",
    epilog="Example: harness vault boot-key list --board twin-c3",
)
@_vault_options
def list_boot_keys(
    board: str | None, boards_file: Path | None, vault_key_file: str | None, vault_passphrase_fd: int | None
) -> None:
    """Print every key: scheme, digest slot, and the digest that goes into eFuses (SHA-256 of the public key)."""
    for key in boot_keys.boot_keys(_opened(board, boards_file, vault_key_file, vault_passphrase_fd)):
        came = "imported" if key.imported else "made"
        click.echo(f"{key.scheme.value:9} slot {key.slot}  {key.digest.hex()}  {came} {key.made}")


@boot_key.command(
    "export-public",
    short_help="Print a public key (PEM), for espsecure.",
    epilog="Example: harness vault boot-key export-public --scheme rsa3072 > boot.pem",
)
@click.option(
    "--scheme",
    type=click.Choice([scheme.value for scheme in SigningScheme]),
    default=SigningScheme.RSA_3072.value,
    show_default=True,
    help="Signature scheme.",
)
@_slot_option
@_vault_options
def export_public(
    scheme: str,
    slot: int,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Print the public key (PEM), for espsecure digest-sbv2-public-key or verify-signature."""
    opened = _opened(board, boards_file, vault_key_file, vault_passphrase_fd)
    click.echo(boot_keys.boot_key(opened, SigningScheme(scheme), slot).public_pem.decode(), nl=False)


@boot_key.command("import", epilog="Example: harness vault boot-key import private.pem --slot 0")
@click.argument("pem", type=click.Path(path_type=Path, dir_okay=False))
@_slot_option
@_vault_options
def import_key(
    pem: Path,
    slot: int,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Take the private key in the file PEM into the vault. A key that is there is never overwritten."""
    try:
        with pem.open("rb") as stream:
            content = stream.read(boot_keys.MOST_PEM_BYTES)
    except OSError as error:
        raise UsageError(
            f"{pem} cannot be read: {error.strerror}", todo="give a private key as PEM"
        ) from error
    opened = _opened(board, boards_file, vault_key_file, vault_passphrase_fd, make=True)
    key = boot_keys.import_boot_key(opened, content, slot, name=str(pem))
    click.echo(f"{opened.path}: has {key.name}, digest {key.digest.hex()}")
    # What signs for boards that are out must not be in one place only.
    for report in copies.refresh(opened):
        click.echo(report.text())
