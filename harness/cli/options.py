"""Options that several commands share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.chips import TWINS
from harness.deadline import deadline_in
from harness.errors import RefusedError, UsageError
from harness.provision.profile import Lock, Profile

if TYPE_CHECKING:
    # Half of the ecosystem: a command that opens no board does not wait for it.
    from harness.inventory.entry import AnyEntry
    from harness.inventory.inventory import Inventory
    from harness.lab import Lab
    from harness.preparation import Consent, Demand
    from harness.say import Say
    from harness.vault.secret import Secret

F = TypeVar("F", bound=Callable[..., Any])


def boards_option(function: F) -> F:
    """``--boards FILE``."""
    return click.option(
        "--boards",
        "boards_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The boards.yaml to use (default: the one in the current folder).",
    )(function)


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def out_option(function: F) -> F:
    """``--out DIR``."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Folder for the artefacts (default: harness-out/<time> here).",
    )(function)


def secret_options(function: F) -> F:
    """What opens the vault of physical boards."""
    function = click.option(
        "--vault-passphrase-fd",
        type=click.IntRange(min=0),
        metavar="N",
        help="Read the vault's passphrase from this file descriptor.",
    )(function)
    return click.option(
        "--vault-key-file",
        type=click.Path(),
        metavar="FILE",
        help="Key file that opens the vault of physical boards.",
    )(function)


def demand_options(function: F) -> F:
    """``--profile`` and ``--lock``."""
    function = click.option(
        "--lock",
        type=click.Choice([lock.value for lock in Lock]),
        help="What is left of UART download (default: secure-download for release where the chip has it).",
    )(function)
    return click.option(
        "--profile",
        type=click.Choice([profile.value for profile in Profile]),
        default=Profile.RELEASE.value,
        show_default=True,
        help="Security profile; +sbv2 is secure boot v2.",
    )(function)


def reflash_option(function: F) -> F:
    """``--reflash``."""
    return click.option(
        "--reflash",
        is_flag=True,
        help="Write its flash again although it is there already: it was spoiled. The device record vouches for the key.",
    )(function)


def way_options(function: F) -> F:
    """``--by-firmware``, ``--device-key``, ``--aggressive-revoke``, ``--revoke``: how a profile is reached, or kept."""
    for option in (
        click.option(
            "--revoke",
            type=click.IntRange(min=0),
            multiple=True,
            metavar="SLOT",
            help="Trust the boot key in this digest slot no longer, for good; first write what another one signed.",
        ),
        click.option(
            "--aggressive-revoke",
            is_flag=True,
            help="With +sbv2: burn SECURE_BOOT_AGGRESSIVE_REVOKE, too. One damaged read then revokes a key for good.",
        ),
        click.option(
            "--device-key",
            is_flag=True,
            help="Let the device make its flash key at its first start: no update can ever be enciphered on a host.",
        ),
        click.option(
            "--by-firmware",
            is_flag=True,
            help="Let the running firmware burn release (esp_flash_encryption_set_release_mode), or the lock.",
        ),
    ):
        function = option(function)
    return function


def is_said(option: str) -> bool:
    """Whether `option` was given on the command line."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def profile_for(name: str, entry: AnyEntry, profile: str, *, said: bool) -> str:
    """The profile that the board is brought into: `profile` if a person said it, else what its entry pins.

    Raises:
        RefusedError: a person said another one than its entry pins.
    """
    if entry.profile is None or entry.profile == profile:
        return profile
    if said:
        raise RefusedError(
            f"its entry pins profile {entry.profile}: it is not brought into {profile}. Nothing was done",
            board=name,
            todo="use another board, or change 'profile:' in its entry",
        )
    return entry.profile


def demand_of(
    inventory: Inventory,
    profile: str,
    lock: str | None,
    *,
    apps: tuple[Path, ...] = (),
    idf: Path | None = None,
    write: tuple[str, ...] = (),
    erase: tuple[str, ...] = (),
    reflash: bool = False,
    by_firmware: bool = False,
    device_key: bool = False,
    aggressive_revoke: bool = False,
    revoke: tuple[int, ...] = (),
) -> Demand:
    """What the options of `demand_options` and `firmware_options` ask for."""
    from harness.preparation import Demand

    return Demand(
        Profile(profile),
        Lock(lock) if lock else None,
        apps=apps,
        idf=idf or inventory.esp_idf,
        write=write,
        erase=erase,
        reflash=reflash,
        by_firmware=by_firmware,
        device_key=device_key,
        aggressive_revoke=aggressive_revoke,
        revoke=revoke,
    )


def firmware_options(function: F) -> F:
    """Which firmware, and what becomes of partitions that are kept by default."""
    for option in (
        click.option(
            "--erase",
            multiple=True,
            metavar="LABEL",
            help="Leave this partition blank, instead of keeping it.",
        ),
        click.option(
            "--write",
            multiple=True,
            metavar="LABEL",
            help="Write the build's image of this partition (nvs, nvs_keys), instead of keeping it.",
        ),
        click.option(
            "--idf",
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="ESP-IDF to build the companion firmware with (default: IDF_PATH, or esp_idf in boards.yaml).",
        ),
        click.option(
            "--app",
            "apps",
            multiple=True,
            type=click.Path(path_type=Path, file_okay=False),
            metavar="DIR",
            help="Flash this build: of `harness build`, or an ESP-IDF build folder of your own. May be repeated.",
        ),
    ):
        function = option(function)
    return function


def burn_option(function: F) -> F:
    """``--burn NAME`` and ``--accept-unknown-burns NAME``."""
    function = click.option(
        "--accept-unknown-burns",
        "unknown_burns",
        multiple=True,
        metavar="NAME",
        help="Allow the board NAME firmware without an sdkconfig, which may burn any eFuse by itself.",
    )(function)
    return click.option(
        "--burn",
        multiple=True,
        metavar="NAME",
        help="Allow this run to burn eFuses of the physical board NAME, as far as its burn_up_to says.",
    )(function)


def time_left_option(function: F) -> F:
    """``--time-left SECONDS``."""
    return click.option(
        "--time-left",
        "time_left_s",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="This run may be killed after so long (a CI job's time-out): begin no burn that may not be over by then. "
        "HARNESS_DEADLINE says the same in seconds since 1970.",
    )(function)


def consent_of(
    inventory: Inventory, entry: AnyEntry, burn: tuple[str, ...], unknown_burns: tuple[str, ...]
) -> Consent:
    """What the options of `burn_option` say of the board of `entry`.

    Raises:
        UsageError: they name a board that there is not.
    """
    from harness.preparation import Consent

    inventory.require_named(burn, "--burn")
    inventory.require_named(unknown_burns, "--accept-unknown-burns")
    return Consent(entry, frozenset(burn), frozenset(unknown_burns))


def chip_option(function: F) -> F:
    """``--chip``."""
    return click.option(
        "--chip",
        type=click.Choice(list(TWINS)),
        default="esp32c3",
        show_default=True,
        help="Chip of the twin.",
    )(function)


def vault_secret(key_file: str | None, passphrase_fd: int | None) -> Callable[[Path], Secret]:
    """What the options say, else a question at the terminal, else an error that says what is missing."""
    from harness.lab import secret_from
    from harness.vault.secret import Passphrase

    if passphrase_fd is not None:
        passphrase = Passphrase.from_descriptor(passphrase_fd)
        return lambda _place: passphrase
    if key_file is None and not os.environ.get("HARNESS_VAULT_KEY_FILE") and sys.stdin.isatty():
        return lambda place: Passphrase(
            click.prompt(f"passphrase of the vault {place}", hide_input=True, err=True).encode()
        )
    return secret_from(key_file)


def open_lab(
    *,
    boards_file: Path | None,
    out: Path | None,
    say: Say,
    purpose: str,
    vault_key_file: str | None = None,
    vault_passphrase_fd: int | None = None,
    time_left_s: float | None = None,
) -> Lab:
    """The lab that a command works in."""
    from harness.home import Home
    from harness.inventory.inventory import read_inventory
    from harness.lab import Lab

    deadline = deadline_in(time_left_s)
    out = out or Path("harness-out") / time.strftime("%Y%m%d-%H%M%S")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"the folder {out} cannot be made: {error.strerror}", todo="choose another with --out"
        ) from error
    return Lab(
        Home.of_user(),
        read_inventory(boards_file),
        out,
        vault_secret(vault_key_file, vault_passphrase_fd),
        purpose=purpose,
        say=say,
        deadline=deadline,
    )
