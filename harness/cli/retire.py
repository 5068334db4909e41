"""`harness retire`: what is irreversible on a board, what runs on it, where its key is; no run chooses it any more."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.board import Board
from harness.chips import Chip, chip_named
from harness.cli.options import boards_option, json_option, open_lab, out_option, secret_options, vault_secret
from harness.errors import HarnessError
from harness.home import Home
from harness.inventory.entry import AnyEntry, PhysicalEntry
from harness.inventory.inventory import read_inventory
from harness.lab import Lab, own_vault
from harness.links.link import BootMode
from harness.preparation import ask_rom
from harness.provision.chip_state import Download, unreachable_state
from harness.provision.consumables import added, stocks_of
from harness.provision.consumption_ledger import ConsumptionLedger
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.provision.recognition import profile_of
from harness.rack.health import HealthBook, take_back_command
from harness.retirement import KeyPlace, Look, Retirement, retirement_of
from harness.say import Say
from harness.state_folder import state_folder
from harness.vault.vault import Vault

BOOT_TIMEOUT_S = 20.0


@click.command(
    epilog="""\b
Examples:
  harness retire desk-c3                     asks its ROM (nothing is written), and marks it as retired
  harness retire desk-c3 --no-look           by its records alone; its port is not opened
  harness retire desk-c3 --undo              takes it back
""",
)
@click.argument("board")
@click.option("--reason", default="", metavar="TEXT", help="Why: others are told when they want it.")
@click.option("--no-look", is_flag=True, help="Do not open its port: say what its records say.")
@click.option("--dry-run", is_flag=True, help="Say it all, and do not mark it as retired.")
@click.option("--undo", is_flag=True, help="Take it back: it is a board of the rack again.")
@boards_option
@secret_options
@out_option
@json_option
def retire(
    board: str,
    reason: str,
    no_look: bool,
    dry_run: bool,
    undo: bool,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what is irreversible on BOARD, what runs on it and where its key is, and mark it as retired.

    Its ROM is asked for its eFuses and the app is started once; nothing is written, burned or destroyed.
    """
    if undo:
        _take_back(board, boards_file, as_json=as_json)
        return
    say = Say(quiet=as_json)
    with open_lab(
        boards_file=boards_file,
        out=out,
        say=say,
        purpose="harness retire",
        vault_key_file=vault_key_file,
        vault_passphrase_fd=vault_passphrase_fd,
    ) as lab:
        entry = lab.inventory.named(board)
        records = _records(lab, board, entry)
        look, mac = (Look(None, None, "its port was not opened"), None) if no_look else _look(lab, board)
        key_file, descriptor = vault_key_file, vault_passphrase_fd
        done = _gather(lab, board, entry, records, look, mac, (key_file, descriptor))
    if not dry_run:
        HealthBook(Home.of_user()).retire(board, reason, "harness retire")
    if as_json:
        click.echo(json.dumps(done.to_json() | {"retired": not dry_run}, indent=1))
        return
    for line in done.lines():
        click.echo(line)
    if done.not_read:
        click.echo(f"Not read: {done.not_read}")
    if not dry_run:
        click.echo(f"{board} is retired: no run chooses it ({take_back_command(board)} takes it back)")


def _take_back(name: str, boards_file: Path | None, *, as_json: bool) -> None:
    read_inventory(boards_file).named(name)
    book = HealthBook(Home.of_user())
    was = book.of(name).retired
    book.take_back(name)
    if as_json:
        click.echo(json.dumps({"format": 1, "board": name, "was_retired": was is not None, "retired": False}))
    else:
        click.echo(f"{name} is a board of the rack again" if was is not None else f"{name} was not retired")


def _records(lab: Lab, name: str, entry: AnyEntry) -> DeviceRecords:
    if isinstance(entry, PhysicalEntry):
        return DeviceRecords(lab.home.devices)
    return DeviceRecords(state_folder(lab.home, lab.inventory.path, name, entry) / "devices")


def _look(lab: Lab, name: str) -> tuple[Look, str | None]:
    """Asks the ROM and starts the app once; what does not answer is said, and is no reason to know nothing."""
    try:
        board = lab.open(name)
    except HarnessError as error:
        return Look(None, None, f"{error.message.splitlines()[0]}"), None
    state, why = None, None
    try:
        state = ask_rom(board)
    except HarnessError as error:
        why = f"its ROM does not answer: {error.message.splitlines()[0]}"
    mac = state.mac if state is not None and state.mac else getattr(board.link, "mac", None)
    if state is not None and state.download is not Download.OPEN:
        why = "its ROM is locked: it tells no eFuse any more"
    return Look(state, _boot(board), why), str(mac).lower() if mac else None


def _boot(board: Board) -> str | None:
    try:
        return board.watch_boot(timeout_s=BOOT_TIMEOUT_S).summary()
    except HarnessError:
        board.reset(BootMode.RUN)
        return None


def _gather(
    lab: Lab,
    name: str,
    entry: AnyEntry,
    records: DeviceRecords,
    look: Look,
    mac: str | None,
    opener: tuple[str | None, int | None],
) -> Retirement:
    record = _record(records, mac or entry.mac)
    mac = mac or entry.mac or (record.mac if record is not None else None)
    chip_state = look.state or unreachable_state(_chip(entry), mac)
    profile = record.profile if record is not None else None
    lock = record.lock if record is not None else None
    if look.state is not None:
        found = profile_of(look.state, record)
        profile, lock = found.profile, found.lock
    ledger = ConsumptionLedger(records.folder)
    uses = ledger.read(mac) if mac else ()
    stocks = stocks_of(chip_state, record)
    if record is not None and chip_state.download is not Download.OPEN:
        stocks = stocks.less(added(use.uses for use in uses if use.at >= record.updated))
    return retirement_of(
        name,
        _chip(entry),
        mac,
        record,
        look,
        _key_place(lab, name, entry, mac, record, opener),
        uses=uses,
        stocks=stocks,
        profile=profile,
        lock=lock,
        virtual=not isinstance(entry, PhysicalEntry),
    )


def _record(records: DeviceRecords, mac: str | None) -> DeviceRecord | None:
    if mac is not None:
        return records.read(mac)
    everything = records.all()
    return everything[0] if len(everything) == 1 else None


def _chip(entry: AnyEntry) -> Chip:
    return chip_named(entry.chip)


def _key_place(
    lab: Lab,
    name: str,
    entry: AnyEntry,
    mac: str | None,
    record: DeviceRecord | None,
    opener: tuple[str | None, int | None],
) -> KeyPlace:
    """From the vault where it can be opened, else from the device record."""
    state = (
        None if isinstance(entry, PhysicalEntry) else state_folder(lab.home, lab.inventory.path, name, entry)
    )
    place = lab.home.vault if state is None else state / "vault"
    known = (record.key_id, record.key_state) if record is not None else (None, None)
    if not place.is_dir():
        return KeyPlace(str(place), *known, not_looked="there is none")
    try:
        vault = own_vault(state) if state is not None else Vault.open(place, vault_secret(*opener)(place))
        key = vault.key_record(mac) if mac else None
        return KeyPlace.of(str(place), key, tuple(str(each) for each in vault.copies()))
    except HarnessError as error:
        return KeyPlace(str(place), *known, not_looked=error.message.splitlines()[0])
