"""`harness boards`: what boards.yaml has, what is known of each, and who holds it; and the check that mends one."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from harness.attachment import labgrid_wish
from harness.cli.options import boards_option, json_option, open_lab, out_option, secret_options
from harness.doctor.finding import Report, lines_of
from harness.errors import LabError, UsageError
from harness.home import Home
from harness.inventory.entry import AnyEntry, LabgridEntry, PhysicalEntry, Rfc2217Entry, SerialEntry
from harness.inventory.inventory import read_inventory
from harness.lock_note import clock
from harness.provision.device_record import DeviceRecord, DeviceRecords
from harness.rack.coordinators import Coordinators
from harness.rack.health import Health, HealthBook, mend_command, take_back_command
from harness.rack.lease import Lease, holder_of
from harness.say import Say
from harness.state_folder import state_folder
from harness.vault.key_ref import DO_NOT_SHIP

COLUMNS = ("board", "chip", "link", "profile", "held by", "health", "last used", "ship", "burn up to", "tags")

EXIT_STILL_BROKEN = 3


@click.group(
    invoke_without_command=True,
    epilog="""\b
Examples:
  harness boards               who holds what since when, what is broken
  harness boards mend desk-c3  check a board that is latched broken
""",
)
@boards_option
@json_option
@click.pass_context
def boards(context: click.Context, boards_file: Path | None, as_json: bool) -> None:
    """List the boards of boards.yaml: chip, link, profile, who holds it, health, consent to burn. Opens no port."""
    if context.invoked_subcommand is not None:
        return
    inventory = read_inventory(boards_file)
    home = Home.of_user()
    book = HealthBook(home)
    coordinators = Coordinators()
    states = []
    for name, entry in inventory.boards.items():
        lease, unknown = holder_of(name, entry, inventory, home), None
        if lease is None and isinstance(entry, LabgridEntry):
            try:
                lease = coordinators.holder_of(name, entry)
            except LabError as error:
                unknown = error.message
        states.append(BoardState(name, entry, lease, book.of(name), unknown))
    rows = [_row(state, home, inventory.path) for state in states]
    if as_json:
        told = [row | state.to_fields() for row, state in zip(rows, states, strict=True)]
        click.echo(json.dumps({"format": 1, "boards": told}, indent=1))
        return
    if not rows:
        click.echo(
            "There is no boards.yaml here, or it names no board: commands without --board use throwaway twins."
        )
        return
    table = [COLUMNS, *[tuple(str(row[column]) for column in COLUMNS) for row in rows]]
    widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    for number, line in enumerate(table):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)
    for state in states:
        for text in state.lines():
            click.echo(text)


@boards.command(
    short_help="Check a board that is latched broken, and clear that if it is well.",
    epilog="Example: harness boards mend bench-c3",
)
@click.argument("names", nargs=-1, metavar="NAME...")
@click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="All boards with this tag, too; may be repeated."
)
@click.option("--yes", is_flag=True, help="Ask nothing: physical boards are reset by the check.")
@boards_option
@secret_options
@out_option
@json_option
@click.pass_context
def mend(
    context: click.Context,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    yes: bool,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Look whether each board answers, is the one that its entry means, and boots. THIS RESETS IT; nothing is written.

    What is latched broken is cleared only if nothing is wrong. A retired board stays retired; a tag does not mean it.
    Exit code 0: all are well; 3: one is not.
    """
    # Only what opens a board needs what a board needs.
    from harness.rack.mending import check_health

    outer = context.parent.params if context.parent is not None else {}
    boards_file, as_json = boards_file or outer.get("boards_file"), as_json or bool(outer.get("as_json"))
    inventory = read_inventory(boards_file)
    chosen = inventory.select([*names, *tags])
    book = HealthBook(Home.of_user())
    chosen = {name: entry for name, entry in chosen.items() if name in names or book.of(name).retired is None}
    if not chosen:
        broken = [name for name in inventory.boards if book.of(name).broken is not None]
        raise UsageError(
            "which board? "
            + (f"latched broken: {', '.join(broken)}" if broken else "none is latched broken"),
            todo="name it: harness boards mend NAME",
        )
    if not yes and sys.stdin.isatty() and any(isinstance(entry, PhysicalEntry) for entry in chosen.values()):
        click.confirm(f"The check resets {', '.join(chosen)}. Go on?", abort=True, err=True)
    told = []
    for name in chosen:
        before = book.of(name)
        with open_lab(
            boards_file=boards_file,
            out=out,
            say=Say(quiet=True),
            purpose="harness boards mend",
            vault_key_file=vault_key_file,
            vault_passphrase_fd=vault_passphrase_fd,
        ) as lab:
            report = Report(tuple(check_health(lab, name)))
            if report.ok:
                # While it is held: nobody latches it meanwhile.
                book.mend(name)
        told.append({"board": name, "was": before.broken, **report.to_json()})
        if not as_json:
            _tell_mended(name, before, report)
    if as_json:
        click.echo(json.dumps({"format": 1, "boards": told}, indent=1))
    return 0 if all(each["ok"] for each in told) else EXIT_STILL_BROKEN


def _tell_mended(name: str, before: Health, report: Report) -> None:
    click.secho(
        before.text() if before.broken is not None else f"board {name} is not latched broken", bold=True
    )
    for line in lines_of(report.findings):
        click.echo(line)
    if report.ok:
        said = "it is well, and not latched broken any more" if before.broken is not None else "it is well"
        click.secho(f"  {said}", fg="green")
    else:
        said = "it stays latched broken" if before.broken is not None else "it is not well"
        click.secho(f"  {said}", fg="red")
    if before.retired is not None:
        click.echo(f"  {before.retired_text()}, and stays so; to undo that: {take_back_command(name)}")


@dataclass(frozen=True, slots=True)
class BoardState:
    """A board as others have left it."""

    name: str
    entry: AnyEntry
    lease: Lease | None
    health: Health
    unknown: str | None = None
    """Why it cannot be said who holds it."""

    def lines(self) -> list[str]:
        """What does not fit into a table."""
        lines = [f"{self.name}: held by {self.lease.text()}"] if self.lease is not None else []
        if self.unknown is not None:
            lines.append(f"{self.name}: {self.unknown}")
        if self.health.retired is not None:
            lines.append(f"{self.health.retired_text()}; to undo that: {take_back_command(self.name)}")
        if self.health.broken is not None:
            lines.append(f"{self.health.text()}; to clear that: {mend_command(self.name)}")
        return lines

    def to_fields(self) -> dict[str, Any]:
        """For machines; times in seconds since 1970."""
        lease, health = self.lease, self.health
        return {
            "lease": asdict(lease) | {"overdue": lease.is_overdue} if lease is not None else None,
            "health": {key: value for key, value in asdict(health).items() if key != "board"},
        }

    @property
    def holder(self) -> str:
        """Who has it since when."""
        if self.lease is None:
            return "" if self.unknown is None else "?"
        since = f" since {clock(self.lease.since_s)}" if self.lease.since_s is not None else ""
        return f"{self.lease.user}{since}{', OVERDUE' if self.lease.is_overdue else ''}"

    @property
    def condition(self) -> str:
        """Healthy, as far as is known, or broken since when, or retired."""
        if self.health.retired is not None:
            return "retired"
        if self.health.broken is None:
            return "ok" if self.health.last_used_s is not None else ""
        return "BROKEN" + (f" since {clock(self.health.since_s)}" if self.health.since_s is not None else "")


def _row(state: BoardState, home: Home, path: Path | None) -> dict[str, Any]:
    name, entry = state.name, state.entry
    folder = (
        home.place_with_keys("devices")
        if isinstance(entry, PhysicalEntry)
        else state_folder(home, path, name, entry) / "devices"
    )
    known = [record for record in DeviceRecords(folder).all() if _is_of(record.mac, entry)]
    profile = f"{known[0].profile.value}, lock {known[0].lock.value}" if known else "unknown"
    if entry.profile is not None:
        profile += f" (pinned: {entry.profile})"
    return {
        "board": name,
        "chip": entry.chip,
        "link": f"{entry.link} {_place(entry)}".strip(),
        "profile": profile,
        "held by": state.holder,
        "health": state.condition,
        "last used": clock(state.health.last_used_s) if state.health.last_used_s is not None else "never",
        "ship": _ship(known),
        "burn up to": (entry.burn_up_to or "never") if isinstance(entry, PhysicalEntry) else "virtual",
        "tags": ", ".join(entry.tags),
        "mac": known[0].mac if known else entry.mac,
    }


def _ship(known: list[DeviceRecord]) -> str:
    """The mark of a device whose key is still only here; nothing is said of one that nothing is known of."""
    if not known:
        return ""
    return "" if known[0].shippable else f"{DO_NOT_SHIP} (key {known[0].key_state})"


def _is_of(mac: str, entry: AnyEntry) -> bool:
    return not isinstance(entry, PhysicalEntry) or mac == entry.mac


def _place(entry: AnyEntry) -> str:
    """Where a physical board is, in the word that its entry uses."""
    if isinstance(entry, Rfc2217Entry):
        return entry.url
    if isinstance(entry, LabgridEntry):
        return labgrid_wish(entry).text
    if isinstance(entry, SerialEntry):
        return entry.port or entry.usb_serial or entry.usb_location or f"with MAC {entry.mac}"
    return ""
