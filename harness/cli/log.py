"""`harness log`: what a serial log says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.cli.options import json_option
from harness.console.inference import boots_to_json
from harness.console.render import read_boots, render_log


@click.command(
    epilog="Example: harness log harness-out/20260101-120000/twin-esp32c3/serial.log --boots",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--boots", is_flag=True, help="Only the boots, one line each.")
@json_option
def log(file: Path, boots: bool, as_json: bool) -> None:
    """Read a serial log FILE (raw bytes, or one of ours): its boots, what follows from them, the annotated lines."""
    if as_json:
        reading = read_boots(file)
        click.echo(json.dumps(boots_to_json(reading.records, reading.findings), indent=1))
    elif boots:
        for record in read_boots(file).records:
            click.echo(record.summary())
    else:
        # A closed standard output (`>&-`) is None.
        for line in render_log(file, colour=sys.stdout is not None and sys.stdout.isatty()):
            click.echo(line, color=True)
