"""`harness run`: the main job."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import click

from harness.cli.options import (
    boards_option,
    burn_option,
    chip_option,
    consent_of,
    demand_of,
    demand_options,
    firmware_options,
    is_said,
    json_option,
    open_lab,
    out_option,
    profile_for,
    secret_options,
    time_left_option,
    way_options,
)
from harness.inventory.entry import TwinEntry
from harness.main_job import NOT_COVERED, run_main_job, write_verdict
from harness.report.command_recording import CommandRecording, recorded_command
from harness.report.verdict import Verdict
from harness.say import Say


@click.command(
    epilog="""\b
Examples:
  harness run                                             a throwaway ESP32-C3 twin, release mode
  harness run --chip esp32 --profile development
  harness run --board twin-c3 --out DIR                   a board of boards.yaml; its state persists
""",
)
@click.option(
    "--board",
    metavar="NAME",
    help="Board of boards.yaml; its state persists. Default: a throwaway twin of --chip.",
)
@chip_option
@demand_options
@way_options
@firmware_options
@burn_option
@time_left_option
@boards_option
@secret_options
@out_option
@json_option
def run(
    board: str | None,
    chip: str,
    profile: str,
    lock: str | None,
    by_firmware: bool,
    device_key: bool,
    aggressive_revoke: bool,
    revoke: tuple[int, ...],
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
) -> int:
    """Run the main job: provision, boot, update to the other slot and back, and prove it from the log.

    Leaves a folder of artefacts: time-stamped serial log, plan, boot records, server journal, bundles, verdict.
    """
    say = Say(quiet=as_json)
    subject = f"{board or f'twin-{chip}'}, {profile}"
    with (
        recorded_command("run", subject, tell=say.line) as recording,
        open_lab(
            boards_file=boards_file,
            out=out,
            say=say,
            purpose="harness run",
            vault_key_file=vault_key_file,
            vault_passphrase_fd=vault_passphrase_fd,
            time_left_s=time_left_s,
        ) as lab,
    ):
        recording.into(lab.out)
        entry = lab.inventory.named(board) if board else TwinEntry(chip=chip)
        if board:
            profile = profile_for(board, entry, profile, said=is_said("profile"))
        demand = demand_of(
            lab.inventory,
            profile,
            lock,
            apps=apps,
            idf=idf,
            write=write,
            erase=erase,
            by_firmware=by_firmware,
            device_key=device_key,
            aggressive_revoke=aggressive_revoke,
            revoke=revoke,
        )
        consent = consent_of(lab.inventory, entry, burn, unknown_burns)
        watch = lab.watch(board) if board else None
        with watch.watching() if watch else nullcontext():
            opened = lab.open(board) if board else lab.throwaway(chip)
            with recording.watching(opened) as steps:
                verdict = run_main_job(
                    opened,
                    demand,
                    consent,
                    lab.home,
                    say=say,
                    steps=steps,
                    on_ready=watch.ready if watch else lambda: None,
                )
        recording.recorder.note(NOT_COVERED)
        write_verdict(verdict, opened.folder)
        recording.conclude(verdict)
    _tell(verdict, opened.folder, recording, as_json=as_json)
    return verdict.exit_code


def _tell(verdict: Verdict, folder: Path, recording: CommandRecording, *, as_json: bool) -> None:
    report = recording.report
    if as_json:
        told = {"artefacts": str(folder), "report": str(report) if report else None}
        click.echo(json.dumps(verdict.to_json() | told, indent=1))
        return
    *claims, last = verdict.lines()
    click.echo()
    for line in claims:
        click.echo(line)
    click.secho(last, bold=True, fg={0: "green", 1: "red"}.get(verdict.exit_code, "yellow"))
    click.echo(f"Artefacts: {folder}")
    if report is not None:
        click.echo(f"Report:    {report}")
