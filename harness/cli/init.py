"""`harness init`: a commented boards.yaml from what is plugged in."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from harness.cli.options import json_option
from harness.doctor.identification import identify_at
from harness.errors import LabError, UsageError
from harness.inventory.discover import Attached, boards_yaml, look_around
from harness.inventory.inventory import DEFAULT_FILE
from harness.inventory.schema import EDITOR_LINE, FILE_NAME, boards_schema, schema_text
from harness.links.find_port import port_holder, serial_ports


@click.command(
    epilog="""\b
Examples:
  harness init                  what is plugged in, by its USB descriptors
  harness init --probe --print  ask the chips, too; write nothing
""",
)
@click.option(
    "--boards",
    "boards_file",
    type=click.Path(path_type=Path),
    default=Path(DEFAULT_FILE),
    show_default=True,
    help="The file to write. One that exists is never overwritten.",
)
@click.option("--probe", is_flag=True, help="Ask each board's ROM for chip and MAC. THIS RESETS THE BOARDS.")
@click.option("--print", "only_print", is_flag=True, help="Print it and write no file.")
@json_option
def init(boards_file: Path, probe: bool, only_print: bool, as_json: bool) -> None:
    """Write a commented boards.yaml from what is plugged in: two virtual boards, real ones, examples.

    Looking opens no port, so nothing is reset; with --probe the ports of USB bridges are opened that nobody holds.
    """
    if not only_print:
        _require_absent(boards_file)
    attached = look_around(
        serial_ports(),
        holder=port_holder,
        identify=identify_at if probe else None,
    )
    text = boards_yaml(attached)
    if only_print:
        click.echo(text, nl=False)
        return
    schema = _write_schema(boards_file.parent)
    if (boards_file.parent / FILE_NAME).is_file():
        text = f"{EDITOR_LINE}\n{text}"
    _write_new(boards_file, text)
    if as_json:
        click.echo(json.dumps({"format": 1, "file": str(boards_file), "ports": _rows(attached)}, indent=1))
        return
    _tell(boards_file, attached, probe=probe)
    if schema is not None:
        click.echo(f"{schema}: what editors check and complete it by")
    click.echo("Next: harness doctor")


def _require_absent(file: Path) -> None:
    """Before any board is reset."""
    if os.path.lexists(file):
        raise UsageError(
            f"{file} exists, and is not overwritten",
            todo="write another with --boards FILE, or see what it would be: harness init --print",
        )


def _write_new(file: Path, text: str) -> None:
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        _require_absent(file)
    except OSError as error:
        raise LabError(
            f"{file} cannot be written: {error.strerror}",
            todo="go to a folder of yours, or give --boards FILE",
        ) from error


def _write_schema(folder: Path) -> Path | None:
    """The schema by which editors check the file, if there is none yet; None: it was not written.

    It is a convenience: where it cannot be written, boards.yaml is as good without it.
    """
    file = folder / FILE_NAME
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(schema_text(boards_schema()))
    except OSError:
        return None
    return file


def _tell(file: Path, attached: Sequence[Attached], *, probe: bool) -> None:
    click.echo(f"{file}: written")
    boards = [one for one in attached if one.may_be_a_board]
    for one in boards:
        who = f"{one.chip} {one.mac}" if one.chip else (one.problem or "chip not known")
        held = f", held by {one.holder}: not opened" if one.holder else ""
        click.echo(f"  {one.port.device}: {who}{held}")
    if not boards:
        click.echo("  no board is plugged in by USB: it has two virtual boards, and examples for real ones")
    elif not probe and any(one.chip is None for one in boards):
        click.echo("  Complete the commented entries by hand, or let the boards say it (this resets them):")
        click.echo(f"    rm {file} && harness init --probe")


def _rows(attached: Sequence[Attached]) -> list[dict[str, object]]:
    return [
        {
            "port": one.port.device,
            "name": one.name,
            "usb_serial": one.port.usb_serial,
            "usb_location": one.port.usb_location,
            "held_by": one.holder,
            "chip": one.chip,
            "mac": one.mac,
            "problem": one.problem,
        }
        for one in attached
    ]
