"""`harness build`: the companion firmware as a set of artefacts that another host can use."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from harness.build.app_dir import AppDirectory, read_app_dir
from harness.build.artefacts import Artefacts
from harness.build.build_output import Progress
from harness.build.companion import TEST_FRAGMENT
from harness.build.esp_idf import find_esp_idf
from harness.build.fuses_burned import self_burns
from harness.build.native import build_native
from harness.build.target import build_target
from harness.chips import CHIPS, Chip, SigningScheme, chip_named
from harness.cli.options import boards_option, json_option, secret_options, vault_secret
from harness.errors import UsageError
from harness.firmware import security_fragments
from harness.home import Home
from harness.inventory.inventory import read_inventory
from harness.lab import open_vault
from harness.provision.profile import Lock, Profile, default_lock
from harness.say import Say, is_terminal


@click.command(
    epilog="Example: harness build --board desk-c3 --profile release --out app-c3",
)
@click.option("--board", metavar="NAME", help="Board of boards.yaml: its chip, and its vault's signing key.")
@click.option("--chip", type=click.Choice(list(CHIPS)), help="Chip, where no board is named.")
@click.option(
    "--native",
    is_flag=True,
    help="Build for twins of this host, with its C compiler (default: for the chip).",
)
@click.option(
    "--profile",
    type=click.Choice([profile.value for profile in Profile]),
    default=Profile.RELEASE.value,
    show_default=True,
    help="Security profile; +sbv2 is secure boot v2: the images are signed when they are flashed, or by `harness sign`.",
)
@click.option(
    "--lock",
    type=click.Choice([Lock.NONE.value, Lock.SECURE_DOWNLOAD.value]),
    help="What the firmware leaves of UART download at its first start (default: as `harness provision`).",
)
@click.option(
    "--net",
    type=click.Choice(["wifi", "openeth", "none"]),
    help="Network: Wi-Fi of a real board, the Ethernet of QEMU, or none: then updates come over the UART "
    "(default: what the board's entry says, else wifi).",
)
@click.option(
    "--fragment", multiple=True, metavar="FILE", help="One more sdkconfig fragment; may be repeated."
)
@click.option("--product", is_flag=True, help="Without what only the test scenarios need.")
@click.option(
    "--sign-key", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Public key file."
)
@click.option(
    "--version", "app_version", default="1.0.0", show_default=True, metavar="X.Y.Z", help="Version."
)
@click.option(
    "--idf", type=click.Path(path_type=Path, file_okay=False), help="ESP-IDF's folder (default: IDF_PATH)."
)
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the artefacts."
)
@boards_option
@secret_options
@json_option
def build(
    board: str | None,
    chip: str | None,
    native: bool,
    profile: str,
    lock: str | None,
    net: str | None,
    fragment: tuple[str, ...],
    product: bool,
    sign_key: tuple[Path, ...],
    app_version: str,
    idf: Path | None,
    out: Path,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Build the companion firmware into a folder that `--app DIR` takes on any host.

    The host that flashes needs neither ESP-IDF nor a compiler. Without a board, name the public keys whose packages
    the firmware is to take (ECDSA P-256: PEM, or 65 bytes 04 X Y); with none it takes no package at all.
    """
    home = Home.of_user()
    keys = [_public_key(path) for path in sign_key]
    of_board: tuple[str, ...] = ("net.wifi",)
    scheme: SigningScheme | None = None
    inventory = read_inventory(boards_file)
    if board is not None:
        entry = inventory.named(board)
        if chip is not None and chip != entry.chip:
            raise UsageError(f"board {board} is {entry.chip}, not {chip}", todo="leave --chip out")
        chip = entry.chip
        of_board, scheme = entry.firmware_fragments, entry.signing_scheme
        if not keys:
            secret = vault_secret(vault_key_file, vault_passphrase_fd)
            opened = open_vault(home, inventory.path, board, entry, secret, profile=Profile(profile))
            keys = [opened.signing_public_key()]
    if chip is None:
        raise UsageError("for which chip?", todo="give --board NAME or --chip CHIP")
    row = chip_named(chip)
    if net is not None:
        of_board = (*(name for name in of_board if not name.startswith("net.")), f"net.{net}")
    fragments = _fragments(
        row,
        Profile(profile),
        lock,
        scheme or row.secure_boot.schemes[0],
        () if native else of_board,
        product=product,
        more=fragment,
    )
    say = Say(quiet=as_json)
    if not keys:
        say.step("no public key is given: this firmware will refuse every package (--board or --sign-key)")
    if native:
        made = build_native(
            row,
            version=app_version,
            fragments=fragments,
            signing_keys=keys,
            store=home.build_store,
            work=home.builds,
        )
    else:
        found = find_esp_idf(idf or inventory.esp_idf)
        say.step(
            f"building {app_version} for {row.title} with ESP-IDF {found.version}: {', '.join(fragments)}"
        )
        made = build_target(
            row,
            version=app_version,
            fragments=fragments,
            signing_keys=keys,
            idf=found,
            work=home.builds,
            on_progress=_progress(say, quiet=as_json),
        )
    _copy(made, out)
    _tell(read_app_dir(out), out, as_json=as_json)


def _fragments(
    chip: Chip,
    profile: Profile,
    lock: str | None,
    scheme: SigningScheme,
    of_board: Sequence[str],
    *,
    product: bool,
    more: Sequence[str],
) -> tuple[str, ...]:
    wanted = Lock(lock) if lock else default_lock(chip, profile)
    names = [*security_fragments(profile, wanted, scheme), *of_board]
    if not product:
        names.append(TEST_FRAGMENT)
    # A path is told from a fragment's name by its slash.
    return (*names, *(str(Path(name).absolute()) for name in more))


def _public_key(path: Path) -> bytes:
    """The point in a file, PEM or raw."""
    try:
        data = path.read_bytes()
        if data.lstrip().startswith(b"-----BEGIN"):
            key = serialization.load_pem_public_key(data)
        else:
            key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)
    except OSError as error:
        raise UsageError(f"the public key {path} cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} is not a public key", todo="give a PEM file, or the 65 bytes 04 X Y"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(f"{path} is not an ECDSA P-256 public key")
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def _progress(say: Say, *, quiet: bool) -> Callable[[Progress], None]:
    """On a terminal one line that moves; in a log every tenth of the way."""
    told = [-1]

    def show(progress: Progress) -> None:
        if quiet:
            return
        if is_terminal():
            end = "\n" if progress.done == progress.total else ""
            click.echo(f"\r          {progress.done} of {progress.total} steps {end}", err=True, nl=False)
        elif progress.done * 10 // progress.total > told[0]:
            told[0] = progress.done * 10 // progress.total
            say.detail(f"{progress.done} of {progress.total} steps")

    return show


def _copy(made: Artefacts, out: Path) -> None:
    """Into `out`, which may hold an older build, but nothing else that would be taken for part of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(made.dir.iterdir()):
            shutil.copyfile(path, out / path.name)
    except OSError as error:
        raise UsageError(
            f"the artefacts cannot be written to {out}: {error.strerror}",
            todo="choose another folder with --out",
        ) from error


def _tell(app: AppDirectory, out: Path, *, as_json: bool) -> None:
    burns = self_burns(app.sdkconfig, app.chip.name)
    if as_json:
        facts = {
            "dir": str(out),
            "chip": app.chip.name,
            "kind": app.kind,
            "project": app.project,
            "version": app.version,
            "encryption": app.encryption,
            "burns_by_itself": list(burns.lines()),
        }
        click.echo(json.dumps(facts, indent=1))
        return
    click.echo(
        f"{out}: {app.project} {app.version} for {app.chip.title} ({app.kind}), ESP-IDF {app.idf_version}"
    )
    for line in burns.lines() if app.kind == "target" else ():
        click.echo(f"  ! {line}")
    click.echo(f"  use it with --app {out}", file=sys.stdout)
