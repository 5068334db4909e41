"""`harness rescue`: a dead board behind Secure Download Mode, written to as the device that a person says it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.board import Board
from harness.cli.options import (
    boards_option,
    burn_option,
    consent_of,
    demand_of,
    firmware_options,
    json_option,
    open_lab,
    out_option,
    secret_options,
    time_left_option,
)
from harness.errors import RefusedError
from harness.preparation import Planned
from harness.provision.profile import Profile
from harness.provision.rescue import NOT_VERIFIED, require_typed
from harness.rescue import Patient, Rescued, carry_out_rescue, examine, plan_rescue
from harness.say import Say
from harness.vault.key_ref import plain_mac


@click.command(
    epilog="""\b
Examples:
  harness rescue ship-042 --as 7c:df:a1:00:00:2a        asks for the MAC on the board's label
  harness rescue ship-042 --as 7c:df:a1:00:00:2a --mac 7c:df:a1:00:00:2a
""",
)
@click.argument("board")
@click.option(
    "--as",
    "record",
    required=True,
    metavar="MAC",
    help="The device record, and the vault's key, that the board is taken for.",
)
@click.option(
    "--mac",
    metavar="MAC",
    help="The MAC on the board's label, as your word that it is this board. Without it you are asked to type it.",
)
@firmware_options
@burn_option
@time_left_option
@boards_option
@secret_options
@out_option
@json_option
def rescue(
    board: str,
    record: str,
    mac: str | None,
    apps: tuple[Path, ...],
    idf: Path | None,
    write: tuple[str, ...],
    erase: tuple[str, ...],
    burn: tuple[str, ...],
    unknown_burns: tuple[str, ...],
    time_left_s: float | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Write bootloader, partition table, otadata and app to BOARD again, enciphered with the key of a device record.

    For a board whose firmware does not boot and whose UART is in Secure Download Mode: it cannot say who it is. What
    its ROM still shows (key purposes, encryption counter, security flags) must match the record, and a person must
    type its MAC. Only ciphertext is written. Nothing can be read back: the proof is that it boots, says its MAC, and
    hashes its own flash.
    """
    say = Say(quiet=as_json)
    record = plain_mac(record)
    if mac is not None and plain_mac(mac) != record:
        raise RefusedError(
            f"--mac says {plain_mac(mac)}, --as {record}. Nothing was written",
            board=board,
            todo="read the MAC off the board's label: it must be that of the record",
        )
    with open_lab(
        boards_file=boards_file,
        out=out,
        say=say,
        purpose="harness rescue",
        vault_key_file=vault_key_file,
        vault_passphrase_fd=vault_passphrase_fd,
        time_left_s=time_left_s,
    ) as lab:
        consent = consent_of(lab.inventory, lab.inventory.named(board), burn, unknown_burns)
        demand = demand_of(
            lab.inventory, Profile.RELEASE.value, None, apps=apps, idf=idf, write=write, erase=erase
        )
        opened = lab.open(board)
        say.step(f"{board}: asking the ROM what it still tells, and the firmware whether it runs")
        patient = examine(opened, record, say=say)
        say.detail(f"its last boot: {patient.last_words}")
        planned = plan_rescue(opened, patient, demand, lab.home, say=say)
        for line in planned.plan.text().splitlines():
            say.line(line)
        typed = mac if mac is not None else _typed(opened, patient)
        done = carry_out_rescue(opened, patient, planned, typed, consent, lab.home, say=say)
    _tell(board, planned, done, as_json=as_json)


def _typed(board: Board, patient: Patient) -> str:
    """The MAC as a person types it, in full; nothing is offered to be confirmed by Enter."""
    mac = patient.record.mac
    if not _at_a_terminal():
        raise RefusedError(
            "nobody is there to type its MAC. Nothing was written",
            board=board.name,
            todo=f"run it at a terminal, or give the MAC on the board's label: --mac {'xx:' * 5}xx",
        )
    typed = str(
        click.prompt(
            f"{board.name} cannot say who it is. Type the MAC on its label, in full, to write to it as {mac}",
            err=True,
        )
    )
    require_typed(typed, patient.record, board=board.name)
    return typed


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def _tell(board: str, planned: Planned, done: Rescued, *, as_json: bool) -> None:
    running = done.running
    if as_json:
        said = {
            "format": 1,
            "board": board,
            "record": done.record.mac,
            "plan": planned.plan.id,
            "written": [step.name for step in planned.plan.writes],
            "verified_over_uart": False,
            "boot": done.boot,
            "told_mac": running.mac if running is not None else None,
            "version": running.version if running is not None else None,
            "app_sha256": done.app_sha256,
        }
        click.echo(json.dumps(said, indent=1))
        return
    click.echo(f"{board}: {done.boot}")
    if running is None:
        click.echo(f"{board}: its app says nothing of itself: the log of its boot is all the proof")
    else:
        click.echo(
            f"{board}: its firmware says that this is {running.mac}, and hashes {running.slot} to what was written"
        )
    click.echo(f"{board}: rescued as {done.record.mac}; {NOT_VERIFIED}")
