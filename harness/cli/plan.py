"""`harness plan` and `harness provision`: print what would be done; do exactly that."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from harness.board import Board
from harness.cli.options import (
    boards_option,
    burn_option,
    consent_of,
    demand_of,
    demand_options,
    firmware_options,
    is_said,
    json_option,
    open_lab,
    out_option,
    profile_for,
    reflash_option,
    secret_options,
    time_left_option,
    way_options,
)
from harness.errors import RefusedError, UsageError
from harness.home import Home
from harness.inventory.inventory import Inventory
from harness.lab import Lab
from harness.preparation import Consent, Demand, Planned, carry_out_plan, make_plan
from harness.provision.plan import Plan
from harness.provision.profile import Lock, Profile
from harness.say import Say

SHOWN_CHANGES = 8
"""More changes than these say no more than that it is another state."""


@click.command(
    epilog="Example: harness plan --board desk-c3 --profile release",
)
@click.option("--board", required=True, metavar="NAME", help="Board of boards.yaml.")
@demand_options
@way_options
@reflash_option
@firmware_options
@boards_option
@secret_options
@out_option
@json_option
def plan(
    board: str,
    profile: str,
    lock: str | None,
    by_firmware: bool,
    device_key: bool,
    aggressive_revoke: bool,
    revoke: tuple[int, ...],
    reflash: bool,
    apps: tuple[Path, ...],
    idf: Path | None,
    write: tuple[str, ...],
    erase: tuple[str, ...],
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
        pinned = lab.inventory.named(board).profile
        wanted = _Wanted(
            # Of a person who names another one, only a plan is printed.
            profile if is_said("profile") else pinned or profile,
            lock,
            _absolute(apps),
            str(idf.absolute()) if idf else None,
            write,
            erase,
            by_firmware,
            device_key,
            aggressive_revoke,
            reflash,
            revoke,
        )
        planned = make_plan(opened, wanted.demand(lab.inventory), lab.home, say=say)
        _keep(lab.home, opened, planned.plan, wanted)
    click.echo(planned.plan.to_json() if as_json else planned.plan.text())
    if not as_json and not planned.plan.empty:
        command = _command(board, boards_file, planned.plan, opened, vault_key_file, vault_passphrase_fd)
        click.echo(f"\nTo carry it out:  {command}", err=True)


@click.command(
    epilog="""\b
Examples:
  harness provision --board twin-c3 --profile development
  harness provision --board desk-c3 --plan ID --burn desk-c3    exactly the plan that was printed
  harness provision --board desk-c3 --profile release+sbv2 --revoke 0 --burn desk-c3
""",
)
@click.option("--board", metavar="NAME", help="Board of boards.yaml (with --plan: that of the plan).")
@click.option(
    "--plan", "plan_id", metavar="ID", help="Do exactly this plan, or refuse because the board has changed."
)
@demand_options
@way_options
@reflash_option
@firmware_options
@burn_option
@time_left_option
@boards_option
@secret_options
@out_option
@json_option
def provision(
    board: str | None,
    plan_id: str | None,
    profile: str,
    lock: str | None,
    by_firmware: bool,
    device_key: bool,
    aggressive_revoke: bool,
    revoke: tuple[int, ...],
    reflash: bool,
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
    """Bring a board into a profile: keys, eFuses, bootloader, partition table, encrypted otadata, firmware.

    Without --plan it plans, prints the plan and does it. A board that is there already is left alone. A physical
    board needs consent: mac and burn_up_to in its entry, and --burn NAME here.
    """
    say = Say(quiet=as_json)
    wanted = _Wanted(
        profile,
        lock,
        _absolute(apps),
        str(idf.absolute()) if idf else None,
        write,
        erase,
        by_firmware,
        device_key,
        aggressive_revoke,
        reflash,
        revoke,
    )
    if plan_id:
        stored = _stored(Home.of_user(), plan_id)
        _require_same(plan_id, stored, board, wanted)
        board, wanted = stored.board, stored.wanted
    if board is None:
        raise UsageError("which board?", todo="give --board NAME, or --plan ID of a plan that was printed")
    with open_lab(
        boards_file=boards_file,
        out=out,
        say=say,
        purpose="harness provision",
        vault_key_file=vault_key_file,
        vault_passphrase_fd=vault_passphrase_fd,
        time_left_s=time_left_s,
    ) as lab:
        entry = lab.inventory.named(board)
        chosen = plan_id is not None or is_said("profile")
        wanted = replace(wanted, profile=profile_for(board, entry, wanted.profile, said=chosen))
        demand = wanted.demand(lab.inventory)
        consent = consent_of(lab.inventory, entry, burn, unknown_burns)
        watch = lab.watch(board)
        with watch.watching():
            done = _provisioned(lab, board, demand, consent, plan_id, say)
            if not done.empty:
                watch.ready()
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
    lab: Lab, name: str, demand: Demand, consent: Consent, plan_id: str | None, say: Say
) -> Plan:
    opened = lab.open(name)
    planned: Planned = make_plan(opened, demand, lab.home, say=say, to_carry_out=True)
    if plan_id is not None and planned.plan.id != plan_id:
        before = Plan.from_json(_stored(lab.home, plan_id).plan)
        changes = before.changed_since(planned.state)
        if before.mac != planned.plan.mac:
            changes = (f"it was made for {before.mac}, this chip is {planned.plan.mac}",)
        more = f" and {len(changes) - SHOWN_CHANGES} more" if len(changes) > SHOWN_CHANGES else ""
        what = "; ".join(changes[:SHOWN_CHANGES]) + more
        what = what or "what would be written, or the vault's key, is another"
        raise RefusedError(
            f"plan {plan_id} does not fit any more: {what}. Nothing was done",
            board=name,
            todo=f"read the new plan: harness plan --board {name} --profile {demand.profile.value}",
        )
    for line in planned.plan.text().splitlines():
        say.line(line)
    carry_out_plan(opened, planned, consent, lab.home, say=say)
    return planned.plan


def _absolute(folders: Iterable[Path]) -> tuple[str, ...]:
    """A plan is carried out from whatever folder a person is in by then."""
    return tuple(str(folder.expanduser().absolute()) for folder in folders)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What a plan was asked for, as it can be stored."""

    profile: str
    lock: str | None
    app: tuple[str, ...] = ()
    idf: str | None = None
    write: tuple[str, ...] = ()
    erase: tuple[str, ...] = ()
    by_firmware: bool = False
    device_key: bool = False
    aggressive_revoke: bool = False
    reflash: bool = False
    revoke: tuple[int, ...] = ()

    def demand(self, inventory: Inventory) -> Demand:
        return demand_of(
            inventory,
            self.profile,
            self.lock,
            apps=tuple(map(Path, self.app)),
            idf=Path(self.idf) if self.idf else None,
            write=self.write,
            erase=self.erase,
            by_firmware=self.by_firmware,
            device_key=self.device_key,
            aggressive_revoke=self.aggressive_revoke,
            reflash=self.reflash,
            revoke=self.revoke,
        )


def _command(
    board: str,
    boards_file: Path | None,
    plan: Plan,
    opened: Board,
    key_file: str | None,
    passphrase_fd: int | None,
) -> str:
    """What a person pastes to have the plan carried out."""
    words = ["harness", "provision", "--board", board, "--plan", plan.id]
    words += ["--boards", str(boards_file)] if boards_file else []
    words += ["--vault-key-file", key_file] if key_file else []
    words += ["--vault-passphrase-fd", str(passphrase_fd)] if passphrase_fd is not None else []
    if opened.link.physical:
        words += ["--burn", board] if plan.burns_up_to is not None else []
        words += ["--accept-unknown-burns", board] if plan.unknown_burns else []
    return shlex.join(words)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A plan that was printed, as it lies in the state folder."""

    board: str
    wanted: _Wanted
    plan: str
    """As `Plan.to_json` gives it."""


def _keep(home: Home, board: Board, plan: Plan, wanted: _Wanted) -> None:
    text = json.dumps({"format": 1, "board": board.name, "plan": plan.to_json(), **asdict(wanted)})
    (home.plans / f"{plan.id}.json").write_text(text, encoding="utf-8")


def _require_same(plan_id: str, stored: _Stored, board: str | None, wanted: _Wanted) -> None:
    """A plan says what it is for; options that say something else are a mistake, whichever of the two is meant."""
    said = {
        word: getattr(wanted, word) for word in asdict(wanted) if is_said("apps" if word == "app" else word)
    }
    for word, value in {"board": board, **said}.items():
        of_plan = stored.board if word == "board" else getattr(stored.wanted, word)
        if value is not None and value != of_plan:
            shown, asked = _shown(of_plan), _shown(value)
            raise UsageError(
                f"plan {plan_id} is for {word} {shown}, not {asked}",
                todo=f"leave --{word} out, or print a plan that fits: harness plan --board NAME",
            )


def _shown(value: str | bool | Iterable[str | int] | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else ", ".join(map(str, value or ())) or "by default"


def _stored(home: Home, plan_id: str) -> _Stored:
    """The plan that was printed as `plan_id`.

    Raises:
        UsageError: there is none, or it is not readable.
    """
    if not (plan_id.isalnum() and plan_id.isascii()):
        raise UsageError(f"'{plan_id}' is not a plan id", todo="copy the id that `harness plan` printed")
    path = home.plans / f"{plan_id}.json"
    again = "print it again with `harness plan --board NAME`"
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no plan {plan_id}", todo="print one with `harness plan --board NAME`"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"plan {plan_id} in {path} cannot be read: {error}", todo=again) from error
    version = note.get("format") if isinstance(note, dict) else None
    if isinstance(version, int) and version > 1:
        raise UsageError(
            f"plan {plan_id} was made by a newer harness", todo="use that one; nothing was touched"
        )
    try:
        if version != 1:
            raise ValueError("it has no format number")
        stored = _Stored(note["board"], _wanted(note), note["plan"])
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(f"plan {plan_id} in {path} is damaged: {error}", todo=again) from error
    if not (isinstance(stored.board, str) and isinstance(stored.plan, str)):
        raise UsageError(f"plan {plan_id} in {path} is damaged: board or plan is not text", todo=again)
    return stored


def _wanted(note: dict[str, Any]) -> _Wanted:
    """What a stored plan was asked for.

    Raises:
        ValueError, KeyError: it is damaged.
    """
    profile, lock, idf = note["profile"], note["lock"], note.get("idf")
    Profile(profile)
    if lock is not None:
        Lock(lock)
    if not (idf is None or isinstance(idf, str)):
        raise ValueError("idf is not text")
    lists = {}
    for word in ("app", "write", "erase"):
        values = note.get(word, [])
        if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
            raise ValueError(f"{word} is not a list of texts")
        lists[word] = tuple(values)
    ways = {
        word: note.get(word, False) for word in ("by_firmware", "device_key", "aggressive_revoke", "reflash")
    }
    if not all(isinstance(value, bool) for value in ways.values()):
        raise ValueError("how the profile is reached is not said with yes or no")
    revoke = note.get("revoke", [])
    if not (isinstance(revoke, list) and all(type(slot) is int for slot in revoke)):
        raise ValueError("revoke is not a list of slots")
    return _Wanted(
        profile,
        lock,
        lists["app"],
        idf,
        lists["write"],
        lists["erase"],
        ways["by_firmware"],
        ways["device_key"],
        ways["aggressive_revoke"],
        ways["reflash"],
        tuple(revoke),
    )
