"""`harness keys`: what flash keys there are, and what becomes of them: import, export, hand over, forget."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from harness.chips import chip_named
from harness.cli.options import (
    boards_option,
    json_option,
    open_lab,
    out_option,
    secret_options,
    vault_secret,
)
from harness.errors import NotProvenError, RefusedError, UsageError
from harness.home import Home
from harness.inventory.entry import PhysicalEntry
from harness.inventory.inventory import Inventory, read_inventory
from harness.key_import import Imported, import_and_prove, import_unproven
from harness.lab import own_vault
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.say import Say
from harness.state_folder import state_folder
from harness.vault import copies, key_life
from harness.vault.hand_over import CHALLENGE_FILE, espsecure_command, make_parcel, read_challenge
from harness.vault.key_record import KeyRecord
from harness.vault.key_ref import DO_NOT_SHIP, key_id, plain_mac
from harness.vault.key_source import read_key_file
from harness.vault.vault import Vault

F = TypeVar("F", bound=Callable[..., Any])

MOST_ANSWER_BYTES = 4096


@click.group(
    epilog="""\b
A key's life:
  test-only     only you have it; the device must not be shipped
  handed-over   the receiver has shown that their copy is whole
  forgotten     destroyed here; updates are enciphered where its receiver keeps it
  unproven      imported, and nothing shows yet that it is the chip's
  device-made   the device made it; nobody else has it
""",
)
def keys() -> None:
    """Look after flash keys: list, import, export, hand over, forget.

    They are in the vault of physical boards (HARNESS_VAULT), or in a virtual board's own (--board NAME).
    """


def _board_option(function: F) -> F:
    return click.option(
        "--board", metavar="NAME", help="The key of this board of boards.yaml, instead of by MAC."
    )(function)


@dataclass(frozen=True, slots=True)
class _Keys:
    """One vault, the device records beside it, and what its boards are called."""

    vault: Vault
    records: DeviceRecords
    names: dict[str, str]
    """By MAC."""

    @classmethod
    def open(
        cls, board: str | None, boards_file: Path | None, key_file: str | None, passphrase_fd: int | None
    ) -> _Keys:
        """Of the physical boards, or of the virtual board `board`."""
        home, inventory = Home.of_user(), read_inventory(boards_file)
        entry = inventory.named(board) if board is not None else None
        if entry is None or isinstance(entry, PhysicalEntry):
            vault = Vault.open(home.vault, vault_secret(key_file, passphrase_fd)(home.vault))
            return cls(vault, DeviceRecords(home.devices), _names(inventory))
        assert board is not None
        state = state_folder(home, inventory.path, board, entry)
        if not (state / "vault").is_dir():
            # Looking at a vault does not make one.
            raise UsageError(
                f"board {board} has no vault yet in {state}",
                todo=f"provision it first: harness provision --board {board}",
            )
        vault = own_vault(state)
        return cls(vault, DeviceRecords(state / "devices"), {each.mac: board for each in vault.key_records()})

    def mac_of(self, mac: str | None, board: str | None) -> str:
        """The MAC that is meant: as given, or that of the board."""
        if mac is not None:
            return plain_mac(mac)
        if board is None:
            raise UsageError("which key?", todo="give its MAC, or --board NAME")
        of_board = [each for each, name in self.names.items() if name == board]
        if len(of_board) != 1:
            raise UsageError(
                f"board {board} has {len(of_board) or 'no'} known MAC{'s' if len(of_board) > 1 else ''}",
                todo="give the MAC: harness keys list shows them",
            )
        return of_board[0]

    def settled(self, record: KeyRecord) -> None:
        """A key has got into another state: what depends on that is brought up to date, and said."""
        self.records.note_key(record)
        for report in copies.refresh(self.vault):
            click.echo(report.text())


def _names(inventory: Inventory) -> dict[str, str]:
    return {
        entry.mac: name
        for name, entry in inventory.boards.items()
        if isinstance(entry, PhysicalEntry) and entry.mac is not None
    }


def _common(function: F) -> F:
    """``--board``, ``--boards`` and what opens the vault."""
    return _board_option(boards_option(secret_options(function)))


# --- list ---


@keys.command(
    "list",
    short_help="List the keys, and which devices must not be shipped.",
    epilog="""\b
Examples:
  harness keys list --vault-key-file ~/keys/lab.key
  harness keys list --board twin-c3 --history
""",
)
@click.option("--history", is_flag=True, help="Also every change of each key's state, with its time (UTC).")
@_common
@json_option
def list_keys(
    history: bool,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    as_json: bool,
) -> None:
    """List the keys: device, key id, state, and which devices must not be shipped. No key is shown."""
    opened = _Keys.open(board, boards_file, vault_key_file, vault_passphrase_fd)
    known = opened.vault.key_records()
    rows = [_row(each, opened.names.get(each.mac), opened.records.read(each.mac)) for each in known]
    if as_json:
        click.echo(json.dumps({"format": 1, "keys": rows}, indent=1))
        return
    if not rows:
        click.echo(f"{opened.vault.path}: no keys")
        return
    columns = ("mac", "chip", "key id", "state", "ship", "board", "profile")
    table = [columns, *[tuple(str(row[column] or "-") for column in columns) for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for number, line in enumerate(table):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)
        if history and number > 0:
            for change in known[number - 1].history:
                click.echo(f"    {change.text()}")
    for text in _shared(known):
        click.echo(text)


def _row(key: KeyRecord, board: str | None, device: DeviceRecord | None) -> dict[str, Any]:
    return {
        "mac": key.mac,
        "chip": key.chip_name,
        "key id": key.key_id or None,
        "state": key.state.value,
        "since": key.since,
        "ship": "yes" if key.state.shippable else DO_NOT_SHIP,
        "board": board,
        "profile": f"{device.profile.value}, lock {device.lock.value}" if device is not None else None,
        "made by": key.made_by,
        "answer awaited": key.challenge is not None,
        "history": [{"state": each.state.value, "at": each.at, "note": each.note} for each in key.history],
    }


def _shared(known: tuple[KeyRecord, ...]) -> list[str]:
    """Keys that several devices have: whoever gets at one of them has them all."""
    macs: dict[str, list[str]] = {}
    for each in known:
        if each.key_id:
            macs.setdefault(each.key_id, []).append(each.mac)
    return [
        f"note: key {which} is that of {len(devices)} devices: {', '.join(devices)}"
        for which, devices in macs.items()
        if len(devices) > 1
    ]


# --- import ---


@keys.command(
    "import",
    short_help="Take in a key that somebody burned, and have the board prove it.",
    epilog="Example: harness keys import flash.key --board desk-c3 --vault-key-file ~/keys/lab.key",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--board", required=True, metavar="NAME", help="The board in whose eFuses the key is.")
@click.option(
    "--no-proof", is_flag=True, help="Do not ask the board for a proof now: the key stays unproven."
)
@boards_option
@secret_options
@out_option
@json_option
def import_file(
    file: Path,
    board: str,
    no_proof: bool,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Take in the key in FILE that somebody burned into BOARD, and have the board prove it.

    FILE is as espsecure writes it, or hexadecimal digits. Where flash can be read, the bootloader must decipher with it.
    Where it cannot, the board's firmware is sent one sector: what was in the slot that does not run is lost. Until
    it is proven nothing is enciphered with it. A key that is here is never replaced.
    """
    say = Say(quiet=as_json)
    entry = read_inventory(boards_file).named(board)
    chip = chip_named(entry.chip)
    key = read_key_file(file, chip)
    physical = isinstance(entry, PhysicalEntry)
    if no_proof and isinstance(entry, PhysicalEntry) and entry.mac is not None:
        # Its entry says who it is: it need not be at hand.
        known = _Keys.open(board, boards_file, vault_key_file, vault_passphrase_fd)
        vault = known.vault
        done = import_unproven(vault, known.records, entry.mac, chip, key)
        reports = copies.refresh(vault)
    else:
        with open_lab(
            boards_file=boards_file,
            out=out,
            say=say,
            purpose="harness keys import",
            vault_key_file=vault_key_file,
            vault_passphrase_fd=vault_passphrase_fd,
        ) as lab:
            opened = lab.open(board)
            vault = opened.vault
            done = import_and_prove(opened, key, say=say, prove=not no_proof)
            reports = copies.refresh(vault)
    unburnable = physical and not vault.copies()
    if as_json:
        click.echo(json.dumps(_import_fields(board, done), indent=1))
    else:
        click.echo(_import_text(board, done, file))
        for report in reports:
            click.echo(report.text())
        if unburnable:
            click.echo("note: the vault has no second copy yet: harness vault backup DIR", err=True)
    if not done.record.ever_proven and not no_proof:
        how = done.proof.how if done.proof is not None else "nothing was asked"
        raise NotProvenError(
            f"the key {done.record.key_id} is kept as unproven: {how}",
            board=board,
            todo="import it again when that has changed; until then nothing is enciphered with it",
        )


def _import_fields(board: str, done: Imported) -> dict[str, Any]:
    return {
        "format": 1,
        "board": board,
        "mac": done.record.mac,
        "key_id": done.record.key_id,
        "state": done.record.state.value,
        "was_here": done.was_here,
        "proof": done.proof.how if done.proof is not None else None,
    }


def _import_text(board: str, done: Imported, file: Path) -> str:
    record = done.record
    here = "was here already" if done.was_here else "imported"
    proof = f"; {done.proof.how}" if done.proof is not None else ""
    lines = [f"{board}: key {record.key_id} of {record.mac} {here}, {record.state.value}{proof}"]
    if not record.state.shippable:
        lines.append(f"  {DO_NOT_SHIP}: the key is {record.state.value}")
    lines.append(f"  {file} is yours to keep or to destroy")
    return "\n".join(lines)


# --- export ---


@keys.command(
    short_help="Write a key to a file for espsecure, readable by you alone.",
    epilog="Example: harness keys export --board desk-c3 --out desk-c3.key",
)
@click.argument("mac", required=False)
@click.option(
    "--out", "file", type=click.Path(path_type=Path), required=True, metavar="FILE", help="A new file."
)
@_common
def export(
    mac: str | None,
    file: Path,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Write the key of MAC to a file for espsecure, readable by you alone. The key's record notes it."""
    opened = _Keys.open(board, boards_file, vault_key_file, vault_passphrase_fd)
    record = key_life.export_key(opened.vault, opened.mac_of(mac, board), file)
    click.echo(f"{file}: key {record.key_id} of {record.mac} ({record.chip.title})")
    click.echo(
        "This file is the key itself, not enciphered: whoever reads it can read and write the flash of this device for "
        "as long as it lives. To give it to somebody: harness keys hand-over.",
        err=True,
    )
    opened.settled(record)


# --- hand-over ---


@keys.command(
    "hand-over",
    short_help="Give a key to who will own the device, in two steps.",
    epilog="""\b
Examples:
  harness keys hand-over --board ship-042 --out for-acme --receiver ACME --certificate acme.pem
  harness keys hand-over --board ship-042 --answer answer.txt
""",
)
@click.argument("mac", required=False)
@click.option(
    "--out",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Begin: make this new folder with the copy for the receiver, and a block to encipher.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The receiver's RSA certificate: the copy is enciphered for it (CMS), and of use to nobody else.",
)
@click.option("--receiver", default="", metavar="NAME", help="Who gets it, for the key's history.")
@click.option("--answer", metavar="FILE|HEX", help="End: what the receiver made of the block.")
@_common
def hand_over(
    mac: str | None,
    folder: Path | None,
    certificate: Path | None,
    receiver: str,
    answer: str | None,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Give the key of MAC to who will own the device, in two steps: a copy and a block with --out, then --answer.

    Only when the receiver's copy has enciphered the block to the same bytes does the key count as handed over.
    """
    if (folder is None) == (answer is None):
        raise UsageError(
            "a hand-over has two steps",
            todo="begin with --out DIR, or end with --answer FILE (or the hex digits)",
        )
    opened = _Keys.open(board, boards_file, vault_key_file, vault_passphrase_fd)
    which = opened.mac_of(mac, board)
    if answer is not None:
        record = key_life.hand_over(opened.vault, which, _answer(answer))
        click.echo(f"key {record.key_id} of {record.mac}: {record.state.value}; the receiver's copy is whole")
        opened.settled(record)
        return
    assert folder is not None
    parcel = make_parcel(opened.vault, which, folder, receiver=receiver, certificate=certificate)
    record, challenge = parcel.record, parcel.record.challenge
    assert challenge is not None
    click.echo(f"{folder}: key {record.key_id} of {record.mac} for {receiver or 'the receiver'}")
    how = (
        "enciphered for that certificate" if parcel.enciphered else "NOT enciphered: carry it, do not mail it"
    )
    click.echo(f"  {parcel.key_file.name}  {how}")
    click.echo("The receiver enciphers the block with their copy and sends back what comes out:")
    click.echo(f"  {espsecure_command(record, challenge)}")
    click.echo(f"Then:  harness keys hand-over {record.mac} --answer answer.bin")
    opened.settled(record)


def _answer(text: str) -> bytes:
    """From hexadecimal digits, or a file with them, or with the bytes."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        with Path(text).open("rb") as stream:
            data = stream.read(MOST_ANSWER_BYTES)
    except OSError as error:
        raise UsageError(
            f"the answer '{text}' is neither hexadecimal digits nor a readable file: {error.strerror}"
        ) from error
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        return data


@keys.command(
    short_help="As the receiver of a key: show that your copy is whole.",
    epilog="Example: harness keys answer for-acme/challenge.json --key my-copy.key",
)
@click.argument("challenge", type=click.Path(path_type=Path), metavar=CHALLENGE_FILE.upper())
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Your copy of the key.",
)
def answer(challenge: Path, key_file: Path) -> None:
    """As the receiver of a key: encipher the block of a hand-over with your copy, and print the answer.

    The answer tells nothing of the key.
    """
    chip, asked, wanted = read_challenge(challenge)
    key = read_key_file(key_file, chip)
    if key_id(key) != wanted:
        raise RefusedError(
            f"{key_file} is key {key_id(key)}, and key {wanted} is meant",
            todo="take the copy that came with this challenge",
        )
    click.echo(key_life.answer_to(chip, key, asked).hex())


# --- forget ---


@keys.command(
    short_help="Destroy a key here, once its receiver has it.",
    epilog="Example: harness keys forget --board ship-042",
)
@click.argument("mac", required=False)
@click.option("--lose-updates", is_flag=True, help="Although nobody else is known to have the key.")
@click.option("--confirm", metavar="MAC", help="The MAC once more, typed, instead of being asked for it.")
@_common
def forget(
    mac: str | None,
    lose_updates: bool,
    confirm: str | None,
    board: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
) -> None:
    """Destroy the key of MAC in the vault and its copies within reach. This cannot be undone.

    From then on the device takes only updates that are enciphered where its receiver keeps the key. A record without
    the key stays, so that nobody makes another one for this device.
    """
    opened = _Keys.open(board, boards_file, vault_key_file, vault_passphrase_fd)
    which = opened.mac_of(mac, board)
    record = key_life.require_forgettable(opened.vault, which, lose_updates=lose_updates)
    _require_typed(record, confirm)
    done = key_life.forget(opened.vault, which, lose_updates=lose_updates)
    opened.records.note_key(done.record)
    click.echo(f"key {done.record.key_id} of {done.record.mac}: forgotten; destroyed in {opened.vault.path}")
    for place in done.copies:
        click.echo(f"  destroyed in the copy {place}")
    for place, why in done.left:
        click.echo(f"  NOT destroyed in the copy {place}: {why}; when it is there, run this again")
    click.echo("  exported files, backups of disks and what was handed over are not touched")


def _require_typed(record: KeyRecord, confirm: str | None) -> None:
    """The MAC, typed by who wants it: not copied from the argument by the shell's history."""
    if confirm is None and sys.stdin.isatty():
        confirm = click.prompt(
            f"type the MAC of the {record.chip.title} whose key {record.key_id} shall be destroyed", err=True
        )
    if confirm is None:
        raise RefusedError(
            f"the key {record.key_id} of {record.mac} is destroyed only when its MAC is typed for it",
            todo="add --confirm MAC",
        )
    if plain_mac(confirm) != record.mac:
        raise RefusedError(f"{confirm} is not {record.mac}: nothing was destroyed")
