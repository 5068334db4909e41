"""`harness plan` and `harness provision`: print what would be done; do exactly that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.board import Board
from harness.cli.options import (
    boards_option,
    burn_option,
    demand_options,
    json_option,
    open_lab,
    out_option,
    secret_options,
)
from harness.errors import RefusedError, UsageError
from harness.home import Home
from harness.lab import Lab
from harness.preparation import Consent, Demand, Planned, carry_out_plan, make_plan
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.say import Say


@click.command()
@click.option("--board", required=True, metavar="NAME", help="Board of boards.yaml.")
@demand_options
@boards_option
@secret_options
@out_option
@json_option
def plan(
    board: str,
    profile: str,
    lock: str | None,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the plan from what BOARD is to what the profile wants, with its id. Touches nothing on the board."""
    say = Say(quiet=as_json)
    with open_lab(
        boards_file=boards_file,
        out=out,
        say=say,
        purpose="harness plan",
        vault_key_file=vault_key_file,
        vault_passphrase_fd=vault_passphrase_fd,
    ) as lab:
        opened = lab.open(board)
        planned = make_plan(opened, _demand(profile, lock), lab.home, say=say)
        _keep(lab.home, opened, planned.plan, profile, lock)
    click.echo(planned.plan.to_json() if as_json else planned.plan.text())
    if not as_json and not planned.plan.empty:
        click.echo(
            f"\nTo carry it out:  harness provision --board {board} --plan {planned.plan.id}", err=True
        )


@click.command()
@click.option("--board", metavar="NAME", help="Board of boards.yaml (with --plan: that of the plan).")
@click.option(
    "--plan", "plan_id", metavar="ID", help="Do exactly this plan, or refuse because the board has changed."
)
@demand_options
@burn_option
@boards_option
@secret_options
@out_option
@json_option
def provision(
    board: str | None,
    plan_id: str | None,
    profile: str,
    lock: str | None,
    burn: tuple[str, ...],
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Bring a board into a profile: keys, eFuses, bootloader, partition table, encrypted otadata, firmware.

    Without --plan it plans, prints the plan and does it. A board that is there already is left alone. A physical
    board needs consent: mac and burn_up_to in its entry, and --burn NAME here.
    """
    say = Say(quiet=as_json)
    stored = _stored(Home.of_user(), plan_id) if plan_id else None
    if stored is not None:
        board, profile, lock = stored["board"], stored["profile"], stored["lock"]
    if board is None:
        raise UsageError("which board?", todo="give --board NAME, or --plan ID of a plan that was printed")
    with open_lab(
        boards_file=boards_file,
        out=out,
        say=say,
        purpose="harness provision",
        vault_key_file=vault_key_file,
        vault_passphrase_fd=vault_passphrase_fd,
    ) as lab:
        done = _provisioned(lab, board, _demand(profile, lock), frozenset(burn), plan_id, say)
    if as_json:
        click.echo(done.to_json())
    else:
        said = (
            "nothing to do: it is there already; no eFuse was burned"
            if done.empty
            else f"plan {done.id} is done"
        )
        click.echo(f"{board}: {said}")


def _provisioned(
    lab: Lab, name: str, demand: Demand, burn: frozenset[str], plan_id: str | None, say: Say
) -> Plan:
    opened = lab.open(name)
    planned: Planned = make_plan(opened, demand, lab.home, say=say)
    if plan_id is not None and planned.plan.id != plan_id:
        before = Plan.from_json(_stored(lab.home, plan_id)["plan"])
        changes = before.changed_since(planned.state)
        what = "; ".join(changes) if changes else "what would be written, or the vault's key, is another"
        raise RefusedError(
            f"plan {plan_id} does not fit any more: {what}. Nothing was done",
            board=name,
            todo=f"read the new plan: harness plan --board {name} --profile {demand.profile.value}",
        )
    for line in planned.plan.text().splitlines():
        say.line(line)
    carry_out_plan(opened, planned, Consent(lab.inventory.named(name), burn), say=say)
    return planned.plan


def _demand(profile: str, lock: str | None) -> Demand:
    return Demand(Profile(profile), Lock(lock) if lock else None)


def _keep(home: Home, board: Board, plan: Plan, profile: str, lock: str | None) -> None:
    note = {"format": 1, "board": board.name, "profile": profile, "lock": lock, "plan": plan.to_json()}
    (home.plans / f"{plan.id}.json").write_text(json.dumps(note), encoding="utf-8")


def _stored(home: Home, plan_id: str) -> dict[str, Any]:
    """The plan that was printed as `plan_id`.

    Raises:
        UsageError: there is none, or it is not readable.
    """
    if not plan_id.isalnum():
        raise UsageError(f"'{plan_id}' is not a plan id", todo="copy the id that `harness plan` printed")
    try:
        note: dict[str, Any] = json.loads((home.plans / f"{plan_id}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"there is no plan {plan_id}", todo="print one with `harness plan --board NAME`"
        ) from error
    if note.get("format") != 1:
        raise UsageError(
            f"plan {plan_id} was made by a newer harness", todo="use that one; nothing was touched"
        )
    return note
