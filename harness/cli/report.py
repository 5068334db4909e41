"""`harness report`: the HTML report of a run, made again from what the run left in its folder."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from harness.qualify.evidence import require_sealed_record
from harness.report.html import write_report
from harness.report.run_folder import read_run


@click.command(
    "report",
    epilog="Example: harness report harness-out/20260101-120000 --open",
)
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--open", "open_it", is_flag=True, help="Open it in the browser.")
def report(folder: Path, open_it: bool) -> None:
    """Make report.html in FOLDER from its run.json and logs.

    Also of a run that was killed, of one that an older harness made, and of a folder that was moved here from another
    machine. The record of a qualification must be the one that was sealed.
    """
    run, folder = read_run(folder)
    require_sealed_record(folder)
    path = write_report(run, folder)
    click.echo(path)
    if open_it:
        webbrowser.open(path.resolve().as_uri())
