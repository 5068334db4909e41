"""`harness doctor`: what is wrong with this bench, and the sentence that mends it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from harness.cli.options import boards_option, json_option, secret_options
from harness.doctor.examination import Request, examination
from harness.doctor.finding import Finding, Level, Report, lines_of
from harness.doctor.udev import udev_rules
from harness.home import Home
from harness.lab import secret_from
from harness.report.workflow_commands import command
from harness.vault.secret import Passphrase, Secret

EXIT_SOMETHING_WRONG = 3

COLOURS = {Level.GOOD: "green", Level.WRONG: "red"}


@click.command(
    epilog="""\b
Examples:
  harness doctor
  harness doctor --board desk-c3 --probe          that board alone; resets it
  harness doctor --vault-key-file ~/keys/lab.key  opens every key of the vault, too
""",
)
@click.option(
    "--board", multiple=True, metavar="NAME", help="Only these boards (name or tag; may be repeated)."
)
@click.option(
    "--probe",
    is_flag=True,
    help="Read chip, MAC and eFuses of physical boards, too. THIS RESETS THEM; nothing is written.",
)
@click.option(
    "--udev-rule",
    is_flag=True,
    help="Print the udev rule that opens boards' ports to the group dialout, and do nothing else.",
)
@boards_option
@secret_options
@json_option
def doctor(
    board: tuple[str, ...],
    probe: bool,
    udev_rule: bool,
    boards_file: Path | None,
    vault_key_file: str | None,
    vault_passphrase_fd: int | None,
    as_json: bool,
) -> int:
    """Look at this machine, its ports, the vault and every board; say what is wrong and what mends it.

    Exit code 0: nothing is wrong (✓, or · for what is worth knowing); 3: something is (✗). Nothing is ever written to a
    board or its eFuses, and a board that somebody holds is left alone.
    """
    if udev_rule:
        click.echo(udev_rules(), nl=False)
        return 0
    request = Request(Home.of_user(), boards_file, board, probe, _secret(vault_key_file, vault_passphrase_fd))
    found: list[Finding] = []
    for finding in examination(request) if as_json else _told(examination(request)):
        found.append(finding)
    report = Report(tuple(found))
    if not as_json and os.environ.get("GITHUB_ACTIONS") == "true":
        for finding in report.wrong:
            click.echo(
                command("error", f"{finding.text}\n{finding.todo}", title=f"harness doctor: {finding.area}")
            )
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        click.echo()
        click.secho(report.last_line(), bold=True, fg="green" if report.ok else "red")
    return 0 if report.ok else EXIT_SOMETHING_WRONG


def _told(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Prints each finding as it is made, under its area."""
    area = None
    for finding in findings:
        if finding.area != area:
            area = finding.area
            click.secho(area, bold=True)
        first, *rest = lines_of([finding])
        click.secho(first, fg=COLOURS.get(finding.level))
        for line in rest:
            click.echo(line)
        yield finding


def _secret(key_file: str | None, passphrase_fd: int | None) -> Callable[[Path], Secret] | None:
    """What opens the vault, if anything was named. The doctor never asks for a passphrase."""
    if passphrase_fd is not None:
        passphrase = Passphrase.from_descriptor(passphrase_fd)
        return lambda _place: passphrase
    if key_file is not None or os.environ.get("HARNESS_VAULT_KEY_FILE"):
        return secret_from(key_file)
    return None
