"""`harness encrypt`: the files that carry one app to one board, for every slot."""

from __future__ import annotations

from pathlib import Path

import click

from harness.build.board_keys import KeySources
from harness.build.signing import ImageSigner
from harness.chips import chip_named
from harness.cli.options import boards_option, json_option, secret_options, vault_secret
from harness.errors import FormatError, UsageError
from harness.formats.partition_table import PartitionTable
from harness.home import Home
from harness.inventory.entry import PhysicalEntry
from harness.inventory.inventory import read_inventory
from harness.lab import open_vault
from harness.ota.bundle import make_bundle, write_bundle
from harness.ota.release import read_release, signer
from harness.provision.boot_keys import BootDigest
from harness.provision.device_record import DeviceRecords
from harness.state_folder import base_folder, state_folder

MAX_TABLE_OFFSET = 16 << 20
"""The largest flash that is provided for, in bytes."""


@click.command(
    epilog="Example: harness encrypt build/app.bin --board desk-c3 --table partitions.csv --out bundle/",
)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--board", required=True, metavar="NAME", help="The board whose key enciphers.")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Its partition table: partitions.csv or partition-table.bin.",
)
@click.option(
    "--table-offset",
    type=str,
    metavar="OFFSET",
    default="0x10000",
    show_default=True,
    help="Where the table lies, for offsets that a CSV leaves open.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder for the bundle."
)
@boards_option
@secret_options
@json_option
def encrypt(
    image: Path,
    board: str,
    table: Path,
    table_offset: str,
    out: Path,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """Encipher the app IMAGE for one board: a bundle with ciphertext and signed package for every OTA slot.

    The ciphertext is what `esptool write-flash` would put into that slot; the package is what the device downloads.
    For a board with secure boot an image that is not signed yet is signed first.
    """
    inventory = read_inventory(boards_file)
    entry = inventory.named(board)
    home = Home.of_user()
    mac, records = entry.mac, DeviceRecords(home.devices)
    if not isinstance(entry, PhysicalEntry):
        # A virtual board has a vault once it has been provisioned; asking for its key must not make one.
        records = DeviceRecords(state_folder(home, inventory.path, board, entry) / "devices")
        mac = next((record.mac for record in records.all()), None)
    if mac is None:
        raise UsageError(
            f"board {board} has no known MAC", todo="provision it first, or write 'mac:' in its entry"
        )
    vault = open_vault(home, inventory.path, board, entry, vault_secret(vault_key_file, vault_passphrase_fd))
    release = read_release(image)
    record = records.read(mac)
    if record is not None and record.profile.secure_boot:
        sources = KeySources.of_entry(entry, base_folder(inventory.path))
        images = ImageSigner.of(sources, vault, chip_named(entry.chip), home.builds)
        known = tuple(
            BootDigest(int(slot), bytes.fromhex(digest), f"slot {slot}")
            for slot, digest in record.digests.items()
        )
        release = images.release(release, known or images.own)
    bundle = make_bundle(
        release,
        chip=chip_named(entry.chip),
        mac=mac,
        key=vault.flash_key(mac),
        table=_table(table, table_offset),
        sign=signer(vault.signing_key()),
    )
    write_bundle(bundle, out)
    if as_json:
        click.echo((out / "manifest.json").read_text(encoding="utf-8").rstrip())
        return
    click.echo(
        f"{out}: {bundle.release.project_name} {bundle.release.version} for {mac} (key id {bundle.key_id})"
    )
    for slot in bundle.slots:
        click.echo(
            f"  {slot.label} at 0x{slot.offset:x}: {slot.body_file} (ciphertext), {slot.package_file} (signed package)"
        )


def _table(path: Path, offset: str) -> PartitionTable:
    try:
        table_offset = int(offset, 0)
    except ValueError:
        table_offset = -1
    if not 0 <= table_offset < MAX_TABLE_OFFSET:
        raise UsageError(
            f"--table-offset: '{offset}' is not an offset in flash", todo="write it as 0x8000 or 0x10000"
        )
    give = "give partitions.csv, or the partition-table.bin of the build"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"partition table {path} cannot be read: {error.strerror}", todo=give) from error
    try:
        if data[:2] == b"\xaa\x50":
            return PartitionTable.from_binary(data)
        return PartitionTable.from_csv(data.decode("utf-8"), table_offset=table_offset)
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is neither a binary partition table nor text", todo=give) from error
    except FormatError as error:
        raise FormatError(f"{path}: {error.message}", todo=error.todo) from error
